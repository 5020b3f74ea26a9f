"""The grid of the results page: tasks, methods, seeds, and what one cell holds.

A cell is one method on one task with one seed, a small JSON file `results/grid/TASK/METHOD/SEED.json`.

What this module does not do: it draws no page (`benchmarks.results`) and decides no order (`benchmarks.run`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.sets import SETS
from benchmarks.sets import convert as convert_set
from benchmarks.shared import load_model, shared_folder
from data_prep.fairface import convert
from fvlfp.audit import audit, compare
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.card import Attribute
from fvlfp.data.table import Dataset, read_table
from fvlfp.methods import METHODS
from fvlfp.runs.train import Prepared, Trained
from fvlfp.training.model import ClientPrompts
from fvlfp.training.personal_methods import method_of

GRID = Path(__file__).parent / "results" / "grid"
#: resampling draws of the audit and of the paired comparison
DRAWS, PAIRED_DRAWS = 2_000, 10_000
#: the gaps of a cell, beside balanced accuracy, accuracy and worst-cell recall
GAPS = (
    "equalized_odds_difference_worst",
    "equalized_odds_difference_mean",
    "demographic_parity_difference",
    "equal_opportunity_difference",
)
KEPT = ("value", "low", "high", "reason", "p_value", "expected_null", "null_95", "perfect_classifier")


@dataclass(frozen=True)
class GridTask:
    """title: for the page. source: "age", "gender" (FairFace tables), "celeba", "ham10000" or "toy".

    settings: config keys. tower: the model, where it is not the one of `TOWER`.
    toy: knobs of `toyfaces.make`. one_word: of each group's words on the data card, keep the first. kind:
    "main" tasks meet every method, a "variant" only a few, a "fusion" only those of FPF, a "vision" task
    those with vision prompts; `of` is the task it varies.
    """

    title: str
    source: str
    label: str
    group: str
    positive: str
    settings: dict[str, Any] = field(default_factory=dict)
    toy: dict[str, Any] = field(default_factory=dict)
    one_word: bool = False
    kind: str = "main"
    of: str = ""
    tower: str = ""

    @property
    def model(self) -> str:
        """The name of the frozen model."""
        return self.tower or TOWER[self.source]


#: source -> the frozen model; `benchmarks.small_clips` makes those of CelebA and HAM10000
TOWER = {
    "age": "FaceCLIP-64",
    "gender": "FaceCLIP-64",
    "celeba": "CelebCLIP-64",
    "ham10000": "SkinCLIP-64",
    "toy": "toyclip",
}


_AGE = ("age", "age_40", "gender", "40+")


def _variant(title: str, kind: str = "variant", **settings: Any) -> GridTask:
    return GridTask(f"age by perceived gender, {title}", *_AGE, settings, kind=kind, of="age-gender")


TASKS: dict[str, GridTask] = {
    "age-gender": GridTask("age by perceived gender", *_AGE),
    "gender-race": GridTask("gender by perceived race", "gender", "gender", "race", "Male"),
    "age-gender-race": GridTask("age by perceived gender and race", "age", "age_40", "gender_race", "40+"),
    "smiling-gender": GridTask(
        "CelebA, smiling by perceived gender", *("celeba", "smiling", "gender", "yes")
    ),
    "eyeglasses-gender": GridTask(
        "CelebA, eyeglasses by perceived gender", *("celeba", "eyeglasses", "gender", "yes")
    ),
    "blond-gender": GridTask(
        "CelebA, blond hair by perceived gender", *("celeba", "blond_hair", "gender", "yes")
    ),
    "smiling-young": GridTask("CelebA, smiling by perceived age", *("celeba", "smiling", "age", "yes")),
    "malignant-sex": GridTask("HAM10000, malignant by sex", *("ham10000", "malignant", "sex", "yes")),
    "malignant-age": GridTask("HAM10000, malignant by age", *("ham10000", "malignant", "age_group", "yes")),
    "toy-shape": GridTask(
        "drawn faces, smiling by shape (correlation 0.5, squares harder to see)",
        *("toy", "smiling", "shape", "yes"),
    ),
    "toy-tint": GridTask(
        "drawn faces, smiling by tint (correlation 0.6, no group harder to see)",
        *("toy", "smiling", "tint", "yes"),
        toy={"correlation": {"tint": 0.6}, "difficulty": {}},
    ),
    "clients-5": _variant("5 clients", clients=5),
    "clients-40": _variant("40 clients", clients=40),
    "dirichlet-0.1": _variant("Dirichlet 0.1", concentration=0.1),
    "dirichlet-1": _variant("Dirichlet 1", concentration=1.0),
    "opposed": _variant("clients biased in opposite directions", partition="opposed"),
    "one-group": _variant(
        "clients of nearly one group each", "fusion", partition="group", concentration=0.05
    ),
    "sizes": _variant("clients of very different sizes", "fusion", partition="quantity", concentration=0.3),
    "smiling-gender-vit": GridTask(
        "CelebA, smiling by perceived gender, a vision transformer",
        *("celeba", "smiling", "gender", "yes"),
        tower="CelebViT-64",
        kind="vision",
        of="smiling-gender",
    ),
    "one-word": GridTask(
        "gender by perceived race, one word a group instead of several",
        *("gender", "gender", "race", "Male"),
        one_word=True,
        kind="variant",
        of="gender-race",
    ),
}

#: the three components, each on or off; the corner without any is FedAvg, the one with all is the full method
CORNERS: dict[str, dict[str, Any]] = {
    "fedavg": {"method": "fedavg"},
    "cdfp": {"method": "cdfp"},
    "dsop": {"method": "dsop"},
    "fpf": {"method": "fpf"},
    "cdfp-dsop": {"beta": 0.0, "gamma": 0.0},
    "cdfp-fpf": {"lambda_dsop": 0.0},
    "dsop-fpf": {"lambda_cf": 0.0},
    "fvlfp": {},
}
#: one setting changed at a time: name -> (the component alone, or FPF's clients; config keys)
OPTIONS: dict[str, dict[str, Any]] = {
    "cdfp-text": {"method": "cdfp", "cf_directions": "text"},
    "cdfp-text-alpha-4": {"method": "cdfp", "cf_directions": "text", "alpha": 4.0},
    "cdfp-image": {"method": "cdfp", "cf_directions": "image"},
    "cdfp-words": {"method": "cdfp", "pairing": "words", "lambda_cf": 1.0},
    "cdfp-layers": {"method": "cdfp", "pairing": "layers", "lambda_cf": 1.0},
    "cdfp-lambda-1": {"method": "cdfp", "lambda_cf": 1.0},
    "cdfp-lambda-20": {"method": "cdfp", "lambda_cf": 20.0},
    "cdfp-alpha-1": {"method": "cdfp", "alpha": 1.0},
    "cdfp-alpha-4": {"method": "cdfp", "alpha": 4.0},
    "cdfp-depth-1": {"method": "cdfp", "depth": 1},
    "dsop-text": {"method": "dsop", "dsop": "text"},
    "dsop-text-span": {"method": "dsop", "dsop": "text-span"},
    "dsop-image": {"method": "dsop", "dsop": "image"},
    "dsop-plain": {"method": "dsop", "recentre": False},
    "dsop-inference": {"method": "dsop", "dsop_at": "inference"},
    "dsop-fair-words": {"method": "dsop", "dsop_at": "inference", "dsop_words": "fair"},
}
FUSIONS: dict[str, dict[str, Any]] = {
    "fpf-performance": {"method": "fpf", "beta": 4.0, "gamma": 0.0},
    "fpf-gap": {"method": "fpf", "beta": 0.0, "gamma": 4.0},
    "fpf-strong": {"method": "fpf", "beta": 4.0, "gamma": 20.0},
    "fpf-ungated": {"method": "fpf", "fpf_margin": 0.0},
    "fpf-uncapped": {"method": "fpf", "fpf_cap": 1e6, "gamma": 20.0},
    "fpf-equal-clients": {"method": "fedavg", "fpf_a": 0.0},
}
#: prompts of the image tower beside those of the text tower
VISION: dict[str, dict[str, Any]] = {
    f"{method}-vision": {**keys, "vision_ctx": 4, "vision_depth": 4}
    for method, keys in (
        ("fedavg", {"method": "fedavg"}),
        ("fvlfp-label-free", {"method": "fvlfp-label-free"}),
    )
}
#: method of the grid -> config keys
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    **CORNERS,
    **OPTIONS,
    **FUSIONS,
    **VISION,
}
#: rank and lambda looked for after training, on the FedAvg prompts
POSTHOC = tuple(name for name, keys in METHODS.items() if "posthoc" in keys)
#: projections among them: what the full method is asked to beat
PROJECTIONS = tuple(name for name in POSTHOC if name != "thresholds")
#: newer published methods, in a part of their own: the main one does not wait for them
RIVALS = ("f3", "f3-acc", "pfedfair", "fedpgp", "fedmgp")
#: the full method without any group label (FPF judged by peers; from own reports), with labels for choices on
#: validation data, with labels throughout
OURS = ("fvlfp-peers-label-free", "fvlfp-label-free", "fvlfp", "fvlfp-labels")


class Part(NamedTuple):
    """Every method on every task, for the seeds 0 ... seeds - 1."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int = 5


