"""The README speaks of things that are there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fvlfp.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_are_make_targets():
    assert BLOCKS[0].split("\n")[:2] == ["make tour", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert "\ntour:" in makefile
    assert "\ntest:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_links_and_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
    for name in re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE):
        assert (ROOT / name).exists(), name


def test_every_lesson_is_listed_with_its_question():
    import json

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title = "".join(json.loads(path.read_text())["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
        assert f"](notebooks/{path.name}) | {title} |" in README, path.name


@pytest.mark.parametrize("line", [x for b in BLOCKS for x in b.splitlines() if x.startswith("fvlfp ")])
def test_every_command_is_understood(line):
    """The words of each command are known: with `--help` at the end they are parsed, not run."""
    words = shlex.split(line)[1:]
    options = {w for w in words if w.startswith("--")}
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0, shown.output
    for option in options:
        assert option in shown.output, option


def test_numbers_come_from_result_pages():
    """A gap or an accuracy in the README also stands in a page that a script wrote."""
    pages = "".join(p.read_text() for p in (ROOT / "benchmarks" / "results").glob("*.md"))
    for number in re.findall(r"(?<![\d.])0?\.\d{2,3}(?!\d)", README):
        assert number in pages, number
