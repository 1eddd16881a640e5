"""Which tensors can have their channels scaled together without changing the function.

A positive factor on a channel passes through Relu and its like, pooling and sums; layers make
it by their own weights and undo it in the weights that read it (Nagel et al. 2019, arXiv
1906.04721, section 4.1, from pairs of layers to residual streams). Not through a Clip: its
upper limit would have to differ by channel, which no int8 kernel does. Every other operator,
the inputs and outputs of the graph and whatever bodies of If and Loop read hold tensors as
they are.
"""

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from worker.compression.equalization.groups import Constant, Group, channels_read
from worker.compression.graph import constant

# Positive factors pass through: f(s x) = s f(x).
_HOMOGENEOUS = {
    "Relu", "LeakyRelu", "PRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool",
    "GlobalMaxPool",
}  # fmt: skip
_DOMAINS = ("", "ai.onnx")
# What makes tensors by constants of its own, and the inputs at which these stand.
_NORMS = {"BatchNormalization": (1, 2), "LayerNormalization": (1, 2)}


def groups(model: ir.Model) -> list[Group]:
    """The groups of the main graph, in its order, whose factors cost nothing.

    Shapes should be inferred. Only float32 initializers that one node reads are scaled.
    """
    return [group for group in _Finder(model).groups() if group.makers and _consistent(group)]


def readings(model: ir.Model) -> list[Group]:
    """Tensors that must stay what they are, with the weights of MatMul and Gemm behind them."""
    return [group for group in _Finder(model).held() if _consistent(group)]


def _consistent(group: Group) -> bool:
    ends = (*group.makers, *group.readers)
    if not group.readers or len({one.of for one in ends} - {0}) > 1:
        return False
    channels = group.channels
    made = all(one.array().shape[one.axis] == channels for one in group.makers)
    return made and all(channels_read(one) == channels for one in group.readers)


class _Finder:
    """Unites tensors that must be scaled alike, node by node."""

    def __init__(self, model: ir.Model) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}
        self._held: set[ir.Value] = set()
        self._makers: list[tuple[ir.Value, Constant]] = []
        self._readers: list[tuple[ir.Value, Constant]] = []
        self._hold([*model.graph.inputs, *model.graph.outputs])
        for node in model.graph.all_nodes():
            if node.graph is not model.graph or not self._visit(node):
                self._hold([*node.inputs, *node.outputs])

    def groups(self) -> Iterator[Group]:
        held = {self._root(value) for value in self._held}
        made: dict[ir.Value, Group] = {}
        for value in self._parents:
            root = self._root(value)
            if root not in held:
                made.setdefault(root, Group()).values.append(value)
        ends = (("makers", self._makers), ("readers", self._readers))
        for name, pairs in ends:
            for value, one in pairs:
                if (group := made.get(self._root(value))) is not None:
                    getattr(group, name).append(one)
        yield from made.values()

    def held(self) -> Iterator[Group]:
        """A group for each held tensor that layers other than Conv read."""
        held = {self._root(value) for value in self._held}
        found: dict[ir.Value, Group] = {}
        for value, one in self._readers:
            if self._root(value) in held and one.node.op_type != "Conv":
                found.setdefault(value, Group(values=[value])).readers.append(one)
        yield from found.values()

    def _visit(self, node: ir.Node) -> bool:
        """Take in a node; False where it holds all that it touches."""
        read, made = node.inputs, node.outputs
        if node.domain not in _DOMAINS or not read or read[0] is None:
            return False
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            return self._layer(node)
        if node.op_type in _NORMS:
            return self._norm(node)
        if node.op_type in _HOMOGENEOUS:
            if any(constant(value) is None for value in read[1:]):
                return False
            self._unite(read[0], made[0])
            return len(made) == 1
        if node.op_type in ("Flatten", "Reshape"):
            return self._flattened(node)
        return node.op_type in ("Add", "Mul") and self._joined(node)

    def _layer(self, node: ir.Node) -> bool:
        x, weight = node.inputs[0], node.inputs[1]
        axes = _layer_axes(node)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if x is None or weight is None or axes is None or constant(x) is not None:
            return False
        if not _own(weight) or (bias is not None and not _own(bias)):
            return False
        made = node.outputs[0]
        of = 1 if node.op_type == "Conv" else _last(x) if node.op_type == "MatMul" else 0
        self._readers.append((x, Constant(node, 1, axes[0], of)))
        self._makers.append((made, Constant(node, 1, axes[1], of)))
        if bias is not None:
            if bias.const_value is None or len(bias.const_value.shape) != 1:
                return False
            self._makers.append((made, Constant(node, 2, 0, of)))
        self._parents.setdefault(x, x)
        self._parents.setdefault(made, made)
        return True

    def _norm(self, node: ir.Node) -> bool:
        """A norm reads anything, and makes what its scale and shift say."""
        given = [
            node.inputs[index] for index in _NORMS[node.op_type] if index < len(node.inputs)
        ]
        if len(node.outputs) > 1 or any(
            value is None or not _own(value) or _rank(value) != 1 for value in given
        ):
            return False
        self._hold(node.inputs[:1])
        made = node.outputs[0]
        self._parents.setdefault(made, made)
        of = 1 if node.op_type == "BatchNormalization" else _last(made)
        self._makers += [
            (made, Constant(node, index, 0, of)) for index in range(1, 1 + len(given))
        ]
        return True

    def _flattened(self, node: ir.Node) -> bool:
        """What turns (N, C, 1, 1) into (N, C): channels keep their axis."""
        x, made = node.inputs[0], node.outputs[0]
        before, after = (None if value is None else value.shape for value in (x, made))
        if x is None or before is None or after is None or len(after) != 2 or len(before) < 3:
            return False
        single = all(size == 1 for size in before[2:])
        if not single or before[1] != after[1] or not isinstance(before[1], int):
            return False
        self._unite(x, made)
        return True

    def _joined(self, node: ir.Node) -> bool:
        """A sum of tensors scales as they do; a constant is scaled with it, or makes it."""
        left, right = node.inputs
        made = node.outputs[0]
        if left is None or right is None:
            return False
        fixed = [index for index in (0, 1) if constant(node.inputs[index]) is not None]
        if not fixed:
            alike = node.op_type == "Add" and _same_shape(left, right)
            if alike:
                self._unite(left, right)
                self._unite(left, made)
            return alike
        index = fixed[0]
        x, held = (right, left) if index == 0 else (left, right)
        axis = _channel_axis(held, x)
        if len(fixed) > 1 or axis is None or not _own(held):
            return False
        of = 1 if x.shape is not None and len(x.shape) > 3 else _last(x)
        self._makers.append((made, Constant(node, index, axis, of)))
        if node.op_type == "Add":
            self._unite(x, made)
        else:
            # Factors begin here: what it multiplies stays as it is.
            self._hold([x])
            self._parents.setdefault(made, made)
        return True

    def _hold(self, values: Sequence[ir.Value | None]) -> None:
        for value in values:
            if value is not None:
                self._parents.setdefault(value, value)
                self._held.add(value)

    def _root(self, value: ir.Value) -> ir.Value:
        while self._parents.setdefault(value, value) is not value:
            value = self._parents[value]
        return value

    def _unite(self, left: ir.Value, right: ir.Value) -> None:
        self._parents[self._root(right)] = self._root(left)


