"""Toy faces: the same seed gives the same bits, and every knob has the size it says."""

import numpy as np
import pytest
from PIL import ImageChops

from fvlfp.clip.cache import features
from fvlfp.data import toyfaces
from fvlfp.data.drawing import spoil
from fvlfp.errors import InputError

FACE = {"smiling": "yes", "glasses": "no", "hat": "no", "shape": "round", "tint": "teal"}


def frame_of(n, monkeypatch, **options):
    """The rows of n faces; none is drawn before somebody looks at it."""
    monkeypatch.setattr(toyfaces, "draw", lambda *a, **k: pytest.fail("drawn"))
    return toyfaces.make(n, **options).frame


def test_a_digest_changes_with_the_picture_and_needs_no_drawing(monkeypatch):
    easy, hard = toyfaces.make(30), toyfaces.make(30, difficulty={"square": 0.6})
    same = (easy.images.array == hard.images.array).all(axis=(1, 2, 3))
    assert 0 < same.sum() < 30
    monkeypatch.setattr(toyfaces, "draw", lambda *a, **k: pytest.fail("drawn"))
    digests = [easy.images.digest(i) for i in range(30)]
    assert len(set(digests)) == 30
    assert [a == hard.images.digest(i) for i, a in enumerate(digests)] == same.tolist()
    assert toyfaces.make(30, seed=1).images.digest(0) != digests[0]
    assert [easy.images.take([3, 1]).digest(i) for i in (0, 1)] == [digests[3], digests[1]]
    noisy = toyfaces.make(30, label_noise=0.9).images  # other labels, the same drawings
    assert [noisy.digest(i) for i in range(30)] == digests
    monkeypatch.setattr(toyfaces, "_drawn_by", lambda: "other code")
    assert easy.images.digest(0) != digests[0]


def test_all_of_them_are_drawn_once_and_then_read(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path))
    drawn = np.stack([np.asarray(image) for image in toyfaces.make(9).images])
    assert [path.name[:6] for path in tmp_path.iterdir()] == ["drawn-"]
    with monkeypatch.context() as patch:
        patch.setattr(toyfaces, "draw", lambda *a, **k: pytest.fail("drawn"))
        assert np.array_equal(toyfaces.make(9).images.array, drawn)
    (tmp_path / "file").write_text("a file where a folder should be")
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path / "file"))
    assert np.array_equal(toyfaces.make(9).images.array, drawn)
    assert "drawings are not kept for the next time" in caplog.text
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path))
    assert np.array_equal(toyfaces.make(10).images.array[:9], drawn)  # other pictures: another file


def share(frame, label="smiling"):
    return (frame[label] == "yes").mean()


def test_same_seed_same_bits_whatever_n():
    a, b, c = toyfaces.make(24, seed=3), toyfaces.make(24, seed=3), toyfaces.make(30, seed=3)
    assert np.array_equal(a.images.array, b.images.array) and a.frame.equals(b.frame)
    assert np.array_equal(a.images.array, c.images.array[:24]) and a.frame.equals(c.frame[:24])
    other = toyfaces.make(24, seed=4)
    assert not np.array_equal(a.images.array, other.images.array)


def test_images_are_what_the_contract_says():
    data = toyfaces.make(9)
    assert data.images.array.shape == (9, 64, 64, 3) and data.images.array.dtype == np.uint8
    assert data.images[4].mode == "RGB" and data.images[4].size == (64, 64)
    assert np.array_equal(np.asarray(data.take([4, 1]).images[0]), data.images.array[4])
    assert len(data.images[2:5]) == 3 and len(list(data.images)) == 9
    assert list(data.frame["split"]) == ["train", "train", "test"] * 3
    flat = data.images.array.reshape(9, -1)
    assert len(np.unique(flat, axis=0)) == 9 and flat.std(axis=1).min() > 20  # nine real pictures


