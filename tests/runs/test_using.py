"""docs/using_a_run.md: its commands, in its order, as somebody with two tables would type them."""

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.clip.lookup import TOYCLIP
from fvlfp.data import toyfaces

PAGE = Path(__file__).resolve().parents[2] / "docs" / "using_a_run.md"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Tables A and B with their cards, a folder of photos, and the weights of the built-in model."""
    for name, n, seed in (("a", 150, 5), ("b", 90, 6)):
        faces = toyfaces.make(n, seed=seed)
        frame = faces.frame[["smiling", "shape"]].copy()
        frame.insert(0, "path", [f"{name}/{i:03d}.png" for i in range(n)])
        (tmp_path / name).mkdir()
        for path, image in zip(frame["path"], faces.images, strict=True):
            image.save(tmp_path / path)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / f"{name}.card.toml").write_text(faces.card.to_toml())
    shutil.copytree(tmp_path / "b", tmp_path / "photos")
    shutil.copy(TOYCLIP / "toyclip64_fp16.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_from_training_to_a_plain_open_clip_script(home):
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    commands = ("fvlfp ", "python ")
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(commands)]
    assert [line.split()[1] for line in lines] == [
        *("train", "predict", "predict", "audit", "export", "runs/export/example.py")
    ]
    small = ["--set", "profile=smoke", "--set", "rounds=1", "--set", "draws=100", "--set", "device=cpu"]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "python":
            plain = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
            assert plain.returncode == 0, plain.stderr
            continue
        done = CliRunner().invoke(app, [*words[1:], *(small if words[1] == "train" else [])])
        assert done.exit_code == 0, (line, done.output)
    found = pd.read_csv(home / "predictions.csv").set_index("path")
    rows = [row.split("\t") for row in plain.stdout.splitlines()]
    for (_, predicted, _, score), name in zip(rows, ("000.png", "001.png"), strict=True):
        assert predicted == found["prediction"][name]
        assert float(score) == pytest.approx(found["score"][name], abs=1e-4)
    assert (home / "runs" / "a_on_b" / "audit" / "comparison" / "report.html").is_file()


def recipe(library):
    """The page's lines for one tracker, after the lines that all of them begin with."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (start,) = (block for block in blocks if "cfg, out = " in block)
    (lines,) = (block for block in blocks if library in block)
    assert len([line for line in lines.splitlines() if line]) <= 5
    small = 'cfg = cfg.replace(rounds=3, local_epochs=1, draws=100, device="cpu", baseline="zero-shot")\n'
    return start + small + lines


def stand_in(noted):
    """A module that takes what MLflow, SummaryWriter and wandb take, and writes it into `noted`."""

    @contextmanager
    def run(*args, **options):
        def scalar(name, value, step):
            noted.setdefault(step, {})[name] = value

        yield SimpleNamespace(add_scalar=scalar, log=lambda row, step: noted.setdefault(step, row))

    return SimpleNamespace(
        start_run=run,
        SummaryWriter=run,
        init=run,
        log_params=lambda params: noted.setdefault("params", params),
        log_metrics=lambda row, step: noted.setdefault(step, row),
    )


def check_rows(rows):
    assert set(rows) - {"params"} == {1, 2, 3}
    for step in (1, 2, 3):
        assert {"loss", "clients", "balanced_accuracy", "uplink_bytes"} <= set(rows[step])
        assert all(isinstance(x, int | float) for x in rows[step].values())


LIBRARIES = ("mlflow", "torch.utils.tensorboard", "wandb")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_recipe_for_a_tracker_hands_it_every_round(home, monkeypatch, library):
    noted: dict = {}
    module = ModuleType(library)
    vars(module).update(vars(stand_in(noted)))
    monkeypatch.setitem(sys.modules, library, module)
    exec(recipe(library), {})
    check_rows(noted)


@pytest.mark.filterwarnings("ignore")  # of these libraries' own dependencies
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_recipe_runs_with_the_tracker_itself(home, monkeypatch, library):
    package = library.rpartition(".")[2]
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    exec(recipe(library), {})
    if package == "mlflow":
        client = sys.modules["mlflow"].MlflowClient()
        (run,) = client.search_runs(["0"])
        found = client.get_metric_history(run.info.run_id, "loss")
        assert [metric.step for metric in found] == [1, 2, 3] and run.data.params["method"] == "fvlfp"
    elif package == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator("board")
        events.Reload()
        assert [scalar.step for scalar in events.Scalars("loss")] == [1, 2, 3]
    else:
        (file,) = Path("wandb").glob("offline-run-*/*.wandb")
        assert b"balanced_accuracy" in file.read_bytes()
