"""Marks of a picture. Horizontal places are shares of the width: it fits phone and desktop.

ElementTree writes the markup, so every name in a picture is escaped.
"""

from xml.etree import ElementTree as ET

from markupsafe import Markup


def canvas(height: float, label: str) -> ET.Element:
    """An empty picture; `label` is what a screen reader says."""
    attributes = {
        "width": "100%",
        "height": f"{height:.0f}",
        "role": "img",
        "aria-label": label,
    }
    return ET.Element("svg", attributes)


def bar(
    svg: ET.Element, span: tuple[float, float], y: float, *, height: float, kind: str
) -> None:
    """A horizontal bar over `span`; two pixels wide at least, so that a small value is seen."""
    start, end = span
    attributes = {
        "x": share(start), "y": f"{y:.1f}", "width": share(max(end - start, 0.004)),
        "height": f"{height:.1f}", "rx": f"{min(height / 2, 3):.1f}", "class": kind,
    }  # fmt: skip
    ET.SubElement(svg, "rect", attributes)


def line(
    svg: ET.Element, start: tuple[float, float], end: tuple[float, float], *, kind: str
) -> None:
    attributes = {
        "x1": share(start[0]), "y1": f"{start[1]:.1f}",
        "x2": share(end[0]), "y2": f"{end[1]:.1f}", "class": kind,
    }  # fmt: skip
    ET.SubElement(svg, "line", attributes)


def dot(
    svg: ET.Element, x: float, y: float, *, radius: float, kind: str, title: str = ""
) -> None:
    attributes = {"cx": share(x), "cy": f"{y:.1f}", "r": f"{radius:.1f}", "class": kind}
    circle = ET.SubElement(svg, "circle", attributes)
    if title:
        ET.SubElement(circle, "title").text = title


def text(
    svg: ET.Element,
    x: float,
    y: float,
    *,
    words: str,
    kind: str = "label",
    anchor: str | None = None,
    title: str = "",
) -> None:
    """Words at a place; unless told otherwise, anchored so that they stay inside."""
    anchor = anchor or ("start" if x < 0.3 else "end" if x > 0.7 else "middle")
    attributes = {"x": share(x), "y": f"{y:.1f}", "text-anchor": anchor, "class": kind}
    element = ET.SubElement(svg, "text", attributes)
    element.text = words
    if title:
        ET.SubElement(element, "title").text = title


def share(value: float) -> str:
    return f"{100 * value:.2f}%"


def markup(svg: ET.Element) -> Markup:
    return Markup(ET.tostring(svg, encoding="unicode"))  # noqa: S704 - ElementTree escaped it
