"""Sweeps of a tiny notebook: killed and resumed, failing cells, changed grids, the page and the tables."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.course.sweep import runner
from fvlfp.course.sweep.cell import _run
from fvlfp.course.sweep.grid import read_grid
from fvlfp.errors import InputError

# No import of fvlfp in it: torch would take longer than the test. The figure is a plain grey PNG.
BODY = """
import json, os, time
from pathlib import Path
from IPython.display import Image, display
import io
from PIL import Image as Pillow
picture = io.BytesIO()
Pillow.new("RGB", (900, 300), (seed * 20, 90, 90)).save(picture, "PNG")
display(Image(picture.getvalue(), format="png"))
if seed == broken:
    raise ValueError("seed <b>broken</b> & sorry")
Path(out).mkdir(parents=True, exist_ok=True)
(Path(out) / "pid").write_text(str(os.getpid()))
while seed >= held and not Path(go).exists():
    time.sleep(0.05)
(Path(out) / "ran").open("a").write("x")
(Path(out) / "record.json").write_text(json.dumps({"square": seed**2, "word": name}))
"""


@pytest.fixture
def lab(tmp_path):
    """A folder with a tiny notebook, whose cells with seeds from `held` on wait for the file `go`."""
    parameters = f'seed = 0\nname = "a"\nbroken = -1\nheld = 99\ngo = {str(tmp_path / "go")!r}\nout = "."'
    cells = [
        new_markdown_cell("# Tiny"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(BODY),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "tiny.ipynb")
    return tmp_path


def grid(lab, text):
    (lab / "grid.toml").write_text('lesson = "tiny.ipynb"\n' + text)
    return lab / "grid.toml"


def sweep(*words):
    return CliRunner().invoke(app, ["sweep", *(str(word) for word in words)])


def runs(out):
    """How often each cell ran to its end."""
    return sorted(len(file.read_text()) for file in (out / "cells").glob("*/ran"))


@pytest.fixture
def begin(lab, start):
    """Start a sweep in a process of its own."""

    def begin(workers):
        words = ["sweep", lab / "grid.toml", "--out", lab / "out", "--workers", str(workers)]
        return start([sys.executable, "-c", "from fvlfp.cli import app; app()", *map(str, words)])

    return begin


def wait_for(condition, *running, seconds=600):
    """Until it holds, while these processes run."""
    until = time.monotonic() + seconds
    while not condition():
        for process in running:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.05)


def test_a_sweep_of_12_cells_killed_and_resumed(lab, begin):
    grid(lab, '[parameters]\nheld = 2\n[grid]\nseed = [0, 1, 2, 3, 4, 5]\nname = ["a", "b"]\n')
    out = lab / "out"
    first = begin(2)
    wait_for(lambda: len(list((out / "cells").glob("*/cell.json"))) >= 3, first)
    first.kill()
    first.communicate()  # what it had started notices and stops, unfinished
    before = {file: file.read_bytes() for file in out.rglob("cell.json")}
    assert 3 <= len(before) <= 4

    (lab / "go").touch()
    second = sweep(lab / "grid.toml", "--out", out, "--workers", 2)
    assert second.exit_code == 0, second.output
    assert second.stderr == "", "no progress bar where no terminal is"
    assert f"{len(before)} of 12 cells are finished already" in second.stdout
    for file, content in before.items():
        assert file.read_bytes() == content, "a finished cell ran again"
    assert len(runs(out)) == 12 and sum(runs(out)) <= 14, "at most the two that were running ran twice"
    records = pd.read_csv(out / "records.csv", dtype=str)
    assert list(records.columns) == ["cell", "lesson", "held", "seed", "name", "key", "value"]
    square = records[records["key"] == "square"]
    assert [int(v) for v in square["value"]] == [s * s for s in range(6) for _ in "ab"]
    assert list(records[records["key"] == "word"]["value"]) == ["a", "b"] * 6
    assert set(pd.read_csv(out / "cells.csv")["status"]) == {"done"}
    third = sweep(lab / "grid.toml", "--out", out)
    assert "12 of 12 cells are finished already" in third.stdout and third.exit_code == 0


def pid_of(out):
    """What the only cell wrote into its file, which is there a moment before its text is; or ""."""
    return "".join(file.read_text() for file in out.rglob("pid"))


def is_running(pid):
    """Not a zombie either, which stays where nobody asks how it ended, as in some containers."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_sweep_leaves_no_kernel_behind(lab, begin):
    grid(lab, "[parameters]\nheld = 0\n")
    first = begin(1)
    wait_for(lambda: pid_of(lab / "out"), first)
    pid = int(pid_of(lab / "out"))
    assert is_running(pid)
    first.kill()
    first.communicate()
    wait_for(lambda: not is_running(pid))
    wait_for(lambda: not list((lab / "out").rglob(".part*")))
    assert not list((lab / "out").rglob("ran")), "it did not come to its end"


