"""The grid: a TOML file becomes cells, each a lesson or a training run with its parameters and a name.

    lesson = "06"                  # number or name of a lesson, path of a notebook, or a list of these
    [parameters]                   # the same in every cell
    profile = "smoke"
    [grid]                         # every combination is one cell
    seed = [0, 1, 2, 3]

With `train = true` instead of `lesson`, a cell is what `fvlfp train` does, and parameters are config keys. A
notebook takes the parameters that its cell tagged `parameters` sets; `out` is chosen by the sweep.
What this module does not do: it runs nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import fvlfp
from fvlfp.config import Config
from fvlfp.course.tour import lessons
from fvlfp.data.table import card_path
from fvlfp.errors import InputError, did_you_mean
from fvlfp.files import file_sha256
from fvlfp.toml import read_toml

#: of a lesson or of a training run, name -> number, truth value or text
Parameters = dict[str, Any]


#: A grid with more cells is refused: all of them are made before the first runs.
MOST_CELLS = 100_000


class CellResult(TypedDict, total=False):
    """The content of ``cell.json``; empty for a cell that was not run."""

    lesson: str
    parameters: Parameters
    status: str  # "done" or "failed"
    seconds: float
    recorded: dict[str, Any]
    error: str


@dataclass(frozen=True)
class Cell:
    """One lesson, or one training run, with one choice of parameters (without `out`).

    notebook: None for a training run. key: twelve hex digits that change with the notebook, or the table and
    its card, the parameters and fvlfp's own code: no older result is taken for a result of this one.
    """

    notebook: Path | None
    parameters: Parameters
    key: str

    @property
    def what(self) -> str:
        """The lesson's name, or `train`."""
        return self.notebook.stem if self.notebook else "train"

    @property
    def name(self) -> str:
        """The cell's folder inside `OUT/cells`."""
        return f"{self.what}-{self.key}"

    @property
    def shown(self) -> str:
        """What there is to look at when the cell is done, in its folder."""
        return self.notebook.name if self.notebook else "run/audit/comparison/report.html"


def read_grid(path: Path, lesson_folder: Path | None = None) -> list[Cell]:
    """The cells of a grid file, lessons first, then the grid's keys in their order.

    Raises:
        InputError: missing or malformed file, unknown key, lesson or parameter, an empty or repeated value.
    """
    raw = read_toml(path, "grid file")
    for key in raw:
        if key not in ("lesson", "train", "parameters", "grid"):
            raise InputError(
                f"{path}: unknown key {key!r}; it takes lesson or train, [parameters] and [grid]"
            )
    notebooks = _what(raw, path, lesson_folder)
    fixed, axes = _table(raw, "parameters", path), _table(raw, "grid", path)
    _check_values(fixed, axes, path)
    code, cells = _code_digest(), []
    configs: list[Config] = []
    tables: dict[tuple[str, str], str] = {}
    for notebook in notebooks:
        if notebook:
            _check_known([*fixed, *axes], notebook, path)
        content = file_sha256(notebook) if notebook else "train"
        for values in itertools.product(*axes.values()):
            parameters = fixed | dict(zip(axes, values, strict=True))
            if notebook is None:
                configs.append(_config(parameters, path))
                used = configs[-1].data, configs[-1].prompts
                tables[used] = content = tables.get(used) or _tables_of(*used, path)
            made_of = _as_json([content, code, sorted(parameters.items())])
            cells.append(Cell(notebook, parameters, hashlib.sha256(made_of.encode()).hexdigest()[:12]))
    _refuse_unused(configs, path)
    return cells


def _what(raw: Mapping[str, Any], path: Path, lesson_folder: Path | None) -> list[Path | None]:
    """The notebooks to run; [None] stands for training runs."""
    if "train" in raw:
        if raw["train"] is not True or "lesson" in raw:
            raise InputError(f"{path}: write either train = true or a lesson")
        return [None]
    named = raw.get("lesson")
    wanted = [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)]
    if not wanted or (isinstance(named, list) and len(wanted) < len(named)):
        raise InputError(f'{path}: say which lesson, for instance lesson = "06"; or train = true')
    notebooks: list[Path | None] = [_notebook(one, path, lesson_folder) for one in wanted]
    if len(set(notebooks)) < len(notebooks):
        raise InputError(f"{path}: a lesson is named twice")
    return notebooks


