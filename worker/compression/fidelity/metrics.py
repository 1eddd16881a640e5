"""The task metric, from labels: which output they are about, and how good it is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.compression.errors import LabelsMismatch
from worker.compression.fidelity.intervals import bootstrap, paired, trials
from worker.compression.fidelity.measures import Accuracy, OutputKind
from worker.compression.fidelity.tally import Sums

Outputs = Mapping[str, np.ndarray]
IGNORED = -100
"""A label that counts for nothing, as in PyTorch's losses."""


@dataclass(frozen=True)
class Made:
    """What the original made of a sample, its labels, and where its input is padding."""

    original: np.ndarray
    labels: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Metric(ABC):
    """Scores one output; rows of sums add up, over a trial and over all of them."""

    output: str

    @abstractmethod
    def rows(self, output: np.ndarray | None, made: Made) -> list[Sums]:
        """One tuple of sums per row of a batch; None, or another shape, is a lost output.

        Raises:
            LabelsMismatch: these labels do not fit this output.
        """

    @abstractmethod
    def accuracy(self, before: np.ndarray, after: np.ndarray) -> Accuracy:
        """Both sides by trial, in the same order."""


@dataclass(frozen=True)
class ShareRight(Metric):
    """Share of right answers: top-1, per step, or equality where the graph answers itself."""

    name: str

    def rows(self, output: np.ndarray | None, made: Made) -> list[Sums]:
        original, labels, mask = made.original, made.labels.astype(np.int64), made.mask
        answers = _answers(original)
        if answers.size != labels.size:
            raise _misfit(labels, {self.output: original})
        labels = labels.reshape(answers.shape)
        if original.dtype.kind == "f":
            _known_classes(labels, original.shape[-1])
        counts = labels != IGNORED
        if mask is not None and labels.ndim == 2 and mask.shape == labels.shape:
            counts &= mask
        kept = output is not None and output.shape == original.shape
        given = _answers(output) if output is not None and kept else np.full_like(answers, -1)
        right = counts & (given == labels)
        return [
            (float(np.count_nonzero(row)), float(np.count_nonzero(counted)))
            for row, counted in zip(np.atleast_1d(right), np.atleast_1d(counts), strict=True)
        ]

    def accuracy(self, before: np.ndarray, after: np.ndarray) -> Accuracy:
        total = max(before[:, 1].sum(), 1)
        shares = before[:, 0].sum() / total, after[:, 0].sum() / total
        change = before[:, 0] - after[:, 0]
        lost, gained = change[change > 0].sum() / total, -change[change < 0].sum() / total
        low, high = paired(float(lost), float(gained), trials(before[:, 1]))
        base = shares[0] or 1.0
        drop = (shares[0] - shares[1]) / base
        return Accuracy(
            metric=self.name,
            before=float(shares[0]),
            after=float(shares[1]),
            drop=float(drop),
            interval=(float(min(low / base, drop)), float(min(max(high / base, drop), 1.0))),
            samples=len(before),
        )


@dataclass(frozen=True)
class NormalizedError(Metric):
    """Root mean square error in units of the labels' standard deviation.

    Its drop is relative to 1 - error, the part that is explained, as a top-1's is to accuracy.
    """

    def rows(self, output: np.ndarray | None, made: Made) -> list[Sums]:
        original, labels = made.original, made.labels.astype(np.float64)
        if original.size != labels.size:
            raise _misfit(labels, {self.output: original})
        labels = np.atleast_1d(labels.reshape(original.shape))
        kept = output is not None and output.shape == original.shape
        if output is None or not kept or not np.isfinite(output).all():
            # As wrong as the opposite of the truth.
            output = -labels
        squares = (np.atleast_1d(output).astype(np.float64) - labels) ** 2
        return [
            (float(wrong.sum()), float((row**2).sum()), float(row.sum()), float(row.size))
            for wrong, row in zip(squares, labels, strict=True)
        ]

    def accuracy(self, before: np.ndarray, after: np.ndarray) -> Accuracy:
        both = np.column_stack([before, after[:, :1]])

        def drop(sums: np.ndarray) -> float:
            one = _error(sums[0], *sums[1:4])
            return (_error(sums[4], *sums[1:4]) - one) / max(1 - one, one)

        sums = both.sum(0)
        return Accuracy(
            metric="normalized_error",
            before=_error(sums[0], *sums[1:4]),
            after=_error(sums[4], *sums[1:4]),
            drop=drop(sums),
            interval=bootstrap(both, drop),
            samples=len(before),
        )


