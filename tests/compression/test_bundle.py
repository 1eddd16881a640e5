"""The proof travels: a bundle proves the model wherever it is unpacked, without us."""

import ast
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import build, convnet, images, normal, written
from worker.compression import Report, compress
from worker.compression.bundle import write_bundle
from worker.compression.calibration import Feed

# Everything but the standard library, numpy and onnxruntime is not there.
ALONE = """
import runpy, sys
KNOWN = {"numpy", "onnxruntime", "verify", *sys.stdlib_module_names}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in KNOWN:
            raise ModuleNotFoundError(f"this environment holds no {name}")
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A convnet, compressed to int8 with samples; the report and the folder."""
    folder = tmp_path_factory.mktemp("made")
    path = written(convnet(), folder / "upload.onnx")
    feeds = np.concatenate([feed["x"] for feed in images(32)])
    np.savez(folder / "data.npz", x=feeds)
    report = compress(
        path,
        "int8",
        out=folder / "out",
        calibration=folder / "data.npz",
        quiet=lambda: nullcontext(False),
    )
    return report, folder / "out"


@pytest.fixture
def bundle(made: tuple[Report, Path], tmp_path: Path) -> Path:
    """The bundle of that, unpacked."""
    with zipfile.ZipFile(made[1] / "bundle.zip") as archive:
        archive.extractall(tmp_path / "with a space")
    return tmp_path / "with a space"


def alone(program: Path, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of a program where nothing else is installed."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, program, *arguments],
        capture_output=True, text=True, check=False, cwd=program.anchor,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def signed_again(folder: Path, name: str) -> None:
    """The checksums, with that of one file made right."""
    sums = folder / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {name}")]
    lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}")
    sums.write_text("\n".join(lines))


