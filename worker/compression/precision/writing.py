"""A weight in another form, and before its readers the operators that give it back."""

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.precision.encoding import PAIRS, Encoding, Half, Int4, Int8
from worker.compression.precision.parameters import Parameter

_FLOAT = ir.DataType.FLOAT


def store(parameter: Parameter, encoding: Encoding) -> None:
    """Replace an initializer by its encoding, in the graph or body that holds it."""
    value = parameter.value
    part = value.graph
    if part is None:
        raise ValueError(f"{parameter.name} belongs to no graph")
    decoder = _Decoder(part, parameter.name)
    match encoding:
        case Half():
            made = decoder.half(encoding)
        case Int8():
            made = decoder.int8(encoding)
        case Int4():
            made = decoder.int4(encoding)
        case _:
            raise TypeError(f"no decoder for {type(encoding).__name__}")
    dtype = parameter.tensor.dtype
    if dtype != made.dtype:
        made = decoder.step("Cast", [made], {"to": int(dtype)}, dtype=dtype)
    _take_over(part, value, made)
    part.insert_before(part[0], decoder.nodes)


def _take_over(part: ir.Graph, value: ir.Value, made: ir.Value) -> None:
    name, shape = value.name or "", value.const_value.shape if value.const_value else None
    value.replace_all_uses_with(made)
    part.initializers.pop(name)
    made.name, made.shape = name, shape if isinstance(shape, ir.Shape) else None


class _Decoder:
    """Collects the nodes that decode one tensor."""

    def __init__(self, part: ir.Graph, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._part, self._name = part, name

    def half(self, encoding: Half) -> ir.Value:
        held = self._constant(f"{self._name}_float16", encoding.values)
        made = self._floats(held)
        if encoding.scales is None:
            return made
        return self.step("Mul", [made, self._constant(f"{self._name}_scale", encoding.scales)])

    def int8(self, encoding: Int8) -> ir.Value:
        codes = self._constant(f"{self._name}_{encoding.kind}", encoding.codes)
        scales = self._constant(f"{self._name}_scale", encoding.scales)
        return self.step("Mul", [self._floats(codes), scales])

    def int4(self, encoding: Int4) -> ir.Value:
        held = self._constant(f"{self._name}_int4", encoding.packed)
        indices = self.step(
            "Cast", [held], {"to": int(ir.DataType.INT32)}, dtype=ir.DataType.INT32
        )
        pairs = self.step("Gather", [self._shared("pairs", PAIRS), indices])
        scales = self._constant(f"{self._name}_scale", encoding.scales)
        if encoding.scales.dtype != np.float32:
            scales = self._floats(scales)
        made = self.step("Mul", [pairs, scales])
        if encoding.padded:
            made = self._reshaped(made, (encoding.shape[0], -1))
            made = self._cut(made, encoding.columns)
        made = self._reshaped(made, encoding.shape)
        if list(encoding.order) != sorted(encoding.order):
            made = self.step("Transpose", [made], {"perm": list(encoding.order)})
        return made

    def step(
        self,
        op: str,
        inputs: list[ir.Value],
        attributes: dict[str, int | list[int]] | None = None,
        *,
        dtype: ir.DataType = _FLOAT,
    ) -> ir.Value:
        number = len(self.nodes)
        node = ir.node(op, inputs, attributes or {}, name=f"{self._name}_decoded_{number}")
        made = node.outputs[0]
        made.name, made.dtype = f"{self._name}_decoded_{number}", dtype
        self.nodes.append(node)
        return made

    def _floats(self, value: ir.Value) -> ir.Value:
        return self.step("Cast", [value], {"to": int(_FLOAT)})

    def _reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self.step("Reshape", [value, self._numbers(shape)])

    def _cut(self, value: ir.Value, columns: int) -> ir.Value:
        ends = [self._numbers(one) for one in ((0,), (columns,), (1,))]
        return self.step("Slice", [value, *ends])

    def _numbers(self, numbers: tuple[int, ...]) -> ir.Value:
        text = "_".join(map(str, numbers))
        return self._shared(f"numbers_{text}", np.array(numbers, np.int64))

    def _shared(self, key: str, array: np.ndarray) -> ir.Value:
        """A constant that the decoders of one graph share, named after the first of them."""
        held = self._part.meta.setdefault("modelpress.decoding", {})
        if key not in held:
            held[key] = self._constant(f"{self._name}_{key}", array)
        shared: ir.Value = held[key]
        return shared

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        name = graph.free_name(self._part, name)
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self._part.register_initializer(value)
        return value
