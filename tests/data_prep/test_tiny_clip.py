"""The built-in model: the recorded weights, plain open_clip, and a zero-shot disparity to mitigate."""

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from data_prep import contrastive, tiny_clip
from fvlfp.data import toyfaces

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "fvlfp/clip/toyclip"


@pytest.fixture(scope="module")
def toyclip():
    """Model, transform and tokenizer, loaded the plain open_clip way."""
    open_clip.add_model_config(FOLDER / "ToyCLIP-64.json")
    weights = str(FOLDER / "toyclip64_fp16.safetensors")
    model, _, transform = open_clip.create_model_and_transforms("ToyCLIP-64", pretrained=weights)
    return model.eval(), transform, open_clip.get_tokenizer("ToyCLIP-64")


@pytest.fixture(scope="module")
def faces():
    """1,000 faces of the default test split (seed 0) and their embeddings are enough for a bound."""
    data = toyfaces.make(3_000)
    return data.take((data.frame["split"] == "test").to_numpy())


@torch.no_grad()
def embed(toyclip, data):
    model, transform, _ = toyclip
    return model.encode_image(torch.stack([transform(x) for x in data.images]), normalize=True)


@torch.no_grad()
def says(toyclip, z, texts):
    """Zero-shot: the number of the nearest text, shape (n,)."""
    model, _, tokenizer = toyclip
    return (z @ model.encode_text(tokenizer(texts), normalize=True).T).argmax(dim=1).numpy()


def test_files_are_the_recorded_ones_and_small():
    weights = FOLDER / "toyclip64_fp16.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in (FOLDER / "README.md").read_text()
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) <= 8_000_000
    assert json.loads((FOLDER / "ToyCLIP-64.json").read_text()) == tiny_clip.CONFIG
    assert tiny_clip.CONFIG["quick_gelu"] is False


def test_zero_shot_is_accurate_and_unfair(toyclip, faces):
    """The bounds of the default task: something works, and there is something to mitigate."""
    frame = faces.frame
    said = says(toyclip, embed(toyclip, faces), faces.card.class_texts("smiling")) == 1
    truth = (frame["smiling"] == "yes").to_numpy()
    assert (said[truth].mean() + 1 - said[~truth].mean()) / 2 >= 0.85
    round_ = (frame["shape"] == "round").to_numpy()
    assert said[round_].mean() - said[~round_].mean() >= 0.10  # parity
    tpr = said[round_ & truth].mean() - said[~round_ & truth].mean()
    fpr = said[round_ & ~truth].mean() - said[~round_ & ~truth].mean()
    assert max(tpr, fpr) >= 0.10  # odds


def test_it_knows_the_other_words_of_the_card(toyclip, faces):
    z = embed(toyclip, faces)
    for label in ("glasses", "hat"):
        truth = (faces.frame[label] == "yes").to_numpy()
        said = says(toyclip, z, faces.card.class_texts(label)) == 1
        assert (said[truth].mean() + 1 - said[~truth].mean()) / 2 >= 0.8
    for attribute, groups in toyfaces.GROUPS.items():
        truth = faces.frame[attribute].map(groups.index).to_numpy(dtype=int)
        words = faces.card.groups[attribute].words
        for k in range(min(map(len, words.values()))):  # the synonyms as well
            texts = [f"a drawing of a {words[g][k]} face" for g in groups]
            assert (says(toyclip, z, texts) == truth).mean() >= 0.7


def test_its_transform_keeps_a_toy_face_as_it_is(toyclip, faces):
    _, transform, _ = toyclip
    ours = contrastive.normalise(faces.images.array[:3])
    theirs = torch.stack([transform(x) for x in faces.images[:3]])
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
def test_text_without_padding_equals_the_models_own(toyclip):
    model, _, tokenizer = toyclip
    tokens = tokenizer(["a smiling face", "a drawing of a serious violet square face with a hat"])
    ours = contrastive.encode_text(model, tokens)
    assert torch.allclose(ours, model.encode_text(tokens), atol=1e-5)


def test_contrastive_by_hand():
    """Row 1: two true columns of three, row 2: one."""
    logits = torch.tensor([[0.0, 0.0, 0.0], [np.log(2.0), 0.0, 0.0]])
    true = torch.tensor([[True, True, False], [True, False, False]])
    wanted = (np.log(3) + np.log(2)) / 2
    assert contrastive.contrastive(logits, true).item() == pytest.approx(wanted, abs=1e-6)


def test_captions_state_the_truth():
    rng = np.random.default_rng(0)
    row = {"smiling": "yes", "glasses": "no", "hat": "yes", "shape": "round", "tint": "amber"}
    seen = set()
    for _ in range(300):
        text, facts = tiny_clip.caption(row, rng)
        assert facts.items() <= row.items() and " face" in f" {text}"
        assert not {"serious", "square", "teal", "violet"} & set(text.split())
        for fact, value in facts.items():
            assert any(w in text for w in tiny_clip.WORDS[fact, value])
        seen.add(len(facts))
    assert seen == {1, 2, 3, 4, 5}


def test_wilson_by_hand():
    # Wilson 1927 for 0 and for 10 of 10: 3.8415 / (10 + 3.8415)
    assert tiny_clip.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert tiny_clip.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
