"""Training steps replayed as a CUDA graph: one call starts the few hundred small kernels of a step.

On a GPU a step of a narrow tower takes as long as the host needs to start its kernels one by one. A graph
holds the same kernels on the same memory, so it gives the numbers of the step itself. It is recorded once a
stack of clients has kept its size for some steps, and its first result is compared with the step's. Where
recording fails or the numbers differ, steps run one by one again, and one line in the log says why.
`FVLFP_CUDA_GRAPHS=off` in the environment switches replaying off. On a CPU there is nothing to replay.

What this module does not do: it compiles nothing. `torch.compile` halves a step on a CPU, and takes longer
to compile than whole runs take (benchmarks/results/speed.md).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fvlfp.clip.device import is_cuda
from fvlfp.training.loss import Batch

log = logging.getLogger("fvlfp")

#: Batches of n clients -> their losses (n,), and the gradient of each parameter.
Step = Callable[[Batch], tuple[Tensor, list[Tensor]]]

#: The step of one size at which it is recorded; those before load what CUDA loads when it is first used.
WARM_UP = 3


def replayed(step: Step, device: torch.device) -> Step:
    """The step, replayed where the device can."""
    wanted = is_cuda(device) and os.environ.get("FVLFP_CUDA_GRAPHS") != "off"
    return ReplayedStep(step) if wanted else step


class ReplayedStep:
    """A step that records itself. A result is valid until the next one is asked for."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._works = True
        self._size = self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """What the step gives."""
        if len(batch.y) != self._size:
            self._size, self._seen, self._graph = len(batch.y), 0, None
        self._seen += 1
        if self._works and self._seen >= WARM_UP:
            try:
                return self._replay(batch)
            except RuntimeError as error:
                self._works, self._graph = False, None
                log.warning("training steps run one by one: %s", str(error).splitlines()[0])
        return self._step(batch)

    def _replay(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        if self._graph is None:
            self._batch, self._graph = tree_map(torch.clone, batch), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self._step(self._batch)
            return self._step(batch)  # recording computes nothing
        for place, new in zip(tree_leaves(self._batch), tree_leaves(batch), strict=True):
            place.copy_(new)
        self._graph.replay()
        if self._seen == WARM_UP + 1:
            self._check(*self._step(batch))
        return self._result

    def _check(self, losses: Tensor, gradients: list[Tensor]) -> None:
        """Raise RuntimeError unless the replayed step gave these numbers, up to sums in another order."""
        pairs = zip([self._result[0], *self._result[1]], [losses, *gradients], strict=True)
        same = torch.stack([(a - b).abs().max() <= 1e-5 + 1e-3 * b.abs().max() for a, b in pairs])
        if not bool(same.all()):
            raise RuntimeError("a replayed step gave other numbers")
