"""How one toy face is drawn: a friendly invented being, 64 x 64 pixels, from numbers alone.

Each part of the picture reads its own row of a table of uniform numbers, so changing one property
(smiling or not, round or square) leaves every other part of the drawing as it was: two such
drawings are a true counterfactual pair. Lengths are in units of the head's half height.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fvlfp.data import face_parts as parts
from fvlfp.data.face_parts import BRIGHT, INK, LEAF, STAR, WHITE
from fvlfp.data.pen import CANVAS, SIZE, Colour, Dice, Pen, curve, mix, outline, path

#: Rows of the table of uniform numbers, and numbers a row.
PARTS = (
    *("labels", "scene", "pose", "colours", "head", "eyes", "mouth", "hair", "glasses", "hat"),
    *("occluder", "spoil"),
)
DRAWS = 40

TINTS: dict[str, Colour] = {"amber": (252, 184, 74), "teal": (66, 190, 180), "violet": (168, 128, 228)}
_SCENES: list[tuple[Colour, Colour]] = [
    ((255, 238, 214), (253, 190, 165)),
    ((218, 250, 238), (150, 224, 198)),
    ((226, 232, 255), (160, 178, 250)),
    ((240, 250, 255), (158, 214, 246)),
    ((255, 220, 228), (255, 156, 182)),
    ((238, 247, 222), (158, 198, 118)),
    ((255, 250, 206), (250, 212, 120)),
    ((250, 250, 252), (206, 210, 222)),
    ((122, 112, 178), (50, 54, 104)),
    ((84, 132, 150), (34, 58, 80)),
    ((236, 222, 255), (190, 160, 238)),
    ((206, 244, 244), (92, 186, 186)),
]


def draw(
    uniforms: NDArray[np.float64],
    *,
    smiling: bool,
    glasses: bool,
    hat: bool,
    shape: str,
    tint: str,
    covered: float = 0.15,
) -> Image.Image:
    """Draw one face.

    uniforms: numbers in [0, 1), shape (len(PARTS), DRAWS). shape: "round" or "square".
    tint: a key of TINTS. covered: probability that something hides a part of the face.
    Returns an RGB image of 64 x 64 pixels.
    """
    dice = {part: Dice(row) for part, row in zip(PARTS, uniforms.tolist(), strict=True)}
    image = _scene(dice["scene"])
    d = dice["pose"]
    size = d.between(0.27, 0.36) * CANVAS
    turn = complex(size * np.exp(1j * d.between(-0.38, 0.38)))
    middle = complex(d.between(0.42, 0.58), d.between(0.5, 0.6)) * CANVAS
    look = complex(d.between(-0.12, 0.12), d.between(-0.07, 0.07))  # turns the features aside
    pen = Pen(image, middle, turn)

    d = dice["colours"]
    skin = mix(TINTS[tint], d.pick([WHITE, (255, 110, 80), (70, 60, 130)]), d.between(0, 0.18))
    dark = mix(skin, (60, 30, 70), 0.45)
    _head(pen, dice["head"], shape, skin, dark, wears_hat=hat)
    parts.hair(pen, dice["hair"], skin, dark, wears_hat=hat)
    parts.eyes(pen, dice["eyes"], look, skin)
    parts.mouth(pen, dice["mouth"], look, smiling, skin)
    if glasses:
        parts.glasses(pen, dice["glasses"], look)
    if hat:
        parts.hat(pen, dice["hat"], shape)
    if dice["occluder"].chance(covered):
        _occluder(pen, dice["occluder"], skin, dark)
    return image.reduce(CANVAS // SIZE)


def spoil(image: Image.Image, strength: float, grain: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Make an image harder to see: less contrast, blur, noise; strength 0..1 is the known size.

    Contrast is multiplied by 1 - 0.6 strength (towards mid grey), a Gaussian blur has radius
    1.8 strength pixels, and noise has standard deviation 3 + 22 strength grey levels.
    grain: standard normal numbers, shape (64, 64, 3). Returns uint8, shape (64, 64, 3).
    """
    if strength > 0:
        image = image.filter(ImageFilter.GaussianBlur(1.8 * strength))
    pixels = np.asarray(image, dtype=np.float32)
    pixels = 127 + (pixels - 127) * np.float32(1 - 0.6 * strength)
    pixels = pixels + grain * np.float32(3 + 22 * strength)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _scene(d: Dice) -> Image.Image:
    """A background: four corner colours blended, and a pattern."""
    light, deep = d.pick(_SCENES)
    corners = [mix(light, deep, d.between(0, 1)) for _ in range(4)]
    image = Image.frombytes("RGB", (2, 2), bytes(v for c in corners for v in c))
    # blended at the final size, then enlarged: nine times fewer pixels to blend
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    image = image.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)
    pen = Pen(image, turn=CANVAS)
    ink = (*mix(deep, d.pick([WHITE, INK]), 0.35), 110)
    pattern = d.pick(["plain", "dots", "stripes", "hills", "sky", "stars", "rays", "bunting"])
    if pattern == "dots":
        step, r, off = d.between(0.16, 0.3), d.between(0.02, 0.05), d.between(0, 0.2)
        for row, y in enumerate(np.arange(off, 1.1, step)):
            for x in np.arange(off - step / 2 * (row % 2), 1.1, step):
                pen.blob(complex(x, y), r, colour=ink)
    elif pattern == "stripes":
        step, slant = d.between(0.12, 0.3), d.between(-0.6, 0.6)
        for x in np.arange(-0.8, 1.8, step):
            pen.fill(path(x, x + step / 2, x + step / 2 + slant + 1j, x + slant + 1j), ink)
    elif pattern == "hills":
        pen.blob(complex(d.between(0.1, 0.9), d.between(0.1, 0.3)), 0.1, colour=(255, 236, 150))
        for k in range(3):
            colour = mix((150, 205, 130), (60, 130, 110), 0.3 * k + d.between(0, 0.2))
            pen.blob(complex(d.between(0, 1), 1.15 + 0.1 * k), 0.7, 0.5, colour)
    elif pattern == "sky":
        for _ in range(4):
            x, y, r = d.between(0, 1), d.between(0.02, 0.8), d.between(0.05, 0.1)
            for dx, dr in ((-1.2, 0.7), (0, 1.0), (1.2, 0.75)):
                pen.blob(complex(x + dx * r, y + (1 - dr) * r), r * dr, colour=(255, 255, 255, 200))
    elif pattern == "stars":
        for _ in range(9):
            at, r = complex(d.between(0, 1), d.between(0, 1)), d.between(0.02, 0.05)
            pen.fill(at + r * STAR, (255, 244, 190))
    elif pattern == "rays":
        at, wide = complex(d.between(0.2, 0.8), d.between(0.2, 0.8)), d.between(0.12, 0.25)
        for a in np.arange(d.between(0, 0.4), 6.3, 2 * np.pi / 10):
            pen.fill(path(at, at + 1.6 * np.exp(1j * a), at + 1.6 * np.exp(1j * (a + wide))), ink)
    elif pattern == "bunting":
        y = d.between(0.02, 0.12)
        for k in range(6):
            x = k / 6 + 0.02
            pen.fill(path(complex(x, y), complex(x + 0.13, y), complex(x + 0.065, y + 0.13)), d.pick(BRIGHT))
    return image


