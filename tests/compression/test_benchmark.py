import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import onnx
import onnx.parser
import pytest
import zstandard
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from worker.compression import graph
from worker.compression.benchmark import (
    compressed_bytes,
    environment,
    host_quiet,
    int8_share,
    peak_memory_of_self,
    profile,
    race,
    reset_peak_memory,
    runs_here,
)
from worker.compression.benchmark.quiet import Load
from worker.compression.benchmark.statistics import Ratio, ratio, verdict
from worker.compression.errors import InvalidModel

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\nagraph '
FEED = {"x": np.random.default_rng(0).standard_normal((1, 8, 16, 16)).astype(np.float32)}


def weights(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def network(path, *, layers=1):
    """Conv and Relu as often as asked, then a Gemm."""
    names = ["x", *(f"r{n}" for n in range(layers))]
    body = "".join(
        f"{names[n]}c = Conv<pads=[1,1,1,1]>({names[n]}, w) {names[n + 1]} = Relu({names[n]}c) "
        for n in range(layers)
    )
    proto = onnx.parser.parse_model(
        f"{HEAD} (float[1,8,16,16] x) => (float[1,10] y) "
        f"{{ {body} p = GlobalAveragePool({names[-1]}) f = Flatten(p) y = Gemm(f, g, b) }}"
    )
    arrays = {"w": weights(8, 8, 3, 3), "g": weights(8, 10), "b": weights(10)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, key) for key, value in arrays.items()
    )
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}{number}"
    onnx.save(proto, path)
    return path


class OneFeed(CalibrationDataReader):
    def __init__(self):
        self.left = [FEED]

    def get_next(self):
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    network(folder / "float.onnx")
    network(folder / "long.onnx", layers=6)
    quantize_static(
        folder / "float.onnx", folder / "int8.onnx", OneFeed(),
        quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, per_channel=True,
    )  # fmt: skip
    return folder


def calm():
    return nullcontext(True)


def raced(*paths, quiet=calm, **options):
    return race(paths, FEED, threads=1, quiet=quiet, min_seconds=0.1, max_seconds=2, **options)


@contextmanager
def busy_cores():
    """Another job on every core."""
    script = "print(flush=True)\nwhile True: pass"
    jobs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        for job in jobs:
            job.stdout.readline()
        yield
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


# Races


def test_a_model_of_six_times_the_work_is_slower(models, monkeypatch):
    monkeypatch.setattr("worker.compression.benchmark.racing.BUSY_SHARE", 1.0)
    found, other = raced(models / "float.onnx", models / "long.onnx", models / "float.onnx")
    # Never anything else, however busy the host of the tests is.
    assert found.verdict in ("slower", "unreliable")
    assert found.interval[0] <= found.speedup <= found.interval[1] < 0.8
    assert found.after.p50 > found.before.p50
    assert found.before.p50 <= found.before.p90 <= found.before.p99
    assert found.shapes == {"x": [1, 8, 16, 16]}
    assert found.rounds >= 15
    assert other.verdict in ("equal", "unreliable")


def test_without_quiet_nothing_is_called_faster(models):
    (found,) = raced(
        models / "long.onnx", models / "float.onnx", quiet=lambda: nullcontext(False)
    )
    assert found.verdict == "unreliable"
    assert found.speedup > 1.2


def test_other_work_on_the_cores_makes_a_race_unreliable(models):
    with busy_cores():
        (found,) = raced(models / "long.onnx", models / "float.onnx")
    assert found.verdict == "unreliable"


def test_a_race_tells_its_progress_and_refuses_what_does_not_load(models, tmp_path):
    told: list[float] = []
    raced(
        models / "float.onnx", models / "float.onnx",
        progress=lambda share, message: told.append(share),
    )  # fmt: skip
    assert told == sorted(told)
    assert told[-1] <= 1
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidModel, match=r"broken\.onnx"):
        raced(models / "float.onnx", tmp_path / "broken.onnx")


