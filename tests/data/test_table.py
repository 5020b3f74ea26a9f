"""The table contract: each kind of bad input is told once, with its row and what to do."""

import os

import pandas as pd
import pytest
from PIL import Image

from fvlfp.data.cells import undo_spreadsheet
from fvlfp.data.checks import Problem
from fvlfp.data.table import check_table, read_table
from fvlfp.data.toyfaces import CARD
from fvlfp.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """A good table of eight small images with its card."""
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(8):
        Image.new("RGB", (8, 6), (20 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
        rows.append(
            {
                "path": f"images/{i}.png",
                "smiling": ("no", "yes")[i % 2],
                "shape": ("round", "square")[i // 4],
                "split": ("train", "test")[i // 2 % 2],
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "t.card.toml").write_text(CARD.to_toml())
    return tmp_path


def edit(folder, row, column, value):
    """Change one cell of the table; row as a spreadsheet counts."""
    frame = pd.read_csv(folder / "t.csv", dtype=object, keep_default_na=False)
    frame.loc[row - 2, column] = value
    frame.to_csv(folder / "t.csv", index=False)


def told(folder, **options):
    return [str(p) for p in check_table(folder / "t.csv", **options)]


def test_a_good_table_is_read(folder):
    assert told(folder) == []
    data = read_table(folder / "t.csv", label="smiling", groups=["shape"])
    assert len(data) == len(data.images) == 8
    assert data.card == CARD and data.root == folder and data.skipped == ()
    assert list(data.frame["smiling"]) == ["no", "yes"] * 4
    assert data.images[3].mode == "RGB" and data.images[3].getpixel((0, 0)) == (60, 0, 0)
    assert [x.getpixel((0, 0))[0] for x in data.images[2:4]] == [40, 60]


def test_take_by_mask_and_by_position(folder):
    data = read_table(folder / "t.csv")
    part = data.take((data.frame["split"] == "test").to_numpy())
    assert list(part.frame["path"]) == [f"images/{i}.png" for i in (2, 3, 6, 7)]
    assert [x.getpixel((0, 0))[0] for x in part.images] == [40, 60, 120, 140]
    assert list(part.take([3, 0]).frame["path"]) == ["images/7.png", "images/2.png"]
    assert list(part.frame.index) == [0, 1, 2, 3]


def test_parquet_gives_the_same_rows_and_counts_them_from_one(folder):
    frame = pd.read_csv(folder / "t.csv")
    frame["age"] = [30, None] * 4
    frame.to_parquet(folder / "p.parquet")
    (folder / "p.card.toml").write_text(CARD.to_toml())
    data = read_table(folder / "p.parquet")
    assert list(data.frame["smiling"]) == ["no", "yes"] * 4
    frame.loc[2, "smiling"] = None
    frame.to_parquet(folder / "p.parquet")
    (problem,) = check_table(folder / "p.parquet")
    assert (problem.row, problem.column) == (3, "smiling")
    # integers with a gap in them come as floats, and are still integers
    text = [str(p) for p in check_table(folder / "p.parquet", groups=["age"])]
    assert text[0].startswith("row 2, column age: missing") and "all values are '30'" in text[4]


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (4, "smiling", "", "row 4, column smiling: missing value"),
        (4, "smiling", "NaN", "row 4, column smiling: missing value"),
        (4, "shape", "", "row 4, column shape: missing value"),
        (5, "smiling", "yess", "row 5, column smiling: 'yess' (1 row): a misspelling?"),
        (7, "shape", "oval", "row 7, column shape: 'oval' (1 row): a misspelling?"),
        (7, "shape", "Square", "row 7, column shape: 'Square' (1 row) differs from 'square' by spaces"),
        (7, "shape", "square ", "row 7, column shape: 'square ' (1 row) differs from 'square' by spaces"),
        (7, "shape", "square\u2009", "'square\\u2009' (1 row) differs from 'square' by spaces"),
        (7, "shape", "square\ufe0f", "(1 row) differs from 'square' by spaces"),
        (7, "shape", "square\t", "'square\\t' (1 row) differs from 'square' by spaces"),
        (7, "shape", "square\u2028", "holds a control character"),
        (6, "shape", "03-Sep", "row 6, column shape: '03-Sep' (1 row) looks like '3-9' after a spread"),
        (6, "split", "dev", "row 6, column split: 'dev' must be one of train, val, test"),
        (6, "path", "", "row 6, column path: missing value"),
        (6, "path", "images/9.png", "row 6, column path: no image at"),
        (6, "path", "../t.csv", "row 6, column path: '../t.csv' leaves the folder"),
        (6, "path", "/etc/hostname", "row 6, column path: '/etc/hostname' leaves the folder"),
        (6, "path", "images/../../x.png", "leaves the folder"),
        (6, "path", "images\0.png", "is no file name"),
        (6, "path", "t.csv", "row 6, column path: image"),
        (
            6,
            "path",
            "images/6.png",
            "row 8, column path: 'images/6.png' is in test here and in train in row 6",
        ),
    ],
)
def test_each_bad_cell_is_told_with_its_row(folder, row, column, value, message):
    edit(folder, row, column, value)
    problems = told(folder)
    assert len(problems) == 1 and message in problems[0]
    with pytest.raises(InputError) as e:
        read_table(folder / "t.csv")
    assert problems[0] in str(e.value) and str(folder / "t.csv") in str(e.value)


def test_all_problems_in_one_pass(folder):
    edit(folder, 3, "smiling", "")
    edit(folder, 4, "smiling", "03-Sep")
    edit(folder, 5, "path", "gone.png")
    edit(folder, 9, "split", "x")
    assert [p.row for p in check_table(folder / "t.csv")] == [3, 4, 9, 5]


def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (4, 4)).save(outside)
    os.symlink(outside, folder / "images/link.png")
    edit(folder, 2, "path", "images/link.png")
    assert "leaves the folder" in told(folder)[0]
    assert told(folder, images=outside.parent)[0].startswith("row 2, column path: no image at")


def test_values_that_the_card_does_not_know(folder):
    for row in (2, 3):
        edit(folder, row, "shape", "star")
    assert told(folder) == [
        "row 2, column shape: 'star' (2 rows): the data card has no words for it, only for round, square"
    ]


def test_missing_columns_suggest_the_nearest(folder):
    assert told(folder, label="smilling") == ["no column 'smilling'; did you mean 'smiling'?"]
    assert told(folder, groups=["zzz"]) == ["no column 'zzz'; the columns are path, smiling, shape, split"]
    assert told(folder, label="split") == ["the data card has no words for label 'split'"]


def test_skip_bad_leaves_out_and_counts_unreadable_images_only(folder):
    (folder / "images/3.png").write_bytes((folder / "images/3.png").read_bytes()[:40])
    (folder / "images/5.png").unlink()
    with pytest.raises(InputError, match=r"row 5.*cannot be read"):
        read_table(folder / "t.csv")
    data = read_table(folder / "t.csv", skip_bad=True)
    assert [p.row for p in data.skipped] == [5, 7] and len(data) == len(data.images) == 6
    assert [x.getpixel((0, 0))[0] for x in data.images] == [0, 20, 40, 80, 120, 140]
    edit(folder, 3, "smiling", "")
    with pytest.raises(InputError, match="row 3, column smiling"):
        read_table(folder / "t.csv", skip_bad=True)


def test_no_readable_image_at_all(folder):
    for i in range(8):
        (folder / f"images/{i}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image can be read"):
        read_table(folder / "t.csv", skip_bad=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"path,smiling\n", "no rows"),
        (b"path,path\na,b\n", "'path' occurs twice"),
        (b"path,smiling\na,b\nc\n", "row 3 has 1 cells, the header has 2"),
        (b"path,smiling\na,b\n\nc,d\n", "row 3 has 0 cells"),
        (b"path,smiling\na,b,c\n", "row 2 has 3 cells"),
        (b"path,smiling\na,\xff\n", "not UTF-8"),
    ],
)
def test_files_that_are_no_table(folder, content, message):
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_table(folder / "t.csv")