def _head(pen: Pen, d: Dice, shape: str, skin: Colour, dark: Colour, *, wears_hat: bool) -> None:
    """Shoulders, ears, head, light and shade, cheeks, nose."""
    power = d.pick([2.0, 2.1, 2.3]) if shape == "round" else d.pick([4.5, 6.0, 9.0])
    grow = 1.0 if shape == "round" else 0.93  # about the same area
    rx, ry = grow * d.between(0.88, 1.04), grow
    shirt = d.pick(BRIGHT)
    pen.blob(0.05 + 1.75j, 0.95, 0.8, mix(shirt, INK, 0.4))
    pen.blob(0.05 + 1.75j, 0.89, 0.74, shirt)
    if d.chance(0.5):
        pen.stroke(curve(1.25j, 0.6, 0.25), 0.1, mix(shirt, WHITE, 0.6))
    ears = d.pick(["none", "side", "side", "cat", "bear"])
    for s in (-1, 1):
        if ears == "side":
            pen.blob(complex(s * rx, 0.05), 0.2, 0.26, dark)
            pen.blob(complex(s * rx, 0.05), 0.14, 0.2, mix(skin, (255, 130, 130), 0.3))
        elif ears == "cat" and not wears_hat:
            pen.fill(s * path(0.3, 0.86, 0.8) + path(-0.9j, -0.45j, -1.3j), dark)
            pen.fill(s * path(0.42, 0.78, 0.74) + path(-0.85j, -0.5j, -1.14j), skin)
        elif ears == "bear" and not wears_hat:
            pen.blob(complex(s * 0.62, -0.82), 0.32, colour=dark)
            pen.blob(complex(s * 0.62, -0.82), 0.24, colour=mix(skin, WHITE, 0.25))
    pen.blob(0, rx + 0.06, ry + 0.06, dark, power=power)
    pen.blob(0, rx, ry, mix(skin, dark, 0.28), power=power)
    pen.blob(-0.03 - 0.05j, rx - 0.04, ry - 0.06, skin, power=power)
    pen.blob(-0.42 - 0.55j, 0.22, 0.13, (255, 255, 255, 90), tilt=-0.5)
    blush, nose = d.pick([0, 110, 150]), d.pick(["none", "button", "snub"])
    for s in (-1, 1):
        pen.blob(complex(s * 0.58, 0.3), 0.18, 0.12, (255, 100, 120, blush))
    if d.chance(0.25):
        for k in range(6):
            x, y = (-0.6, 0.6)[k % 2] + d.between(-0.14, 0.14), d.between(0.1, 0.3)
            pen.blob(complex(x, y), 0.03, colour=dark)
    if nose == "button":
        pen.blob(0.14j, 0.1, 0.08, dark)
        pen.blob(-0.03 + 0.11j, 0.03, colour=(255, 255, 255, 170))
    elif nose == "snub":
        pen.stroke(curve(0.16j, 0.09, 0.06), 0.05, dark)


