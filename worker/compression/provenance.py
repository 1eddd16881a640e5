"""Where a figure comes from: the machine, the versions, and the code that took it."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from worker.compression.benchmark import environment
from worker.compression.report import Environment

PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "onnxslim", "numpy", "modelpress")


def machine() -> Environment:
    """CPU, its flags and physical cores, and the versions of what did the work."""
    cpu, flags, cores = environment()
    return Environment(
        cpu=cpu,
        flags=flags,
        cores=cores,
        versions={package: version(package) for package in PACKAGES},
    )


@cache
def code() -> str:
    """Digest of this library's own source: a version number does not change with a patch."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
