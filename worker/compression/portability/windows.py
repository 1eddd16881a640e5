"""Which activations a convolution multiplies with which weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


@dataclass(frozen=True)
class Window:
    """Sizes by spatial axis; `pads` is () where `auto_pad` decides."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    group: int
    group_inputs: int
    group_outputs: int

    @property
    def depthwise(self) -> bool:
        return self.group_inputs == 1 and self.group_outputs == 1

    def matrices(self, weight: np.ndarray) -> tuple[npt.NDArray[np.int8], ...]:
        """(inputs, outputs) for each group; channels change fastest, as kernels pair them."""
        parts = weight.reshape(self.group, self.group_outputs, self.group_inputs, -1)
        ordered = parts.transpose(0, 3, 2, 1)
        return tuple(ordered.reshape(self.group, -1, self.group_outputs))

    def padded(self, activations: np.ndarray, zero_point: int) -> np.ndarray:
        """(batch, channels, ...) with its borders filled with the zero point."""
        ends = self._pads(activations.shape[2:])
        return np.pad(
            activations,
            [(0, 0), (0, 0), *ends],
            constant_values=activations.dtype.type(zero_point),
        )

    def column(self, padded: np.ndarray, group: int, place: int) -> npt.NDArray[np.uint8]:
        """What meets weight `place` of a group, for every position of the window."""
        position, channel = divmod(place, self.group_inputs)
        offsets = np.unravel_index(position, self.kernel)
        cut: list[slice | int] = [slice(None), group * self.group_inputs + channel]
        for axis, offset in enumerate(offsets):
            reach = self.dilations[axis] * (self.kernel[axis] - 1)
            last = padded.shape[2 + axis] - reach - 1
            start = int(offset) * self.dilations[axis]
            cut.append(slice(start, start + last + 1, self.strides[axis]))
        return padded[tuple(cut)].ravel()

    def _pads(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        rank = len(self.kernel)
        if self.auto_pad in ("NOTSET", ""):
            pads = self.pads or (0,) * (2 * rank)
            return [(pads[axis], pads[axis + rank]) for axis in range(rank)]
        if self.auto_pad == "VALID":
            return [(0, 0)] * rank
        ends = []
        for axis, size in enumerate(sizes):
            made = -(-size // self.strides[axis])
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            total = max(0, (made - 1) * self.strides[axis] + reach - size)
            small, large = total // 2, total - total // 2
            ends.append((small, large) if self.auto_pad == "SAME_UPPER" else (large, small))
        return ends


def window_of(node: ir.Node, weight_shape: Sequence[int]) -> Window:
    """Read the attributes of a Conv; `weight_shape` is (outputs, inputs of a group, ...)."""
    kernel = tuple(weight_shape[2:])
    ones = (1,) * len(kernel)
    group = node.attributes.get_int("group", 1)
    return Window(
        kernel=kernel,
        strides=tuple(node.attributes.get_ints("strides", ones)),
        dilations=tuple(node.attributes.get_ints("dilations", ones)),
        pads=tuple(node.attributes.get_ints("pads", ())),
        auto_pad=node.attributes.get_string("auto_pad", "NOTSET"),
        group=group,
        group_inputs=weight_shape[1],
        group_outputs=weight_shape[0] // group,
    )
