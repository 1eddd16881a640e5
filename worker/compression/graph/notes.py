"""Why a layer was left alone: kept with the model in memory, never in the file."""

import onnx_ir as ir

_KEY = "modelpress.notes"


def note(model: ir.Model, node_name: str, reason: str) -> None:
    """Record why a node was left alone; the first reason stays."""
    model.meta.setdefault(_KEY, {}).setdefault(node_name, reason)


def settle(model: ir.Model, node_name: str) -> None:
    """Take back what earlier passes said of a node: it was not left alone."""
    model.meta.setdefault(_KEY, {})[node_name] = ""


def notes(model: ir.Model) -> dict[str, str]:
    """Reasons by node name; empty for a node that is settled."""
    return dict(model.meta.get(_KEY, {}))
