"""Features encoded on several machines are those of one, and nothing else is taken for them."""

import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.clip import cache as cache_module
from fvlfp.clip.cache import features
from fvlfp.data import toyfaces
from fvlfp.data.images import Files
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError
from fvlfp.runs.encode import encode_shard, read_shard


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Ten small pictures, in blocks of four."""
    monkeypatch.setattr(cache_module, "_BLOCK", 4)
    rng, paths = np.random.default_rng(0), [tmp_path / f"{i}.png" for i in range(10)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    frame = toyfaces.make(10, seed=0).frame.assign(path=[path.name for path in paths])
    return Dataset(frame, Files(paths), toyfaces.CARD)


def test_shards_together_are_the_whole(encoder, dataset, tmp_path, monkeypatch, caplog):
    wanted, merged = features(encoder, dataset.images), tmp_path / "merged"
    lines = [encode_shard(encoder, dataset, tmp_path / f"machine {i}", shard=(i, 2)) for i in (1, 2)]
    assert [line.split(":")[0] for line in lines] == [
        "6 of 10 images, float32 on cpu",
        "4 of 10 images, float32 on cpu",
    ]
    for i in (1, 2):
        shutil.copytree(tmp_path / f"machine {i}", merged, dirs_exist_ok=True)
    inner, seen = encoder.model.encode_image, []
    monkeypatch.setattr(encoder.model, "encode_image", lambda x: seen.append(len(x)) or inner(x))
    np.testing.assert_array_equal(features(encoder, dataset.images, cache=merged), wanted)
    assert seen == []
    broken = min(merged.iterdir())
    broken.write_bytes(broken.read_bytes()[:-9] + b"badcopied")
    np.testing.assert_array_equal(features(encoder, dataset.images, cache=merged), wanted)
    assert len(seen) == 1 and "damaged" in caplog.text


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "-1/2", "1/0", "a/b", "1/2/3", "1.0/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="write i/n"):
        read_shard(text)


def test_what_cannot_be_encoded_or_kept_is_refused(encoder, dataset, tmp_path):
    with pytest.raises(InputError, match="shard 4/5: 10 images make 3 shards at most"):
        encode_shard(encoder, dataset, tmp_path / "out", shard=(4, 5))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file cannot be written"):
        encode_shard(encoder, dataset, tmp_path / "file", shard=(1, 1))


def test_the_command(dataset, tmp_path):
    table = tmp_path / "faces.csv"
    dataset.frame.to_csv(table, index=False)
    (tmp_path / "faces.card.toml").write_text(toyfaces.CARD.to_toml(), encoding="utf-8")
    words = ["encode", str(table), "--device", "cpu", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--shard", "3/3"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "2 of 10 images, float32 on cpu: use with FVLFP_CACHE=out\n"
    assert len(list((tmp_path / "out").glob("*.npy"))) == 1
    refused = CliRunner().invoke(app, [*words, "--shard", "4/3"])
    assert refused.exit_code == 2 and "write i/n" in refused.output