_MAIN = tuple(name for name, task in TASKS.items() if task.kind == "main")
_FUSED = ("age-gender", "clients-40", "opposed", *(n for n, task in TASKS.items() if task.kind == "fusion"))
_VARIANTS = tuple(name for name, task in TASKS.items() if task.kind == "variant")
PARTS: dict[str, Part] = {
    "main": Part(_MAIN, (*(m for m in METHODS if m == "fedavg" or m not in (*CORNERS, *RIVALS)), "fvlfp")),
    "rivals": Part(_MAIN, RIVALS),
    "ablation": Part(_MAIN, tuple(CORNERS)),
    "variants": Part(_VARIANTS, ("fedavg", "cdfp", "dsop", "fpf", *OURS), 3),
    "options": Part(("age-gender", "gender-race"), tuple(OPTIONS), 3),
    "fusions": Part(_FUSED, ("fedavg", "fpf", *FUSIONS), 3),
    "vision": Part(("smiling-gender-vit",), ("zero-shot", "fedavg", "fvlfp-label-free", *VISION), 3),
}


def config_of(task: str, method: str, seed: int, **settings: Any) -> Config:
    """The config of one cell; `settings` come last (tests and tries)."""
    t = TASKS[task]
    base: dict[str, Any] = {"label": t.label, "groups": (t.group,), "seed": seed}
    if t.source != "toy":
        table = t.source if t.source in SETS else f"fairface_{t.source}"
        base |= {"data": f"{table}.csv", "model": t.model}
    return Config.make(**(SETTINGS[method] | base | t.settings | settings))


