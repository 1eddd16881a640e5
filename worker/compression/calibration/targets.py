"""Labels: one array per sample, cut like the samples they belong to."""

from collections.abc import Mapping, Sequence

import numpy as np

from worker.compression.calibration.columns import Apart, Column, Rows, Stack
from worker.compression.calibration.samples import Picked
from worker.compression.calibration.storage import StoredArray
from worker.compression.errors import LabelsMismatch
from worker.compression.graph import InputSpec

LABELS = "labels"
ESCAPED = "__labels__"


def labels_key(specs: Sequence[InputSpec]) -> str:
    """The key of labels; another one where an input bears that name."""
    return ESCAPED if any(spec.name == LABELS for spec in specs) else LABELS


def labels(
    stored: StoredArray | Mapping[str, StoredArray], *, count: int, batch: int | None
) -> Sequence[np.ndarray]:
    """The labels of each of `count` samples of `batch` rows; None where samples are stacked.

    Raises:
        LabelsMismatch: not as many labels as there are samples.
    """
    found = _column(stored, count, batch)
    if len(found) != count:
        rows = count * (batch or 1)
        raise LabelsMismatch(
            f"there are labels for {len(found)} of {count} samples",
            hint=f"send one label (or one array of labels) for each of the {rows} rows",
        )
    return Picked(_Items(found), range(count))


class _Items(Sequence[np.ndarray]):
    """A column as a sequence."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # never sliced
        return self._column[index]


def batch_of(columns: Mapping[str, Column]) -> int | None:
    """Rows of one sample; None where samples are stacked or stored apart."""
    count = max(len(column) for column in columns.values())
    batches = [
        column.batch
        for column in columns.values()
        if isinstance(column, Rows) and len(column) == count
    ]
    return max(batches, default=None)


def _column(
    stored: StoredArray | Mapping[str, StoredArray], count: int, batch: int | None
) -> Column:
    if not isinstance(stored, StoredArray):
        return Apart(list(stored.values()))
    if not stored.shape:
        return Apart([stored])
    # Trailing rows that fill no batch are left over in the inputs, and so in the labels.
    if batch is not None and stored.shape[0] // batch == count:
        return Rows(stored, batch, repeatable=False)
    return Stack(stored)
