"""Operators that treat every element alike, with broadcasting."""

from collections.abc import Sequence

from worker.compression.channels.atoms import fixed
from worker.compression.channels.site import Axes, Rule, Site


def broadcast(site: Site, operands: Sequence[Axes], made: Axes) -> Axes:
    """Tie each operand's axes, aligned from the last, to those made; size 1 is free."""
    for axes in operands:
        for back in range(1, len(axes) + 1):
            if axes[-back].size == made[-back].size:
                site.join(axes[-back], made[-back])
    return made


def elementwise(site: Site) -> None:
    operands = [site.given(index) for index in range(len(site.node.inputs))]
    operands = [axes for index, axes in enumerate(operands) if site.name(index) is not None]
    made: Axes = []
    for back in range(len(site.made_shape()), 0, -1):
        here = [axes[-back] for axes in operands if back <= len(axes)]
        size = site.made_shape()[-back]
        made.append(next((labels for labels in here if labels.size == size), fixed(size)))
    broadcast(site, operands, made)
    site.make_fixed()
    site.make(made)


def unary(site: Site) -> None:
    """One tensor through; scalars beside it (limits, ratios) carry no channels."""
    x = site.given(0)
    for index in range(len(site.node.outputs)):
        site.make(list(x), index)


def quantize(site: Site) -> None:
    """QuantizeLinear and DequantizeLinear: scales per axis belong to the channel."""
    x = site.given(0)
    axis = site.integer("axis", 1)
    for index in (1, 2):
        for labels in site.given(index):
            if labels.size > 1:
                site.join(labels, x[axis])
    site.make(list(x))


_UNARY = (
    "Abs Acos Asin Atan BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu "
    "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu"
)
_BROADCAST = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual "
    "Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)

ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), unary),
    **dict.fromkeys(_BROADCAST.split(), elementwise),
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
}