def timings(center, spread, *, luck=0.0, seed=0):
    """Milliseconds (8 blocks, 50 rounds); `luck` shifts whole blocks."""
    rng = np.random.default_rng(seed)
    return center * (
        1 + luck * rng.standard_normal((8, 1)) + spread * rng.standard_normal((8, 50))
    )


def test_the_luck_of_a_sessions_memory_widens_the_interval():
    steady = ratio(timings(1, 0.01), timings(1, 0.01, seed=1))
    lucky = ratio(timings(1, 0.01, luck=0.05), timings(1, 0.01, luck=0.05, seed=1))
    assert steady.high - steady.low < 0.01
    assert lucky.high - lucky.low > 0.03


@pytest.mark.parametrize(
    ("result", "control", "quiet", "expected"),
    [
        ((1.9, 1.8, 2.0), (1.0, 0.99, 1.01), True, "faster"),
        ((0.5, 0.4, 0.6), (1.0, 0.99, 1.01), True, "slower"),
        ((1.01, 1.005, 1.015), (1.0, 0.995, 1.005), True, "equal"),
        ((1.03, 1.01, 1.05), (1.0, 0.99, 1.01), True, "equal"),
        ((1.05, 1.03, 1.07), (1.0, 0.96, 1.04), True, "equal"),
        ((1.05, 1.03, 1.07), (1.0, 0.9, 1.1), True, "unreliable"),
        ((1.9, 1.8, 2.0), (1.0, 0.9, 1.1), True, "faster"),
        ((1.9, 1.8, 2.0), (1.1, 1.05, 1.15), True, "unreliable"),
        ((1.9, 1.8, 2.0), (1.0, 0.99, 1.01), False, "unreliable"),
    ],
)
def test_a_verdict_takes_more_than_the_control_shows(result, control, quiet, expected):
    assert verdict(Ratio(*result), Ratio(*control), calm=quiet) == expected


def test_large_models_race_in_groups_and_keep_their_order(models, monkeypatch):
    monkeypatch.setattr("worker.compression.benchmark.racing._GROUP_BYTES", 1)
    found = raced(models / "float.onnx", models / "long.onnx", models / "float.onnx")
    assert len(found) == 2
    assert found[0].speedup < found[1].speedup


# Quiet


def test_only_one_holds_the_measuring_lock(tmp_path):
    path = tmp_path / "lock"
    with host_quiet(path=path, idle_seconds=0):
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with host_quiet(path=path, lock_seconds=0.2) as had:
            assert had is False
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.stat().st_mode & 0o777 == 0o666


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with (
        pytest.raises(ValueError, match="inside"),
        host_quiet(path=tmp_path / "lock", idle_seconds=0),
    ):
        raise ValueError("inside")
    with (tmp_path / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("kind", ["dangling link", "fifo", "folder", "nowhere"])
def test_what_is_no_plain_file_is_no_lock(tmp_path, kind):
    path, target = tmp_path / "lock", tmp_path / "target"
    if kind == "dangling link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "missing" / "lock"
    with host_quiet(path=path, lock_seconds=0, idle_seconds=0) as had:
        assert had is False
    assert not target.exists()


def test_the_lock_is_taken_through_no_link(tmp_path):
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "lock").symlink_to(target)
    with host_quiet(path=tmp_path / "lock", idle_seconds=0) as had, target.open() as other:
        assert had is False
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_cores_that_others_use_are_no_quiet(tmp_path):
    path = tmp_path / "lock"
    with busy_cores(), host_quiet(path=path, idle_seconds=0.5) as had:
        assert had is False


def test_own_work_is_not_taken_for_that_of_others():
    before = Load(at=0, host=10, own=5)
    own, others = Load(at=1, host=11, own=6), Load(at=1, host=11, own=5)
    assert own.others(before) == 0
    assert others.others(before) == pytest.approx(1 / (os.cpu_count() or 1), abs=0.03)


# Kernels


