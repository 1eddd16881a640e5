"""Figures added up by independent trial."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Sums = tuple[float, ...]


@dataclass
class Tally:
    """One row of sums for each trial: a row of a batch, a sample, or a whole sequence."""

    _rows: list[Sums] = field(default_factory=list)
    _open: int | None = None

    def add(self, rows: Sequence[Sums], trial: int | None) -> None:
        """Add the sums of a sample, by row of its first axis.

        Samples of one trial follow each other; None: each row is a trial of its own.
        """
        if trial is None:
            self._rows += rows
            return
        total = tuple(float(sum(column)) for column in zip(*rows, strict=True))
        if trial == self._open and total:
            before = self._rows.pop()
            total = tuple(one + other for one, other in zip(before, total, strict=True))
        if total:
            self._rows.append(total)
            self._open = trial

    def sums(self) -> np.ndarray:
        """(trials, fields)."""
        if not self._rows:
            return np.zeros((0, 2))
        return np.array(self._rows, dtype=float).reshape(len(self._rows), -1)
