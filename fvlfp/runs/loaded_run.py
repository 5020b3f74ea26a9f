"""A finished run, ready to use on other pictures: predict, class texts, projected embeddings.

A run is read from the folder that `fvlfp train` wrote (its `method`, or its `baseline` folder), or from a
deployment's `server` folder; the words come from `words.toml` there.

What this module does not do: it trains nothing, and it judges nothing; see `fvlfp.runs.audit_run`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fvlfp.arrays import default_cache
from fvlfp.clip.cache import features
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.pixels import read_pixels
from fvlfp.data.card import Card, told_apart
from fvlfp.errors import InputError
from fvlfp.runs.predict import predict, readout_of
from fvlfp.runs.save import RESULT, WORDS, read_provenance, read_result
from fvlfp.runs.train import Prepared, Trained, load_encoder
from fvlfp.training.examples import Split, codes
from fvlfp.training.readout import Readout
from fvlfp.training.task import Task

#: What must be equal between the frozen model of a run and the one that is loaded now.
_SAME_MODEL = ("weights_sha256", "activation", "transform")


@dataclass(frozen=True)
class LoadedRun:
    """A finished run with its frozen model and its words.

    words: the data card's file. provenance: what the run said about model and data when it was saved.
    new_classes: whether the class words are others than those that were trained on.
    """

    trained: Trained
    card: Card
    words: Path
    encoder: Encoder
    task: Task
    provenance: Mapping[str, Any]
    new_classes: bool = False

    @property
    def classes(self) -> dict[str, str]:
        """Class value -> the phrase that the prompts are put in front of."""
        return self.card.classes[self.trained.cfg.label]

    @property
    def readout(self) -> Readout:
        """The classifier: from embeddings to logits.

        Raises:
            InputError: the run left each client a model of its own.
        """
        cfg = self.trained.cfg
        if not cfg.one_model:
            raise InputError(f"method = {cfg.method!r} has one classifier for each client, and no common one")
        return readout_of(self._prepared(self._empty(), pd.DataFrame()), self.trained)

    def with_classes(self, phrases: Mapping[str, str]) -> LoadedRun:
        """The same prompts in front of other class words (base-to-new); nothing is trained.

        Args:
            phrases: class value -> phrase, such as `{"hat": "face with a hat", "no": "bare head"}`.

        Raises:
            InputError: fewer than two classes, two with one phrase, a text that is too long, or
                `method = "thresholds"`, whose rule was fitted to the trained classes.
        """
        if len(phrases) < 2:
            raise InputError("a classifier needs at least two classes")
        told_apart(dict(phrases), "classes")
        if self.trained.cfg.posthoc == "thresholds":
            raise InputError("thresholds were fitted to the trained classes: other classes cannot be used")
        cfg = self.trained.cfg
        card = dataclasses.replace(self.card, classes={**self.card.classes, cfg.label: dict(phrases)})
        task = Task.make(self.encoder, card, cfg)
        return dataclasses.replace(self, card=card, task=task, new_classes=dict(phrases) != self.classes)

    def class_texts(self) -> Tensor:
        """T (C, d), unit: the class embeddings that the trained prompts make, post-hoc map included."""
        return self.readout.class_texts()

    def project(self, z: Tensor) -> Tensor:
        """Image embeddings (n, d), unit, as the classifier compares them with `class_texts`.

        Args:
            z: unit embeddings (n, d) of the frozen model, such as `encoder.encode_images` gives.
        """
        with torch.no_grad():
            return self.readout.images(z.to(self.task.frozen_texts.device))

    def predict(
        self, images: Sequence[Any], *, groups: pd.DataFrame | None = None, zero_shot: bool = False
    ) -> pd.DataFrame:
        """Predict pictures; no label is needed.

        Args:
            images: n PIL pictures, or `fvlfp.data.images.Files`.
            groups: n rows with a column for each perceived-group attribute; `method = "thresholds"` alone
                reads them.
            zero_shot: the frozen model with the card's first template, for comparison.

        Returns:
            n rows: `prediction`, and, for two classes, `score`: the probability of the second one.

        Raises:
            InputError: `thresholds` without groups, or a group that the card does not know.
        """
        prepared = self._prepared(
            self._encode(images, groups, zero_shot), pd.DataFrame(index=range(len(images)))
        )
        return predict(prepared, None if zero_shot else self.trained)

    def _encode(self, images: Sequence[Any], groups: pd.DataFrame | None, zero_shot: bool) -> Split:
        if self.trained.cfg.posthoc == "thresholds" and groups is None and not zero_shot:
            raise InputError("method = 'thresholds' needs the perceived group of every picture: use a table")
        cache, device = default_cache(), self.encoder.device
        z = torch.from_numpy(features(self.encoder, images, cache=cache)).to(device)
        groups = pd.DataFrame() if groups is None else groups
        known = self.task.groups if len(groups) else {}
        g = {name: torch.from_numpy(codes(groups, name, values)).to(device) for name, values in known.items()}
        pixels = read_pixels(self.encoder, images, cache=cache) if self.trained.cfg.vision_ctx else None
        return Split(z, torch.zeros(len(images), dtype=torch.long, device=device), g, pixels)

    def _empty(self) -> Split:
        texts = self.task.frozen_texts
        return Split(texts[:0], torch.zeros(0, dtype=torch.long, device=texts.device), {})

    def _prepared(self, test: Split, frame: pd.DataFrame) -> Prepared:
        return Prepared(self.trained.cfg, self.task, [], test, frame, self.provenance, 0.0)


def load_run(
    folder: str | Path,
    *,
    pretrained: str | None = None,
    model_config: str | None = None,
    device: str | None = None,
    encoder: Encoder | None = None,
) -> LoadedRun:
    """Read a finished run.

    Args:
        folder: of `fvlfp train` (its method), its `baseline` folder, or a deployment's `server` folder.
        pretrained, model_config: where the frozen model lies now, if no longer where the run found it.
        device: by default the one that the run's config names.
        encoder: the frozen model itself, if it is loaded already.

    Raises:
        InputError: no finished run there, or the frozen model is not the one that the run was trained with.
    """
    file = result_file(Path(folder))
    trained, saved = read_result(file), read_provenance(file)
    words = next((path for path in (file.parent / WORDS, file.parent.parent / WORDS) if path.is_file()), None)
    if words is None:
        raise InputError(f"{folder} has no {WORDS}: put the data card of the training there under that name")
    moved = {"pretrained": pretrained, "model_config": model_config, "device": device}
    cfg = trained.cfg.replace(**{key: str(value) for key, value in moved.items() if value is not None})
    encoder = load_encoder(cfg) if encoder is None else encoder
    for key in _SAME_MODEL:
        if encoder.provenance[key] != saved[key]:
            raise InputError(
                f"the run was trained with {saved['model']}, {key} = {saved[key]}; now it is "
                f"{encoder.provenance['model']}, {encoder.provenance[key]}: name its file as pretrained"
            )
    card, trained = Card.read(words), dataclasses.replace(trained, cfg=cfg)
    _check_words(card, words, saved.get("prompts"), cfg.label)
    return LoadedRun(trained, card, words, encoder, Task.make(encoder, card, cfg), saved)


def _check_words(card: Card, words: Path, trained_with: Mapping[str, Any] | None, label: str) -> None:
    """Raises InputError where the words are others, or in another order, than those of the training."""
    if trained_with is None:
        return
    before = [*trained_with["templates"], *trained_with["classes"].items()]
    now = [*card.templates, *card.classes.get(label, {}).items()]
    if other := [word for word in before if word not in now] or (before != now and ["their order"]):
        raise InputError(
            f"{words} has other words than the run was trained with ({other[0]} is not there): put the data "
            "card of the training there; other class words go by themselves (--class, with_classes)"
        )


def result_file(folder: Path) -> Path:
    """The `prompts.safetensors` that a folder stands for.

    Raises:
        InputError: there is none; the run is not finished, or the folder holds something else.
    """
    for path in (folder / RESULT, folder / "method" / RESULT):
        if path.is_file():
            return path
    unfinished = (folder / "config.json").is_file()
    hint = "the run is not finished: go on with fvlfp train --resume" if unfinished else "name a run's folder"
    raise InputError(f"{folder} holds no finished run ({RESULT}); {hint}")
