"""Grading: what saved outputs say about each exercise."""

import json
import sys

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.course.grade import by_student, grades, write_grades
from fvlfp.course.rerun import rerun
from fvlfp.course.student import student_copy, write_student_copies
from fvlfp.course.tour import lessons
from fvlfp.errors import InputError

EXERCISE = (
    "a = 1\n### BEGIN SOLUTION: b: one more\nb = 2\n### END SOLUTION\ncheck('b', b, a + 1, hint='a + 1')"
)
TICK = new_output("stream", name="stdout", text="✓ b\n")


def no(message, name="NotYet"):
    return new_output("error", ename=name, evalue=message, traceback=[message])


@pytest.fixture
def course(tmp_path):
    """A folder with one lesson, and a function that hands in a copy of it with a source and outputs."""
    (tmp_path / "lessons").mkdir()
    lesson = tmp_path / "lessons" / "00_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(EXERCISE, id="ex")]), lesson)

    def hand_in(name, source=None, outputs=()):
        notebook = student_copy(lesson)
        if source is not None:
            notebook.cells[0].source = source
        notebook.cells[0].outputs = list(outputs)
        path = tmp_path / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)

    return tmp_path, hand_in


SOLVED = "a = 1\nb = a + 1\ncheck('b', b, a + 1, hint='a + 1')"


@pytest.mark.parametrize(
    ("source", "outputs", "result"),
    [
        (SOLVED, [TICK], "passed"),
        (SOLVED, [], "not run"),
        (SOLVED, [no("✗ b\n  yours: 3")], "wrong"),
        (SOLVED, [no("name 'x' is not defined", "NameError")], "failed"),
        (None, [no("✎ Your turn: b: one more")], "open"),
        (None, [], "not run"),
        ("print('✓ b')", [TICK], "check changed"),
    ],
)
def test_results(course, source, outputs, result):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", source, outputs)
    (row,) = grades(folder / "class", folder / "lessons").to_dict("records")
    assert row == {"student": "ann", "lesson": "00_a", "exercise": 1, "result": result}


def test_names_of_students_and_what_is_passed_over(course):
    folder, hand_in = course
    hand_in("group 1/ann/00_a.ipynb", SOLVED, [TICK])
    hand_in("bob_00_a.ipynb", SOLVED, [TICK])
    hand_in("ann/.ipynb_checkpoints/00_a.ipynb", SOLVED, [TICK])
    (folder / "class" / "cem").mkdir()
    (folder / "class" / "cem" / "00_a.ipynb").write_text("no notebook")
    table = grades(folder / "class", folder / "lessons").set_index("student")["result"]
    assert table.to_dict() == {"bob": "passed", "cem": "unreadable", "group 1/ann": "passed"}


def test_a_cell_that_is_gone(course):
    folder, _ = course
    (folder / "class").mkdir()
    nbformat.write(new_notebook(), folder / "class" / "00_a.ipynb")
    (row,) = grades(folder / "class", folder / "lessons").to_dict("records")
    assert (row["student"], row["result"]) == ("class", "missing")


def test_nothing_to_grade(tmp_path):
    with pytest.raises(InputError, match="no notebook named like a lesson"):
        grades(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        grades(tmp_path / "absent")


def test_the_command_on_untouched_student_copies(tmp_path):
    write_student_copies(tmp_path / "class" / "ann")
    assert (tmp_path / "class" / "ann" / "contents.ipynb").is_file()
    run = CliRunner().invoke(app, ["grade", str(tmp_path / "class"), "--out", str(tmp_path / "g.csv")])
    assert run.exit_code == 0, run.output
    table = pd.read_csv(tmp_path / "g.csv")
    assert list(table["lesson"].unique()) == [path.stem for path in lessons()]
    assert set(table["result"]) == {"not run"}
    assert f"0 of {len(table)} exercises passed; students: 1; " in run.output


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("ann/00_a (1).ipynb", "ann"),
        ("ann/00_a-Copy1.ipynb", "ann"),
        ("ann/Copy of 00_a.ipynb", "ann"),
        ("Kopie von ann_00_a.ipynb", "ann"),
        ("00_a_ann.ipynb", "ann"),
        ("00_a - ann (2).ipynb", "ann"),
        ("ann-00_a-Copy1 (3).ipynb", "ann"),
        ("g1/ann/my 00_a copy.ipynb", "g1/ann/my"),
        ("00_a (1).ipynb", "class"),
    ],
)
def test_copies_under_other_names_are_graded(course, name, student):
    folder, hand_in = course
    hand_in(name, SOLVED, [TICK])
    (row,) = grades(folder / "class", folder / "lessons").to_dict("records")
    assert (row["student"], row["result"]) == (student, "passed")


