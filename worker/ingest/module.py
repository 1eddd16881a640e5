"""A TorchScript module as a function from named arrays to a list of arrays."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.compression import InvalidData, InvalidModel
from worker.ingest.reasons import torch_reason
from worker.ingest.samples import Feed
from worker.ingest.signature import Argument, Plan, Value

INNER = "inner"
_NO_MEMORY = "can't allocate memory"
_UNKNOWN_OPERATOR = re.compile(r"Unknown builtin op: ([\w:]+)")


class ForwardFailed(InvalidData):
    """TorchScript could not run forward."""

    code = "forward_failed"


@dataclass(frozen=True)
class Module:
    """The module behind a wrapper whose forward takes and gives nothing but tensors."""

    wrapper: Any
    names: tuple[str, ...]

    def __call__(self, feed: Feed) -> list[np.ndarray]:
        """Run it once.

        Raises:
            ForwardFailed: TorchScript refuses the inputs.
        """
        import torch  # noqa: PLC0415 - the web process never loads torch

        tensors = [torch.from_numpy(feed[name]) for name in self.names]
        with torch.no_grad(), _failing_readably():
            result = self.wrapper(*tensors)
        outputs = result if isinstance(result, tuple) else (result,)
        return [_array(tensor) for tensor in outputs]


def load(path: Path) -> Any:  # noqa: ANN401 - a ScriptModule; torch is not imported at the top
    """Open a TorchScript file on the CPU, in evaluation mode.

    Raises:
        InvalidModel: damaged, or with operators that stock torch does not have.
    """
    import torch  # noqa: PLC0415 - the web process never loads torch

    try:
        with no_deprecation():
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch.jit.Error has no closer base
        if _NO_MEMORY in str(error):
            raise MemoryError(torch_reason(error)) from error
        unknown = _UNKNOWN_OPERATOR.search(str(error))
        if unknown:
            raise InvalidModel(
                f"the module uses the operator {unknown[1]}, which stock PyTorch does not have",
                hint="trace or script the model without operators of extensions such as "
                "torchvision, or export ONNX",
                code="unsupported_operator",
            ) from error
        raise InvalidModel(
            f"the TorchScript file cannot be opened: {torch_reason(error)}",
            hint="save it again with torch.jit.save, with PyTorch 2, and send all of it",
        ) from error


@contextmanager
def no_deprecation() -> Iterator[None]:
    """TorchScript itself is deprecated; whoever uploads one knows or cannot help it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
        yield


def run_raw(
    module: Any,  # noqa: ANN401 - a ScriptModule
    feed: Feed,
    constants: Mapping[str, Value],
) -> Any:  # noqa: ANN401 - whatever forward returns
    """Call the module by argument names; answers what it returns, of whatever structure.

    Raises:
        ForwardFailed: TorchScript refuses the inputs.
    """
    import torch  # noqa: PLC0415 - the web process never loads torch

    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.no_grad(), _failing_readably():
        return module(**tensors, **constants)


@contextmanager
def _failing_readably() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch.jit.Error has no closer base
        if _NO_MEMORY in str(error):
            raise MemoryError(torch_reason(error)) from error
        said = torch_reason(error)
        hint = "check shapes, types and batch size; a traced module may work with one size only"
        if "cuda" in said.lower():
            hint = "it is tied to a GPU: call model.cpu() before tracing it, and save again"
        raise ForwardFailed(f"forward fails: {said}", hint=hint) from error


def wrap(
    module: Any,  # noqa: ANN401 - a ScriptModule
    planned: Plan,
    results: Sequence[str],
) -> Module:
    """Put a forward around the module that passes the constants and returns tensors only.

    `results` are expressions over `result__`, as `output_expressions` gives them.
    """
    import torch  # noqa: PLC0415 - the web process never loads torch

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, INNER, module)

    with no_deprecation():
        wrapper = torch.jit.script(Wrapper().eval())
    takes = "".join(f", {name}: Tensor" for name in planned.tensors)
    types = {argument.name: argument.type for argument in planned.arguments}
    passed = [f"{name}={name}" for name in planned.tensors]
    passed += [
        f"{name}={_literal(value, types[name])}" for name, value in planned.constants.items()
    ]
    passed += [
        f"{argument.name}=None"
        for argument in planned.arguments
        if _must_be_none(argument, planned)
    ]
    wrapper.define(
        f"def forward(self{takes}):\n"
        f"    result__ = self.{INNER}.forward({', '.join(passed)})\n"
        f"    return {', '.join(results)}\n"
    )
    return Module(wrapper, planned.tensors)


def _must_be_none(argument: Argument, planned: Plan) -> bool:
    left_out = argument.name not in planned.tensors and argument.name not in planned.constants
    return left_out and argument.type.startswith("Optional[") and not argument.has_default


def _literal(value: Value, type_name: str) -> str:
    if isinstance(value, list):
        inner = type_name.replace("Optional[", "").removeprefix("List[").rstrip("]")
        return "[" + ", ".join(_literal(item, inner) for item in value) + "]"
    if "float" in type_name and value is not None:
        return repr(float(value))
    return repr(value)


def output_expressions(module: Any, result: Any) -> list[str]:  # noqa: ANN401 - torch's types
    """Where the tensors are in what forward returned: `result__["logits"]`, `result__[1][0]`.

    Raises:
        InvalidModel: something in it is neither a tensor nor a container of tensors.
    """
    found: list[str] = []
    _collect("result__", result, module.forward.schema.returns[0].type, found)
    if not found:
        raise _no_tensor("forward returns no tensor")
    return found


def _collect(expression: str, value: Any, kind: Any, found: list[str]) -> None:  # noqa: ANN401
    import torch  # noqa: PLC0415 - the web process never loads torch

    if value is None:
        return
    if kind.kind() == "OptionalType":
        _collect(
            f"torch.jit._unwrap_optional({expression})", value, kind.getElementType(), found
        )
    elif isinstance(value, torch.Tensor):
        found.append(expression)
    elif isinstance(value, tuple) and kind.kind() == "TupleType":
        for index, (item, inner) in enumerate(zip(value, kind.elements(), strict=True)):
            _collect(f"{expression}[{index}]", item, inner, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(f"{expression}[{index}]", item, kind.getElementType(), found)
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(f"{expression}[{key!r}]", item, kind.getValueType(), found)
    else:
        raise _no_tensor(f"forward returns a {kind}, which is not a tensor")


def _no_tensor(message: str) -> InvalidModel:
    return InvalidModel(
        message,
        hint="wrap the model in a module whose forward returns tensors only, and trace or "
        "script that",
        code="unsupported_output",
    )


def _array(tensor: Any) -> np.ndarray:  # noqa: ANN401 - a torch.Tensor
    if tensor.is_quantized:
        raise _no_tensor("forward returns a quantized tensor; dequantize it in the module")
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
