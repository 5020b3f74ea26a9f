"""The commands for finished runs: predict, export, audit run. `fvlfp.cli` puts them under their names.

What this module does not do: it computes nothing, see `fvlfp.runs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fvlfp.console import TABLE, Out
from fvlfp.errors import InputError
from fvlfp.exits import says_what_is_wrong
from fvlfp.output_folder import check_not_input

Run = Annotated[Path, typer.Argument(help="Folder of fvlfp train, or the server folder of a deployment.")]
Weights = Annotated[str | None, typer.Option(help="Where the frozen model's weights lie now.")]
OwnConfig = Annotated[Path | None, typer.Option(help="Where the frozen model's config JSON lies now.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: the run's.")]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="VALUE=PHRASE", help="Other class words; repeat for each."),
]


def _load_run(folder: Path, classes: list[str] | None, **where: Any) -> Any:
    """A finished run, with other class words if there are any."""
    from fvlfp.runs.loaded_run import load_run

    pairs = [word.partition("=") for word in classes or ()]
    if bad := [key for key, equals, phrase in pairs if not equals or not phrase.strip()]:
        raise InputError(f"--class {bad[0]!r}: write VALUE=PHRASE, such as yes='smiling face'")
    if len(values := [key for key, _, _ in pairs]) > len(set(values)):
        twice = next(key for key in values if values.count(key) > 1)
        raise InputError(f"--class names {twice!r} twice")
    run = load_run(folder, **where)
    return run.with_classes({key: phrase for key, _, phrase in pairs}) if pairs else run


@says_what_is_wrong
def predict(
    run: Run,
    pictures: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a table.")],
    out: Annotated[Path, typer.Option(help="The CSV or Parquet file to write.")] = Path("predictions.csv"),
    classes: Classes = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave unreadable images out, count and name them.")] = False,
    pretrained: Weights = None,
    model_config: OwnConfig = None,
    device: Device = None,
) -> None:
    """Predict pictures, with labels or without, by the prompts that a run trained.

    Example: fvlfp predict runs/smile photos --out predictions.csv
    """
    from fvlfp.runs.predict_pictures import predict_pictures

    found = _load_run(run, classes, pretrained=pretrained, model_config=model_config, device=device)
    written = predict_pictures(
        found, run, pictures, out, skip_bad=skip_bad, say=lambda line: typer.echo(line, err=True)
    )
    typer.echo(f"written: {written}")


@says_what_is_wrong
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="open_clip (a matrix for its embeddings) or onnx.")],
    out: Out = Path("runs/export"),
    classes: Classes = None,
    pretrained: Weights = None,
    model_config: OwnConfig = None,
) -> None:
    """Write a run's classifier for programs without fvlfp, with an example and a model card.

    Example: fvlfp export runs/smile --to open_clip --out runs/export
    """
    from fvlfp.runs.export import EXPORTS

    if to not in EXPORTS:
        raise InputError(f"--to {to!r} is not one of {', '.join(EXPORTS)}")
    found = _load_run(run, classes, pretrained=pretrained, model_config=model_config, device="cpu")
    typer.echo(f"written: {EXPORTS[to](found, run, out)}")


@says_what_is_wrong
def audit_run(
    run: Run,
    table: Annotated[Path, typer.Argument(help=TABLE)],
    label: Annotated[str | None, typer.Option(help="Label column; default: the run's.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group column; default: the run's.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Data card of the table, for the report; the words are the run's.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave unreadable images out, count and name them.")] = False,
    pretrained: Weights = None,
    model_config: OwnConfig = None,
    device: Device = None,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Out = Path("runs/audit"),
) -> None:
    """Audit a run's prompts on another table, beside the frozen model zero-shot, row by row.

    Example: fvlfp audit run runs/smile other.csv --out runs/other
    """
    check_not_input(out, table)
    from fvlfp.data.table import read_table
    from fvlfp.runs.audit_run import audit_run as judge

    found = _load_run(run, None, pretrained=pretrained, model_config=model_config, device=device)
    cfg = found.trained.cfg
    label, group = label or cfg.label, group or list(cfg.groups)
    dataset = read_table(table, label=label, groups=group, prompts=prompts, skip_bad=skip_bad)
    for line in dataset.skipped:
        typer.echo(f"left out: {line}", err=True)
    report = judge(
        found, dataset, out, label=label, groups=group, table=table, draws=draws, seed=seed, say=typer.echo
    )
    typer.echo(f"report: {report}")
