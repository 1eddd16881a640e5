"""Many models judged by a corpus' recipe in one process: the task's data is read once.

The process runs the recipe's own `evaluate` on the test split, for the original and for each
file, and compares what they answer there: those samples were not pruned by.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.tasks import METRICS, Corpus, TaskFailed

# Test cases of each model: enough for the metric, few enough for a table of 30 rows.
CASES = {
    "magika": 2, "silero_vad": 1, "ppocr4_rec": 30, "ppocr4_det": 8, "basic_pitch": 4,
    "fer_emotion": 150, "efficientnet_lite0": 60, "minilm": 100,
}  # fmt: skip

SCRIPT = """
import functools, importlib.util, json, os, sys
recipes, folder, name, cases, *files = sys.argv[1:]
spec = importlib.util.spec_from_file_location("recipes", recipes)
task = importlib.util.module_from_spec(spec)
spec.loader.exec_module(task)
task.D = folder
walk = os.walk
def walked(root):
    for folder, inner, files in walk(root):
        inner.sort()
        yield folder, inner, files
listed = functools.cache(lambda root: list(walked(root)))
os.walk = lambda root: listed(root)
reference = task.evaluate(name, None, "test", int(cases))
for file in ["", *files]:
    found = task.evaluate(name, file, "test", int(cases)) if file else dict(reference)
    close = task.compare(reference["_out"], found.pop("_out"))
    print(json.dumps({"file": file, "metric": found, "close": close}), flush=True)
"""


def judged(corpus: Corpus, name: str, files: Sequence[Path]) -> Iterator[tuple[float, Row]]:
    """For the original and then each file: the metric, and closeness to the original."""
    given = [corpus.recipes, corpus.folder, name, str(CASES[name]), *files]
    command = [corpus.python, "-c", SCRIPT, *given]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in running.stdout or ():
        told = json.loads(line)
        key = METRICS[name]
        agreement = told["close"].get("argmax_agreement", 0.0)
        yield (agreement if key is None else told["metric"][key]), told["close"]
    if running.wait():
        raise TaskFailed(f"the recipe of {name} ended with {running.returncode}")
