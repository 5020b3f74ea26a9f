"""Every lesson runs on a device: its own tensors and the library's meet without a transfer that is missing.

A lesson's code runs in this process at the smoke profile, without a kernel. What this does not do: it
compares no number with a CPU's; `tests/test_notebooks.py` has the golden ones.
"""

import json
import logging
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
#: Lessons whose own code holds tensors; the others only call the library, which the other tests here hold.
FIRST_HAND = ("04", "05", "06", "07", "08")


@pytest.fixture(autouse=True)
def figures():
    """Lessons draw in a style of their own and leave their figures open; the next test meets neither."""
    matplotlib.use("agg")
    with matplotlib.rc_context():
        yield
    plt.close("all")


@pytest.mark.parametrize(
    "lesson",
    [pytest.param(name, marks=() if name.startswith(FIRST_HAND) else pytest.mark.slow) for name in LESSONS],
)
def test_a_lesson_on_the_device(lesson, watch, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("FVLFP_CACHE", str(shared / "device"))  # what one lesson encodes there, the next reads
    cells = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(tmp_path)
    for name in ("fvlfp", "flwr"):  # some lessons silence them; the next test wants them back
        log = logging.getLogger(name)
        monkeypatch.setattr(log, "setLevel", lambda level: None)
    names = {"__name__": "__main__", "display": lambda *shown: None}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = re.sub(r"^%.*\n", "", "".join(cell["source"]), flags=re.MULTILINE)
            exec(compile(source, f"{lesson}/{cell['id']}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= {"profile": "smoke", "seed": 0, "out": str(tmp_path / "out")}
    assert watch.transfers or not lesson.startswith(FIRST_HAND), "nothing went to the device"
