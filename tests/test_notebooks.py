"""The lessons: their anatomy; and each runs on a fresh kernel, offline, to the numbers of tests/golden."""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from fvlfp.course.student import student_copy, without_solution
from fvlfp.course.tour import NOTEBOOKS, lessons, run_lesson

GOLDEN = Path(__file__).parent / "golden"
LESSONS = lessons()

# Kernels are processes of their own: conftest's guard does not reach them, this file on their PYTHONPATH
# does. It also writes down who tried, so that an attempt which some library swallows is still seen.
GUARD = """
import os, socket

def guarded(method):
    def wrapped(self, address):
        local = address[0] in ("127.0.0.1", "::1", "localhost") if isinstance(address, tuple) else True
        if not local:
            with open(os.environ["FVLFP_TEST_NETWORK_LOG"], "a") as log:
                log.write(f"{address}\\n")
            raise OSError(f"a lesson tried to reach {address}")
        return method(self, address)
    return wrapped

class Socket(socket.socket):
    connect = guarded(socket.socket.connect)
    connect_ex = guarded(socket.socket.connect_ex)

socket.socket = Socket
"""


@pytest.fixture
def kernel(monkeypatch, tmp_path) -> Path:
    """What a lesson's kernel inherits; returns the file that would name attempts to reach the network."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "network.log"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "guard"), prepend=os.pathsep)
    monkeypatch.setenv("FVLFP_TEST_NETWORK_LOG", str(log))
    return log


def by_name(path: Path) -> str:
    return path.stem


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_the_lessons_are_numbered_from_00_to_16():
    assert [path.stem[:2] for path in LESSONS] == [f"{i:02d}" for i in range(17)]
    assert {path.stem for path in GOLDEN.glob("*.json")} == {path.stem for path in LESSONS}


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_is_committed_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "papermill" not in notebook.metadata
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in cells(path, "code"):
        assert cell.outputs == [], f"{cell.id} has outputs"
        assert cell.execution_count is None, f"{cell.id} has an execution count"


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_has_short_cells(path):
    code = cells(path, "code")
    lines = [len(cell.source.splitlines()) for cell in code]
    assert 25 <= len(code) + len(cells(path, "markdown")) <= 45
    assert statistics.median(lines) <= 6
    assert max(lines) <= 15, code[lines.index(max(lines))].source


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_has_its_parts(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    text = "\n".join(cell.source for cell in prose)
    title = prose[0].source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?"), "the title is a question"
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    names = re.findall(r"^(\w+) = ", parameters.source, flags=re.M)
    assert names == ["profile", "seed", "out", "device"]
    assert f'"../runs/{path.stem}"' in parameters.source
    assert "record(" in code[-1].source
    assert "You will" in text
    assert "redict first" in text and "<details>" in text
    assert "Break it" in text
    assert "What this does not show" in text
    assert "Sources" in text
    assert "Next:" in text and "[Contents and glossary](contents.ipynb)" in text
    exercises = [cell.source for cell in code if "### BEGIN SOLUTION" in cell.source]
    assert exercises
    for source in exercises:
        stub = without_solution(source)
        told = r"^ *exercise\('\w.{9,}'\)$|^def .*:\n    \"\"\"\w.{9,}\"\"\"\n(?s:.*)    \.\.\.$"
        assert re.search(told, stub, re.M), "the stub says what to do"
        assert "### " not in stub and re.search(r"check\((?s:.*)(hint=|steps\.)", stub), "a check with a hint"
    assert any("check(" in cell.source and cell.source not in exercises for cell in code), "by hand = library"


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_has_graded_steps_a_recap_and_a_quiz(path):
    """CONTRIBUTING.md: Writing a graded step."""
    every = nbformat.read(path, as_version=4).cells
    graded = [i for i, cell in enumerate(every) if "### BEGIN SOLUTION" in cell.source]
    assert 4 <= len(graded) <= 6
    for number, i in enumerate(graded, start=1):
        told = every[i - 1]
        assert told.cell_type == "markdown" and f"### Step {number}: " in told.source, told.source
        assert "<details><summary>Hint</summary>\n\n" in told.source, f"step {number} has no hint"
        assert every[i].source.count("### BEGIN SOLUTION") == 1
        assert "expected =" not in every[i].source, "the answer stands below the stub"
    (end,) = [cell.source for cell in every if "## Recap" in cell.source]
    assert len(re.findall(r"^\d\. .+\?$", end.split("## Quiz")[1], re.M)) == 3, "three quiz questions"
    assert end.count("\n\n<details><summary>Answer</summary>\n\n") == 3, (
        "or the answer is shown beside its fold"
    )
    assert not re.search(r"</summary>\n\n\d+\. ", end), "a number and a full stop would begin a list"


def test_contents_list_every_lesson_and_glossary_every_term_once():
    (_, contents, _, glossary) = (
        cell.source for cell in nbformat.read(NOTEBOOKS / "contents.ipynb", 4).cells
    )
    for path in LESSONS:
        title = nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")
        assert f"| [{path.stem[:2]}]({path.name}) | {title} | " in contents
    terms = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| (.+) \|$", glossary, re.M)
    names = [name.lower() for name, _ in terms]
    assert len(names) >= 60 and names == sorted(set(names))
    for name, where in terms:
        for target in re.findall(r"\(([^)]+)\)", where):
            said = NOTEBOOKS.joinpath(target).read_text(encoding="utf-8").lower().replace("_", " ")
            assert any(word.strip().lower() in said for word in name.split(",")), f"{name} is not in {target}"


def test_the_table_of_symbols_has_each_letter_once_and_its_lesson_uses_it():
    contents = nbformat.read(NOTEBOOKS / "contents.ipynb", 4).cells[2].source
    rows = re.findall(r"^\| (\$.+\$) \| .+ \| \[\d\d\]\((.+)\) \|$", contents, re.M)
    letters = [(letter, where) for symbols, where in rows for letter in re.findall(r"\$(.+?)\$", symbols)]
    assert len(letters) == len({letter for letter, _ in letters}) >= 30
    for letter, where in letters:
        prose = "\n".join(cell.source for cell in cells(NOTEBOOKS / where, "markdown"))
        math, alone = " ".join(re.findall(r"\$+[^$]+\$+", prose)), re.escape(letter.split("_")[0])
        assert re.search(rf"(?<![A-Za-z\\]){alone}(?![A-Za-z])", math), f"{letter} is not in {where}"


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_keeps_to_our_words_and_links(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert not re.search(r"\bde-?bias|\bunbiased model|\bsolv(e|es|ed) (the )?bias", text, flags=re.I)
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)\)", text):
        assert (NOTEBOOKS / target).is_file(), f"{target} is linked and not there"


def test_lessons_draw_and_encode_their_twins_once_and_keep_the_features():
    by_hand = [path.stem for path in LESSONS if ".encode_images(" in path.read_text(encoding="utf-8")]
    assert by_hand == ["12_use_what_you_trained"]  # which checks a file by its own means


def test_the_guard_refuses_the_network_and_writes_it_down(kernel):
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    run = subprocess.run([sys.executable, "-c", reach], capture_output=True, text=True)
    assert "a lesson tried to reach" in run.stderr
    assert "192.0.2.1" in kernel.read_text()


def for_a_class(path: Path, folder: Path) -> Path:
    """The student's copy of a lesson, whose stubs may stop, and behind its last cell the solved exercises.

    One run of it shows that the stubs stop with their message, that all other cells go on without an answer
    (to the golden numbers), and that the solutions pass their checks.
    """
    notebook, solved = student_copy(path), []
    for cell, original in zip(notebook.cells, nbformat.read(path, as_version=4).cells, strict=True):
        if cell.source != original.source:
            assert "raises-exception" in cell.metadata["tags"], "Run All goes on"
            solved.append(nbformat.v4.new_code_cell(original.source))
    notebook.cells += solved
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_keeps_the_files_of_each_profile_and_seed_apart(path):
    """A lesson run again with another seed must not meet what the first run saved."""
    code = "\n".join(
        cell.source for cell in cells(path, "code") if "parameters" not in cell.metadata.get("tags", ())
    )
    places = re.findall(r"Path\(out\)(.{0,40})|f\"\{out\}(.{0,40})|out=(out\b.{0,20})", code)
    for place in map("".join, places):
        assert re.match(r'(\.resolve\(\))?( / f")?/?\{profile\}-seed\{seed\}"', place), place


@pytest.mark.parametrize("failures", [2, 3])
def test_a_kernel_that_dies_before_its_first_answer_is_started_again(tmp_path, monkeypatch, failures):
    """Another program may take its port; no cell has run then."""
    started = []

    def run(notebook, part, **options):
        started.append(options["parameters"])
        if len(started) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        Path(part).write_text("{}")

    monkeypatch.setattr("papermill.execute_notebook", run)
    if failures == 3:
        with pytest.raises(RuntimeError, match="died before replying"):
            run_lesson(LESSONS[0], tmp_path)
    else:
        assert run_lesson(LESSONS[0], tmp_path).read_text() == "{}"
    assert len(started) == 3


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in LESSONS if by_name(p)[:2] in ("07", "10", "11")], ids=by_name)
def test_lesson_runs_again_with_another_seed_in_the_same_folder(path, kernel, tmp_path):
    for seed in (0, 1):
        executed = run_lesson(path, tmp_path, profile="smoke", seed=seed, device="cpu")
    assert json.loads((executed.parent / "record.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_runs_offline_to_its_golden_numbers(path, kernel, tmp_path):
    copy = for_a_class(path, tmp_path)
    with pytest.raises(PapermillExecutionError) as stopped:
        run_lesson(copy, tmp_path / "runs", profile="smoke", seed=0, device="cpu")
    assert stopped.value.ename == "NotYet", stopped.value
    executed = tmp_path / "runs" / path.stem / path.name
    outputs = [output for cell in cells(executed, "code") for output in cell.outputs]
    errors = [output for output in outputs if output.output_type == "error"]
    assert len(errors) == path.read_text(encoding="utf-8").count("### BEGIN SOLUTION")
    for error in errors:
        assert error.ename == "NotYet"
        assert error.traceback[0].startswith("✎ Your turn: "), error.traceback
        assert len(error.traceback) == 1, "the message alone, no traceback"
    warned = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not warned, "a lesson's cells keep quiet on stderr"
    assert not kernel.exists(), f"the lesson tried to reach {kernel.read_text()}"
    assert_golden(executed.parent, GOLDEN / f"{path.stem}.json")


def assert_golden(folder: Path, rules: Path) -> None:
    """What a lesson recorded in its folder keeps to every golden rule."""
    found = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    golden = json.loads(rules.read_text(encoding="utf-8"))
    assert set(found) == set(golden)
    wrong = {key: (found[key], rule) for key, rule in golden.items() if not holds(found[key], rule)}
    assert not wrong, f"recorded, and the golden rule: {wrong}"


#: `make lessons-seeds` and, at night, `make lessons-nightly`
RUNS = [*(("smoke", seed) for seed in range(4)), *(("lesson", seed) for seed in range(5))]


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "seed"), RUNS, ids=[f"{profile}-seed{seed}" for profile, seed in RUNS])
@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_lesson_holds_at_other_seeds_and_sizes(path, profile, seed, kernel, tmp_path):
    """Every check passes and nothing stops; golden rules where there are some for this profile."""
    executed = run_lesson(path, tmp_path, profile=profile, seed=seed, device="cpu")
    rules = GOLDEN / profile / f"{path.stem}.json"
    if seed == 0 and rules.is_file():
        assert_golden(executed.parent, rules)


def holds(value: Any, rule: dict[str, Any]) -> bool:
    """One golden rule: `equals`; `near` with `atol`; `above`; `below`."""
    match rule:
        case {"equals": wanted, **rest} if not rest:
            return type(value) is type(wanted) and value == wanted
        case {"near": wanted, "atol": atol, **rest} if not rest:
            return abs(value - wanted) <= atol
        case {"above": limit, **rest} if not rest:
            return value > limit
        case {"below": limit, **rest} if not rest:
            return value < limit
    raise ValueError(f"no golden rule: {rule}")


@pytest.mark.parametrize(
    ("value", "rule", "answer"),
    [
        (4, {"equals": 4}, True),
        (4.0, {"equals": 4}, False),
        (0.51, {"near": 0.5, "atol": 0.02}, True),
        (0.53, {"near": 0.5, "atol": 0.02}, False),
        (0.1, {"above": 0.0}, True),
        (0.0, {"above": 0.0}, False),
        (-0.1, {"below": 0.0}, True),
        (float("nan"), {"below": 0.0}, False),
    ],
)
def test_golden_rules(value, rule, answer):
    assert holds(value, rule) is answer
