"""The child of a job, with real libraries and with models that mean harm."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from worker.isolation import (
    STAGES,
    Cause,
    Ended,
    Limits,
    Progress,
    Request,
    open_result,
    remove_folder,
    run_child,
)

RESULTS = ("model.onnx", "report.json", "report.html", "bundle.zip")
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
GIB = 1 << 30
LIMITS = Limits(wall_seconds=120, cpu_seconds=120, memory_bytes=2 * GIB, disk_bytes=GIB)
HEADER = '<ir_version: 9, opset_import: ["" : 17]>'

Run = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "job"
    folder.mkdir()
    yield folder
    remove_folder(folder)


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    def run(
        model: Path,
        *,
        kind: str = "inspect",
        limits: Limits = LIMITS,
        on_message: Callable[[Progress], None] = lambda _: None,
        **more: Any,
    ) -> Ended:
        request = Request(kind=kind, model=str(model), name=model.name, **more)
        return run_child(
            request,
            folder,
            limits=limits,
            on_message=on_message,
            stop=lambda: None,
            measuring_lock=tmp_path / "lock",
        )

    return run


def written(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(HEADER + text), path)
    return path


class TestJobs:
    def test_a_model_is_compressed_inside_of_the_sandbox(self, run: Run, folder: Path) -> None:
        said: list[Progress] = []
        ended = run(
            DIGITS / "digits.onnx",
            kind="compress",
            recipe="int8",
            calibration=str(DIGITS / "calibration.npz"),
            on_message=said.append,
        )
        assert ended.cause is Cause.DONE, ended.stderr
        assert ended.result is not None
        report = ended.result["report"]
        assert report["after"]["bytes"] < 0.4 * report["before"]["bytes"]
        assert report["model"]["name"] == "digits.onnx"
        assert report["before"]["peak_memory_bytes"] > 0
        assert {f"out/{name}" for name in RESULTS} <= set(ended.result["files"])
        with open_result(folder, "out/report.json") as file:
            assert json.load(file)["after"]["bytes"] == report["after"]["bytes"]
        shares = [one.share for one in said]
        assert shares == sorted(shares)
        places = [STAGES.index(one.stage) for one in said]
        assert places == sorted(places)

    def test_torchscript_is_converted_inside_of_the_sandbox(self, run: Run) -> None:
        given = {"x": {"shape": [1, 1, 8, 8], "dtype": "float32"}}
        ended = run(DIGITS / "digits.pt", inputs=given)
        assert ended.cause is Cause.DONE, (ended.error, ended.stderr)
        assert ended.result is not None
        found = ended.result["inspection"]
        assert found["format"] == "torchscript"
        assert [port["name"] for port in found["inputs"]] == ["x"]

    def test_stock_quantization_and_tracing_work_inside(self, folder: Path) -> None:
        """What methods to come may use: ONNX Runtime's quantizer, torch's tracer and saver."""
        program = """
from worker.isolation import enter
enter(sys.argv[1:4])
import json, numpy as np, onnx, torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
net = torch.jit.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval(),
                      torch.zeros(1, 3, 8, 8))
torch.jit.save(net, "net.pt")
torch.onnx.export(torch.jit.load("net.pt"), (torch.zeros(1, 3, 8, 8),), "net.onnx",
                  dynamo=False, input_names=["x"])
class Samples(CalibrationDataReader):
    left = 4
    def get_next(self):
        self.left -= 1
        return {"x": np.ones((1, 3, 8, 8), np.float32)} if self.left > 0 else None
