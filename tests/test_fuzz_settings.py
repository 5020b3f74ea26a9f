"""Random data cards, configs and tables of pictures: read as they are written, or one message.

What a case means is worked out here again, with plain Python.
"""

import math
import re
import tomllib
from collections import Counter

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fvlfp.config import Config
from fvlfp.data.card import Card
from fvlfp.data.table import look, read_table
from fvlfp.errors import InputError
from tests.fuzzing import FIXED, often, told

#: Values of every type of TOML, and some that are hard to hold.
WRONG = [
    *[0, 1, -1, 2**63, -(2**63), 10**30, 10**400, True, False, 0.5, -0.0, 1e308, math.inf, math.nan, "", " "],
    *[
        "x",
        "1",
        "true",
        "nan",
        "a\0b",
        "é",
        "x" * 5000,
        "{",
        "{}",
        "{word}",
        "{x!r}",
        "{0.__class__}",
        "{:9}",
    ],
    *[
        [],
        [1],
        ["a"],
        [["a"]],
        [{}],
        {},
        {"a": 1},
        {"": {"": ""}},
        {"1": "a", "1.0": "b"},
        {" a": "b", "a": "c"},
    ],
]
#: Texts that are put somewhere into a file.
DAMAGE = ["=", '"', "[", "]", "\0", "\ufeff", "é", "[[a]]", "a = 1\n", "\n", "9" * 5000, "[" * 3000]
AT = st.integers(0, 2000)


def spoiled(text: str, damage: str, at: int) -> str:
    place = at % (len(text) + 1)
    return text[:place] + damage + text[place:]


CARD = {
    "name": "faces",
    "source": "here",
    "licence": "CC0",
    "label_origin": "drawn",
    "notes": "",
    "templates": ["a photo of a {}", "{} here"],
    "classes": {"smiling": {"no": "face", "yes": "smile"}, "age": {"1": "young", "2": "old"}},
    "groups": {"g": {"words": {"a": ["round", "oval"], "b": ["square"]}, "phrase": "{word} face"}},
}
#: What may stand at a place of a card.
RIGHT = {
    ("name",): ["a", "é", "a = 1", '"', "a\nb", "{}"],
    ("notes",): ["", "a\tb", "'", "\\"],
    ("templates",): [["{}"], ["an icon of {}", "é {}"]],
    ("classes", "smiling", "no"): ["owl", "{x}", "é", "0", "'"],
    ("classes", "smiling"): [{"1.0": "a", "0": "b"}, {"true": "a", "x y": "b"}, {"only": "one"}],
    ("classes", "new"): [{"a": "b"}],
    ("groups", "g", "words"): [{"a": ["é"]}, {"1": ["x"], "2.0": ["y", "z"]}],
    ("groups", "g", "with_label"): ["{label} {word}", "{word}, a {label}"],
    ("groups", "h"): [{"words": {"a": ["b"]}}],
}
PLACES = [
    *[(key,) for key in CARD],
    *[("classes", "smiling"), ("classes", "smiling", "no"), ("classes", "age", "1"), ("classes", "new")],
    *[("groups", "g"), ("groups", "g", "words"), ("groups", "g", "words", "a"), ("groups", "g", "phrase")],
    *[("groups", "g", "with_label"), ("groups", "g", "odd"), ("groups", "h"), ("unknown",)],
]
WELL = st.sampled_from([(place, value) for place, values in RIGHT.items() for value in values])
ILL = st.tuples(st.sampled_from(PLACES), st.sampled_from(WRONG))


def changed(raw, place, value):
    """A copy of nested dicts with one value set, where there are dicts on the way."""
    key, *rest = place
    if not isinstance(raw, dict):
        return raw
    return raw | {key: changed(raw.get(key, {}), rest, value) if rest else value}


def _a(texts):
    """With one article: "an" before a vowel is held by another test."""
    return [re.sub(r"\ban\b", "a", text) for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=800, **FIXED)
@given(well=st.lists(WELL, max_size=2), ill=st.one_of(st.none(), ILL), damage=often([""], DAMAGE), at=AT)
def test_cards_are_read_as_written_or_refused(folder, well, ill, damage, at):
    raw = CARD
    for place, value in ([ill] if ill else []) + well:
        raw = changed(raw, place, value)
    text, path = spoiled(tomli_w.dumps(raw), damage, at), folder / "t.card.toml"
    path.write_text(text, encoding="utf-8")
    try:
        card = Card.read(path)
    except InputError as error:
        assert ill or damage, str(error)
        told(error)
        return
    raw = tomllib.loads(text.removeprefix("\ufeff"))
    assert [card.name, card.notes, card.templates] == [raw["name"], raw.get("notes", ""), raw["templates"]]
    assert card.classes.keys() == raw.get("classes", {}).keys()
    for label, values in raw.get("classes", {}).items():
        assert list(card.classes[label].values()) == list(values.values())
        for template in raw["templates"]:
            wanted = [template.replace("{}", phrase) for phrase in values.values()]
            assert _a(card.class_texts(label, template)) == _a(wanted)
    for name, group in raw.get("groups", {}).items():
        wanted = [len(words) * len(raw["templates"]) for words in group["words"].values()]
        assert [len(texts) for texts in card.group_texts(name).values()] == wanted
    assert Card.from_toml(card.to_toml()) == card