def test_of_two_copies_the_better_result_counts_and_is_told(course):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", None, [no("✎ Your turn: b: one more")])
    hand_in("ann/00_a (1).ipynb", SOLVED, [TICK])
    said: list[str] = []
    (row,) = grades(folder / "class", folder / "lessons", say=said.append).to_dict("records")
    assert row["result"] == "passed"
    assert said == ["ann: 2 copies of 00_a; the best result of each exercise counts"]


@pytest.mark.parametrize("keep", ["metadata", "nothing"])
def test_ids_that_a_program_moved_or_lost(course, keep):
    """Colab writes format 4.0 with ids in the cells' metadata; others write new ids or none."""
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", SOLVED, [TICK])
    path = folder / "class" / "ann" / "00_a.ipynb"
    raw = json.loads(path.read_text())
    raw["nbformat_minor"] = 0
    raw["cells"].insert(0, {"cell_type": "code", "source": "", "outputs": [], "metadata": {"id": "other"}})
    for cell in raw["cells"]:
        if (name := cell.pop("id", None)) and keep == "metadata":
            cell["metadata"]["id"] = name
    path.write_text(json.dumps(raw))
    (row,) = grades(folder / "class", folder / "lessons").to_dict("records")
    assert row["result"] == "passed"


@pytest.mark.parametrize(
    "body",
    [
        "no notebook",
        "[]",
        '{"nbformat": 4}',
        '{"cells": [1], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        '{"cells": [{"cell_type": "code", "id": "ex"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        '{"cells": null, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        "\udcff",
    ],
)
def test_one_malformed_notebook_stops_nobody(course, body):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", SOLVED, [TICK])
    hand_in("bob/00_a.ipynb")
    (folder / "class" / "bob" / "00_a.ipynb").write_bytes(body.encode(errors="surrogateescape"))
    table = grades(folder / "class", folder / "lessons").set_index("student")["result"]
    assert table.to_dict() == {"ann": "passed", "bob": "unreadable"}


def test_the_table_is_safe_in_a_spreadsheet_and_its_folder_is_made(course):
    folder, hand_in = course
    hand_in('=HYPERLINK("x")/00_a.ipynb', SOLVED, [TICK])
    hand_in("@ann/00_a.ipynb", SOLVED, [TICK])
    table = grades(folder / "class", folder / "lessons")
    write_grades(table, folder / "new" / "deep" / "g.csv")
    text = (folder / "new" / "deep" / "g.csv").read_text()
    assert "'=HYPERLINK" in text and "'@ann" in text and "\n=" not in text
    (folder / "roster.csv").write_text("name,mail\n")
    for bad, message in (
        (folder / "roster.csv", "is no table of grades"),
        (folder / "new", "is a folder"),
        (folder / "new" / "deep" / "g.csv" / "x", "cannot"),
    ):
        with pytest.raises(InputError, match=message):
            write_grades(table, bad)
    write_grades(table, folder / "new" / "deep" / "g.csv")  # grades go over grades


def test_student_copies_never_replace_somebodys_work(course):
    folder, _ = course
    said: list[str] = []
    out = folder / "student"
    (made,) = write_student_copies(out, folder / "lessons", say=said.append)
    write_student_copies(out, folder / "lessons", say=said.append)
    assert said == []
    made.write_text(made.read_text().replace("exercise(", "solved("))
    write_student_copies(out, folder / "lessons", say=said.append)
    assert said == [f"kept as they are in {out} (there already, and changed): {made.name}"]
    assert "solved(" in made.read_text()


def test_a_student_copy_writes_into_its_own_folder(tmp_path):
    for path in write_student_copies(tmp_path):
        (parameters,) = [
            c.source for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])
        ]
        assert f'out = "runs/{path.stem}"' in parameters


def test_one_line_for_each_student(course):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", SOLVED, [TICK])
    hand_in("bob/00_a.ipynb")
    table = by_student(grades(folder / "class", folder / "lessons"))
    assert table.to_dict("index") == {
        "ann": {"00": "1/1", "all": "1/1"},
        "bob": {"00": "0/1", "all": "0/1"},
    }


LESSON = "from fvlfp.course.lesson import check\n"


def test_a_second_run_believes_no_saved_output(course):
    """Forged ticks are gone, open stubs stay open, and a damaged file stops nobody."""
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", LESSON + SOLVED)
    hand_in("bob/00_a.ipynb", LESSON + SOLVED.replace("a + 1\n", "7\n", 1), [TICK])
    hand_in("dan/00_a.ipynb", None, [TICK])
    (folder / "class" / "eve").mkdir()
    (folder / "class" / "eve" / "00_a.ipynb").write_text("no notebook")
    copies = folder / "copies"
    table = grades(folder / "class", folder / "lessons", limit=3600, copies_to=copies).set_index("student")
    expected = {"ann": "passed", "bob": "wrong", "dan": "open", "eve": "unreadable"}
    assert table["result"].to_dict() == expected


def test_a_second_run_ends_at_its_limit(course):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", "while True: pass\n" + SOLVED, [TICK])
    copies = folder / "copies"
    (row,) = grades(folder / "class", folder / "lessons", limit=2, copies_to=copies).to_dict("records")
    assert row["result"] in ("failed", "not run")  # stopped inside the cell, or before its output came
    assert "Timeout" in nbformat.read(copies / "ann" / "00_a.ipynb", 4).metadata["stopped"]


def test_a_kernel_that_dies_before_its_first_answer_fails_nobody(course, monkeypatch):
    """Another program may take its port; no cell has run then."""
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", SOLVED)
    started = []

    def preprocess(runner, notebook, resources):
        started.append(runner)
        if len(started) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        notebook.cells[0].outputs = [TICK]

    monkeypatch.setattr("nbconvert.preprocessors.ExecutePreprocessor.preprocess", preprocess)
    (row,) = grades(folder / "class", folder / "lessons", limit=60, copies_to=folder / "copies").to_dict(
        "records"
    )
    assert row["result"] == "passed" and len(started) == 2


def test_the_command_says_that_it_executes_students_code(course, monkeypatch):
    folder, hand_in = course
    hand_in("ann/00_a.ipynb", LESSON + SOLVED)
    monkeypatch.setattr("fvlfp.course.grade.lessons", lambda _: [folder / "lessons" / "00_a.ipynb"])
    words = ["grade", str(folder / "class"), "--out", str(folder / "g.csv"), "--rerun", "--limit", "3600"]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    assert "executes the students' code" in run.output and "ann      1/1  1/1" in run.output
    assert (folder / "g_rerun" / "ann" / "00_a.ipynb").is_file()


def test_another_environments_kernel_is_not_used(tmp_path, monkeypatch):
    spec = tmp_path / "other" / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    cells = [new_code_cell("import sys; print(sys.executable)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "00_a.ipynb")
    done = rerun(tmp_path / "00_a.ipynb", tmp_path / "done.ipynb", limit=3600)
    assert nbformat.read(done, 4).cells[0].outputs[0].text.strip() == sys.executable
