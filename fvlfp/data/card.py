"""The data card: where a data set comes from, and how its labels and perceived groups are said in words.

A card is a TOML file. That of the table `my.csv` lies beside it as `my.card.toml`:

    name = "my faces"
    source = "https://..."
    licence = "CC BY 4.0"
    label_origin = "perceived, given by annotators"
    templates = ["a photo of a {}"]
    [classes.smiling]
    no = "serious face"
    yes = "smiling face"
    [groups.gender]
    phrase = "{word}"
    with_label = "{word}, a {label}"
    words = { Female = ["woman", "girl"], Male = ["man", "boy"] }
"""

import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fvlfp.errors import InputError
from fvlfp.toml import parse_toml
from fvlfp.values import value_name

T = TypeVar("T")
_TEXT_KEYS = ("name", "source", "licence", "label_origin")


@dataclass(frozen=True)
class Attribute:
    """A perceived-group attribute and how to say it.

    words: group -> its words (at least one). phrase: a group named alone, with the field `{word}`.
    with_label: a group and a class named together, with the fields `{word}` and `{label}`.
    """

    words: dict[str, list[str]]
    phrase: str = "{word}"
    with_label: str = "{word} {label}"


@dataclass(frozen=True)
class Card:
    """Provenance and words of one data set. `classes`: label column -> value -> phrase."""

    name: str
    source: str
    licence: str
    label_origin: str
    templates: list[str]
    classes: dict[str, dict[str, str]]
    groups: dict[str, Attribute]
    notes: str = ""

    def class_texts(self, label: str, template: str | None = None) -> list[str]:
        """One sentence a value of `label`, in the card's order; default template: the first."""
        template = self.templates[0] if template is None else template
        return [fill_template(template, phrase) for phrase in self._label(label).values()]

    def class_values(self, label: str) -> list[str]:
        """The values of `label` in the order of `class_texts`."""
        return list(self._label(label))

    def group_texts(self, attribute: str) -> dict[str, list[str]]:
        """Group -> its sentences, all templates times all words."""
        a = self._attribute(attribute)
        return {
            group: [fill_template(t, a.phrase.format(word=w)) for t in self.templates for w in words]
            for group, words in a.words.items()
        }

    def pair_text(self, label: str, attribute: str) -> dict[tuple[str, str], list[str]]:
        """(value, group) -> phrases naming both, one a word of the group, without a template."""
        a = self._attribute(attribute)
        return {
            (value, group): [a.with_label.format(word=w, label=phrase) for w in words]
            for value, phrase in self._label(label).items()
            for group, words in a.words.items()
        }

    def to_toml(self) -> str:
        """The card as TOML text; `Card.from_toml` gives an equal card back."""
        lines = [f"{k} = {_quote(getattr(self, k))}" for k in _TEXT_KEYS]
        lines += [f"notes = {_quote(self.notes)}"] if self.notes else []
        lines += [f"templates = {_quote(self.templates)}"]
        for label, phrases in self.classes.items():
            lines += ["", f"[classes.{_quote(label)}]"]
            lines += [f"{_quote(value)} = {_quote(phrase)}" for value, phrase in phrases.items()]
        for name, a in self.groups.items():
            lines += ["", f"[groups.{_quote(name)}]"]
            lines += [f"phrase = {_quote(a.phrase)}", f"with_label = {_quote(a.with_label)}"]
            lines += ["", f"[groups.{_quote(name)}.words]"]
            lines += [f"{_quote(group)} = {_quote(words)}" for group, words in a.words.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """Read a card file. Raises InputError naming the file and what is wrong in it."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no data card at {path}: write one there or name one with --prompts")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as e:
            raise InputError(f"{path}: not UTF-8 text ({e.reason})") from None
        except InputError as e:
            raise InputError(f"{path}: {e}") from None

    @classmethod
    def from_toml(cls, text: str) -> "Card":
        """Parse TOML text. Raises InputError for bad TOML, missing keys, wrong types or fields."""
        raw = parse_toml(text)
        unknown = sorted(set(raw) - {*_TEXT_KEYS, "notes", "templates", "classes", "groups"})
        if unknown:
            raise InputError(f"unknown key {unknown[0]!r} in the data card")
        for key in (*_TEXT_KEYS, "notes"):
            if not isinstance(raw.get(key, "" if key == "notes" else None), str):
                raise InputError(f'the data card needs {key} = "..."')
        templates = _words(raw.get("templates"), "templates")
        for template in templates:
            _check_fields(template, {""}, "templates")
        classes = {
            label: told_apart(_by_value(d, f"classes.{label}", _text), f"classes.{label}")
            for label, d in _table(raw.get("classes", {}), "classes").items()
        }
        groups = {name: _attribute(d, name) for name, d in _table(raw.get("groups", {}), "groups").items()}
        return cls(
            **{k: raw[k] for k in _TEXT_KEYS},
            templates=templates,
            classes=classes,
            groups=groups,
            notes=raw.get("notes", ""),
        )

    def _label(self, label: str) -> dict[str, str]:
        if label not in self.classes:
            raise InputError(
                f"the data card has no words for label {label!r}; it has: {_names(self.classes)}"
            )
        return self.classes[label]

    def _attribute(self, name: str) -> Attribute:
        if name not in self.groups:
            raise InputError(
                f"the data card has no words for attribute {name!r}; it has: {_names(self.groups)}"
            )
        return self.groups[name]


def fill_template(template: str, phrase: str) -> str:
    """Put a phrase into a template's `{}`; "a {}" becomes "an ..." before a vowel letter.

    >>> fill_template("a drawing of a {}", "amber face")
    'a drawing of an amber face'
    """
    if phrase[:1].lower() in set("aeiou"):
        template = re.sub(r"\ba {}", "an {}", template)
    return template.format(phrase)


def _attribute(raw: Mapping[str, Any], name: str) -> Attribute:
    unknown = sorted(set(raw) - {"words", "phrase", "with_label"})
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r} under [groups.{name}]")
    words = raw.get("words")
    if not isinstance(words, dict) or not words:
        raise InputError(f"[groups.{name}] needs words = {{ group = [...], ... }}")
    words = _by_value(words, f"groups.{name}.words", _words)
    phrase = _text(raw.get("phrase", "{word}"), f"groups.{name}.phrase")
    with_label = _text(raw.get("with_label", "{word} {label}"), f"groups.{name}.with_label")
    _check_fields(phrase, {"word"}, f"groups.{name}.phrase")
    _check_fields(with_label, {"word", "label"}, f"groups.{name}.with_label")
    return Attribute(words=words, phrase=phrase, with_label=with_label)


def _by_value(written: Mapping[str, Any], where: str, read: Callable[[Any, str], T]) -> dict[str, T]:
    """Keys as values of a table are read: `true` is "True", `1.0` is "1"; no two may be one value."""
    out: dict[str, T] = {}
    for key, content in written.items():
        value = value_name(key)
        if value is None or value in out:
            why = "names no value" if value is None else f"is written twice, as {value!r}"
            raise InputError(f"{where}: {key!r} {why}")
        out[value] = read(content, f"{where}.{key}")
    return out


def told_apart(phrases: dict[str, str], where: str) -> dict[str, str]:
    """The phrases themselves, if no two values have the same one: the model could not tell them apart."""
    first: dict[str, str] = {}
    for value, phrase in phrases.items():
        other = first.setdefault(" ".join(phrase.casefold().split()), value)
        if other != value:
            raise InputError(f"{where}: {other!r} and {value!r} have the same phrase, {phrase!r}")
    return phrases


def _check_fields(text: str, wanted: set[str], where: str) -> None:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as e:
        raise InputError(f"{where}: {text!r} is no template ({e})") from None
    found = [field for _, field, _, _ in parts if field is not None]
    plain = not any(spec or conversion for _, _, spec, conversion in parts)
    if set(found) != wanted or not plain or found.count("") > 1:
        fields = " and ".join("{" + f + "}" for f in sorted(wanted, reverse=True))
        raise InputError(f"{where}: {text!r} must have {fields} and no other field")


def _table(value: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(v, dict) and v for v in value.values()):
        raise InputError(f"[{where}]: each entry must be a table with at least one line")
    return value


def _words(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: needs a list with at least one text")
    return [_text(v, where) for v in value]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: must be a text that is not empty")
    return value


def _names(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


def _quote(value: str | list[str]) -> str:
    # a JSON string or list of strings is also valid TOML (basic strings), escapes included
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