def test_fused_kernels_are_told_by_the_layer_they_run(models):
    found = {kernel.node: kernel for kernel in profile(models / "float.onnx", FEED)}
    assert found["conv0"].op == "Conv"
    assert found["conv0"].dtype_in == "float"
    assert "relu1" not in found
    assert sum(kernel.share for kernel in found.values()) == pytest.approx(1)
    slowest = max(found.values(), key=lambda kernel: kernel.ms)
    assert 0 < slowest.ms < 1000


def test_int8_kernels_keep_the_name_of_their_layer(models):
    found = {kernel.node: kernel for kernel in profile(models / "int8.onnx", FEED)}
    assert found["conv0"].provider_op == "QLinearConv"
    assert found["conv0"].dtype_in == "uint8"
    assert found["gemm4"].provider_op == "QGemm"


def test_the_share_of_int8_work_is_that_of_the_profile(models, tmp_path):
    assert int8_share(models / "float.onnx", FEED) == 0
    assert int8_share(models / "int8.onnx", FEED) == 1
    quantize_dynamic(
        models / "float.onnx",
        tmp_path / "dynamic.onnx",
        op_types_to_quantize=["Gemm", "MatMul"],
    )
    only_gemm = 8 * 10 / (8 * 10 + 16 * 16 * 8 * 8 * 9)
    assert int8_share(tmp_path / "dynamic.onnx", FEED) == pytest.approx(only_gemm)


def test_nodes_without_names_are_profiled_by_the_names_they_get(models, tmp_path):
    proto = onnx.load(models / "float.onnx")
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, tmp_path / "unnamed.onnx")
    model = graph.load(tmp_path / "unnamed.onnx")
    graph.name_nodes(model)
    named = {node.name for node in model.graph.all_nodes()}
    layers = {kernel.node for kernel in profile(tmp_path / "unnamed.onnx", FEED)} & named
    assert layers >= {
        node.name for node in model.graph.all_nodes() if node.op_type in ("Conv", "Gemm")
    }


def test_profiles_leave_no_file_behind(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile(models / "float.onnx", FEED)
    assert list(tmp_path.iterdir()) == []


# Memory, size, machine


def test_peak_memory_is_what_the_run_adds(models, tmp_path):
    proto = onnx.parser.parse_model(
        f"{HEAD} (int64[1] n) => (float[1] y)"
        "{ big = ConstantOfShape<value=float[1] {1.0}>(n)"
        "  s = ReduceSum<keepdims=0>(big) y = Reshape(s, n1) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "n1"))
    onnx.save(proto, tmp_path / "big.onnx")
    script = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from worker.compression.benchmark import peak_memory_of_run;"
        "print(peak_memory_of_run(Path(sys.argv[1]), {'n': np.array([16 << 20])}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "big.onnx")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert 64 << 20 <= int(ran.stdout) < 110 << 20


def test_the_high_water_mark_can_be_lowered():
    block = np.ones(32 << 20, np.uint8)
    high = peak_memory_of_self()
    del block
    if reset_peak_memory():
        assert peak_memory_of_self() < high


def test_the_compressed_size_counts_external_data(tmp_path):
    path = network(tmp_path / "model.onnx")
    assert compressed_bytes(path) == pytest.approx(
        len(zstandard.compress(path.read_bytes(), 3)), abs=16
    )
    onnx.save(
        onnx.load(path), tmp_path / "apart.onnx", save_as_external_data=True,
        location="apart.data", size_threshold=0,
    )  # fmt: skip
    assert compressed_bytes(tmp_path / "apart.onnx") > 0.8 * compressed_bytes(path)


def test_an_upload_of_another_format_has_a_size_too(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04" + bytes(10_000))
    assert 0 < compressed_bytes(tmp_path / "model.pt") < 200


def test_the_machine_is_described():
    cpu, flags, cores = environment()
    assert cpu
    assert 1 <= cores <= (os.cpu_count() or 1)
    here = [cpu for cpu in ("x86-vnni", "x86-avx2", "arm64") if runs_here(cpu)]
    assert runs_here("auto")
    assert len(here) <= 1
    assert ("avx2" in flags) == any(cpu.startswith("x86") for cpu in here)
