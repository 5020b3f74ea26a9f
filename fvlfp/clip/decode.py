"""From stored pictures to batches of uint8 pixels, several batches ahead of the tower that takes them.

A picture is opened, resized and cropped as the model's transform says. The transform's last step, the
normalisation, is done to whole batches: on a GPU, or by a thread beside a CPU's tower. Threads are enough to
open pictures for a CPU's tower, because Pillow decodes outside Python's lock; they do not scale with their
number, so a GPU gets worker processes.

What this module does not do: it keeps nothing; see `fvlfp.clip.cache` and `fvlfp.clip.pixels`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

log = logging.getLogger("fvlfp")

#: Batches that each thread or worker process holds ready.
AHEAD = 2
#: Where worker processes leave their batches, where the system has it.
SHARED = Path("/dev/shm")

Finish = Callable[[Tensor], Tensor]


def as_it_is(batch: Any) -> Any:
    """The batch, with nothing done to it."""
    return batch


class Pictures(Dataset[Tensor]):
    """Pictures by number, as pixels: what a worker process is given.

    transform: of one picture. Where it ends in `ToTensor` and a normalisation, as open_clip makes it, pixels
    are uint8 and not normalised yet; otherwise they are what the transform makes, float32.
    value_bytes: of one number of a picture, 1 or 4.
    """

    def __init__(self, images: Sequence[Any], transform: Any) -> None:
        from torchvision.transforms import (  # seconds, which a lesson's start need not wait
            Normalize,
            ToTensor,
        )

        self._images, self._transform = images, transform
        steps: list[Any] = list(getattr(transform, "transforms", []))
        fits = len(steps) > 1 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)
        self._steps = steps[:-2] if fits else None
        self.value_bytes = 1 if fits else 4

    def __getitem__(self, i: int) -> Tensor:
        """(3, H, W). Raises InputError for a picture that cannot be read."""
        found = self.__getitems__([i])
        if isinstance(found, Exception):
            raise found
        return found[0]

    def __getitems__(self, rows: Sequence[int]) -> Tensor | Exception:
        """(n, 3, H, W); or what went wrong, which a worker process could not raise as it is."""
        try:
            if self._steps is None:
                return torch.stack([self._transform(self._images[i]) for i in rows])
            pictures = np.stack([np.asarray(self._resized(i)) for i in rows])  # (n, H, W, 3)
            return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        except Exception as error:
            return error

    def _resized(self, i: int) -> Any:
        """Picture i as PIL has it, resized and cropped."""
        image = self._images[i]
        for step in self._steps or []:
            image = step(image)
        return image


def workers_with_room(workers: int, batch_bytes: int) -> int:
    """How many of so many worker processes have room for their batches in shared memory; 0: use threads.

    A container often has 64 MB of it, and a process that writes past them is killed without a word.
    """
    if workers == 0 or not SHARED.is_dir():
        return workers
    room = shutil.disk_usage(SHARED).free // ((AHEAD + 1) * batch_bytes)  # one more is being read
    if room < workers:
        log.warning("%s has room for %d of %d processes that open images", SHARED, room, workers)
    return min(workers, room)


def batches_of(
    pictures: Pictures,
    cuts: Iterable[Sequence[int]],
    *,
    workers: int,
    pin: bool = False,
    finish: Finish = as_it_is,
) -> Generator[Tensor]:
    """The batches (n, 3, H, W) that `cuts` names, in order.

    workers: processes; 0 means threads of this one. pin: into memory from which a GPU copies beside its work.
    finish: what a thread makes of each batch before the tower gets it.

    Raises:
        InputError: a picture that cannot be read, as the sequence of pictures says it.
    """
    if workers:
        made = _by_processes(pictures, cuts, finish, workers, pin)
    else:
        made = _by_threads(pictures, cuts, finish)
    # Closed at once, also after an error: what the garbage collector closes later may hang a forked process.
    with closing(made):
        for batch in made:
            if isinstance(batch, Exception):
                raise batch
            yield batch


def _by_processes(
    pictures: Pictures, cuts: Iterable[Sequence[int]], finish: Finish, workers: int, pin: bool
) -> Generator[Tensor | Exception]:
    loader = DataLoader(
        pictures,
        batch_sampler=[list(cut) for cut in cuts],
        num_workers=workers,
        collate_fn=as_it_is,
        pin_memory=pin,
        prefetch_factor=AHEAD,
        worker_init_fn=_step_back,
    )
    made = iter(loader)

    def finished() -> Tensor | Exception | None:
        batch = next(made, None)
        return finish(batch) if isinstance(batch, Tensor) else batch

    with ThreadPoolExecutor(1) as pool:  # a busy worker hands over late: a thread waits for it, not the tower
        coming = pool.submit(finished)
        while (batch := coming.result()) is not None:
            coming = pool.submit(finished)
            yield batch


def _step_back(worker: int) -> None:
    """Where processors are short, the process that runs the tower goes first; Windows has no such call."""
    if hasattr(os, "nice"):
        os.nice(10)


def _by_threads(
    pictures: Pictures, cuts: Iterable[Sequence[int]], finish: Finish
) -> Generator[Tensor | Exception]:
    def finished(cut: Sequence[int]) -> Tensor | Exception:
        batch = pictures.__getitems__(cut)
        return finish(batch) if isinstance(batch, Tensor) else batch

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Tensor | Exception]] = deque()
        for cut in cuts:
            coming.append(pool.submit(finished, cut))
            if len(coming) > AHEAD * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def normalised(pixels: Tensor, transform: Any) -> Tensor:
    """What the whole transform makes of the pictures: (n, 3, H, W) float32, on the device of `pixels`."""
    if pixels.dtype != torch.uint8:
        return pixels
    done: Tensor = transform.transforms[-1](pixels.float() / 255)
    return done
