"""The command `fvlfp encode`.

What this module does not do: it computes nothing, like `fvlfp.cli`, which adds the command to its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvlfp.exits import says_what_is_wrong


@says_what_is_wrong
def encode(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file of images, as for audit clip.")],
    out: Annotated[Path, typer.Option(help="Folder for the features; what is there already stays.")],
    shard: Annotated[str, typer.Option(help="i/n: the i-th of n shares.")] = "1/1",
    model: Annotated[str, typer.Option(help="open_clip name; toyclip is built in.")] = "toyclip",
    pretrained: Annotated[str, typer.Option(help="A tag open_clip knows, or a weights file.")] = "",
    model_config: Annotated[Path | None, typer.Option(help="open_clip config JSON.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Data card; default: NAME.card.toml.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the image tower: auto, float32 or bf16.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes opening images; 0: threads.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images in one pass of the tower.")] = None,
) -> None:
    """Encode a table's images ahead, on one machine or a share on each of several.

    Example: fvlfp encode faces.csv --shard 2/4 --out features; later runs read them with
    FVLFP_CACHE=features, on machines of the same kind
    """
    from fvlfp.clip.encoder import Encoder
    from fvlfp.data.table import read_table
    from fvlfp.runs.encode import encode_shard, read_shard

    share = read_shard(shard)
    dataset = read_table(table, prompts=prompts)
    encoder = Encoder.load(
        model,
        pretrained=pretrained,
        model_config=model_config or "",
        device=device,
        precision=precision,
        workers=workers,
        batch=batch,
    )
    typer.echo(encode_shard(encoder, dataset, out, shard=share))
