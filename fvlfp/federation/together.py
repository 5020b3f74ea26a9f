"""All clients of one process train as one batch before the first of them is asked.

What this module does not do: it trains nothing itself, see `fvlfp.training.stacked`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from flwr.app import Context, Message

from fvlfp.config import Config
from fvlfp.federation.client_app import job_for, one_by_one
from fvlfp.federation.protocol import TRAIN, TrainQuestion
from fvlfp.training.examples import ClientData
from fvlfp.training.local import Job, LocalResult
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
        self._results: dict[int, LocalResult] = {}

    def __call__(self, sent: list[tuple[Message, Context]]) -> None:
        """What `LocalGrid` calls before any client."""
        jobs: dict[int, Job] = {}
        for message, context in sent:
            if message.metadata.message_type == TRAIN:
                with contextlib.suppress(Exception):
                    data = self._load(context)
                    if len(data.train):
                        jobs[data.client] = job_for(TrainQuestion.read(message.content), data, self._task)
        try:
            results = train_stacked(list(jobs.values()), self._task, self._cfg)
        except RuntimeError as error:  # e.g. a loss that torch.func.vmap cannot take
            log.warning("clients train one after another: %s", str(error).splitlines()[0])
            results = []
        self._results = dict(zip(jobs, results, strict=False))

    def trainer(self, question: TrainQuestion, data: ClientData) -> LocalResult:
        """The result of the client whose turn it is, trained alone if no stack holds it."""
        if data.client in self._results:
            return self._results.pop(data.client)
        return self._alone(question, data)
