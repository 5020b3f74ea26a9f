"""Installed as a wheel, away from a checkout, the lessons are there."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds; the build leaves nothing in the checkout."""
    pytest.importorskip("setuptools", reason="building a wheel without a network needs setuptools here")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z", "fvlfp", "notebooks", "*.toml", "setup.py", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if files.returncode:
        pytest.skip("no git checkout to build from")
    for name in files.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--disable-pip-version-check"]  # no network is asked
    built = subprocess.run([*pip, str(source), "-w", str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, cwd: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(cwd)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lessons_and_the_model_travel_with_the_wheel(installed):
    lessons = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (installed / "fvlfp/course/lessons").iterdir()} == lessons
    assert (installed / "fvlfp/clip/toyclip/toyclip64_fp16.safetensors").is_file()
    assert (installed / "fvlfp/audit/report/report.css").is_file()


def test_student_grade_sweep_and_tour_find_the_lessons(installed, tmp_path):
    (tmp_path / "grid.toml").write_text('lesson = "06"\n[grid]\nseed = [0, 1]\n')
    code = (
        "import fvlfp; from pathlib import Path; from fvlfp.cli import app; "
        "from fvlfp.course.sweep.grid import read_grid; from fvlfp.course.tour import lessons; "
        "app(['student', '--out', 'class/ann'], standalone_mode=False); "
        "app(['grade', 'class', '--out', 'g.csv'], standalone_mode=False); "
        "print(fvlfp.__file__, len(lessons()), len(read_grid(Path('grid.toml'))))"
    )
    said = run(installed, tmp_path, code)
    assert str(installed / "fvlfp") in said
    assert said.strip().endswith(f" {len(list((ROOT / 'notebooks').glob('[0-9]*.ipynb')))} 2")
    assert (tmp_path / "g.csv").is_file() and (tmp_path / "class/ann/06_cdfp.ipynb").is_file()
