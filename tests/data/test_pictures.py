"""Pictures of every kind come as RGB with 8 bits, upright, on white; what has no range is refused."""

import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.clip.encoder import Encoder
from fvlfp.data import toyfaces
from fvlfp.data.images import Files, open_image
from fvlfp.data.table import check_table, read_table
from fvlfp.errors import InputError
from fvlfp.runs.zero_shot import same_embeddings, zero_shot_audit

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def save(tmp_path):
    def put(image, name, **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return put


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_give_the_picture_of_eight(save, name):  # F3
    path = save(Image.fromarray(GREY.astype(np.uint16) * 257), name)
    seen = Counter()
    image = open_image(path, seen=seen)
    assert image.mode == "RGB" and (np.asarray(image)[..., 0] == GREY).all()
    assert seen == {"scaled from 16 to 8 bits": 1}


@pytest.mark.parametrize(("kind", "words"), [(np.float32, "range is unknown"), (np.int32, "32-bit numbers")])
def test_numbers_without_a_range_are_refused(save, kind, words):  # F3
    with pytest.raises(InputError, match=words):
        open_image(save(Image.fromarray(GREY.astype(kind)), "x.tif"))


def test_what_is_transparent_is_put_on_white(save):  # F20
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (200, 0, 0, 255)
    half = np.full((16, 16, 2), (0, 128), np.uint8)
    for image, name, options, wanted in (
        (Image.fromarray(pixels), "rgba.png", {}, (255, 255, 255)),
        (Image.fromarray(half, "LA"), "la.png", {}, (127, 127, 127)),
        (Image.fromarray(pixels).convert("P"), "p.gif", {"transparency": 0}, (255, 255, 255)),
        (Image.new("RGB", (9, 9), (1, 2, 3)), "key.png", {"transparency": (1, 2, 3)}, (255, 255, 255)),
    ):
        seen = Counter()
        assert open_image(save(image, name, **options), seen=seen).getpixel((8, 8)) == wanted, name
        assert seen["put on white, as parts are transparent"] == 1


def test_frames_colours_and_exif(save):
    red, blue = (Image.new("RGB", (20, 10), c) for c in ("red", "blue"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for path, words, size in (
        (save(red, "a.gif", save_all=True, append_images=[blue]), "the first frame of several", (20, 10)),
        (save(red, "a.png", save_all=True, append_images=[blue]), "the first frame of several", (20, 10)),
        (save(red.convert("CMYK"), "c.jpg"), "converted from CMYK without a colour profile", (20, 10)),
        (save(red, "e.jpg", exif=exif), "turned upright by their EXIF data", (10, 20)),
    ):
        seen = Counter()
        image = open_image(path, seen=seen)
        assert image.size == size and image.getpixel((0, 0)) in ((255, 0, 0), (254, 0, 0)), path
        assert seen == {words: 1}


def test_other_colours_than_srgb_are_told(save):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    seen = Counter()
    other = srgb.replace("sRGB".encode("utf-16-be"), "P3!!".encode("utf-16-be")).replace(b"sRGB", b"P3!!")
    for profile in (srgb, other):
        open_image(save(Image.new("RGB", (9, 9), (1, 2, 3)), "x.png", icc_profile=profile), seen=seen)
    assert seen["taken as they are"] == 1 and len(seen) == 2
    assert any("colour profile other than sRGB, which is not applied" in words for words in seen)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://example.org/x.jpg", "is an address: only files are read, so download it first"),
        ("sub\\x.png", "no image at .*folders are separated by /"),
        ("x.heic", "x.heic cannot be read as a picture: save it as JPEG or PNG"),
        ("cut.jpg", r"cut.jpg cannot be read \(OSError\)"),
    ],
)
def test_names_and_files_that_are_no_pictures_say_what_to_do(faces, tmp_path, name, words):
    table = faces()
    frame = pd.read_csv(table, dtype=str)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-900])
    frame.loc[3, "path"] = name
    frame.to_csv(table, index=False)
    result = fvlfp("check", table)
    assert result.exit_code == 2 and "row 5, column path" in result.output
    assert pd.Series([result.output]).str.contains(words).all(), result.output


def test_capital_suffixes_and_one_name_in_two_folders_are_two_pictures(tmp_path):
    for i in range(8):
        file = tmp_path / "faces" / ("yes" if i % 2 else "no") / f"{i // 2}.JPG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 9), np.uint8)).save(file, "JPEG")
    found = read_table(tmp_path / "faces", prompts=_card(tmp_path), label="label")
    assert len(found) == 8 and found.frame["path"].nunique() == 8


def _card(folder):
    card = toyfaces.CARD.to_toml().replace('classes."smiling"', 'classes."label"')
    (folder / "c.toml").write_text(card)
    return folder / "c.toml"


