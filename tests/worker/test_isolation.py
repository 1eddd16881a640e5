"""Children that do what a hostile or broken model does, and what becomes of them."""

import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from worker.compression.benchmark.quiet import LOCK_NAME
from worker.isolation import (
    MEASURING_LOCK,
    Cause,
    Ended,
    Limits,
    Progress,
    Request,
    UnsafeFile,
    layers,
    open_result,
    remove_folder,
    run_child,
    self_test,
)
from worker.isolation.calls import CONDITIONAL, PRETENDED, REFUSED, UNKNOWN
from worker.isolation.quiet import MeasuringLock

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
LIMITS = Limits(wall_seconds=20, cpu_seconds=20, memory_bytes=GIB, disk_bytes=GIB // 4)
ENTER = """
from worker.isolation import enter
from pathlib import Path
import ctypes, json, os, signal, time
channel = enter(sys.argv[1:4])
def done(**more):
    Path("result.json").write_text(json.dumps({"ok": True, "inspection": more, "files": []}))
"""
LANDLOCK = layers()["landlock"].startswith("ok")
SECCOMP = layers()["seccomp"].startswith("ok")

Run = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "job"
    folder.mkdir()
    yield folder
    remove_folder(folder)


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Run a child that is sealed and then does what `code` says."""

    def run(code: str, *, limits: Limits = LIMITS, **more: object) -> Ended:
        settings = {"on_message": lambda _: None, "stop": lambda: None} | more
        settings.setdefault("measuring_lock", tmp_path / "lock")
        request = Request(kind="inspect", model="model.onnx")
        return run_child(request, folder, limits=limits, program=ENTER + code, **settings)

    return run


class TestSandbox:
    """R7: every attack is blocked, whoever runs it, on an old kernel too."""

    @pytest.mark.parametrize("abi", [7, 2])
    def test_every_attack_is_blocked(self, abi: int) -> None:
        tested = self_test(landlock_abi=abi)
        assert len(tested.probes) >= 17
        assert not tested.open()
        assert tested.layers["seccomp"] == "ok"
        assert tested.layers["landlock"].startswith("ok (ABI")

    def test_the_attacks_are_real_ones(self) -> None:
        """Without a sandbox they go through, so a blocked one was blocked by it."""
        through = self_test("off").open()
        for attack in ("read a secret", "write outside", "list /", "start a program", "TCP"):
            assert attack in through
        assert len(through) >= 18

    def test_every_attack_is_blocked_for_an_ordinary_user(self, tmp_path: Path) -> None:
        python, user = _ordinary_python()
        done = subprocess.run(
            [python, "-m", "worker.isolation"],
            cwd="/",
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            user=user,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "landlock: ok" in done.stdout
        assert "seccomp: ok" in done.stdout

    @pytest.mark.parametrize(
        "wrapper",
        [["setpriv", "--bounding-set=-all", "--inh-caps=-all"], ["unshare", "-Urn"]],
        ids=["root of a bare container", "root of a user namespace"],
    )
    def test_every_attack_is_blocked_for_a_root_that_may_do_nothing(
        self, wrapper: list[str]
    ) -> None:
        if subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
            wrapper = []  # this host does not let us: then it is the same test as above
        done = subprocess.run(
            [*wrapper, sys.executable, "-m", "worker.isolation"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_child_goes_first_when_the_host_runs_out_of_memory(self, run: Run) -> None:
        ended = run("done(score=int(Path('/proc/self/oom_score_adj').read_text()))")
        assert ended.result is not None
        assert ended.result["inspection"]["score"] > 0

    def test_a_missing_layer_is_named_in_auto(self, run: Run) -> None:
        ended = run("done()", landlock_abi=0)
        assert ended.cause is Cause.DONE
        assert ended.layers["landlock"].startswith("unavailable")

    def test_required_refuses_where_a_layer_is_missing(self, run: Run) -> None:
        ended = run("done()", landlock_abi=0, sandbox="required")
        assert ended.cause is Cause.FAILED
        assert ended.error is not None
        assert ended.error["code"] == "sandbox_unavailable"
        assert "landlock" in ended.error["message"]

    def test_required_runs_where_all_layers_hold(self, run: Run) -> None:
        assert run("done()", sandbox="required").cause is Cause.DONE

    def test_off_holds_nothing_but_the_limits(self, run: Run) -> None:
        ended = run("Path('/').iterdir(); done()", sandbox="off")
        assert ended.cause is Cause.DONE
        assert ended.layers["landlock"] == "off (by setting)"
        assert ended.layers["rlimits"] == "ok"

    def test_nothing_of_our_environment_enters(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("MODELPRESS_DATABASE_URL", "postgresql://user:secret@host/db")
        ended = run("done(**os.environ)")
        assert ended.result is not None
        seen = ended.result["inspection"]
        assert not [
            name for name in seen if name.startswith(("MODELPRESS", "AWS", "PYTHONPATH"))
        ]
        assert seen["ORT_DISABLE_TELEMETRY"] == "1"

    def test_no_open_file_of_ours_enters(self, run: Run) -> None:
        with open("/etc/hostname") as ours:  # noqa: PTH123
            os.set_inheritable(ours.fileno(), True)
            ended = run("done(fds=sorted(os.listdir('/proc/self/fd'), key=int))")
        assert ended.result is not None
        # stdin, stdout, stderr, two pipes, and the listing itself
        assert len(ended.result["inspection"]["fds"]) == 6

    def test_a_file_outside_of_the_folder_is_readable_where_the_request_names_it(
        self, run: Run, folder: Path, tmp_path: Path
    ) -> None:
        model = tmp_path / "stored"
        model.write_text("a model")
        model.chmod(0o600)
        request = Request(kind="inspect", model=str(model))
        code = (
            "model = Path(channel.request().model)\n"
            "try: model.write_text('mine')\n"
            "except OSError: done(read=model.read_text())"
        )
        ended = run_child(
            request,
            folder,
            limits=LIMITS,
            program=ENTER + code,
            on_message=lambda _: None,
            stop=lambda: None,
        )
        assert ended.result is not None, ended.stderr
        assert ended.result["inspection"] == {"read": "a model"}

    def test_copying_files_works_inside(self, run: Run) -> None:
        """shutil changes modes and times, which the sandbox only pretends to do."""
        ended = run(
            "import shutil\nPath('a').write_text('x')\nshutil.copy2('a', 'b')\n"
            "Path('c').mkdir()\nPath('b').rename('c/b')\nshutil.rmtree('c')\ndone()"
        )
        assert ended.cause is Cause.DONE, ended.stderr


class TestLimits:
    def test_an_allocation_bomb_ends_as_out_of_memory(self, run: Run) -> None:
        ended = run("everything = bytearray(3 << 30)")
        assert ended.cause is Cause.OUT_OF_MEMORY

    def test_shared_memory_counts(self, run: Run) -> None:
        """RLIMIT_DATA does not see it, and the address space has room to spare."""
        limits = Limits(wall_seconds=9, cpu_seconds=9, memory_bytes=GIB // 8, disk_bytes=GIB)
        code = (
            "import mmap\nheld = mmap.mmap(-1, 1 << 28)\n"
            "for _ in range(256): held.write(bytes(1 << 20))\ntime.sleep(9)"
        )
        ended = run(code, limits=limits)
        assert ended.cause is Cause.OUT_OF_MEMORY

    def test_an_endless_loop_ends_at_the_limit_of_computing(self, run: Run) -> None:
        limits = Limits(wall_seconds=20, cpu_seconds=1, memory_bytes=GIB, disk_bytes=GIB)
        ended = run("while True: pass", limits=limits)
        assert ended.cause is Cause.TIME_LIMIT
        assert ended.signal == signal.SIGXCPU

    def test_ignoring_the_signal_of_the_limit_does_not_help(self, run: Run) -> None:
        limits = Limits(wall_seconds=20, cpu_seconds=1, memory_bytes=GIB, disk_bytes=GIB)
        ended = run(
            "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", limits=limits
        )
        assert ended.cause is Cause.TIME_LIMIT

    def test_sleeping_ends_at_the_limit_of_time(self, run: Run) -> None:
        limits = Limits(wall_seconds=1, cpu_seconds=9, memory_bytes=GIB, disk_bytes=GIB)
        ended = run("time.sleep(60)", limits=limits)
        assert ended.cause is Cause.TIME_LIMIT
        assert ended.seconds < 4
        assert ended.error is not None
        assert ended.error["code"] == "time_limit"

    def test_filling_the_disk_ends_as_disk_limit(self, run: Run) -> None:
        code = (
            "for n in range(99):\n  Path(f'{n}').write_bytes(bytes(1 << 24)); time.sleep(.02)"
        )
        assert run(code + "\ntime.sleep(9)").cause is Cause.DISK_LIMIT

    def test_deleted_files_count(self, run: Run) -> None:
        code = (
            "files = []\nfor n in range(40):\n"
            "  files.append(open('f', 'wb', 0)); os.unlink('f')\n"
            "  files[-1].write(bytes(1 << 23))\n"
        )
        assert run(code + "time.sleep(9)").cause is Cause.DISK_LIMIT

    @pytest.mark.parametrize(
        "code",
        ["while True:\n  os.mkdir('d'); os.chdir('d')",
         "for n in range(1 << 20): os.mkdir(str(n))"],
        ids=["depth", "number"],
    )  # fmt: skip
    def test_too_many_folders_end_as_file_limit(
        self, run: Run, folder: Path, code: str
    ) -> None:
        assert run(code).cause is Cause.FILE_LIMIT
        remove_folder(folder)
        assert not folder.exists()

    @pytest.mark.parametrize(
        "code",
        [
            "held = [open('/dev/null') for _ in range(300)]",
            "import threading\nfor _ in range(9999):\n"
            "  threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        ],
        ids=["files", "threads"],
    )
    def test_open_files_and_threads_have_a_limit_of_their_own_name(
        self, run: Run, code: str
    ) -> None:
        ended = run(code)
        assert ended.cause is Cause.PROCESS_LIMIT, ended.stderr
        assert ended.error is not None
        assert (ended.error["code"], bool(ended.error["hint"])) == ("process_limit", True)


class TestEndings:
    def test_a_crash_is_named_by_its_signal(self, run: Run) -> None:
        ended = run("ctypes.string_at(0)")
        assert (ended.cause, ended.signal) == (Cause.CRASHED, signal.SIGSEGV)
        assert ended.error is not None
        assert "SIGSEGV" in ended.error["message"]

    def test_a_kill_from_outside_is_nobodys_fault(self, run: Run, folder: Path) -> None:
        said: list[Progress] = []

        def killed(progress: Progress) -> None:
            said.append(progress)
            os.kill(int(progress.message), signal.SIGKILL)

        ended = run(
            "channel.progress('clean', .5, str(os.getpid())); time.sleep(30)", on_message=killed
        )
        assert ended.cause is Cause.KILLED
        assert ended.stage == "clean"
        assert said[0].share == 0.5

    def test_cancelling_ends_it_within_two_seconds(self, run: Run) -> None:
        started = time.monotonic()
        stop = lambda: "canceled" if time.monotonic() - started > 1 else None  # noqa: E731
        ended = run("while True: pass", stop=stop)
        assert (ended.cause, ended.stopped_because) == (Cause.CANCELED, "canceled")
        assert time.monotonic() - started < 3

    def test_a_child_that_ignores_every_signal_is_gone_when_it_is_canceled(
        self, run: Run
    ) -> None:
        code = (
            "for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:\n"
            "  signal.signal(number, signal.SIG_IGN)\nwhile True: pass"
        )
        began = time.monotonic()
        ended = run(code, stop=lambda: "canceled" if time.monotonic() - began > 1 else None)
        assert (ended.cause, ended.signal) == (Cause.CANCELED, signal.SIGKILL)
        assert time.monotonic() - began < 5

    def test_whatever_it_started_ends_with_it(self, run: Run, folder: Path) -> None:
        code = (
            "import subprocess\n"
            "one = subprocess.Popen(['sleep', '60'])\n"
            "Path('pid').write_text(str(one.pid)); done()"
        )
        ended = run(code, sandbox="off")
        assert ended.cause is Cause.DONE, ended.stderr
        with pytest.raises(ProcessLookupError):
            _wait_until_gone(int((folder / "pid").read_text()))

    def test_it_ends_with_its_supervisor(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from worker.isolation import *\n"
            f"program = {ENTER!r} + 'Path(\"pid\").write_text(str(os.getpid()))'\n"
            "program += '; time.sleep(60)'\n"
            f"folder = Path({str(tmp_path)!r})\n"
            f"limits = {LIMITS!r}\n"
            "run_child(Request(kind='inspect', model='m'), folder, limits=limits,\n"
            "          on_message=print, stop=lambda: None, program=program)\n"
        )
        supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        pid = tmp_path / "pid"
        while not pid.exists() or not pid.read_text():
            time.sleep(0.05)
        supervisor.kill()
        supervisor.wait()
        with pytest.raises(ProcessLookupError):
            _wait_until_gone(int(pid.read_text()))

    def test_an_exception_of_a_callback_ends_it_and_is_passed_on(self, run: Run) -> None:
        def fail(_: Progress) -> None:
            raise LookupError("the lease is lost")

        with pytest.raises(LookupError, match="lease"):
            run("channel.progress('clean', .1, ''); time.sleep(60)", on_message=fail)

    def test_last_words_are_kept_and_capped(self, run: Run) -> None:
        ended = run("print('x' * (1 << 20)); print('the end', flush=True)")
        assert ended.stderr.endswith("the end\n")
        assert len(ended.stderr) <= 1 << 16
        assert ended.cause is Cause.FAILED


class TestMessages:
    def test_progress_arrives_and_never_falls(self, run: Run) -> None:
        said: list[Progress] = []
        ended = run(
            "for stage, share in [('clean', .1), ('measure', .6), ('report', .3)]:\n"
            "  channel.progress(stage, share, 'line\\nbreak')\ndone()",
            on_message=said.append,
        )
        assert ended.cause is Cause.DONE
        assert [one.share for one in said] == [0.1, 0.6, 0.6]
        assert said[0].message == "line break"

    @pytest.mark.parametrize(
        "message",
        [
            '{"progress": {"stage": "nowhere", "share": 0, "message": ""}}',
            '{"progress": {"stage": "clean", "share": NaN, "message": ""}}',
            '{"measure": "/etc/passwd"}',
            '{"measure": "../other/model.onnx"}',
            '{"grant": "everything"}',
            "[" * 100_000,
            '"' + "x" * 100_000,
        ],
    )
    def test_what_no_child_of_ours_says_ends_it(self, run: Run, message: str) -> None:
        ended = run(
            f"os.write(channel._messages, {message.encode()!r} + b'\\n'); time.sleep(30)"
        )
        assert ended.cause is Cause.CRASHED

    def test_a_flood_of_messages_costs_its_own_time(self, run: Run) -> None:
        limits = Limits(wall_seconds=1, cpu_seconds=9, memory_bytes=GIB, disk_bytes=GIB)
        spent = time.process_time()
        ended = run("while True: channel.tell(quiet='leave')", limits=limits)
        assert ended.cause is Cause.TIME_LIMIT
        assert time.process_time() - spent < 2


class TestResults:
    @pytest.mark.parametrize(
        "result",
        [
            "not json",
            '{"ok": true}',
            '{"ok": true, "report": {}, "files": ["../secret"]}',
            '{"ok": true, "report": {}, "files": ["/etc/passwd"]}',
            '{"ok": true, "report": {}, "files": ["out/missing"]}',
            '{"ok": true, "report": {"x": NaN}}',
            '{"ok": true, "ok": false, "report": {}}',
            '{"ok": false, "error": {"code": "Not a code", "message": ""}}',
            '{"ok": false}',
            "[" * 50_000,
        ],
    )
    def test_what_is_no_result_is_none(self, run: Run, result: str) -> None:
        ended = run(f"Path('result.json').write_text({result!r})")
        assert (ended.cause, ended.result) == (Cause.FAILED, None)

    def test_an_error_holds_nothing_but_text_of_a_sensible_length(self, run: Run) -> None:
        error = {
            "code": "invalid_model",
            "message": "x" * 100_000,
            "hint": {"a": 1},
            "stage": "nowhere",
            "errors": [{"field": 1}, "no"] * 1000,
            "more": "of it",
        }
        ended = run(
            f"Path('result.json').write_text(json.dumps({{'ok': False, 'error': {error!r}}}))"
        )
        assert ended.error is not None
        assert len(ended.error["message"]) < 5000
        assert ended.error["hint"] == "{'a': 1}"
        assert ended.error["stage"] is None
        assert set(ended.error) == {"code", "message", "hint", "stage", "errors"}
        assert len(ended.error["errors"]) <= 100
        assert ended.error["errors"][0] == {"field": "1"}

    @pytest.mark.parametrize(
        "make",
        [
            "os.mkfifo('result.json')",
            "os.symlink('/etc/passwd', 'result.json')",
            "Path('one').write_text('{}'); os.link('one', 'result.json')",
            "os.mkdir('result.json')",
            "open('result.json', 'wb').truncate(65 << 20)",
        ],
    )
    def test_only_a_plain_file_is_read(self, run: Run, make: str) -> None:
        """Made without a sandbox: it would not let most of them come about."""
        limits = Limits(wall_seconds=9, cpu_seconds=9, memory_bytes=GIB, disk_bytes=GIB)
        ended = run(make, sandbox="off", limits=limits)
        assert (ended.cause, ended.result) == (Cause.FAILED, None)

    def test_a_result_is_opened_without_following_links(self, folder: Path) -> None:
        outside = folder.parent / "outside"
        outside.mkdir()
        (outside / "model.onnx").write_text("secret")
        (folder / "out").symlink_to(outside)
        with pytest.raises(UnsafeFile), open_result(folder, "out/model.onnx"):
            pass

    def test_the_size_of_a_result_is_capped(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(bytes(11))
        with open_result(folder, "model.onnx", max_bytes=11) as file:
            assert len(file.read()) == 11
        with (
            pytest.raises(UnsafeFile, match="larger"),
            open_result(folder, "model.onnx", max_bytes=10),
        ):
            pass


class TestMeasuring:
    def test_quiet_is_given_and_taken_back(self, run: Run, tmp_path: Path) -> None:
        seen: list[bool] = []

        def look(progress: Progress) -> None:
            seen.append(MeasuringLock(tmp_path / "lock").held_elsewhere())

        ended = run(
            "with channel.quiet() as had:\n"
            "  channel.progress('measure', .5, str(had)); time.sleep(.5)\n"
            "channel.progress('report', .9, 'after')\ndone()",
            on_message=look,
        )
        assert ended.cause is Cause.DONE
        assert seen == [True, False]

    def test_a_job_that_has_no_time_left_does_not_wait_for_quiet(
        self, run: Run, tmp_path: Path
    ) -> None:
        lock = MeasuringLock(tmp_path / "lock")
        assert lock.take()
        code = (
            "channel.deadline = time.monotonic() + .4\n"
            "with channel.quiet() as had:\n"
            "  channel.progress('measure', .5, str(had))\ndone()"
        )
        told: list[str] = []
        started = time.monotonic()
        # The lock never becomes free: without a deadline this would be waited for.
        ended = run(code, on_message=lambda said: told.append(said.message))
        lock.release()
        assert ended.cause is Cause.DONE
        assert told == ["False"]
        assert time.monotonic() - started < 20

    def test_another_ones_measuring_stops_the_child_and_its_clock(
        self, run: Run, tmp_path: Path
    ) -> None:
        lock = MeasuringLock(tmp_path / "lock")
        assert lock.take()
        released = time.monotonic() + 1.2

        def stop() -> None:
            if time.monotonic() > released:
                lock.release()

        code = (
            "start = time.process_time()\nwhile time.process_time() - start < .5: pass\ndone()"
        )
        started = time.monotonic()
        ended = run(code, stop=stop)
        assert ended.cause is Cause.DONE
        assert time.monotonic() - started > 1.2
        assert ended.seconds < time.monotonic() - started - 0.6

    def test_the_peak_memory_of_a_model_is_measured_in_a_child_of_its_own(
        self, run: Run, folder: Path
    ) -> None:
        model = parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 17]>'
            "g (float[N, 4096] x) => (float[N, 4096] y) { y = MatMul(x, w) }"
        )
        weight = np.ones((4096, 4096), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        onnx.save(model, folder / "big.onnx")
        (folder / "big.onnx").chmod(0o644)
        ended = run(
            "done(peak=channel.measure(Path('big.onnx').absolute()), "
            "none=channel.measure(Path('missing').absolute()))"
        )
        assert ended.result is not None, ended.stderr
        assert ended.result["inspection"]["none"] is None
        assert 60 << 20 < ended.result["inspection"]["peak"] < 400 << 20

    def test_everybody_takes_the_same_lock(self) -> None:
        """The library, in a process without a supervisor, by name in the temporary folder."""
        assert Path(tempfile.gettempdir()) / LOCK_NAME == MEASURING_LOCK


class TestNumbers:
    """The numbers of system calls against the headers of this machine, where it has them."""

    @pytest.mark.parametrize(
        ("column", "header"),
        [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
         (1, "/usr/include/asm-generic/unistd.h")],
    )  # fmt: skip
    def test_they_are_the_kernels(self, column: int, header: str) -> None:
        text = Path(header).read_text() if Path(header).exists() else ""
        pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
        known = {name: int(number) for name, number in re.findall(pattern, text)}
        for table in (UNKNOWN, PRETENDED, REFUSED, CONDITIONAL):
            for name, numbers in table.items():
                if name in known:
                    assert numbers[column] == known[name], name

    def test_this_machine_is_covered(self) -> None:
        if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
            assert SECCOMP


def _ordinary_python() -> tuple[str, int | None]:
    """A Python that an ordinary user can run, and that user; ourselves where we are one."""
    if os.geteuid() != 0:
        return sys.executable, None
    nobody = 65_534
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        tried = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(tried, user=nobody, cwd="/", capture_output=True).returncode == 0:
                return python, nobody
        except OSError:
            continue
    return sys.executable, None


def _wait_until_gone(pid: int) -> None:
    for _ in range(100):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        time.sleep(0.05)
