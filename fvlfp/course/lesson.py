"""What the notebooks share: checked answers, recorded results, and the environment table.

What this module does not do: it holds nothing of the method. A lesson's mathematics is in its cells and in
the library; what the graded steps are compared with is in `fvlfp.course.steps`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.errors import InputError

_GO_ON = "Or go on with the next cell: nothing below needs your answer."
#: A lesson records few numbers, so that each is looked at.
MOST_KEYS = 8


class NotYet(AssertionError):
    """A checked answer is not right yet, or an exercise is still open."""

    def _render_traceback_(self) -> list[str]:
        """Jupyter shows the message alone: the traceback would be of this file, not of the learner's."""
        return [str(self)]


@dataclass(frozen=True)
class Step:
    """What a graded step wants: a function that answers like `reference` on every input.

    inputs: a seeded generator -> the arguments of one call. cases: how many calls are compared.
    """

    reference: Callable[..., Any]
    inputs: Callable[[np.random.Generator], tuple[Any, ...]]
    cases: int = 5


def check(
    what: str, yours: Any, expected: Any, *, atol: float = 1e-5, hint: str = "", percent: bool = False
) -> None:
    """Say that two values agree, or stop with what differs.

    With a `Step` as `expected`, `yours` is a function; it is tried on inputs that the learner has not seen.

    what: the statement that is checked, shown in either case. yours, expected: numbers, arrays, tensors,
    Series or Fractions (compared to within `atol`, shapes included; one number may come in any wrapping), or
    anything with `==`.
    hint: makes this an exercise. An answer rounded to three digits, or to three decimals, passes. The hint is
    shown when the answer is wrong, and the expected value never is. percent: 70 counts as 0.7.

    >>> check("a third", 1 / 3, 0.333333)
    ✓ a third

    Raises:
        NotYet: they differ.
    """
    if isinstance(expected, Step):
        _try_out(what, yours, expected, atol, hint)
        return
    rtol = 1e-3 if hint else 0.0
    scaled = [_hundredth(yours)] if percent else []
    if any(_agree(one, expected, atol, rtol) for one in (yours, *scaled)):
        print(f"✓ {what}")
        return
    lines = [f"✗ {what}", f"  yours:    {_short(yours)}"]
    lines.append(f"  hint: {hint}" if hint else f"  expected: {_short(expected)}")
    raise NotYet("\n".join(lines))


def exercise(task: str) -> None:
    """Stands where a student's code will stand.

    Raises:
        NotYet: always, with the task.
    """
    raise NotYet(
        f"✎ Your turn: {task}\n"
        f"  Replace the two lines of the stub with your code and run the cell again.\n  {_GO_ON}"
    )


def record(out: str | Path, **values: Any) -> pd.DataFrame:
    """Write a lesson's results to `out/record.json` and show them; the tests compare them with golden ones.

    values: at most 8 numbers, truth values or texts.

    Raises:
        InputError: more than 8, or a value that is not plain.
    """
    if len(values) > MOST_KEYS:
        raise InputError(f"record takes at most {MOST_KEYS} values, got {len(values)}")
    plain = {key: _plain(key, value) for key, value in values.items()}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    shown = pd.Series(plain, dtype=object, name="value").to_frame()
    return shown.rename_axis("recorded")


def trend(change: float, low: float, high: float) -> str:
    """What a paired interval [low, high] of a change lets a sentence say."""
    if high < 0:
        return "lower"
    return "higher" if low > 0 else "not shown to change"


def environment(device: str = "auto") -> pd.DataFrame:
    """Python, package versions and the device: the first thing to compare when numbers differ."""
    from fvlfp.clip.device import pick_device

    packages = ("fvlfp", "torch", "open_clip_torch", "flwr", "fairlearn", "papermill")
    rows: Mapping[str, str] = {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": str(pick_device(device)),
    }
    return pd.DataFrame({"here": rows})


def _try_out(what: str, yours: Callable[..., Any], step: Step, atol: float, hint: str) -> None:
    """Compare a learner's function with a step's reference; the reference's answer is never shown."""
    for case in range(step.cases):
        given = step.inputs(np.random.default_rng(case))
        wanted = step.reference(*deepcopy(given))
        called = "  called with: " + ", ".join(_short(value) for value in given)
        try:
            got = yours(*deepcopy(given))  # copies: a function may change what it is given
        except Exception as error:
            error.add_note(called)
            raise
        if got is None or got is Ellipsis:
            task = (yours.__doc__ or what).strip().splitlines()[0]
            raise NotYet(f"✎ Your turn: {task}\n  So far the function returns nothing. {_GO_ON}")
        if not _agree(got, wanted, atol, rtol=1e-3):
            more = f"  hint: {hint}" if hint else "  A hint is behind the fold above this cell."
            raise NotYet("\n".join([f"✗ {what}", called, f"  yours:       {_short(got)}", more]))
    print(f"✓ {what} (on {step.cases} inputs you have not seen)")


def _agree(yours: Any, expected: Any, atol: float, rtol: float) -> bool:
    if isinstance(expected, Mapping):
        named = isinstance(yours, (Mapping, pd.Series)) and set(yours.keys()) == set(expected)
        return named and all(_agree(yours[key], expected[key], atol, rtol) for key in expected)
    a, b = _numbers(yours), _numbers(expected)
    if a is None or b is None:
        return bool(np.all(yours == expected))
    if a.size == b.size == 1:
        a, b = a.ravel(), b.ravel()
    if b.dtype.kind in "iub":  # counts, and yes or no, are exact
        rtol = 0.0
    if a.shape != b.shape:
        return False
    near = np.isclose(a, b, atol=atol, rtol=rtol, equal_nan=True)
    return bool((near | _rounded(a, b)).all()) if rtol else bool(near.all())


def _rounded(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where `a` is `b` rounded to three decimals; below 0.01 that says too little to count."""
    a, b = a.astype(float), b.astype(float)
    with np.errstate(invalid="ignore"):  # infinity is a wrong answer, and no reason to stop
        three_decimals = np.isclose(a, np.round(a, 3), atol=1e-7, rtol=1e-7)
        return three_decimals & (np.abs(a - b) <= 5.1e-4) & (np.abs(b) >= 0.01)


def _numbers(value: Any) -> np.ndarray | None:
    """The value as an array of numbers or truth values, or None where it is something else."""
    try:
        array = np.asarray(_detached(value))
        if array.dtype.kind == "O":  # e.g. Fractions, or a list of tensors
            array = array.astype(float)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "fiub" else None


def _hundredth(value: Any) -> Any:
    numbers = _numbers(value)
    return value if numbers is None else numbers / 100


def _detached(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _short(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return f"a table of {len(value)} rows ({', '.join(map(str, value.columns))})"[:200]
    numbers = _numbers(value)
    text = repr(value) if numbers is None else np.array2string(numbers, precision=5, threshold=12)
    return " ".join(text.split())[:200]


def _plain(key: str, value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"record: {key} is {type(value).__name__}, not a number, a truth value or a text")
