"""How a picture becomes the pixels that an image tower takes, and who says so.

The same weights with another mean, size rule or interpolation give other predictions, and no tensor tells
which were meant. What this module does not do: it guesses nothing; what nobody states is OpenAI's, and is
called assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fvlfp.errors import InputError

#: How the origin of what nobody states begins.
NOBODY = "nobody"

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class Preprocess:
    """Steps before an image tower; the size is the tower's own.

    mean, std: of each channel, for pixels in [0, 1]. interpolation: "bicubic" or "bilinear".
    resize: which side is made to fit: "shortest" (then the centre is cut out), "longest" (then the rest is
    filled with `fill`), or "squash" (both, so the picture is distorted).
    origin: who states this, in words for a report.
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize: str = "shortest"
    fill: int = 0
    origin: str = f"{NOBODY}: OpenAI's is assumed"

    def __post_init__(self) -> None:
        for key, allowed in (("interpolation", INTERPOLATIONS), ("resize", RESIZES)):
            if getattr(self, key) not in allowed:
                raise InputError(f"{key} = {getattr(self, key)!r} is not one of {', '.join(allowed)}")
        if not all(0 <= v <= 1 for v in self.mean) or not all(0 < v <= 1 for v in self.std):
            raise InputError(
                f"mean = {self.mean} and std = {self.std} must lie in [0, 1], and std above 0: "
                "they are those of pixels between 0 and 1"
            )

    @classmethod
    def stated(cls, steps: Mapping[str, Any], origin: str) -> Preprocess:
        """From open_clip's `preprocess_cfg`; what it leaves out is OpenAI's, as in open_clip.

        Raises:
            InputError: a value that open_clip could not use, or a colour mode other than RGB.
        """
        if steps.get("mode", "RGB") != "RGB":
            raise InputError(f"{origin}: mode {steps['mode']!r}, but pictures are read as RGB")
        names = {"resize_mode": "resize", "fill_color": "fill"}
        known = {names.get(k, k): v for k, v in steps.items() if v is not None}
        try:
            return cls(origin=origin).replace(
                **{k: v for k, v in known.items() if k in ("mean", "std", "interpolation", "resize", "fill")}
            )
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None

    def replace(self, **given: Any) -> Preprocess:
        """A copy with some steps given; mean and std may be one number or three.

        Raises:
            InputError: not one or three numbers, or a word that is not known.
        """
        given |= {key: _three(key, given[key]) for key in ("mean", "std") if key in given}
        return dataclasses.replace(self, **given)

    def override(self, given: Mapping[str, Any]) -> Preprocess:
        """`replace` with what a user gives, and the origin says so; None is not given."""
        given = {key: value for key, value in given.items() if value is not None}
        if not given:
            return self
        rest = "" if len(given) == 4 else f"; the rest: {self.origin}"
        return self.replace(**given, origin=f"{', '.join(given)} as given by the user{rest}")

    def transform(self, size: int | tuple[int, int]) -> Callable[[Any], Tensor]:
        """PIL image -> pixels (3, H, W) float32, by open_clip's own steps."""
        from open_clip.transform import image_transform

        made: Callable[[Any], Tensor] = image_transform(
            size,
            is_train=False,
            mean=self.mean,
            std=self.std,
            resize_mode=self.resize,
            interpolation=self.interpolation,
            fill_color=self.fill,
        )
        return made


class Normalise:
    """The last step of a transform, for whole batches, in the numbers of torchvision's own step.

    mean and std stay on the device: torchvision copies them there for every batch, and then waits to learn
    that no std is 0. One copy is made, because new memory costs a CPU more than the arithmetic.
    """

    def __init__(self, step: Any, device: torch.device) -> None:
        self._mean, self._std = (
            torch.as_tensor(numbers, dtype=torch.float32, device=device).view(-1, 1, 1)
            for numbers in (step.mean, step.std)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) float32 of pixels (n, 3, H, W) uint8."""
        return pixels.to(torch.float32, copy=True).div_(255).sub_(self._mean).div_(self._std)


def normalisation(transform: Any) -> Any:
    """The last step of a transform that ends in `ToTensor` and `Normalize`, as open_clip's do; or None."""
    from torchvision.transforms import (  # seconds, which a lesson's start need not wait
        Normalize,
        ToTensor,
    )

    steps = list(getattr(transform, "transforms", []))
    fits = len(steps) > 1 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)
    return steps[-1] if fits else None


def _three(key: str, value: Any) -> tuple[float, ...]:
    """One number or three, also as text with commas."""
    listed = value.split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(float(part) for part in (listed if isinstance(listed, Sequence) else [listed]))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3):
        raise InputError(f"{key} = {value!r} is not one number or three, such as 0.5,0.5,0.5")
    return numbers * (3 // len(numbers))
