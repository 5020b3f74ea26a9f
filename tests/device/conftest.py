"""The planted clients of `tests/conftest.py`, on the pretended device."""

import dataclasses

import pytest
import torch

from fvlfp.clip import device
from fvlfp.clip import encoder as encoder_module
from fvlfp.clip.decode import batches_of
from fvlfp.clip.encoder import Encoder
from fvlfp.runs.train import Prepared
from fvlfp.training import local
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.task import Task
from tests.conftest import CARD
from tests.device.pretended import DEVICE, Watch, pretended

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def watch():
    """The pretended device is there, and it is what every `device` key picks."""
    with pretended() as watch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "pick_device", lambda name="auto": CPU if name == "cpu" else DEVICE)
        # worker processes would pin memory by a driver that is not there
        patch.setattr(encoder_module, "batches_of", lambda *a, **kw: batches_of(*a, workers=0))
        patch.setattr(torch.Tensor, "pin_memory", lambda x: x)
        for module in (device, encoder_module, local):
            patch.setattr(module, "is_cuda", lambda device: device.type == DEVICE.type)
        yield watch


@pytest.fixture(scope="module")
def encoder_there(tiny_files, watch: Watch) -> Encoder:
    config, weights = tiny_files
    return Encoder.load("tiny-test-clip", pretrained=str(weights), model_config=config, workers=0)


@pytest.fixture(scope="module")
def planted_there(planted: Prepared, encoder_there: Encoder) -> Prepared:
    """`planted`, its frozen model and every example on the device."""
    return dataclasses.replace(
        planted,
        task=Task.make(encoder_there, CARD, planted.cfg),
        clients=[ClientData(c.client, to_device(c.train), to_device(c.val)) for c in planted.clients],
        test=to_device(planted.test),
    )


def to_device(split: Split) -> Split:
    groups = {name: g.to(DEVICE) for name, g in split.g.items()}
    return Split(split.z.to(DEVICE), split.y.to(DEVICE), groups, split.pixels)
