"""Shapes that a graph states or computes, after channels are gone from what they describe."""

import numpy as np
import onnx_ir as ir

from worker.compression.channels.surgery import Surgery

# Nodes between the Concat that joins the sizes of a shape and the node that reads it.
_PASSED_ON = ("Cast", "Identity")


def recount(at: Surgery) -> None:
    """Correct the target shape of a Reshape or Expand where it states a size that changed.

    What the graph computes from a tensor that shrinks too is right already, as are sizes that
    are copied (0) or inferred (-1).
    """
    given = at.constant(1)
    if given is not None:
        at.set_input(1, _recounted(at, given), "shape")
        return
    joint = _joint(at.node.inputs[1])
    if joint is not None:
        _recount_entries(at, joint)


def _recounted(at: Surgery, given: np.ndarray) -> np.ndarray:
    old, new = at.before(at.node.outputs[0]), at.after(at.node.outputs[0])
    target = given.copy()
    # Expand aligns from the last axis.
    offset = len(old) - len(target)
    for entry, size in enumerate(given.tolist()):
        if old[entry + offset] != new[entry + offset] and size == old[entry + offset]:
            target[entry] = new[entry + offset]
    return target


def _joint(shape: ir.Value | None) -> ir.Node | None:
    """The Concat of sizes that a shape comes from."""
    node = None if shape is None else shape.producer()
    while node is not None and node.op_type in _PASSED_ON:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node if node is not None and node.op_type == "Concat" else None


def _recount_entries(at: Surgery, joint: ir.Node) -> None:
    """Give the node a Concat of its own, with new constants for the sizes that changed."""
    parts = list(joint.inputs)
    position, changed = 0, False
    old, new = at.before(at.node.outputs[0]), at.after(at.node.outputs[0])
    for index, part in enumerate(parts):
        sizes = None if part is None or part.const_value is None else part.const_value.numpy()
        # A computed part is one size, or this shape is more than is understood here.
        count = 1 if sizes is None else sizes.size
        span = slice(position, position + count)
        if sizes is not None and old[span] != new[span]:
            stays = (sizes != old[span]) | (np.array(old[span]) == new[span])
            fresh = np.where(stays, sizes, new[span]).astype(sizes.dtype)
            parts[index] = at.constant_of(fresh, "sizes")
            changed = True
        position += count
    if changed and position == len(old):
        _replace_shape(at, joint, parts)


def _replace_shape(at: Surgery, joint: ir.Node, parts: list[ir.Value | None]) -> None:
    own = ir.Node("", "Concat", parts, [ir.AttrInt64("axis", 0)], name=f"{at.node.name}.join")
    own.outputs[0].name = f"{at.node.name}.joined"
    cast = ir.Node(
        "",
        "Cast",
        [own.outputs[0]],
        [ir.AttrInt64("to", ir.DataType.INT64.value)],
        name=f"{at.node.name}.cast",
    )
    cast.outputs[0].name = f"{at.node.name}.target"
    at.graph.insert_before(at.node, [own, cast])
    at.node.replace_input_with(1, cast.outputs[0])
