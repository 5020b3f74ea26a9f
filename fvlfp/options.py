"""Every option of a run, by part: its default, its range or its choices, and what it means.

A function takes the part that it uses, `options: LossOptions`; a `Config` is all parts at once, so it can be
handed to any of them. Keys are flat: one name, one option, in `--set`, in TOML and as an attribute.

What this module does not do: it reads nothing and refuses no combination; see `fvlfp.config`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fvlfp.methods import METHODS


def number(default: float, low: float, high: float) -> Any:
    """A number in [low, high], both allowed."""
    return field(default=default, metadata={"range": (low, high)})


def word(default: str, *others: str) -> Any:
    """A word: the default, or one of `others`."""
    return field(default=default, metadata={"choices": (default, *others)})


def _method(default: str) -> Any:
    return field(default=default, metadata={"choices": tuple(METHODS)})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is run. baseline: what the paired audit compares with."""

    profile: str = word("full", "smoke", "lesson")
    method: str = _method("fvlfp")
    baseline: str = _method("fedavg")
    seed: int = number(0, 0, 2**63 - 1)
    device: str = word("auto", "cpu", "cuda", "mps")
    #: of the frozen image tower; auto: bf16 on a GPU that computes in it, float32 elsewhere
    precision: str = word("auto", "float32", "bf16")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which rows, which column is the label, which are perceived groups."""

    data: str = "toyfaces"  # built in, n examples; or the path of a table
    n: int = number(12_000, 60, 10**7)
    label: str = "smiling"
    groups: tuple[str, ...] = ("shape",)
    prompts: str = ""  # a data card in TOML; by default the one beside the table


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """model: "toyclip" (built in), or an open_clip name with a tag, or a config with a local weights file."""

    model: str = "toyclip"
    pretrained: str = ""
    model_config: str = ""


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Who holds which rows."""

    clients: int = number(10, 1, 100_000)
    partition: str = word("class-group", "iid", "class", "group", "quantity", "column", "opposed")
    concentration: float = number(0.3, 1e-3, 1e6)  # Dirichlet; small means unlike clients
    val_fraction: float = number(0.2, 0.05, 0.5)  # of a client's examples; choices use these alone
    min_rows: int = number(10, 2, 10**6)  # each client gets so many, from the largest one if need be
    shots: int = number(0, 0, 10**6)  # training rows of each class that a client keeps, by seed; 0: all
    fraction: float = number(1.0, 1e-6, 1.0)  # of the clients, drawn by seed, that take part in a round
    personalise: bool = False  # after training: each client's own prompts, some local steps further
    min_cell: int = number(5, 0, 10**6)  # a client keeps smaller counts to itself
    groups_from: str = word("labels", "model")  # "model": the groups that the frozen model reads off an image


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Prompts and local training."""

    n_ctx: int = number(4, 1, 64)
    depth: int = number(2, 1, 64)  # L: prompted layers of the text tower; 1 is CoOp's shallow prompt
    vision_ctx: int = number(0, 0, 64)  # n_v: prompts of the image tower; 0: off, images are encoded once
    vision_depth: int = number(1, 1, 64)  # L_v: prompted layers of the image tower
    rounds: int = number(15, 0, 10**6)
    local_epochs: int = number(2, 1, 10**4)
    batch: int = number(64, 1, 10**6)
    lr: float = number(0.02, 1e-8, 10.0)
    lr_schedule: str = word("constant", "cosine")  # "cosine": from lr in round 1 towards 0 after the last
    patience: int = number(0, 0, 10**6)  # stop after so many rounds without better validation; 0: off
    best_round: bool = False  # end with the round that was best on validation, not with the last

    def lr_at(self, round_: int) -> float:
        """The learning rate of a round, counted from 1; 0 is outside of rounds."""
        if self.lr_schedule == "constant" or round_ == 0:
            return self.lr
        falling = 0.5 * (1 + math.cos(math.pi * (round_ - 1) / self.rounds))
        return max(1e-8, self.lr * falling)


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """CDFP, and the other terms of the local loss; a term whose lambda is 0 is not computed."""

    class_balanced: bool = True
    cell_balanced: bool = False  # every class-by-group cell of a client counts equally; reads group labels
    lambda_cf: float = number(1.0, 0.0, 1e4)
    alpha: float = number(2.0, 0.0, 100.0)
    pairing: str = word("image", "words", "layers")
    cf_directions: str = word("prompted", "text", "image")
    lambda_anchor: float = number(1.0, 0.0, 1e4)
    lambda_gap: float = number(0.0, 0.0, 1e4)
    lambda_prox: float = number(0.0, 0.0, 1e4)  # FedProx
    lambda_uniform: float = number(0.0, 0.0, 1e4)  # FF-DVP

    @property
    def uses_directions(self) -> bool:
        """Whether CDFP moves embeddings along group directions."""
        return self.lambda_cf > 0 and self.pairing == "image"

    @property
    def uses_texts_of_pairs(self) -> bool:
        """Whether CDFP compares texts that name a class and a group."""
        return self.lambda_cf > 0 and self.pairing != "image"

    @property
    def uses_group_words(self) -> bool:
        """Whether the loss looks at group words alone."""
        return self.lambda_uniform > 0


@dataclass(frozen=True, kw_only=True)
class DsopOptions:
    """DSOP. `rank` 0 and `lambda_dsop` -1: chosen on the clients' validation data, "off" included."""

    dsop: str = word("prompted", "text", "text-span", "image")
    dsop_words: str = word("frozen", "fair")
    dsop_at: str = word("training", "inference")
    rank: int = number(0, 0, 10**4)
    lambda_dsop: float = number(-1.0, -1.0, 1.0)
    recentre: bool = True
    tolerance: float = number(0.01, 0.0, 1.0)  # cell accuracy (validation) that a projection may cost

    @property
    def uses_dsop(self) -> bool:
        """Whether a projection is made at all."""
        return self.lambda_dsop != 0


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """FPF: w ∝ n^a exp(beta (perf - mean) - gamma (disp - mean)); and the other fusion rules."""

    fpf_a: float = number(1.0, 0.0, 2.0)
    beta: float = number(1.0, 0.0, 100.0)
    gamma: float = number(4.0, 0.0, 100.0)
    fpf_cap: float = number(10.0, 1.0, 1e6)
    fpf_floor: float = number(0.01, 0.0, 1.0)
    fpf_margin: float = number(0.02, 0.0, 1.0)
    fpf_momentum: float = number(0.0, 0.0, 0.999)
    #: "client": by last round's means, so that a client could work out its own weight; "server": by this
    #: round's, with `fpf_floor` and `fpf_momentum`
    fpf_by: str = word("client", "server")
    fusion: str = word("fpf", "peers", "qfedavg", "fairfed", "f3", "f3-acc")
    peers_share: float = number(0.7, 0.05, 1.0)  # how much of the clients must still count, exp(-KL(w | n));
    #                                              under F3 the share of them that is kept, its α
    judges: int = number(0, 0, 100_000)  # clients that judge in a round, drawn by the seed; 0: all
    q: float = number(0.1, 0.0, 10.0)
    lipschitz: float = number(1.0, 1e-6, 1e6)  # q-FedAvg's L
    fairfed_beta: float = number(1.0, 0.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """Other ways to train, or to change what was trained; the defaults leave all of them out."""

    #: "central": one client has all rows; "local": nothing is sent; "personal": federated, and each client
    #: ends with a model of its own
    pooling: str = word("federated", "central", "local", "personal")
    #: "adapter": FedCLIP's, on the image embedding, instead of prompts; of personal models: shared prompts
    #: with each client's correction of "low-rank" (FedPGP), or several "groups" of prompts (FedMGP)
    tune: str = word("prompts", "adapter", "low-rank", "groups")
    posthoc: str = word(  # what is done to the trained model, without further training
        "none",
        *("text", "text-calibrated", "difference", "probe", "leace", "leace-prompted", "thresholds"),
    )

    @property
    def one_model(self) -> bool:
        """Whether the run ends with one model for all, not with one for each client."""
        return self.pooling in ("federated", "central")


@dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """What the server takes from clients."""

    deadline: float = number(3600.0, 0.1, 10**7)  # seconds a client may take to answer
    min_available: int = number(1, 1, 100_000)  # usable answers that a round needs; with fewer the run stops
    norm_bound: float = number(10.0, 0.0, 1e6)  # longest update, in medians of the round; 0: off
    max_examples: int = number(0, 0, 10**12)  # a client that claims more is refused; 0: off
    robust: str = word("none", "krum", "multi-krum", "trimmed-mean", "median")  # Flower's; "none": by weight
    liars: int = number(1, 0, 100_000)  # how many the robust rule reckons with


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """Client-level differential privacy; dp_noise = 0 is off."""

    dp_clip: float = number(0.1, 1e-6, 1e6)  # longest update a client sends (L2)
    dp_noise: float = number(0.0, 0.0, 1e6)  # the noise multiplier


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The audit after training."""

    draws: int = number(2_000, 100, 10**6)
