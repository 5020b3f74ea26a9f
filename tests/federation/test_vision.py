"""Federated runs with prompts in the image tower: what is trained, what travels, what is kept."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp

from deploy.data import make_data
from fvlfp.clip.pixels import read_pixels
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.card import Card
from fvlfp.errors import InputError
from fvlfp.federation import client_app as apps
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.protocol import payload_bytes, read_arrays
from fvlfp.fpf import client_weight
from fvlfp.runs.deployment import Site, open_node, run_config_of, run_server
from fvlfp.runs.predict import predict
from fvlfp.runs.save import read_result, write_result
from fvlfp.runs.train import prepare, train
from fvlfp.training.loss import batch_loss, batches, plan, row_weights
from fvlfp.training.memory import estimate
from fvlfp.training.model import Prompts
from fvlfp.training.readout import embed_live
from fvlfp.training.reports import fusion_rule
from fvlfp.training.vision import vision_train

SETTINGS = {"clients": 3, "rounds": 2, "batch": 32, "device": "cpu", "model": "tiny-test-clip"}
ON = {"vision_ctx": 2, "vision_depth": 2}
HEADER = 128  # bytes in front of an array's numbers


def config(method="fedavg", **changes):
    return Config.make("smoke", method, **(SETTINGS | ON | changes))


@pytest.fixture(scope="module")
def faces():
    return toyfaces.make(240, seed=0, label="smiling")


@pytest.fixture(scope="module")
def prepared(encoder, faces, tmp_path_factory):
    return prepare(config(), dataset=faces, encoder=encoder, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def recorded(monkeypatch):
    """Every message of a run: [(question, answer)]."""
    found = []
    send = LocalGrid._deliver

    def spy(self, message):
        key = send(self, message)
        found.append((message, self._replies[key]))
        return key

    monkeypatch.setattr(LocalGrid, "_deliver", spy)
    return found


def test_pixels_are_the_transform_and_clients_share_them(encoder, faces, prepared, tmp_path):
    pixels = read_pixels(encoder, faces.images, cache=tmp_path)
    normalise = encoder.transform.transforms[-1]
    wanted = torch.stack([encoder.transform(faces.images[i]) for i in (3, 7)])
    assert torch.equal(normalise(pixels[torch.tensor([3, 7])].float() / 255), wanted)
    assert isinstance(pixels.store, np.memmap)
    (file,) = tmp_path.glob("*.npy")
    before = file.stat().st_mtime_ns
    again = read_pixels(encoder, faces.images, cache=tmp_path)
    assert file.stat().st_mtime_ns == before
    assert (again.store == pixels.store).all()
    half = file.read_bytes()[:1000]
    file.unlink()  # the old one is still mapped
    file.write_bytes(half)
    assert (read_pixels(encoder, faces.images, cache=tmp_path).store == again.store).all()
    assert (read_pixels(encoder, faces.images).store == again.store).all()
    stores = [split.pixels.store for c in prepared.clients for split in (c.train, c.val)]
    assert all(store is stores[0] for store in stores)


def test_the_bare_tower_sees_what_was_cached(prepared):
    data = prepared.clients[0].train
    z = prepared.task.image.encode(data.pixels[torch.arange(len(data))])
    torch.testing.assert_close(z, data.z, atol=1e-6, rtol=0)
    assert embed_live(data, prepared.task, None) is data.z


def test_off_is_off(encoder, faces, prepared, tmp_path):
    """With vision_ctx = 0 there are no pixels, nothing more travels, and vision_depth changes nothing."""
    plain = prepare(config(vision_ctx=0), dataset=faces, encoder=encoder, cache=tmp_path)
    assert plain.task.image is None
    assert plain.test.pixels is None
    assert not list(tmp_path.glob("pixels-*"))
    a, b = (train(config(vision_ctx=0, vision_depth=d), plain, progress=None) for d in (1, 2))
    assert a.vision is None
    assert torch.equal(a.prompts, b.prompts)
    assert [row.uplink_bytes for row in a.history] == [3 * (HEADER + 4 * a.prompts.numel())] * 2
    with pytest.raises(InputError, match="vision_ctx differs from what was prepared"):
        train(config(), plain, progress=None)
    with pytest.raises(InputError, match="vision prompts need pictures"):
        embed_live(plain.test, plain.task, torch.zeros(1, 2, 32))


def test_one_step_by_hand(prepared):
    """Adam's first step moves every number by lr against the sign of its gradient, of an unsaved pass too."""
    cfg = config(batch=10_000)
    task, data = prepared.task, prepared.clients[0].train
    start = task.initial, task.initial_vision
    new, loss = vision_train(
        Prompts(*start),
        data,
        task,
        cfg,
        projection=None,
        directions={},
        seed_name="one",
    )
    params = [t.clone().requires_grad_() for t in start]
    drawn = plan(data, task, cfg, "one")
    (batch,) = batches(data, row_weights(data, task, cfg), drawn, cfg.batch)
    z = task.image.encode(data.pixels[drawn.rows[0]], params[1], recompute=False)
    wanted = batch_loss(task.encode_texts(params[0], pairs=False), batch._replace(z=z), task, cfg, {})
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), abs=1e-6)
    for moved_to, old in zip((new.text, new.vision), params, strict=True):
        clear = old.grad.abs() > 1e-4
        assert clear.float().mean() > 0.5
        moved = (moved_to - old).detach()
        torch.testing.assert_close(moved[clear], -cfg.lr * old.grad.sign()[clear], atol=0.01 * cfg.lr, rtol=0)


