"""Grading: what saved outputs say about each exercise."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.course.grade import grades
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
