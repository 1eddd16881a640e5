"""Union-find over single channel positions: what is tied together must go together."""

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

# The label of a position that no rule may remove: space, batch, time.
FIXED = 0


class Atoms:
    """Atoms tied into sets; a set with a reason is pinned."""

    def __init__(self) -> None:
        self._parent = [FIXED]
        self._reason: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Labels:
        """New atoms, each a set of its own."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def join(self, left: Labels, right: Labels, why: str) -> None:
        """Tie position by position; what meets a fixed position is pinned, because of `why`."""
        pairs = np.stack(np.broadcast_arrays(left, right), axis=-1).reshape(-1, 2)
        for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
            if FIXED in (a, b):
                self._reason.setdefault(self.find(a or b), why)
            else:
                self._unite(a, b)

    def pin(self, labels: Labels, why: str) -> None:
        """Keep these positions; the first reason of a set stays."""
        for atom in np.unique(labels[labels != FIXED]).tolist():
            self._reason.setdefault(self.find(atom), why)

    def reason(self, root: int) -> str | None:
        """Why the set is pinned, or None where it may be pruned."""
        return self._reason.get(root)

    def roots(self, labels: Labels) -> Labels:
        """The set of each label."""
        unique, inverse = np.unique(labels, return_inverse=True)
        found = np.array([self.find(atom) for atom in unique.tolist()], dtype=np.int64)
        return found[inverse].reshape(labels.shape) if labels.size else labels

    def is_free(self, labels: Labels) -> bool:
        """Whether any of these positions may still be pruned."""
        unique = np.unique(labels[labels != FIXED]).tolist()
        return any(self.find(atom) not in self._reason for atom in unique)

    def _unite(self, a: int, b: int) -> None:
        low, high = sorted((self.find(a), self.find(b)))
        if low == high:
            return
        self._parent[high] = low
        if high in self._reason:
            self._reason.setdefault(low, self._reason.pop(high))


def fixed(count: int) -> Labels:
    """Labels of an axis that stays as it is."""
    return np.zeros(count, dtype=np.int64)
