"""One small rule per operator; an operator without one pins whatever it touches."""

from worker.compression.channels.rules.convolution import CONVOLUTION
from worker.compression.channels.rules.einsum import EINSUM
from worker.compression.channels.rules.elementwise import ELEMENTWISE
from worker.compression.channels.rules.indexing import INDEXING
from worker.compression.channels.rules.layout import LAYOUT
from worker.compression.channels.rules.matrix import MATRIX
from worker.compression.channels.rules.recurrent import RECURRENT
from worker.compression.channels.rules.reduction import REDUCTION
from worker.compression.channels.site import Rule, Site

RULES: dict[str, Rule] = {
    **CONVOLUTION,
    **EINSUM,
    **ELEMENTWISE,
    **INDEXING,
    **LAYOUT,
    **MATRIX,
    **RECURRENT,
    **REDUCTION,
}


def apply_rule(site: Site) -> None:
    """State what the node ties together; an unknown operator is never guessed."""
    rule = RULES.get(site.node.op_type) if site.node.domain in ("", "ai.onnx") else None
    if rule is None:
        site.pin_all("has no rule")
    else:
        rule(site)


__all__ = ["RULES", "apply_rule"]
