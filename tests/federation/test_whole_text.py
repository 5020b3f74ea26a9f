"""Training with a text tower that is not causal: the same loop, together or one client after another."""

import pytest
import torch

from fvlfp.clip.encoder import Encoder
from fvlfp.clip.whole_text import WholeTextTower
from fvlfp.runs.train import train
from tests.conftest import plant


@pytest.fixture(scope="module")
def whole(encoder):
    """The tiny model, its text tower run at whole length as SigLIP's is."""
    made = Encoder(encoder.model, encoder.transform, encoder.tokenizer, encoder.provenance)
    made.__dict__["text"] = WholeTextTower(encoder.model, encoder.tokenizer)
    return plant(made)


def test_it_trains_and_clients_together_equal_one_by_one(whole):
    cfg = whole.cfg.replace(rounds=1, lambda_dsop=0.0)
    together = train(cfg, whole, progress=None)
    one_by_one = train(cfg, whole, stacked=False, progress=None)
    torch.testing.assert_close(
        torch.as_tensor(together.prompts), torch.as_tensor(one_by_one.prompts), atol=1e-4, rtol=0
    )
    moved = (torch.as_tensor(together.prompts) - whole.task.initial).abs().amax((1, 2))
    assert (moved > 1e-3).all()  # the context, and what is added in the deeper layer
