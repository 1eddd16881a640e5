"""A .npz or .npy file into columns: which keys it must hold, and what each of them is."""

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.compression.calibration import casting, npy
from worker.compression.calibration.archive import entry
from worker.compression.calibration.columns import Column, apart, column, feeds
from worker.compression.calibration.samples import CalibrationSet, Source
from worker.compression.calibration.storage import ArrayFile, StoredArray
from worker.compression.calibration.targets import batch_of, labels, labels_key
from worker.compression.errors import CompressionWarning, InvalidData
from worker.compression.graph import InputSpec

_APART = re.compile(r"(\d{1,9})\|(.+)", re.DOTALL)


@dataclass(frozen=True)
class Keys:
    """Keys as they are used: an array for all samples, or one for each."""

    whole: frozenset[str]
    apart: Mapping[str, Mapping[int, str]]

    def __contains__(self, name: str) -> bool:
        return name in self.whole or name in self.apart


def read_npz(
    archive: zipfile.ZipFile, specs: Sequence[InputSpec], *, into: ArrayFile, source: Source
) -> CalibrationSet:
    """Samples of an archive of arrays.

    Raises:
        InvalidData: an input is missing or does not fit, or the archive is broken.
    """
    entries = array_entries(archive)
    label_key = labels_key(specs)
    keys = _keys(entries, {spec.name for spec in specs} | {label_key})
    _complete(keys, entries, specs)

    def store(key: str, check: npy.Check) -> StoredArray:
        info = entries[key]
        with entry(archive, info) as stream:
            header = npy.read_header(stream, key)
            stored = npy.copy(stream, header, key, into=into, check=check, limit=info.file_size)
            # Reading to the end makes zipfile compare the checksum.
            stream.read(1)
        return stored

    columns = {spec.name: _column(spec, keys, store) for spec in specs}
    found = feeds(columns, specs)
    targets = None
    if label_key in keys:
        stored = _labels(label_key, keys, store)
        targets = labels(stored, count=len(found), batch=batch_of(columns))
    _left_over(keys, entries, specs, label_key)
    return CalibrationSet(found, source, targets, _starts(keys, specs))


def read_npy(
    path: Path, specs: Sequence[InputSpec], *, into: ArrayFile, source: Source
) -> CalibrationSet:
    """Samples of one array, for a model with one input.

    Raises:
        InvalidData: the model has several inputs, or the array does not fit.
    """
    if len(specs) != 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        raise InvalidData(
            f"a .npy file feeds one input, but the model has {len(specs)}: {names}",
            hint="send .npz with an array for each input",
        )
    spec = specs[0]
    with path.open("rb") as stream:
        header = npy.read_header(stream, spec.name)
        stored = npy.copy(
            stream,
            header,
            spec.name,
            into=into,
            check=_cast_to(spec),
            limit=path.stat().st_size,
        )
    return CalibrationSet(feeds({spec.name: column(stored, spec)}, [spec]), source)


def array_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries that numpy wrote, by key."""
    return {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }


def read_labels(archive: zipfile.ZipFile, key: str, into: ArrayFile) -> StoredArray | None:
    """Labels that lie beside images, as `labels.npy`."""
    info = array_entries(archive).get(key)
    if info is None:
        return None
    with entry(archive, info) as stream:
        header = npy.read_header(stream, key)
        return npy.copy(
            stream, header, key, into=into, check=casting.label, limit=info.file_size
        )


def _keys(entries: Iterable[str], names: set[str]) -> Keys:
    found: dict[str, dict[int, str]] = {}
    whole = set()
    for key in entries:
        match = _APART.fullmatch(key)
        if key in names:
            whole.add(key)
        elif match and match[2] in names:
            found.setdefault(match[2], {})[int(match[1])] = key
    return Keys(
        frozenset(whole), {name: dict(sorted(at.items())) for name, at in found.items()}
    )


def _complete(keys: Keys, entries: Iterable[str], specs: Sequence[InputSpec]) -> None:
    missing = [spec.name for spec in specs if spec.name not in keys]
    if missing:
        held = ", ".join(repr(key) for key in list(entries)[:8]) or "no array"
        raise InvalidData(
            f"the data lacks {', '.join(repr(name) for name in missing)}; it holds {held}",
            hint="save an array under the name of each input: numpy.savez('data.npz', **{"
            + ", ".join(f"{spec.name!r}: ..." for spec in specs)
            + "})",
        )
    indices = {name: set(at) for name, at in keys.apart.items() if name not in keys.whole}
    every = set().union(*indices.values()) if indices else set()
    for name, own in indices.items():
        if own != every:
            raise InvalidData(
                f"sample {min(every - own)} lacks {name!r}",
                hint=f"every sample needs every input: add '{min(every - own)}|{name}'",
            )


def _column(
    spec: InputSpec, keys: Keys, store: Callable[[str, npy.Check], StoredArray]
) -> Column:
    check = _cast_to(spec)
    if spec.name in keys.whole:
        return column(store(spec.name, check), spec)
    at = keys.apart[spec.name]
    return apart({key: store(key, check) for key in at.values()}, spec)


def _labels(
    key: str, keys: Keys, store: Callable[[str, npy.Check], StoredArray]
) -> StoredArray | dict[str, StoredArray]:
    if key in keys.whole:
        return store(key, casting.label)
    return {name: store(name, casting.label) for name in keys.apart[key].values()}


def _cast_to(spec: InputSpec) -> npy.Check:
    return lambda values, key: casting.cast(values, spec.dtype, key)


def _starts(keys: Keys, specs: Sequence[InputSpec]) -> frozenset[int]:
    """Samples before which a number is left out: there a new sequence begins."""
    numbered = next((keys.apart[one.name] for one in specs if one.name not in keys.whole), {})
    numbers = list(numbered)
    return frozenset(
        place for place in range(1, len(numbers)) if numbers[place] != numbers[place - 1] + 1
    )


def _left_over(
    keys: Keys, entries: Iterable[str], specs: Sequence[InputSpec], label_key: str
) -> None:
    used = set(keys.whole).union(*(at.values() for at in keys.apart.values()))
    unused = sorted(set(entries) - used)
    if unused:
        named = ", ".join(repr(key) for key in unused[:5])
        warnings.warn(
            CompressionWarning(
                f"the data also holds {named}{' and more' if len(unused) > 5 else ''}: "
                f"no input bears that name (labels go under {label_key!r})",
                code="unused_arrays",
            ),
            stacklevel=4,
        )
