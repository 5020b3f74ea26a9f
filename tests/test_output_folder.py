"""Output folders: nothing of the user's is lost, one command writes at a time, a refusal leaves no trace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.output_folder import check_folder, claimed
from fvlfp.runs.experiment import run_and_audit

WORDS = ["--set", "profile=smoke", "--set", "n=60", "--set", "clients=2", "--set", "device=cpu"]
TINY = {"n": 60, "clients": 2, "rounds": 0, "device": "cpu", "baseline": "zero-shot", "draws": 100}


def fvlfp(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "file", ["method/notes.txt", "baseline/mine.csv", "audit/x", "thesis.tex", ".hidden"]
)
def test_training_leaves_a_folder_with_something_else_alone(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    for more in ([], ["--resume"]):
        result = fvlfp("train", *WORDS, "--out", tmp_path, *more)
        assert result.exit_code == 2 and "holds something that is no run" in result.stderr
        assert contents(tmp_path) == {file: b"mine"}


@pytest.mark.parametrize("body", ["{", "[]", '"x"', '{"hidden_size": 768}', '{"profile": 1}'])
def test_a_config_of_another_program_is_not_a_run(tmp_path, body):
    (tmp_path / "config.json").write_text(body)
    with pytest.raises(InputError, match=r"is not the config of a run|holds a run with"):
        run_and_audit(Config.make("smoke"), tmp_path, resume=True)
    assert contents(tmp_path) == {"config.json": body.encode()}


@pytest.mark.parametrize("change", [{"seed": 1}, {"method": "cdfp"}, {"clients": 3}, {"label": "hat"}])
def test_a_refused_resume_writes_nothing(tmp_path, change):
    (tmp_path / "config.json").write_text(json.dumps(Config.make("smoke", **TINY).to_dict()))
    before = contents(tmp_path)
    (key,) = change
    with pytest.raises(InputError, match=f"holds a run with .*{key} = "):
        run_and_audit(Config.make("smoke", **{**TINY, **change}), tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_more_rounds_and_other_draws_go_on_with_the_same_bits(tmp_path):
    """Two rounds and then a third are three rounds, whatever the draws of the audit were."""
    settings = {**TINY, "method": "fedavg"}
    for name, rounds, draws in [("a", 2, 200), ("a", 3, 100), ("b", 3, 100)]:
        cfg = Config.make("smoke", **settings).replace(rounds=rounds, draws=draws)
        run_and_audit(cfg, tmp_path / name, resume=True, say=lambda line: None)
    a, b = (contents(tmp_path / name) for name in "ab")
    for file in ("config.json", "method/prompts.safetensors", "predictions.csv"):
        assert a[file] == b[file], file
    with pytest.raises(InputError, match="3 rounds already: rounds = 1 is fewer"):
        run_and_audit(cfg.replace(rounds=1), tmp_path / "a", resume=True, say=lambda line: None)
    assert contents(tmp_path / "a") == a


HOLD = """
import sys
from pathlib import Path
from fvlfp.output_folder import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(start, tmp_path):
    """Another process, which holds the folder `p` until its input ends."""
    process = start([sys.executable, "-c", HOLD, str(tmp_path / "p")], stdin=subprocess.PIPE)
    assert process.stdout.readline() == "held\n", process.communicate()
    return process


def test_two_commands_cannot_write_into_one_folder(tmp_path, holder):
    result = fvlfp("train", *WORDS, "--out", tmp_path / "p")
    assert result.exit_code == 2 and "another command writes to" in result.stderr
    assert holder.communicate() == ("", "") and holder.returncode == 0
    assert not (tmp_path / "p").exists()


def test_a_killed_command_holds_no_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    with claimed(tmp_path / "p"):
        pass


@pytest.mark.parametrize("command", [["train", *WORDS], ["tour"], ["sweep", "g.toml"], ["student"]])
@pytest.mark.parametrize("out", ["s3://bucket/run", "gs://b", "file:///tmp/x", "hdfs:/x"])
def test_an_address_is_no_folder(tmp_path, monkeypatch, command, out):
    monkeypatch.chdir(tmp_path)
    result = fvlfp(*command, "--out", out)
    assert result.exit_code == 2 and "is an address" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_file_system_has_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot be a folder: File name too long"):
        check_folder(tmp_path / ("x" * 5000))
    assert fvlfp("train", *WORDS, "--out", tmp_path / ("x" * 5000)).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "f").write_text("mine")
    for out in (tmp_path / "f", tmp_path / "f" / "deeper" / "still"):
        with pytest.raises(InputError, match="is a file, not a folder"):
            check_folder(out)
    assert check_folder(tmp_path / "new" / "deeper") == tmp_path / "new" / "deeper"


@pytest.mark.parametrize("name", ["predictions.csv", "groups.csv", "templates.csv"])
def test_an_audit_never_writes_over_what_it_reads(tmp_path, name):
    table = tmp_path / name
    table.write_text("y,p,g,mine\n0,0,a,1\n1,1,b,2\n")
    before = contents(tmp_path)
    words = ["--label", "y", "--prediction", "p", "--group", "g", "--out", tmp_path]
    for command in (["audit", "predictions", table, *words], ["compare", table, table, *words]):
        result = fvlfp(*command)
        assert result.exit_code == 2 and "which is read: choose another --out" in result.stderr
    result = fvlfp("compare", tmp_path, tmp_path, "--label", "y", "--group", "g", "--out", tmp_path)
    assert result.exit_code == 2 and "which is read" in result.stderr
    assert contents(tmp_path) == before
