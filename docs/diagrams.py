"""The lessons' diagrams, drawn in one style and kept inside the notebooks as attachments.

    python docs/diagrams.py          # draws all of them anew into notebooks/

A markdown cell shows one with `![what it shows](attachment:NAME.svg)`. Attachments travel with a notebook:
into students' copies, Colab and rendered pages. A test fails when a notebook holds another drawing than this
script makes.

What this script does not do: it draws nothing from data. Figures of results are made by the lessons' cells.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
BLUE, ORANGE, GREEN, GREY = "#0173b2", "#de8f05", "#029e73", "#6b6b6b"
PALE = {BLUE: "#d9e8f2", ORANGE: "#ffe8c7", GREEN: "#d5efe6", GREY: "#ececec"}


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
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
            f"{escape(text)}</text>"
        )

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


def contrastive() -> Drawing:
    """How CLIP learned: every picture against every caption."""
    d = Drawing(700, 300)
    captions = ["a round face, smiling", "a square face with a hat", "a serious teal face"]
    for i, caption in enumerate(captions):
        y = 40 + 70 * i
        d.box(20, y, 90, 44, f"picture {i + 1}", GREY)
        d.arrow(110, y + 22, 148, 132, GREY)
        d.box(400 + 100 * i, 210, 92, 30, f"caption {i + 1}", GREY)
        d.arrow(446 + 100 * i, 210, 446 + 100 * i, 192, GREY)
        d.text(446 + 100 * i, 258 + 15 * (i % 2), f"“{caption}”", size=11, colour=GREY)
    d.box(150, 92, 90, 80, "image\ntower")
    d.arrow(240, 132, 310, 132)
    d.text(546, 24, "a cosine for every pair")
    for row in range(3):
        for column in range(3):
            same = row == column
            d.box(
                400 + 100 * column, 40 + 48 * row, 92, 40, "high" if same else "low", GREEN if same else GREY
            )
        d.text(390, 65 + 48 * row, f"picture {row + 1}", anchor="end", size=11, colour=GREY)
    d.text(
        20,
        290,
        "Captions go through the text tower. Training raises the green cosines and lowers the rest.",
        "start",
    )
    return d


def prompt_in_the_tower() -> Drawing:
    """Where learned vectors enter the text tower."""
    d = Drawing(700, 290)
    words = ["start", "v1", "v2", "v3", "v4", "smiling", "face", "end"]
    for layer, y in enumerate((220, 120)):
        for i, word in enumerate(words):
            learned = word.startswith("v")
            label = word if layer == 0 else (word.replace("v", "u") if learned else "")
            d.box(30 + 68 * i, y, 60, 30, label, ORANGE if learned else BLUE)
        for i in (0, 5, 6, 7):
            d.arrow(60 + 68 * i, y, 60 + 68 * i, y - 22, GREY)
    d.box(30, 166, 536, 32, "block 1 of the text tower (frozen)", GREY)
    d.box(30, 66, 536, 32, "block 2 of the text tower (frozen)", GREY)
    d.arrow(536, 66, 536, 40)
    d.text(528, 32, "class arrow T, read at the end mark", anchor="end")
    d.text(580, 240, "v: learned,", "start", ORANGE)
    d.text(580, 256, "layer 0", "start", ORANGE)
    d.text(580, 134, "u: learned,", "start", ORANGE)
    d.text(580, 150, "layer 1 (deep)", "start", ORANGE)
    d.text(
        350,
        278,
        "orange: the prompt, the only numbers that are trained or sent; blue: words; grey: frozen",
        size=12,
    )
    return d


def federated_round() -> Drawing:
    """What moves in one round, and what stays."""
    d = Drawing(700, 270)
    d.box(500, 90, 150, 76, "server:\nweighted mean\nof the prompts", BLUE)
    for k in range(3):
        y = 22 + 78 * k
        d.box(30, y, 120, 56, f"client {k + 1}:\nits own pictures", GREY)
        d.box(180, y + 10, 110, 36, "trains P", ORANGE)
        d.arrow(150, y + 28, 178, y + 28, GREY)
        d.arrow(498, 118 + 8 * k, 294, y + 18, BLUE)
        d.arrow(292, y + 38, 498, 130 + 8 * k, ORANGE)
    d.text(400, 36, "down: the prompt P", colour=BLUE)
    d.text(400, 240, "up: the tuned prompt, and a few numbers about it", colour=ORANGE)
    d.text(90, 262, "pictures and labels stay", colour=GREY)
    return d


def shift() -> Drawing:
    """CDFP's counterfactual embedding."""
    d = Drawing(700, 270)
    for x, y in ((420, 90), (450, 120), (480, 80), (500, 130), (440, 150)):
        d.dot(x, y, BLUE)
    for x, y in ((190, 170), (220, 130), (240, 190), (260, 150), (200, 210)):
        d.dot(x, y, ORANGE, square=True)
    d.text(520, 66, "round faces", colour=BLUE, anchor="start")
    d.text(120, 240, "square faces", colour=ORANGE, anchor="start")
    d.arrow(458, 114, 222, 174, "#444")
    d.text(345, 120, "α (D′ − D)")
    d.text(500, 152, "z: a round, smiling face", anchor="start")
    d.dot(214, 176, BLUE)
    d.text(50, 150, "z_cf: “what if", anchor="start")
    d.text(50, 166, "it were square?”", anchor="start")
    d.arrow(350, 250, 350, 200, GREEN)
    d.text(362, 230, "T: the class text turns until both get the same answer", anchor="start", colour=GREEN)
    return d