def choose(kinds: Mapping[str, OutputKind], outputs: Outputs, labels: np.ndarray) -> Metric:
    """The metric that labels of this type and shape call for (DESIGN.md 3.1).

    Raises:
        LabelsMismatch: they fit no output, or several.
    """
    found = _errors(kinds, outputs, labels) if labels.dtype.kind == "f" else None
    found = found or _shares(kinds, outputs, labels)
    if len(found) != 1:
        raise _misfit(labels, outputs)
    output = outputs[found[0].output]
    found[0].rows(output, Made(output, labels))
    return found[0]


def _errors(
    kinds: Mapping[str, OutputKind], outputs: Outputs, labels: np.ndarray
) -> list[Metric]:
    fitting = [
        name
        for name, output in outputs.items()
        if output.dtype.kind == "f"
        and labels.shape in (output.shape, output.shape[1:])
        and labels.size == output.size
    ]
    values = [name for name in fitting if kinds[name] == "value"]
    chosen = fitting if len(fitting) == 1 else values
    return [NormalizedError(name) for name in chosen]


def _shares(
    kinds: Mapping[str, OutputKind], outputs: Outputs, labels: np.ndarray
) -> list[Metric]:
    if labels.dtype.kind == "f":
        return []
    classes = {
        name: output
        for name, output in outputs.items()
        if kinds[name] == "class" and output.dtype.kind == "f"
    }
    for rank, metric in ((2, "top1"), (3, "step_accuracy")):
        fitting = [
            name
            for name, output in classes.items()
            if output.ndim == rank and labels.size == output.size // output.shape[-1]
        ]
        if fitting:
            return [ShareRight(name, metric) for name in fitting]
    return [
        ShareRight(name, "agreement")
        for name, output in outputs.items()
        if output.dtype.kind in "biu" and output.size == labels.size
    ]


def _answers(output: np.ndarray) -> np.ndarray:
    """The chosen classes, or what the graph chose itself; -1 where it is not a number."""
    if output.dtype.kind in "biu":
        return output
    # NaN would win the arg-max by its place.
    return np.where(np.isnan(output).any(-1), -1, output.argmax(-1))


def _known_classes(labels: np.ndarray, count: int) -> None:
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= count))]
    if wrong.size:
        raise LabelsMismatch(
            f"label {int(wrong.flat[0])} is no class: the output has {count}, from 0 on",
            hint=f"number the classes from 0 to {count - 1}; {IGNORED} counts for nothing",
        )


def _error(wrong: float, squares: float, total: float, count: float) -> float:
    spread = squares - total * total / max(count, 1)
    # Labels that are all the same have no spread: measure against their size.
    scale = spread if spread > 1e-12 * max(squares, 1e-300) else squares
    return float(np.sqrt(wrong / scale)) if scale > 0 else float(np.sqrt(wrong / max(count, 1)))


def _misfit(labels: np.ndarray, outputs: Outputs) -> LabelsMismatch:
    shapes = ", ".join(f"{name!r} {list(output.shape)}" for name, output in outputs.items())
    return LabelsMismatch(
        f"labels of type {labels.dtype} and shape {list(labels.shape)} per sample "
        f"fit none, or more than one, of the outputs {shapes}",
        hint="send integers (N,) for a class output (N,C), integers (N,T) for (N,T,C), or "
        "floats of an output's shape; or leave the labels out",
    )
