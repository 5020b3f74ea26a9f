"""The `fvlfp` command. Exit 0: good; 2: bad usage or bad input, one message, nothing written; 1: failure.

What this module does not do: it computes nothing. Each command reads its words and calls one function; what
is slow to import is imported inside, so that `fvlfp --help` answers at once.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from fvlfp import __version__
from fvlfp.cli_course import grade, student, sweep, tour
from fvlfp.cli_encode import encode
from fvlfp.cli_runs import audit_run, export, predict
from fvlfp.console import (
    TABLE,
    Bins,
    Group,
    Images,
    Out,
    Weight,
    command_line,
    not_empty,
    tell,
    tell_read,
)
from fvlfp.errors import InputError
from fvlfp.exits import says_what_is_wrong
from fvlfp.output_folder import check_not_input

app = typer.Typer(
    rich_markup_mode="markdown",  # in which [grid] is plain text
    help="Fair federated prompt tuning of CLIP: learn it, train it, audit it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
audit_app = typer.Typer(help="Assess predictions, or a CLIP, by perceived group.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
app.command()(encode)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fair federated prompt tuning of CLIP: learn it, train it, audit it."""


@app.command()
@says_what_is_wrong
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML file of config keys.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One config key; repeatable.")
    ] = None,
    out: Out = Path("runs/train"),
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in OUT.")] = False,
    skip_bad: Annotated[bool, typer.Option(help="Leave unreadable images out, count and name them.")] = False,
    images: Images = None,
) -> None:
    """Federated training, then the paired audit against the baseline.

    Clients are believed: by default one that lies can ruin the model. Where you do not know them, add --set
    robust=trimmed-mean --set liars=1 --set max_examples=N. Client weights (FPF) and dp_noise then do not act.

    Example: fvlfp train --set method=fvlfp --set label=smiling --set groups=shape,tint --out runs/smile
    """
    from fvlfp.config import Config
    from fvlfp.runs.experiment import run_and_audit

    report = run_and_audit(
        Config.read(config, settings or ()),
        out,
        resume=resume,
        skip_bad=skip_bad,
        images=images,
        say=typer.echo,
    )
    typer.echo(f"report: {report}")


@app.command()
@says_what_is_wrong
def check(
    table: Annotated[Path, typer.Argument(help=TABLE)],
    label: Annotated[str | None, typer.Option(help="Label column; default: those of the data card.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Perceived-group column; repeatable.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Data card; default: NAME.card.toml.")] = None,
    images: Images = None,
) -> None:
    """Check a table of images: every problem in one pass, with its row.

    Example: fvlfp check faces.csv --label smiling --group gender
    """
    from fvlfp.data.table import look

    not_empty(label=label, group=group)
    looked = look(table, label=label, groups=group or (), prompts=prompts, images=images)
    for line in (*looked.describe(), *map(str, looked.problems)):
        typer.echo(line)
    if looked.problems:
        raise InputError(f"{table}: {len(looked.problems)} problem{'s' * (len(looked.problems) > 1)}")
    typer.echo(f"{table}: good")


@audit_app.command("predictions")
@says_what_is_wrong
def audit_predictions(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet, one row an example.")],
    group: Group,
    label: Annotated[
        str | None, typer.Option(help="Column of true classes; without it, selection rates only.")
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="Column of predicted classes.")] = None,
    score: Annotated[str | None, typer.Option(help="Column of scores of the positive class.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Predict positive from this score on, instead of --prediction.")
    ] = None,
    weight: Weight = None,
    key: Annotated[
        str | None, typer.Option(help="Column that names a row; compare then pairs audits by it.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The class that 'selected' means.")] = None,
    bin_: Bins = None,
    cross: Annotated[bool, typer.Option(help="Also cross all groups.")] = False,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Out = Path("runs/audit"),
) -> None:
    """Audit anybody's predictions.

    Example: fvlfp audit predictions mine.csv --label y --prediction yhat --group gender --out audit
    """
    check_not_input(out, table)
    from fvlfp.audit.audit_options import AuditOptions
    from fvlfp.audit.stats.bins import parse_bins
    from fvlfp.runs.tables import audit_table

    not_empty(label=label, prediction=prediction, score=score, weight=weight, key=key, group=group)
    not_empty(positive=positive)
    options = AuditOptions(
        label=label,
        prediction=prediction,
        groups=group,
        score=score,
        threshold=threshold,
        weight=weight,
        key=key,
        positive=positive,
        bins=parse_bins(bin_ or ()),
        cross=cross,
        draws=draws,
        seed=seed,
    )
    result = audit_table(table, out, options)
    tell_read(result.document["provenance"]["table"])
    tell(result.remarks)
    typer.echo(f"report: {out / 'report.html'}")


