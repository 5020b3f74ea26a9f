"""A Flower Grid in this process: the same ClientApp and ServerApp, no Ray, no background server.

Messages are deep-copied both ways, as if they had travelled: nothing can leak through shared memory. A
client that raises an exception answers with a Flower error, as it would on a SuperNode.

What this module does not do: it simulates no network, and it calls one client after another; what they can
compute at once is `together`'s business.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

#: Flower's own code for "the ClientApp raised an exception".
_CLIENT_APP_RAISED = 2


class LocalGrid(Grid):
    """Node ids are 1 ... clients; node k holds partition k - 1. A node keeps its Context between messages.

    together: called with all messages of one push and their Contexts before any client is, so that work of
    clients that share this process can be done at once.
    """

    def __init__(
        self,
        client_app: ClientApp,
        clients: int,
        *,
        together: Callable[[list[tuple[Message, Context]]], None] | None = None,
    ) -> None:
        self._app = client_app
        self._together = together
        self._run = Run.create_empty(run_id=1)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, clients + 1)
        }

    def set_run(self, run: Run) -> None:
        """Keep the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, in order."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message's client now; the replies wait to be pulled."""
        messages = list(messages)
        if self._together:
            self._together([(m, self._contexts[m.metadata.dst_node_id]) for m in messages])
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull; nothing to wait for."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        sent = copy.deepcopy(message)
        sent.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        try:
            reply = self._app(sent, self._contexts[sent.metadata.dst_node_id])
        except Exception as error:  # whatever a client raises, the run must hear of it and go on
            text = f"{type(error).__name__}: {error}"
            reply = Message(Error(code=_CLIENT_APP_RAISED, reason=text), reply_to=sent)
        self._replies[sent.metadata.message_id] = copy.deepcopy(reply)
        return str(sent.metadata.message_id)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Flower messages ask which task makes them; inside this block it is the server of run 1."""
    names = ("_task_id", "_run_id", "_node_id")
    before = [getattr(TaskIdentity, name) for name in names]
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(TaskIdentity, name, value)
