"""One frozen `Config`, its profiles, and the named seeds of a run.

This module does not read data and does not import torch: a bad key is refused before anything slow starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from fvlfp.errors import InputError, did_you_mean
from fvlfp.methods import IDENTITY, METHODS, TRAITS, Settings, Trait
from fvlfp.options import (
    AuditOptions,
    BaselineOptions,
    ClientOptions,
    DataOptions,
    DsopOptions,
    FusionOptions,
    LossOptions,
    ModelOptions,
    PrivacyOptions,
    RunOptions,
    TrainingOptions,
    TrustOptions,
)
from fvlfp.toml import read_toml

#: What a profile changes; everything else keeps its default. `full` is the paper-sized run.
PROFILES: dict[str, Settings] = {
    "smoke": {"n": 1_500, "clients": 4, "concentration": 1.0, "rounds": 2, "local_epochs": 1, "draws": 300},
    "lesson": {"n": 6_000, "rounds": 8},
    "full": {},
}

#: A trait of vision prompts, which are switched on by a number: what they need beside them.
_VISION_NEEDS = {"tune": "prompts", "posthoc": "none", "fusion": "fpf", "dp_noise": 0.0}


@dataclass(frozen=True, kw_only=True)
class Config(  # the parts in the order of `fvlfp.options`, last one first: so dataclasses collect them
    AuditOptions,
    PrivacyOptions,
    TrustOptions,
    BaselineOptions,
    FusionOptions,
    DsopOptions,
    LossOptions,
    TrainingOptions,
    ClientOptions,
    ModelOptions,
    DataOptions,
    RunOptions,
):
    """Every option of a run: all parts of `fvlfp.options` at once. Symbols are those of METHOD.md.

    Build it with `Config.make(profile=..., method=..., key=value)`, which applies, in this order: the
    defaults of the parts, the profile, the method, and what the caller sets. A plain `Config()` is the full
    method at the paper-sized profile.

    Raises:
        InputError: for a value outside its range, or a combination that would break or do nothing, naming the
            key.
    """

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            _check_value(option, getattr(self, option.name))
        if not self.groups:
            raise InputError("groups is empty: name at least one perceived-group column")
        if len(set(self.groups)) < len(self.groups):
            raise InputError(f"groups = {','.join(self.groups)} names a column twice")
        for message in self._conflicts():
            raise InputError(message)

    def _conflicts(self) -> Iterator[str]:
        """Combinations that would break, or would do nothing without a word."""
        if self.dsop_at == "training" and self.dsop_words == "fair":
            yield "dsop_words = 'fair' needs trained prompts: use it with dsop_at = 'inference'"
        if self.fpf_momentum > 0 and self.fpf_by == "client":
            yield "fpf_momentum needs fpf_by = 'server': only there is a weight mixed with the last one"
        if self.fusion == "peers" and self.robust not in ("none", "trimmed-mean"):
            yield "fusion = 'peers' needs robust = 'none' or 'trimmed-mean', which know weights"
        if (self.dp_noise > 0) + (self.robust != "none") + (self.fusion == "qfedavg") > 1:
            yield "dp_noise needs robust = 'none' and fusion other than 'qfedavg': a weighted sum"
        if self.vision_ctx:
            yield from self._unmet(f"vision_ctx = {self.vision_ctx}", _VISION_NEEDS)
            if not self.one_model:
                yield "vision_ctx needs pooling = 'federated' or 'central'"
        for name, trait in self._traits().items():
            yield from self._unmet(name, trait.needs)
        if self.pooling == "local" and self.uses_directions:
            yield "pooling = 'local' needs lambda_cf = 0.0 or another pairing than 'image': no directions"
        for key in IDENTITY:
            if METHODS[self.method].get(key, getattr(self, key)) != getattr(self, key):
                yield (
                    f"method = {self.method!r} means {key} = {METHODS[self.method][key]!r}, not "
                    f"{getattr(self, key)!r}: choose another method"
                )
        if self.partition != "column" and self.min_available > self.clients:
            yield f"min_available = {self.min_available}, but there are {self.clients} clients"

    def unused(self) -> dict[str, str]:
        """The changed ones of the keys that only some runs read -> why this run would not use it, or ""."""
        plain = Config.make(self.profile, self.method)
        baseline = self.with_method(self.baseline)
        found = {}
        for key, (needs, reads) in _READ_WITH.items():
            value = getattr(self, key)
            if value != getattr(plain, key):
                readers = [cfg for cfg in (self, baseline) if getattr(cfg, key) == value and reads(cfg)]
                found[key] = "" if readers else f"{key} = {value!r} would not be used: it needs {needs}"
        return found

    def _unmet(self, what: str, needs: Mapping[str, Any]) -> Iterator[str]:
        for key, value in needs.items():
            if getattr(self, key) != value:
                yield f"{what} needs {key} = {value!r}, not {getattr(self, key)!r}"

    def _traits(self) -> dict[str, Trait]:
        """The traits of this config, by `key = value`."""
        return {
            f"{key} = {value!r}": trait
            for (key, value), trait in TRAITS.items()
            if getattr(self, key) == value
        }

    @classmethod
    def make(cls, /, profile: str = "full", method: str = "fvlfp", **settings: Any) -> Config:
        """Defaults, then the profile, then the method, then `settings`.

        Raises:
            InputError: unknown key (the nearest one is suggested) or a value of the wrong type.
        """
        _check_known("profile", profile, PROFILES)
        _check_known("method", method, METHODS)
        values: Settings = {"profile": profile, "method": method}
        values |= PROFILES[profile] | METHODS[method]
        return cls(**(values | {key: _coerce(key, value) for key, value in settings.items()}))

    @classmethod
    def read(cls, path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
        """A TOML file (or none) and `key=value` words, as `fvlfp train` takes them; words win.

        Raises:
            InputError: missing or malformed file, unknown key, wrong type or range, a key in two words, or a
                change that no run would use.
        """
        settings: Settings = {}
        if path is not None:
            settings |= read_toml(Path(path), "config file")
        words: dict[str, str] = {}
        for word in overrides:
            key, equals, value = word.partition("=")
            if not equals:
                raise InputError(f"--set {word!r}: write key=value")
            if key.strip() in words:
                raise InputError(f"--set names {key.strip()!r} twice")
            words[key.strip()] = value.strip()
        cfg = cls.make(**settings | words)
        for message in filter(None, cfg.unused().values()):
            raise InputError(message)
        return cfg

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
    def moments_by_label(self) -> bool:
        """Whether clients sum features by perceived-group labels, for directions or a subspace."""
        by_cdfp = self.uses_directions and self.cf_directions == "image"
        return by_cdfp or (self.uses_dsop and self.dsop == "image")

    @property
    def asks_moments(self) -> bool:
        """Whether clients sum features at all; directions from words alone need none."""
        by_dsop = self.uses_dsop and (self.dsop in ("prompted", "image") or self.recentre)
        return by_dsop or (self.uses_directions and self.cf_directions in ("prompted", "image"))

    def labels_read(self) -> list[str]:
        """Where perceived-group labels are read, of `training`, `validation`, `inference`; [] is label-free.

        Training means examples that the model is fitted on, validation means choices and fusion weights.
        With `groups_from = "model"` both go by what the frozen model reads off an image instead.
        """
        chosen = self.lambda_dsop < 0 or (self.lambda_dsop > 0 and self.rank == 0)
        where = {
            "training": self.moments_by_label or self.lambda_gap > 0,
            "validation": chosen or (self.fusion == "fpf" and self.gamma > 0),
            "inference": False,
        }
        for trait in self._traits().values():
            where |= dict.fromkeys(trait.reads, True)
        own = {"inference"} if self.groups_from == "model" else set(where)
        return [place for place, read in where.items() if read and place in own]

    def sends(self) -> list[str]:
        """What a client sends besides a model and a report in each round."""
        sums = ["feature sums by class and group, once"] if self.asks_moments else []
        return sums + [trait.sends for trait in self._traits().values() if trait.sends]

    def to_dict(self) -> dict[str, Any]:
        """Every key, as JSON types."""
        return {**dataclasses.asdict(self), "groups": list(self.groups)}

    def digest(self) -> str:
        """Sixteen hex digits that change with any option; a resumed run must show the same."""
        return hashlib.sha256(repr(sorted(self.to_dict().items())).encode()).hexdigest()[:16]

    def at_round(self, round_: int) -> Config:
        """This config with the learning rate of a round, counted from 1."""
        rate = self.lr_at(round_)
        return self if rate == self.lr else self.replace(lr=rate)

    def seed_for(self, name: str) -> int:
        """The seed of one named generator, e.g. `client/3/round/7` (63 bits).

        Names, not a shared stream: the order in which clients run changes nothing.
        """
        return seed_for(self.seed, name)


def _weighs(cfg: Config) -> bool:
    """Whether FPF's own weights act: two of the robust rules know no weights, and Krum takes one client."""
    return cfg.fusion == "fpf" and cfg.robust in ("none", "multi-krum")


