"""What a device can do: whether it is there, its number formats, copies beside its work, free memory.

What this module does not do: it moves no model; a tensor follows the device of what it meets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvlfp.errors import InputError

#: The words for the number format of the frozen image tower.
PRECISIONS = ("auto", "float32", "bf16")


def pick_device(name: str = "auto") -> torch.device:
    """cuda, then mps, then cpu.

    Raises:
        InputError: a device was named that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there.get(name, False):
        raise InputError(f"device = {name!r} is not available on this machine")
    return torch.device(name)


def tower_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """What the frozen image tower computes in: torch.float32 or torch.bfloat16.

    auto: bfloat16 on an NVIDIA GPU of capability 8 or more, float32 elsewhere: a T4 (7.5) has no bfloat16
    convolutions. bf16: also on a CPU, which is slower than float32 where the CPU has no such instructions.

    Raises:
        InputError: another word, or bf16 on a device that does not compute in it.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision = {precision!r} is not one of {', '.join(PRECISIONS)}")
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bf16" and not able and device.type != "cpu":
        raise InputError(f"precision = 'bf16': {device.type} on this machine does not compute in bfloat16")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and able) else torch.float32


def is_cuda(device: torch.device) -> bool:
    """Whether copies from pinned memory run beside the device's work, and Adam has a fused kernel."""
    return device.type == "cuda"


def send(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without a wait where the device can copy beside its work."""
    if not is_cuda(device) or is_cuda(x.device):
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that new tensors may take on a GPU; None for a CPU, whose memory others share."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a CPU's tower frees after each batch, which it would ask for again.

    It keeps twice the largest block that was ever freed, up to 64 MiB (mallopt(3), M_MMAP_THRESHOLD): so one
    is freed here. Where another library hands out memory, this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
