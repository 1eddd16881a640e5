"""One output of a result against the original's, sample by sample."""

from dataclasses import dataclass, field

import numpy as np

from worker.compression.fidelity.intervals import exact, of_mean, trials
from worker.compression.fidelity.layout import Layout
from worker.compression.fidelity.margins import Margins
from worker.compression.fidelity.measures import Interval, OutputFidelity, OutputKind
from worker.compression.fidelity.signal import LOST_DB, Signal
from worker.compression.fidelity.tally import Tally


@dataclass
class Comparison:
    """Adds samples up; `outcome` says what they show.

    A result that is NaN or infinite where the original is not, or of another shape, has lost
    the output: its drop is 1, whatever the other samples say.
    """

    name: str
    kind: OutputKind
    layout: Layout
    identical: bool = True
    lost: bool = False
    discrete: bool = False
    signal: Signal = field(init=False)
    margins: Margins = field(default_factory=Margins)
    tally: Tally = field(default_factory=Tally)
    """By trial: changed answers (or 1 - cosine, summed) and how many there were."""

    def __post_init__(self) -> None:
        self.signal = Signal(self.layout)

    def add(
        self,
        original: np.ndarray,
        result: np.ndarray | None,
        mask: np.ndarray | None,
        *,
        trial: int | None,
    ) -> None:
        """Add a sample; `mask` (batch, places) is False where the input was padding.

        `trial` is the independent trial that it belongs to; None: each of its rows is one.
        """
        if result is None or result.shape != original.shape:
            self.lost, self.identical = True, False
            return
        self.discrete = original.dtype.kind not in "fV"
        if not _equal(original, result):
            self.identical = False
        if self.discrete:
            self._count(np.asarray(original == result), mask, trial)
            return
        original, result = _single(original), _single(result)
        original, result, lost = _finite(original, result)
        if lost:
            self.lost = True
            return
        self._add_floats(original, result, mask, trial)

    def _add_floats(
        self,
        original: np.ndarray,
        result: np.ndarray,
        mask: np.ndarray | None,
        trial: int | None,
    ) -> None:
        if self.kind == "class" and original.ndim and original.shape[-1]:
            self._count(_same_answer(original, result), mask, trial)
        places = original.ndim > 2 and mask is not None and mask.shape == original.shape[:2]
        if places and mask is not None:
            kept = mask[..., *(None,) * (original.ndim - 2)] if original.ndim > 3 else mask
            kept = np.broadcast_to(kept, original.shape[:-1])
        if self.kind == "embedding" and original.ndim:
            self._angles(original, result, kept if places else None, trial)
        if places:
            original, result = original[kept], result[kept]
        if self.kind == "class":
            self.margins.add(original, result)
        self.signal.add(original, result, places=places)

    def _count(self, same: np.ndarray, mask: np.ndarray | None, trial: int | None) -> None:
        same = np.atleast_1d(same)
        rows = []
        masked = same.ndim > 1 and mask is not None and mask.shape == same.shape[:2]
        for index, row in enumerate(same):
            kept = row[mask[index]] if masked and mask is not None else row
            rows.append((float(np.size(kept) - np.count_nonzero(kept)), float(np.size(kept))))
        self.tally.add(rows, trial)

    def _angles(
        self,
        original: np.ndarray,
        result: np.ndarray,
        kept: np.ndarray | None,
        trial: int | None,
    ) -> None:
        product = np.einsum("...i,...i->...", original, result, dtype=float)
        norms = [np.einsum("...i,...i->...", x, x, dtype=float) for x in (original, result)]
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = product / np.sqrt(norms[0] * norms[1])
        zero = norms[0] * norms[1] == 0
        cosines = np.where(zero, (norms[0] == norms[1]).astype(float), cosines)
        cosines = np.atleast_1d(np.clip(cosines, -1, 1))
        rows = []
        for index, row in enumerate(cosines):
            angles = row if kept is None else row[kept.reshape(cosines.shape)[index]]
            rows.append((float(np.sum(1 - angles)), float(np.size(angles))))
        self.tally.add(rows, trial)

    def outcome(self) -> OutputFidelity:
        """What all samples together show."""
        counted = self.discrete or self.kind == "class"
        share = self._share()
        worst = None if self.identical or self.discrete else self.signal.worst_channel()
        drop = share if counted or self.kind == "embedding" else None
        cosine: float | None = None if self.discrete else self.signal.cosine()
        if self.kind == "embedding" and share is not None:
            cosine = 1 - share
        return OutputFidelity(
            name=self.name,
            kind=self.kind,
            identical=self.identical,
            sqnr_db=self._sqnr_db(),
            worst_channel=None if self.lost else worst,
            cosine=None if self.lost else cosine,
            max_abs=None if self.discrete or self.lost else self.signal.max_abs,
            argmax_agreement=1 - share if counted and share is not None else None,
            drop=1.0 if self.lost else drop,
            interval=self._interval(share, counted=counted),
            answers=round(self._total()) if counted else None,
            likely_drop=1.0 if self.lost else self.margins.likely_drop(),
        )

    def _total(self) -> float:
        sums = self.tally.sums()
        return float(sums[:, 1].sum()) if sums.size else 0.0

    def _share(self) -> float | None:
        if self.lost:
            return 1.0
        total = self._total()
        return float(self.tally.sums()[:, 0].sum()) / total if total else None

    def _sqnr_db(self) -> float | None:
        if self.lost:
            return LOST_DB
        return None if self.identical or self.discrete else self.signal.sqnr_db()

    def _interval(self, share: float | None, *, counted: bool) -> Interval | None:
        if self.lost:
            return 1.0, 1.0
        if share is None:
            return None
        sums = self.tally.sums()
        if counted:
            return exact(share, trials(sums[:, 1]))
        found = of_mean(sums)
        return None if found is None else (min(max(found[0], 0.0), share), max(found[1], share))


def _same_answer(original: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Whether the result's class is one that the original ranks first: of ties, any."""
    chosen = np.take_along_axis(original, result.argmax(-1)[..., None], -1)[..., 0]
    return np.asarray(chosen >= original.max(-1))


def _equal(original: np.ndarray, result: np.ndarray) -> bool:
    if original.dtype.kind in "OUS":
        return bool(np.all(original == result))
    return original.dtype == result.dtype and np.array_equal(original, result, equal_nan=True)


def _single(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _finite(original: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Both without the places where the original is not finite; whether the result broke."""
    here, there = np.isfinite(original), np.isfinite(result)
    if here.all() and there.all():
        return original, result, False
    infinite = np.isinf(original) & ~there & (original != result)
    lost = bool((here & ~there).any() or infinite.any())
    # The original's own NaN and infinities say nothing of what was lost.
    return np.where(here, original, 0), np.where(here, result, 0), lost
