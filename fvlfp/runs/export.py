"""A trained classifier for programs without fvlfp: one matrix for any open_clip script, or an ONNX file.

With unit image embeddings z (n, d) of the frozen model,

    logits = (z W^T + b) / |z M^T + c|

where M and c are what the projection does before it makes rows unit again. Without a projection the divisor
is 1 and one matrix is all. With it, W and b alone choose the same class; the division is needed for the
probabilities, so both are exact.

What this module does not do: it exports no rule that needs a group (`thresholds`), no classifier of a single
client (`local`), and as a matrix nothing that is not linear in z (`fedclip`) or that changes the image tower
(vision prompts); those refuse.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from fvlfp.clip.lookup import Source, look_up
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.files import write_atomically
from fvlfp.output_folder import check_own, claimed
from fvlfp.runs.loaded_run import LoadedRun
from fvlfp.runs.model_card import model_card, render
from fvlfp.training.readout import Readout

#: How far an exported model may be from the run, in probability.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Classifier:
    """weight W (C, d), bias b (C,); project M (d, d) and shift c (d,), or None where the divisor is 1."""

    weight: Tensor
    bias: Tensor
    project: Tensor | None = None
    shift: Tensor | None = None

    @classmethod
    def of(cls, readout: Readout) -> Classifier:
        """Fold class texts, scale and projection.

        Raises:
            InputError: the classifier is not of this form.
        """
        if readout.adapter is not None:
            raise InputError("an adapter is not linear in the embedding: export it with --to onnx")
        if readout.vision is not None:
            raise InputError("vision prompts change the image tower: no matrix on embeddings says that")
        if readout.posthoc is not None and readout.posthoc.thresholds is not None:
            raise InputError("thresholds need the perceived group of every picture: they are not exported")
        texts, scale = readout.class_texts().double().cpu(), readout.task.scale
        erase = readout.posthoc.erase if readout.posthoc is not None else None
        maps = [m for m in (readout.projection, erase) if m is not None and m.lam and m.basis.shape[1]]
        if len(maps) > 1:
            raise InputError("two projections one after the other are not one matrix: export with --to onnx")
        if not maps:
            return cls((scale * texts).float(), torch.zeros(len(texts)))
        m, c = _affine(maps[0])
        return cls((scale * texts @ m).float(), (scale * texts @ c).float(), m.float(), c.float())

    def logits(self, z: Tensor) -> Tensor:
        """(n, C) from unit embeddings z (n, d)."""
        out = z @ self.weight.T + self.bias
        if self.project is None or self.shift is None:
            return out
        return out / (z @ self.project.T + self.shift).norm(dim=-1, keepdim=True)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, as they are saved."""
        found = {name: getattr(self, name) for name in ("weight", "bias", "project", "shift")}
        return {name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}


def _affine(p: Projection) -> tuple[Tensor, Tensor]:
    """M (d, d) and c (d,) with which z M^T + c is z - lambda (z - mu) R W^T."""
    read, mu = p.basis.double().cpu(), p.mu.double().cpu()
    write = read if p.write is None else p.write.double().cpu()
    taken = p.lam * write @ read.T  # (d, d): z (R W^T) = z taken^T / lambda
    return torch.eye(len(mu), dtype=torch.double) - taken, taken @ mu


def export_open_clip(run: LoadedRun, folder: Path, out: Path) -> Path:
    """Write `classifier.safetensors`, the model's config, `example.py` and the card `README.md` into `out`.

    Args:
        folder: the run's folder, where its audit lies.

    Raises:
        InputError: the run's classifier is not of this form; `out` cannot be written to.
    """
    check_own(out, marker="classifier.safetensors", what="export to open_clip")
    cfg, classifier = run.trained.cfg, Classifier.of(run.readout)
    exact = (
        "same classes and probabilities as the run"
        if classifier.project is None
        else ("same classes with weight and bias alone; probabilities with the division by the norm")
    )
    # one entry: the format writes several in any order, so that no two exports would be the same file
    about = {"facts": json.dumps({"classes": list(run.classes), "exact": exact})}
    with claimed(out):
        write_atomically(out / "classifier.safetensors", save(classifier.tensors(), metadata=about))
        source = _source(run)
        tagged = bool(cfg.pretrained) and not Path(cfg.pretrained).is_file()
        if not tagged:
            _write_text(out / "frozen_model.json", json.dumps(source.config, indent=1) + "\n")
        example = render(
            "example_open_clip.py.j2",
            model=source.name if tagged else "frozen_model",
            tagged=tagged,
            weights=source.pretrained,
            steps=_steps(run, source),
            classes=list(run.classes),
            norm=classifier.project is not None,
        )
        _write_text(out / "example.py", example)
        _write_text(out / "README.md", model_card(run, folder, kind="open_clip", exact=exact))
    return out / "classifier.safetensors"


