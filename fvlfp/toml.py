"""TOML files that people write: data cards, configs, grids. Whatever is wrong with one is an InputError.

What this module does not do: it knows no key.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from fvlfp.errors import InputError


def parse_toml(text: str) -> dict[str, Any]:
    """The content of a TOML text. Raises InputError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError("not valid TOML: lists or tables are nested too deeply") from None
    except ValueError as error:  # also a whole number of thousands of digits
        raise InputError(f"not valid TOML: {error}") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file in UTF-8, with or without a byte order mark.

    what: what the file is, for the message when it is not there.

    Raises:
        InputError: no such file, not readable, not UTF-8, or not valid TOML; the file is named.
    """
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None
    except FileNotFoundError:
        raise InputError(f"no such {what}: {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
