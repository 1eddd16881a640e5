"""Matrix products: with a constant operand they make channels and sum over them."""

from worker.compression.channels.atoms import Labels
from worker.compression.channels.rules.elementwise import broadcast
from worker.compression.channels.site import Axes, Rule, Site


def gemm(site: Site) -> None:
    a_rows, a_sum = (1, 0) if site.integer("transA", 0) else (0, 1)
    b_sum, b_columns = (1, 0) if site.integer("transB", 0) else (0, 1)
    a, b = site.given(0), site.given(1)
    _contract(site, (a[a_sum], a_sum), (b[b_sum], b_sum))
    site.produce(0, a_rows)
    site.produce(1, b_columns)
    made = [a[a_rows], b[b_columns]]
    if site.name(2) is not None:
        broadcast(site, [site.given(2)], made)
    site.make(made)


def matmul(site: Site) -> None:
    a, b = site.given(0), site.given(1)
    if len(b) == 1 < len(a) and site.is_constant(1):
        site.join(a[-1], b[0])
        site.consume(1, 0)
        return site.make(list(a[:-1]))
    if min(len(a), len(b)) < 2:
        return site.pin_all("multiplies a vector")
    _contract(site, (a[-1], len(a) - 1), (b[-2], len(b) - 2))
    site.produce(0, len(a) - 2)
    site.produce(1, len(b) - 1)
    batch: Axes = broadcast(site, [a[:-2], b[:-2]], _widest(a[:-2], b[:-2]))
    return site.make([*batch, a[-2], b[-1]])


def _contract(site: Site, left: tuple[Labels, int], right: tuple[Labels, int]) -> None:
    """Tie the summed axes; only a plain matrix of weights can be masked there."""
    site.join(left[0], right[0])
    if site.is_constant(1) and len(site.shape(1)) == 2:
        site.consume(1, right[1])
    elif site.is_constant(0) and len(site.shape(0)) == 2:
        site.consume(0, left[1])
    else:
        site.pin(left[0], "sums over this axis of two computed tensors")


def _widest(a: Axes, b: Axes) -> Axes:
    """Of each axis, counted from the last, the labels of the operand that is not broadcast."""
    made: Axes = []
    for back in range(max(len(a), len(b)), 0, -1):
        here = [axes[-back] for axes in (a, b) if back <= len(axes)]
        made.append(max(here, key=lambda labels: labels.size))
    return made


MATRIX: dict[str, Rule] = {"Gemm": gemm, "MatMul": matmul}
