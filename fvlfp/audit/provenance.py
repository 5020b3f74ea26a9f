"""What is known about model and data, made fit for a document that travels to other machines."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fvlfp import __version__
from fvlfp.audit.schema import Facts


def with_versions(provenance: Facts | None) -> Facts:
    """The given provenance and the versions of what computed the numbers."""
    known = {"fvlfp": __version__, "python": platform.python_version()}
    known |= {name: version(name) for name in ("numpy", "pandas", "scipy")}
    given = _without_folders(dict(provenance or {}))
    return {**given, "versions": known | dict(given.get("versions") or {})}


def _without_folders(value: Any) -> Any:
    """Names instead of paths of this machine: an absolute path that is there becomes its last part."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str | Path) and _is_here(value):
        return Path(value).name
    return value


def _is_here(value: str | Path) -> bool:
    try:
        return Path(value).is_absolute() and Path(value).exists() and bool(Path(value).name)
    except (OSError, ValueError):  # too long, or a null byte: no path
        return False
