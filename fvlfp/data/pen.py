"""A pen and dice for drawing: shapes as complex points on a canvas, choices from uniform numbers."""

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

T = TypeVar("T")
Colour = tuple[int, ...]  # RGB, or RGBA to let the picture below shine through
Points = NDArray[np.complex128]

SIZE = 64
CANVAS = 2 * SIZE  # drawn twice too large, then averaged down: smooth edges


class Dice:
    """Reads uniform numbers of [0, 1) in order, as choices."""

    def __init__(self, uniforms: list[float]) -> None:
        self._next = iter(uniforms).__next__

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._next()

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self._next() < p

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self._next() * len(options))]


class Pen:
    """Draws on a canvas: point z (complex, y downwards) lands at pixel `at + turn * z`."""

    def __init__(self, image: Image.Image, at: complex = 0, turn: complex = 1) -> None:
        # mode "RGBA" blends, which costs more than painting over
        self._paint, self._glaze = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")
        self._at, self._turn = at, turn

    def fill(self, points: Points, colour: Colour) -> None:
        """The polygon with these corners, shape (p,)."""
        corners = (self._at + self._turn * points).view(np.float64).tolist()
        (self._paint if len(colour) == 3 else self._glaze).polygon(corners, fill=colour)

    def blob(
        self,
        at: complex,
        rx: float,
        ry: float | None = None,
        colour: Colour = (0, 0, 0),
        *,
        power: float = 2,
        tilt: float = 0,
    ) -> None:
        """A superellipse |x/rx|^power + |y/ry|^power <= 1; power 2 is an ellipse, 6 nearly a box."""
        z = outline(power, 40 if rx > 0.3 else 24 if rx > 0.1 else 16)
        z = z * rx if ry is None or ry == rx else z.real * rx + 1j * (z.imag * ry)
        self.fill(at + (z * np.exp(1j * tilt) if tilt else z), colour)

    def stroke(self, points: Points, width: float, colour: Colour, *, closed: bool = False) -> None:
        """A line of this width along the points; its ends are round unless it is closed."""
        if closed:
            ring = np.concatenate([points[-1:], points, points[:2]])
            points, along = ring[1:-1], ring[2:] - ring[:-2]
        else:
            along = np.empty_like(points)
            along[1:-1] = points[2:] - points[:-2]
            along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
        side = along * (0.5j * width / np.maximum(np.abs(along), 1e-9))
        self.fill(np.concatenate([points + side, (points - side)[::-1]]), colour)
        if not closed:
            for end in (points[0], points[-1]):
                self.blob(end, width / 2, colour=colour)


@cache
def outline(power: float = 2, points: int = 40) -> Points:
    """The superellipse of radius 1, shape (points,); the second half of it lies above y = 0."""
    z = np.exp(2j * np.pi * (np.arange(points) + 0.5) / points)
    if power == 2:
        return z
    x, y = z.real, z.imag
    e = 2 / power
    return np.sign(x) * np.abs(x) ** e + 1j * (np.sign(y) * np.abs(y) ** e)


def path(*points: complex) -> Points:
    """Corner points as an array, shape (p,)."""
    return np.array(points, dtype=np.complex128)


def curve(at: complex, half_width: float, bend: float, *, points: int = 13) -> Points:
    """A parabola through `at`, open at the top for bend > 0: its middle lies `bend` below its ends."""
    t, dip = _parabola(points)
    return at + half_width * t + bend * dip


@cache
def _parabola(points: int) -> tuple[Points, Points]:
    t = np.linspace(-1, 1, points).astype(np.complex128)
    return t, 1j * (0.5 - t * t)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour a with `share` (0..1) of colour b in it."""
    keep = 1 - share
    return (
        int(a[0] * keep + b[0] * share + 0.5),
        int(a[1] * keep + b[1] * share + 0.5),
        int(a[2] * keep + b[2] * share + 0.5),
    )