def test_strips_pipes_and_folders_are_refused_at_once(save, tmp_path):  # M8
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    strip = save(Image.new("1", (2_000_000, 1)), "strip.png")
    assert strip.stat().st_size < 10_000
    for path, words in (
        (strip, "a strip and no picture"),
        (tmp_path / "pipe.png", "not a regular file"),
        (tmp_path / "folder.png", "not a regular file"),
    ):
        with pytest.raises(InputError, match=words):
            open_image(path)
        with pytest.raises(InputError):
            Files([path])[0]


@pytest.fixture
def faces(tmp_path):
    """Twelve drawn faces with their card; `write` saves a table of them."""
    made = toyfaces.make(36)
    (tmp_path / "f").mkdir()
    for i, image in enumerate(made.images):
        image.save(tmp_path / "f" / f"{i}.png")
    (tmp_path / "t.card.toml").write_text("\ufeff" + made.card.to_toml(), encoding="utf-8")  # F23
    frame = made.frame.assign(path=[f"f/{i}.png" for i in range(36)])

    def put(**changes):
        frame.assign(**changes).to_csv(tmp_path / "t.csv", index=False)
        return tmp_path / "t.csv"

    return put


def fvlfp(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_same_picture_in_train_and_test_or_with_two_labels(faces, tmp_path):  # F16
    table = faces()
    frame = pd.read_csv(table)
    train, test = (frame.index[frame["split"] == s][0] for s in ("train", "test"))
    copy = (tmp_path / "f" / f"{train}.png").read_bytes()
    (tmp_path / "f" / f"{test}.png").write_bytes(copy)
    told = [str(p) for p in check_table(table, label="smiling", groups=["shape"])]
    assert (
        f"row {test + 2}, column path: 'f/{test}.png', the same picture as 'f/{train}.png', is in test"
        in told[0]
    )
    with pytest.raises(InputError, match="is in test here and in train in row"):
        read_table(table)
    other = next(i for i in frame.index if frame["smiling"][i] != frame["smiling"][train])
    frame.loc[other, ["path", "split"]] = [f"f/{train}.png", "train"]
    frame.drop(index=test).to_csv(table, index=False)
    result = fvlfp("check", table)
    assert result.exit_code == 2 and "column smiling" in result.output and "here and" in result.output
    data = read_table(table, label="smiling", groups=["hat"])
    assert "'no'" in data.remarks[0] and "'yes'" in data.remarks[0]


def test_check_says_what_it_looked_at(faces, tmp_path):  # F6
    result = fvlfp("check", faces(), "--label", "smiling", "--group", "shape")
    assert result.exit_code == 0, result.output
    assert "pictures: 36 taken as they are" in result.output and "checked: shape (" in result.output
    frame = pd.read_csv(tmp_path / "t.csv")
    frame.rename(columns={"path": "file_name"}).to_csv(tmp_path / "t.csv", index=False, sep=";")
    result = fvlfp("check", tmp_path / "t.csv", "--label", "smiling")
    assert "semicolons" in result.output and "36 taken as they are" in result.output
    frame.rename(columns={"path": "image"}).to_csv(tmp_path / "t.csv", index=False)
    result = fvlfp("check", tmp_path / "t.csv")
    assert result.exit_code == 2 and "only 'path' is read: rename it" in result.output
    frame.drop(columns="path").to_csv(tmp_path / "t.csv", index=False)
    result = fvlfp("check", tmp_path / "t.csv")
    assert result.exit_code == 0 and "pictures: none looked at" in result.output
    (tmp_path / "f" / "3.png").unlink()
    frame.rename(columns={"path": "file_name"}).to_csv(tmp_path / "t.csv", index=False, sep="\t")
    result = fvlfp("check", tmp_path / "t.csv")
    assert result.exit_code == 2 and "row 5, column path: no image at" in result.output


def test_folders_of_class_folders_and_metadata(faces, tmp_path):
    frame = pd.read_csv(faces())
    for i, row in frame.iterrows():
        place = tmp_path / "tree" / row["split"] / row["smiling"] / row["shape"]
        place.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / row["path"], place / f"{i}.png")
    card = (tmp_path / "t.card.toml").read_text(encoding="utf-8-sig")
    words = card.replace('classes."smiling"', 'classes."label"').replace('groups."shape"', 'groups."group"')
    (tmp_path / "tree.card.toml").write_text(words)
    data = read_table(tmp_path / "tree", label="label", groups=["group"])
    assert len(data) == 36 and (data.frame["split"] == "train").sum() == 24
    assert data.frame["label"].value_counts().to_dict() == frame["smiling"].value_counts().to_dict()
    named = frame.rename(columns={"path": "file_name"})
    for split, part in named.groupby("split"):
        (tmp_path / "hub" / split / "f").mkdir(parents=True)
        for name in part["file_name"]:
            os.link(tmp_path / name, tmp_path / "hub" / split / name)
        part.drop(columns="split").to_csv(tmp_path / "hub" / split / "metadata.csv", index=False)
    (tmp_path / "hub.card.toml").write_text(card)
    data = read_table(tmp_path / "hub", label="smiling", groups=["shape"])
    assert len(data) == 36 and set(data.frame["split"]) == {"train", "test"}
    (tmp_path / "tree/train/yes/._1.png").write_bytes(b"Mac OS X")
    (tmp_path / "tree/._table.csv").write_bytes(b"Mac OS X")
    data = read_table(tmp_path / "tree", label="label", groups=["group"])
    assert len(data) == 36 and "left out: 2 hidden by the system" in data.read["read"]
    os.rename(tmp_path / "tree/train/no", tmp_path / "tree/train/x")
    (tmp_path / "tree/train/x/deep/er").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "tree/train/x/deep/er/1.png")
    with pytest.raises(InputError, match="all at the same depth"):
        read_table(tmp_path / "tree")


