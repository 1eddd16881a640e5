"""The command line, as a user runs it: exit codes, what goes where, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from app.cli import main
from app.cli.arguments import parser as command_line
from app.cli.refusals import verdict_code
from worker.services import Services
from worker.tasks.attempt import run_job

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
MODEL = str(DIGITS / "digits.onnx")
RUN = "import sys; from app.cli import main; sys.exit(main())"


class TestCompress:
    def test_results_are_written_and_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "deep" / "out"
        out.mkdir(parents=True)
        (out / "front-7.onnx").write_text("of an earlier run")
        (out / "mine.txt").write_text("mine")
        recipe = tmp_path / "recipe.json"
        recipe.write_text('{"passes": [{"method": "magnitude_pruning", "amount": 0.5}]}')
        data = str(DIGITS / "calibration.npz")
        code = main(
            ["compress", MODEL, "-o", str(out), "--recipe", str(recipe), "--calibration", data]
        )
        said = capsys.readouterr()
        assert code == 0, said.err
        assert {path.name for path in out.iterdir()} == {
            "bundle.zip", "mine.txt", "model.onnx", "report.html", "report.json",
        }  # fmt: skip
        assert (out / "model.onnx").stat().st_uid == os.geteuid()
        onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
        report = json.loads((out / "report.json").read_text())
        assert report["verdict"]["sentence"] in said.out
        assert "measure  " in said.err  # the stage, in its column
        assert "measure  " not in said.out

    def test_weights_in_other_files_are_sent_along(self, tmp_path: Path) -> None:
        model = parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 17]>'
            "g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }"
        )
        weight = np.ones((64, 64), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        path = tmp_path / "model.onnx"
        onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
        (tmp_path / "unrelated.bin").write_text("not its own")
        assert main(["inspect", str(path)]) == 0
        (tmp_path / "weights").unlink()
        assert main(["inspect", str(path)]) == 2

    def test_nothing_is_left_where_it_fails(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert main(["compress", MODEL, "-o", str(out), "--recipe", "nonsense"]) == 2
        assert not out.exists()
        assert "[invalid_recipe]" in capsys.readouterr().err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupting_ends_the_child_and_clears_up(
        self, tmp_path: Path, number: int
    ) -> None:
        out = tmp_path / "out"
        # Whoever runs the tests in the background may have had them ignore interrupts.
        heeding = (
            f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {RUN}"
        )
        command = [sys.executable, "-c", heeding, "compress", MODEL, "-o", str(out)]
        started = subprocess.Popen(
            [*command, "--recipe", "int8"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert started.stderr is not None
        assert "convert" in started.stderr.readline()  # the child speaks
        started.send_signal(number)
        _, said = started.communicate(timeout=30)
        assert started.returncode == 130, said
        assert "interrupted" in said
        assert "Traceback" not in said
        assert not out.exists()

    def test_a_child_of_a_killed_command_is_gone(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", RUN, "compress", MODEL, "-o", str(tmp_path / "out")]
        started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert started.stderr is not None
        started.stderr.readline()
        children = _children(started.pid)
        started.kill()
        started.communicate()
        assert children
        assert _gone(children[0])


class TestInspect:
    def test_json_holds_what_the_summary_says(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", MODEL, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["format"], found["opset"]) == ("onnx", 17)
        assert main(["inspect", MODEL, "--no-sandbox"]) == 0
        told = capsys.readouterr().out
        assert "input   x: float32 [N, 1, 8, 8]" in told
        for weight in found["weights"]:
            assert weight["name"] in told

    def test_missing_shapes_are_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", str(DIGITS / "digits.pt")]) == 2
        said = capsys.readouterr().err
        assert "[missing_inputs]" in said
        assert '"shape"' in said


class TestRemote:
    """Against a real server; the job is run here, as a worker would."""

    @pytest.fixture
    def server(self, client: httpx.Client) -> str:
        return str(client.base_url)

    def test_a_job_goes_there_and_its_results_come_back(
        self,
        server: str,
        services: Services,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        recipe = '{"passes": [{"method": "magnitude_pruning", "amount": 0.5}]}'
        data = str(DIGITS / "calibration.npz")
        arguments = ["--recipe", recipe, "--calibration", data, "--server", server]
        assert main(["submit", MODEL, *arguments]) == 0
        job = capsys.readouterr().out.strip()
        assert main(["status", job, "--server", server]) == 0
        assert capsys.readouterr().out.startswith("queued")
        out = tmp_path / "out"
        assert main(["download", job, "-o", str(out), "--server", server]) == 2
        assert "[not_ready]" in capsys.readouterr().err
        assert not list(out.iterdir())
        run_job(services, job)
        assert main(["wait", job, "--server", server]) == 0
        assert "Done as asked" in capsys.readouterr().out
        assert main(["download", job, "-o", str(out), "--server", server]) == 0
        assert {path.name for path in out.iterdir()} == {
            "bundle.zip", "model.onnx", "report.html", "report.json",
        }  # fmt: skip
        onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])

    def test_a_job_that_failed_tells_why(
        self, server: str, services: Services, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = str(DIGITS / "digits.pt")
        assert main(["submit", model, "--server", server, "--json"]) == 0
        job = json.loads(capsys.readouterr().out)["id"]
        run_job(services, job)
        assert main(["wait", job, "--server", server]) == 2
        assert "[missing_inputs]" in capsys.readouterr().err

    def test_a_job_can_be_canceled(
        self, server: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["submit", MODEL, "--server", server]) == 0
        job = capsys.readouterr().out.strip()
        assert main(["cancel", job, "--server", server]) == 0
        assert capsys.readouterr().out == "canceled\n"
        assert main(["wait", job, "--server", server]) == 1

    def test_the_service_refuses_in_the_same_words(
        self, server: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["submit", MODEL, "--recipe", "nonsense", "--server", server]) == 2
        assert "[invalid_recipe]" in capsys.readouterr().err
        assert main(["status", "0" * 32, "--server", server]) == 2
        assert "[not_found]" in capsys.readouterr().err


class TestTerminal:
    def test_names_in_a_model_cannot_steer_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 17]>'
            "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
        )
        evil = "\x1b[2J\x9b31mx"
        model.graph.input[0].name = model.graph.node[0].input[0] = evil
        onnx.save(model, tmp_path / "evil.onnx")
        for arguments in ([], ["--json"]):
            main(["inspect", str(tmp_path / "evil.onnx"), *arguments])
            said = capsys.readouterr()
            assert not set("\x1b\x9b") & set(said.out + said.err)


class TestRefusals:
    """Culprit, code and remedy; 2 for what the user can mend."""

    @pytest.mark.parametrize(
        ("arguments", "code", "culprit"),
        [
            (["compress", "no.onnx", "-o", "out"], "file_not_found", "no.onnx"),
            (["compress", str(DIGITS), "-o", "out"], "file_not_found", "digits"),
            (["compress", MODEL, "-o", "/proc/no/out"], "invalid_output", "/proc/no/out"),
            (["compress", MODEL, "-o", MODEL], "invalid_output", "digits.onnx"),
            (["compress", MODEL, "-o", "out", "--recipe", "{"], "invalid_recipe", "--recipe"),
            (
                ["compress", MODEL, "-o", "out", "--recipe", "no.json"],
                "file_not_found",
                "no.json",
            ),
            (["compress", MODEL, "-o", "out", "--calibration", "no"], "file_not_found", "no"),
            (["inspect", MODEL, "--inputs", "[1]"], "invalid_inputs", "--inputs"),
            (["inspect", MODEL, "--inputs", "{x}"], "invalid_inputs", "--inputs"),
            (["status", "../../healthz"], "not_found", "../../healthz"),
            (["serve", "--port", "99999"], "invalid_parameter", "port"),
        ],
    )
    def test_bad_input_is_named(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        code: str,
        culprit: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert f"[{code}]" in said.err
        assert culprit in said.err
        assert not said.out
        assert not (tmp_path / "out").exists()

    def test_a_service_that_is_not_there_is_said_so(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["status", "01", "--server", "http://127.0.0.1:9"]) == 1
        assert "[server_unreachable]" in capsys.readouterr().err

    def test_unknown_words_are_refused(self) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["compress", MODEL, "--fast"])
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("outcome", "fail_if_worse", "code"),
    [
        ("better", False, 0),
        ("not_better", False, 3),
        ("as_asked_but_slower", False, 0),
        ("as_asked_but_slower", True, 3),
        ("as_asked_but_worse", True, 3),
        ("not_verified", True, 0),
        (None, True, 0),
    ],
)
def test_the_exit_code_tells_the_outcome(outcome: str, fail_if_worse: bool, code: int) -> None:
    assert verdict_code(outcome, fail_if_worse=fail_if_worse) == code


def test_every_command_has_help() -> None:
    for command in ("serve", "compress", "inspect", "submit", "status", "wait", "download"):
        with pytest.raises(SystemExit) as ended:
            command_line().parse_args([command, "--help"])
        assert ended.value.code == 0


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _gone(pid: int) -> bool:
    for _ in range(60):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


class TestOwnMetric:
    def test_the_bound_holds_for_the_users_own_metric(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        metric = tmp_path / "weights.py"
        # A metric that only sees how many weights are zero: pruning halves it, as asked.
        metric.write_text(
            "import onnx\n"
            "from onnx import numpy_helper\n"
            "def evaluate(path):\n"
            "    print('evaluating')\n"
            "    model = onnx.load(path)\n"
            "    arrays = [numpy_helper.to_array(t) for t in model.graph.initializer]\n"
            "    return [(a != 0).mean() for a in arrays if a.ndim > 1]\n"
        )
        out, recipe = (
            tmp_path / "out",
            '{"passes": [{"method": "magnitude_pruning", "amount": 0.5}]}',
        )
        arguments = [
            "compress",
            MODEL,
            "-o",
            str(out),
            "--recipe",
            recipe,
            "--metric",
            str(metric),
        ]
        assert main([*arguments, "--fail-if-worse"]) == 3
        report = json.loads((out / "report.json").read_text())
        assert report["verdict"]["outcome"] == "as_asked_but_worse"
        accuracy = report["accuracy"]
        assert accuracy["metric"] == "weights.py"
        assert accuracy["before"] == pytest.approx(1, abs=0.01)
        assert accuracy["after"] < 0.8
        assert accuracy["interval"][0] <= accuracy["drop"] <= accuracy["interval"][1]
        assert "evaluating" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        "code",
        ["def evaluate(path): return float('nan')", "def evaluate(path): 1 / 0", "x = 1"],
    )
    def test_a_metric_that_fails_is_named(
        self, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        metric = tmp_path / "broken.py"
        metric.write_text(code)
        out = str(tmp_path / "out")
        arguments = ["compress", MODEL, "-o", out, "--recipe", "prune-l1"]
        assert main([*arguments, "--metric", str(metric)]) == 2
        assert "broken.py" in capsys.readouterr().err
