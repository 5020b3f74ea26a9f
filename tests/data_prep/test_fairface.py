"""The FairFace reader on a small download in the official format, and on real data if it is there."""

import importlib.util
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fvlfp.data.table import check_table, read_table

SCRIPT = Path(__file__).parents[2] / "data_prep/fairface.py"
spec = importlib.util.spec_from_file_location("fairface", SCRIPT)
fairface = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fairface)

AGES = ("20-29", "40-49", "3-9", "10-19", "30-39", "more than 70")
HEADER = "file,age,gender,race,service_test\n"


def jpeg(shade: int) -> bytes:
    """A plain picture; no two shades give the same bytes."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (4 * shade, 90, 90)).save(out, "JPEG")
    return out.getvalue()


def label_file(split: str, n: int) -> str:
    rows = (
        f"{split}/{i + 1}.jpg,{AGES[i % 6]},{('Male', 'Female')[i // 6 % 2]},"
        f"{('White', 'Southeast Asian')[i // 12 % 2]},{bool(i % 2)}\n"
        for i in range(n)
    )
    return HEADER + "".join(rows)


def add_images(archive: zipfile.ZipFile, split: str, n: int) -> None:
    for i in range(n):
        archive.writestr(f"{split}/{i + 1}.jpg", jpeg(i + n * (split == "val")))


@pytest.fixture
def download(tmp_path):
    """24 + 24 images in two zip files, the official label files beside them."""
    folder = tmp_path / "download"
    folder.mkdir()
    for split in ("train", "val"):
        (folder / f"fairface_label_{split}.csv").write_text(label_file(split, 24))
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            add_images(archive, split, 24)
    return folder


def run(*arguments) -> int:
    return fairface.main([str(a) for a in arguments])


def test_both_tables_keep_the_contract(download, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(download, "--out", out) == 0
    assert "16 train, 16 test" in capsys.readouterr().out
    for task, n in (("age", 32), ("gender", 48)):
        table = out / f"fairface_{task}.csv"
        assert check_table(table) == []
        data = read_table(table)
        assert len(data) == n and Counter(data.frame["split"]) == {"train": n // 2, "test": n // 2}
        assert data.images[0].size == (16, 16)
    age = read_table(out / "fairface_age.csv", label="age_40", groups=["gender", "race"])
    assert set(zip(age.frame["age"], age.frame["age_40"], strict=True)) == {
        ("20-29", "20-39"),
        ("30-39", "20-39"),
        ("40-49", "40+"),
        ("more than 70", "40+"),
    }
    assert age.card.class_texts("age_40") == ["a photo of a young person", "a photo of a middle-aged person"]
    assert "perceived" in age.card.label_origin and "sha256" in age.card.notes
    # the image is the one that the label file named
    row = age.frame["path"].tolist().index("images/val/12.jpg")
    assert age.images[row].getpixel((8, 8))[0] == pytest.approx(4 * (11 + 24), abs=4)


def test_one_task_takes_only_its_images(download, tmp_path):
    assert run(download, "--out", tmp_path / "out", "--task", "age") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "SHA256SUMS",
        "fairface_age.card.toml",
        "fairface_age.csv",
        "images",
    ]
    assert len(list((tmp_path / "out/images").rglob("*.jpg"))) == 32


def test_folders_and_a_single_zip_give_the_same_tables(download, tmp_path):
    run(download, "--out", tmp_path / "a")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    single = tmp_path / "single.zip"
    with zipfile.ZipFile(single, "w") as whole:
        for split in ("train", "val"):
            labels = (download / f"fairface_label_{split}.csv").read_text()
            (unpacked / f"fairface_label_{split}.csv").write_text(labels)
            whole.writestr(f"FairFace/fairface_label_{split}.csv", labels)
            with zipfile.ZipFile(download / f"{split}.zip") as archive:
                for name in archive.namelist():
                    whole.writestr(f"FairFace/{name}", archive.read(name))
                archive.extractall(unpacked)
    assert run(unpacked, "--out", tmp_path / "b") == run(single, "--out", tmp_path / "c") == 0
    for other in ("b", "c"):
        for file in (tmp_path / "a").rglob("*.*"):
            assert (tmp_path / other / file.relative_to(tmp_path / "a")).read_bytes() == file.read_bytes()


def test_spreadsheet_ages_stop_or_are_repaired(download, tmp_path, capsys):
    assert run(download, "--out", tmp_path / "good") == 0
    labels = download / "fairface_label_val.csv"
    labels.write_text(labels.read_text().replace(",3-9,", ",03-Sep,").replace(",10-19,", ",Oct-19,"))
    capsys.readouterr()
    assert run(download, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "4 ages '03-Sep' (was '3-9'), 4 ages 'Oct-19' (was '10-19')" in message
    assert "--repair-ages" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run(download, "--out", tmp_path / "out", "--repair-ages") == 0
    assert "warning" in capsys.readouterr().err
    table = "fairface_gender.csv"
    assert (tmp_path / "out" / table).read_bytes() == (tmp_path / "good" / table).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("file,age", "file,years", "row 1: no column 'age'; it has: file, years, gender, race"),
        ("val/1.jpg,20-29", "val/1.jpg,25", "row 2: age '25' is not one of FairFace's"),
        ("val/3.jpg,3-9,Male", "val/3.jpg,3-9,m", "row 4: gender 'm'"),
        ("Southeast Asian", "SE Asian", "row 14: race 'SE Asian'"),
        ("val/1.jpg", "../val/1.jpg", "row 2: '../val/1.jpg' is no FairFace image name"),
        ("val/1.jpg", "/val/1.jpg", "is no FairFace image name"),
        ("val/3.jpg", "val/2.jpg", "row 4: 'val/2.jpg' was named in row 3 already"),
        ("val/3.jpg,3-9,Male", "val/3.jpg,Male", "row 4: 4 cells, the header has 5"),
    ],
)
def test_bad_label_files(download, tmp_path, capsys, old, new, told):
    labels = download / "fairface_label_val.csv"
    labels.write_text(labels.read_text().replace(old, new))
    assert run(download, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert told in message and "fairface_label_val.csv" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_download_no_labels_no_zip(tmp_path, capsys):
    assert run(tmp_path / "none", "--out", tmp_path / "out") == 2
    assert "no FairFace download at" in capsys.readouterr().err
    assert run(tmp_path, "--out", tmp_path / "out") == 2
    assert "no fairface_label_train.csv" in capsys.readouterr().err
    (tmp_path / "x.zip").write_bytes(b"half a zip")
    assert run(tmp_path, "--out", tmp_path / "out") == 2
    assert "x.zip is no readable archive" in capsys.readouterr().err


def test_missing_and_damaged_images(download, tmp_path, capsys):
    with zipfile.ZipFile(download / "val.zip", "w") as archive:
        add_images(archive, "val", 23)
        archive.writestr("other/24.jpg", jpeg(0))
    with zipfile.ZipFile(download / "train.zip", "w") as archive:
        add_images(archive, "train", 23)
        archive.writestr("train/24.jpg", b"<html>404</html>")
    assert run(download, "--out", tmp_path / "out") == 2
    assert "2 of 48 images are missing or damaged" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.csv"))
    assert run(download, "--out", tmp_path / "out", "--allow-missing") == 0
    assert "left out 2 rows" in capsys.readouterr().err
    assert len(read_table(tmp_path / "out/fairface_gender.csv")) == 46


def test_zip_members_cannot_leave_the_folder(download, tmp_path):
    with zipfile.ZipFile(download / "val.zip", "a") as archive:
        archive.writestr("../../evil.txt", "x")
        archive.writestr("/tmp/evil/val/../../1.jpg", "x")
    assert run(download, "--out", tmp_path / "out") == 0
    assert not list(tmp_path.rglob("evil*"))
    assert {p.parent.name for p in (tmp_path / "out").rglob("*.jpg")} == {"train", "val"}


def test_second_run_continues_and_agrees(download, tmp_path):
    out = tmp_path / "out"
    run(download, "--out", out)
    before = {p: p.read_bytes() for p in out.rglob("*.*")}
    (out / "images/val/3.jpg").unlink()
    run(download, "--out", out)
    assert {p: p.read_bytes() for p in out.rglob("*.*")} == before


@pytest.mark.skipif(not os.environ.get("FVLFP_SHARED"), reason="FVLFP_SHARED is not set")
def test_the_real_label_files(tmp_path, capsys):
    """The official files as downloaded, and one that went through a spreadsheet."""
    shared = Path(os.environ["FVLFP_SHARED"]) / "data/fairface"
    content = (shared / "fairface_label_val.csv").read_bytes()
    rows = fairface.read_labels(content, "val", repair_ages=False)
    damaged = (shared / "fairface_label_val_excel_damaged.csv").read_bytes()
    with pytest.raises(fairface.InputError, match=r"628 ages '03-Sep' .* 544 ages 'Oct-19'"):
        fairface.read_labels(damaged, "val", repair_ages=False)
    assert fairface.read_labels(damaged, "val", repair_ages=True) == rows
    assert "repaired" in capsys.readouterr().err
    # a real zip, for one split and one task
    source = tmp_path / "source"
    source.mkdir()
    (source / "fairface_label_val.csv").write_bytes(content)
    os.symlink(shared / "fairface_val.zip", source / "fairface_val.zip")
    assert run(source, "--out", tmp_path / "out", "--task", "age") == 0
    data = read_table(tmp_path / "out/fairface_age.csv", groups=["gender", "race"])
    assert len(data) == 3739 and data.images[0].size == (224, 224)
    counts = Counter(data.frame["age_40"])
    assert counts == {"20-39": 1507 + 1074, "40+": 603 + 358 + 145 + 52}