def golden(folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
    """Change the golden arrays, and sign them again."""
    with np.load(folder / "golden.npz") as arrays:
        changed = {f"={key}": change(key, arrays[key]) for key in arrays.files}
    with zipfile.ZipFile(folder / "golden.npz", "w") as archive:
        for key, value in changed.items():
            with archive.open(f"{key[1:]}.npy", "w") as file:
                np.lib.format.write_array(file, value)
    signed_again(folder, "golden.npz")


def test_verify_finds_the_golden_outputs_bit_for_bit_with_numpy_and_onnxruntime_alone(
    bundle: Path,
) -> None:
    code, said = alone(bundle / "verify.py")
    assert (code, said.splitlines()[-1][:9]) == (0, "IDENTICAL"), said


def test_bench_compares_with_the_original_with_numpy_and_onnxruntime_alone(
    bundle: Path, made: tuple[Report, Path]
) -> None:
    original = made[1].parent / "upload.onnx"
    code, said = alone(bundle / "bench.py", "--original", original, "--seconds", "0.1")
    assert code == 0, said
    assert "speed-up: " in said
    assert "verdict: " in said


def test_the_bundle_holds_the_files_that_lie_beside_it(
    bundle: Path, made: tuple[Report, Path]
) -> None:
    for name in ("model.onnx", "report.json", "report.html"):
        assert (bundle / name).read_bytes() == (made[1] / name).read_bytes()
    recipe = json.loads((bundle / "recipe.json").read_text())
    assert recipe == made[0].reproduce.recipe.model_dump(mode="json")
    assert made[0].verdict.sentence in (bundle / "README.txt").read_text()
    signed = [line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    assert {*signed, "SHA256SUMS"} == {path.name for path in bundle.iterdir()}


def test_golden_samples_are_of_the_held_out_data_with_what_both_models_gave(
    bundle: Path,
) -> None:
    with np.load(bundle / "golden.npz") as arrays:
        assert sorted({key.split("|")[1] for key in arrays.files}) == [str(i) for i in range(8)]
        difference = arrays["result|0|y"] - arrays["original|0|y"]
    assert 0 < np.abs(difference).max() < 1


def test_a_changed_byte_and_a_missing_file_are_damage(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    (bundle / "recipe.json").unlink()
    code, said = alone(bundle / "verify.py")
    assert code == 2
    assert "model.onnx is not the file that was packed" in said
    assert "recipe.json is missing" in said


def test_another_model_is_called_different(bundle: Path) -> None:
    onnx.save(convnet(), bundle / "model.onnx")
    signed_again(bundle, "model.onnx")
    model = onnx.load(bundle / "model.onnx")
    bias = next(one for one in model.graph.initializer if one.name == "fc.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(normal(10, seed=99) * 9, "fc.bias"))
    onnx.save(model, bundle / "model.onnx")
    signed_again(bundle, "model.onnx")
    code, said = alone(bundle / "verify.py")
    assert (code, "DIFFERENT" in said) == (1, True), said


def test_the_last_bits_of_other_kernels_are_equivalent(bundle: Path) -> None:
    def nudged(key: str, value: np.ndarray) -> np.ndarray:
        return value * np.float32(1 + 1e-6) if key.startswith("result") else value

    golden(bundle, nudged)
    code, said = alone(bundle / "verify.py")
    assert (code, "EQUIVALENT" in said) == (0, True), said


def test_one_lost_channel_is_not_hidden_by_the_others(bundle: Path) -> None:
    """Boxes beside scores: overall the outputs agree to more than 40 dB."""

    def with_a_faint_channel(key: str, value: np.ndarray) -> np.ndarray:
        if key.startswith("input"):
            return value
        value = value * 100
        value[:, 3] = 0.1 if key.startswith("result") else 0.100001
        return value

    golden(bundle, with_a_faint_channel)
    model = onnx.load(bundle / "model.onnx")
    output = model.graph.output[0]
    inner = next(n for n in model.graph.node if output.name in n.output)
    inner.output[list(inner.output).index(output.name)] = "inner"
    scale = np.full((1, 10), 100, np.float32)
    scale[0, 3] = 0
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "scale"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["inner", "scale"], [output.name]))
    onnx.save(model, bundle / "model.onnx")
    signed_again(bundle, "model.onnx")
    facts = json.loads((bundle / "golden.json").read_text())
    facts["kinds"] = {output.name: "value"}
    (bundle / "golden.json").write_text(json.dumps(facts))
    signed_again(bundle, "golden.json")
    code, said = alone(bundle / "verify.py")
    assert (code, "DIFFERENT" in said) == (1, True), said


def test_a_model_that_does_not_load_is_not_run(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"no model")
    signed_again(bundle, "model.onnx")
    for program in ("verify.py", "bench.py"):
        code, said = alone(bundle / program)
        assert (code, "NOT RUN" in said, "Traceback" in said) == (3, True, False)


@pytest.mark.parametrize("name", ["verify.py", "bench.py"])
def test_programs_are_python_3_9(bundle: Path, name: str) -> None:
    ast.parse((bundle / name).read_text(), feature_version=(3, 9))


def packed(
    made: tuple[Report, Path],
    folder: Path,
    *,
    model: onnx.ModelProto,
    samples: Sequence[Feed],
    states: Mapping[str, str],
) -> Path:
    """A bundle of a model that is its own original."""
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    written(model, out / "model.onnx")
    for name in ("report.json", "report.html"):
        (out / name).write_bytes((made[1] / name).read_bytes())
    return write_bundle(
        out, made[0], original=out / "model.onnx", samples=samples, kinds={}, states=states,
        workdir=folder,
    )  # fmt: skip


def test_the_same_files_and_samples_give_the_same_bytes(
    made: tuple[Report, Path], tmp_path: Path
) -> None:
    one, other = (
        packed(made, tmp_path / name, model=convnet(), samples=images(), states={})
        for name in ("one", "other")
    )
    assert one.read_bytes() == other.read_bytes()


def test_states_are_carried_from_sample_to_sample(
    made: tuple[Report, Path], tmp_path: Path
) -> None:
    text = """
    sums (float[1,4] x, float[1,4] state) => (float[1,4] y, float[1,4] next) {
        next = Add (x, state)
        y = Tanh (next)
    }
    """
    samples = [
        {"x": normal(1, 4, seed=seed), "state": np.zeros((1, 4), np.float32)}
        for seed in range(4)
    ]
    path = packed(
        made, tmp_path, model=build(text, {}), samples=samples, states={"state": "next"}
    )
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "bundle")
    with np.load(tmp_path / "bundle" / "golden.npz") as arrays:
        total = sum(sample["x"] for sample in samples)
        np.testing.assert_allclose(arrays["result|3|next"], total, rtol=1e-5)
        assert "input|1|state" not in arrays.files
    code, said = alone(tmp_path / "bundle" / "verify.py")
    assert (code, said.count("bit for bit")) == (0, 3), said


def test_large_samples_are_fewer(made: tuple[Report, Path], tmp_path: Path) -> None:
    text = "wide (float[1,n] x) => (float[1,n] y) { y = Relu (x) }"
    samples = [{"x": normal(1, 3_000_000, seed=seed)} for seed in range(8)]
    path = packed(made, tmp_path, model=build(text, {}), samples=samples, states={})
    with zipfile.ZipFile(path) as archive:
        archive.extract("golden.npz", tmp_path)
    with np.load(tmp_path / "golden.npz") as arrays:
        assert len({key.split("|")[1] for key in arrays.files}) == 1
