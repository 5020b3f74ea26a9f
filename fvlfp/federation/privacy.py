"""Client-level differential privacy for the fused prompts: clipped updates, and noise for the largest weight.

Each client shortens its update to length at most C (`dp_clip`); the server adds Gaussian noise of standard
deviation `z C max_k w_k / sum_j w_j` to the fused prompts, z the noise multiplier (`dp_noise`). One client's
update moves the fused prompts by at most `C max_k w_k / sum_j w_j`, so every round is a Gaussian mechanism
with multiplier z, and T rounds cost what `epsilon` says (McMahan et al. 2018, with weights).

Flower's wrappers take C / K instead: the share of K equal weights. Where weights differ, that is too little
noise, and the privacy is that of `real_multiplier`, not z. (Flower refuses unequal weights when asked to
account, and says nothing when not.)

What this module does not do:
- It protects the prompts against whoever sees them; the server itself sees every update (central privacy).
- It takes the weights as public. The reports that come with an update (size, balanced accuracy, gap, loss)
  and DSOP's sums are not covered: with `method = "fedavg"` nothing but prompts and sizes goes on to anybody
  else; with FPF or DSOP more does.
- A run that is resumed draws new noise. A round that had ended and is run again after a kill is a second
  release of that round, which `epsilon` does not count.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from fvlfp.config import seed_for

log = logging.getLogger("fvlfp")


def clip_update(prompts: Tensor, start: Tensor, clip: float) -> Tensor:
    """`start` plus the update, shortened to length (L2, all numbers together) at most `clip`.

    The bound holds for what is returned, measured on the CPU in float64: where `clip` is near the rounding of
    float32, a sum of rounded numbers may be longer than meant, and is shortened again.
    """
    start = start.to(prompts.device)
    update = prompts - start
    scale = min(1.0, clip / max(float(update.norm()), 1e-30))
    out = start + update * scale
    while scale > 1e-6 and float((out - start).cpu().double().norm()) > clip * (1 + 1e-5):
        scale *= 0.9
        out = start + update * scale
    return out if scale > 1e-6 else start.clone()


def largest_share(weights: Sequence[float]) -> float:
    """`max_k w_k / sum_j w_j`: how much of the sum one client can be. 1 / K where all weights are equal."""
    return max(weights) / sum(weights)


def noise_std(weights: Sequence[float], *, clip: float, multiplier: float) -> float:
    """Standard deviation of the noise on each number of the fused prompts."""
    return multiplier * clip * largest_share(weights)


def real_multiplier(weights: Sequence[float], *, multiplier: float) -> float:
    """The noise multiplier that noise of standard deviation `multiplier * clip / K` really has."""
    return multiplier / (len(weights) * largest_share(weights))


def add_noise(prompts: Tensor, std: float, *, name: str) -> Tensor:
    """Prompts plus independent Gaussian noise, from the operating system's generator: fresh in every run.

    Noise that repeats is none: two runs that differ in one client's update would differ by that update. Only
    where the environment sets `FVLFP_NOISE_SEED`, as tests do, does it follow from that and from `name`.
    """
    seed = os.environ.get("FVLFP_NOISE_SEED")
    if seed is None:
        draw = random.SystemRandom().gauss
        noise = torch.tensor([draw(0.0, 1.0) for _ in range(prompts.numel())], dtype=torch.float64)
    else:
        log.warning("FVLFP_NOISE_SEED is set: the noise can be computed and subtracted; for tests only")
        generator = torch.Generator().manual_seed(seed_for(int(seed), name))
        noise = torch.randn(prompts.numel(), generator=generator, dtype=torch.float64)
    # Summed on the CPU: not every device has float64.
    return (prompts.cpu().double() + std * noise.reshape(prompts.shape)).to(prompts)


def epsilon(*, multiplier: float, rounds: int, delta: float) -> float:
    """epsilon of `rounds` Gaussian mechanisms in which every client takes part, by Google's dp-accounting.

    multiplier: noise standard deviation over the largest change one client can make; 0 gives infinity.
    delta: the probability with which the promise may fail; below 1 / (number of clients). Removing a client
    means setting its update to zero.
    """
    if multiplier == 0:
        return math.inf
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    # The tight accountant needs memory and minutes where epsilon is in the hundreds and means nothing anyway.
    accountant = PLDAccountant() if multiplier >= 0.1 * math.sqrt(rounds) else RdpAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(multiplier), rounds))
    return float(accountant.get_epsilon(delta))
