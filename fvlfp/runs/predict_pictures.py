"""`fvlfp predict`: what a finished run says about pictures, with labels or without, as a table.

What this module does not do: it judges nothing; `fvlfp audit run` does, on a table with labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from fvlfp.data.folders import pictures_in
from fvlfp.data.images import Files, check_name, open_image
from fvlfp.data.table import read_table
from fvlfp.errors import InputError
from fvlfp.files import as_utf8, sha256, write_atomically
from fvlfp.output_folder import check_local
from fvlfp.runs.loaded_run import LoadedRun, result_file

_WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    ".csv": lambda frame: frame.to_csv(index=False).encode(),
    ".parquet": lambda frame: frame.to_parquet(index=False),
}


@dataclass(frozen=True)
class Pictures:
    """n pictures, their paths, the number of each as a message would name it, and what was left out."""

    images: Sequence[Any]
    paths: list[str]
    rows: list[int | str]
    frame: pd.DataFrame | None = None
    left_out: tuple[str, ...] = ()


def predict_pictures(
    run: LoadedRun,
    folder: Path,
    source: Path,
    out: Path,
    *,
    skip_bad: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write `out` (CSV or Parquet) with a row for each picture, and `NAME.provenance.json` beside it.

    Columns: `path`, `row` (as messages number it: 2 is the first row of a CSV), `prediction`, and, for two
    classes, `score`: the probability of the second one.

    Args:
        folder: the run's folder, for its name and checksum.
        source: a picture, a folder of pictures, or a table as `fvlfp check` takes it.
        skip_bad: leave unreadable pictures out, and say which, instead of stopping.

    Raises:
        InputError: nothing to predict, an unreadable picture, an `out` of another kind, or a file there that
            this did not write.
    """
    check_local(out)
    if out.is_dir() or out.resolve() == source.resolve():
        raise InputError(f"{out} is {'a folder' if out.is_dir() else 'the input'}: choose another --out")
    if out.suffix not in _WRITERS:
        raise InputError(f"{out}: write a .csv or a .parquet file")
    beside = out.with_suffix(".provenance.json")
    if out.exists() and not beside.exists():
        raise InputError(f"{out} is there, and was not written by this command: choose another --out")
    pictures = find_pictures(source, run, skip_bad=skip_bad)
    for line in pictures.left_out:
        say(f"left out: {line}")
    if run.new_classes:
        say(f"class words that the run was not trained on: {', '.join(run.classes.values())}")
    found = run.predict(pictures.images, groups=pictures.frame)
    found.insert(0, "path", pictures.paths)
    found.insert(1, "row", pictures.rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, _WRITERS[out.suffix](found))
        facts = json.dumps(_provenance(run, folder, source, pictures), indent=1, ensure_ascii=False)
        write_atomically(beside, facts.encode() + b"\n")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    return out


def find_pictures(source: Path, run: LoadedRun, *, skip_bad: bool) -> Pictures:
    """The pictures that `source` stands for.

    Raises:
        InputError: none, or one that cannot be read.
    """
    saved = any((source / name).is_file() for name in ("state.json", "dataset_dict.json"))
    known = Image.registered_extensions()
    if source.is_dir() and not saved:
        paths, left_out = pictures_in(source, known)
        if not paths:
            raise InputError(f"{source} holds no picture" + (f"; left out: {left_out}" if left_out else ""))
        found = _checked([source / path for path in paths], [path.as_posix() for path in paths], skip_bad)
        return replace(found, left_out=(*found.left_out, *([left_out] if left_out else [])))
    if source.suffix.lower() in known:
        return _checked([source], [source.name], skip_bad)
    return _of_table(source, run, skip_bad)


def _checked(paths: list[Path], names: list[str], skip_bad: bool) -> Pictures:
    good, problems = [], []
    for i, path in enumerate(paths):
        try:
            check_name(names[i])
            open_image(path)
            good.append(i)
        except InputError as error:
            problems.append(str(error))
    if problems and (not skip_bad or not good):
        raise InputError(
            "\n".join(problems[:20]) + (f"\n... {len(problems)} in all" if problems[20:] else "")
        )
    images = Files([paths[i] for i in good])
    return Pictures(images, [names[i] for i in good], [i + 1 for i in good], None, tuple(problems))


def _of_table(source: Path, run: LoadedRun, skip_bad: bool) -> Pictures:
    """The run's own words are taken: a label is not needed, and a data card beside the table is not read."""
    dataset = read_table(source, prompts=run.words, skip_bad=skip_bad, judged=False)
    names = dataset.frame["path"].tolist() if "path" in dataset.frame else [""] * len(dataset)
    frame = dataset.frame if set(run.task.groups) <= set(dataset.frame) else None
    return Pictures(dataset.images, names, list(dataset.rows), frame, tuple(map(str, dataset.skipped)))


def _provenance(run: LoadedRun, folder: Path, source: Path, pictures: Pictures) -> Mapping[str, Any]:
    values = list(run.classes)
    return {
        "run": as_utf8(folder.name),
        "prompts_sha256": sha256(result_file(folder).read_bytes()),
        "method": run.trained.cfg.method,
        "input": as_utf8(source.name),
        "pictures": len(pictures.images),
        "left_out": list(pictures.left_out),
        "classes": run.classes,
        "classes_trained_on": not run.new_classes,
        "score": f"probability of {values[1]!r}" if len(values) == 2 else None,
        "model": {key: run.encoder.provenance[key] for key in ("model", "pretrained", "weights_sha256")},
        "trained_with": run.provenance,
    }
