"""The model as a graph: files, sessions, interface, weights, counts and notes."""

from worker.compression.graph.counting import macs, name_nodes, op_counts, parameters
from worker.compression.graph.files import (
    SINGLE_FILE_BYTES,
    external_files,
    file_bytes,
    file_digest,
    load,
    release,
    remove,
    save,
    spill,
    to_proto,
    weight_bytes,
)
from worker.compression.graph.interface import (
    InputSpec,
    free_name,
    inputs,
    opset,
    outputs,
    renewed,
)
from worker.compression.graph.notes import note, notes, settle
from worker.compression.graph.selection import (
    matches,
    module_path,
    no_match,
    select,
    select_nodes,
    select_readers,
)
from worker.compression.graph.sessions import session, write_optimized
from worker.compression.graph.watching import Watch, sizes
from worker.compression.graph.weights import (
    PASSED_THROUGH,
    WEIGHT_INPUTS,
    Use,
    Weight,
    constant,
    source_of,
    weights,
)

__all__ = [
    "PASSED_THROUGH",
    "SINGLE_FILE_BYTES",
    "WEIGHT_INPUTS",
    "InputSpec",
    "Use",
    "Watch",
    "Weight",
    "constant",
    "external_files",
    "file_bytes",
    "file_digest",
    "free_name",
    "inputs",
    "load",
    "macs",
    "matches",
    "module_path",
    "name_nodes",
    "no_match",
    "note",
    "notes",
    "op_counts",
    "opset",
    "outputs",
    "parameters",
    "release",
    "remove",
    "renewed",
    "save",
    "select",
    "select_nodes",
    "select_readers",
    "session",
    "settle",
    "sizes",
    "source_of",
    "spill",
    "to_proto",
    "weight_bytes",
    "weights",
    "write_optimized",
]