def test_missing_files(folder):
    with pytest.raises(InputError, match="no table at"):
        check_table(folder / "none.csv")
    with pytest.raises(InputError, match="no folder"):
        check_table(folder / "t.csv", images=folder / "none")
    with pytest.raises(InputError, match="no data card at"):
        check_table(folder / "t.csv", prompts=folder / "none.toml")
    (folder / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read as a table"):
        check_table(folder / "bad.parquet")
    (folder / "t.card.toml").unlink()
    assert told(folder)[0].startswith("no data card at")
    with pytest.raises(InputError, match="no data card at"):
        read_table(folder / "t.csv")


def test_predictions_need_neither_path_nor_card(tmp_path):
    frame = pd.DataFrame({"y": [0, 1] * 3, "yhat": [1, 1, 0] * 2, "g": ["NA", "None"] * 3, "p": [0.5] * 6})
    frame.to_csv(tmp_path / "p.csv", index=False)
    assert check_table(tmp_path / "p.csv", label="y", groups=["g"]) == []  # NA is a name here
    with pytest.raises(InputError, match="no data card"):
        read_table(tmp_path / "p.csv")


def test_a_header_mark_and_quoted_cells_do_no_harm(folder):
    text = (folder / "t.csv").read_text().replace("images/0.png", '"images/0.png"')
    (folder / "t.csv").write_text(text + "\n\n", encoding="utf-8-sig")
    assert told(folder) == [] and len(read_table(folder / "t.csv")) == 8


def test_other_columns_keep_numbers_and_groups_stay_text(folder):
    frame = pd.read_csv(folder / "t.csv").assign(score=range(8), glasses=[0, 1] * 4, client=[1, 2] * 4)
    frame.to_csv(folder / "t.csv", index=False)
    data = read_table(folder / "t.csv", label="smiling", groups=["shape"])
    assert data.frame["score"].sum() == 28
    assert set(data.frame["glasses"]) == {"0", "1"} and set(data.frame["client"]) == {"1", "2"}


def test_pictures_of_every_mode_come_upright_as_rgb(folder):
    Image.new("P", (8, 6)).save(folder / "images/0.png", transparency=0)
    Image.new("LA", (8, 6)).save(folder / "images/1.png")
    turned = Image.new("L", (8, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "images/2.jpg", exif=exif)
    edit(folder, 4, "path", "images/2.jpg")
    images = read_table(folder / "t.csv").images
    assert [x.mode for x in images] == ["RGB"] * 8
    assert images[2].size == (6, 8)


def test_undo_spreadsheet():
    assert undo_spreadsheet("03-Sep") == "3-9" and undo_spreadsheet("Oct-19") == "10-19"
    for value in ("20-29", "3-9", "more than 70", "03-Foo", "Foo-19", ""):
        assert undo_spreadsheet(value) is None


def test_problem_in_words():
    assert str(Problem("m", 3, "c")) == "row 3, column c: m" and str(Problem("m")) == "m"
