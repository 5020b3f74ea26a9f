"""From stored pictures to batches of uint8 pixels, several batches ahead of the tower that takes them.

A picture is opened, resized and cropped as the model's transform says. The transform's last step, the
normalisation, is done to whole batches: on a GPU, or, for a CPU's tower, by whoever opens them. Threads are
enough to open pictures for a CPU's tower, because Pillow decodes outside Python's lock; they do not scale
with their number, so a GPU gets worker processes.

What this module does not do: it keeps nothing; see `fvlfp.clip.cache` and `fvlfp.clip.pixels`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fvlfp.clip.preprocess import Normalise, normalisation

log = logging.getLogger("fvlfp")

#: Batches that each thread or worker process holds ready.
AHEAD = 2
#: Where worker processes leave their batches, where the system has it.
SHARED = Path("/dev/shm")


def as_it_is(batch: Any) -> Any:
    """The batch, with nothing done to it."""
    return batch


class Pictures(Dataset[Tensor]):
    """Pictures by number, as pixels: what a worker process is given.

    transform: of one picture. Where it ends in `ToTensor` and a normalisation, as open_clip makes it, pixels
    are uint8 and not normalised yet, unless they are `finished`; otherwise they are what the transform makes,
    float32. layout: of a batch in memory.
    value_bytes: of one number of a picture, 1 or 4.
    """

    def __init__(
        self,
        images: Sequence[Any],
        transform: Any,
        *,
        finished: bool = False,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._images, self._transform, self.layout = images, transform, layout
        last = normalisation(transform)
        self._steps = transform.transforms[:-2] if last else None
        self._finish = Normalise(last, torch.device("cpu")) if last and finished else as_it_is
        self.value_bytes = 1 if last and not finished else 4

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
                made = torch.stack([self._transform(self._images[i]) for i in rows])
                return made.contiguous(memory_format=self.layout)
            pictures = np.stack([np.asarray(self._resized(i)) for i in rows])  # (n, H, W, 3)
            pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
            return self._finish(pixels.contiguous(memory_format=self.layout))
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
    room = max((shutil.disk_usage(SHARED).free // batch_bytes - 1) // AHEAD, 0)  # 1 is in use
    if room < workers:
        log.warning("%s has room for %d of %d processes that open images", SHARED, room, workers)
    return min(workers, room)


def batches_of(
    pictures: Pictures, cuts: Sequence[Sequence[int]], *, workers: int, pin: bool = False
) -> Generator[Tensor]:
    """The batches (n, 3, H, W) that `cuts` names, in order; each holds until the next one is asked for.

    workers: processes; 0 means threads of this one. pin: into memory from which a GPU copies beside its work.

    Raises:
        InputError: a picture that cannot be read, as the sequence of pictures says it.
    """
    by_processes = workers and len(cuts) > 1
    made = _by_processes(pictures, cuts, workers) if by_processes else _by_threads(pictures, cuts)
    # Closed at once, also after an error: what the garbage collector closes later may hang a forked process.
    with closing(made):
        for batch in made:
            if isinstance(batch, Exception):
                raise batch
            yield batch.pin_memory() if pin else batch


class _Batches(Dataset[Exception | None]):
    """Batches by number, each left in one of a few places in memory that all processes share.

    Places are used again: new shared memory for every batch costs the process that runs the tower time.
    """

    def __init__(self, pictures: Pictures, cuts: Sequence[Sequence[int]], places: Sequence[Tensor]) -> None:
        self._pictures, self._cuts, self._places = pictures, cuts, places

    def __getitem__(self, k: int) -> Exception | None:
        """Make batch k; what went wrong, if something did."""
        made = self._pictures.__getitems__(self._cuts[k])
        if isinstance(made, Exception):
            return made
        self.place(k).copy_(made)
        return None

    def place(self, k: int) -> Tensor:
        """Where batch k is, or will be."""
        return self._places[k % len(self._places)][: len(self._cuts[k])]


def _by_processes(
    pictures: Pictures, cuts: Sequence[Sequence[int]], workers: int
) -> Generator[Tensor | Exception]:
    one = pictures.__getitems__(cuts[0][:1])  # its shape is that of all
    if isinstance(one, Exception):
        yield one
        return
    shape = max(map(len, cuts)), *one.shape[1:]
    places = [
        torch.empty(shape, dtype=one.dtype, memory_format=pictures.layout).share_memory_()
        for _ in range(min(AHEAD * workers + 1, len(cuts) - 1))  # those ahead, and the one in use
    ]
    batches = _Batches(pictures, cuts, places)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(1, len(cuts)),
        num_workers=workers,
        collate_fn=as_it_is,
        prefetch_factor=AHEAD,
        worker_init_fn=_step_back,
    )
    coming = iter(loader)
    yield pictures.__getitems__(cuts[0])  # while the processes begin
    for k, error in enumerate(coming, 1):
        yield error or batches.place(k)


def _step_back(worker: int) -> None:
    """Where processors are short, the process that runs the tower goes first; Windows has no such call."""
    if hasattr(os, "nice"):
        os.nice(10)


def _by_threads(pictures: Pictures, cuts: Sequence[Sequence[int]]) -> Generator[Tensor | Exception]:
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Tensor | Exception]] = deque()
        for cut in cuts:
            coming.append(pool.submit(pictures.__getitems__, cut))
            if len(coming) > AHEAD * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
