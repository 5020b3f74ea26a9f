"""`make wheel-check`: the wheel by itself, in a fresh environment and an empty folder.

Only the wheel is installed. Its dependencies are those of the environment that runs this script, so that
nothing is downloaded; --fresh installs them from the package index instead, as a user does.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def install(folder: Path, fresh: bool) -> Path:
    """The folder of the commands of a new environment that has the wheel."""
    pip = [sys.executable, "-m", "pip"]
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # of an earlier build: modules that are gone
    isolation = [] if fresh else ["--no-build-isolation"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", *isolation, str(ROOT), "-w", folder], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
    commands = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = commands / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *([] if fresh else ["--no-deps"]), wheel], check=True
    )
    if not fresh:
        query = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
        # A line of a .pth file only adds a folder: the editable fvlfp that lies there is not taken.
        Path(site.stdout.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return commands


def use(commands: Path, empty: Path, lessons: bool) -> None:
    """What a user does first, in a folder that holds nothing."""
    environment = {**os.environ, "FVLFP_CACHE": str(empty / "cache")}

    def run(*words: str) -> None:
        print("$", *words, flush=True)
        command = [commands / words[0], *words[1:]]
        subprocess.run(command, cwd=empty, env=environment, check=True)

    where = "import fvlfp, sys; print(fvlfp.__file__); sys.exit(not fvlfp.__file__.startswith(sys.prefix))"
    run("python", "-c", where)
    with (empty / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("y", "p", "g"), *[("a", "a", "u"), ("b", "a", "v"), ("b", "b", "u")] * 9]
        )
    (empty / "grid.toml").write_text('lesson = "06"\n[parameters]\nprofile = "smoke"\n[grid]\nseed = [0]\n')
    columns = ("--label", "y", "--prediction", "p", "--group", "g")
    run("fvlfp", "audit", "predictions", "table.csv", *columns, "--out", "audit")
    run("fvlfp", "student", "--out", "class/ann")
    run("fvlfp", "sweep", "grid.toml", "--out", "sweep")
    if lessons:
        run("fvlfp", "tour", "--profile", "smoke", "--out", "tour")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="install the dependencies as well")
    parser.add_argument("--no-tour", action="store_true", help="leave out the lessons, which take minutes")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # a package that lies there would stand in for the wheel
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "empty").mkdir()
        use(install(Path(scratch), options.fresh), Path(scratch) / "empty", not options.no_tour)
    print("the wheel works by itself")


if __name__ == "__main__":
    main()
