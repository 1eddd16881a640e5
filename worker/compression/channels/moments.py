"""Moments of a layer's inputs, streamed: memory depends on the layer, not on the samples."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Share of the mean variance that a Gram is raised by before it is inverted.
RIDGE = 1e-2
# Rows that are gathered before they are multiplied: many small products cost more than one.
_GATHERED = 1024


class Moments:
    """Sums over rows: products in float32, sums in float64. Shapes lead with conv groups."""

    def __init__(self, groups: int, inputs: int, targets: int) -> None:
        self.count = 0
        self._x = np.zeros((groups, inputs))
        self._y = np.zeros((groups, targets))
        self._xx = np.zeros((groups, inputs, inputs))
        self._xy = np.zeros((groups, inputs, targets))
        self._magnitude = np.zeros((groups, inputs))
        self._firing = np.zeros((groups, inputs))
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Take in rows (rows, groups, inputs), and targets (rows, groups, columns)."""
        self.count += len(x)
        aims = np.zeros((len(x), self._y.shape[0], 0)) if y is None else y
        self._waiting.append((x.astype(np.float32), aims.astype(np.float32)))
        if sum(len(rows) for rows, _ in self._waiting) >= _GATHERED:
            self._settle()

    def merged(self, other: "Moments") -> "Moments":
        """Both together."""
        self._settle()
        other._settle()
        made = Moments(self._x.shape[0], self._x.shape[1], self._y.shape[1])
        made.count = self.count + other.count
        for name in ("_x", "_y", "_xx", "_xy", "_magnitude", "_firing"):
            setattr(made, name, getattr(self, name) + getattr(other, name))
        return made

    def means(self) -> tuple[Array, Array]:
        """E[x] and E[y]."""
        self._settle()
        return self._x / self.count, self._y / self.count

    def gram(self, *, centred: bool = True) -> Array:
        """E[x x'], around the mean or around zero."""
        mean, _ = self.means()
        second = self._xx / self.count
        return second - mean[:, :, None] * mean[:, None, :] if centred else second

    def cross(self, *, centred: bool = True) -> Array:
        """E[x y'], around the means or around zero."""
        mean, aim = self.means()
        second = self._xy / self.count
        return second - mean[:, :, None] * aim[:, None, :] if centred else second

    def magnitude(self) -> Array:
        """E|x|."""
        self._settle()
        return self._magnitude / self.count

    def firing(self) -> Array:
        """Share of rows in which an input is not zero."""
        self._settle()
        return self._firing / self.count

    def energy(self) -> Array:
        """E[x^2]."""
        self._settle()
        made: Array = np.diagonal(self._xx, axis1=1, axis2=2) / self.count
        return made

    def _settle(self) -> None:
        if not self._waiting:
            return
        rows = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        x, y = (np.ascontiguousarray(np.swapaxes(part, 0, 1)) for part in rows)
        self._waiting.clear()
        turned = np.swapaxes(x, 1, 2)
        self._x += x.sum(axis=1, dtype=np.float64)
        self._y += y.sum(axis=1, dtype=np.float64)
        self._xx += turned @ x
        self._xy += turned @ y
        self._magnitude += np.abs(x).sum(axis=1, dtype=np.float64)
        self._firing += np.count_nonzero(x, axis=1)


def ridged(gram: Array, share: float = RIDGE) -> tuple[Array, float]:
    """The Gram plus a share of its mean diagonal, and that amount (0 where nothing varies)."""
    amount = share * float(np.diagonal(gram, axis1=-2, axis2=-1).mean())
    return gram + amount * np.eye(gram.shape[-1]), amount
