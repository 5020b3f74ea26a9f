"""Tables that hold their pictures: saved Hugging Face data sets and Parquet files, good and bad."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fvlfp.data.source import read_source
from fvlfp.data.table import check_table, read_table
from fvlfp.data.toyfaces import CARD
from fvlfp.errors import InputError

#: `DatasetDict.save_to_disk` of datasets 5.2.0 wrote this folder: eight pictures in two splits.
REAL = Path(__file__).parent / "saved_by_datasets_5.2.0"
FEATURES = {
    "image": {"_type": "Image"},
    "smiling": {"names": ["no", "yes"], "_type": "ClassLabel"},
    "shape": {"dtype": "string", "_type": "Value"},
}


def png(i: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (20 * i, 0, 0)).save(out, "PNG")
    return out.getvalue()


def table(rows, **changes) -> pa.Table:
    """What the datasets library keeps for these pictures; changes: column -> values."""
    columns = {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in rows],
        "smiling": [i % 2 for i in rows],
        "shape": [("round", "square")[i // 4] for i in rows],
    } | changes
    made = pa.table({name: values for name, values in columns.items() if values is not None})
    features = {name: FEATURES[name] for name in made.column_names if name in FEATURES}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save(folder: Path, *shards: pa.Table, **state) -> Path:
    """As `Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        with pa.ipc.new_stream(folder / name, shard.schema) as stream:
            stream.write_table(shard)
    files = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(files | state))
    (folder / "dataset_info.json").write_text("{}")
    folder.with_name(folder.name + ".card.toml").write_text(CARD.to_toml())
    return folder


def save_splits(folder: Path, **splits: pa.Table) -> Path:
    """As `DatasetDict.save_to_disk`."""
    for name, rows in splits.items():
        save(folder / name, rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    folder.with_name(folder.name + ".card.toml").write_text(CARD.to_toml())
    return folder


def reds(images) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in images]


def test_a_folder_that_the_real_library_wrote(tmp_path):
    folder = shutil.copytree(REAL, tmp_path / "faces v1.0")
    (tmp_path / "faces v1.0.card.toml").write_text(CARD.to_toml())
    assert check_table(folder) == []
    data = read_table(folder, label="smiling", groups=["shape"])
    assert list(data.frame["split"]) == ["train"] * 4 + ["test"] * 4
    assert list(data.frame["smiling"]) == ["no", "yes"] * 4
    assert list(data.frame["shape"]) == ["round", "round", "square", "square"] * 2
    assert list(data.frame["path"]) == [f"{i}.png" for i in (0, 1, 4, 5, 2, 3, 6, 7)]
    assert reds(data.images) == [0, 20, 80, 100, 40, 60, 120, 140]


def test_the_tests_write_what_the_library_writes(tmp_path):
    ours = save_splits(tmp_path / "ours", train=table([0, 1, 4, 5]), test=table([2, 3, 6, 7]))
    for name in ("train", "test"):
        real = json.loads((REAL / name / "state.json").read_text())
        made = json.loads((ours / name / "state.json").read_text())
        assert real["_data_files"] == made["_data_files"]
    here, there = read_source(ours), read_source(REAL)
    assert here.frame.equals(there.frame) and here.rows == there.rows
    assert [a.read_bytes() for a in here.stored] == [b.read_bytes() for b in there.stored]


def test_shards_and_parquet_give_the_same_pictures(tmp_path):
    save(tmp_path / "whole", table(range(8)))
    save(tmp_path / "shards", table(range(3)), table(range(3, 8)))
    pq.write_table(table(range(8)), tmp_path / "p.parquet")
    (tmp_path / "p.card.toml").write_text(CARD.to_toml())
    whole = read_table(tmp_path / "whole")
    for name in ("shards", "p.parquet"):
        other = read_table(tmp_path / name)
        assert other.frame.equals(whole.frame) and "split" not in other.frame
        assert [other.images.digest(i) for i in range(8)] == [whole.images.digest(i) for i in range(8)]
    part = whole.take(np.array([7, 2]))
    assert reds(part.images) == [140, 40] and reds(part.images[1:]) == [40]


def test_a_lonely_split_is_no_split(tmp_path):
    data = read_table(save_splits(tmp_path / "d", train=table(range(8))))
    assert "split" not in data.frame and len(data) == 8


def test_each_bad_row_is_told_with_its_split(tmp_path):
    train = table(range(4), smiling=[0, 1, None, -1])
    test = table(range(4, 8), shape=["square", "square", "squar", "square"])
    folder = save_splits(tmp_path / "d", train=train, validation=table([0]), test=test)
    told = [str(problem) for problem in check_table(folder)]
    assert told[0] == "row 3 of train, column smiling: missing value: fill it in or delete the row"
    assert told[1].startswith("row 4 of train, column smiling: missing value")
    assert told[2].startswith("row 3 of test, column shape: 'squar' (1 row): a misspelling?")
    assert told[3] == "row 1 of validation: this picture is in val here and in train in row 1 of train"
    assert len(told) == 4


def test_pictures_that_are_damaged_or_elsewhere(tmp_path):
    pictures = [{"bytes": png(i), "path": None} for i in range(8)]
    pictures[2] = {"bytes": png(2)[:40], "path": "2.png"}
    pictures[5] = {"bytes": None, "path": "/etc/hostname"}
    folder = save(tmp_path / "d", table(range(8), image=pictures))
    told = [str(problem) for problem in check_table(folder)]
    assert told[0].startswith("row 3: the picture stored here cannot be read")
    assert told[1].startswith("row 6: the table holds no picture here: save the data set with its pict")
    with pytest.raises(InputError, match="row 3: the picture"):
        read_table(folder)
    data = read_table(folder, skip_bad=True)
    assert [p.row for p in data.skipped] == [3, 6]
    assert reds(data.images) == [0, 20, 60, 80, 120, 140]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "state.json").unlink(), "is a folder, but none that save_to_disk wrote"),
        (lambda f: (f / "state.json").write_text("{"), "cannot be read as a table"),
        (lambda f: (f / "state.json").write_text("[]"), "is not what save_to_disk writes"),
        (lambda f: (f / "state.json").write_text("{}"), "no Arrow file of its own"),
        (lambda f: (f / "data-00000-of-00001.arrow").unlink(), "data-00000-of-00001.arrow is missing; load"),
        (lambda f: (f / "data-00000-of-00001.arrow").write_bytes(b"half"), "cannot be read as a table"),
        (
            lambda f: (f / "state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}'),
            "leaves the folder",
        ),
        (lambda f: (f / "dataset_dict.json").write_text('{"splits": ["../x"]}'), "leaves the folder"),
        (lambda f: (f / "dataset_dict.json").write_text('{"splits": ["train"]}'), "state.json is missing"),
    ],
)
def test_folders_that_are_no_saved_data_set(tmp_path, change, message):
    folder = save(tmp_path / "d", table(range(8)))
    change(folder)
    with pytest.raises(InputError, match=message) as e:
        check_table(folder)
    assert str(tmp_path / "d") in str(e.value)


def test_a_plain_folder_names_the_table_in_it(tmp_path):
    (tmp_path / "faces.csv").write_text("path,smiling\n")
    with pytest.raises(InputError, match=r"give .*faces\.csv itself"):
        check_table(tmp_path)


def test_splits_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="split 'dev' must be called train, validation or test"):
        check_table(save_splits(tmp_path / "a", train=table([0, 1]), dev=table([2, 3])))
    with pytest.raises(InputError, match="split 'test' has other columns than 'train'"):
        check_table(save_splits(tmp_path / "b", train=table([0, 1]), test=table([2, 3], shape=None)))
    two = table([0, 1], mask=[{"bytes": png(0), "path": None}] * 2)
    with pytest.raises(InputError, match="image and mask both hold pictures: keep one"):
        check_table(save(tmp_path / "c", two))


def test_no_card_no_label(tmp_path):
    folder = save(tmp_path / "d", table(range(8)))
    assert str(check_table(folder, label="smilling")[0]) == "no column 'smilling'; did you mean 'smiling'?"
    (tmp_path / "d.card.toml").unlink()
    assert "no data card at" in str(check_table(folder)[0]) and "d.card.toml" in str(check_table(folder)[0])