def test_the_card_has_words_for_everything():
    data = toyfaces.make(60)
    for label in toyfaces.LABELS:
        assert set(data.frame[label]) == set(data.card.class_values(label)) == {"no", "yes"}
    for attribute, groups in toyfaces.GROUPS.items():
        assert set(data.frame[attribute]) == set(data.card.groups[attribute].words) == set(groups)


def test_correlation_has_the_size_it_says(monkeypatch):
    frame = frame_of(12_000, monkeypatch, correlation={"shape": 0.5, "tint": 0.3}, test_correlation=-0.4)
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    by = train.groupby("shape")["smiling"].apply(lambda s: (s == "yes").mean())
    # standard error of a difference of two shares of 4,000: 0.011
    assert by["round"] - by["square"] == pytest.approx(0.5, abs=0.04)
    by = train.groupby("tint")["smiling"].apply(lambda s: (s == "yes").mean())
    assert by["amber"] - by["violet"] == pytest.approx(0.3, abs=0.05)
    assert by["teal"] == pytest.approx((by["amber"] + by["violet"]) / 2, abs=0.05)
    by = test.groupby("shape")["smiling"].apply(lambda s: (s == "yes").mean())
    assert by["round"] - by["square"] == pytest.approx(-0.4, abs=0.06)
    assert share(frame) == pytest.approx(0.5, abs=0.02)
    assert share(frame, "glasses") == pytest.approx(0.4, abs=0.02)


def test_full_correlation_leaves_no_exception(monkeypatch):
    frame = frame_of(3_000, monkeypatch, correlation=1.0)
    train = frame[frame["split"] == "train"]
    assert ((train["smiling"] == "yes") == (train["shape"] == "round")).all()


def test_defaults_make_test_cells_large_enough(monkeypatch):
    frame = frame_of(12_000, monkeypatch)
    test = frame[frame["split"] == "test"]
    assert test.groupby(["shape", "smiling"]).size().min() > 900
    assert test.groupby(["tint", "smiling"]).size().min() > 550


def test_each_client_has_its_own_correlation(monkeypatch):
    frame = frame_of(12_000, monkeypatch, client_correlation=[0.8, 0.0, -0.8])
    assert set(frame["client"]) == {"0", "1", "2"}
    for client, wanted in (("0", 0.8), ("1", 0.0), ("2", -0.8)):
        of = frame[(frame["client"] == client) & (frame["split"] == "train")]
        by = of.groupby("shape")["smiling"].apply(lambda s: (s == "yes").mean())
        assert by["round"] - by["square"] == pytest.approx(wanted, abs=0.07)


def test_a_knob_changes_labels_and_nothing_else(monkeypatch):
    a = frame_of(900, monkeypatch, correlation=0.0)
    b = frame_of(900, monkeypatch, correlation=0.2)
    others = [c for c in a if c != "smiling"]
    assert a[others].equals(b[others])
    # common random numbers: about 0.2 / 2 of the train rows change their label
    assert 0.03 < (a["smiling"] != b["smiling"]).mean() < 0.12


def test_label_noise_flips_its_share_and_leaves_test_and_drawing_alone(monkeypatch):
    clean = toyfaces.make(30)
    noisy = toyfaces.make(30, label_noise=1.0)
    assert np.array_equal(clean.images.array, noisy.images.array)
    flipped = clean.frame["smiling"] != noisy.frame["smiling"]
    assert (flipped == (clean.frame["split"] == "train")).all()
    a = frame_of(6_000, monkeypatch)
    b = frame_of(6_000, monkeypatch, label_noise={"square": 0.3})
    flipped = (a["smiling"] != b["smiling"])[a["split"] == "train"]
    square = a["shape"][a["split"] == "train"] == "square"
    assert flipped[square].mean() == pytest.approx(0.3, abs=0.04) and not flipped[~square].any()


def test_difficulty_hits_the_named_group_alone():
    easy, hard = toyfaces.make(60, difficulty={}), toyfaces.make(60, difficulty={"violet": 0.8})
    same = (easy.images.array == hard.images.array).all(axis=(1, 2, 3))
    assert (same == (easy.frame["tint"] != "violet")).all()


