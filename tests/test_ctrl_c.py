"""Ctrl-C, really sent: exit status 130, one line that says how to go on, nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = "from fvlfp.cli import app; app()"


def interrupted(words, folder, condition):
    """Start a command, wait for the condition, press Ctrl-C; returns status, stdout, stderr."""
    command = [sys.executable, "-c", CODE, *map(str, words)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        until = time.monotonic() + 240
        while not condition((folder / "said").read_text()):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until, "nothing happened"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, complained = process.communicate(timeout=60)
    return process.returncode, complained


@pytest.mark.slow
def test_train(tmp_path):
    out = tmp_path / "out"
    settings = ["--set", "profile=smoke", "--set", "rounds=12", "--set", "device=cpu", "--set", "draws=200"]
    words = ["train", *settings, "--out", out]
    status, complained = interrupted(words, tmp_path, lambda said: "round   2/12" in said)
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
def test_tour(tmp_path):
    out = tmp_path / "out"
    part = out / "00_start_here" / ".part-00_start_here.ipynb"

    def running(said):
        return part.is_file() and '"execution_count": 2' in part.read_text()

    words = ["tour", "--profile", "smoke", "--device", "cpu", "--out", out]
    status, complained = interrupted(words, tmp_path, running)
    assert status == 130
    assert complained == ("fvlfp: stopped; the same command goes on from the stages that the lessons saved\n")
    assert not [file for file in out.rglob("*") if "part" in file.name]
