"""The processes of a deployment trial, without a federation: found, ended, past proxies, with a limit."""

import os
import sys
import time
from pathlib import Path

import pytest

from deploy import trial as module
from deploy.trial import Trial, main, past_proxies
from fvlfp.errors import InputError
from fvlfp.methods import METHODS


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path, clients=2)


@pytest.fixture
def sleeper(start):
    """Start a process of a trial, with a child of its own; both sleep for longer than any test takes."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])"
    code = f"import subprocess, sys, time; {child}; time.sleep(3600)"
    return lambda trial: start([sys.executable, "-c", code], env=trial.environment())


def wait_for(condition, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processes_are_found_and_ended_without_proc(trial, sleeper):
    assert "/proc" not in Path(module.__file__).read_text()
    other = sleeper(Trial(trial.folder / "other"))
    sleeper(trial)
    wait_for(lambda: len(trial.processes()) == 2)
    trial.stop()
    assert trial.processes() == [] and other.poll() is None, "another trial's processes live on"


def test_a_start_that_fails_leaves_nothing_running(trial, sleeper, monkeypatch):
    trial.key_folder.mkdir()
    (trial.key_folder / "ca.crt").touch()
    monkeypatch.setattr(trial, "make_data", lambda: None)

    def start_superlink():
        sleeper(trial)
        raise RuntimeError("superlink does not come up")

    monkeypatch.setattr(trial, "start_superlink", start_superlink)
    with pytest.raises(RuntimeError, match="does not come up"):
        trial.start()
    assert trial.processes() == []


def test_the_limit_is_the_users_and_stops_the_run(trial, monkeypatch):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(trial, "flwr", lambda *words: asked.append(words) or "")
    monkeypatch.setattr(trial, "lives", lambda name: True)
    with pytest.raises(RuntimeError, match=r"not over after 0.1 s \(--limit\) and was stopped"):
        trial.wait(7, seconds=0.1)
    assert asked == [("stop", "7", "trial")]
    monkeypatch.setattr(trial, "lives", lambda name: False)
    with pytest.raises(RuntimeError, match="the SuperLink has ended"):
        trial.wait(7, seconds=1e9)


def test_the_loopback_passes_by_proxies(trial, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "intranet.example")
    for name in ("NO_PROXY", "no_proxy", "no_grpc_proxy"):
        hosts = trial.environment()[name].split(",")
        assert {"127.0.0.1", "localhost", "intranet.example"} <= set(hosts), name
    assert set(past_proxies()) == {"NO_PROXY", "no_proxy", "no_grpc_proxy"}


CANNOT = [
    name
    for name, keys in METHODS.items()
    if "posthoc" in keys or keys.get("pooling", "federated") != "federated"
]


@pytest.mark.parametrize("method", CANNOT)
def test_what_no_deployment_can_do_is_refused_before_it_starts(tmp_path, method):
    with pytest.raises(InputError, match=f"method = '{method}' cannot be deployed"):
        Trial(tmp_path, method=method).start()
    for what in ("all", "start", "run"):
        with pytest.raises(SystemExit, match=f"deploy.trial: method = '{method}' cannot be deployed"):
            main([what, str(tmp_path / "t"), "--set", f"method={method}"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [["start", "--resume"], ["stop", "--limit", "5"]])
def test_an_option_that_would_not_be_used_is_refused(tmp_path, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(tmp_path / "t")])
    assert f"{words[1]} would not be used: it needs run or all" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["rounds", "rounds:3"])
def test_a_setting_without_a_value_is_one_message(tmp_path, word):
    with pytest.raises(SystemExit, match="write key=value"):
        main(["start", str(tmp_path), "--set", word])
