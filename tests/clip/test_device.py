"""The number format of the frozen image tower follows what the device can do."""

import pytest
import torch

from fvlfp.clip.device import tower_dtype
from fvlfp.errors import InputError

T4, A100 = (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("device", "capability", "precision", "dtype"),
    [
        ("cuda", A100, "auto", torch.bfloat16),
        ("cuda", A100, "bf16", torch.bfloat16),
        ("cuda", A100, "float32", torch.float32),
        ("cuda", T4, "auto", torch.float32),
        ("mps", A100, "auto", torch.float32),
        ("cpu", A100, "auto", torch.float32),
        ("cpu", A100, "bf16", torch.bfloat16),
    ],
)
def test_bfloat16_only_where_a_device_computes_in_it(monkeypatch, device, capability, precision, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    assert tower_dtype(torch.device(device), precision) == dtype


def test_what_a_device_cannot_do_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: T4)
    with pytest.raises(InputError, match="does not compute in bfloat16"):
        tower_dtype(torch.device("cuda"), "bf16")
    with pytest.raises(InputError, match="precision = 'half'"):
        tower_dtype(torch.device("cuda"), "half")