def _check_values(fixed: Mapping[str, Any], axes: Mapping[str, Any], path: Path) -> None:
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: [grid] {key} needs a list of values, for instance {key} = [0, 1]")
        if key in fixed:
            raise InputError(f"{path}: {key} is both in [parameters] and in [grid]")
    for key, value in [*fixed.items(), *((key, v) for key, values in axes.items() for v in values)]:
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"{path}: {key} = {value!r} is no number, truth value or text")
    for key, values in axes.items():
        if len({_as_json(value) for value in values}) < len(values):
            raise InputError(f"{path}: [grid] {key} names a value twice")
    if (n := math.prod(map(len, axes.values()))) > MOST_CELLS:
        raise InputError(f"{path}: {n:,} cells are more than {MOST_CELLS:,}")


def _config(parameters: Parameters, grid: Path) -> Config:
    if "out" in parameters:
        raise InputError(f"{grid}: the sweep chooses `out` itself, one folder a cell")
    try:
        return Config.make(**parameters)
    except InputError as error:
        raise InputError(f"{grid}: {error}") from None


def _tables_of(named: str, prompts: str, grid: Path) -> str:
    """Changes with the table and the data card of a training run; of pictures their names and sizes count."""
    if named == "toyfaces":
        return "train"
    data, card = Path(named), Path(prompts or card_path(Path(named)))
    if not data.exists():
        raise InputError(f"{grid}: no table at {data}")
    try:
        if data.is_dir():
            files = sorted(file for file in data.rglob("*") if file.is_file())
            table = _as_json([(file.relative_to(data).as_posix(), file.stat().st_size) for file in files])
        else:
            table = file_sha256(data)
        return table + (file_sha256(card) if card.is_file() else "")
    except OSError as error:
        raise InputError(f"{grid}: {data} cannot be read: {error.strerror}") from None


def _refuse_unused(configs: list[Config], grid: Path) -> None:
    """Refuse a key that is changed in some cells and used in none of them."""
    told: dict[str, list[str]] = {}
    for config in configs:
        for key, why in config.unused().items():
            told.setdefault(key, []).append(why)
    for whys in told.values():
        if all(whys):
            raise InputError(f"{grid}: {whys[0]}, in every cell")


def _notebook(name: str, grid: Path, folder: Path | None) -> Path:
    if name.endswith(".ipynb"):
        path = (grid.parent / name).resolve()
        if not path.is_file():
            raise InputError(f"{grid}: no notebook at {path}")
        return path
    known = lessons(folder)
    for path in known:
        if name in (path.stem, path.stem[:2]):
            return path.resolve()
    numbers = ", ".join(path.stem[:2] for path in known)
    hint = did_you_mean(name, [path.stem for path in known]) or f"; they are {numbers}"
    raise InputError(f"{grid}: no lesson {name!r}{hint}")


def _check_known(names: list[str], notebook: Path, grid: Path) -> None:
    import papermill

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an older notebook format
        try:
            known = [name for name in papermill.inspect_notebook(str(notebook)) if name != "out"]
        except Exception as error:  # no JSON, no notebook: papermill raises what its parsers raise
            raise InputError(f"{notebook} cannot be read as a notebook: {error}") from None
    for name in names:
        if name == "out":
            raise InputError(f"{grid}: the sweep chooses `out` itself, one folder a cell")
        if name not in known:
            hint = did_you_mean(name, known) or f"; it takes {', '.join(known) or 'none'}"
            raise InputError(f"{grid}: {notebook.stem} has no parameter {name!r}{hint}")


def _table(raw: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise InputError(f"{path}: [{key}] must be a table")
    return value


def _code_digest() -> str:
    """Changes with any module of fvlfp, as the lessons' results may."""
    root = Path(fvlfp.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
