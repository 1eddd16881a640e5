"""Tensors whose channels are scaled together, and the constants that do it."""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant


@dataclass(frozen=True)
class Constant:
    """A constant at input `index` of a node, whose `axis` counts the channels of a group.

    `of` is the axis of the tensor that counts them: 1, -1, or 0 where these are the same.
    """

    node: ir.Node
    index: int
    axis: int
    of: int

    def array(self) -> np.ndarray:
        tensor = constant(self.node.inputs[self.index])
        if tensor is None:
            raise ValueError(f"{self.node.name} has no constant input {self.index}")
        return tensor.numpy()


@dataclass(eq=False)
class Group:
    """Tensors scaled together, the constants that make the factors and those that undo them.

    Without makers, a tensor that must stay what it is: only a Mul of its own can scale it.
    """

    values: list[ir.Value] = field(default_factory=list)
    makers: list[Constant] = field(default_factory=list)
    readers: list[Constant] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """Channels of the tensors."""
        return channels_read(self.readers[0])

    @property
    def makes(self) -> set[str]:
        """Operators that make the factors."""
        return {one.node.op_type for one in self.makers}

    def multiplied(self, one: Constant, factors: np.ndarray) -> np.ndarray:
        """The constant of a maker with its channels multiplied."""
        return np.asarray(_along(one, factors) * one.array())

    def divided(self, one: Constant, factors: np.ndarray) -> np.ndarray:
        """The weight of a reader that undoes the factors.

        A Conv with groups has the inputs of all its groups on one axis, group after group.
        """
        array = one.array()
        count = one.node.attributes.get_int("group", 1) if one.node.op_type == "Conv" else 1
        if count == 1:
            return np.asarray(array / _along(one, factors))
        parted = array.reshape(count, -1, *array.shape[1:])
        by = factors.reshape(count, 1, -1, *(1 for _ in array.shape[2:]))
        return np.asarray((parted / by).reshape(array.shape))

    @property
    def axis(self) -> int:
        """The axis of the tensors that counts channels: 1, or the last."""
        return max((one.of for one in (*self.makers, *self.readers)), key=abs) or -1


def _along(one: Constant, factors: np.ndarray) -> np.ndarray:
    rank = one.array().ndim
    return factors.reshape([-1 if place == one.axis % rank else 1 for place in range(rank)])


def channels_read(one: Constant) -> int:
    """Channels that a reader reads."""
    size = int(one.array().shape[one.axis])
    return size * (one.node.attributes.get_int("group", 1) if one.node.op_type == "Conv" else 1)
