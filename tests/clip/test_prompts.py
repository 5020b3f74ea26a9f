"""The opened text tower against open_clip's own, and prompts against the words they start from."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from fvlfp.errors import InputError

TEXTS = ["a photo of a smiling face", "a photo of a dog", "a photo of a very old round face with a hat"]


def test_truncation_is_exact(encoder):
    tokenizer = open_clip.get_tokenizer("tiny-test-clip")
    with torch.no_grad():
        padded = F.normalize(encoder.model.encode_text(tokenizer(TEXTS)), dim=-1)
    tokens = encoder.text.tokenize(TEXTS)
    assert tokens.ids.shape[1] < tokenizer(TEXTS).shape[1]
    torch.testing.assert_close(encoder.text.encode(tokens), padded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_start_at_the_hand_written_words(encoder, depth):
    text = encoder.text
    prompts = text.initial_prompts("a photo of a", n_ctx=4, depth=depth, generator=torch.Generator())
    learned = text.encode(text.tokenize(["smiling face", "dog"], 4), prompts)
    written = encoder.encode_texts(["a photo of a smiling face", "a photo of a dog"])
    torch.testing.assert_close(learned, written, atol=1e-6, rtol=0)


def naive_encode(encoder, prompts, phrase):
    """One text, one token at a time, no cleverness."""
    model, tokenizer = encoder.model, open_clip.get_tokenizer("tiny-test-clip")
    ids = (
        [tokenizer.sot_token_id]
        + [0] * prompts.shape[1]
        + tokenizer.encode(phrase)
        + [tokenizer.eot_token_id]
    )
    x = torch.stack([model.token_embedding.weight[i] for i in ids])
    for j in range(prompts.shape[1]):
        x[1 + j] = prompts[0, j]
    x = x + model.positional_embedding[: len(ids)]
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    for layer, block in enumerate(model.transformer.resblocks):
        if 0 < layer < len(prompts):
            for j in range(prompts.shape[1]):
                x[1 + j] = prompts[layer, j]
        x = block(x[None], attn_mask=mask)[0]
    out = model.ln_final(x[-1]) @ model.text_projection
    return out / out.norm()


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_encode_equals_a_naive_version(encoder, depth):
    prompts = torch.randn(depth, 5, 32, generator=torch.Generator().manual_seed(1))
    phrases = ["smiling face", "serious round face with glasses", "dog"]
    batch = encoder.text.encode(encoder.text.tokenize(phrases, 5), prompts)
    naive = torch.stack([naive_encode(encoder, prompts, phrase) for phrase in phrases])
    torch.testing.assert_close(batch, naive, atol=1e-5, rtol=0)


def test_gradient_reaches_every_prompt_and_nothing_else(encoder):
    prompts = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    encoder.text.encode(encoder.text.tokenize(["dog", "smiling face"], 4), prompts).sum().backward()
    assert (prompts.grad.abs().sum((1, 2)) > 0).all()
    assert all(p.grad is None for p in encoder.model.parameters())


def test_short_phrase_gets_random_vectors_in_front(encoder):
    make = encoder.text.initial_prompts
    a = make("a photo", n_ctx=4, depth=1, generator=torch.Generator().manual_seed(1))
    b = make("a photo", n_ctx=4, depth=1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(a, b)
    words = encoder.text.tokenizer.encode("a photo")
    assert torch.equal(a[0, 2:], encoder.model.token_embedding.weight[words].detach())


def test_what_does_not_fit_is_refused(encoder):
    with pytest.raises(InputError, match="depth = 9: this text tower has 3 layers"):
        encoder.text.initial_prompts("a", n_ctx=4, depth=9, generator=torch.Generator())
    with pytest.raises(InputError, match="n_ctx = 2 is less than the 4 tokens"):
        encoder.text.initial_prompts("a photo of a", n_ctx=2, depth=1, generator=torch.Generator())
    with pytest.raises(InputError, match="at most 18 fit: 'dog dog"):
        encoder.text.tokenize(["dog " * 30], n_ctx=4)
