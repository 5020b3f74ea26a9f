import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fvlfp.clip import cache as cache_module
from fvlfp.clip import decode
from fvlfp.clip.cache import features
from fvlfp.clip.encoder import Encoder, pick_device
from fvlfp.errors import InputError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(7)]


def test_features_are_unit_rows_and_do_not_depend_on_the_batch(encoder, images):
    z = encoder.encode_images(images)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_images(images, batch=2), z, atol=1e-6)


def test_cache_is_used_and_keyed_by_pixels_and_model(encoder, images, tmp_path, monkeypatch):
    z = features(encoder, images, cache=tmp_path)
    monkeypatch.setattr(encoder.model, "encode_image", lambda *a, **k: pytest.fail("encoded again"))
    np.testing.assert_array_equal(features(encoder, images, cache=tmp_path), z)
    changed = [*images[:-1], images[0]]
    with pytest.raises(pytest.fail.Exception):
        features(encoder, changed, cache=tmp_path)
    monkeypatch.setitem(encoder.provenance, "weights_sha256", "another model")
    with pytest.raises(pytest.fail.Exception):
        features(encoder, images, cache=tmp_path)


def test_only_missing_blocks_are_encoded_and_the_rows_stay_in_order(encoder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_BLOCK", 2)
    z = features(encoder, images, cache=tmp_path)
    np.testing.assert_allclose(z, encoder.encode_images(images), atol=1e-6)
    digests, parts = cache_module.picture_digests(images), cache_module.blocks_of(len(images))
    names = [cache_module.block_name(encoder, [digests[i] for i in part]) for part in parts]
    files = [tmp_path / name for name in names]
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert [len(np.load(path)) for path in files] == [2, 2, 2, 1]
    files[1].unlink()
    seen, inner = [], encoder.model.encode_image
    monkeypatch.setattr(encoder.model, "encode_image", lambda x: seen.append(len(x)) or inner(x))
    np.testing.assert_array_equal(features(encoder, images, cache=tmp_path), z)
    assert seen == [2]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY half a file"])
def test_a_damaged_cache_file_is_replaced(encoder, images, tmp_path, damage):
    z = features(encoder, images, cache=tmp_path)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage)
    np.testing.assert_array_equal(features(encoder, images, cache=tmp_path), z)
    np.testing.assert_array_equal(np.load(file), z)
    assert not list(tmp_path.glob("*.part"))


def test_provenance_names_weights_and_activation(encoder, tiny_files):
    import hashlib

    assert encoder.provenance["weights_sha256"] == hashlib.sha256(tiny_files[1].read_bytes()).hexdigest()
    assert encoder.provenance["activation"] == "gelu"
    assert "Resize" in encoder.provenance["transform"]


def test_wrong_models_are_refused(tiny_files, tmp_path):
    config, weights = tiny_files
    with pytest.raises(InputError, match=r"open_clip knows no model 'ViT-B-61'; did you mean 'ViT-B-16'\?"):
        Encoder.load("ViT-B-61", pretrained="openai")
    with pytest.raises(InputError, match="neither a file nor a tag of ViT-B-16"):
        Encoder.load("ViT-B-16", pretrained="opeani")
    with pytest.raises(
        InputError, match=r"quick_gelu=True, but ViT-B-16 has quick_gelu=False.*'ViT-B-16-quickgelu'"
    ):
        Encoder.load("ViT-B-16", pretrained="openai")
    other = json.loads(config.read_text())
    other["text_cfg"]["width"] = 48
    (tmp_path / "other-clip.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"tiny.safetensors does not hold the weights of other-clip"):
        Encoder.load("other-clip", pretrained=str(weights), model_config=tmp_path / "other-clip.json")
    with pytest.raises(InputError, match="needs weights"):
        Encoder.load("ViT-B-16")
    with pytest.raises(InputError, match="no such model config"):
        Encoder.load("x", pretrained=str(weights), model_config=tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match="not an open_clip model config"):
        Encoder.load("x", pretrained=str(weights), model_config=tmp_path / "x.json")


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device = 'tpu' is not available"):
        pick_device("tpu")


@pytest.mark.parametrize(("free", "kept"), [(10**9, 4), (2 * 3 * 64 * 768, 2), (64, 0)])
def test_no_more_processes_than_shared_memory_has_room_for(
    encoder, monkeypatch, tmp_path, caplog, free, kept
):
    monkeypatch.setattr(decode, "SHARED", tmp_path)
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda where: SimpleNamespace(free=free))
    assert decode.workers_with_room(4, 64 * 768) == kept
    assert decode.workers_with_room(0, 64 * 768) == 0
    assert ("has room for" in caplog.text) == (kept < 4)


def test_without_room_for_processes_threads_open_the_images(encoder, images, monkeypatch, tmp_path):
    z = encoder.encode_images(images)
    monkeypatch.setattr(encoder, "workers", 2)
    monkeypatch.setattr(decode, "SHARED", tmp_path)
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda where: SimpleNamespace(free=0))
    monkeypatch.setattr(decode, "DataLoader", lambda *a, **k: pytest.fail("a process"))
    np.testing.assert_array_equal(encoder.encode_images(images), z)
