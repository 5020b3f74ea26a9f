"""The command line: exit codes, one message, nothing half-written."""

import html
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fvlfp import __version__
from fvlfp.cli import app
from fvlfp.data import toyfaces
from fvlfp.training.reports import RoundReport

RUNNER = CliRunner()


def fvlfp(*words):
    return RUNNER.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A table of 90 drawn faces on disk, with its card."""
    folder = tmp_path_factory.mktemp("faces")
    made = toyfaces.make(90, seed=3)
    (folder / "images").mkdir()
    for i, image in enumerate(made.images):
        image.save(folder / "images" / f"{i}.png")
    made.frame.assign(path=[f"images/{i}.png" for i in range(90)]).to_csv(folder / "faces.csv", index=False)
    (folder / "faces.card.toml").write_text(made.card.to_toml(), encoding="utf-8")
    return folder


@pytest.fixture
def changed(faces, tmp_path):
    """The same table with a change, in a folder of its own."""

    def make(change):
        frame = change(pd.read_csv(faces / "faces.csv", dtype=str))
        frame.to_csv(tmp_path / "faces.csv", index=False)
        (tmp_path / "faces.card.toml").write_text((faces / "faces.card.toml").read_text())
        if not (tmp_path / "images").exists():
            shutil.copytree(faces / "images", tmp_path / "images")
        return tmp_path / "faces.csv"

    return make


def refused(result, *parts):
    """Exit 2, one message that holds `parts`, no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output, result.output
    return True