_WEIGHTS = "fusion = 'fpf' with robust = 'none' or 'multi-krum'"

#: Keys that only some runs read: what they need, in words, and whether a run with a config reads them.
_READ_WITH: dict[str, tuple[str, Callable[[Config], bool]]] = {
    "n": ("data = 'toyfaces'", lambda c: c.data == "toyfaces"),
    "prompts": ("a table as data", lambda c: c.data != "toyfaces"),
    "clients": ("a partition other than 'column'", lambda c: c.partition != "column"),
    "min_rows": ("a partition other than 'column'", lambda c: c.partition != "column"),
    "concentration": (
        "partition = 'class-group', 'class', 'group' or 'quantity'",
        lambda c: c.partition not in ("iid", "column", "opposed"),
    ),
    "vision_depth": ("vision_ctx > 0", lambda c: c.vision_ctx > 0),
    "pairing": ("lambda_cf > 0", lambda c: c.lambda_cf > 0),
    "alpha": ("lambda_cf > 0 and pairing = 'image'", lambda c: c.uses_directions),
    "cf_directions": ("lambda_cf > 0 and pairing = 'image'", lambda c: c.uses_directions),
    **dict.fromkeys(
        ("dsop", "dsop_words", "dsop_at", "rank", "recentre"),
        ("lambda_dsop other than 0", lambda c: c.uses_dsop),
    ),
    "beta": (_WEIGHTS, lambda c: _weighs(c) or c.beta == 0),
    "gamma": (_WEIGHTS, lambda c: _weighs(c) or c.gamma == 0),
    **dict.fromkeys(
        ("fpf_cap", "fpf_margin"),
        (f"{_WEIGHTS}, and beta or gamma > 0", lambda c: _weighs(c) and c.beta + c.gamma > 0),
    ),
    **dict.fromkeys(
        ("fpf_floor", "fpf_momentum"),
        (f"{_WEIGHTS}, and fpf_by = 'server'", lambda c: _weighs(c) and c.fpf_by == "server"),
    ),
    **dict.fromkeys(
        ("judges", "peers_share"),
        ("fusion = 'peers', 'f3' or 'f3-acc'", lambda c: c.fusion in ("peers", "f3", "f3-acc")),
    ),
    "q": ("fusion = 'qfedavg'", lambda c: c.fusion == "qfedavg"),
    "lipschitz": ("fusion = 'qfedavg'", lambda c: c.fusion == "qfedavg"),
    "fairfed_beta": ("fusion = 'fairfed'", lambda c: c.fusion == "fairfed"),
    "liars": ("robust other than 'none'", lambda c: c.robust != "none"),
    "dp_clip": ("dp_noise > 0", lambda c: c.dp_noise > 0),
}


