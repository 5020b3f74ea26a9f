"""A finished run on disk and back: every method predicts the same bits."""

import dataclasses

import pytest
import torch

from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.errors import InputError
from fvlfp.methods import METHODS
from fvlfp.runs.predict import predict
from fvlfp.runs.save import RESULT, read_provenance, read_result, write_result
from fvlfp.runs.train import prepare, train, with_posthoc


@pytest.fixture(scope="module")
def fedavg(planted):
    return train(config("fedavg"), planted, progress=None)


def config(method):
    settings = {"groups": ("shape", "tint"), "clients": 4, "batch": 64, "device": "cpu", "rounds": 1}
    return Config.make("smoke", method, **(settings | ({"rounds": 0} if method == "zero-shot" else {})))


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_run_predicts_the_same_bits(planted, fedavg, tmp_path, method):
    cfg = config(method)
    if cfg.posthoc != "none":
        trained = with_posthoc(cfg, planted, fedavg)
    else:
        trained = train(cfg, planted, progress=None)
    comes_back(planted, trained, tmp_path)


def comes_back(prepared, trained, tmp_path):
    back = read_result(write_result(tmp_path, trained, {"model": "tiny"}))
    before, after = predict(prepared, trained), predict(prepared, back)
    assert before.equals(after)
    assert back.cfg == trained.cfg and back.history == trained.history
    assert back.candidates == trained.candidates
    assert read_provenance(tmp_path / RESULT) == {"model": "tiny"}
    for name, tensor in trained.model.tensors().items():
        assert torch.equal(back.model.tensors()[name], tensor.cpu()), name
    again = write_result(tmp_path / "again", back, {"model": "tiny"})
    assert again.read_bytes() == (tmp_path / RESULT).read_bytes()


def vision_config(method):
    more = {"vision_ctx": 2, "clients": 2, "device": "cpu", "model": "tiny-test-clip"}
    return Config.make("smoke", method, **(more | ({} if method == "zero-shot" else {"rounds": 1})))


def takes_vision_prompts(method):
    try:
        return bool(vision_config(method))
    except InputError:
        return False


@pytest.fixture(scope="module")
def pictured(encoder, tmp_path_factory):
    faces = toyfaces.make(120, seed=0, label="smiling")
    return prepare(
        vision_config("fvlfp"), dataset=faces, encoder=encoder, cache=tmp_path_factory.mktemp("cache")
    )


FAST = ("fvlfp", "zero-shot", "centralised")  # the others are settings of the same code


@pytest.mark.parametrize(
    "method",
    [
        m if m in FAST else pytest.param(m, marks=pytest.mark.slow)
        for m in filter(takes_vision_prompts, METHODS)
    ],
)
def test_a_saved_run_with_vision_prompts_predicts_the_same_bits(pictured, tmp_path, method):
    trained = train(vision_config(method), pictured, progress=None)
    assert trained.vision is not None
    comes_back(pictured, trained, tmp_path)


def test_maps_that_change_something_come_back(planted, fedavg, tmp_path):
    """The test above would pass for a map that does nothing: these do something."""
    plain = predict(planted, fedavg)["score"]
    for method in ("text-projection", "difference-projection", "leace-prompted", "thresholds"):
        trained = with_posthoc(config(method), planted, fedavg)
        back = read_result(write_result(tmp_path / method, trained, {}))
        frame = predict(planted, back)
        changed = frame["prediction"] if method == "thresholds" else frame["score"]
        assert (
            changed != (predict(planted, fedavg)["prediction"] if method == "thresholds" else plain)
        ).any()


@pytest.mark.parametrize("body", [b"", b"not safetensors", None])
def test_what_is_no_run_is_refused(tmp_path, body):
    if body is not None:
        (tmp_path / RESULT).write_bytes(body)
    with pytest.raises(InputError, match="holds no finished run"):
        read_result(tmp_path / RESULT)


def test_a_damaged_or_older_run_is_one_message(planted, fedavg, tmp_path, monkeypatch):
    older = dataclasses.replace(fedavg)
    path = write_result(tmp_path, older, {})
    monkeypatch.setattr("fvlfp.runs.save._open", lambda p: ({}, {"sizes": None}))
    with pytest.raises(InputError, match="another version of fvlfp"):
        read_result(path)
