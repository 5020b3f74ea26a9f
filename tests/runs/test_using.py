"""docs/using_a_run.md: its commands, in its order, as somebody with two tables would type them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

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