def seed_for(root: int, name: str) -> int:
    """The first 63 bits of sha256("root/name")."""
    return int.from_bytes(hashlib.sha256(f"{root}/{name}".encode()).digest()[:8], "big") >> 1


def _check_value(option: dataclasses.Field[Any], value: Any) -> None:
    """Choices and range, as the field states them."""
    allowed, limits = option.metadata.get("choices"), option.metadata.get("range")
    if allowed and value not in allowed:
        raise InputError(
            f"{option.name} = {value!r} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}"
        )
    if limits and not limits[0] <= value <= limits[1]:
        raise InputError(f"{option.name} = {value} is outside [{limits[0]}, {limits[1]}]")


def _check_known(key: str, value: Any, known: Mapping[str, Any]) -> None:
    if str(value) not in known:
        raise InputError(f"{key} = {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}")


def _coerce(key: str, value: Any) -> Any:
    """A setting as its field's type; text (from the command line) is parsed, nothing else is."""
    types = _types()
    if key not in types:
        raise InputError(f"unknown config key {key!r}{did_you_mean(key, types)}")
    wanted = types[key]
    try:
        if key == "groups":
            names = value.split(",") if isinstance(value, str) else value
            return tuple(name.strip() for name in _texts(names) if name.strip())
        if wanted is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value]
        if wanted in (int, float) and not isinstance(value, bool):
            if wanted is int and isinstance(value, float):
                raise ValueError
            return wanted(value)
        if wanted is str and isinstance(value, str):
            return value
    except (KeyError, ValueError, TypeError, OverflowError):
        pass
    meant = "list of names" if key == "groups" else wanted.__name__
    raise InputError(f"{key} = {value!r} is not a valid {meant}")


@cache
def _types() -> dict[str, Any]:
    """Config key -> its type; worked out once, because it takes milliseconds."""
    return get_type_hints(Config)


def _texts(value: Any) -> list[str]:
    """A list or tuple of texts as it is; TypeError for anything else."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError
    return list(value)
