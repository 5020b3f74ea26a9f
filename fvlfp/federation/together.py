"""All clients of one process train as one batch before the first of them is asked.

What this module does not do: it trains nothing itself, see `fvlfp.training.stacked`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from flwr.app import Context, Message, MessageType, RecordDict
from torch import Tensor

from fvlfp.config import Config
from fvlfp.federation.app import job_of, one_by_one
from fvlfp.training.local import ClientData, Job
from fvlfp.training.stacked import train_stacked
from fvlfp.training.task import Task

log = logging.getLogger("fvlfp")


class TrainTogether:
    """Trains all clients of one push of train messages; their apps then find their results here.

    A client whose message or data cannot be read is left out: its own app will say what is wrong with it.
    """

    def __init__(self, load: Callable[[Context], ClientData], task: Task, cfg: Config) -> None:
        self._load, self._task, self._cfg = load, task, cfg
        self._alone = one_by_one(task, cfg)
        self._found: dict[int, tuple[Tensor, Tensor, float]] = {}

    def __call__(self, sent: list[tuple[Message, Context]]) -> None:
        """What `LocalGrid` calls before any client."""
        jobs: dict[int, Job] = {}
        for message, context in sent:
            if message.metadata.message_type == MessageType.TRAIN:
                with contextlib.suppress(Exception):
                    data = self._load(context)
                    if len(data.train):
                        jobs[data.client] = job_of(message.content, data, self._task, self._cfg)
        try:
            found = train_stacked(list(jobs.values()), self._task, self._cfg)
        except RuntimeError as error:  # e.g. a loss that torch.func.vmap cannot take
            log.warning("clients train one after another: %s", str(error).splitlines()[0])
            found = []
        self._found = dict(zip(jobs, found, strict=False))

    def trainer(self, content: RecordDict, data: ClientData) -> tuple[dict[str, Tensor], Tensor, float]:
        """The result of the client whose turn it is, trained alone if no stack holds it."""
        if data.client not in self._found:
            return self._alone(content, data)
        prompts, texts, loss = self._found.pop(data.client)
        return {"prompts": prompts}, texts, loss
