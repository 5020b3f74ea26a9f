"""What is done to a trained model without training it further.

What this module does not do: it fits nothing, see `fvlfp.training.fit_posthoc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.dsop import Projection

if TYPE_CHECKING:  # fairlearn takes a second to import, and only one method uses it
    from fvlfp.baselines.thresholds import Thresholds


@dataclass(frozen=True)
class PostHoc:
    """erase: acts on images. text_map: (d, d), acts on class texts. thresholds: for decisions.

    rank, lam: of the map, for tables; None where they say nothing. uplink_bytes: what a client sends for it.
    """

    erase: Projection | None = None
    text_map: Tensor | None = None
    thresholds: Thresholds | None = None
    rank: int | None = None
    lam: float | None = None
    uplink_bytes: int = 0

    def texts(self, texts: Tensor) -> Tensor:
        """Class embeddings (C, d) after the text map."""
        if self.text_map is None:
            return texts
        return F.normalize(texts.cpu().double() @ self.text_map.T.cpu(), dim=-1).to(texts)

    def images(self, z: Tensor) -> Tensor:
        """Image embeddings (n, d) after the erasure."""
        return z if self.erase is None else self.erase.to(z.device)(z)

    def describe(self) -> str:
        """Rank and lambda, where they say something."""
        known = {"rank": self.rank, "lambda": self.lam}
        return ", ".join(f"{name} {value:g}" for name, value in known.items() if value is not None)

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, to be saved."""
        found = {} if self.text_map is None else {"after/text_map": self.text_map}
        if self.erase is not None:
            found |= {"after/read": self.erase.basis, "after/mu": self.erase.mu}
            found |= {} if self.erase.write is None else {"after/write": self.erase.write}
            found |= {"after/lambda": torch.tensor([self.erase.lam], dtype=torch.double)}
        return {name: t.cpu().contiguous() for name, t in found.items()}

    def facts(self) -> dict[str, object]:
        """What is no tensor, as JSON types."""
        thresholds = None if self.thresholds is None else self.thresholds.to_json()
        numbers = {"rank": self.rank, "lam": self.lam, "uplink_bytes": self.uplink_bytes}
        return {**numbers, "thresholds": thresholds}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> PostHoc:
        """The inverse of `tensors` and `facts`."""
        erase = None
        if "after/read" in tensors:
            lam = float(tensors["after/lambda"])
            erase = Projection(tensors["after/read"], tensors["after/mu"], lam, tensors.get("after/write"))
        thresholds = None
        if facts["thresholds"] is not None:
            from fvlfp.baselines.thresholds import Thresholds  # fairlearn: see above

            thresholds = Thresholds.from_json(facts["thresholds"])
        numbers = {key: facts[key] for key in ("rank", "lam", "uplink_bytes")}
        return cls(erase, tensors.get("after/text_map"), thresholds, **numbers)
