"""The opened image tower against open_clip's own, and where vision prompts stand in it."""

import pytest
import torch
import torch.nn.functional as F

from fvlfp.clip.encoder import Encoder
from fvlfp.clip.image_tower import ImageTower
from fvlfp.errors import InputError


@pytest.fixture(scope="module")
def tower(encoder):
    return ImageTower(encoder.model, encoder.transform)


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()


def prompts_of(depth, n=3, seed=1):
    return torch.randn(depth, n, 32, generator=torch.Generator().manual_seed(seed))


def normalised(encoder, pixels):
    return encoder.transform.transforms[-1](pixels.float() / 255)


@torch.no_grad()
def test_without_prompts_it_is_open_clips_tower(encoder, tower, pixels):
    theirs = F.normalize(encoder.model.encode_image(normalised(encoder, pixels)), dim=-1)
    torch.testing.assert_close(tower.encode(pixels), theirs, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2])
def test_prompts_stand_where_vpt_deep_puts_them(encoder, tower, pixels, depth):
    """By hand, one picture at a time, with open_clip's own blocks."""
    v, visual = prompts_of(depth), encoder.model.visual
    for picture, found in zip(pixels, tower.encode(pixels, v), strict=True):
        patches = visual.conv1(normalised(encoder, picture[None]))[0].flatten(1).T
        x = visual.ln_pre(torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding)
        for layer, block in enumerate(visual.transformer.resblocks):
            if layer == 0:
                x = torch.cat([x, v[0]])
            elif layer < depth:
                x[-v.shape[1] :] = v[layer]
            x = block(x[None])[0]
        assert len(x) == 1 + 4 + 3
        wanted = F.normalize(visual.ln_post(x[0]) @ visual.proj, dim=-1)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_recomputing_changes_no_gradient_and_the_tower_gets_none(encoder, tower, pixels):
    grads = []
    for recompute in (True, False):
        v = prompts_of(2).requires_grad_()
        tower.encode(pixels, v, recompute=recompute)[:, 0].sum().backward()
        grads.append(v.grad)
    assert torch.equal(*grads)
    assert grads[0].abs().amin((1, 2)).min() > 0
    assert all(p.grad is None for p in encoder.model.parameters())


def test_recomputing_keeps_less(tower, pixels):
    def kept(recompute):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            tower.encode(pixels, prompts_of(2).requires_grad_(), recompute=recompute)
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_towers_and_depths_that_do_not_fit_are_refused(tower):
    v = tower.initial_prompts(n_ctx=4, depth=2, generator=torch.Generator().manual_seed(0))
    assert v.shape == (2, 4, 32)
    with pytest.raises(InputError, match="vision_depth = 3: this image tower has 2 layers"):
        tower.initial_prompts(n_ctx=4, depth=3, generator=torch.Generator())
    toy = Encoder.load("toyclip", device="cpu")
    with pytest.raises(InputError, match="image tower cannot take prompts"):
        ImageTower(toy.model, toy.transform)
