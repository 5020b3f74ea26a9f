"""The built-in data: drawn faces of invented beings, with biases of known size.

Class attributes: smiling, glasses, hat (each "no" or "yes"). Perceived groups: shape (round,
square) and tint (amber, teal, violet); they are deliberately not groups of people. Example i is a
function of (seed, i) and the knobs alone, whatever n is. Two thirds of the rows (i % 3 != 2) are the
train split, in which the classes depend on the groups; in the test split they do not, so that every
group has enough members of every class for its rates to be measured.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pandas as pd
import PIL
from numpy.typing import NDArray
from PIL import Image

from fvlfp.arrays import default_cache, log, read_array, write_array
from fvlfp.data.card import Attribute, Card
from fvlfp.data.drawing import DRAWS, PARTS, draw, spoil
from fvlfp.data.pen import SIZE
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError

LABELS = ("smiling", "glasses", "hat")
GROUPS = {"shape": ("round", "square"), "tint": ("amber", "teal", "violet")}
#: P(label = "yes") where nothing is correlated.
BASE_RATE = {"smiling": 0.5, "glasses": 0.4, "hat": 0.4}

CARD = Card(
    name="toy faces",
    source="drawn by fvlfp.data.toyfaces from a seed; no photograph of anybody",
    licence="Apache-2.0",
    label_origin="known: each face was drawn from its labels (label noise is added where asked for)",
    templates=["a drawing of a {}", "a picture of a {}", "a cartoon of a {}", "a small painting of a {}"],
    classes={
        "smiling": {"no": "serious face", "yes": "smiling face"},
        "glasses": {"no": "face without glasses", "yes": "face with glasses"},
        "hat": {"no": "face without a hat", "yes": "face with a hat"},
    },
    groups={
        "shape": Attribute(
            words={"round": ["round", "circular", "oval"], "square": ["square", "boxy", "angular"]},
            phrase="{word} face",
        ),
        "tint": Attribute(
            words={
                "amber": ["amber", "orange", "golden"],
                "teal": ["teal", "turquoise", "green"],
                "violet": ["violet", "purple", "lilac"],
            },
            phrase="{word} face",
        ),
    },
    notes="Shape and tint are properties of invented beings. They stand for no group of people.",
)


class Being(NamedTuple):
    """All that one drawing is made of: see `make` for strength."""

    seed: int
    i: int
    properties: tuple[tuple[str, str], ...]
    strength: float

    def drawing(self) -> NDArray[np.uint8]:
        """The picture, uint8, shape (64, 64, 3)."""
        has = dict(self.properties)
        uniforms, grain = _numbers(self.seed, self.i)
        image = draw(
            uniforms,
            **{name: has[name] == "yes" for name in LABELS},
            shape=has["shape"],
            tint=has["tint"],
            covered=0.15 + 0.35 * self.strength,
        )
        return spoil(image, self.strength, grain)


class Pictures(Sequence[Image.Image]):
    """Images that are drawn when they are asked for; item i is a PIL image.

    Whoever goes through all of them has them drawn once, and the next time they come from a file.
    """

    def __init__(self, beings: list[Being]) -> None:
        self.beings = beings

    def __len__(self) -> int:
        return len(self.beings)

    @overload
    def __getitem__(self, i: int) -> Image.Image: ...
    @overload
    def __getitem__(self, i: slice) -> "Pictures": ...
    def __getitem__(self, i: int | slice) -> "Image.Image | Pictures":
        if isinstance(i, slice):
            return Pictures(self.beings[i])
        return Image.fromarray(self.beings[i].drawing())

    def __iter__(self) -> Iterator[Image.Image]:
        return map(Image.fromarray, self.array)

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """All of them, drawn once and kept in the folder of the caches: uint8, shape (n, 64, 64, 3)."""
        digests = b"".join(self.digest(i) for i in range(len(self)))
        path = default_cache() / f"drawn-{hashlib.sha256(digests).hexdigest()}.npy"
        kept: NDArray[np.uint8] | None = read_array(path, len(self), np.uint8)
        return self._draw(path) if kept is None else kept

    def _draw(self, path: Path) -> NDArray[np.uint8]:
        drawn = np.stack([being.drawing() for being in self.beings])
        try:
            write_array(path, lambda part: np.save(part, drawn, allow_pickle=False))
        except OSError as error:
            log.warning("drawings are not kept for the next time: %s: %s", path.parent, error.strerror)
        return drawn

    def digest(self, i: int) -> bytes:
        """Changes whenever picture i would, without drawing it: the being, and the code that draws."""
        return hashlib.sha256(f"{_drawn_by()} {self.beings[i]}".encode()).digest()

    def take(self, rows: NDArray[np.int_]) -> "Pictures":
        """The images at these positions."""
        return Pictures([self.beings[i] for i in rows])


def make(
    n: int = 12_000,
    *,
    seed: int = 0,
    label: str = "smiling",
    correlation: Mapping[str, float] | float = 0.5,
    test_correlation: Mapping[str, float] | float = 0.0,
    client_correlation: Sequence[float] | None = None,
    difficulty: Mapping[str, float] | None = None,
    label_noise: Mapping[str, float] | float = 0.0,
) -> Dataset:
    """n toy faces; each is drawn when it is looked at.

    correlation: what a group changes in P(label = "yes") of the train split. A number c means
    {"shape": c}: P(yes | round) - P(yes | square) = c. {"tint": c} means
    P(yes | amber) - P(yes | violet) = c with teal half-way; both may be given. Groups are uniform
    and independent of each other, so each difference holds exactly in expectation, -1..1.
    test_correlation: the same for the test split.
    client_correlation: one shape correlation a client (replaces `correlation["shape"]` in the train
    split) and adds the column `client`, uniform over "0".."K-1".
    difficulty: group -> strength 0..1 of `drawing.spoil` for its members; where two of a being's
    groups have one, the larger counts. Default {"square": 0.3}. The strength s also raises the
    probability that something hides a part of the face from 0.15 to 0.15 + 0.35 s.
    label_noise: probability that the recorded `label` of a train row is flipped, or a mapping group
    of shape or tint -> probability. The drawing shows the truth; the test split is clean.

    Returns a Dataset with columns smiling, glasses, hat, shape, tint, split (and client).
    Raises InputError when a knob is out of range or names an unknown label or group.
    """
    difficulty = {"square": 0.3} if difficulty is None else dict(difficulty)
    _check(n, label, difficulty, label_noise)
    by_split = {"train": _effect(correlation, label), "test": _effect(test_correlation, label)}
    by_client = [_effect({**by_split["train"], "shape": c}, label) for c in client_correlation or ()]
    rows: list[dict[str, str]] = []
    beings: list[Being] = []
    for i in range(n):
        u = _uniforms(seed, i)[0]
        row = {"split": "test" if i % 3 == 2 else "train"}
        for k, (name, groups) in enumerate(GROUPS.items()):
            row[name] = groups[int(u[k] * len(groups))]
        effect = by_split[row["split"]]
        if by_client:
            client = int(u[2] * len(by_client))
            row["client"] = str(client)
            effect = by_client[client] if row["split"] == "train" else effect
        for k, name in enumerate(LABELS):
            p = BASE_RATE[name] + (_shift(effect, row) if name == label else 0)
            row[name] = "yes" if u[3 + k] < p else "no"
        strength = max(difficulty.get(row[name], 0.0) for name in GROUPS)
        properties = tuple((name, row[name]) for name in (*LABELS, *GROUPS))
        beings.append(Being(seed, i, properties, strength))
        if row["split"] == "train" and u[6] < _noise(label_noise, row):
            row[label] = "no" if row[label] == "yes" else "yes"
        rows.append(row)
    columns = [*LABELS, *GROUPS, "split", *(["client"] if by_client else [])]
    return Dataset(pd.DataFrame(rows, columns=columns, dtype=object), Pictures(beings), CARD)


def twin(seed: int, i: int, *, difficulty: float = 0.0, **properties: str) -> Image.Image:
    """Example i drawn with given properties: change one, and all else stays the same.

    properties: all of smiling, glasses, hat ("yes" or "no"), shape and tint. difficulty: strength of
    `drawing.spoil`. Two twins that differ in shape alone are a counterfactual pair.

    Raises InputError when a property is missing, unknown, or has another value.
    """
    return Image.fromarray(_being(seed, i, difficulty, properties).drawing())


def twins(seed: int, properties: Mapping[int, Mapping[str, str]], *, difficulty: float = 0.0) -> Pictures:
    """Twins of many examples, `{example: its properties}`: drawn once and kept, as the pictures of `make`.

    Raises InputError as `twin`.
    """
    return Pictures([_being(seed, i, difficulty, wanted) for i, wanted in properties.items()])


def _being(seed: int, i: int, difficulty: float, properties: Mapping[str, str]) -> Being:
    wanted = {*LABELS, *GROUPS}
    if set(properties) != wanted:
        raise InputError(f"twin needs exactly these properties: {', '.join(sorted(wanted))}")
    for name, value in properties.items():
        allowed = GROUPS.get(name, ("no", "yes"))
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return Being(seed, i, tuple(properties.items()), difficulty)


def _uniforms(seed: int, i: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, i]).random((len(PARTS), DRAWS))


def _numbers(seed: int, i: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The random numbers of example i: uniforms (parts, draws) and grain (64, 64, 3)."""
    uniforms = _uniforms(seed, i)
    # a window of one sheet of noise: fresh noise for each example would cost a tenth of the time
    x, y = (3 * SIZE * uniforms[-1, :2]).astype(int)
    return uniforms, _grain()[y : y + SIZE, x : x + SIZE]


