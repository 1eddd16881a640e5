"""The one place that makes ONNX Runtime sessions."""

import os
from pathlib import Path

# Read when the library is imported: its Linux wheels report to their maker unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from worker.compression.errors import InvalidModel

_ERRORS_ONLY = 3

ort.disable_telemetry_events()
ort.set_default_logger_severity(_ERRORS_ONLY)


def session(
    path: Path, *, threads: int = 1, optimize: bool = True, profile_prefix: Path | None = None
) -> ort.InferenceSession:
    """Open a model on the CPU; with `profile_prefix` ONNX Runtime writes its profile there.

    Raises:
        InvalidModel: ONNX Runtime refuses the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Waiting threads that spin would take the cores from other jobs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Repacked weights vanish from the inputs that the profile lists.
        options.add_session_config_entry("session.disable_prepacking", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).replace(str(path), path.name)
        raise InvalidModel(f"ONNX Runtime cannot load {path.name}: {reason}") from error


def write_optimized(path: Path, out: Path, *, level: ort.GraphOptimizationLevel) -> None:
    """Write a model as ONNX Runtime's optimizer of this level leaves it.

    Raises:
        InvalidModel: ONNX Runtime refuses the file.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(out)
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime cannot optimize {path.name}: {error}") from error