def cell_path(task: str, method: str, seed: int, root: Path = GRID) -> Path:
    """Where a cell lies."""
    return root / task / method / f"{seed}.json"


class Sources:
    """Encoders and tables, each read once a process.

    work: images, tables, and in `work/models` the small models. encoder: one model for all real tasks.
    """

    def __init__(self, work: Path, *, encoder: Encoder | None = None) -> None:
        self.work, self._one = work, encoder
        self._encoders: dict[str, Encoder] = {}
        self._tables: dict[str, Dataset] = {}

    def encoder(self, task: str) -> Encoder:
        """The task's frozen model."""
        t = TASKS[task]
        if self._one is not None and t.source != "toy":
            return self._one
        if t.model not in self._encoders:
            self._encoders[t.model] = load_model(t.model, self.work / "models")
        return self._encoders[t.model]

    def dataset(self, task: str, cfg: Config) -> Dataset:
        """The task's rows; drawn faces are drawn anew for every seed."""
        t = TASKS[task]
        if t.source == "toy":
            return toyfaces.make(cfg.n, seed=cfg.seed, label=t.label, **t.toy)
        if t.source not in self._tables:
            self._tables[t.source] = self._read(t.source)
        dataset = self._tables[t.source]
        if t.one_word:
            return with_one_word(dataset)
        return crossed(dataset) if t.group == "gender_race" else dataset

    def _read(self, source: str) -> Dataset:
        if source in SETS:
            return read_table(convert_set(source, self.work)[1])
        table = convert(shared_folder() / "data" / "fairface", self.work / "fairface", tasks=(source,))[
            source
        ]
        label, groups = ("age_40", ["gender", "race"]) if source == "age" else ("gender", ["race"])
        return read_table(table, label=label, groups=groups)