@cache
def _grain() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((4 * SIZE, 4 * SIZE, 3), dtype=np.float32)


@cache
def _drawn_by() -> str:
    """The sha256 of all code that turns a being into pixels, and the libraries' versions."""
    code = hashlib.sha256(f"{PIL.__version__} {np.__version__}".encode())
    for name in ("toyfaces", "drawing", "face_parts", "pen"):
        code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return code.hexdigest()


def _effect(correlation: Mapping[str, float] | float, label: str) -> dict[str, float]:
    effect = {"shape": correlation} if isinstance(correlation, (int, float)) else dict(correlation)
    unknown = sorted(set(effect) - set(GROUPS))
    if unknown:
        raise InputError(f"correlation with {unknown[0]!r}: it must be one of {', '.join(GROUPS)}")
    room = 2 * min(BASE_RATE[label], 1 - BASE_RATE[label])
    if not sum(map(abs, effect.values())) <= room + 1e-12:  # not: refuses nan too
        raise InputError(f"correlations of {label} must add up to at most {room:g}: {effect}")
    return effect


def _shift(effect: Mapping[str, float], row: Mapping[str, str]) -> float:
    """What a being's groups add to P(yes): +c/2 for the first group down to -c/2 for the last."""
    total = 0.0
    for name, c in effect.items():
        groups = GROUPS[name]
        total += c * (0.5 - groups.index(row[name]) / (len(groups) - 1))
    return total


def _noise(label_noise: Mapping[str, float] | float, row: Mapping[str, str]) -> float:
    if isinstance(label_noise, (int, float)):
        return label_noise
    return max(label_noise.get(row[name], 0.0) for name in GROUPS)


def _check(n: int, label: str, difficulty: Mapping[str, float], noise: Mapping[str, float] | float) -> None:
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
    if label not in LABELS:
        raise InputError(f"label must be one of {', '.join(LABELS)}, not {label!r}")
    known = [group for groups in GROUPS.values() for group in groups]
    shares = {"": noise} if isinstance(noise, (int, float)) else noise
    for what, values in (("difficulty", difficulty), ("label_noise", shares)):
        for group, value in values.items():
            if group and group not in known:
                raise InputError(f"{what} of {group!r}: it must be one of {', '.join(known)}")
            if not 0 <= value <= 1:
                raise InputError(f"{what} must be between 0 and 1, not {value}")
