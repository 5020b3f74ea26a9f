"""Your own function in place of one of the library's, inside the library's own training loop.

    train(cfg, prepared, parts=Parts(fuse=my_mean))

Where a function acts, and what it stands in for:

- `cf_loss` on each client, in every batch: CDFP's term (`fvlfp.cdfp.image_loss`), before its mean over rows;
- `project` wherever DSOP acts: on clients' rows, and when the trained model predicts;
- `weights` on the server, once a round: how much each client counts (`fvlfp.fpf.fusion_weights`);
- `peer_weights` there, under `fusion = "peers"`: the same from what peers say (`fvlfp.peers.peer_weights`);
- `fuse` there: one set of prompts of all clients' (FedAvg's weighted mean).

What this module does not do: functions do not travel. They act in `train`, in this process; a deployment
knows none of them, and a run with one keeps no checkpoint, because its folder could not name them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError

if TYPE_CHECKING:  # it imports scipy, which only peers need
    from fvlfp.peers import Judgement


@dataclass(frozen=True)
class OwnProjection(Projection):
    """DSOP's projection by somebody's own formula: `Parts.project`."""

    formula: Callable[[Tensor, Tensor, Tensor, float], Tensor] = field(kw_only=True)

    def unnormalised(self, z: Tensor) -> Tensor:
        """What the formula makes of z (n, d).

        Raises:
            InputError: it is no tensor of z's shape.
        """
        found = self.formula(z, self.basis, self.mu, self.lam)
        if not isinstance(found, Tensor) or found.shape != z.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"parts: project must return {tuple(z.shape)}, got {got}")
        return found


@dataclass(frozen=True)
class Parts:
    """What replaces the library's own; None leaves it. K clients, n rows, C classes, G groups, d the width.

    cf_loss: (z (n, d), texts T (C, d), scale, directions D (G, d), source g (n,), target g' (n,), alpha) ->
        (n,), one value a row. It must not branch on the values of tensors, or clients train one by one.
    project: (z (n, d), U (d, r), mu (d,), lambda) -> (n, d), before rows are made unit again. Not called
        where lambda or r is 0.
    weights: (n, perf, disp), a list of K entries each, None where undefined -> K weights, up to a factor.
    peer_weights: (n (K,), Judgement of the K clients' prompts) -> K weights, up to a factor.
    fuse: (prompts (K, L, n_ctx, width), weights (K,) that sum to 1) -> (L, n_ctx, width).
    """

    cf_loss: Callable[[Tensor, Tensor, float, Tensor, Tensor, Tensor, float], Tensor] | None = None
    project: Callable[[Tensor, Tensor, Tensor, float], Tensor] | None = None
    weights: (
        Callable[[list[int], list[float | None], list[float | None]], Sequence[float] | np.ndarray] | None
    ) = None
    peer_weights: Callable[[np.ndarray, Judgement], Sequence[float] | np.ndarray] | None = None
    fuse: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """Which parts are replaced."""
        return tuple(name for name, part in vars(self).items() if part is not None)

    def applied(self, projection: Projection) -> Projection:
        """DSOP's projection as this process applies it: by somebody's own formula, where there is one."""
        if self.project is None:
            return projection
        return OwnProjection(projection.basis, projection.mu, projection.lam, formula=self.project)

    def check(self, cfg: Config) -> None:
        """Refuse a part that this run would never call.

        Raises:
            InputError: names the part and what the config would have to say.
        """
        by_weight = cfg.robust == "none" and cfg.dp_noise == 0 and cfg.one_model
        needs = {
            "cf_loss": (cfg.uses_directions, "lambda_cf > 0 and pairing = 'image'"),
            "project": (cfg.uses_dsop, "lambda_dsop other than 0"),
            "weights": (cfg.fusion == "fpf" and by_weight, "fusion = 'fpf', no robust rule and no dp_noise"),
            "peer_weights": (cfg.fusion == "peers", "fusion = 'peers'"),
            "fuse": (
                cfg.fusion in ("fpf", "peers") and by_weight and cfg.tune == "prompts" and not cfg.vision_ctx,
                "fusion = 'fpf' or 'peers', text prompts, no robust rule and no dp_noise",
            ),
        }
        for name in self.named:
            holds, needed = needs[name]
            if not holds:
                raise InputError(f"parts: this run would never call {name}; it needs {needed}")


def checked_weights(weights: Sequence[float] | np.ndarray, clients: int) -> list[float]:
    """K weights of somebody's own rule, as numbers.

    Raises:
        InputError: not K numbers, one is negative or not finite, or all are 0.
    """
    try:
        found = np.asarray(weights, dtype=float).ravel()
    except (TypeError, ValueError):
        raise InputError(f"parts: weights must be {clients} numbers, got {type(weights).__name__}") from None
    if found.shape != (clients,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise InputError(f"parts: weights must be {clients} numbers >= 0, not all 0, got {found.round(4)}")
    return [float(w) for w in found]