def crossed(dataset: Dataset) -> Dataset:
    """FairFace with gender and race as one attribute of 14 groups, "latino woman" among its words."""
    frame = dataset.frame.assign(gender_race=dataset.frame["gender"] + ", " + dataset.frame["race"])
    gender, race = dataset.card.groups["gender"].words, dataset.card.groups["race"].words
    words = {
        f"{g}, {r}": [f"{word} {nouns[0]}" for word in names]
        for g, nouns in gender.items()
        for r, names in race.items()
    }
    attribute = Attribute(words, "{word}", "{word}, a {label}")
    card = dataclasses.replace(dataset.card, groups={**dataset.card.groups, "gender_race": attribute})
    return dataclasses.replace(dataset, frame=frame, card=card)


def with_one_word(dataset: Dataset) -> Dataset:
    """The same rows; every group is named by the first of its words only."""
    groups = {
        name: dataclasses.replace(group, words={g: words[:1] for g, words in group.words.items()})
        for name, group in dataset.card.groups.items()
    }
    return dataclasses.replace(dataset, card=dataclasses.replace(dataset.card, groups=groups))


def metrics_of(frame: pd.DataFrame, task: str, seed: int) -> dict[str, Any]:
    """Every metric of one classifier with its 95 % sampling interval and, for gaps, its null value."""
    document = audit(frame, **_common(task, seed), draws=DRAWS).to_json()
    part = document["attributes"][TASKS[task].group]
    return _rounded(_kept(document["overall"]["rates"], part["worst_cell_recall"], part["gaps"]), KEPT)


def changes_of(before: pd.DataFrame, after: pd.DataFrame, task: str, seed: int) -> dict[str, Any]:
    """The paired change of each of them on the same rows, with its 95 % interval."""
    document = compare(before, after, **_common(task, seed), draws=PAIRED_DRAWS).to_json()
    part = document["attributes"][TASKS[task].group]
    found = _kept(document["overall"]["rates"], part["worst_cell_recall"], part["changes"])
    return _rounded(found, ("change", "low", "high"))


def _common(task: str, seed: int) -> dict[str, Any]:
    t = TASKS[task]
    return {
        "label": t.label,
        "prediction": "prediction",
        "groups": [t.group],
        "positive": t.positive,
        "seed": seed,
    }


def _kept(rates: Mapping[str, Any], worst: Any, gaps: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: gaps[name] for name in GAPS if name in gaps},
        "balanced_accuracy": rates["balanced_accuracy"],
        "accuracy": rates["accuracy"],
        "worst_cell_recall": worst,
    }


def _rounded(entries: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    def short(x: Any) -> Any:
        return round(x, 6) if isinstance(x, float) else x

    return {name: {k: short(e[k]) for k in keys if e.get(k) is not None} for name, e in entries.items()}


def cost_of(trained: Trained, prepared: Prepared) -> dict[str, Any]:
    """Parameters trained, bytes all clients send a round and once, seconds of training."""
    numbers = sum(tensor.numel() for tensor in trained.model.tensors().values())
    if trained.cfg.pooling == "personal":
        numbers = method_of(prepared.task, trained.cfg).trained
    elif isinstance(trained.model, ClientPrompts):
        numbers //= len(trained.model.text)
    after = trained.posthoc.uplink_bytes if trained.posthoc else 0
    a_round = [row.uplink_bytes for row in trained.history]
    federated = trained.cfg.pooling != "central"
    return {
        "parameters": numbers if trained.cfg.rounds else 0,
        "uplink_bytes_a_round": round(sum(a_round) / len(a_round)) if a_round and federated else 0,
        "uplink_bytes_after": after * len(prepared.clients),
        "seconds": round(trained.seconds, 2),
    }


def choice_of(trained: Trained) -> dict[str, Any]:
    """Rank and lambda of what acts on the embeddings at inference."""
    if trained.posthoc is not None:
        known = {"rank": trained.posthoc.rank, "lambda": trained.posthoc.lam}
        return {name: value for name, value in known.items() if value is not None}
    return {"rank": trained.projection.basis.shape[1], "lambda": trained.projection.lam}
