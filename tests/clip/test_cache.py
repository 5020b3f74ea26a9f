"""What keys cached features, how damage to a file is noticed, and what happens when none can be kept."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fvlfp import arrays
from fvlfp.clip.cache import features
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.pixels import read_pixels
from fvlfp.errors import InputError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(7)]


@pytest.mark.parametrize("change", [{"quick_gelu": True}, {"vision_cfg": {"head_width": 8}}], ids=str)
def test_the_same_weights_in_another_architecture_are_encoded_anew(
    encoder, tiny_files, images, tmp_path, change
):
    config, weights = tiny_files
    said = json.loads(config.read_text())
    for key, value in change.items():
        said[key] = said[key] | value if isinstance(value, dict) else value
    (tmp_path / "other-arch.json").write_text(json.dumps(said))
    other = Encoder.load(
        "other-arch", pretrained=str(weights), model_config=tmp_path / "other-arch.json", device="cpu"
    )
    assert other.provenance["weights_sha256"] == encoder.provenance["weights_sha256"]
    first = features(encoder, images, cache=tmp_path)
    second = features(other, images, cache=tmp_path)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(second, other.encode_images(images))


def test_another_number_format_is_encoded_anew_and_stands_in_the_provenance(tiny_files, images, tmp_path):
    config, weights = tiny_files
    made = [
        Encoder.load(
            "tiny-test-clip", pretrained=str(weights), model_config=config, device="cpu", precision=p
        )
        for p in ("auto", "bf16")
    ]
    assert [e.provenance["dtype"] for e in made] == ["float32", "bfloat16"]
    first, second = (features(e, images, cache=tmp_path) for e in made)
    assert 0 < np.abs(first - second).max() < 0.02
    with pytest.raises(InputError, match="precision = 'half' is not one of auto, float32, bf16"):
        Encoder.load("toyclip", device="cpu", precision="half")


def damages(path):
    """The same file with one bit turned in its header, numbers or checksum, cut short, or other numbers."""
    whole = path.read_bytes()
    for at in (3, 60, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        yield whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
    yield whole[:-32]
    yield whole[: len(whole) // 2]
    yield b""
    for other in (np.load(path).astype(np.float64), np.load(path).astype(int), np.load(path)[:-1]):
        arrays.write_array(path, lambda part, other=other: np.save(part, other))
        yield path.read_bytes()


def test_every_damage_is_noticed(encoder, images, tmp_path, caplog):
    z = features(encoder, images, cache=tmp_path)
    (file,) = tmp_path.glob("*.npy")
    for content in list(damages(file)):
        file.write_bytes(content)
        caplog.clear()
        np.testing.assert_array_equal(features(encoder, images, cache=tmp_path), z)
        assert "in the cache is damaged: its images are read again" in caplog.text
    caplog.clear()
    features(encoder, images, cache=tmp_path)
    assert not caplog.text


def test_damaged_pixels_are_noticed(encoder, images, tmp_path, caplog):
    store = read_pixels(encoder, images, cache=tmp_path).store.copy()
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(read_pixels(encoder, images, cache=tmp_path).store, store)
    assert "damaged" in caplog.text


@pytest.mark.parametrize("read", [features, lambda *a, **k: read_pixels(*a, **k).store])
def test_a_cache_that_cannot_be_written_is_left_alone(encoder, images, tmp_path, caplog, monkeypatch, read):
    wanted = read(encoder, images)
    (tmp_path / "file").write_text("no folder")
    np.testing.assert_array_equal(read(encoder, images, cache=tmp_path / "file"), wanted)
    assert caplog.text.count("not kept for the next time") == 1

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    caplog.clear()
    monkeypatch.setattr(arrays.hashlib, "file_digest", full)
    np.testing.assert_array_equal(read(encoder, images, cache=tmp_path / "cache"), wanted)
    assert "No space left on device" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_a_feature_that_is_not_finite_is_refused_with_its_image(encoder, images, tmp_path, monkeypatch):
    inner = encoder.model.encode_image

    def broken(x):
        out = inner(x).clone()
        out[3] = float("nan")
        return out

    monkeypatch.setattr(encoder.model, "encode_image", broken)
    with pytest.raises(InputError, match="image 4: the model's feature is not finite"):
        features(encoder, images, cache=tmp_path)
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize("workers", [0, 2])
def test_threads_and_processes_make_what_the_transform_makes(encoder, images, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(encoder, "workers", workers)
    for some, batch in ((images, 3), (images * 2, 1)):  # of 14 batches, some take the place of others
        assert np.array_equal(encoder.encode_images(some, batch=batch), by_hand(encoder, some, batch))
    images[4] = None  # a picture that cannot be opened
    with pytest.raises(TypeError, match="NoneType") as kept:
        encoder.encode_images(images, batch=3)
    assert kept.tb and not multiprocessing.active_children()  # though the error holds their frames


def by_hand(encoder, images, batch):
    rows = []
    with torch.no_grad():
        for i in range(0, len(images), batch):
            pixels = torch.stack([encoder.transform(image) for image in images[i : i + batch]])
            rows.append(F.normalize(encoder.model.encode_image(pixels), dim=-1).numpy())
    return np.concatenate(rows)
