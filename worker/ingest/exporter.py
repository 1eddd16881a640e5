"""torch's legacy exporter: a ScriptModule in, an ONNX file out. The newer one refuses them."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from worker.compression import InvalidModel
from worker.ingest.module import Module
from worker.ingest.reasons import torch_reason
from worker.ingest.samples import Feed

OPSETS = (17, 20)  # the second only where an operator needs it; the exporter knows no later one
_FUSED = ("_transformer_encoder_layer_fwd", "_native_multi_head_attention",
          "is_autocast_enabled")  # fmt: skip
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

    _teach_unflatten()
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


def _teach_unflatten() -> None:
    """The exporter's own rule loses the rank, and with it every nn.MultiheadAttention."""
    import torch  # noqa: PLC0415 - the web process never loads torch
    from torch.onnx import symbolic_helper  # noqa: PLC0415 - as above
    from torch.onnx.utils import register_custom_op_symbolic  # noqa: PLC0415 - as above

    def unflatten(g: Any, value: Any, axis: Any, sizes: Any) -> Any:  # noqa: ANN401 - torch's
        rank = symbolic_helper._get_tensor_rank(value)
        at = symbolic_helper._maybe_get_const(axis, "i")
        parts = (
            symbolic_helper._unpack_list(sizes)
            if symbolic_helper._is_packed_list(sizes)
            else None
        )
        if rank is None or not isinstance(at, int) or parts is None:
            return symbolic_helper._unimplemented("unflatten", "its sizes are not known")
        one = g.op("Constant", value_t=torch.tensor([1]))
        shape = g.op("Shape", value)
        places = [g.op("Constant", value_t=torch.tensor([place])) for place in range(rank)]
        kept = [g.op("Gather", shape, place, axis_i=0) for place in places]
        made = [g.op("Reshape", part, one) for part in parts]
        at %= rank
        final = g.op("Concat", *kept[:at], *made, *kept[at + 1 :], axis_i=0)
        return g.op("Reshape", value, final)

    for opset in OPSETS:
        register_custom_op_symbolic("aten::unflatten", unflatten, opset)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns its own user, at every use; ours cannot act on any of it."""
    # No public door: its switch for this log is tested as a function, so once on it stays on.
    from torch import _C  # noqa: PLC0415 - the web process never loads torch
    from torch.onnx._internal.torchscript_exporter import (  # noqa: PLC0415 - as above
        utils as internals,
    )

    logging = internals.setup_onnx_logging
    _C._jit_set_onnx_log_enabled(
        False
    )  # an export elsewhere in this process may have left it on
    internals.setup_onnx_logging = lambda verbose: nullcontext()  # type: ignore[assignment,return-value]
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category)
            yield
    finally:
        internals.setup_onnx_logging = logging


def _failed(error: Exception) -> InvalidModel:
    said = torch_reason(error)
    operator = _OPERATOR.search(said)
    name = f" at the operator {operator[1]}" if operator else ""
    hint = (
        "export ONNX from the original model with torch.onnx.export(model.eval(), (example,), "
        "'model.onnx') and send that"
    )
    if any(fused in str(error) for fused in _FUSED):
        hint = (
            "it uses PyTorch's fused attention: call "
            "torch.backends.mha.set_fastpath_enabled(False), then torch.jit.trace, not script, "
            "and send that"
        )
    return InvalidModel(
        f"the TorchScript module cannot be converted to ONNX{name}: {said}",
        hint=hint,
        code="conversion_failed",
    )
