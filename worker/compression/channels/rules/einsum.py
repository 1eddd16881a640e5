"""Einsum: every letter is an axis; letters that the output lacks are summed over."""

from worker.compression.channels.atoms import Labels
from worker.compression.channels.site import Rule, Site


def einsum(site: Site) -> None:
    operands, made = _letters(site)
    if operands is None:
        return site.pin_all("has an equation that is not followed")
    labels: dict[str, Labels] = {}
    for index, letters in enumerate(operands):
        for axis, letter in enumerate(letters):
            here = site.given(index)[axis]
            # An axis of size 1 is broadcast.
            if letter not in labels or labels[letter].size == 1 < here.size:
                labels[letter] = here
            elif here.size > 1:
                site.join(here, labels[letter])
    for letter in labels:
        _state(site, letter, operands, summed=letter not in made)
    return site.make([labels[letter] for letter in made])


def _letters(site: Site) -> tuple[list[str] | None, str]:
    """Letters of each operand and of the output; None where the equation is unusual."""
    equation = site.node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, made = equation.partition("->")
    operands = left.split(",")
    plain = all(len(set(letters)) == len(letters) for letters in operands)
    if not arrow or "." in equation or not plain:
        return None, made
    return operands, made


def _state(site: Site, letter: str, operands: list[str], *, summed: bool) -> None:
    """What the weights among the operands do with one letter."""
    having = [index for index, letters in enumerate(operands) if letter in letters]
    weights = [index for index in having if site.is_constant(index)]
    for index in weights:
        axis = operands[index].index(letter)
        if summed:
            site.consume(index, axis)
        else:
            site.produce(index, axis)
    if summed and not weights:
        index = having[0]
        labels = site.given(index)[operands[index].index(letter)]
        site.pin(labels, "sums over this axis of activations")


EINSUM: dict[str, Rule] = {"Einsum": einsum}