def test_a_run_trains_resumes_and_predicts(prepared, tmp_path):
    class Kill(Exception):
        pass

    def kill(line):
        raise Kill

    cfg = config("fvlfp", rounds=3)
    straight = train(cfg, prepared, progress=None)
    assert straight.vision.shape == (2, 2, 32)
    assert not torch.equal(straight.vision, prepared.task.initial_vision)
    losses = [row.loss for row in straight.history]
    assert losses[-1] < losses[0]

    with pytest.raises(Kill):
        train(cfg, prepared, out=tmp_path, progress=kill)
    resumed = train(cfg, prepared, out=tmp_path, resume=True, progress=None)
    assert torch.equal(resumed.vision, straight.vision)
    assert torch.equal(resumed.prompts, straight.prompts)
    assert resumed.history == straight.history

    found = read_result(write_result(tmp_path, straight, {}))
    assert torch.equal(found.vision, straight.vision)
    score = predict(prepared, straight)["score"]
    assert (predict(prepared, found)["score"] == score).all()
    blind = dataclasses.replace(straight, model=Prompts(straight.prompts))
    assert not np.allclose(predict(prepared, blind)["score"], score, atol=1e-4)


def test_prompts_of_both_towers_travel_and_nothing_else(prepared, recorded):
    trained = train(config("fvlfp"), prepared, progress=None)
    last = [(m, r) for m, r in recorded if m.metadata.message_type == "train"][-3:]
    before = trained.history[-2]
    means = {"perf_mean": before.balanced_accuracy, "disp_mean": before.odds_gap}
    sums, weights = {"prompts": 0.0, "vision": 0.0}, 0.0
    for question, reply in last:
        assert set(reply.content) == {"arrays", "metrics"}
        assert set(question.content["arrays"]) == set(reply.content["arrays"]) == set(sums)
        report = reply.content["metrics"]
        assert set(report) == {"num-examples", "perf", "disp", "loss", "client"}
        weight = client_weight(
            report["num-examples"],
            report["perf"],
            report["disp"],
            **means,
            fusion=fusion_rule(config("fvlfp"), 2),
        )
        for name, tensor in read_arrays(reply.content, "arrays").items():
            sums[name] = sums[name] + weight * tensor.double()
        weights += weight
    for name, fused in (("prompts", trained.prompts), ("vision", trained.vision)):
        torch.testing.assert_close((sums[name] / weights).float(), fused, atol=1e-6, rtol=0)
    bytes_sent = 2 * HEADER + 4 * (trained.prompts.numel() + trained.vision.numel())
    assert payload_bytes(last[0][1].content) == bytes_sent
    assert trained.history[-1].uplink_bytes == 3 * bytes_sent
    others = [r.content["arrays"] for m, r in recorded if m.metadata.message_type != "train"]
    assert others
    assert all(not {"prompts", "vision"} & set(arrays) for arrays in others)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda v: v * torch.nan, "vision holds NaN"),
        (lambda v: v[:1], r"vision is \(1, 2, 32\) float32, not \(2, 2, 32\)"),
        (lambda v: v + 1000, "an update of length .* is past 10 times the median"),
        (None, r"the arrays are \['prompts'\], not \['prompts', 'vision'\]"),
    ],
    ids=["nan", "shape", "long", "absent"],
)
def test_bad_vision_prompts_are_refused(prepared, monkeypatch, changed, reason):
    make = apps.one_by_one

    def bad(task, cfg):
        trainer = make(task, cfg)

        def train(question, data):
            result = trainer(question, data)
            if data.client == 1:
                vision = None if changed is None else changed(result.model.vision)
                result = result._replace(model=Prompts(result.model.text, vision))
            return result

        return train

    monkeypatch.setattr(apps, "one_by_one", bad)
    row = train(config(rounds=1), prepared, progress=None).history[0]
    assert row.clients == 2
    assert len(row.reasons) == 1
    assert re.search(reason, row.reasons[0]), row.reasons


