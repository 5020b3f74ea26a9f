"""Towers that see the whole text: against open_clip's `encode_text`, and prompts against their words."""

import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fvlfp.clip.build import build_model
from fvlfp.clip.causal_text import CausalTextTower
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.towers import open_text_tower
from fvlfp.clip.whole_text import WholeTextTower
from fvlfp.errors import InputError

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
}
TEXTS = ["a photo of a smiling face", "a photo of a dog", "a photo of a very old round face with a hat"]

#: What makes a family's text tower, in small.
FAMILIES = {
    "siglip": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}},
    "siglip2": {"no_causal_mask": True, "pool_type": "last", "act_kwargs": {"approximate": "tanh"}},
    "mobileclip2": {"no_causal_mask": True},
    "first": {"no_causal_mask": True, "pool_type": "first"},
    "causal-last": {"pool_type": "last"},
}


def tiny(tmp_path, name, text, **more):
    """An encoder of the tiny model with another text tower, and random weights."""
    config = {**TINY, "text_cfg": TINY["text_cfg"] | text, "custom_text": True, **more}
    torch.manual_seed(3)
    model = build_model(name, config)
    for p in model.parameters():  # biases start at 0 and would hide a mistake
        torch.nn.init.normal_(p, std=0.05)
    model.logit_scale.data.fill_(2.0)
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, tmp_path / f"{name}.safetensors")
    return Encoder.load(
        name,
        pretrained=str(tmp_path / f"{name}.safetensors"),
        model_config=tmp_path / f"{name}.json",
        device="cpu",
    )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("family"), request.param, FAMILIES[request.param])


def said_by_open_clip(encoder, texts):
    with torch.no_grad():
        return F.normalize(encoder.model.encode_text(encoder.tokenizer(texts)), dim=-1)


def test_plain_texts_equal_encode_text(family):
    assert isinstance(family.text, WholeTextTower)
    theirs = said_by_open_clip(family, TEXTS)
    torch.testing.assert_close(family.encode_texts(TEXTS), theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(family.text.encode(family.text.tokenize(TEXTS)), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_prompts_start_at_the_hand_written_words(family, depth):
    text = family.text
    prompts = text.initial_prompts("a photo of a", n_ctx=4, depth=depth, generator=torch.Generator())
    tokens = text.tokenize(["smiling face", "dog"], 4)
    found, states = text.encode_layers(tokens, torch.stack([prompts, prompts]))
    written = said_by_open_clip(family, ["a photo of a smiling face", "a photo of a dog"])
    assert found.shape == (2, 2, 16) and [s.shape for s in states] == [(2, 2, 32)] * 3
    for one in found:
        torch.testing.assert_close(one, written, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_equals_a_naive_version(family, depth):
    """open_clip's own blocks, one text at a time; deeper prompts are added."""
    p = torch.randn(depth, 5, 32, generator=torch.Generator().manual_seed(1))
    tower, tokenizer = family.model.text, family.tokenizer
    for phrase in ("smiling face", "a very old dog"):
        ids = tokenizer(f"a a a a a {phrase}")
        x = tower.token_embedding(ids)
        x[:, 1:6] = p[0]
        x = x + tower.positional_embedding
        for layer, block in enumerate(tower.transformer.resblocks):
            if 0 < layer < depth:
                x[:, 1:6] += p[layer]
            x = block(x, attn_mask=tower.attn_mask)
        at = {"last": -1, "first": 0, "argmax": int(ids.argmax())}[tower.pool_type]
        out = tower.ln_final(x)[0, at]
        proj = tower.text_projection
        wanted = F.normalize(proj(out) if callable(proj) else out @ proj, dim=-1)
        found = family.text.encode(family.text.tokenize([phrase], 5), p)[0]
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_reach_all_prompts_under_vmap_and_no_weight(family):
    tokens = family.text.tokenize(["smiling face", "dog"], 4)
    p = torch.stack(
        [family.text.initial_prompts("a", n_ctx=4, depth=2, generator=torch.Generator())] * 3
    ).requires_grad_()
    one_by_one = torch.stack([family.text.encode(tokens, one)[:, 0].sum() for one in p])
    together = torch.func.vmap(lambda one: family.text.encode(tokens, one)[:, 0].sum())(p)
    torch.testing.assert_close(together, one_by_one)
    together.sum().backward()
    assert (p.grad.abs().amax((2, 3)) > 0).all()
    assert all(weight.grad is None for weight in family.model.parameters())


def test_texts_that_are_too_long_are_refused_and_not_cut(family):
    with pytest.raises(InputError, match=r"text of 32 tokens .*, at most 24 fit: 'dog dog"):
        family.encode_texts(["dog " * 30])
    with pytest.raises(InputError, match=r"at most 21 fit"):
        family.text.tokenize(["dog " * 20], 4)
    with pytest.raises(InputError, match="depth = 4: this text tower has 3 layers"):
        family.text.initial_prompts("a", n_ctx=4, depth=4, generator=torch.Generator())


def test_a_tower_that_cannot_is_audited_and_refused_for_prompts_before_its_weights(tmp_path, monkeypatch):
    """CoCa: read at a class token of its own."""
    vision = TINY["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    words = {"width": 32, "heads": 2, "layers": 1, "context_length": 24, "vocab_size": 49408}
    words |= {"attn_pooler_heads": 2}
    made = tiny(
        tmp_path,
        "coca",
        {"embed_cls": True, "output_tokens": True},
        vision_cfg=vision,
        multimodal_cfg=words,
    )
    torch.testing.assert_close(made.encode_texts(TEXTS), said_by_open_clip(made, TEXTS), atol=1e-6, rtol=0)
    why = "cannot take prompts: it is read at a class token of its own, as CoCa's.*fvlfp audit clip"
    with pytest.raises(InputError, match=why):
        _ = made.text
    monkeypatch.setattr("fvlfp.clip.encoder.load_weights", lambda *a: pytest.fail("weights were read"))
    files = {"pretrained": str(tmp_path / "coca.safetensors"), "model_config": tmp_path / "coca.json"}
    with pytest.raises(InputError, match=why):
        Encoder.load("coca", **files, text_prompts=True)
    with pytest.raises(InputError, match="image tower cannot take prompts"):
        Encoder.load("coca", **files, vision_prompts=True)


def test_what_decides_which_tower(encoder):
    assert isinstance(encoder.text, CausalTextTower)
    other = SimpleNamespace(tokenizer_mode="clips")
    with pytest.raises(InputError, match="cannot take prompts"):
        open_text_tower(encoder.model, other)


def test_the_same_model_in_both_towers(encoder):
    """A causal tower run at whole length says the same plain texts."""
    whole = WholeTextTower(encoder.model, open_clip.SimpleTokenizer(context_length=24))
    torch.testing.assert_close(
        whole.encode(whole.tokenize(TEXTS)), encoder.encode_texts(TEXTS), atol=1e-6, rtol=0
    )