def export_onnx(run: LoadedRun, folder: Path, out: Path) -> Path:
    """Write `model.onnx` (pixels to probabilities), `preprocess.json`, an example and a card into `out`.

    The file is run with onnxruntime and compared with the run before it counts.

    Raises:
        InputError: onnx or onnxruntime are not installed, the run has no common classifier, or the exported
            model differs from the run by more than `TOLERANCE`.
    """
    readout = run.readout  # what no export can do is refused before a package is missed
    if readout.posthoc is not None and readout.posthoc.thresholds is not None:
        raise InputError("thresholds need the perceived group of every picture: they are not exported")
    check_own(out, marker="model.onnx", what="export to onnx")
    runtime = _onnxruntime()
    steps, network = _square(_steps(run, _source(run))), ImageToClass(run, readout).eval()
    side, generator = steps["size"], torch.Generator().manual_seed(0)
    assert isinstance(side, int)
    pixels = torch.randn(3, 3, side, side, generator=generator).to(run.encoder.device)
    with claimed(out):
        part = out / ".model.onnx.part"
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # of the tracer, about shapes that are constants here
                torch.onnx.export(
                    network,
                    (pixels,),
                    str(part),
                    input_names=["pixels"],
                    output_names=["probability"],
                    dynamic_axes={"pixels": {0: "n"}, "probability": {0: "n"}},
                    dynamo=False,
                )
            worst = _difference(runtime, part, network, pixels)
            if not worst <= TOLERANCE:
                raise InputError(f"the exported model differs from the run by {worst:.2g}: not written")
            part.replace(out / "model.onnx")
        finally:
            part.unlink(missing_ok=True)
        exact = f"largest difference from the run on {len(pixels)} random inputs: {worst:.1e}"
        _write_text(out / "preprocess.json", json.dumps(steps, indent=1) + "\n")
        _write_text(out / "example.py", render("example_onnx.py.j2", classes=list(run.classes)))
        _write_text(out / "README.md", model_card(run, folder, kind="onnx", exact=exact))
    return out / "model.onnx"


class ImageToClass(nn.Module):
    """Pixels (n, 3, h, w), transformed as the frozen model wants them, to class probabilities (n, C)."""

    def __init__(self, run: LoadedRun, readout: Readout) -> None:
        super().__init__()
        self.model, self.readout = run.encoder.model, readout

    def forward(self, pixels: Tensor) -> Tensor:
        """The path that `LoadedRun.predict` takes."""
        vision = self.readout.vision
        if vision is None:
            z = F.normalize(self.model.encode_image(pixels), dim=-1)
        else:
            assert self.readout.task.image is not None  # a run with vision prompts has its tower
            z = self.readout.task.image.encode_normal(pixels, vision)
        return self.readout.logits(z).softmax(-1)


def _difference(runtime: Any, path: Path, network: ImageToClass, pixels: Tensor) -> float:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in (1, len(pixels)):  # another batch than the traced one, too
        with torch.no_grad():
            wanted = network(pixels[:n]).cpu().numpy()
        found = session.run(None, {"pixels": pixels[:n].cpu().numpy()})[0]
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


def _onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401  torch writes through it
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"--to onnx needs a package that is not here ({error.name}): pip install onnx onnxruntime"
        ) from None
    return onnxruntime


class PixelSteps(TypedDict):
    """How a picture becomes pixels; size: side, or (height, width)."""

    size: int | tuple[int, int]
    mean: list[float]
    std: list[float]
    interpolation: str
    resize: str


def _source(run: LoadedRun) -> Source:
    """Config, image transform and weights of the frozen model."""
    cfg = run.trained.cfg
    return look_up(cfg.model, cfg.pretrained, cfg.model_config)


def _steps(run: LoadedRun, source: Source) -> PixelSteps:
    """The steps of the run's frozen model."""
    steps = source.preprocess
    return {
        "size": run.encoder.model.visual.image_size,
        "mean": list(steps.mean),
        "std": list(steps.std),
        "interpolation": steps.interpolation,
        "resize": steps.resize,
    }


def _square(steps: PixelSteps) -> PixelSteps:
    """The same with one number as the size.

    Raises:
        InputError: the example that is written beside the ONNX file does not prepare pictures so.
    """
    size = steps["size"]
    sides = set(size) if isinstance(size, tuple | list) else {size}
    if len(sides) > 1 or steps["resize"] != "shortest":
        raise InputError(f"--to onnx takes square pictures resized by their shortest side, not {steps}")
    return {**steps, "size": sides.pop()}


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


#: what `--to` takes
EXPORTS: dict[str, Callable[[LoadedRun, Path, Path], Path]] = {
    "open_clip": export_open_clip,
    "onnx": export_onnx,
}
