"""The original's answers on a set of samples, kept on disk to compare results with."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import (
    ArrayFile,
    CalibrationSet,
    Feed,
    StoredArray,
    real_places,
    rows,
)
from worker.compression.errors import (
    CompressionWarning,
    InvalidData,
    InvalidModel,
    first_line,
)
from worker.compression.fidelity.comparison import Comparison
from worker.compression.fidelity.layout import Layout, layout
from worker.compression.fidelity.measures import Accuracy, Fidelity, OutputKind
from worker.compression.fidelity.metrics import Made, Metric, Outputs, choose
from worker.compression.fidelity.tally import Sums, Tally

Progress = Callable[[float, str], None]
_LARGEST_CACHE = 16 << 30


def _silent(share: float, message: str) -> None:
    """Nobody asked."""


class Reference:
    """Runs the original once over the samples; `compare` runs a result over the same."""

    def __init__(
        self,
        path: Path,
        samples: CalibrationSet,
        kinds: Mapping[str, OutputKind],
        *,
        workdir: Path,
        threads: int = 1,
    ) -> None:
        """Run the original.

        Raises:
            InvalidData: there are no samples, or the model refuses one.
            LabelsMismatch: the samples' labels fit no output.
            InvalidModel: the model does not load, or an output is no tensor.
        """
        if not len(samples):
            raise InvalidData("there are no samples to compare on")
        self._samples, self._kinds, self._threads = samples, dict(kinds), threads
        self._session: ort.InferenceSession | None = graph.session(path, threads=threads)
        first = self._run_original(0)
        self._metric = self._choose_metric(first)
        self._before, self._trials = Tally(), _trials(samples)
        self._layouts = _layouts(path, first)
        self._cache = self._fill_cache(first, workdir)
        if self._cache is not None:
            # A result is compared without the original in memory beside it.
            self._session = None

    def compare(
        self, path: Path, *, progress: Progress = _silent
    ) -> tuple[Fidelity, Accuracy | None]:
        """Judge a result; a sample that it fails on counts as lost, with a warning.

        Raises:
            InvalidModel: the result does not load.
            LabelsMismatch: the labels of one sample fit no output.
        """
        result = graph.session(path, threads=self._threads)
        comparisons = [
            Comparison(name, kind, self._layouts[name]) for name, kind in self._kinds.items()
        ]
        after = Tally()
        count, samples, told = len(self._samples), 0, False
        outputs: dict[str, np.ndarray] = {}
        for index in range(count):
            feed, original = self._feed(index, outputs), self._original(index)
            samples += rows(feed) if self._samples.batched else 1
            outputs, failure = self._run_result(result, feed)
            if failure and not told:
                _warn_failure(path, index, failure)
                told = True
            mask, trial = real_places(feed), self._trials[index]
            for one in comparisons:
                one.add(original[one.name], outputs.get(one.name), mask, trial=trial)
            after.add(self._score(index, outputs, original, mask), trial)
            progress((index + 1) / count, f"compared {index + 1} of {count} samples")
        outcomes = [one.outcome() for one in comparisons]
        fidelity = Fidelity(samples=samples, source=self._samples.source, outputs=outcomes)
        return fidelity, self._accuracy(after)

    def _feed(self, index: int, before: Outputs) -> Feed:
        """The sample, but with the state that the result itself came to: errors add up."""
        feed = self._samples[index]
        if index == 0 or index in self._samples.starts:
            return feed
        carried = self._samples.carried.items()
        return feed | {name: before[output] for name, output in carried if output in before}

    def _choose_metric(self, outputs: Outputs) -> Metric | None:
        labels = self._samples.labels
        return None if labels is None else choose(self._kinds, outputs, labels[0])

    def _fill_cache(self, first: Outputs, workdir: Path) -> list[dict[str, StoredArray]] | None:
        """Keep all outputs on disk, unless they are too large: then run again when asked."""
        size = sum(output.nbytes for output in first.values()) * len(self._samples)
        cached = size <= min(_LARGEST_CACHE, shutil.disk_usage(workdir).free // 2)
        kept = []
        folder = Path(tempfile.mkdtemp(prefix="original-", dir=workdir))
        with ArrayFile(folder / "outputs.bin") as file:
            for index in range(len(self._samples)):
                outputs = first if index == 0 else self._run_original(index)
                mask = real_places(self._samples[index])
                scored = self._score(index, outputs, outputs, mask)
                self._before.add(scored, self._trials[index])
                if cached:
                    kept.append({name: file.append(value) for name, value in outputs.items()})
        return kept if cached else None

    def _original(self, index: int) -> Outputs:
        if self._cache is None:
            return self._run_original(index)
        return {name: stored.read() for name, stored in self._cache[index].items()}

    def _run_original(self, index: int) -> dict[str, np.ndarray]:
        names = list(self._kinds)
        if self._session is None:
            raise ValueError("the original was run already")
        try:
            outputs = self._session.run(names, self._samples[index])
        except Exception as error:
            shapes = {name: value.shape for name, value in self._samples[index].items()}
            raise InvalidData(
                f"the original model fails on sample {index}: {first_line(error)}",
                hint=f"check the sample's shapes: {shapes}",
                code="model_does_not_run",
            ) from error
        return {name: _tensor(name, value) for name, value in zip(names, outputs, strict=True)}

    def _run_result(
        self, session: ort.InferenceSession, feed: Feed
    ) -> tuple[dict[str, np.ndarray], str | None]:
        names = list(self._kinds)
        try:
            outputs = session.run(names, feed)
        except Exception as error:
            return {}, first_line(error)
        found = {name: _tensor(name, value) for name, value in zip(names, outputs, strict=True)}
        return found, None

    def _score(
        self, index: int, outputs: Outputs, original: Outputs, mask: np.ndarray | None
    ) -> list[Sums]:
        if self._metric is None or self._samples.labels is None:
            return []
        name = self._metric.output
        made = Made(original[name], self._samples.labels[index], mask)
        return self._metric.rows(outputs.get(name), made)

    def _accuracy(self, after: Tally) -> Accuracy | None:
        if self._metric is None:
            return None
        return self._metric.accuracy(self._before.sums(), after.sums())


def _layouts(path: Path, outputs: Outputs) -> dict[str, Layout]:
    made = graph.load(path).graph.outputs
    return {value.name or "": layout(value, outputs[value.name or ""].ndim) for value in made}


def _trials(samples: CalibrationSet) -> list[int | None]:
    """The independent trial that each sample belongs to; None: each of its rows is one."""
    if samples.batched:
        return [None] * len(samples)
    return [number for number, steps in enumerate(samples.sequences) for _ in steps]


def _tensor(name: str, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise InvalidModel(
            f"output {name!r} is no tensor but {type(value).__name__}",
            hint="export the model with tensors as outputs (skl2onnx: zipmap=False)",
        )
    return value.astype(str) if value.dtype.kind == "O" else value


def _warn_failure(path: Path, index: int, reason: str) -> None:
    warnings.warn(
        CompressionWarning(
            f"{path.name} fails on sample {index}: {reason}", code="result_does_not_run"
        ),
        stacklevel=3,
    )