@pytest.mark.parametrize(("seen", "least"), [("index.html", 0), ("cells/*/cell.json", 1)])
def test_ctrl_c_stops_in_good_order(lab, begin, seen, least):
    """While the first processes start, and later."""
    grid(lab, "[parameters]\nheld = 2\n[grid]\nseed = [0, 1, 2, 3]\n")
    out = lab / "out"
    first = begin(1)
    wait_for(lambda: list(out.glob(seen)), first)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, complained = first.communicate(timeout=600)
    assert first.returncode == 130
    assert complained.strip() == (
        "fvlfp: stopped; the same command goes on with the cells that are not finished"
    )
    done = len(list(out.rglob("cell.json")))
    states = list(pd.read_csv(out / "cells.csv")["status"])
    assert states == ["done"] * done + ["not run"] * (4 - done) and least <= done <= 2
    assert "not run" in (out / "index.html").read_text()
    assert not list(out.rglob(".*part*")), "nothing half-written"


class Page(HTMLParser):
    """Collects what a browser would fetch or run, and the text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_a_failing_cell_is_shown_and_stops_nobody(lab):
    grid(lab, '[parameters]\nbroken = 1\nname = "<i>x</i>"\n[grid]\nseed = [0, 1, 2]\n')
    out = lab / "out"
    result = sweep(lab / "grid.toml", "--out", out)
    assert result.exit_code == 1
    assert "fvlfp: 1 cell failed; the index shows why" in result.stderr
    assert "2/3 tiny broken=1 name=<i>x</i> seed=1: failed after" in result.stdout
    assert "Traceback" not in result.output.replace("traceback", "")
    assert list(pd.read_csv(out / "cells.csv")["status"]) == ["done", "failed", "done"]
    assert list(pd.read_csv(out / "records.csv")["seed"]) == [0, 0, 2, 2]
    page = Page((out / "index.html").read_text())
    assert "ValueError: seed <b>broken</b> & sorry" in page.text and "raise ValueError" in page.text
    assert "<i>x</i>" in page.text and "i" not in page.tags and "script" not in page.tags
    assert page.tags.count("img") == 3 and "2 done, 1 failed" in page.text
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,") or (out / address.replace("%20", " ")).is_file()
    assert len((out / "index.html").read_text()) < 60_000, "figures are small"
    again = sweep(lab / "grid.toml", "--out", out)
    assert again.exit_code == 1 and "2 of 3 cells are finished already" in again.stdout
    assert runs(out) == [1, 1]


def test_a_changed_grid_or_notebook_is_noticed(lab):
    out = lab / "out"
    grid(lab, "[grid]\nseed = [0, 1]\n")
    assert sweep(lab / "grid.toml", "--out", out).exit_code == 0
    grid(lab, "[grid]\nseed = [1, 2]\n")
    result = sweep(lab / "grid.toml", "--out", out)
    assert "has changed since the last call: 1 cells are new, 1 stay, 1 are left out" in result.stdout
    assert "1 of 2 cells are finished already" in result.stdout
    assert list(pd.read_csv(out / "cells.csv")["seed"]) == [1, 2]
    assert runs(out) == [1, 1, 1]
    notebook = nbformat.read(lab / "tiny.ipynb", 4)
    notebook.cells[0].source += " and new"
    nbformat.write(notebook, lab / "tiny.ipynb")
    keys = {cell.key for cell in read_grid(lab / "grid.toml")}
    known = set(json.loads((out / "sweep.json").read_text())["cells"])
    assert not {f"tiny-{key}" for key in keys} & known


def test_a_notebook_process_that_dies_is_a_failed_cell(lab):
    notebook = nbformat.read(lab / "tiny.ipynb", 4)
    notebook.cells[2].source = "import os\nos._exit(3)"
    nbformat.write(notebook, lab / "tiny.ipynb")
    grid(lab, "")
    result = sweep(lab / "grid.toml", "--out", lab / "out")
    assert result.exit_code == 1, result.output
    assert pd.read_csv(lab / "out" / "cells.csv")["error"][0] == "DeadKernelError: Kernel died"
    assert list((lab / "out" / "cells").glob("*/tiny.ipynb")), "the page links to what ran until then"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lesson = 6", 'say which lesson, for instance lesson = "06"'),
        ("", "say which lesson"),
        ('lesson = "06_cdpf"', "no lesson '06_cdpf'; did you mean '06_cdfp'?"),
        ('lesson = "77"', "no lesson '77'; they are 00, 01"),
        ('lesson = "gone.ipynb"', "no notebook at"),
        ('lesson = ["06", "06_cdfp"]', "a lesson is named twice"),
        ('lesson = "06"\nsed = 1', "unknown key 'sed'"),
        ('lesson = "06"\ngrid = 1', "[grid] must be a table"),
        ('lesson = "06"\ntrain = true', "write either train = true or a lesson"),
        ("train = false", "write either train = true or a lesson"),
        ('train = true\n[grid]\nmethd = ["fedavg"]', "unknown config key 'methd'; did you mean 'method'?"),
        ("train = true\n[grid]\nlr = [0.1, 99.0]", "lr = 99.0 is outside"),
        ('train = true\n[parameters]\nout = "x"', "the sweep chooses `out` itself"),
        ('train = true\n[parameters]\nmethod = "fedavg"\n[grid]\nq = [0.1, 0.2]', "q = 0.2 would not be"),
        ("train = true\n[parameters]\ndp_clip = 2.0", "it needs dp_noise > 0, in every cell"),
        ('train = true\n[parameters]\ndata = "gone.csv"', "no table at gone.csv"),
        ('lesson = "06"\n[grid]\nseed = 1', "[grid] seed needs a list of values"),
        ('lesson = "06"\n[grid]\nseed = []', "[grid] seed needs a list of values"),
        ('lesson = "06"\n[grid]\nseed = [1, 1]', "[grid] seed names a value twice"),
        ('lesson = "06"\n[grid]\nseed = [[1]]', "seed = [1] is no number, truth value or text"),
        ('lesson = "06"\n[grid]\nsede = [1]', "06_cdfp has no parameter 'sede'; did you mean 'seed'?"),
        ('lesson = "06"\n[grid]\nout = ["x"]', "the sweep chooses `out` itself"),
        ('lesson = "06"\n[parameters]\nseed = 1\n[grid]\nseed = [1]', "both in [parameters] and in [grid]"),
        ('lesson = "06"\n[grid]\nseed = [2020-01-01]', "is no number, truth value or text"),
        ('lesson = "06"\n[parameters]\nseed = 2020-01-01', "is no number, truth value or text"),
        (
            "train = true\n[grid]\n"
            + "".join(f"{key} = {list(range(1, 1001))}\n" for key in ("a", "b", "c")),
            "1,000,000,000 cells are more than 100,000",
        ),
        ("lesson = ", "not valid TOML"),
    ],
)
def test_bad_grids(tmp_path, text, message):
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(InputError) as error:
        read_grid(tmp_path / "g.toml")
    assert message in str(error.value) and str(tmp_path / "g.toml") in str(error.value)


def test_the_help_shows_the_heading_of_the_grid():
    assert "a line [grid]" in " ".join(sweep("--help").output.split())


def test_bad_files_and_folders(lab):
    result = sweep(lab / "none.toml", "--out", lab / "out")
    assert result.exit_code == 2 and "no such grid file" in result.stderr and not (lab / "out").exists()
    result = sweep(grid(lab, ""), "--out", lab)
    assert result.exit_code == 2 and "holds something that is no sweep" in result.stderr
    (lab / "half.ipynb").write_text("{")
    (lab / "grid.toml").write_text('lesson = "half.ipynb"\n[grid]\nseed = [1]\n')
    result = sweep(lab / "grid.toml", "--out", lab / "out")
    assert result.exit_code == 2 and "cannot be read as a notebook" in result.stderr
    assert result.stderr.count("\n") == 1 and os.listdir(lab).count("out") == 0


def test_two_sweeps_share_one_folder_and_a_killed_one_loses_nothing(lab, begin):
    """Each cell runs once; what a killed sweep was at is run by the other one."""
    grid(lab, "[parameters]\nheld = 0\n[grid]\nseed = [0, 1, 2, 3]\n")
    out = lab / "out"
    first, second = begin(1), begin(1)
    wait_for(lambda: len(list((out / "cells").glob("*/pid"))) >= 2, first, second)  # each is at a cell
    os.killpg(first.pid, signal.SIGKILL)
    (lab / "go").touch()
    _, complained = second.communicate(timeout=600)
    first.communicate()
    assert second.returncode == 0, complained
    assert list(pd.read_csv(out / "cells.csv")["status"]) == ["done"] * 4
    assert sorted(pd.read_csv(out / "records.csv").query("key == 'square'")["value"].astype(int)) == [
        0,
        1,
        4,
        9,
    ]
    assert sum(runs(out)) in (4, 5), "at most the killed cell ran to its end twice"
    assert not list(out.rglob(".fvlfp.lock"))


def test_a_cell_over_its_limit_is_stopped_and_stops_nobody(lab, monkeypatch):
    """The first cell waits for ever; its limit is over when the second has ended, however long that took."""
    grid(lab, "[parameters]\nheld = 2\n[grid]\nseed = [2, 0, 1]\n")
    out = lab / "out"

    def seconds():
        return time.perf_counter() + 900 * any((out / "cells").glob("*/cell.json"))

    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=seconds, sleep=time.sleep))
    result = sweep(lab / "grid.toml", "--out", out, "--workers", "2", "--limit", "900")
    assert result.exit_code == 1
    cells = pd.read_csv(out / "cells.csv")
    assert list(cells["status"]) == ["failed", "done", "done"]
    assert cells["error"][0] == "stopped after 900 s, the limit of a cell"


def test_a_slurm_array_shares_one_sweep(lab):
    grid(lab, "[grid]\nseed = [0, 1, 2]\n")
    job = lab / "job.sh"
    result = sweep(lab / "grid.toml", "--out", lab / "my out", "--workers", "8", "--slurm", job)
    assert result.exit_code == 0 and "3 cells; start them with: sbatch" in result.stdout
    assert not (lab / "my out").exists(), "it runs nothing"
    text = job.read_text()
    assert "#SBATCH --array=1-3\n" in text and text.startswith("#!/bin/bash\n")
    command = [line for line in text.splitlines() if line.startswith("fvlfp ")]
    assert [shlex.split(line) for line in command] == [
        ["fvlfp", "sweep", str(lab / "grid.toml"), "--out", str(lab / "my out"), "--workers", "1"]
    ]
    assert subprocess.run(["bash", "-n", str(job)]).returncode == 0
    for there in (job, lab / "grid.toml"):  # with what was added to it, or what the command reads
        before = there.read_text()
        again = sweep(lab / "grid.toml", "--slurm", there)
        assert again.exit_code == 2 and "exists already" in again.stderr and there.read_text() == before


TRAIN = (
    'train = true\n[parameters]\nprofile = "smoke"\nn = 90\nclients = 2\nrounds = 1\ndraws = 100\n'
    'device = "cpu"\nbaseline = "zero-shot"\n[grid]\nmethod = ["fedavg", "fpf"]\n'
)


def test_a_training_cell_records_the_change_and_goes_on(tmp_path):
    (tmp_path / "grid.toml").write_text(TRAIN)
    cells = read_grid(tmp_path / "grid.toml")
    assert [(cell.what, cell.parameters["method"]) for cell in cells] == [
        ("train", "fedavg"),
        ("train", "fpf"),
    ]
    home = tmp_path / "cell"
    for _ in range(2):  # the second time it goes on from what is there
        home.mkdir(exist_ok=True)
        _run(None, cells[0].parameters, home)
        record = json.loads((home / "record.json").read_text())
        assert set(record) > {"balanced_accuracy", "odds_gap shape", "odds_gap_change shape"}
    assert (home / cells[0].shown).is_file()
    assert "training fedavg" in (home / "log.txt").read_text()


def test_a_key_that_some_cell_uses_is_no_mistake(tmp_path):
    (tmp_path / "g.toml").write_text('train = true\n[grid]\nmethod = ["fedavg", "qfedavg"]\nq = [0.1, 0.2]')
    assert len(read_grid(tmp_path / "g.toml")) == 4


def test_a_table_or_card_that_changed_makes_new_cells(tmp_path):
    """The cells of the old table were shown as finished."""
    table, card = tmp_path / "t.csv", tmp_path / "t.card.toml"
    (tmp_path / "g.toml").write_text(f'train = true\n[parameters]\ndata = "{table}"\n')
    keys = []
    for rows, words in (("a", ""), ("b", ""), ("b", "x")):
        table.write_text(rows)
        card.write_text(words)
        keys += [cell.key for cell in read_grid(tmp_path / "g.toml")]
    assert len(set(keys)) == 3


@pytest.mark.slow
def test_a_sweep_of_training_over_two_slurm_tasks_of_which_one_is_killed(tmp_path, start):
    """The job that `--slurm` writes, started twice as Slurm would; the other task takes the cell over."""
    (tmp_path / "grid.toml").write_text(TRAIN.replace("rounds = 1", "rounds = 200"))
    out, job = tmp_path / "out", tmp_path / "job.sh"
    words = ["--out", out, "--workers", "2", "--slurm", job]
    assert sweep(tmp_path / "grid.toml", *words).exit_code == 0
    assert "#SBATCH --array=1-2\n" in job.read_text()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    first, second = (
        start(["bash", job], env=os.environ | {"PATH": path, "SLURM_ARRAY_TASK_ID": task}) for task in "12"
    )
    saved = "*/run/method/checkpoints/round-*.sha256"
    wait_for(lambda: len({file.parents[3] for file in (out / "cells").glob(saved)}) == 2, first, second)
    os.killpg(first.pid, signal.SIGKILL)  # the task with its cell, as a node that fails
    assert not list(out.rglob("cell.json")), "both cells were at work"
    first.communicate(timeout=60)
    _, complained = second.communicate(timeout=900)
    assert second.returncode == 0, complained
    assert list(pd.read_csv(out / "cells.csv")["status"]) == ["done", "done"]
    logs = [file.read_text() for file in out.rglob("log.txt")]
    assert sorted("round   1/200" in log for log in logs) == [False, True], (
        "one cell went on, none began again"
    )
    page = (out / "index.html").read_text()
    assert page.count("run/audit/comparison/report.html") == 2
