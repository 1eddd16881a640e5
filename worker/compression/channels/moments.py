"""Moments of a layer's inputs, streamed: memory depends on the layer, not on the number of samples."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Share of the mean variance that a Gram is raised by before it is inverted.
RIDGE = 1e-2



class Moments:
    """Sums over rows: products in float32, sums in float64. Shapes lead with the conv groups."""

    def __init__(self, groups: int, inputs: int, targets: int) -> None:
        self.count = 0
        self.samples = 0
        self.x = np.zeros((groups, inputs))
        self.y = np.zeros((groups, targets))
        self.xx = np.zeros((groups, inputs, inputs))
        self.xy = np.zeros((groups, inputs, targets))
        self.magnitude = np.zeros((groups, inputs))
        self.firing = np.zeros((groups, inputs))

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Take in rows (rows, groups, inputs), and targets (rows, groups, columns)."""
        self.count += len(x)
        self.samples += 1
        each = np.ascontiguousarray(np.swapaxes(x, 0, 1), dtype=np.float32)
        self.x += each.sum(axis=1, dtype=np.float64)
        self.magnitude += np.abs(each).sum(axis=1, dtype=np.float64)
        self.firing += np.count_nonzero(each, axis=1)
        turned = np.swapaxes(each, 1, 2)
        self.xx += turned @ each
        if y is not None:
            aims = np.ascontiguousarray(np.swapaxes(y, 0, 1), dtype=np.float32)
            self.y += aims.sum(axis=1, dtype=np.float64)
            self.xy += turned @ aims

    def merged(self, other: "Moments") -> "Moments":
        """Both together."""
        made = Moments(self.x.shape[0], self.x.shape[1], self.y.shape[1])
        for name in ("count", "samples", "x", "y", "xx", "xy", "magnitude", "firing"):
            setattr(made, name, getattr(self, name) + getattr(other, name))
        return made

    def gram(self, *, centred: bool = True) -> Array:
        """E[x x'], around the mean or around zero."""
        mean = self.x / self.count
        second = self.xx / self.count
        return second - mean[:, :, None] * mean[:, None, :] if centred else second

    def cross(self, *, centred: bool = True) -> Array:
        """E[x y'], around the means or around zero."""
        second = self.xy / self.count
        if not centred:
            return second
        return second - (self.x / self.count)[:, :, None] * (self.y / self.count)[:, None, :]


def ridged(gram: Array, share: float = RIDGE) -> tuple[Array, float]:
    """The Gram plus a share of its mean diagonal, and that amount (0 where nothing varies)."""
    amount = share * float(np.diagonal(gram, axis1=-2, axis2=-1).mean())
    return gram + amount * np.eye(gram.shape[-1]), amount
