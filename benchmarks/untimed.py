"""A recipe where only what it makes counts: nothing waits for quiet, no latency is believed.

python -m benchmarks.untimed MODEL OUT RECIPE SAMPLES
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.compression import compress


@contextmanager
def never() -> Iterator[bool]:
    yield False


def main() -> None:
    model, out, recipe, samples = sys.argv[1:]
    compress(model, recipe, out=Path(out), calibration=Path(samples), quiet=never)


if __name__ == "__main__":
    main()