@audit_app.command("clip")
@says_what_is_wrong
def audit_clip(
    table: Annotated[Path, typer.Argument(help=TABLE)],
    label: Annotated[str, typer.Option(help="Label column.")],
    group: Group,
    model: Annotated[
        str, typer.Option(help="open_clip name, local-dir:FOLDER or hf-hub:NAME; toyclip is built in.")
    ] = "toyclip",
    pretrained: Annotated[str, typer.Option(help="A tag open_clip knows, or a weights file.")] = "",
    model_config: Annotated[Path | None, typer.Option(help="open_clip config JSON.")] = None,
    mean: Annotated[str | None, typer.Option(help="Image mean: R,G,B; default: what is stated.")] = None,
    std: Annotated[str | None, typer.Option(help="Image standard deviation: R,G,B.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bicubic or bilinear.")] = None,
    resize: Annotated[str | None, typer.Option(help="shortest, longest or squash.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Data card; default: NAME.card.toml.")] = None,
    images: Images = None,
    cross: Annotated[bool, typer.Option(help="Also cross all groups.")] = False,
    k: Annotated[int | None, typer.Option(help="MaxSkew@k: how many come first; default: n/10.")] = None,
    target: Annotated[str, typer.Option(help="Shares to rank by: population or uniform.")] = "population",
    harmful: Annotated[
        bool, typer.Option("--harmful-words", help="Offer the CLIP paper's harmful word lists. They hurt.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option(help="Leave unreadable images out, count and name them.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the image tower: auto, float32 or bf16.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes opening images; 0: threads.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images in one pass of the tower.")] = None,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Out = Path("runs/audit"),
) -> None:
    """Audit a CLIP, zero-shot.

    Example: fvlfp audit clip faces.csv --label age --group gender --model ViT-B-16-quickgelu
    --pretrained openai
    """
    check_not_input(out, table)
    from fvlfp.clip.encoder import Encoder
    from fvlfp.data.table import read_table
    from fvlfp.runs.zero_shot import audit_clip as run

    not_empty(label=label, group=group)
    dataset = read_table(table, label=label, groups=group, prompts=prompts, images=images, skip_bad=skip_bad)
    tell_read(dataset.read, left_out=dataset.skipped)
    steps = {"mean": mean, "std": std, "interpolation": interpolation, "resize": resize}
    how: dict[str, Any] = {"device": device, "precision": precision, "workers": workers, "batch": batch}
    encoder = Encoder.load(
        model, pretrained=pretrained, model_config=model_config or "", preprocess=steps, **how
    )
    tell([f"{what} stated by {origin}" for what, origin in encoder.unstated().items()])
    options: dict[str, Any] = {"label": label, "cross": cross, "k": k, "target": target}
    options |= {"draws": draws, "seed": seed}
    files: dict[str, Any] = {"model": model, "pretrained": pretrained or None, **steps}
    files["model_config"] = model_config
    files |= {} if precision == "auto" else {"precision": precision}
    files |= {"prompts": prompts, "images": images, "harmful_words": harmful, "skip_bad": skip_bad}
    again = command_line("audit", "clip", table, **{**options, "group": group, **files})
    report = run(encoder, dataset, out, groups=group, harmful=harmful, command=again, **options)
    typer.echo(f"report: {report}")


@app.command()
@says_what_is_wrong
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of an audit, or a table of predictions.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same rows.")],
    label: Annotated[str | None, typer.Option(help="Column of true classes; default: the audit's.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Perceived-group column; repeatable.")] = None,
    prediction: Annotated[str | None, typer.Option(help="Column of predicted classes.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Column that names a row; default: the audits', or the order.")
    ] = None,
    weight: Weight = None,
    bin_: Bins = None,
    positive: Annotated[str | None, typer.Option(help="The class that 'selected' means.")] = None,
    cross: Annotated[bool, typer.Option(help="Also cross all groups.")] = False,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Out = Path("runs/compare"),
) -> None:
    """The paired change between two models on the same rows.

    Example: fvlfp compare runs/before runs/after --out runs/compare
    """
    check_not_input(out, before, after)
    from fvlfp.audit.stats.bins import parse_bins
    from fvlfp.runs.tables import compare_tables

    not_empty(label=label, group=group, prediction=prediction, key=key, positive=positive, weight=weight)
    options: dict[str, Any] = {"label": label, "groups": group, "prediction": prediction or "prediction"}
    options |= {"key": key, "positive": positive, "cross": cross, "draws": draws, "seed": seed}
    options |= {"weight": weight, "bins": parse_bins(bin_ or ())}
    again = functools.partial(command_line, "compare", before, after)
    result = compare_tables(before, after, out, again=again, **options)
    tell_read(*result.document["provenance"]["tables"].values())
    tell(result.remarks)
    typer.echo(f"report: {out / 'report.html'}")


for command in (tour, encode, predict, export, sweep, student, grade):
    app.command()(command)
audit_app.command("run")(audit_run)
