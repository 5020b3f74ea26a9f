"""README and the other documents speak of things that are there, and of commands that run."""

import json
import pkgutil
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import typer
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.data import toyfaces

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)
DOCUMENTS = (
    *("README.md", "TEACHING.md", "CONTRIBUTING.md", "METHOD.md", "ETHICS.md", "SECURITY.md"),
    *("data_prep/README.md", "deploy/README.md"),
)


def commands(document: str) -> list[str]:
    """The lines of a document's code blocks that a shell would run; a remark behind wide space is cut off."""
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = [x for block in re.findall(r"^ *```\n(.*?)```", text, re.S | re.M) for x in block.splitlines()]
    program = re.compile(r"([A-Z_]+=\S+ )?(fvlfp|make|conda|jupyter|python|\.venv/bin/\S+) ")
    return [re.split(r" {2,}", line.strip())[0] for line in lines if program.match(line.strip() + " ")]


ALL = [(document, line) for document in DOCUMENTS for line in commands(document)]


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


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/using_a_run.md"])
def test_a_document_names_what_is_there(document):
    """Its links; and between backticks files, modules, make targets and commands."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in link or (ROOT / document).parent.joinpath(link).exists(), link
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = "fvlfp|benchmarks|deploy|docs|data_prep|notebooks|tests"
    for code in set(re.findall(r"`([^`\n]+)`", text)):
        if re.fullmatch(rf"({parts})/[a-z0-9_./]+", code):
            assert (ROOT / code).exists(), code
        elif re.fullmatch(rf"({parts})(\.[a-z_0-9]+)+", code):
            pkgutil.resolve_name(code)
        elif found := re.match(r"python -m ([a-z_]+\.[a-z_]+)", code):
            assert (ROOT / found[1].replace(".", "/")).with_suffix(".py").is_file(), code
        elif found := re.match(r"make ([a-z-]+)", code):
            assert f"\n{found[1]}:" in makefile, code
        elif found := re.match(r"fvlfp ([a-z]+)", code):
            assert found[1] in typer.main.get_command(app).commands, code


def test_every_lesson_is_listed_with_its_question():
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        title = "".join(json.loads(path.read_text())["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
        assert f"](notebooks/{path.name}) | {title} |" in README, path.name


@pytest.mark.parametrize("line", sorted({line for _, line in ALL if line.startswith("fvlfp ")}))
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
    pages = "".join(p.read_text() for p in (ROOT / "benchmarks").rglob("*.md"))
    for number in re.findall(r"(?<![\d.])0?\.\d{2,3}(?!\d)", README):
        assert number in pages, number


@pytest.fixture
def somebody(tmp_path, monkeypatch, tiny_files) -> dict[str, str]:
    """A folder as README's reader has it; which words are replaced to make it small."""
    monkeypatch.chdir(tmp_path)
    faces = toyfaces.make(90, seed=3)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(faces.images):
        image.save(tmp_path / "images" / f"{i}.png")
    drawn = faces.frame
    columns = {
        "y": drawn["smiling"],
        "age": drawn["smiling"],
        "gender": drawn["shape"],
        "race": drawn["tint"],
    }
    paths = [f"images/{i}.png" for i in range(90)]
    table = pd.DataFrame({"path": paths, **columns, "before": drawn["hat"], "after": drawn["glasses"]})
    table.to_csv(tmp_path / "my.csv", index=False)
    says = faces.card.groups
    card = replace(
        faces.card,
        classes={"age": faces.card.classes["smiling"]},
        groups={"gender": says["shape"], "race": says["tint"]},
    )
    (tmp_path / "my.card.toml").write_text(card.to_toml(), encoding="utf-8")
    (tmp_path / "lessons").mkdir()
    names = "profile = ''\nseed = 0\nout = ''\ndevice = ''"
    settings = new_code_cell(names, metadata={"tags": ["parameters"]})
    exercise = new_code_cell("### BEGIN SOLUTION: one: a number\none = 1\n### END SOLUTION")
    lesson = new_notebook(cells=[settings, exercise])
    lesson.metadata["language_info"] = {"name": "python"}
    lesson.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(lesson, tmp_path / "lessons" / "00_start_here.ipynb")
    monkeypatch.setattr("fvlfp.course.tour.NOTEBOOKS", tmp_path / "lessons")
    grid = re.search(r"^```toml\n(.*?)^```", README, re.S | re.M)
    (tmp_path / "grid.toml").write_text(grid[1], encoding="utf-8")
    config, weights = tiny_files
    return {
        "ViT-B-16": f"tiny-test-clip --model-config {config}",
        "weights.safetensors": str(weights),
        "label=smiling": "profile=smoke --set rounds=1 --set n=300 --set clients=2",
    }


def test_readme_commands_run_in_order(somebody):
    for line in (x for x in commands("README.md") if x.startswith("fvlfp ")):
        words = [part for word in shlex.split(line)[1:] for part in somebody.get(word, word).split(" ")]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (line, done.output)


@pytest.mark.parametrize(("document", "line"), [x for x in ALL if not x[1].startswith("fvlfp ")])
def test_other_commands_name_what_is_there(document, line):
    """make knows the target; tests, scripts, benchmarks, the environment and the lessons exist."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "make":
        dry = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    elif rest[:2] == ["-m", "pytest"]:
        file, _, chosen = rest[2:]
        lesson = list((ROOT / "notebooks").glob(f"{chosen}.ipynb"))
        assert lesson or chosen in (ROOT / file).read_text(encoding="utf-8")
    elif rest[:1] == ["-m"]:
        assert (ROOT / rest[1].replace(".", "/")).with_suffix(".py").is_file()
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
    elif program == "conda":
        assert rest in (["env", "create", "-f", "environment.yml"], ["activate", "fvlfp"])
        assert "name: fvlfp\n" in (ROOT / "environment.yml").read_text()
    else:
        assert program == "jupyter" and rest in (["lab", "lab"], ["lab", "notebooks"])


#: the words of a lesson's first lines -> the seconds that they may stand for
SAID = {
    "Less than half a minute": (0, 30),
    "About half a minute": (15, 45),
    "About a minute": (35, 100),
}


def test_teaching_states_the_measured_times():
    """Its table, and the first lines of the lessons, say what `benchmarks.lessons` measured."""
    results = json.loads((ROOT / "benchmarks" / "results" / "lessons.json").read_text())["profiles"]
    page = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    for lesson, measured in results["lesson"].items():
        smoke, seconds = results["smoke"][lesson]["cpu_s"], measured["cpu_s"]
        assert f"| [{lesson[:2]}](notebooks/{lesson}.ipynb) | {smoke:.0f} | {seconds:.0f} | " in page, lesson
        start = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4).cells[0].source
        (low, high), *_ = [limits for words, limits in SAID.items() if f"{words} on one CPU core" in start]
        assert low <= seconds < high, (lesson, seconds)