@pytest.mark.parametrize(
    "changes", [{"pooling": "central"}, {"robust": "median"}, {"lambda_prox": 0.1}], ids=str
)
def test_it_goes_with(prepared, changes):
    trained = train(config(rounds=1, **changes), prepared, progress=None)
    assert torch.isfinite(trained.vision).all()
    assert len(trained.history) == 1


def test_memory_counts_the_image_tower(encoder, prepared):
    without = dataclasses.replace(prepared.task, image=None, initial_vision=None)
    cfg = config()
    more = estimate(encoder, prepared.task, cfg, 100).saved - estimate(encoder, without, cfg, 100).saved
    inputs = 4 * 32 * (5 + 2) * 32 * 2  # batch, tokens, width, blocks
    assert more > inputs
    assert more < 30 * inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "toyclip"}, "image tower cannot take prompts"),
        ({"vision_depth": 3}, "vision_depth = 3: this image tower has 2 layers"),
    ],
    ids=["resnet", "deep"],
)
def test_towers_that_cannot_are_refused_before_any_picture_is_read(
    faces, encoder, tmp_path, changes, message
):
    own = {} if "model" in changes else {"encoder": encoder}
    with pytest.raises(InputError, match=message):
        prepare(config(**changes), dataset=faces, cache=tmp_path, **own)
    assert not list(tmp_path.iterdir())


def test_a_node_of_a_deployment_embeds_its_own_pictures(tiny_files, tmp_path):
    own = {"model_config": str(tiny_files[0]), "pretrained": str(tiny_files[1]), "device": "cpu"}
    cfg = config(clients=2, n=120, rounds=1, **own)
    make_data(tmp_path, cfg)
    server = tmp_path / "server"
    (server / "server.json").write_text(json.dumps(own))
    site = Site.open(cfg, Card.read(server / "words.toml"))
    words = run_config_of(site, server=str(server), resume=False)

    class Nodes(ClientApp):
        def __call__(self, message, context):
            k = context.node_config["partition-id"]
            node = {"client": k, "data": str(tmp_path / f"node-{k}" / "faces.csv"), **own}
            return open_node(words, node)(message, context)

    with in_this_process():
        run_server(LocalGrid(Nodes(), 2), words)
    trained = read_result(server / "prompts.safetensors")
    assert trained.vision.shape == (2, 2, 32)
    assert not torch.equal(trained.vision, site.task.initial_vision)
    assert len(list(tmp_path.glob("node-*/features/pixels-*.npy"))) == 2
