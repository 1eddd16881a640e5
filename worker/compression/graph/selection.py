"""Patterns that people write, matched against what exporters left of their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from worker.compression.errors import InvalidRecipe
from worker.compression.graph.weights import Weight

_NAMES_SHOWN = 20


def module_path(node_name: str) -> str:
    """The torch module path that the exporter wrote into a node's name.

    `/layer1/layer1.0/conv1/Conv` gives `layer1.0.conv1`; a name of another kind gives "".
    """
    if not node_name.startswith("/"):
        return ""
    parts: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


def matches(pattern: str, weight: Weight) -> bool:
    """Whether a node name, initializer name, module path or glob means this weight."""
    nodes = [node.name or "" for node in weight.nodes]
    if any(_equal(name, pattern) for name in [weight.name, *nodes]):
        return True
    paths = [weight.name, *(module_path(name) for name in nodes)]
    return any(_equal(prefix, pattern) for path in paths for prefix in _prefixes(path))


def select(
    weights: Sequence[Weight], include: Sequence[str], exclude: Sequence[str]
) -> list[Weight]:
    """The weights that `include` names (empty: all) without those that `exclude` names.

    Raises:
        InvalidRecipe: a pattern matches nothing; the message lists the names there are.
    """
    for pattern in [*include, *exclude]:
        if not any(matches(pattern, weight) for weight in weights):
            raise no_match(pattern, [weight.name for weight in weights])
    return [
        weight
        for weight in weights
        if (not include or any(matches(pattern, weight) for pattern in include))
        and not any(matches(pattern, weight) for pattern in exclude)
    ]


def select_nodes(nodes: Sequence[ir.Node], patterns: Sequence[str]) -> list[ir.Node]:
    """The nodes that any pattern names, by node name, module path or glob.

    Raises:
        InvalidRecipe: a pattern matches nothing; the message lists the names there are.
    """
    chosen: dict[ir.Node, None] = {}
    for pattern in patterns:
        matching = [node for node in nodes if _names_node(pattern, node.name or "")]
        if not matching:
            raise no_match(pattern, [node.name or "" for node in nodes])
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def select_readers(
    nodes: Sequence[ir.Node], values: Sequence[ir.Value], patterns: Sequence[str]
) -> list[ir.Node | ir.Value]:
    """The nodes and the constants that any pattern names.

    Raises:
        InvalidRecipe: a pattern matches nothing; the message lists the names there are.
    """
    chosen: dict[ir.Node | ir.Value, None] = {}
    for pattern in patterns:
        matching: list[ir.Node | ir.Value] = [
            node for node in nodes if _names_node(pattern, node.name or "")
        ]
        matching += [value for value in values if _names_value(pattern, value.name or "")]
        if not matching:
            known = [node.name or "" for node in nodes] + [one.name or "" for one in values]
            raise no_match(pattern, known)
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def no_match(pattern: str, names: Sequence[str]) -> InvalidRecipe:
    """The error for a pattern that names nothing."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    shown = ", ".join(names[:_NAMES_SHOWN]) or "none"
    return InvalidRecipe(
        f"{pattern[:100]!r} matches no layer of this model; there are: {shown}{more}",
        hint="name a node, an initializer or a module path; * and ? are wildcards",
        code="pattern_matches_nothing",
    )


def _names_node(pattern: str, name: str) -> bool:
    return _equal(name, pattern) or any(
        _equal(prefix, pattern) for prefix in _prefixes(module_path(name))
    )


def _names_value(pattern: str, name: str) -> bool:
    return any(_equal(prefix, pattern) for prefix in (name, *_prefixes(name)))


def _equal(name: str, pattern: str) -> bool:
    return bool(name) and (name == pattern or fnmatchcase(name, pattern))


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
