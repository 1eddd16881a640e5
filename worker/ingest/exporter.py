"""torch's legacy exporter: a ScriptModule in, an ONNX file out. The newer one refuses them."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.compression.errors import InvalidModel
from worker.ingest.module import Module, reason
from worker.ingest.samples import Feed

OPSETS = (17, 20)  # the second only where an operator needs it; the exporter knows no later one
_OPERATOR = re.compile(r"operator '?([\w:.]+)'?")


def export(
    module: Module,
    feed: Feed,
    path: Path,
    *,
    outputs: int,
    axes: Mapping[str, Mapping[int, str]],
) -> None:
    """Write the module as ONNX; `axes` names the dynamic axes of the inputs.

    BatchNorm stays a node of its own and no constant is folded, so that the weights are those
    of the module, under their own names.

    Raises:
        InvalidModel: `conversion_failed`, naming the operator where there is one.
    """
    from torch.onnx.errors import (  # noqa: PLC0415 - the web process never loads torch
        UnsupportedOperatorError,
    )

    for opset in OPSETS:
        try:
            return _export(module, feed, path, outputs=outputs, axes=axes, opset=opset)
        except UnsupportedOperatorError as error:
            if opset == OPSETS[-1]:
                raise _failed(error) from error
        except Exception as error:
            raise _failed(error) from error
    return None


def _export(
    module: Module,
    feed: Feed,
    path: Path,
    *,
    outputs: int,
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> None:
    import torch  # noqa: PLC0415 - the web process never loads torch

    with _quiet():
        torch.onnx.export(
            module.wrapper,
            tuple(torch.from_numpy(feed[name]) for name in module.names),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=list(module.names),
            output_names=[f"output_{index}" for index in range(outputs)],
            dynamic_axes={name: dict(named) for name, named in axes.items()},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns its own user, at every use; ours cannot act on any of it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\b.*")
        yield


def _failed(error: Exception) -> InvalidModel:
    said = reason(error)
    operator = _OPERATOR.search(said)
    name = f" at the operator {operator[1]}" if operator else ""
    return InvalidModel(
        f"the TorchScript module cannot be converted to ONNX{name}: {said}",
        hint="export ONNX from the original model with torch.onnx.export(model.eval(), "
        "(example,), 'model.onnx') and send that",
        code="conversion_failed",
    )
