"""A ClientApp that is slow, or that sends garbage now and then, for `deploy.soak`.

A node's config says which: `ways="slow"` waits `SLOW` seconds before each answer; `ways="garbage"` sends, in
every even round, one of `GARBAGE` instead of an answer. All others answer as `fvlfp.runs.deployment` does.
"""

from __future__ import annotations

import time

import torch
from flwr.app import Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fvlfp.federation.protocol import arrays_of, number, read_arrays
from fvlfp.runs.deployment import NodeApp

#: seconds that the slow node waits before it answers
SLOW = 20.0


def nan(content: RecordDict) -> None:
    """Prompts that are no numbers."""
    prompts = read_arrays(content, "arrays")["prompts"]
    content["arrays"] = arrays_of({"prompts": torch.full_like(prompts, float("nan"))})


def another_shape(content: RecordDict) -> None:
    """Prompts of another shape."""
    content["arrays"] = arrays_of({"prompts": torch.zeros(3, 3)})


def no_array(content: RecordDict) -> None:
    """Bytes that are no array."""
    content.array_records["arrays"]["prompts"] = Array("float32", (3, 3), "numpy.ndarray", b"\x93NUMPY" * 99)


def no_report(content: RecordDict) -> None:
    """A report without its numbers."""
    content["metrics"] = MetricRecord({"perf": 10.0**300})


def long_error(content: RecordDict) -> None:
    """An error of a million characters instead of an answer."""
    raise RuntimeError("garbage " * 125_000)


GARBAGE = (nan, another_shape, no_array, no_report, long_error)


class BadNode(ClientApp):
    """The app of every node of the soak; `ways` in the node config says how it answers."""

    def __init__(self) -> None:
        super().__init__()
        self._honest = NodeApp()

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message.

        Raises:
            RuntimeError: garbage of one kind is an error.
        """
        ways = context.node_config.get("ways")
        if ways == "slow":
            time.sleep(SLOW)
        reply = self._honest(message, context)
        if ways == "garbage" and message.metadata.message_type == "train":
            round_ = int(number(message.content.config_records["config"], "server-round"))
            if round_ % 2 == 0:
                GARBAGE[round_ // 2 % len(GARBAGE)](reply.content)
        return reply


client_app = BadNode()
