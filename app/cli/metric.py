"""--metric: the user's own evaluation, code that they trust, in a process of its own.

The file defines `evaluate(model_path)`, which gives one number for the model, or one for each
sample; higher is better.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.cli.refusals import CannotDo

# What one answer to the child has room for; more samples are averaged in groups.
MOST_VALUES = 1000


def scorer(file: Path) -> Callable[[Path], list[float]]:
    """A function that evaluates a model file with the user's code.

    It raises CannotDo (metric_failed) where that code fails.
    """

    def score(model: Path) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "values.json"
            command = [sys.executable, "-m", "app.cli.metric", str(file), str(model)]
            ended = subprocess.run(  # noqa: S603 - the user's own program, as asked
                [*command, str(answer)],
                capture_output=True,
                text=True,
                check=False,
            )
            sys.stderr.write(ended.stdout)  # standard output is the report's
            if ended.returncode or not answer.exists():
                raise CannotDo(
                    f"{file.name} failed on {model.name}: {_last_line(ended.stderr)}",
                    code="metric_failed",
                    hint="it must define evaluate(model_path), which returns a number or one "
                    "for each sample; higher is better",
                )
            values: list[float] = json.loads(answer.read_text())
        return values

    return score


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[-1]


def main(file: str, model: str, answer: str) -> None:
    """Run the user's code on one model and leave its values as JSON."""
    spec = importlib.util.spec_from_file_location("own_metric", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(file).resolve().parent))
    spec.loader.exec_module(module)
    values = np.atleast_1d(np.asarray(module.evaluate(model), dtype=float)).ravel()
    if not values.size or not np.isfinite(values).all():
        raise SystemExit(f"evaluate gave {values[:5]}, which are no finite numbers")
    if len(values) > MOST_VALUES:
        values = np.array([part.mean() for part in np.array_split(values, MOST_VALUES)])
    Path(answer).write_text(json.dumps(values.tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:4])