def _occluder(pen: Pen, d: Dice, skin: Colour, dark: Colour) -> None:
    """A leaf, a bubble, a waving hand, a balloon or a cloud in front of the face."""
    style = d.pick(["leaf", "bubble", "hand", "balloon", "cloud"])
    a, far, r = d.between(0, 6.28), d.between(0.45, 0.95), d.between(0.34, 0.5)
    at = far * complex(np.cos(a), np.sin(a))
    if style == "leaf":
        tilt = d.between(0, 3.1)
        t = np.linspace(-1, 1, 15)
        half = 0.5 * (1 - t * t)
        leaf = np.concatenate([t + 1j * half, (t - 1j * half)[::-1]]) * r * 1.5 * np.exp(1j * tilt)
        pen.fill(at + leaf * 1.08, mix(LEAF, INK, 0.45))
        pen.fill(at + leaf, LEAF)
        pen.stroke(at + path(-1, 1) * r * 1.4 * np.exp(1j * tilt), 0.05, mix(LEAF, WHITE, 0.5))
    elif style == "bubble":
        pen.blob(at, r * 1.1, colour=(190, 230, 255, 170))
        pen.stroke(at + outline() * r * 1.1, 0.06, (255, 255, 255, 220), closed=True)
        pen.blob(at - 0.4 * r * (1 + 1j), 0.22 * r, 0.14 * r, WHITE, tilt=-0.7)
    elif style == "hand":
        at = complex(at.real, abs(at.imag) + 0.25)
        for fatter, colour in ((0.05, dark), (0.0, mix(skin, WHITE, 0.1))):
            for k in range(4):
                finger = at + r * complex(-0.66 + 0.44 * k, -0.75 - 0.2 * (k in (1, 2)))
                pen.blob(finger, 0.2 * r + fatter, 0.45 * r + fatter, colour)
            pen.blob(at, 0.85 * r + fatter, 0.75 * r + fatter, colour, power=3.0)
            pen.blob(at + r * (0.95 - 0.1j), 0.4 * r + fatter, 0.22 * r + fatter, colour, tilt=-0.6)
    elif style == "balloon":
        colour = d.pick(BRIGHT)
        pen.stroke(path(at + r * 1j, at + r * (0.2 + 3j)), 0.04, INK)
        pen.blob(at, r, r * 1.15, mix(colour, INK, 0.35))
        pen.blob(at, r * 0.93, r * 1.08, colour)
        pen.blob(at - 0.4 * r * (1 + 1j), 0.16 * r, 0.26 * r, (255, 255, 255, 200), tilt=0.5)
    else:
        for dx, dr in ((-1.0, 0.6), (0.0, 0.9), (0.95, 0.65)):
            pen.blob(at + complex(dx, 0.9 - dr) * r, r * dr, colour=(250, 252, 255))
