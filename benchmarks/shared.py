"""Real images and the small CLIPs that the benchmarks on them use: a folder named by `FVLFP_SHARED`.

It holds `data/fairface` (the official label files and zips), `data/celeba` and `data/ham10000` (see
`benchmarks.sets`), and `models/faceclip64`. What this module does
not do: it downloads nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from fvlfp.clip.encoder import Encoder
from fvlfp.errors import InputError


def shared_folder() -> Path:
    """`FVLFP_SHARED`, checked."""
    folder = os.environ.get("FVLFP_SHARED")
    if not folder:
        raise InputError("set FVLFP_SHARED to the folder with data/fairface and models/faceclip64")
    return Path(folder)


def load_encoder(shared: Path) -> Encoder:
    """FaceCLIP-64."""
    folder = shared / "models" / "faceclip64"
    return Encoder.load(
        "FaceCLIP-64",
        pretrained=str(folder / "faceclip64_fp16.safetensors"),
        model_config=folder / "FaceCLIP-64.json",
    )


def load_model(name: str, folder: Path) -> Encoder:
    """The model of a benchmark: FaceCLIP-64 of the shared folder, the built-in one, or one made in `folder`.

    Raises:
        InputError: `benchmarks.small_clips` has not made it yet.
    """
    if name == "toyclip":
        return Encoder.load()
    if name == "FaceCLIP-64":
        return load_encoder(shared_folder())
    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        raise InputError(f"no {weights}: run python -m benchmarks.small_clips first")
    return Encoder.load(name, pretrained=str(weights), model_config=folder / f"{name}.json")


def command(main: Callable[[], object]) -> int:
    """Run a script; returns the exit status: 0, or 2 with one line on stderr for bad input."""
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
