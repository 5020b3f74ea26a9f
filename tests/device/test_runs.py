"""Every method trains and predicts on a device as it does on a CPU, and nothing mixes the two."""

import dataclasses

import numpy as np
import pytest
import torch

from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.methods import METHODS
from fvlfp.runs.predict import predict
from fvlfp.runs.save import read_result, write_result
from fvlfp.runs.train import prepare, train
from fvlfp.runs.zero_shot import audit_clip

#: How far float32 sums in another order may move a probability.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def both(planted, planted_there):
    """Two clients of `planted` on the CPU and on the device."""
    return [dataclasses.replace(p, clients=p.clients[:2]) for p in (planted, planted_there)]


def config(method="fvlfp", **changes):
    settings = {"groups": ("shape", "tint"), "clients": 2, "rounds": 1, "batch": 64, "seed": 0}
    settings |= {"rounds": 0} if method == "zero-shot" else {}
    return Config.make("smoke", method, **(settings | changes))


def scores(cfg, prepared, **options):
    return predict(prepared, train(cfg, prepared, progress=None, **options))["score"].to_numpy()


def assert_same(cfg, both, **options):
    here, there = (scores(cfg, prepared, **options) for prepared in both)
    np.testing.assert_allclose(there, here, atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stacked(both, method, caplog):
    assert_same(config(method), both)
    assert "one after another" not in caplog.text


@pytest.mark.parametrize("method", [m for m, keys in METHODS.items() if "posthoc" not in keys])
def test_every_method_one_by_one(both, method):
    assert_same(config(method), both, stacked=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"pairing": "words"},
        {"pairing": "layers", "depth": 1},
        {"cf_directions": "text", "dsop": "text-span", "min_cell": 0},
        {"dsop_at": "inference", "dsop_words": "fair"},
        {"fpf_by": "server", "fpf_momentum": 0.5, "rounds": 2},
        {"robust": "krum"},
        {"robust": "trimmed-mean"},
        {"robust": "median"},
        {"dp_noise": 1.0},
    ],
    ids=str,
)
def test_every_variant(both, changes, monkeypatch):
    monkeypatch.setenv("FVLFP_NOISE_SEED", "1")  # noise is fresh in every run, unless a test asks
    if "robust" in changes:  # the rules need more clients than liars
        changes, both = (
            changes | {"clients": 3},
            [
                dataclasses.replace(p, clients=[*p.clients, dataclasses.replace(p.clients[0], client=2)])
                for p in both
            ],
        )
    assert_same(config(**changes), both)


def test_a_resumed_run_has_the_bits_of_the_straight_one(both, tmp_path):
    cfg, there = config(rounds=3), both[1]
    straight = train(cfg, there, out=tmp_path, progress=None)
    for path in (tmp_path / "checkpoints").glob("round-000003*"):
        path.unlink()
    resumed = train(cfg, there, out=tmp_path, resume=True, progress=None)
    assert torch.equal(straight.prompts, resumed.prompts)


def test_a_saved_run_predicts_the_same(both, tmp_path):
    there = both[1]
    trained = train(config(), there, progress=None)
    read = read_result(write_result(tmp_path, trained, {}))
    assert read.prompts.device.type == "cpu"
    assert predict(there, read).equals(predict(there, trained))


def test_vision_prompts(encoder, encoder_there, tmp_path, watch):
    cfg = config("cdfp", groups=("shape",), model="tiny-test-clip", vision_ctx=2, vision_depth=2)
    faces = toyfaces.make(120, seed=0, label="smiling")
    here, there = (prepare(cfg, dataset=faces, encoder=e, cache=tmp_path) for e in (encoder, encoder_there))
    np.testing.assert_allclose(there.test.z.cpu(), here.test.z, atol=1e-5)
    assert_same(cfg, (here, there))


def test_an_audit_of_a_clip(encoder, encoder_there, tmp_path, monkeypatch):
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path / "cache"))
    faces = toyfaces.make(120, seed=0, label="smiling")
    options = {"label": "smiling", "groups": ["shape"], "draws": 100}
    read = []
    for e in (encoder, encoder_there):
        report = audit_clip(e, faces, tmp_path / e.device.type, **options)
        read.append((report.parent / "audit.json").read_text())
    assert all('"accuracy"' in text for text in read)
