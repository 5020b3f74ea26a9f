"""What notebooks share: checks that say what differs, records, student copies."""

import json
from fractions import Fraction

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from fvlfp.course.lesson import NotYet, Step, check, environment, exercise, record
from fvlfp.course.slider import slider
from fvlfp.course.student import without_solution, write_student_copies
from fvlfp.errors import InputError


def test_check_says_yes(capsys):
    check("two numbers", 1.0, 1.0 + 1e-7)
    check("arrays", np.arange(3), torch.arange(3))
    check("words", "round", "round")
    assert capsys.readouterr().out.splitlines() == ["✓ two numbers", "✓ arrays", "✓ words"]


WRONG = [(1.0, 1.1), (np.zeros(3), np.zeros(4)), ("a", "b"), (float("nan"), 0.0), ([1, 2], [1, 3])]


@pytest.mark.parametrize(("yours", "expected"), WRONG)
def test_check_stops_with_both_values(yours, expected):
    with pytest.raises(NotYet, match=r"✗ it(?s:.*)yours:(?s:.*)expected:"):
        check("it", yours, expected)


@pytest.mark.parametrize(("yours", "expected"), WRONG)
def test_an_exercise_stops_with_the_hint_and_never_shows_the_answer(yours, expected):
    with pytest.raises(NotYet, match=r"✗ it(?s:.*)yours:(?s:.*)hint: look again") as caught:
        check("it", yours, expected, hint="look again")
    assert "expected" not in str(caught.value)


#: one answer in the forms in which learners write it, and answers that are wrong
RIGHT = {
    1 / 3: [
        *(0.333, 0.33333, Fraction(1, 3), [1 / 3], (1 / 3,), np.float32(1 / 3), torch.tensor(1 / 3)),
        *(pd.Series([1 / 3]), np.array([[1 / 3]]), torch.tensor([1 / 3], requires_grad=True)),
    ],
    0.0: [0, 0.0, False, np.int64(0), torch.tensor(0.0)],
    2176: [2176, 2176.0, np.int32(2176), torch.tensor(2176), Fraction(2176)],
    True: [True, 1, np.bool_(True), torch.tensor(True)],
}
NOT_RIGHT = {
    1 / 3: [0.3, 0.34, "1/3", None, [1 / 3, 1 / 3], float("nan"), 33.3, Fraction(1, 4)],
    0.0: [0.001, True, None, "0", []],
    2176: [2175, 2176.4, 2048, "2176", [2176, 2176]],
    True: [False, 0, None, "True", 0.5],
}


@pytest.mark.parametrize(("yours", "expected"), [(y, e) for e, ys in RIGHT.items() for y in ys])
def test_an_exercise_takes_a_right_answer_in_any_wrapping(yours, expected):
    check("it", yours, expected, hint="look again")


@pytest.mark.parametrize(("yours", "expected"), [(y, e) for e, ys in NOT_RIGHT.items() for y in ys])
def test_an_exercise_refuses_a_wrong_answer(yours, expected):
    with pytest.raises(NotYet):
        check("it", yours, expected, hint="look again")


@pytest.mark.parametrize("wrap", [list, tuple, np.array, torch.tensor])
def test_an_exercise_takes_several_numbers_in_any_wrapping(wrap):
    yours = wrap([0.25, 0.75])
    check("it", yours, pd.Series([0.25, 0.75]), hint="look again")
    check("it", [Fraction(1, 4), Fraction(3, 4)], yours, hint="look again")
    for wrong in ([0.75, 0.25], [0.25], [[0.25, 0.75]], 0.25):
        with pytest.raises(NotYet):
            check("it", wrong, yours, hint="look again")


def test_a_percentage_counts_where_the_text_allows_it():
    check("a share", 70, 0.7, hint="a share", percent=True)
    check("a share", 0.7, 0.7, hint="a share", percent=True)
    for yours, percent in ((70, False), (7, True), ("70 %", True)):
        with pytest.raises(NotYet):
            check("a share", yours, 0.7, hint="a share", percent=percent)


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


