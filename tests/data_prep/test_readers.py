"""UTKFace, CelebA, PAD-UFES-20 and Waterbirds on small downloads in the official layouts, good and bad."""

import hashlib
import io
import tarfile
import zipfile
from collections import Counter

import pytest
from PIL import Image

from data_prep import celeba, pad_ufes_20, reader, utkface, waterbirds
from fvlfp.data.table import check_table, read_table
from fvlfp.errors import InputError


def picture(shade: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 90, 255 - shade)).save(out, kind)
    return out.getvalue()


def put(folder, files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def tar(path, files) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def pack(path, files) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


# Each returns the files of a small download as they lie in the official folders.


def utkface_files():
    names = [f"{(25, 45)[i % 2]}_{i // 2 % 2}_{i // 4 % 2}_20170116{i:09d}.jpg.chip.jpg" for i in range(24)]
    names[0] = "25_0_0_20170116000000000 .jpg.chip.jpg"
    names[1] = "45_0_0_20170116000000001jpg.chip.jpg"
    names += ["5_1_4_20170110220000000.jpg.chip.jpg", *sorted(utkface.BROKEN)]
    return {f"UTKFace/{name}": picture(9 * i) for i, name in enumerate(names)}


def celeba_files():
    names = ["5_o_Clock_Shadow", "Blond_Hair", "Male", "Smiling", "Young"]
    lines = ["24", " ".join(names) + " "]
    for i in range(24):
        values = (1, *((1, -1)[i // 2**k % 2] for k in range(4)))
        lines.append(f"{i + 1:06d}.jpg " + " ".join(f"{v:2d}" for v in values))
    parts = [f"{i + 1:06d}.jpg {i // 8}" for i in range(24)]
    return {
        "Anno/list_attr_celeba.txt": "\n".join(lines).encode() + b"\n",
        "Eval/list_eval_partition.txt": "\n".join(parts).encode() + b"\n",
    } | {f"Img/img_align_celeba/{i + 1:06d}.jpg": picture(9 * i) for i in range(24)}


def pad_files():
    header = "patient_id,lesion_id,age,gender,fitspatrick,region,diagnostic,img_id,biopsed"
    lines, images = [header], {}
    for i in range(28):
        gender, skin = ("FEMALE", "MALE")[i % 2], f"{(1, 2, 3, 6)[i // 2 % 4]}.0"
        if i >= 24:
            gender, skin = "", ""
        name = f"PAT_{100 + i // 2}_{i}_{7 * i}.png"
        diagnostic = ("BCC", "NEV", "ACK", "MEL", "SCC", "SEK")[i % 6]
        lines.append(
            f"PAT_{100 + i // 2},{i},{(40, 70)[i // 3 % 2]},{gender},{skin},ARM,{diagnostic},{name},True"
        )
        images[f"images/imgs_part_{1 + i % 3}/{name}"] = picture(9 * i, "PNG")
    return {"metadata.csv": "\n".join(lines).encode()} | images


def waterbirds_files():
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    images = {}
    for i in range(24):
        name = f"{1 + i // 12:03d}.Black_footed_Albatross/Albatross_{i:04d}_{i}.jpg"
        lines.append(f"{i + 1},{name},{i % 2},{i // 8},{i // 2 % 2},/o/ocean/{i}.jpg")
        images[name] = picture(9 * i)
    top = "waterbird_complete95_forest2water2/"
    return {top + "metadata.csv": "\n".join(lines).encode()} | {top + k: v for k, v in images.items()}


READERS = {
    "utkface": (utkface, utkface_files, 24),
    "celeba": (celeba, celeba_files, 24),
    "pad_ufes_20": (pad_ufes_20, pad_files, 24),
    "waterbirds": (waterbirds, waterbirds_files, 24),
}


def run(module, source, out, *words) -> int:
    accepted = ["--accept-licence"] if hasattr(module, "TERMS") else []
    arguments = [str(source), "--out", str(out), *accepted, *words]
    return reader.main(module.convert, arguments, doc=module.__doc__, terms=getattr(module, "TERMS", None))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(params=READERS)
def made(request, tmp_path):
    """(reader, its files, rows expected, the unpacked download)."""
    module, files, n = READERS[request.param]
    put(tmp_path / "download", files())
    return module, files(), n, tmp_path / "download"


def test_the_table_keeps_the_contract_and_carries_its_card(made, tmp_path, capsys):
    module, _, n, source = made
    assert run(module, source, tmp_path / "out") == 0
    (table,) = (tmp_path / "out").glob("*.csv")
    assert check_table(table) == []
    data = read_table(table, groups=list(module.CARD.groups))
    assert len(data) == n and set(data.frame["split"]) >= {"train", "test"}
    assert data.images[0].size == (16, 16)
    assert data.card.licence == module.CARD.licence and data.card.label_origin and data.card.source
    for label in data.card.classes:
        assert set(data.frame[label]) == set(data.card.classes[label])
    if module is not utkface:  # its labels are in file names
        assert "sha256" in data.card.notes
    assert str(table) in capsys.readouterr().out


def test_checksums_are_those_of_the_files(made, tmp_path):
    module, _, n, source = made
    run(module, source, tmp_path / "out")
    lines = (tmp_path / "out/SHA256SUMS").read_text().splitlines()
    assert len(lines) == n + 2
    for line in lines:
        digest, name = line.split("  ", 1)
        assert digest == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()


def test_archives_give_the_same_bytes(made, tmp_path):
    module, files, _, source = made
    run(module, source, tmp_path / "a")
    packed = tmp_path / "packed"
    packed.mkdir()
    if module in (utkface, waterbirds):
        tar(packed / "download.tar.gz", files)
        run(module, packed / "download.tar.gz", tmp_path / "b")
    else:
        labels = {k: v for k, v in files.items() if not k.endswith((".jpg", ".png"))}
        put(packed, labels)
        for part in ("", "1", "2", "3"):
            images = {k: v for k, v in files.items() if k not in labels and f"imgs_part_{part}" in k}
            images = images or ({k: v for k, v in files.items() if k not in labels} if part == "" else {})
            pack(packed / f"part{part}.zip", {k.split("/", 1)[1]: v for k, v in images.items()})
        run(module, packed, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_killed_half_way_and_run_again(made, tmp_path, monkeypatch):
    module, _, _, source = made
    run(module, source, tmp_path / "straight")
    real, written = reader._put, []

    def killed(path, write):
        if len(written) == 10:
            path.with_name(path.name + ".part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        real(path, write)

    monkeypatch.setattr(reader, "_put", killed)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(module, source, out)
    assert sum(p.is_file() for p in out.rglob("*.*g")) == 10 and not list(out.glob("*.csv"))
    again = []
    monkeypatch.setattr(reader, "_put", lambda path, write: (again.append(path), real(path, write)))
    assert run(module, source, out) == 0
    assert not set(written) & set(again), "an image that was there was written again"
    leftover = {name for name in contents(out) if name.endswith(".part")}
    assert not leftover and contents(out) == contents(tmp_path / "straight")


def test_missing_and_damaged_images(made, tmp_path, capsys):
    module, _, n, source = made
    skip = utkface.BROKEN | {"5_1_4_20170110220000000.jpg.chip.jpg"}  # not in the tables anyhow
    skip |= {f"PAT_{100 + i // 2}_{i}_{7 * i}.png" for i in range(24, 28)}
    images = sorted(p for p in source.rglob("*.*g") if p.is_file() and p.name not in skip)
    images[0].write_bytes(b"<html>404</html>")
    lost = 1
    if module is not utkface:  # there a missing file is no row
        images[1].unlink()
        lost = 2
    assert run(module, source, tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{lost} of {n} images are missing or damaged" in said and "--allow-missing" in said
    assert not list((tmp_path / "out").glob("*.csv"))
    assert run(module, source, tmp_path / "out", "--allow-missing") == 0
    (table,) = (tmp_path / "out").glob("*.csv")
    assert len(read_table(table)) == n - lost


@pytest.mark.parametrize("module", [utkface, celeba, waterbirds])
def test_non_commercial_sets_ask_for_the_licence(module, tmp_path, capsys):
    words = [str(tmp_path), "--out", str(tmp_path / "out")]
    assert reader.main(module.convert, words, doc=module.__doc__, terms=module.TERMS) == 2
    said = capsys.readouterr().err
    assert "non-commercial" in said and "--accept-licence" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


CELEBA_A, CELEBA_P = "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"
BIRDS = "waterbird_complete95_forest2water2/metadata.csv"


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "told"),
    [
        ("celeba", CELEBA_A, None, None, "no list_attr_celeba.txt in"),
        ("celeba", CELEBA_P, None, None, "no list_eval_partition.txt in"),
        ("celeba", CELEBA_A, "000003.jpg  1", "000003.jpg", "row 5: 4 values for 5 attributes"),
        (
            "celeba",
            CELEBA_A,
            "03.jpg  1  1",
            "03.jpg  1  7",
            "row 5: Blond_Hair '7' is not one of -1, 1",
        ),
        ("celeba", CELEBA_A, "000003.jpg", "000002.jpg", "row 5: '000002.jpg' was named in row 4 already"),
        ("celeba", CELEBA_A, "000003.jpg", "../3.jpg", "row 5: '../3.jpg' is no CelebA image name"),
        ("celeba", CELEBA_A, "Smiling", "Laughing", "row 2: no attribute 'Smiling'; it has: 5_o_Clock"),
        ("celeba", CELEBA_A, "24\n", "25\n", "line 1 says 25 images, 24 follow"),
        ("celeba", CELEBA_A, "24\n", "", "line 1 must be the number of images"),
        ("celeba", CELEBA_A, "000003.jpg", "\n000003.jpg", "row 5: the line is empty"),
        ("celeba", CELEBA_P, "000003.jpg 0", "000003.jpg", "row 3: '000003.jpg' is not an image and its"),
        ("celeba", CELEBA_P, "000003.jpg 0", "000003.jpg 3", "row 3: part '3' is not one of 0, 1, 2"),
        ("celeba", CELEBA_P, "000003.jpg 0\n", "", "partition.txt does not name 000003.jpg (1 such"),
        ("celeba", CELEBA_P, "000003.jpg", "/000003.jpg", "row 3: '/000003.jpg' is no CelebA image name"),
        ("pad_ufes_20", "metadata.csv", None, None, "no metadata.csv in"),
        ("pad_ufes_20", "metadata.csv", "fitspatrick", "skin", "row 1: no column 'fitspatrick'; it has: pat"),
        ("pad_ufes_20", "metadata.csv", ",BCC,PAT_100", ",PAT_100", "row 2: 8 cells, the header has 9"),
        ("pad_ufes_20", "metadata.csv", "BCC", "XYZ", "row 2: diagnostic 'XYZ' is not one of BCC, MEL"),
        ("pad_ufes_20", "metadata.csv", "FEMALE,1.0", "FEMALE,7.0", "row 2: fitspatrick '7.0' is not one"),
        ("pad_ufes_20", "metadata.csv", "FEMALE,1.0", "F,1.0", "row 2: gender 'F' is not one of FEMALE"),
        ("pad_ufes_20", "metadata.csv", "PAT_100,0,40", "PAT_100,0,old", "row 2: age 'old' is no whole"),
        ("pad_ufes_20", "metadata.csv", "PAT_100_0_0.png", "../PAT_1.png", "row 2: '../PAT_1.png' is no PAD"),
        ("pad_ufes_20", "metadata.csv", "PAT_100_1_7.png", "PAT_100_0_0.png", "row 3: 'PAT_100_0_0.png' was"),
        ("pad_ufes_20", "metadata.csv", "PAT_100,0", "X,0", "row 2: patient_id 'X' is not of the form"),
        ("waterbirds", BIRDS, None, None, "no metadata.csv in"),
        ("waterbirds", BIRDS, "place,", "where,", "row 1: no column 'place'; it has: img_id"),
        ("waterbirds", BIRDS, "_0000_0.jpg,0,0,0,", "_0000_0.jpg,0,0,", "row 2: 5 cells, the header has 6"),
        ("waterbirds", BIRDS, "_0000_0.jpg,0,0,0", "_0000_0.jpg,2,0,0", "row 2: y '2' is not one of 0, 1"),
        ("waterbirds", BIRDS, "_0000_0.jpg,0,0,0", "_0000_0.jpg,0,3,0", "row 2: split '3' is not one of"),
        ("waterbirds", BIRDS, "_0000_0.jpg,0,0,0", "_0000_0.jpg,0,0,9", "row 2: place '9' is not one of"),
        (
            "waterbirds",
            BIRDS,
            "001.Black_footed_Albatross/Albatross_0000_0",
            "../x",
            "row 2: '../x.jpg' is no",
        ),
        ("waterbirds", BIRDS, "Albatross_0001_1.jpg", "Albatross_0000_0.jpg", "was named in row 2 already"),
    ],
)
def test_bad_label_files(tmp_path, capsys, name, file, old, new, told):
    module, files, _ = READERS[name]
    changed = files()
    if old is None:
        del changed[file]
    else:
        assert old.encode() in changed[file]
        changed[file] = changed[file].replace(old.encode(), new.encode(), 1)
    put(tmp_path / "download", changed)
    assert run(module, tmp_path / "download", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1, said
    assert file.split("/")[-1] in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("25_0_0.jpg", "'25_0_0.jpg' is no UTKFace name (age_gender_race_date.jpg): restore or remove it"),
        ("25_0_20170116000000009.jpg.chip.jpg", "is no UTKFace name"),
        ("117_0_0_20170116000000009.jpg.chip.jpg", "age 117 is outside 0 to 116"),
        ("25_2_0_20170116000000009.jpg.chip.jpg", "gender '2' is not one of 0, 1"),
        ("25_0_5_20170116000000009.jpg.chip.jpg", "race '5' is not one of 0, 1, 2, 3, 4"),
    ],
)
def test_bad_names_of_utkface(tmp_path, capsys, name, told):
    put(tmp_path / "download", utkface_files() | {f"UTKFace/{name}": picture(1)})
    assert run(utkface, tmp_path / "download", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert told in said and name in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_utkface_names_its_broken_files_and_takes_a_picture_once(tmp_path, capsys):
    files = utkface_files()
    twin = "UTKFace/45_1_1_20180101000000000.jpg.chip.jpg"
    put(tmp_path / "download", files | {twin: picture(18)})
    assert run(utkface, tmp_path / "download", tmp_path / "out") == 0
    said = capsys.readouterr().err
    for name in utkface.BROKEN:
        assert name in said
    assert "left out, the same picture as another: 1" in said and "45_1_1_2018" in said
    data = read_table(tmp_path / "out/utkface.csv")
    assert len(data) == 24 and "a label is missing in the name" in data.card.notes
    assert set(data.frame["age"]) == {25, 45}, "the child is left out"


def test_pad_keeps_patients_together_and_says_who_is_left_out(tmp_path):
    put(tmp_path / "download", pad_files())
    run(pad_ufes_20, tmp_path / "download", tmp_path / "out")
    frame = read_table(tmp_path / "out/pad_ufes_20.csv").frame
    patient = frame["path"].str.extract(r"(PAT_\d+)_")[0]
    assert (frame.groupby(patient)["split"].nunique() == 1).all() and len(set(patient)) == 12
    assert (
        "without skin type or gender: 4 of 28 rows" in read_table(tmp_path / "out/pad_ufes_20.csv").card.notes
    )
    assert Counter(frame["skin_type"]) == {"I-II": 12, "III-IV": 6, "V-VI": 6}


def test_broken_archives_and_missing_sources(tmp_path, capsys):
    assert run(waterbirds, tmp_path / "none", tmp_path / "out") == 2
    assert "no Waterbirds download at" in capsys.readouterr().err
    for name, content in (("x.tar.gz", b"\x1f\x8bhalf"), ("y.zip", b"half")):
        (tmp_path / name).write_bytes(content)
        assert run(waterbirds, tmp_path / name, tmp_path / "out") == 2
        assert f"{name} is no readable archive" in capsys.readouterr().err
        (tmp_path / name).unlink()
    tar(tmp_path / "z.tar.gz", waterbirds_files())
    whole = (tmp_path / "z.tar.gz").read_bytes()
    (tmp_path / "z.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert run(waterbirds, tmp_path / "z.tar.gz", tmp_path / "out") == 2
    assert "download it again" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_members_cannot_leave_the_folder(tmp_path):
    evil = {"../../evil.jpg": picture(1), "/tmp/evil/001.X/../../evil.jpg": picture(2)}
    tar(tmp_path / "birds.tar.gz", waterbirds_files() | evil)
    assert run(waterbirds, tmp_path / "birds.tar.gz", tmp_path / "out") == 0
    assert not list(tmp_path.rglob("evil*"))


def test_dates_of_utkface_may_have_sixteen_to_eighteen_digits_and_all_odd_names_are_told_at_once():
    for date in ("2017011022340900", "20170110223409000", "201701102234090000"):
        assert utkface.read_name(f"14_0_0_{date}.jpg.chip.jpg")["age"] == "14"
    with pytest.raises(InputError, match=r"(?s)'odd\.jpg'.*'1_2\.jpg'"):
        utkface._read_names(["14_0_0_2017011022340900.jpg", "odd.jpg", "1_2.jpg"])
