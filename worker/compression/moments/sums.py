"""Sums over rows of inputs: means in float64, products in float32, whose sums are large."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# What is left of numbers once they are rounded, as a layer reads them.
Rounding = Callable[[np.ndarray], np.ndarray]

# Rows gathered before they are multiplied: many small products cost more than one.
_GATHERED_ROWS, _GATHERED_BYTES = 1024, 16_000_000
# Rows of a Gram that are worked on at once: a second one of a wide layer would not fit.
_ROWS_AT_ONCE = 512
# Rows that are rounded at once: what is left of them takes as much memory as they do.
_COMPARED_ROWS = 128


class Moments:
    """Mean and second moments of rows (rows, groups, inputs); nothing of a row is kept."""

    def __init__(self, groups: int, inputs: int, rounded: Rounding | None = None) -> None:
        self.count = 0
        self._rounded = rounded
        self._shift = np.zeros((groups, inputs))
        self._noise = np.zeros((groups, inputs))
        self._sum = np.zeros((groups, inputs))
        self._products = np.zeros((groups, inputs, inputs), np.float32)
        self._largest = np.zeros((groups, inputs))
        # What is subtracted before rows are multiplied, so that a large mean costs no digits.
        self._offset: npt.NDArray[np.float32] | None = None
        self._waiting: list[np.ndarray] = []

    @staticmethod
    def bytes_for(groups: int, inputs: int) -> int:
        """Memory that the sums of one layer take."""
        return 4 * groups * inputs * inputs

    def add(self, rows: np.ndarray) -> None:
        """Take in rows (rows, groups, inputs)."""
        self._waiting.append(rows.astype(np.float32, copy=False))
        gathered = sum(len(part) for part in self._waiting)
        if gathered >= _GATHERED_ROWS or 4 * gathered * self._sum.size >= _GATHERED_BYTES:
            self.settle()

    def mean(self) -> Array:
        """E[x] as (groups, inputs)."""
        self.settle()
        return self._sum / max(self.count, 1)

    def gram(self, *, centred: bool) -> Array:
        """E[x x'] around the mean, or around zero, as (groups, inputs, inputs)."""
        self.settle()
        gram = self._products.astype(np.float64) / max(self.count, 1)
        self._move(gram, centred=centred)
        return gram

    def taken(self, *, centred: bool) -> Array:
        """The same as `gram`, whose sums are gone afterwards: memory holds one of both."""
        self.settle()
        gram = self._products.astype(np.float64)
        self._products = np.zeros((0, 0, 0), np.float32)
        gram /= max(self.count, 1)
        self._move(gram, centred=centred)
        return gram

    def _move(self, gram: Array, *, centred: bool) -> None:
        """From moments around the offset to those around the mean, or around zero."""
        mean = self.mean()
        apart = self._apart()
        for start in range(0, gram.shape[1], _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            gram[:, part] -= apart[:, part, None] * apart[:, None, :]
            if not centred:
                gram[:, part] += mean[:, part, None] * mean[:, None, :]

    def _apart(self) -> Array:
        """The mean of what was multiplied."""
        return self.mean() - (0 if self._offset is None else self._offset)

    def energy(self) -> Array:
        """E[x^2] as (groups, inputs)."""
        self.settle()
        products = np.diagonal(self._products, axis1=1, axis2=2).astype(np.float64)
        moved = self.mean() ** 2 - self._apart() ** 2
        return np.asarray(products / max(self.count, 1) + moved)

    def largest(self) -> Array:
        """Largest absolute value as (groups, inputs)."""
        self.settle()
        return self._largest

    def shift(self) -> Array:
        """E[r - x], where r is x as rounded, as (groups, inputs)."""
        self.settle()
        return self._shift / max(self.count, 1)

    def noise(self) -> Array:
        """E[(r - x)^2] as (groups, inputs)."""
        self.settle()
        return self._noise / max(self.count, 1)

    def settle(self) -> None:
        """Bring waiting rows into the sums."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting.clear()
        finite = np.isfinite(rows).all(axis=(1, 2))
        if not finite.all():  # a copy of all rows is made only where it has to be
            rows = rows[finite]
        if len(rows) == 0:
            return
        self.count += len(rows)
        self._sum += rows.sum(axis=0, dtype=np.float64)
        self._largest = np.maximum(self._largest, np.abs(rows).max(axis=0))
        if self._rounded is not None:
            self._compare(rows, self._rounded)
        if self._offset is None:
            self._offset = rows.mean(axis=0)
        rows -= self._offset  # a copy of our own
        self._multiply(rows)

    def _compare(self, rows: np.ndarray, rounded: Rounding) -> None:
        for start in range(0, len(rows), _COMPARED_ROWS):
            part = rows[start : start + _COMPARED_ROWS]
            left = rounded(part) - part
            self._shift += left.sum(axis=0, dtype=np.float64)
            self._noise += np.square(left).sum(axis=0, dtype=np.float64)

    def _multiply(self, rows: np.ndarray) -> None:
        if rows.shape[1] == 1:
            flat = rows[:, 0]
            for start in range(0, flat.shape[1], _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                self._products[0, part] += flat[:, part].T @ flat
            return
        grouped = np.ascontiguousarray(np.swapaxes(rows, 0, 1))
        self._products += np.swapaxes(grouped, 1, 2) @ grouped