STEP = Step(lambda frame, k: frame["x"].mean() + k, lambda rng: (pd.DataFrame({"x": rng.random(4)}), 1.5))


def test_a_step_tries_a_function_on_several_inputs(capsys):
    check("mean plus k", lambda frame, k: float(frame["x"].sum() / 4 + k), STEP)
    assert capsys.readouterr().out == "✓ mean plus k (on 5 inputs you have not seen)\n"


@pytest.mark.parametrize("wrong", [lambda f, k: 2.0, lambda f, k: f["x"].mean(), lambda f, k: f["x"] + k])
def test_a_wrong_function_is_told_what_it_was_called_with_and_not_the_answer(wrong):
    with pytest.raises(
        NotYet, match=r"✗ it(?s:.*)a table of 4 rows \(x\), 1.5(?s:.*)yours:(?s:.*)fold"
    ) as no:
        check("it", wrong, STEP)
    wanted = STEP.reference(*STEP.inputs(np.random.default_rng(0)))
    assert f"{wanted:.3f}" not in str(no.value) and "expected" not in str(no.value)


def test_a_step_that_returns_nothing_is_open_and_an_error_names_the_input():
    def mine(frame, k):
        """The mean of x, plus k."""
        ...

    with pytest.raises(NotYet, match=r"✎ Your turn: The mean of x, plus k\."):
        check("it", mine, STEP)
    with pytest.raises(KeyError) as error:
        check("it", lambda frame, k: frame["y"], STEP)
    assert error.value.__notes__ == ["  called with: a table of 4 rows (x), 1.5"]


def test_a_function_that_changes_its_input_is_compared_all_the_same():
    def spoils(frame, k):
        frame["x"] = frame["x"].mean()
        return frame["x"][0] + k

    check("it", spoils, STEP)


def test_a_step_may_answer_with_named_values():
    step = Step(lambda a: {"round": a, "square": 2 * a}, lambda rng: (float(rng.random()),))
    check("it", lambda a: pd.Series({"square": 2 * a, "round": a}), step)
    for wrong in (lambda a: {"round": a}, lambda a: {"round": a, "square": a}, lambda a: [a, 2 * a]):
        with pytest.raises(NotYet):
            check("it", wrong, step)


def test_a_function_is_left_open_with_its_signature():
    cell = 'def two(a):\n    """Two."""\n    ### BEGIN SOLUTION\n    return 2\n    ### END SOLUTION\n\nx'
    assert without_solution(cell) == 'def two(a):\n    """Two."""\n    ...\n\nx'


def test_student_copies(tmp_path):
    (tmp_path / "lessons").mkdir()
    cells = [nbformat.v4.new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "lessons" / "00_a.ipynb")
    (made,) = write_student_copies(tmp_path / "out", tmp_path / "lessons")
    assert "x = 1" not in made.read_text()
    assert not (tmp_path / "out" / "solutions").exists()
    (made,) = write_student_copies(tmp_path / "lab", tmp_path / "lessons", solved=True)
    assert "x = 1" not in made.read_text()
    (_, solution) = nbformat.read(tmp_path / "lab" / "solutions" / "00_a.ipynb", 4).cells
    assert "<details>" in solution.source and "x = 1" in solution.source and "###" not in solution.source
    with pytest.raises(InputError, match="choose another --out"):
        write_student_copies(tmp_path / "lessons", tmp_path / "lessons")
    with pytest.raises(InputError, match="no lessons in"):
        write_student_copies(tmp_path / "out", tmp_path / "empty")


def test_a_slider_shows_its_start_and_draws_every_place_that_is_chosen(monkeypatch):
    shown, drawn = [], []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(what, display_id=False):
        shown.append(what)
        return Handle() if display_id else None

    def draw(place):
        drawn.append((place, Figure()))
        return drawn[-1][1]

    monkeypatch.setattr("fvlfp.course.slider.display", display)
    slider(draw, [1, 2, 3], start=2, label="place")
    shown[0].value = 3
    assert [place for place, _ in drawn] == [2, 3]
    assert shown[1:] == [figure for _, figure in drawn]