def commands(group=None, words=()):
    """Every command, as the words that call it."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


def test_version_and_help():
    assert fvlfp("--version").output.strip() == __version__
    assert fvlfp("--help").exit_code == 0
    assert fvlfp().exit_code == 2 and "Usage" in fvlfp().output


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(words):
    result = RUNNER.invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: fvlfp {' '.join(words)}" in result.output


def test_the_shell_completes_commands_and_options():
    script = RUNNER.invoke(app, [], prog_name="fvlfp", env={"_FVLFP_COMPLETE": "source_bash"})
    assert "complete " in script.output and "fvlfp" in script.output
    for typed, offered in (
        ("fvlfp sw", "sweep"),
        ("fvlfp audit cl", "clip"),
        ("fvlfp train --res", "--resume"),
    ):
        asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_FVLFP_COMPLETE": "complete_bash"}
        assert RUNNER.invoke(app, [], prog_name="fvlfp", env=asked).output.split() == [offered]


def test_a_good_table_is_good(faces):
    result = fvlfp("check", faces / "faces.csv")
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith("good")


def test_train_end_to_end_stopped_and_resumed(faces, tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = ["train", "--set", "profile=smoke", "--set", f"data={faces / 'faces.csv'}"]
    words += ["--set", "clients=2", "--set", "device=cpu", "--set", "draws=200", "--out", out]
    first = fvlfp(*words)
    assert first.exit_code == 0, first.output
    assert first.stderr == "", "no progress bar where no terminal is"
    assert first.output.strip().splitlines()[-1] == f"report: {out / 'audit' / 'comparison' / 'report.html'}"
    document = json.loads((out / "audit" / "method" / "audit.json").read_text())
    assert document["schema"] == 1
    assert document["n"] == 30
    assert document["provenance"]["label_origin"]
    assert document["provenance"]["weights_sha256"]
    rows, given = pd.read_csv(out / "predictions.csv"), pd.read_csv(faces / "faces.csv")
    assert (given["path"][rows["row"] - 2].to_numpy() == rows["path"]).all(), "2 is the first row of the CSV"
    assert ((rows["method score"] > 0.5) == (rows["method"] == "yes")).all()
    prompts = (out / "method" / "prompts.safetensors").read_bytes()
    assert refused(fvlfp(*words), "holds a run: add --resume")
    again = fvlfp(*words, "--resume")
    assert again.exit_code == 0, again.output
    assert (out / "method" / "prompts.safetensors").read_bytes() == prompts

    def ctrl_c(report, *_):
        if report.round == 1:
            raise KeyboardInterrupt
        return describe(report, *_)

    describe = RoundReport.describe
    monkeypatch.setattr(RoundReport, "describe", ctrl_c)
    words[-1] = other = tmp_path / "other"
    stopped = fvlfp(*words)
    assert stopped.exit_code == 130
    assert stopped.stderr == (
        "fvlfp: stopped; the same command with --resume goes on after the last saved round\n"
    )
    assert not list(other.rglob("*.part*")) and not (other / "predictions.csv").exists()
    monkeypatch.setattr(RoundReport, "describe", describe)
    assert fvlfp(*words, "--resume").exit_code == 0
    assert (other / "method" / "prompts.safetensors").read_bytes() == prompts


@pytest.mark.parametrize("kind", ["parquet", "saved", "split"])
def test_check_audit_and_train_on_pictures_inside_the_table(faces, tmp_path, kind):
    frame = pd.read_csv(faces / "faces.csv", dtype=str)
    image = [{"bytes": (faces / p).read_bytes(), "path": Path(p).name} for p in frame["path"]]
    rows = pa.table({"image": image, "smiling": list(frame["smiling"]), "shape": list(frame["shape"])})
    table = tmp_path / ("faces.parquet" if kind == "parquet" else "faces")
    (tmp_path / "faces.card.toml").write_text((faces / "faces.card.toml").read_text())
    if kind == "parquet":
        pq.write_table(rows, table)
    parts = {"saved": {"": rows}, "split": {"train": rows[:60], "test": rows[60:]}}.get(kind, {})
    for name, part in parts.items():
        (table / name).mkdir(parents=True)
        with pa.ipc.new_stream(table / name / "a.arrow", part.schema) as stream:
            stream.write_table(part)
        (table / name / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    if kind == "split":
        (table / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    columns = ["--label", "smiling", "--group", "shape"]
    good = fvlfp("check", table, *columns)
    assert good.exit_code == 0, good.output
    audited = fvlfp("audit", "clip", table, *columns, "--draws", 200, "--out", tmp_path / "a")
    assert audited.exit_code == 0, audited.output
    plain = fvlfp("audit", "clip", faces / "faces.csv", *columns, "--draws", 200, "--out", tmp_path / "b")
    assert plain.exit_code == 0, plain.output
    a, b = (pd.read_csv(tmp_path / x / "predictions.csv")["prediction"] for x in "ab")
    assert list(a) == list(b)
    settings = {"data": table, "profile": "smoke", "groups": "shape", "clients": 2, "rounds": 1, "draws": 200}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    if kind == "parquet":
        return  # training reads through the same function
    trained = fvlfp("train", *words, "--out", tmp_path / "t")
    assert trained.exit_code == 0, trained.output
    assert len(pd.read_csv(tmp_path / "t" / "predictions.csv")) == 30


def test_audit_clip_and_compare(faces, tmp_path):
    words = [
        "audit",
        "clip",
        faces / "faces.csv",
        "--label",
        "smiling",
        "--group",
        "shape",
        "--group",
        "tint",
    ]
    assert refused(fvlfp(*words, "--k", 90, "--out", tmp_path / "a"), "k=90 of n=90")
    assert not (tmp_path / "a").exists()
    result = fvlfp(*words, "--draws", 200, "--harmful-words", "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "a" / "audit.json").read_text())
    for part in document["attributes"].values():
        assert all(e["band"][0] <= e["value"] <= e["band"][1] for e in part["gaps"].values())
        assert all(g["roc_auc"]["band"] for g in part["scores"]["groups"].values())
        assert part["worst_cell_recall"]["band"]
    assert set(document["embedding"]["attributes"]) == {"shape", "tint"}
    page = (tmp_path / "a" / "report.html").read_text()
    for text in (
        "Who comes up first",
        "What gives the group away",
        "Harmful words",
        "over 4 prompt templates",
    ):
        assert text in page
    assert "fvlfp audit clip faces.csv --label smiling" in page and "--harmful-words --out DIR" in page
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names >= {
        "audit.json",
        "groups.csv",
        "gaps.csv",
        "report.html",
        "predictions.csv",
        "templates.csv",
    }
    frame = pd.read_csv(tmp_path / "a" / "predictions.csv")
    flipped = frame.assign(prediction=np.where(frame["prediction"] == "yes", "no", "yes"))
    flipped.to_csv(tmp_path / "b.csv", index=False)
    result = fvlfp(
        *("compare", tmp_path / "a", tmp_path / "b.csv", "--label", "smiling", "--group", "shape"),
        *("--positive", "yes", "--draws", 200, "--out", tmp_path / "c"),
    )
    assert result.exit_code == 0, result.output
    change = json.loads((tmp_path / "c" / "audit.json").read_text())["overall"]["rates"]["accuracy"]
    assert change["a"] + change["b"] == pytest.approx(1.0)


@pytest.mark.kernel
def test_audit_predictions(tmp_path):
    table = pd.DataFrame(
        {"y": ["a", "b"] * 20, "p": ["a", "b", "b", "b"] * 10, "g": ["u", "v", "u", "u"] * 10}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["audit", "predictions", tmp_path / "t.csv", "--label", "y", "--prediction", "p", "--group", "g"]
    result = fvlfp(*words, "--draws", 200, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    again = fvlfp("compare", tmp_path / "out", tmp_path / "out", "--draws", 200, "--out", tmp_path / "same")
    assert again.exit_code == 0, again.output
    change = json.loads((tmp_path / "same" / "audit.json").read_text())["overall"]["rates"]["accuracy"]
    assert change["change"] == 0
    assert refused(fvlfp("compare", tmp_path / "t.csv", tmp_path / "t.csv"), "--label and --group")
    groups = json.loads((tmp_path / "out" / "audit.json").read_text())["attributes"]["g"]["groups"]
    assert groups["u"]["rates"]["tpr"]["value"] == 1.0
    assert groups["v"]["n"] == 10


def test_the_printed_command_gives_every_number_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    columns = {c: rng.choice(["a", "b"], 80) for c in ("y", "p", "first group", "$x")}
    pd.DataFrame(columns).assign(s=rng.random(80)).to_csv(tmp_path / "my table.csv", index=False)
    monkeypatch.chdir(tmp_path)
    words = ["audit", "predictions", "my table.csv", "--label", "y", "--prediction", "p", "--score", "s"]
    words += ["--group", "first group", "--group", "$x", "--cross", "--positive", "a", "--draws", "150"]
    assert fvlfp(*words, "--seed", "4", "--out", "one").exit_code == 0
    page = html.unescape((tmp_path / "one" / "report.html").read_text())
    said = shlex.split(page.split("<pre>")[1].split("</pre>")[0].replace("DIR", "two"))
    assert said[0] == "fvlfp" and fvlfp(*said[1:]).exit_code == 0
    for name in ("audit.json", "groups.csv", "gaps.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()

    assert fvlfp("compare", "one", "two", "--draws", "150", "--out", "change").exit_code == 0
    change = json.loads((tmp_path / "change" / "audit.json").read_text())
    assert set(change["attributes"]) == {"first group", "$x", "first group x $x"}  # crossed as the audit was
    page = html.unescape((tmp_path / "change" / "report.html").read_text())
    said = shlex.split(page.split("<pre>")[1].split("</pre>")[0].replace("DIR", "again"))
    assert fvlfp(*said[1:]).exit_code == 0
    assert json.loads((tmp_path / "again" / "audit.json").read_text()) == change


def test_missing_file_and_missing_column(faces, tmp_path):
    assert refused(fvlfp("check", tmp_path / "absent.csv"), "absent.csv")
    assert refused(
        fvlfp("train", "--set", f"data={tmp_path}/absent.csv", "--out", tmp_path / "o"), "absent.csv"
    )
    assert refused(fvlfp("train", tmp_path / "absent.toml"), "no such config file")
    words = ["--set", f"data={faces / 'faces.csv'}", "--out", tmp_path / "o"]
    assert refused(fvlfp("train", "--set", "label=smilling", *words), "'smilling'", "'smiling'")
    assert refused(fvlfp("train", "--set", "groups=shapes", *words), "'shapes'", "'shape'")
    assert refused(fvlfp("train", "--set", "groups=shapes", "--out", tmp_path / "o"), "did you mean 'shape'?")
    assert not (tmp_path / "o").exists()


def test_a_class_or_group_with_one_member(changed, tmp_path):
    def one_class(frame):
        frame["smiling"] = "no"
        frame.loc[4, "smiling"] = "yes"
        return frame

    table = changed(one_class)
    assert refused(fvlfp("train", "--set", f"data={table}", "--out", tmp_path / "o"), "'yes'", "row 6")

    def one_member(frame):
        frame["shape"] = "round"
        frame.loc[7, "shape"] = "square"
        return frame

    assert refused(fvlfp("check", changed(one_member)), "'square'", "row 9")


def test_nan_label(changed):
    def nan(frame):
        frame.loc[3, "smiling"] = None
        return frame

    assert refused(fvlfp("check", changed(nan)), "row 5", "smiling")


def test_unreadable_image_is_named_or_skipped_and_counted(changed, tmp_path):
    def broken(frame):
        frame.loc[2, "path"] = "broken.png"
        return frame

    table = changed(broken)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["audit", "clip", table, "--label", "smiling", "--group", "shape", "--draws", 200]
    assert refused(fvlfp(*words, "--out", tmp_path / "o"), "broken.png", "row 4")
    assert not (tmp_path / "o").exists()
    result = fvlfp(*words, "--skip-bad", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert "left out: " in result.output
    assert "row 4" in result.output
    assert json.loads((tmp_path / "o" / "audit.json").read_text())["n"] == 89


def test_unknown_config_key_and_bad_values(tmp_path):
    assert refused(
        fvlfp("train", "--set", "lamda_cf=1", "--out", tmp_path / "o"), "did you mean 'lambda_cf'?"
    )
    assert refused(fvlfp("tour", "--profile", "smok", "--out", tmp_path / "o"), "did you mean 'smoke'?")
    assert not (tmp_path / "o").exists()


def test_wrong_weights(tiny_files, tmp_path, faces):
    words = [
        "audit",
        "clip",
        faces / "faces.csv",
        "--label",
        "smiling",
        "--group",
        "shape",
        "--out",
        tmp_path / "o",
    ]
    result = fvlfp(*words, "--model", "RN50", "--pretrained", tiny_files[1])
    assert refused(result, "does not hold the weights of RN50")


def test_no_client_with_data(changed, tmp_path):
    table = changed(lambda frame: frame.assign(split="test"))
    words = ["train", "--set", f"data={table}", "--out", tmp_path / "o"]
    assert refused(fvlfp(*words), "no client has data")
    table = changed(lambda frame: frame)
    words = ["train", "--set", f"data={table}", "--set", "clients=50", "--out", tmp_path / "o"]
    assert refused(fvlfp(*words), "use fewer clients")


def test_a_picture_of_another_size_is_fine(changed, tmp_path):
    table = changed(lambda frame: frame.assign(path=["big.png", *frame["path"][1:]]))
    Image.new("L", (300, 200), 128).save(tmp_path / "big.png")
    assert fvlfp("check", table).exit_code == 0


@pytest.mark.parametrize("option", ["--pretrained", "--model-config"])
def test_an_option_beside_toyclip_that_it_would_not_use(faces, tmp_path, option):
    words = ["audit", "clip", faces / "faces.csv", "--label", "smiling", "--group", "shape"]
    result = fvlfp(*words, option, "no_such_file.pt", "--out", tmp_path / "o")
    assert refused(result, "= 'no_such_file.pt' would not be used: 'toyclip' brings its own weights")
    key = option.removeprefix("--").replace("-", "_")
    words = ["train", "--set", "profile=smoke", "--set", "n=60", "--set", f"{key}=no_such_file.pt"]
    assert refused(fvlfp(*words, "--out", tmp_path / "o"), f"{key} = 'no_such_file.pt' would not be used")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --images I", "images = 'I' would not be used: it needs a table as data"),
        ("train --set data=P.parquet --images I", "would not be used: P.parquet holds its pictures itself"),
        ("check P.parquet --images I", "images = 'I' would not be used"),
        ("audit clip P.parquet --label smiling --group shape --images I", "images = 'I' would not be used"),
        ("train --set n=60 --set liars=2", "liars = 2 would not be used: it needs robust other than 'none'"),
        ("train --set seed=1 --set seed=2", "--set names 'seed' twice"),
        ("predict R I --class yes=smile --class yes=grin", "--class names 'yes' twice"),
        ("export R --to onnx --class a=b --class a=c", "--class names 'a' twice"),
        ("grade I --limit 5", "--limit would not be used: it needs --rerun"),
    ],
)
def test_an_option_that_would_not_be_used_is_refused(faces, tmp_path, monkeypatch, words, message):
    frame = pd.read_csv(faces / "faces.csv", dtype=str)
    frame["image"] = [{"bytes": (faces / path).read_bytes(), "path": None} for path in frame.pop("path")]
    frame.to_parquet(tmp_path / "P.parquet")
    shutil.copy(faces / "faces.card.toml", tmp_path / "P.card.toml")
    monkeypatch.chdir(tmp_path)
    Path("I").mkdir()
    out = [] if words.startswith("check") else ["--out", "o.csv"]
    assert refused(fvlfp(*words.split(), *out), message)
    assert not list(tmp_path.glob("o*"))


def test_audit_of_a_folder_with_its_own_transform(faces, tiny_files, tmp_path):
    """F11, F12: the report says which transform was used and who states it; the command holds no folder."""
    folder = tmp_path / "clip"
    folder.mkdir()
    config = {"model_cfg": json.loads(tiny_files[0].read_text()), "preprocess_cfg": {"mean": 0.5, "std": 0.5}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(tiny_files[1].read_bytes())
    words = ["audit", "clip", faces / "faces.csv", "--label", "smiling", "--group", "shape", "--draws", 100]
    result = fvlfp(*words, "--model", f"local-dir:{folder}", "--std", "0.25", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "o/report.html").read_text()
    assert "std as given by the user; the rest: open_clip_config.json beside the weights" in page
    assert "std=(0.25, 0.25, 0.25)" in page and "--model local-dir:clip --std 0.25" in page
    assert str(tmp_path) not in page and str(tmp_path) not in (tmp_path / "o/audit.json").read_text()
