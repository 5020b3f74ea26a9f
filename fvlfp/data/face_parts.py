"""Hair, eyes, mouth, glasses and hats of a toy face, each in several styles.

Lengths are in units of the head's half height, the head's middle is 0 and y points downwards.
`look` shifts the features to where the being looks.
"""

import numpy as np

from fvlfp.data.pen import Colour, Dice, Pen, Points, curve, mix, outline, path

BRIGHT: list[Colour] = [
    *((232, 72, 85), (255, 140, 66), (255, 209, 72), (92, 184, 92), (52, 152, 219), (91, 95, 199)),
    *((214, 92, 168), (84, 70, 88), (245, 245, 245), (139, 94, 60), (38, 70, 83), (42, 157, 143)),
]
INK: Colour = (54, 40, 60)
WHITE: Colour = (255, 255, 255)
LEAF: Colour = (104, 178, 88)


def star(points: int, inner: float) -> Points:
    """A star of radius 1 with an inner radius, shape (2 points,)."""
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return radius * np.exp(1j * (np.pi * np.arange(2 * points) / points - np.pi / 2))


STAR, STAR_FIVE = star(4, 0.35), star(5, 0.5)


def hair(pen: Pen, d: Dice, skin: Colour, dark: Colour, *, wears_hat: bool) -> None:
    """A fringe under a hat as well; tufts, curls, a sprout or antennae only without one."""
    colour = mix(d.pick(BRIGHT), INK, 0.25)
    style = d.pick(["none", "fringe", "tuft", "curls", "sprout", "antennae", "bun"])
    if style == "fringe":
        for k in range(5):
            x = -0.6 + 0.3 * k
            pen.fill(path(x - 0.22 - 0.88j, x + 0.22 - 0.88j, x + 0.05 - 0.5j), colour)
    if wears_hat:
        return
    if style == "tuft":
        for a in (-0.5, 0.0, 0.5):
            pen.blob(-0.98j + 0.2 * complex(np.sin(a), -np.cos(a)), 0.09, 0.24, colour, tilt=a)
    elif style == "curls":
        for k in range(7):
            a = -1.0 + k / 3
            pen.blob(0.95 * complex(np.sin(a), -np.cos(a)), 0.2, colour=mix(colour, WHITE, 0.1 * (k % 2)))
    elif style == "sprout":
        pen.stroke(path(-0.95j, 0.03 - 1.2j), 0.07, mix(LEAF, INK, 0.3))
        for s in (-1, 1):
            pen.blob(s * 0.17 - 1.28j, 0.19, 0.1, LEAF, tilt=-0.5 * s)
    elif style == "antennae":
        for s in (-1, 1):
            pen.stroke(path(s * 0.25 - 0.9j, s * 0.42 - 1.3j), 0.06, dark)
            pen.blob(s * 0.42 - 1.32j, 0.12, colour=colour)
    elif style == "bun":
        pen.blob(-1.1j, 0.28, colour=mix(colour, INK, 0.2))
        pen.blob(-0.04 - 1.13j, 0.2, colour=colour)


def eyes(pen: Pen, d: Dice, look: complex, skin: Colour) -> None:
    """Dots, big round eyes, tall ones, half closed or closed; brows. None of it tells the mood."""
    style = d.pick(["dots", "big", "big", "tall", "sleepy", "closed"])
    apart, size, y = d.between(0.32, 0.44), d.between(0.17, 0.24), -0.14
    iris = mix(d.pick(BRIGHT), INK, 0.35)
    brow, tilt = d.chance(0.5), d.between(-0.25, 0.25)
    for s in (-1, 1):
        at = complex(s * apart, y) + look
        if style == "dots":
            pen.blob(at, 0.11, 0.14, INK)
            pen.blob(at - 0.04 - 0.05j, 0.04, colour=WHITE)
        elif style == "closed":
            pen.stroke(curve(at, size * 0.9, -0.14), 0.07, INK)
        elif style == "tall":
            pen.blob(at, 0.14, 0.22, INK)
            pen.blob(at + 0.09j, 0.09, 0.09, iris)
            pen.blob(at - 0.04 - 0.09j, 0.06, colour=WHITE)
        else:
            pen.blob(at, size + 0.04, colour=INK)
            pen.blob(at, size, colour=WHITE)
            pen.blob(at + 0.6 * look, size * 0.62, colour=iris)
            pen.blob(at + 0.6 * look, size * 0.36, colour=INK)
            pen.blob(at + 0.6 * look - size * (0.25 + 0.25j), size * 0.2, colour=WHITE)
            if style == "sleepy":
                lid = outline()[20:] * (size + 0.05)
                pen.fill(at + lid, mix(skin, INK, 0.12))
                pen.stroke(path(at - size - 0.03, at + size + 0.03), 0.06, INK)
        if brow:
            lift, half = at - 1j * (size + 0.16), complex(0.16 * np.exp(1j * s * tilt))
            pen.stroke(path(lift - half, lift + half), 0.07, INK)