OPTIONS = [*Config().to_dict(), "lamda_cf", "", "groups.a", "__init__", "cls", "self"]
WELL_SET = [("rounds", 3), ("lr", 1), ("lr", 0.01), ("groups", ["a", " b "]), ("groups", "a, b"), ("seed", 7)]
WELL_SET += [("seed", 2**63 - 1), ("recentre", False), ("data", "é.csv"), ("clients", "12"), ("rounds", 1)]


@settings(max_examples=700, **FIXED)
@given(
    well=st.lists(st.sampled_from(WELL_SET), max_size=4),
    ill=st.one_of(st.none(), st.tuples(st.sampled_from(OPTIONS), st.sampled_from(WRONG))),
    damage=often([""], DAMAGE),
    at=AT,
)
def test_config_files_are_read_as_written_or_refused(folder, well, ill, damage, at):
    text = spoiled(tomli_w.dumps(dict([*well, *([ill] if ill else [])])), damage, at)
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    try:
        cfg = Config.read(path)
    except InputError as error:
        assert ill or damage, str(error)
        told(error)
        return
    for key, value in tomllib.loads(text.removeprefix("\ufeff")).items():
        found = getattr(cfg, key)
        if key == "groups":
            parts = value.split(",") if isinstance(value, str) else value
            assert list(found) == [part.strip() for part in parts if part.strip()]
        else:
            assert type(found) is type(getattr(Config(), key))
            assert found == value or str(found) == value or found == float(value)


WORDS = [*map(str, WRONG), "1e-3", "0x1", "1_0", "+1", " 2 ", "١", "a,,b", "=", "--", "3", "0.5", "false"]


@settings(max_examples=500, **FIXED)
@given(key=st.sampled_from(OPTIONS), word=st.sampled_from(WORDS))
def test_settings_on_the_command_line_are_read_or_refused(key, word):
    try:
        found = getattr(Config.read(None, [f"{key}={word}"]), key)
    except InputError as error:
        told(error)
        return
    if isinstance(found, tuple):
        assert list(found) == [part.strip() for part in word.split(",") if part.strip()]
    elif isinstance(found, str):
        assert found == word.strip()
    else:
        assert found == (word.strip() == "true" if isinstance(found, bool) else float(word))


NAMES = ("path", "smiling", "shape", "split")
CHOICES = ("no", "yes"), ("round", "square"), ("train", "test")
GOOD_ROWS = [(f"{i}.png", *(pair[i >> k & 1] for k, pair in enumerate(CHOICES))) for i in range(8)]
UNREADABLE = ("broken.png", "absent.png", "0.PNG", "empty.png")
CELLS = [  # of each column
    [
        *(*UNREADABLE, "./1.png", "2.png", "deep.png", "", "../0.png", "/etc/passwd", "a\0b", "x" * 5000),
        *(".", "sub", "http://x/0.png", "t.csv", " 0.png", "\\0.png", "~"),
    ],
    ["no", "yes", "", "Yes", "maybe", "nan", "1"],
    ["round", "square", "", "Round", " round", "hexagonal", "[1]"],
    ["train", "test", "val", "valid", "", "Train", "dev"],
]
EDITS = st.integers(0, 3).flatmap(
    lambda k: st.tuples(st.integers(0, 7), st.just(k), st.sampled_from(CELLS[k]))
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures, some of which are none, and the card of `t.csv`."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "sub").mkdir()
    for i in range(8):
        Image.new("RGB", (4, 4), (30 * i, 0, 0)).save(place / f"{i}.png")
    Image.new("I;16", (4, 4), 30_000).save(place / "deep.png")
    (place / "broken.png").write_bytes((place / "0.png").read_bytes()[:40])
    (place / "empty.png").write_bytes(b"")
    words = {"smiling": {"no": "a", "yes": "b"}}
    group = {"shape": {"words": {"round": ["r"], "square": ["s"]}}}
    (place / "t.card.toml").write_text(tomli_w.dumps(CARD | {"classes": words, "groups": group}))
    return place


@settings(max_examples=300, **FIXED)
@given(
    edits=st.lists(EDITS, max_size=3),
    separator=st.sampled_from(",;\t"),
    keep=st.integers(2, 4),
    skip=st.booleans(),
)
def test_tables_of_pictures_are_read_right_or_refused(pictures, edits, separator, keep, skip):
    rows = [list(row) for row in GOOD_ROWS]
    for i, k, cell in edits:
        rows[i][k] = cell
    lines = [separator.join(row[:keep]) for row in (NAMES, *rows)]
    (pictures / "t.csv").write_text("\n".join(lines) + "\n")
    wanted = {"label": "smiling", "groups": ["shape"] if keep > 2 else []}
    try:
        looked = look(pictures / "t.csv", **wanted)
        assert all(str(problem) for problem in looked.problems)
        data = read_table(pictures / "t.csv", skip_bad=skip, **wanted)
    except InputError as error:
        assert edits, str(error)
        told(error)
        return
    left_out = {problem.row for problem in data.skipped}
    kept = [row for i, row in enumerate(rows, 2) if i not in left_out]
    assert skip or not left_out
    assert len(data) == len(kept) == len(data.images) and not {row[0] for row in kept} & set(UNREADABLE)
    assert Counter(data.frame["smiling"]) == Counter(row[1] for row in kept)
    if keep > 2:
        assert Counter(data.frame["shape"]) == Counter(row[2].strip() for row in kept)
    for row, picture in zip(kept, data.images, strict=True):
        number, red = row[0].strip("./png"), picture.getpixel((0, 0))[0]
        assert picture.mode == "RGB" and (red == 30 * int(number) if number.isdecimal() else red in (0, 116))
