"""Data sets that Python already holds, and an audit of embeddings alone."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fvlfp.data import toyfaces
from fvlfp.data.collected import as_dataset
from fvlfp.errors import InputError
from fvlfp.runs.zero_shot import audit_embeddings, class_texts, zero_shot_audit

WANTED = {"label": "smiling", "groups": ["shape"], "draws": 100, "seed": 1}


@pytest.fixture(scope="module")
def faces():
    return toyfaces.make(60, seed=0, label="smiling")


class Image_:  # what the datasets library calls its feature
    pass


Image_.__name__ = "Image"


class HuggingFace:
    """As much of `datasets.Dataset` as is used: columns by name, rows by number."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, i):
        return self.columns[i] if isinstance(i, str) else {k: v[i] for k, v in self.columns.items()}


def hugging_face(faces):
    y = ["no", "yes"]
    columns = {
        "img": list(faces.images),
        "smiling": [y.index(v) for v in faces.frame["smiling"]],
        "shape": faces.frame["shape"].tolist(),
    }
    features = {"img": Image_(), "smiling": SimpleNamespace(names=y), "shape": SimpleNamespace()}
    return HuggingFace(columns, features)


class Torch:
    """(image, label, group); labels as torchvision numbers them."""

    classes = ("no", "yes")

    def __init__(self, faces):
        self.items = [
            (image, self.classes.index(y), shape)
            for image, y, shape in zip(
                faces.images, faces.frame["smiling"], faces.frame["shape"], strict=True
            )
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def counted(result):
    return json.dumps({k: v for k, v in result.audit.document.items() if k != "provenance"}, sort_keys=True)


@pytest.fixture(scope="module")
def wanted(encoder, faces, tmp_path_factory):
    return zero_shot_audit(encoder, faces, cache=tmp_path_factory.mktemp("cache"), **WANTED)


@pytest.mark.parametrize("kind", [hugging_face, Torch])
def test_the_same_rows_and_pictures(faces, kind):
    found = as_dataset(kind(faces), faces.card, label="smiling", groups=["shape"])
    pd.testing.assert_frame_equal(
        found.frame, faces.frame[["smiling", "shape"]].reset_index(drop=True), check_dtype=False
    )
    assert all(
        mine.tobytes() == theirs.tobytes() for mine, theirs in zip(found.images, faces.images, strict=True)
    )
    assert found.take([5, 1]).images[1].tobytes() == faces.images[1].tobytes()
    assert found.images[2:4][1].tobytes() == faces.images[3].tobytes()


def test_an_audit_of_it_is_the_audit_of_the_table(encoder, faces, tmp_path, wanted):
    found = zero_shot_audit(encoder, Torch(faces), card=faces.card, cache=tmp_path, **WANTED)
    assert counted(found) == counted(wanted)
    assert found.predictions["prediction"].tolist() == wanted.predictions["prediction"].tolist()


def test_the_real_library_where_it_is_installed(faces):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    columns = {"image": list(faces.images), **{c: faces.frame[c].tolist() for c in ("smiling", "shape")}}
    data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    found = as_dataset(data, faces.card, label="smiling", groups=["shape"])
    assert found.frame["shape"].tolist() == faces.frame["shape"].tolist()
    assert found.images[3].tobytes() == faces.images[3].tobytes()


def test_plain_arrays_give_the_same_audit(encoder, faces, wanted):
    z = encoder.encode_images(list(faces.images))
    texts = class_texts(encoder, faces.card, "smiling")
    common = {"classes": ["no", "yes"], "templates": faces.card.templates, "scale": encoder.scale, **WANTED}
    found = audit_embeddings(3 * z, faces.frame, 7 * texts, **common)  # any length of a row
    assert found.predictions["prediction"].tolist() == wanted.predictions["prediction"].tolist()
    np.testing.assert_allclose(found.predictions["score"], wanted.predictions["score"], atol=1e-5)
    pd.testing.assert_frame_equal(found.audit.gaps, wanted.audit.gaps, atol=1e-6)
    one = audit_embeddings(z, faces.frame, texts[0], **{**common, "templates": ["only"]})
    assert one.predictions["prediction"].tolist() == wanted.predictions["prediction"].tolist()


def changed(items, i, item):
    return [item if j == i else old for j, old in enumerate(items)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.items[3][:2], r"item 3 is not \(image, label, group\)"),
        (lambda t: (*t.items[3][:2], ("round", "amber")), "item 3 has 2 groups, but groups names 1"),
        (lambda t: (*t.items[3][:2], {"tint": "amber"}), "item 3 has no group 'shape'"),
        (lambda t: (t.items[3][0], 2, "round"), "item 3: label 2, but data.classes has 2 names"),
        (lambda t: (t.items[3][0], "maybe", "round"), "item 3: smiling 'maybe' is not on the data card"),
        (lambda t: (t.items[3][0], None, "round"), "item 3 has no smiling"),
        (lambda t: (*t.items[3][:2], "hexagonal"), "item 3: shape 'hexagonal' is not on the data card"),
    ],
)
def test_a_bad_item_is_named(faces, change, said):
    data = Torch(faces)
    data.items = changed(data.items, 3, change(data))
    with pytest.raises(InputError, match=said):
        as_dataset(data, faces.card, label="smiling", groups=["shape"])


