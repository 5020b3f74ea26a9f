"""One frozen `Config`, its profiles, and the named seeds of a run.

This module does not read data and does not import torch: a bad key is refused before anything slow starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fvlfp.errors import InputError, did_you_mean
from fvlfp.limits import RANGES
from fvlfp.methods import METHODS

#: What a profile changes; everything else keeps its default. `full` is the paper-sized run.
PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {"n": 1_500, "clients": 4, "concentration": 1.0, "rounds": 2, "local_epochs": 1, "draws": 300},
    "lesson": {"n": 6_000, "rounds": 8},
    "full": {},
}

#: The allowed values of every option that is a word.
CHOICES: dict[str, tuple[str, ...]] = {
    "profile": tuple(PROFILES),
    "method": tuple(METHODS),
    "baseline": tuple(METHODS),
    "device": ("auto", "cpu", "cuda", "mps"),
    "partition": ("iid", "class", "group", "class-group", "quantity", "column", "opposed"),
    "pairing": ("image", "words", "layers"),
    "cf_directions": ("text", "prompted", "image"),
    "dsop": ("text", "prompted", "text-span", "image"),
    "dsop_words": ("frozen", "fair"),
    "dsop_at": ("training", "inference"),
    "groups_from": ("labels", "model"),
    "fpf_by": ("client", "server"),
    "pooling": ("federated", "central", "local"),
    "tune": ("prompts", "adapter"),
    "fusion": ("fpf", "qfedavg", "fairfed"),
    "posthoc": (
        *("none", "text", "text-calibrated", "difference"),
        *("probe", "leace", "leace-prompted", "thresholds"),
    ),
    "robust": ("none", "krum", "multi-krum", "trimmed-mean", "median"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every option of a run. Symbols are those of METHOD.md.

    Build it with `Config.make(profile=..., method=..., key=value)`, which applies, in this order: the
    defaults below, the profile, the method, and what the caller sets. A plain `Config()` is the full
    method at the paper-sized profile.

    Raises:
        InputError: for a value outside its range, naming the key.
    """

    profile: str = "full"
    method: str = "fvlfp"
    baseline: str = "fedavg"  # what the paired audit compares with
    seed: int = 0
    device: str = "auto"

    # Data: "toyfaces" (built in, n examples) or the path of a table.
    data: str = "toyfaces"
    n: int = 12_000
    label: str = "smiling"
    groups: tuple[str, ...] = ("shape",)
    prompts: str = ""  # a data card in TOML; by default the one beside the table

    # Model: "toyclip" (built in), or an open_clip name with a tag, or a config with a local weights file.
    model: str = "toyclip"
    pretrained: str = ""
    model_config: str = ""

    # Clients.
    clients: int = 10
    partition: str = "class-group"
    concentration: float = 0.3  # Dirichlet; small means unlike clients
    val_fraction: float = 0.2  # of every client's examples; choices are made on these alone
    min_cell: int = 5  # counts below stay home
    groups_from: str = "labels"  # "model": clients go by the groups that the frozen model reads off an image

    # Prompts and local training.
    n_ctx: int = 4
    depth: int = 2  # L: prompted layers of the text tower; 1 is CoOp's shallow prompt
    vision_ctx: int = 0  # n_v: prompts of the image tower; 0: off, and images are encoded once, ever
    vision_depth: int = 1  # L_v: prompted layers of the image tower
    rounds: int = 15
    local_epochs: int = 2
    batch: int = 64
    lr: float = 0.02
    class_balanced: bool = True

    # CDFP.
    lambda_cf: float = 5.0
    alpha: float = 2.0
    pairing: str = "image"
    cf_directions: str = "prompted"
    lambda_anchor: float = 1.0
    lambda_gap: float = 0.0

    # DSOP. `rank` 0 and `lambda_dsop` -1 mean: chosen on the clients' validation data, "off" included.
    dsop: str = "prompted"
    dsop_words: str = "frozen"
    dsop_at: str = "training"
    rank: int = 0
    lambda_dsop: float = -1.0
    recentre: bool = True
    tolerance: float = 0.01  # accuracy over class-by-group cells (validation) that a projection may cost

    # FPF: w ∝ n^a exp(beta (perf - mean) - gamma (disp - mean)).
    fpf_a: float = 1.0
    beta: float = 1.0
    gamma: float = 4.0
    fpf_cap: float = 10.0
    fpf_floor: float = 0.01
    fpf_margin: float = 0.02
    fpf_momentum: float = 0.0
    fpf_by: str = "client"

    # Baselines (METHOD.md: Baselines); the defaults leave every one of them out.
    pooling: str = "federated"  # "central": one client holds all data; "local": every client alone
    tune: str = "prompts"  # "adapter": FedCLIP's, on the image embedding, sent instead of prompts
    fusion: str = "fpf"
    posthoc: str = "none"  # what is done to the trained model, without further training
    cell_balanced: bool = False  # every class-by-group cell of a client counts equally; reads group labels
    lambda_prox: float = 0.0
    lambda_uniform: float = 0.0
    q: float = 0.1
    lipschitz: float = 1.0  # q-FedAvg's L
    fairfed_beta: float = 1.0

    # What the server takes from clients.
    deadline: float = 3600.0  # seconds a client may take to answer
    min_available: int = 1  # usable answers that a round needs; with fewer the run stops
    norm_bound: float = 10.0  # an update longer than this many times the round's median is refused; 0: off
    max_examples: int = 0  # a client that claims more is refused; 0: off
    robust: str = "none"  # how updates are summed: by weight, or by a rule of Flower's that bounds liars
    liars: int = 1  # how many the robust rule reckons with

    # Client-level differential privacy; dp_noise = 0 is off.
    dp_clip: float = 0.1  # longest update a client sends (L2)
    dp_noise: float = 0.0  # noise over the longest share of one client in the sum: the noise multiplier

    # Audit.
    draws: int = 2_000

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise InputError(
                    f"{key} = {value!r} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}"
                )
        for key, low, high in RANGES:
            value = getattr(self, key)
            if not low <= value <= high:
                raise InputError(f"{key} = {value} is outside [{low}, {high}]")
        if not self.groups:
            raise InputError("groups is empty: name at least one perceived-group column")
        if self.dsop_at == "training" and self.dsop_words == "fair":
            raise InputError("dsop_words = 'fair' needs trained prompts: use it with dsop_at = 'inference'")
        if self.fpf_momentum > 0 and self.fpf_by == "client":
            raise InputError("fpf_momentum needs fpf_by = 'server': a client keeps no history")
        if (self.dp_noise > 0) + (self.robust != "none") + (self.fusion == "qfedavg") > 1:
            raise InputError("dp_noise needs robust = 'none' and fusion other than 'qfedavg': a weighted sum")
        needs = {"tune": "prompts", "posthoc": "none", "fusion": "fpf", "dp_noise": 0.0}
        for key, value in needs.items() if self.vision_ctx else ():
            if getattr(self, key) != value:
                raise InputError(f"vision_ctx = {self.vision_ctx} needs {key} = {value!r}")
        if self.vision_ctx and self.pooling == "local":
            raise InputError("vision_ctx needs pooling = 'federated' or 'central'")
        if self.min_available > self.clients:
            raise InputError(f"min_available = {self.min_available}, but there are {self.clients} clients")

    @classmethod
    def make(cls, profile: str = "full", method: str = "fvlfp", **settings: Any) -> Config:
        """Defaults, then the profile, then the method, then `settings`.

        Raises:
            InputError: unknown key (the nearest one is suggested) or a value of the wrong type.
        """
        _check_known("profile", profile, PROFILES)
        _check_known("method", method, METHODS)
        values: dict[str, Any] = {"profile": profile, "method": method}
        values |= PROFILES[profile] | METHODS[method]
        return cls(**(values | {key: _coerce(key, value) for key, value in settings.items()}))

    @classmethod
    def read(cls, path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
        """A TOML file (or none) and `key=value` words, as `fvlfp train` takes them.

        Raises:
            InputError: missing or malformed file, unknown key, wrong type or range.
        """
        settings: dict[str, Any] = {}
        if path is not None:
            try:
                settings |= tomllib.loads(Path(path).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise InputError(f"no such config file: {path}") from None
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InputError(f"{path} is not valid TOML: {error}") from None
        for word in overrides:
            key, equals, value = word.partition("=")
            if not equals:
                raise InputError(f"--set {word!r}: write key=value")
            settings[key.strip()] = value.strip()
        return cls.make(**settings)

    def replace(self, **changes: Any) -> Config:
        """A copy with some keys changed (checked again)."""
        return dataclasses.replace(self, **{k: _coerce(k, v) for k, v in changes.items()})

    def with_method(self, method: str) -> Config:
        """The same run by another method: what this one's method had set goes back to its default first."""
        _check_known("method", method, METHODS)
        defaults = {field.name: field.default for field in dataclasses.fields(self)} | PROFILES[self.profile]
        undone = {key: defaults[key] for key in METHODS[self.method]}
        return self.replace(**(undone | METHODS[method] | {"method": method}))

    @property
    def uses_dsop(self) -> bool:
        """Whether a projection is made at all."""
        return self.lambda_dsop != 0

    @property
    def uses_directions(self) -> bool:
        """Whether CDFP moves embeddings along group directions."""
        return self.lambda_cf > 0 and self.pairing == "image"

    @property
    def uses_texts_of_pairs(self) -> bool:
        """Whether CDFP compares texts that name a class and a group."""
        return self.lambda_cf > 0 and self.pairing != "image"

    @property
    def moments_by_label(self) -> bool:
        """Whether clients sum features by perceived-group labels, for directions or a subspace."""
        by_cdfp = self.uses_directions and self.cf_directions == "image"
        return by_cdfp or (self.uses_dsop and self.dsop == "image")

    def labels_read(self) -> list[str]:
        """Where perceived-group labels are read, of `training`, `validation`, `inference`; [] is label-free.

        Training means examples that the model is fitted on, validation means choices and fusion weights.
        With `groups_from = "model"` both go by what the frozen model reads off an image instead.
        """
        fitted = self.posthoc in ("probe", "leace")
        chosen = self.lambda_dsop < 0 or (self.lambda_dsop > 0 and self.rank == 0)
        fused = self.fusion == "fairfed" or (self.fusion == "fpf" and self.gamma > 0)
        where = {
            "training": self.moments_by_label or self.lambda_gap > 0 or self.cell_balanced or fitted,
            "validation": chosen or fused or fitted or self.posthoc == "thresholds",
            "inference": self.posthoc == "thresholds",
        }
        own = {"inference"} if self.groups_from == "model" else set(where)
        return [place for place, read in where.items() if read and place in own]

    def to_dict(self) -> dict[str, Any]:
        """Every key, as JSON types."""
        return {**dataclasses.asdict(self), "groups": list(self.groups)}

    def digest(self) -> str:
        """Sixteen hex digits that change with any option; a resumed run must show the same."""
        return hashlib.sha256(repr(sorted(self.to_dict().items())).encode()).hexdigest()[:16]

    def seed_for(self, name: str) -> int:
        """The seed of one named generator, e.g. `client/3/round/7` (63 bits).

        Names, not a shared stream: the order in which clients run changes nothing.
        """
        return seed_for(self.seed, name)


def seed_for(root: int, name: str) -> int:
    """The first 63 bits of sha256("root/name")."""
    return int.from_bytes(hashlib.sha256(f"{root}/{name}".encode()).digest()[:8], "big") >> 1


def _check_known(key: str, value: Any, known: Mapping[str, Any]) -> None:
    if value not in known:
        raise InputError(f"{key} = {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}")


def _coerce(key: str, value: Any) -> Any:
    """A setting as its field's type; text (from the command line) is parsed, nothing else is."""
    types = get_type_hints(Config)
    if key not in types:
        raise InputError(f"unknown config key {key!r}{did_you_mean(key, types)}")
    wanted = types[key]
    try:
        if key == "groups":
            names = value.split(",") if isinstance(value, str) else list(value)
            return tuple(str(name).strip() for name in names if str(name).strip())
        if wanted is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value]
        if wanted in (int, float) and not isinstance(value, bool):
            if wanted is int and isinstance(value, float):
                raise ValueError
            return wanted(value)
        if wanted is str and isinstance(value, str):
            return value
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    raise InputError(f"{key} = {value!r} is not a valid {getattr(wanted, '__name__', wanted)}")
