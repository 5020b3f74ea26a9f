"""Simple shapes for the lessons' diagrams: an SVG of boxes, lines, dots and text."""

from __future__ import annotations

import re
from html import escape

BLUE, ORANGE, GREEN, GREY = "#0173b2", "#de8f05", "#029e73", "#6b6b6b"
RED = "#b03a2e"
PALE = {BLUE: "#d9e8f2", ORANGE: "#ffe8c7", GREEN: "#d5efe6", GREY: "#ececec"}
#: Text in these colours would be too faint on white: it is darker than the shapes that it belongs to.
INK = {ORANGE: "#8f5900", GREEN: "#01704f"}


class Drawing:
    """An SVG on a white sheet, readable on a dark page. Lengths are pixels, y grows downwards."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, text: str = "", colour: str = BLUE) -> None:
        """A rounded box with lines of text in its middle."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{PALE[colour]}" stroke="{colour}"/>'
        )
        lines = text.split("\n") if text else []
        for i, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 5 + 16 * (i - (len(lines) - 1) / 2), line)

    def text(
        self, x: float, y: float, text: str, anchor: str = "middle", colour: str = "#222", size: int = 13
    ) -> None:
        """One line of text. anchor: start, middle or end."""
        ink = INK.get(colour, colour)
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{ink}" font-size="{size}">'
            f"{escape(text)}</text>"
        )

    def caption(self, y: float, text: str) -> None:
        """One small line in the middle of the sheet."""
        self.text(self.size[0] // 2, y, text, size=12)

    def arrow(
        self, x: float, y: float, to_x: float, to_y: float, colour: str = "#444", dashed: bool = False
    ) -> None:
        """An arrow from (x, y) to (to_x, to_y)."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" stroke-width="2"{dash} '
            f'marker-end="url(#{colour.strip("#")})"/>'
        )

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str = GREY) -> None:
        """A dashed line without a head."""
        self.parts.append(
            f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" stroke-dasharray="5 4"/>'
        )

    def dot(self, x: float, y: float, colour: str, square: bool = False) -> None:
        """A marker: a circle, or a square for the second group."""
        shape = (
            f'<rect x="{x - 5}" y="{y - 5}" width="10" height="10"'
            if square
            else f'<circle cx="{x}" cy="{y}" r="5.5"'
        )
        self.parts.append(f'{shape} fill="white" stroke="{colour}" stroke-width="2"/>')

    def circle(self, x: float, y: float, r: float, colour: str) -> None:
        """A round area that lets through what lies under it."""
        self.parts.append(
            f'<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}" fill-opacity="0.15" stroke="{colour}"/>'
        )

    def svg(self) -> str:
        """The whole drawing."""
        width, height = self.size
        body = "\n".join(self.parts)
        heads = "".join(
            f'<marker id="{name}" markerWidth="9" markerHeight="9" refX="7" refY="3.5" orient="auto">'
            f'<path d="M0,0 L8,3.5 L0,7 z" fill="#{name}"/></marker>'
            for name in sorted(set(re.findall(r"url\(#(\w+)\)", body)))
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">\n'
            f'<defs>{heads}</defs>\n<rect width="{width}" height="{height}" rx="10" fill="white"/>\n'
            f"{body}\n</svg>\n"
        )
