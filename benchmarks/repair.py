"""Accuracy repair: SQNR and agreement of each repair and of combinations, on unseen samples.

    python -m benchmarks.repair --corpus DIR [--models NAME ...] [--held DIR]

`DIR/public/NAME/model.onnx` with `DIR/feeds/NAME.npz`: every other sample calibrates, the rest
judges. With `--held`, all calibrate, and the samples of `HELD/NAME-held.npz` judge. The SQNR
is that of the worst float output. The bar: 7-bit weights with GPTQ rounding keep at least the
SQNR of plain 8-bit rounding.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.errors import CompressionWarning
from worker.compression.passes import (
    AnyPass,
    Context,
    CrossLayerEqualization,
    GraphCleaning,
    StaticQuantization,
    Target,
)

MODELS = ("efficientnet_lite0", "ppocr4_rec", "ppocr4_det", "fer_emotion", "basic_pitch")
Feed = dict[str, np.ndarray]

GPTQ: dict[str, object] = {"rounding": "gptq"}
BIASES: dict[str, object] = {"bias_correction": True}
SETTINGS: dict[str, tuple[bool, dict[str, object]]] = {
    "plain": (False, {}),
    "int7": (False, {"weights": "int7"}),
    "int7, gptq": (False, {"weights": "int7", **GPTQ}),
    "mse": (False, {"calibration": "mse"}),
    "percentile": (False, {"calibration": "percentile"}),
    "biases": (False, BIASES),
    "gptq": (False, GPTQ),
    "gptq, mse": (False, {**GPTQ, "calibration": "mse"}),
    "gptq, biases": (False, {**GPTQ, **BIASES}),
    "equalized": (True, {}),
    "equalized, gptq": (True, GPTQ),
    "equalized, gptq, biases": (True, {**GPTQ, **BIASES}),
    "equalized, gptq, mse, biases": (True, {**GPTQ, **BIASES, "calibration": "mse"}),
}
"""Whether channels are equalized first, and the settings of static_quantization."""


@dataclass(frozen=True)
class Subject:
    """A float model, cleaned and with equalized channels, and samples it is judged on."""

    cleaned: Path
    equalized: Path
    context: Context
    judges: list[Feed]
    wanted: list[list[np.ndarray]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--held", type=Path, help="folder of NAME-held.npz")
    given = parser.parse_args()
    if given.corpus is None:
        print(json.dumps({"bench": "repair", "left_out": "needs --corpus"}))
        return 0
    warnings.simplefilter("ignore", CompressionWarning)
    held = [measure(name, given) for name in given.models]
    return int(not all(held))


def measure(name: str, given: argparse.Namespace) -> bool:
    """Print a line for each setting; whether the bar is kept."""
    with tempfile.TemporaryDirectory(prefix="repair-") as folder:
        subject = prepared(name, given, Path(folder))
        found = {}
        for setting in given.settings:
            started = time.monotonic()
            path = made(subject, setting)
            row = {"bench": "repair", "model": name, "setting": setting}
            row |= judged(subject, path) | {"seconds": round(time.monotonic() - started, 1)}
            print(json.dumps(row), flush=True)
            found[setting] = row["sqnr_db"]
    if not {"plain", "int7, gptq"} <= set(found):
        return True
    kept = found["int7, gptq"] >= found["plain"]
    bar = {"bench": "repair", "model": name, "bar": "int7, gptq >= plain", "kept": kept}
    print(json.dumps(bar), flush=True)
    return bool(kept)


def prepared(name: str, given: argparse.Namespace, folder: Path) -> Subject:
    feeds = samples(given.corpus / "feeds" / f"{name}.npz")
    judges = samples(given.held / f"{name}-held.npz") if given.held else feeds[1::2]
    context = Context(
        workdir=folder,
        calibration=CalibrationSet(feeds if given.held else feeds[::2], "calibration"),
        target=Target(),
        seed=0,
        progress=lambda share, message: None,
        measure=lambda path: None,
        cache={},
    )
    cleaned, equalized = folder / "clean.onnx", folder / "equal.onnx"
    graph.save(
        applied(GraphCleaning(), given.corpus / "public" / name / "model.onnx", context),
        cleaned,
    )
    graph.save(applied(CrossLayerEqualization(), cleaned, context), equalized)
    running = graph.session(cleaned)
    return Subject(
        cleaned, equalized, context, judges, [running.run(None, feed) for feed in judges]
    )


def samples(file: Path) -> list[Feed]:
    """The feeds of an archive keyed `{sample}|{input}`."""
    found: dict[int, Feed] = defaultdict(dict)
    with np.load(file) as archive:
        for key in archive.files:
            number, _, name = key.partition("|")
            found[int(number)][name] = archive[key]
    return [found[number] for number in sorted(found)]


def applied(method: AnyPass, path: Path, context: Context) -> ir.Model:
    folder = Path(tempfile.mkdtemp(dir=context.workdir))
    return method.apply(graph.load(path), replace(context, workdir=folder, source=path))


def made(subject: Subject, setting: str) -> Path:
    equalized, settings = SETTINGS[setting]
    source = subject.equalized if equalized else subject.cleaned
    path = subject.cleaned.with_name("int8.onnx")
    graph.save(applied(StaticQuantization(**settings), source, subject.context), path)
    return path


def judged(subject: Subject, path: Path) -> dict[str, float]:
    """SQNR of the worst output in dB, and the share of rows with the same largest value."""
    running = graph.session(path)
    found = [running.run(None, feed) for feed in subject.judges]
    ratios, agreement = [], []
    for place, first in enumerate(subject.wanted[0]):
        if first.dtype.kind != "f":
            continue
        left = [wanted[place] for wanted in subject.wanted]
        right = [one[place] for one in found]
        power = sum(float(np.square(one, dtype=np.float64).sum()) for one in left)
        pairs = list(zip(left, right, strict=True))
        lost = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
        ratios.append(10 * np.log10(power / max(lost, 1e-30)))
        agreement.append(np.mean(np.concatenate([same(a, b) for a, b in pairs])))
    return {
        "sqnr_db": round(float(min(ratios)), 2),
        "agreement": round(float(min(agreement)), 4),
    }


def same(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.ravel(left.argmax(-1) == right.argmax(-1))


if __name__ == "__main__":
    sys.exit(main())
