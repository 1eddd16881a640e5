"""Shapes that a graph states or computes, after channels are gone from what they describe."""

import numpy as np
import onnx_ir as ir

from worker.compression.channels.surgery import Surgery

# Nodes between the Concat that joins the sizes of a shape and the node that reads it, and the
# input of theirs that it comes by. Where gives 1 for an Expand's -1.
_PASSED_ON = {"Cast": 0, "Identity": 0, "Where": 2}
# The input of these that is a shape.
_SHAPE_INPUT = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}


def recount(at: Surgery) -> None:
    """Correct the target shape of a node where it states a size that changed.

    What the graph computes from a tensor that shrinks too is right already, as are sizes that
    are copied (0) or inferred (-1).
    """
    index = _SHAPE_INPUT[at.node.op_type]
    given = at.constant(index)
    if given is not None:
        at.set_input(index, _recounted(at, given), "shape")
        return
    joint = _joint(at.node.inputs[index])
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
        source = node.inputs[_PASSED_ON[node.op_type]]
        node = None if source is None else source.producer()
    return node if node is not None and node.op_type == "Concat" else None


def _recount_entries(at: Surgery, joint: ir.Node) -> None:
    """Give the node a Concat of its own, with new constants for the sizes that changed."""
    parts = list(joint.inputs)
    position, changed = 0, False
    old, new = at.before(at.node.outputs[0]), at.after(at.node.outputs[0])
    for index, part in enumerate(parts):
        sizes = None if part is None or part.const_value is None else part.const_value.numpy()
        count = at.before(part)[0] if sizes is None else sizes.size
        if sizes is not None:
            span = slice(position, position + count)
            fresh = _recounted_part(at.node, sizes, old[span], new[span])
            if fresh is not None:
                parts[index] = at.constant_of(fresh, "sizes")
                changed |= old[span] != new[span]
        position += count
    if changed and position == len(old):
        _replace_shape(at, joint, parts)


def _recounted_part(
    node: ir.Node, sizes: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]
) -> np.ndarray | None:
    """Constant sizes after the cut; None where they are right as they are."""
    if sizes.size != len(old):
        return None
    stays = (sizes != old) | (np.array(old) == new)
    fresh = np.where(stays, sizes, new)
    if node.op_type == "Expand":
        # A Where that is left out said that -1 keeps what is there.
        fresh = np.where(fresh == -1, 1, fresh)
    made: np.ndarray = fresh.astype(sizes.dtype)
    return None if np.array_equal(made, sizes) else made


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
    at.node.replace_input_with(_SHAPE_INPUT[at.node.op_type], cast.outputs[0])
