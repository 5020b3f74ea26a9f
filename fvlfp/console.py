"""What commands read from their words and say on the terminal, beside their results.

What this module does not do: it ends no command (`exits` does) and computes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fvlfp.errors import InputError
from fvlfp.files import as_utf8
from fvlfp.output_folder import check_folder

TABLE = "CSV or Parquet file of images, or a folder that save_to_disk of Hugging Face datasets wrote."


def _folder(path: Path) -> Path:
    """A local folder, or exit 2 before anything is computed."""
    try:
        return check_folder(path)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


Out = Annotated[Path, typer.Option(callback=_folder, help="Folder for the results; made if it is not there.")]
Images = Annotated[Path | None, typer.Option(help="Folder that paths start from; default: the table's.")]
Group = Annotated[list[str], typer.Option(help="Perceived-group column; repeat for several.")]
Weight = Annotated[str | None, typer.Option(help="Column of sample weights.")]
Bins = Annotated[
    list[str] | None,
    typer.Option("--bin", metavar="COLUMN:CUTS", help="Cut a group of numbers: age:20,40,60; repeatable."),
]


def command_line(*words: str | Path, **options: Any) -> str:
    """The command that gives the same numbers; of a path outside this folder only the name is told."""
    parts = ["fvlfp", *map(_without_folder, words)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            parts.append(flag)
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                parts += [flag, _without_folder(one)]
    return shlex.join([*parts, "--out", "DIR"])


def _without_folder(word: Any) -> str:
    """`/home/me/faces.csv` as `faces.csv`, `local-dir:/home/me/clip` as `local-dir:clip`."""
    schema, colon, path = str(word).rpartition(":")
    told = schema + colon + (Path(path).name if path.startswith("/") else path)
    return as_utf8(told)


def tell(remarks: list[str]) -> None:
    """Remarks of an audit, beside the output: they do not change the exit code."""
    for remark in remarks:
        typer.echo(f"remark: {remark}", err=True)


def tell_read(*facts: Mapping[str, Any], left_out: Sequence[object] = ()) -> None:
    """What was read from each table, what was merged or read as missing, and the rows left out."""
    for problem in left_out:
        typer.echo(f"left out: {problem}", err=True)
    for told in facts:
        typer.echo(f"read: {told['file']}, {told['read']}")
        if "pictures" in told:
            typer.echo(f"pictures: {told['pictures']}")
        for line in told.get("merged", ()):
            typer.echo(f"note: {line}")


def not_empty(**options: str | list[str] | None) -> None:
    """Refuse an option that was given without a text: it would be left out in silence."""
    for name, value in options.items():
        if any(not one.strip() for one in (value if isinstance(value, list) else [value]) if one is not None):
            raise InputError(f"--{name} is empty: name a column or a value, or leave the option out")