def projection() -> Drawing:
    """DSOP's projection, before and after."""
    d = Drawing(700, 270)
    round_faces = ((230, 70), (260, 110), (280, 80), (250, 150), (290, 140))
    square_faces = ((90, 110), (110, 160), (70, 180), (130, 200), (150, 150))
    d.line(40, 135, 330, 135)
    d.text(180, 250, "before: U tells the groups apart")
    for x, y in round_faces:
        d.dot(x, y, BLUE)
        d.dot(520 + (x - 260) * 0.04, y, BLUE)
    for x, y in square_faces:
        d.dot(x, y, ORANGE, square=True)
        d.dot(520 + (x - 110) * 0.04, y, ORANGE, square=True)
    d.text(336, 130, "U", anchor="start")
    d.arrow(370, 135, 440, 135)
    d.text(405, 120, "λ = 1")
    d.line(520, 50, 520, 222)
    d.text(530, 250, "after: all faces share one place along U, that of μ")
    d.text(536, 62, "the heights stay", anchor="start", colour=GREEN)
    return d


def gap() -> Drawing:
    """A rate in each of two groups, and the gap between them."""
    d = Drawing(700, 250)
    for x, name, colour, smiling in ((60, "round", BLUE, 3), (390, "square", ORANGE, 1)):
        d.text(x + 95, 30, f"four {name} beings", colour=colour)
        for i in range(4):
            mark = "smiles" if i < smiling else "serious"
            d.box(x + 50 * i, 44, 46, 30, "", colour if i < smiling else GREY)
            d.text(x + 23 + 50 * i, 63, mark, size=10)
        height = 32 * smiling
        d.box(x + 70, 220 - height, 60, height, f"{smiling / 4:.2f}", colour)
        d.text(x + 100, 240, f"rate: {smiling} of 4", size=12)
    d.line(190, 124, 560, 124)
    d.line(190, 188, 560, 188)
    d.arrow(330, 188, 330, 128, GREEN)
    d.text(342, 161, "gap 0.50", "start", GREEN)
    return d


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "gap": gap,
    "contrastive": contrastive,
    "prompt_in_the_tower": prompt_in_the_tower,
    "federated_round": federated_round,
    "shift": shift,
    "projection": projection,
}


def drawn(source: str) -> dict[str, dict[str, str]]:
    """A markdown cell's attachments by file name; in base64, as JupyterLab and nbconvert want them."""
    names = re.findall(r"\(attachment:(\w+)\.svg\)", source)
    return {
        f"{name}.svg": {"image/svg+xml": base64.b64encode(DRAWINGS[name]().svg().encode()).decode()}
        for name in names
    }


def main() -> None:
    """Put every drawing into the cells that show it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        before = nbformat.writes(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and (attachments := drawn(cell.source)):
                cell["attachments"] = attachments
        if nbformat.writes(notebook) != before:
            nbformat.write(notebook, path)
            print(path.name)


if __name__ == "__main__":
    main()
