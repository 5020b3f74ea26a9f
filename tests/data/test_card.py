"""The data card: words of labels and groups, and every way to get it wrong."""

import pytest

from fvlfp.data.card import Attribute, Card, fill_template
from fvlfp.data.toyfaces import CARD
from fvlfp.errors import InputError

GOOD = """
name = "n"
source = "s"
licence = "l"
label_origin = "o"
templates = ["a photo of a {}", "{}"]
[classes.mood]
no = "serious face"
yes = "open face"
[groups.hair]
phrase = "{word} hair"
with_label = "{word}, {label}"
words = { dark = ["dark", "black"], fair = ["fair"] }
"""


def test_sentences_by_hand():
    card = Card.from_toml(GOOD)
    assert card.class_texts("mood") == ["a photo of a serious face", "a photo of an open face"]
    assert card.class_texts("mood", template="{}") == ["serious face", "open face"]
    assert card.class_values("mood") == ["no", "yes"]
    assert card.group_texts("hair") == {
        "dark": ["a photo of a dark hair", "a photo of a black hair", "dark hair", "black hair"],
        "fair": ["a photo of a fair hair", "fair hair"],
    }
    assert card.pair_text("mood", "hair") == {
        ("no", "dark"): ["dark, serious face", "black, serious face"],
        ("no", "fair"): ["fair, serious face"],
        ("yes", "dark"): ["dark, open face", "black, open face"],
        ("yes", "fair"): ["fair, open face"],
    }


def test_an_before_a_vowel():
    assert fill_template("a {}", "amber face") == "an amber face"
    assert fill_template("this is a {}", "amber face") == "this is an amber face"
    assert fill_template("a photo of {}", "amber faces") == "a photo of amber faces"


@pytest.mark.parametrize("card", [CARD, Card.from_toml(GOOD)])
def test_toml_round_trip(card):
    assert Card.from_toml(card.to_toml()) == card


def test_round_trip_of_names_that_look_like_markup_or_code():
    odd = 'a.b "<b>\\é😀\n\t\x7f] = 1'
    card = Card(odd, odd, odd, odd, [f"{odd} {{}}"], {odd: {odd: odd}}, {odd: Attribute({odd: [odd]})}, odd)
    assert Card.from_toml(card.to_toml()) == card


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "n"', "", "needs name"),
        ("open face", "Serious  face", "'no' and 'yes' have the same phrase"),
        ('name = "n"', "name = 3", "needs name"),
        ('name = "n"', 'nome = "n"', "'nome'"),
        ('name = "n"', 'name = "n', "not valid TOML"),
        ('["a photo of a {}", "{}"]', "[]", "templates"),
        ('["a photo of a {}", "{}"]', '["a photo"]', "templates"),
        ('["a photo of a {}", "{}"]', '["a {x}"]', "templates"),
        ('["a photo of a {}", "{}"]', '["a {"]', "templates"),
        ('["a photo of a {}", "{}"]', '["a {} {}"]', "templates"),
        ('"{word} hair"', '"{word:q} hair"', "groups.hair.phrase"),
        ('"{word} hair"', '"{word!r} hair"', "groups.hair.phrase"),
        ('no = "serious face"', "no = 1", "classes.mood.no"),
        ('no = "serious face"', 'no = " "', "classes.mood.no"),
        ("[classes.mood]", "[classes]", "[classes]"),
        ('"{word} hair"', '"hair"', "groups.hair.phrase"),
        ('"{word}, {label}"', '"{word}"', "groups.hair.with_label"),
        ('["fair"]', "[]", "groups.hair.words.fair"),
        ("words =", "word =", "'word'"),
        ('words = { dark = ["dark", "black"], fair = ["fair"] }', "", "[groups.hair] needs words"),
    ],
)
def test_a_bad_card_is_told_in_one_message(old, new, told, tmp_path):
    assert old in GOOD
    file = tmp_path / "x.card.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as e:
        Card.read(file)
    assert told in str(e.value) and str(file) in str(e.value) and "\n" not in str(e.value)


def test_missing_file_bytes_and_unknown_names(tmp_path):
    with pytest.raises(InputError, match="no data card at"):
        Card.read(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        Card.read(tmp_path / "b.toml")
    with pytest.raises(InputError, match="label 'age'; it has: 'smiling', 'glasses', 'hat'"):
        CARD.class_texts("age")
    with pytest.raises(InputError, match="attribute 'age'; it has: 'shape', 'tint'"):
        CARD.group_texts("age")