def test_a_folder_with_a_file_name_of_two_lines(tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cats" / "a\rb.png")
    with pytest.raises(InputError, match="rename the file"):
        read_table(tmp_path)


def test_pictures_of_another_folder_are_found_with_an_option(faces, tmp_path):  # F21
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "f", tmp_path / "elsewhere" / "f")
    assert fvlfp("check", faces()).exit_code == 2
    result = fvlfp("check", tmp_path / "t.csv", "--images", tmp_path / "elsewhere")
    assert result.exit_code == 0, result.output


def test_blank_pictures_are_remarked_on(faces):  # F3
    table = faces()
    data = read_table(table, label="smiling", groups=["shape"])
    assert not same_embeddings(np.eye(36))
    Image.new("RGB", (64, 64)).save(data.root / "f" / "blank.png")
    data = read_table(table, label="smiling", groups=["shape"])
    data.images.paths[:] = [data.root / "f" / "blank.png"] * 36
    result = zero_shot_audit(Encoder.load("toyclip"), data, label="smiling", groups=["shape"], draws=100)
    said = " ".join(result.audit.remarks)
    assert "36 of 36 pictures have the same embedding" in said and "Every prediction is" in said


def test_own_columns_of_a_table_are_kept_apart(faces, tmp_path):  # F5
    table = faces(prediction="mine", score=[0.25, 0.75] * 18)
    words = [
        "audit",
        "clip",
        table,
        "--label",
        "smiling",
        "--group",
        "shape",
        "--draws",
        100,
        "--out",
        tmp_path / "o",
    ]
    result = fvlfp(*words)
    assert result.exit_code == 0, result.output
    kept = pd.read_csv(tmp_path / "o" / "predictions.csv")
    assert set(kept["table: prediction"]) == {"mine"} and set(kept["prediction"]) <= {"yes", "no"}
    words[words.index("shape")] = "score"
    result = fvlfp(*words)
    assert result.exit_code == 2 and "'score' has the name of one that this audit writes" in result.output
    words[words.index("score")] = "smiling"
    result = fvlfp(*words)
    assert result.exit_code == 2 and "named twice" in result.output


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({"split": ["train", "val"] * 18}, ["groups=shape"], "no row has the split 'test'"),  # F15
        ({}, ["groups=shape,shape"], "twice"),
        ({}, ["groups=smiling"], "twice"),
        ({"baseline": ["amber", "teal"] * 18}, ["groups=baseline"], "has the name of one that a run writes"),
    ],
)
def test_train_refuses_before_training(faces, tmp_path, changes, settings, words):
    table = faces(**changes)
    card = tmp_path / "t.card.toml"
    card.write_text(card.read_text(encoding="utf-8-sig").replace('groups."tint"', 'groups."baseline"'))
    words_of = [w for s in ["profile=smoke", f"data={table}", "clients=2", *settings] for w in ("--set", s)]
    result = fvlfp("train", *words_of, "--out", tmp_path / "run")
    assert result.exit_code == 2 and words in result.output, result.output
    assert not (tmp_path / "run").exists() and "training" not in result.stdout


def test_clients_of_a_table_that_are_not_used_are_told(faces):  # F27
    from fvlfp.config import Config
    from fvlfp.runs.experiment import fit_to_train

    data = read_table(faces(client=["a", "b"] * 18), label="smiling", groups=["shape"])
    (remark,) = fit_to_train(data, Config.make("smoke")).remarks
    assert "column 'client' (2 clients) is not used" in remark and "pretends 4" in remark
    assert fit_to_train(data, Config.make("smoke", partition="column")).remarks == ()
