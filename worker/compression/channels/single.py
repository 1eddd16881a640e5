"""Half precision made single: roundings would drown what a proof compares."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def in_single(model: ir.Model) -> ir.Model:
    """The model where nothing in it is half precision, else a copy that computes wider."""
    if not any(_is_half(value) for graph in _graphs(model) for value in _values(graph)):
        return model
    copy = model.clone()
    for graph in _graphs(copy):
        for value in _values(graph):
            if _is_half(value):
                _widen(value)
        for node in graph:
            _widen_attributes(node)
    return copy


def widened(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A feed for such a copy."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in feed.items()
    }


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    yield from (graph for graph in model.graph.subgraphs() if isinstance(graph, ir.Graph))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _is_half(value: ir.Value) -> bool:
    tensor = value.const_value
    return value.dtype == _HALF or (tensor is not None and tensor.dtype == _HALF)


def _widen(value: ir.Value) -> None:
    value.type = ir.TensorType(_SINGLE)
    if value.const_value is not None:
        array = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)


def _widen_attributes(node: ir.Node) -> None:
    """Casts to half, and constants that an attribute holds."""
    for name, attribute in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and attribute.as_int() == _HALF.value:
            node.attributes[name] = ir.AttrInt64(name, _SINGLE.value)
        elif attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == _HALF:
                wide = ir.Tensor(tensor.numpy().astype(np.float32))
                node.attributes[name] = ir.AttrTensor(name, wide)
