"""Real faces and the small CLIP that the benchmarks on them use: a folder named by `FVLFP_SHARED`.

It holds `data/fairface` (the official label files and zips) and `models/faceclip64`. What this module does
not do: it downloads nothing.
"""

from __future__ import annotations

import os
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