def test_pictures_are_pictures_and_not_what_a_transform_made(faces):
    data = Torch(faces)
    data.items = changed(data.items, 0, (np.zeros((8, 9, 3), np.uint8), 0, "round"))
    data.items = changed(data.items, 1, (np.zeros((3, 8, 8), np.float32), 0, "round"))
    data.items = changed(data.items, 2, (Image.new("LA", (4, 5)), 0, "round"))
    images = as_dataset(data, faces.card, label="smiling", groups=["shape"]).images
    assert images[0].size == (9, 8) and images[2].mode == "RGB"
    with pytest.raises(InputError, match=r"item 1: give a PIL image .* not what a transform has made"):
        images[1]


def test_pictures_and_values_are_read_as_those_of_files(faces):  # F3, F7, F20
    data = Torch(faces)
    hidden = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    data.items = changed(data.items, 0, (hidden, 0, "round"))
    data.items = changed(data.items, 1, (Image.new("I;16", (4, 4), 65_535), 0, math.nan))
    data.items = changed(data.items, 2, (Image.new("F", (4, 4), 0.5), 0, "nan"))
    found = as_dataset(data, faces.card, label="smiling", groups=["shape"])
    assert found.images[0].getpixel((0, 0)) == found.images[1].getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(InputError, match="item 2 holds floating-point numbers"):
        found.images[2]
    assert found.frame["shape"].tolist()[:3] == ["round", "", ""]
    assert "shape: 'nan' (1 row) is read as missing" in found.read["merged"]
    data.items = changed(data.items, 3, (faces.images[3], 0, "Round"))
    with pytest.raises(InputError, match=r"item \d+: shape: .*spell them alike"):
        as_dataset(data, faces.card, label="smiling", groups=["shape"])


def test_what_is_no_data_set(faces):
    data, named = hugging_face(faces), {"label": "smiling", "groups": ["shape"]}
    with pytest.raises(InputError, match="give a data card"):
        as_dataset(data, None, **named)
    with pytest.raises(InputError, match="leave card out"):
        as_dataset(faces, faces.card, **named)
    with pytest.raises(InputError, match="a dict is no data set"):
        as_dataset({}, faces.card, **named)
    with pytest.raises(InputError, match="has no items"):
        as_dataset([], faces.card, **named)
    with pytest.raises(InputError, match="no column 'tint'"):
        as_dataset(data, faces.card, label="smiling", groups=["tint"])
    data.features["img"] = SimpleNamespace()
    with pytest.raises(InputError, match="needs one column of images, but has none"):
        as_dataset(data, faces.card, **named)


@pytest.mark.parametrize(
    ("z", "texts", "said"),
    [
        (np.ones((59, 4)), np.eye(2, 4), "59 images of 4 numbers for 60 rows"),
        (np.ones((60, 4)), np.eye(2, 3), r"texts of the shape \(1, 2, 3\), not \(1, 2, 4\)"),
        (np.ones((60, 4)), np.eye(3, 4), r"texts of the shape \(1, 3, 4\)"),
        (np.ones(60), np.eye(2, 4), "images: an array of numbers"),
        (np.full((60, 4), np.nan), np.eye(2, 4), "images: row 0 is zero or not finite"),
        (np.ones((60, 4)), np.zeros((2, 4)), "texts: row 0 is zero"),
        (np.full((60, 4), "x"), np.eye(2, 4), "images: an array of numbers"),
    ],
)
def test_embeddings_that_do_not_fit(faces, z, texts, said):
    with pytest.raises(InputError, match=said):
        audit_embeddings(z, faces.frame, texts, classes=["no", "yes"], **WANTED)