quant_pre_process("net.onnx", "ready.onnx")
quantize_static("ready.onnx", "int8.onnx", Samples())
ops = [node.op_type for node in onnx.load("int8.onnx").graph.node]
open("result.json", "w").write(json.dumps({"ok": True, "inspection": {"ops": ops}}))
"""
        ended = run_child(
            Request(kind="inspect", model="none"),
            folder,
            limits=LIMITS,
            program=program,
            on_message=lambda _: None,
            stop=lambda: None,
        )
        assert ended.cause is Cause.DONE, ended.stderr
        assert ended.result is not None
        assert "QuantizeLinear" in ended.result["inspection"]["ops"]


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "code"),
        [
            ({"disk_bytes": 1}, "disk_limit"),
            ({"disk_bytes": 60_000}, "disk_limit"),
            ({"memory_bytes": 1}, "out_of_memory"),
            ({"memory_bytes": 64 << 20}, "out_of_memory"),
            ({"cpu_seconds": 0}, "time_limit"),
            ({"wall_seconds": 0}, "time_limit"),
        ],
        ids=str,
    )
    def test_a_limit_that_is_too_small_is_named_with_a_remedy(
        self, run: Run, limit: dict[str, int], code: str
    ) -> None:
        ended = run(
            DIGITS / "digits.onnx",
            kind="compress",
            recipe="prune-l1",
            limits=replace(LIMITS, **limit),
        )
        assert ended.error is not None
        assert ended.error["code"] == code, (ended.error, ended.stderr)
        assert ended.error["hint"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (b"", "empty_file"),
            (b"GGUF\x03\x00\x00\x00", "gguf"),
            (b"<!doctype html><html></html>", "html_page"),
            ((DIGITS / "digits.onnx").read_bytes()[:5000], "truncated_file"),
        ],
    )
    def test_a_file_that_is_no_model_is_refused_by_name(
        self, run: Run, tmp_path: Path, content: bytes, code: str
    ) -> None:
        model = tmp_path / "model.onnx"
        model.write_bytes(content)
        ended = run(model)
        assert ended.cause is Cause.FAILED
        assert ended.error is not None
        assert ended.error["code"] == code
        assert ended.error["stage"] == "convert"
        assert "Traceback" not in json.dumps(ended.result)

    def test_a_wrong_recipe_is_refused_before_anything_is_converted(self, run: Run) -> None:
        ended = run(
            DIGITS / "digits.pt", kind="compress", recipe={"passes": [{"method": "no"}]}
        )
        assert ended.error is not None
        assert ended.error["code"] == "invalid_recipe"
        assert ended.error["errors"]
        assert ended.cpu_seconds < 5

    def test_no_path_of_ours_is_told(self, run: Run, folder: Path, tmp_path: Path) -> None:
        data = tmp_path / "data.npz"
        np.savez(data, wrong=np.zeros((8, 1, 8, 8), np.float32))
        ended = run(DIGITS / "digits.onnx", kind="compress", calibration=str(data))
        assert ended.error is not None
        assert ended.error["code"] == "invalid_data"
        assert str(folder) not in json.dumps(ended.error)

    def test_a_file_is_not_called_as_the_store_keeps_it(self, run: Run, tmp_path: Path) -> None:
        kept = tmp_path / "5f1e0c"
        kept.write_text("no model")
        ended = run(DIGITS / "digits.onnx", kind="compress", partner=str(kept))
        assert ended.error is not None
        assert ended.error["code"] == "invalid_model"
        assert "the partner" in ended.error["message"]
        assert "5f1e0c" not in json.dumps(ended.error)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestHostileModels:
    """R6: each fails with its cause, within its limit, and leaves nothing outside."""

    def test_a_tensor_of_forty_gigabytes_is_out_of_memory(
        self, run: Run, tmp_path: Path
    ) -> None:
        model = written(
            tmp_path / "model.onnx",
            "g (float[2] x) => (float[N] y) <int64[2] s = {100000, 100000}>"
            "{ big = ConstantOfShape(s)  y = ReduceSum(big) }",
        )
        ended = run(model, kind="compress", recipe="int8")
        assert ended.cause is Cause.OUT_OF_MEMORY, (ended.error, ended.stderr)
        assert ended.error is not None
        assert ended.error["code"] == "out_of_memory"

    def test_an_endless_loop_is_a_time_limit(self, run: Run, tmp_path: Path) -> None:
        limits = Limits(wall_seconds=60, cpu_seconds=4, memory_bytes=2 * GIB, disk_bytes=GIB)
        model = written(
            tmp_path / "model.onnx",
            """g (float[1] x, bool go) => (float[1] y) {
                 y = Loop(, go, x) <body = b (int64 i, bool c, float[1] a) =>
                   (bool d, float[1] e) { d = Identity(c)  e = Identity(a) }>
               }""",
        )
        data = tmp_path / "data.npz"
        np.savez(data, **{f"{i}|x": np.ones(1, np.float32) for i in range(8)},
                 **{f"{i}|go": np.array(True) for i in range(8)})  # fmt: skip
        ended = run(model, kind="compress", recipe="int8", calibration=str(data), limits=limits)
        assert ended.cause is Cause.TIME_LIMIT, (ended.error, ended.stderr)

    def test_torchscript_that_reads_a_file_gets_nothing(self, run: Run, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"\x2a\x00\x00\x00" * 4)
        secret.chmod(0o644)
        model = tmp_path / "model.pt"
        _thief(str(secret), model)
        given = {"x": {"shape": [1, 4], "dtype": "float32"}}
        ended = run(model, inputs=given)
        assert ended.cause is Cause.FAILED
        assert ended.error is not None
        assert "42" not in json.dumps(ended.error)

    def test_torchscript_that_writes_while_it_is_loaded_writes_nothing(
        self, run: Run, tmp_path: Path
    ) -> None:
        target = tmp_path / "written"
        model = tmp_path / "model.pt"
        _writer(str(target), model)
        tmp_path.chmod(0o777)
        target.unlink()  # the attack works here
        ended = run(model, inputs={"x": {"shape": [1, 4], "dtype": "float32"}})
        assert ended.stage is not None
        assert not target.exists()


def _thief(secret: str, model: Path) -> None:
    """A module whose forward reads a file into its answer."""
    import torch  # noqa: PLC0415 - only these two tests need it

    class Thief(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file(self.path, False, 4, dtype=torch.int32)

    thief = Thief()
    thief.path = secret
    torch.jit.save(torch.jit.script(thief), str(model))


def _writer(target: str, model: Path) -> None:
    """A module whose __setstate__ saves a file."""
    import torch  # noqa: PLC0415 - only these two tests need it

    class Writer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = target

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.path = state[0]
            self.training = state[1]
            torch.save(torch.ones(1), self.path)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    torch.jit.save(torch.jit.script(Writer()), str(model))
    torch.jit.load(str(model))
