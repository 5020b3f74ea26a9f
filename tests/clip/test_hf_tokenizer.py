"""Tokenizers of Hugging Face, where the extra `transformers` is installed: SigLIP's and CLIPA's ways."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fvlfp.clip.build import build_model
from fvlfp.clip.encoder import Encoder
from fvlfp.errors import InputError

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
WORDS = ["a", "photo", "of", "smiling", "face", "dog", "very", "old", "round"]


def save_tokenizer(folder, kind):
    """siglip: text, then </s>, which also fills up. clipa: [CLS] text [SEP], filled with [PAD]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = {"siglip": ["<pad>", "</s>", "<unk>"], "clipa": ["[PAD]", "[CLS]", "[SEP]", "<unk>"]}[kind]
    vocab = {word: i for i, word in enumerate(special + WORDS)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    form = {"siglip": "$A </s>", "clipa": "[CLS] $A [SEP]"}[kind]
    used = [(name, vocab[name]) for name in special if name in form]
    made.post_processor = processors.TemplateProcessing(single=form, special_tokens=used)
    names = {"siglip": {"pad_token": "</s>", "eos_token": "</s>"}}.get(
        kind, {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **names)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module", params=["siglip", "clipa"])
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    save_tokenizer(folder, request.param)
    text = {"context_length": 16, "vocab_size": 16, "width": 32, "heads": 2, "layers": 2}
    text |= {"no_causal_mask": True, "pool_type": "last", "hf_tokenizer_name": "not/asked"}
    if request.param == "clipa":
        text["tokenizer_kwargs"] = {"strip_sep_token": True}
    vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(0)
    model = build_model("hf", config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)
    save_file(dict(model.state_dict()), folder / "open_clip_model.safetensors")
    return Encoder.load(f"local-dir:{folder}", device="cpu")


def test_texts_and_prompts_say_what_open_clip_says(encoder):
    texts = ["a photo of a smiling face", "a photo of a very old dog"]
    with torch.no_grad():
        theirs = F.normalize(encoder.model.encode_text(encoder.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(encoder.encode_texts(texts), theirs, atol=1e-6, rtol=0)
    text = encoder.text
    prompts = text.initial_prompts("a photo of a", n_ctx=4, depth=2, generator=torch.Generator())
    found = text.encode(text.tokenize(["smiling face", "very old dog"], 4), prompts)
    torch.testing.assert_close(found, theirs, atol=1e-6, rtol=0)


def test_a_text_that_would_be_cut_is_refused(encoder):
    with pytest.raises(InputError, match="at most 16 fit"):
        encoder.encode_texts(["dog " * 16])
    with pytest.raises(InputError, match="at most 13 fit"):
        encoder.text.tokenize(["dog " * 12], 4)
