"""What one machine has answered, kept beside its table: its own memory and its own limits across runs.

A server chooses the split (`seed`, `val_fraction`) and the questions of a run. The sums of two splits that
differ by one row differ by that row's embedding, and many sums of the same rows under different words can be
solved for single rows. So a machine answers for one split of its table, and a few times with new moments; its
owner may allow more in the node config, or delete the file and begin anew.

What this module does not do: it cannot see that two tables in different folders hold the same people, nor
count what several machines of one owner answer together. Training answers are not counted: what they tell is
bounded by differential privacy (`fvlfp.federation.privacy`), or by nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class OwnLimits:
    """What a machine's owner allows, whatever a run asks for: keys of the node config, with safe defaults.

    min_cell: no count below leaves. splits: how many splits of the table may be answered for. moments: how
    many different answers to the question for moments.
    """

    min_cell: int = 5
    splits: int = 1
    moments: int = 8

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> OwnLimits:
        """From the node config (`min_cell` or `min-cell`, ...).

        Raises:
            InputError: a limit is no whole number of 0 or more.
        """
        found = {}
        for key in cls.__dataclass_fields__:
            value = node_config.get(key, node_config.get(key.replace("_", "-"), getattr(cls, key)))
            try:
                found[key] = int(str(value))
                if found[key] < 0:
                    raise ValueError
            except ValueError:
                raise InputError(f"{key} = {value!r} in the node config is no whole number") from None
        return cls(**found)

    def permit(self, cfg: Config) -> None:
        """Refuse a run that asks for more than the owner allows.

        Raises:
            InputError: with what to do about it.
        """
        if cfg.min_cell < self.min_cell:
            raise InputError(
                f"the run asks for min_cell = {cfg.min_cell}; this machine lets out no count under "
                f"{self.min_cell}"
            )
        if any(mark in cfg.model for mark in ":/\\"):
            raise InputError(
                f"the run names the model {cfg.model[:80]!r}, which would be fetched from the internet or "
                "from a folder of the server's choice: a run may name only a model that is known here"
            )


class Ledger:
    """The machine's memory: one JSON file that only its owner can read. It holds digests and no example."""

    def __init__(self, path: Path, limits: OwnLimits) -> None:
        self._path, self._limits = path, limits

    def admit(self, split: str) -> None:
        """Note that the machine answers for this split.

        Raises:
            InputError: it has answered for others already, as many as its owner allows.
        """
        self._note("splits", split, self._limits.splits, "another split of its rows (or an older table)")

    def tell_moments(self, answer: bytes) -> None:
        """Note an answer to the question for moments; the same answer twice counts once.

        Raises:
            InputError: there were as many different ones as the owner allows.
        """
        digest = hashlib.sha256(answer).hexdigest()[:16]
        self._note("moments", digest, self._limits.moments, f"{self._limits.moments} other questions")

    def _note(self, kind: str, entry: str, most: int, others: str) -> None:
        with FileLock(self._path.with_suffix(".lock")):  # two runs may ask this machine at once
            known = self._read()
            seen = known.setdefault(kind, [])
            if entry in seen:
                return
            if len(seen) >= most:
                raise InputError(
                    f"this machine has answered for {others}: whoever holds both answers could subtract "
                    f"them. Its owner may allow more ({kind.replace('_', '-')}={len(seen) + 1} in the node "
                    "config)"
                )
            seen.append(entry)
            write_atomically(self._path, json.dumps(known, indent=1).encode())
            os.chmod(self._path, 0o600)

    def _read(self) -> dict[str, list[str]]:
        try:
            return dict(json.loads(self._path.read_text())) if self._path.exists() else {}
        except ValueError:
            raise InputError(
                f"{self._path.name}, this machine's memory of what it has answered, is damaged: its owner "
                "must look at it before the machine answers again"
            ) from None


def split_of(table: Path, client: int, cfg: Config) -> str:
    """A digest that changes with any line of the table and with whatever chooses its validation rows."""
    said = json.dumps([client, cfg.seed, cfg.val_fraction])
    return hashlib.sha256(table.read_bytes() + said.encode()).hexdigest()[:16]