def _layer_axes(node: ir.Node) -> tuple[int, int] | None:
    """Axes of the weight that count input and output channels."""
    rank = _rank(node.inputs[1])
    if node.op_type == "Conv":
        return (1, 0) if rank >= 3 else None
    if rank != 2:
        return None
    if node.op_type == "MatMul":
        return (0, 1)
    factors = {node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
    if factors != {1.0} or node.attributes.get_int("transA", 0) != 0:
        return None
    return (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)


def _last(value: ir.Value) -> int:
    """The last axis of a tensor; of rank 2 it is axis 1 as well."""
    return 0 if value.shape is not None and len(value.shape) == 2 else -1


def _own(value: ir.Value) -> bool:
    """Whether a value is a float32 constant that one node reads, once."""
    tensor = constant(value)
    single = len(value.uses()) == 1 and not value.is_graph_output()
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and single


def _rank(value: ir.Value | None) -> int:
    tensor = constant(value)
    return -1 if tensor is None else len(tensor.shape)


def _same_shape(left: ir.Value, right: ir.Value) -> bool:
    """Whether two tensors are known to have one shape, so that neither is broadcast."""
    if left.shape is None or right.shape is None:
        return False
    known = [size for size in (*left.shape, *right.shape) if not isinstance(size, int)]
    return left.shape == right.shape and all(getattr(size, "value", None) for size in known)


def _channel_axis(held: ir.Value, x: ir.Value) -> int | None:
    """The axis of a constant that counts the channels of x, where it has no other axis.

    Of an image the channels are axis 1, elsewhere the last one.
    """
    tensor = constant(held)
    if tensor is None or x.shape is None or tensor.size < 2:
        return None
    shape = tensor.shape.numpy()
    wide = [place for place, size in enumerate(shape) if size != 1]
    if len(wide) != 1 or len(shape) > len(x.shape):
        return None
    place = wide[0] + len(x.shape) - len(shape)
    images = len(x.shape) > 3
    return wide[0] if place == (1 if images else len(x.shape) - 1) else None
