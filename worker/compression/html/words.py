"""Figures as people read them. Every function takes None, which becomes a dash."""

from typing import Final

NONE: Final = "–"

OUTCOMES: Final[dict[str, tuple[str, str]]] = {
    "better": ("good", "Better"),
    "not_better": ("plain", "Nothing better: the original comes back"),
    "as_asked": ("good", "As asked"),
    "as_asked_but_slower": ("bad", "As asked, but slower"),
    "as_asked_but_worse": ("bad", "As asked, but worse"),
    "not_verified": ("warn", "Not verified"),
    "not_measured_here": ("warn", "Not measured here"),
}


def size(count: int | None) -> str:
    """Bytes in decimal units, as file managers and download pages show them."""
    if count is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{significant(count / scale)} {unit}"
    return f"{count} B"


def number(count: int | None) -> str:
    if count is None:
        return NONE
    for unit, scale in (("G", 1e9), ("M", 1e6)):
        if count >= scale:
            return f"{significant(count / scale)} {unit}"
    return f"{count:,}"


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{significant(value)} ms"


def times(value: float | None) -> str:
    return NONE if value is None else f"{significant(value)}×"


def percent(share: float | None) -> str:
    """A share as a percentage: two digits after the point below ten, one above."""
    if share is None:
        return NONE
    value = share * 100
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{text} %".replace("-", "−")


def decibel(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f} dB"


def significant(value: float) -> str:
    """Three significant digits, never in exponent form."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:#.3g}" if abs(value) >= 0.001 else f"{value:.6f}"


def shortened(name: str, length: int) -> str:
    """A long name without its middle: paths of layers differ at both ends."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return f"{name[:head]}…{name[head + 1 - length :]}"