def mouth(pen: Pen, d: Dice, look: complex, smiling: bool, skin: Colour) -> None:
    """Smiles differ in size and openness; the serious ones are flat, wavy, round or bent down."""
    at, wide, u = 0.5j + 0.8 * look, d.between(0.24, 0.4), d.between(0, 1)
    style = d.pick(["line", "line", "open", "tooth", "other"])
    inside, red = (120, 32, 52), (236, 98, 110)
    if smiling:
        bend = 0.16 + 0.22 * u
        if style in ("open", "other"):
            top, low = curve(at - 0.06j, wide, 0.06), curve(at + 0.5j * bend - 0.03j, wide, 0.06 + bend)
            low = low - (low[0] - top[0])
            pen.fill(np.concatenate([top, low[::-1]]), inside)
            pen.fill(np.concatenate([top[2:-2], (top[2:-2] + 0.09j)[::-1]]), WHITE)
            pen.blob(low[6] - 0.07j, wide * 0.4, 0.06, red)
            pen.stroke(np.concatenate([top, low[::-1]]), 0.05, INK, closed=True)
        else:
            line = curve(at, wide, bend)
            pen.stroke(line, 0.08, INK)
            if style == "tooth":
                pen.fill(line[7] + path(-0.07, 0.07, 0.06 + 0.12j, -0.06 + 0.12j), WHITE)
    elif style == "open":
        pen.blob(at + 0.02j, 0.08 + 0.06 * u, 0.1 + 0.05 * u, INK)
        pen.blob(at + 0.04j, 0.05 + 0.05 * u, 0.06 + 0.04 * u, inside)
    elif style == "other":
        t = np.linspace(-1, 1, 21)
        pen.stroke(at + wide * t + 0.06j * np.sin(t * 8), 0.07, INK)
    else:
        bend = 0.03 - 0.22 * u
        pen.stroke(curve(at, wide * 0.9, bend), 0.08, INK)
        if style == "tooth":
            pen.stroke(curve(at + 0.17j, 0.12, 0.03), 0.05, mix(skin, INK, 0.4))


def glasses(pen: Pen, d: Dice, look: complex) -> None:
    """Round, square or oval glasses, sunglasses, or stars."""
    style = d.pick(["round", "square", "oval", "shades", "stars"])
    colour, r, y = mix(d.pick(BRIGHT), INK, 0.2), d.between(0.27, 0.34), -0.14
    for s in (-1, 1):
        at = complex(s * 0.39, y) + look
        pen.stroke(path(at + s * r, s * 0.95 + complex(0, y - 0.08)), 0.07, colour)
        lens = {"square": outline(6.0), "stars": 1.35 * STAR_FIVE}.get(style, outline()) * r
        if style == "oval":
            lens = lens.real * 1.1 + 0.75j * lens.imag
        dim = {"shades": 215, "stars": 120}.get(style, 60)
        pen.fill(at + lens, (*((40, 40, 60) if style == "shades" else mix(colour, WHITE, 0.8)), dim))
        pen.stroke(at + lens, 0.085, colour, closed=True)
        pen.stroke(path(at - 0.12 + 0.02j, at + 0.02 - 0.14j), 0.05, (255, 255, 255, 170))
    pen.stroke(curve(look + 1j * (y - 0.02), 0.12, -0.06), 0.07, colour)


def hat(pen: Pen, d: Dice, shape: str) -> None:
    """A party hat, beanie, top hat, wizard's hat, cap or crown."""
    style = d.pick(["party", "beanie", "top", "wizard", "cap", "crown"])
    main, trim = d.pick(BRIGHT), d.pick(BRIGHT)
    edge, lean = mix(main, INK, 0.45), d.between(-0.15, 0.15)
    w = 0.8 if shape == "round" else 0.88
    if style in ("party", "wizard"):
        tip, foot = complex(lean, -1.75), 0.55 if style == "party" else 0.7
        pen.fill(path(tip - 0.05j, foot + 0.05 - 0.72j, -foot - 0.05 - 0.72j), edge)
        pen.fill(path(tip + 0.06j, foot - 0.03 - 0.76j, 0.03 - foot - 0.76j), main)
        if style == "party":
            for t in (0.3, 0.62):
                mid, half = tip * t - 0.76j * (1 - t), foot * (1 - t)
                pen.stroke(curve(mid, half * 0.85, 0.05), 0.1, mix(trim, WHITE, 0.3))
            pen.blob(tip, 0.16, colour=mix(trim, WHITE, 0.3))
        else:
            pen.blob(-0.72j, 1.02, 0.15, edge)
            pen.blob(-0.74j, 0.96, 0.1, main)
            pen.fill(complex(lean / 2, -1.12) + 0.17 * STAR_FIVE, (255, 226, 110))
    elif style == "beanie":
        pen.fill(-0.62j + outline()[20:] * w + outline()[20:].imag * 0.18j, main)
        for k in (-0.5, 0.0, 0.5):
            pen.stroke(path(complex(k * w, -0.7), complex(k * w * 0.6, -1.4)), 0.05, edge)
        pen.blob(-0.66j, w + 0.06, 0.16, trim, power=5)
        pen.blob(-1.55j, 0.2, colour=mix(trim, WHITE, 0.4))
    elif style == "top":
        pen.blob(complex(lean / 2, -1.2), 0.58, 0.5, edge, power=8)
        pen.blob(complex(lean / 2, -1.2), 0.53, 0.46, main, power=8)
        pen.blob(-0.92j, 0.55, 0.1, trim, power=8)
        pen.blob(-0.74j, 0.95, 0.11, edge)
        pen.blob(-0.76j, 0.92, 0.07, main)
    elif style == "cap":
        s = 1 if lean > 0 else -1
        pen.fill(-0.6j + outline()[20:] * w, main)
        pen.blob(s * 0.75 - 0.6j, 0.55, 0.12, edge)
        pen.blob(-1.4j, 0.08, colour=trim)
        pen.blob(-0.95j, 0.18, colour=mix(trim, WHITE, 0.3))
    else:
        zig = path(-0.7 - 0.7j, -0.78 - 1.35j, -0.4 - 1.0j, -1.5j, 0.4 - 1.0j, 0.78 - 1.35j, 0.7 - 0.7j)
        pen.fill(zig * 1.05, (176, 122, 20))
        pen.fill(zig, (255, 210, 70))
        for at in (-0.45 - 0.8j, -0.8j, 0.45 - 0.8j):
            pen.blob(at, 0.09, colour=main)
