"""`make bench`: measure the product from outside, on an otherwise idle machine.

`--corpus DIR` is a folder with public/NAME/model.onnx and feeds/NAME.npz (keys `{i}|{input}`);
without it only the digits example is measured.
"""

import argparse
from pathlib import Path

from benchmarks import against_itself, int8

MODELS = ("efficientnet_lite0", "ppocr4_rec", "minilm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--repeats", type=int, default=50, help="races of a model with itself")
    given = parser.parse_args()
    subjects = [int8.digits()]
    if given.corpus:
        subjects += [int8.from_corpus(given.corpus, name) for name in MODELS]
    for subject in subjects:
        print(int8.measured(subject), flush=True)
    for subject in (subjects[0], subjects[-1]) if given.corpus else subjects:
        print(against_itself.measured(subject, given.repeats), flush=True)


main()
