"""Ctrl-C, really sent: exit status 130, one line that says how to go on, nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = "from fvlfp.cli import app; app()"


@pytest.fixture
def interrupted(start, tmp_path):
    """Start a command, wait for a condition on its stdout, press Ctrl-C; gives back status and stderr."""

    def run(words, condition):
        said, until = tmp_path / "said", time.monotonic() + 600
        with said.open("w") as stdout:
            process = start([sys.executable, "-c", CODE, *map(str, words)], stdout=stdout)
        while not condition(said.read_text()):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until, "nothing happened"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, complained = process.communicate(timeout=600)
        return process.returncode, complained

    return run


@pytest.mark.slow
def test_train(tmp_path, interrupted):
    out = tmp_path / "out"
    settings = ["--set", "profile=smoke", "--set", "rounds=12", "--set", "device=cpu", "--set", "draws=200"]
    words = ["train", *settings, "--out", out]
    status, complained = interrupted(words, lambda said: "round   2/12" in said)
    assert status == 130
    assert complained == (
        "fvlfp: stopped; the same command with --resume goes on after the last saved round\n"
    )
    assert (out / "config.json").is_file() and not list(out.rglob("*.part*"))
    command = [sys.executable, "-c", CODE, *map(str, words), "--resume"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "round   1/12" not in again.stdout.split("training fvlfp")[0], "it did not go on, it began again"
    assert again.stderr == "" and again.stdout.splitlines()[-1].startswith("report: ")


@pytest.mark.slow
def test_tour(tmp_path, interrupted):
    out = tmp_path / "out"
    part = out / "00_start_here" / ".part-00_start_here.ipynb"

    def running(said):
        try:
            return '"execution_count": 2' in part.read_text()
        except FileNotFoundError:  # not yet
            return False

    words = ["tour", "--profile", "smoke", "--device", "cpu", "--out", out]
    status, complained = interrupted(words, running)
    assert status == 130
    assert complained == ("fvlfp: stopped; the same command goes on from the stages that the lessons saved\n")
    assert not [file for file in out.rglob("*") if "part" in file.name]