def test_spoil_by_hand():
    image = toyfaces.twin(0, 0, **FACE).convert("L").convert("RGB")
    flat = image.point(lambda v: 200)
    grain = np.full((64, 64, 3), 1.0, dtype=np.float32)
    assert (spoil(flat, 0.0, grain) == 200 + 3).all()
    # strength 0.5: contrast 0.7, noise 14: 127 + 0.7 * (200 - 127) + 14 = 192.1
    assert (spoil(flat, 0.5, grain) == 192).all()
    assert spoil(image, 0.8, 0 * grain).std() < 0.6 * np.asarray(image).std()


def test_twins_differ_where_they_should_only():
    def box(**change):
        a, b = toyfaces.twin(5, 1, **FACE), toyfaces.twin(5, 1, **(FACE | change))
        return ImageChops.difference(a, b).getbbox()

    assert box() is None
    left, top, right, bottom = box(smiling="no")
    assert (right - left) * (bottom - top) < 0.15 * 64 * 64  # the mouth
    for change in ({"shape": "square"}, {"tint": "violet"}, {"hat": "yes"}, {"glasses": "yes"}):
        assert box(**change) is not None
    row = toyfaces.make(3, seed=5, difficulty={}).frame.iloc[1]
    drawn = toyfaces.make(3, seed=5, difficulty={}).images[1]
    same = toyfaces.twin(5, 1, **{k: row[k] for k in FACE})
    assert ImageChops.difference(drawn, same).getbbox() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be"),
        ({"label": "age"}, "label must be one of smiling, glasses, hat, not 'age'"),
        ({"correlation": 1.2}, "at most 1"),
        ({"correlation": {"shape": 0.7, "tint": -0.5}}, "at most 1"),
        ({"label": "hat", "correlation": 0.9}, "at most 0.8"),
        ({"correlation": {"size": 0.1}}, "'size': it must be one of shape, tint"),
        ({"client_correlation": [0.5, 2]}, "at most 1"),
        ({"difficulty": {"blue": 0.5}}, "'blue': it must be one of round"),
        ({"difficulty": {"square": 1.5}}, "between 0 and 1"),
        ({"label_noise": -0.1}, "between 0 and 1"),
        ({"label_noise": {"blue": 0.1}}, "'blue'"),
        ({"correlation": float("nan")}, "at most 1"),
    ],
)
def test_knobs_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        toyfaces.make(**({"n": 3} | options))


def test_twin_refuses_unknown_properties():
    with pytest.raises(InputError, match="exactly these properties"):
        toyfaces.twin(0, 0, smiling="yes")
    with pytest.raises(InputError, match="tint must be one of amber, teal, violet, not 'red'"):
        toyfaces.twin(0, 0, **(FACE | {"tint": "red"}))


def test_twins_of_many_are_those_of_each_and_come_from_a_file_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path))
    wanted = {i: FACE | {"shape": shape} for i, shape in ((3, "round"), (7, "square"))}
    found = list(toyfaces.twins(5, wanted, difficulty=0.3))
    for (i, properties), image in zip(wanted.items(), found, strict=True):
        assert np.array_equal(image, toyfaces.twin(5, i, difficulty=0.3, **properties))
    monkeypatch.setattr(toyfaces.Being, "drawing", lambda being: 1 / 0)
    again = list(toyfaces.twins(5, wanted, difficulty=0.3))
    assert all(np.array_equal(a, b) for a, b in zip(again, found, strict=True))


def test_twins_are_neither_drawn_nor_encoded_again(encoder, tmp_path, monkeypatch):
    wanted = {i: FACE for i in range(3)}
    z = features(encoder, toyfaces.twins(5, wanted), cache=tmp_path)
    monkeypatch.setattr(toyfaces.Being, "drawing", lambda being: 1 / 0)
    np.testing.assert_array_equal(features(encoder, toyfaces.twins(5, wanted), cache=tmp_path), z)
