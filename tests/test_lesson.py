"""What notebooks share: checks that say what differs, records, student copies."""

import json

import nbformat
import numpy as np
import pytest
import torch

from fvlfp.course.lesson import NotYet, check, environment, exercise, record
from fvlfp.course.student import without_solution, write_student_copies
from fvlfp.errors import InputError


def test_check_says_yes(capsys):
    check("two numbers", 1.0, 1.0 + 1e-7)
    check("arrays", np.arange(3), torch.arange(3))
    check("words", "round", "round")
    assert capsys.readouterr().out.splitlines() == ["✓ two numbers", "✓ arrays", "✓ words"]


@pytest.mark.parametrize(
    ("yours", "expected"),
    [(1.0, 1.1), (np.zeros(3), np.zeros(4)), ("a", "b"), (float("nan"), 0.0), ([1, 2], [1, 3])],
)
def test_check_stops_with_both_values_and_the_hint(yours, expected):
    with pytest.raises(NotYet, match=r"✗ it(?s:.*)yours:(?s:.*)expected:(?s:.*)hint: look again"):
        check("it", yours, expected, hint="look again")


def test_a_failed_check_shows_only_its_message_in_jupyter():
    with pytest.raises(NotYet) as caught:
        exercise("add two numbers")
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "add two numbers" in str(caught.value)


def test_record_writes_plain_values_and_refuses_the_rest(tmp_path):
    shown = record(tmp_path, n=np.int64(3), gap=torch.tensor(0.5), better=True)
    assert json.loads((tmp_path / "record.json").read_text()) == {"n": 3, "gap": 0.5, "better": True}
    assert list(shown.index) == ["n", "gap", "better"]
    with pytest.raises(InputError, match="gaps is list"):
        record(tmp_path, gaps=[1, 2])
    with pytest.raises(InputError, match="at most 8"):
        record(tmp_path, **{f"k{i}": i for i in range(9)})


def test_environment_names_the_device():
    assert environment("cpu").loc["device", "here"] == "cpu"


def test_solutions_are_replaced_and_nothing_else():
    cell = "a = 1\n### BEGIN SOLUTION\nb = 2\n### END SOLUTION\ncheck('b', b, 2)"
    stub = without_solution(cell)
    assert "b = 2" not in stub
    assert stub.startswith("a = 1\n") and stub.endswith("check('b', b, 2)")
    with pytest.raises(NotYet, match="Your turn"):
        exec(compile(stub, "cell", "exec"), {"check": check})
    assert without_solution("a = 1") == "a = 1"


def test_student_copies(tmp_path):
    (tmp_path / "lessons").mkdir()
    cells = [nbformat.v4.new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "lessons" / "00_a.ipynb")
    (made,) = write_student_copies(tmp_path / "out", tmp_path / "lessons")
    assert "x = 1" not in made.read_text()
    with pytest.raises(InputError, match="choose another --out"):
        write_student_copies(tmp_path / "lessons", tmp_path / "lessons")
    with pytest.raises(InputError, match="no lessons in"):
        write_student_copies(tmp_path / "out", tmp_path / "empty")
