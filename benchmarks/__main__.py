"""`make bench`: measure the product from outside, on an otherwise idle machine.

`--corpus DIR` is a folder with public/NAME/model.onnx and feeds/NAME.npz (keys `{i}|{input}`);
without it only the digits example is measured. `--only` runs one part: the models, the cost of
calibration, or the speed of int8 networks.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import against_itself, calibration, int8, int8_speed

MODELS = ("efficientnet_lite0", "ppocr4_rec", "minilm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--repeats", type=int, default=50, help="races of a model with itself")
    parser.add_argument(
        "--only", choices=["models", "calibration", "speed"], help="one part of all"
    )
    given = parser.parse_args()
    if given.only in (None, "models"):
        models(given)
    if given.only in (None, "calibration"):
        for row in calibrations():
            print(row, flush=True)
    if given.only in (None, "speed"):
        for row in int8_speed.rows():
            print(row, flush=True)


def calibrations() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield from calibration.measured(int8_speed.exported("ResNet-50", Path(folder)))


def models(given: argparse.Namespace) -> None:
    subjects = [int8.digits()]
    if given.corpus:
        subjects += [int8.from_corpus(given.corpus, name) for name in MODELS]
    for subject in subjects:
        print(int8.measured(subject), flush=True)
    for subject in (subjects[0], subjects[-1]) if given.corpus else subjects:
        print(against_itself.measured(subject, given.repeats), flush=True)


main()
