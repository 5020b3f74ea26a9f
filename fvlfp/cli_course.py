"""The commands of the course: tour, sweep, student, grade. `fvlfp.cli` puts them under their names.

What this module does not do: it computes nothing, see `fvlfp.course`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvlfp.console import Out
from fvlfp.errors import InputError
from fvlfp.exits import says_what_is_wrong


@says_what_is_wrong
def tour(
    profile: Annotated[str, typer.Option(help="smoke, lesson or full")] = "lesson",
    out: Out = Path("runs/tour"),
    seed: Annotated[int, typer.Option(help="Root seed of every lesson.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
) -> None:
    """Run every lesson in order; one line each; the last line is the report's path.

    Example: fvlfp tour --profile smoke --out runs/tour
    """
    from fvlfp.config import Config
    from fvlfp.course.tour import tour as run

    Config.make(profile, seed=seed, device=device)  # refuse a bad word before the first lesson
    report = run(out, profile=profile, seed=seed, device=device, say=typer.echo)
    typer.echo(f"report: {report}")


@says_what_is_wrong
def sweep(
    grid: Annotated[Path, typer.Argument(help="TOML: lesson or train = true, [parameters], [grid].")],
    out: Out = Path("runs/sweep"),
    workers: Annotated[int, typer.Option(min=1, help="Cells that run at the same time.")] = 1,
    limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which a cell is stopped and has failed.")
    ] = None,
    slurm: Annotated[
        Path | None, typer.Option(help="Run nothing; write a Slurm array job of WORKERS tasks to this file.")
    ] = None,
) -> None:
    """Run a lesson, or `fvlfp train`, for every combination of parameters; called again, it goes on.

    Example: fvlfp sweep grid.toml --out runs/sweep --workers 2, with grid.toml: lesson = "06",
    a line [grid] and below it seed = [0, 1, 2]. Several sweeps in one folder share the cells.
    """
    from fvlfp.course.sweep.grid import read_grid
    from fvlfp.course.sweep.runner import sweep as run
    from fvlfp.course.sweep.slurm import array_job

    cells = read_grid(grid)
    if slurm:
        if slurm.exists():  # somebody may have added what the cluster asks for
            raise InputError(f"--slurm {slurm} exists already: name a new file, or remove that one")
        slurm.write_text(array_job(grid, out, tasks=min(workers, len(cells)), limit=limit), encoding="utf-8")
        typer.echo(f"{len(cells)} cells; start them with: sbatch {slurm}")
        return
    page, failed = run(cells, out, workers=workers, limit=limit)
    typer.echo(f"index: {page}")
    if failed:
        typer.echo(f"fvlfp: {failed} cell{'s' * (failed > 1)} failed; the index shows why", err=True)
        raise typer.Exit(1)


@says_what_is_wrong
def student(
    out: Out = Path("student"),
    solutions: Annotated[
        bool, typer.Option(help="Also write the solutions, folded, into OUT/solutions.")
    ] = False,
) -> None:
    """Write copies of the lessons without solutions. A notebook that is there and was changed is kept.

    Example: fvlfp student --out student
    """
    from fvlfp.course.student import write_student_copies

    made = write_student_copies(out, solved=solutions, say=lambda line: typer.echo(line, err=True))
    typer.echo(f"{len(made)} lessons without solutions in {out}")


@says_what_is_wrong
def grade(
    folder: Annotated[Path, typer.Argument(help="Holds the class's notebooks, in any depth.")],
    out: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("grades.csv"),
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run each notebook again. This executes the students' code.")
    ] = False,
    limit: Annotated[
        float | None, typer.Option(min=1, help="With --rerun: seconds for one notebook; default: 600.")
    ] = None,
) -> None:
    """Collect which exercises a class has passed, and show one line for each student.

    Reads saved outputs and runs nothing, unless --rerun asks for a fresh kernel: do that where nothing can be
    lost, because it executes what students wrote. The notebooks as run are kept in NAME_rerun beside the CSV.

    Example: fvlfp grade my_class --out grades.csv
    """
    from fvlfp.course.grade import by_student, check_grades_file, grades, write_grades
    from fvlfp.course.rerun import WARNING

    def say(line: str) -> None:
        typer.echo(line, err=True)

    if limit is not None and not rerun:
        raise InputError("--limit would not be used: it needs --rerun")
    check_grades_file(out)
    copies = out.with_name(f"{out.stem}_rerun")
    if rerun:
        say(WARNING)
    table = grades(folder, limit=(limit or 600) if rerun else None, copies_to=copies, say=say)
    write_grades(table, out)
    typer.echo(by_student(table).to_string())
    passed = (table["result"] == "passed").sum()
    typer.echo(
        f"{passed} of {len(table)} exercises passed; students: {table['student'].nunique()}; written: {out}"
    )
