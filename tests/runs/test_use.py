"""What was trained can be used: predict, audit elsewhere, export, and load without fvlfp."""

import ast
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import fvlfp
from fvlfp.cli import app
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.errors import InputError
from fvlfp.runs.experiment import run_and_audit
from fvlfp.runs.export import Classifier
from fvlfp.runs.loaded_run import load_run

SETTINGS = {"n": 150, "clients": 2, "rounds": 1, "device": "cpu", "baseline": "zero-shot", "draws": 100}


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def good(*words):
    result = command(*words)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of DSOP with a projection that is not off."""
    out = tmp_path_factory.mktemp("use") / "run"
    cfg = Config.make("smoke", "dsop", rank=1, lambda_dsop=1.0, **SETTINGS)
    run_and_audit(cfg, out, say=lambda line: None)
    return out


@pytest.fixture(scope="module")
def run(folder):
    return load_run(folder)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Table B: other faces, on disk, with their card; and the faces themselves."""
    home = tmp_path_factory.mktemp("b")
    faces = toyfaces.make(90, seed=77)
    frame = faces.frame[["smiling", "shape", "tint"]].copy()
    frame.insert(0, "path", [f"images/{i:03d}.png" for i in range(len(faces))])
    (home / "images").mkdir()
    for path, image in zip(frame["path"], faces.images, strict=True):
        image.save(home / path)
    frame.to_csv(home / "b.csv", index=False)
    (home / "b.card.toml").write_text(faces.card.to_toml())
    return home


#: A run of every kind that is saved: what each keeps beside prompts.
KINDS = ("dsop", "fedclip", "local", "leace", "thresholds", "vision")


@pytest.fixture(scope="module")
def run_of(folder, tiny_files, tmp_path_factory):
    """Kind -> the folder of such a run."""
    home, (config, weights) = tmp_path_factory.mktemp("kinds"), tiny_files
    model = {"model": "tiny-test-clip", "model_config": str(config), "pretrained": str(weights)}

    def made(kind):
        out = folder if kind == "dsop" else home / kind
        if not out.exists():
            method, more = ("fedavg", model | {"vision_ctx": 2}) if kind == "vision" else (kind, {})
            run_and_audit(Config.make("smoke", method, **SETTINGS, **more), out, say=lambda line: None)
        return out

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_run_predicts_the_bits_that_training_predicted(run_of, kind):
    run = load_run(run_of(kind))
    cfg = run.trained.cfg
    faces = toyfaces.make(cfg.n, seed=cfg.seed, label=cfg.label)
    faces = faces.take((faces.frame["split"] == "test").to_numpy())
    found = run.predict(faces.images, groups=faces.frame if kind == "thresholds" else None)
    saved = pd.read_csv(run_of(kind) / "predictions.csv")
    assert found["prediction"].tolist() == saved["method"].tolist()
    assert found["score"].tolist() == saved["method score"].tolist()
    frozen = run.predict(faces.images, zero_shot=True)
    assert frozen["score"].tolist() == saved["baseline score"].tolist()
    assert fvlfp.load_run is load_run


def test_class_texts_and_projection_are_the_classifier(run, elsewhere):
    faces = toyfaces.make(90, seed=77)
    z = torch.from_numpy(run.encoder.encode_images(faces.images))
    by_hand = (run.task.scale * run.project(z) @ run.class_texts().T).softmax(-1)[:, 1]
    assert np.allclose(run.predict(faces.images)["score"], by_hand.numpy(), atol=1e-6)
    assert not torch.allclose(run.project(z), z), "this run's projection is on"


def test_predict_a_folder_and_a_table_without_labels(folder, run, elsewhere, tmp_path):
    result = good("predict", folder, elsewhere / "images", "--out", tmp_path / "new" / "p.csv")
    assert "written: " in result.stdout
    found = pd.read_csv(tmp_path / "new" / "p.csv")
    assert list(found) == ["path", "row", "prediction", "score"]
    assert found["path"][0] == "000.png" and list(found["row"]) == list(range(1, 91))
    wanted = run.predict(toyfaces.make(90, seed=77).images)
    assert np.allclose(found["score"], wanted["score"], atol=1e-6)
    facts = json.loads((tmp_path / "new" / "p.provenance.json").read_text())
    assert facts["method"] == "dsop" and facts["pictures"] == 90 and facts["classes_trained_on"]
    assert facts["model"]["weights_sha256"] and facts["prompts_sha256"]
    assert str(tmp_path) not in json.dumps(facts), "no path of this machine"
    pd.read_csv(elsewhere / "b.csv")[["path"]].to_csv(elsewhere / "bare.csv", index=False)
    good("predict", folder, elsewhere / "bare.csv", "--out", tmp_path / "t.parquet")
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["score"].tolist() == pytest.approx(found["score"].tolist(), abs=1e-6)
    assert list(table["row"])[:2] == [2, 3] and table["path"][0] == "images/000.png"
    good("predict", folder, elsewhere / "images" / "005.png", "--out", tmp_path / "one.csv")
    assert pd.read_csv(tmp_path / "one.csv")["path"].tolist() == ["005.png"]


def test_pictures_that_cannot_be_read_are_named_or_left_out(folder, elsewhere, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "c.png"):
        (pictures / name).write_bytes((elsewhere / "images" / "000.png").read_bytes())
    (pictures / "b.png").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("not a picture at all")
    result = command("predict", folder, pictures, "--out", tmp_path / "p.csv")
    assert result.exit_code == 2 and "b.png cannot be read" in result.stderr
    assert not (tmp_path / "p.csv").exists()
    result = good("predict", folder, pictures, "--skip-bad", "--out", tmp_path / "p.csv")
    assert "left out: image" in result.stderr
    found = pd.read_csv(tmp_path / "p.csv")
    assert found["path"].tolist() == ["a.png", "c.png"] and found["row"].tolist() == [1, 3]


def test_predictions_go_over_no_file_of_somebody_else(folder, elsewhere, tmp_path):
    """--out photos/labels.csv wrote over the labels."""
    (tmp_path / "labels.csv").write_text("path,label\n")
    picture = elsewhere / "images" / "000.png"
    result = command("predict", folder, picture, "--out", tmp_path / "labels.csv")
    assert result.exit_code == 2 and "was not written by this command" in result.stderr
    assert (tmp_path / "labels.csv").read_text() == "path,label\n"
    for _ in range(2):
        good("predict", folder, picture, "--out", tmp_path / "mine.csv")


def test_other_words_than_those_of_the_training_are_refused(folder, elsewhere, tmp_path):
    """A card that was edited, or put in its place, gave other predictions "of the trained classes"."""
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    words = (run / "words.toml").read_text()
    for old, new in (('"smiling face"', '"grinning face"'), ("a drawing of", "a photo of")):
        assert old in words
        (run / "words.toml").write_text(words.replace(old, new))
        result = command("predict", run, elsewhere / "images", "--out", tmp_path / "p.csv")
        assert result.exit_code == 2 and "other words than the run was trained with" in result.stderr


def test_what_systems_hide_in_a_folder_is_left_out_and_told(folder, elsewhere, tmp_path):
    """macOS puts ._x.png beside x.png: predict stopped there. A linked folder was left out in silence."""
    pictures = tmp_path / "pictures"
    (pictures / "@eaDir").mkdir(parents=True)
    picture = (elsewhere / "images" / "000.png").read_bytes()
    for name in ("a.png", "@eaDir/thumb.png"):
        (pictures / name).write_bytes(picture)
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "b.HEIC", "notes"):
        (pictures / name).write_bytes(b"of another kind")
    (pictures / "link").symlink_to(elsewhere / "images", target_is_directory=True)
    result = good("predict", folder, pictures, "--out", tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv")["path"].tolist() == ["a.png"]
    said = (
        "4 hidden by the system, 2 that are no pictures by their names (.heic, notes), "
        "1 links to folders, which are not followed"
    )
    assert f"left out: {said}" in result.stderr
    assert json.loads((tmp_path / "p.provenance.json").read_text())["left_out"] == [said]
    (pictures / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "no image at" in command("predict", folder, pictures, "--out", tmp_path / "p.csv").stderr


@pytest.mark.parametrize("name", ["a\rb.png", "caf\udce9.png"])
def test_a_file_name_that_no_table_can_hold_is_one_message(folder, elsewhere, tmp_path, name):
    """A bare carriage return makes two rows of one; letters of another coding end the writer."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in (name, "c.png"):
        try:
            (pictures / file).write_bytes((elsewhere / "images" / "000.png").read_bytes())
        except OSError:
            pytest.skip("this file system has no such names")
    result = command("predict", folder, pictures, "--out", tmp_path / "p.csv")
    assert result.exit_code == 2 and "is no single line of UTF-8 text" in result.stderr
    good("predict", folder, pictures, "--skip-bad", "--out", tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv")["path"].tolist() == ["c.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "{empty}"], "holds no picture"),
        (["{run}", "{empty}/gone.png"], "no image at"),
        (["{empty}", "{images}"], "holds no finished run (prompts.safetensors); name a run's folder"),
        (["{run}", "{images}", "--class", "hat"], "write VALUE=PHRASE"),
        (["{run}", "{images}", "--class", "hat=hat"], "at least two classes"),
        (
            ["{run}", "{images}", "--class", "hat=hat", "--class", "cap= Hat"],
            "have the same phrase",
        ),
        (["{run}", "{images}", "--out", "{empty}"], "is a folder"),
        (["{run}", "{images}", "--out", "{empty}/x.xlsx"], "write a .csv or a .parquet file"),
        (["{run}", "{images}", "--out", "s3://b/p.csv"], "is an address"),
    ],
)
def test_bad_uses_are_one_message(folder, elsewhere, tmp_path, words, message):
    places = {"run": folder, "empty": tmp_path, "images": elsewhere / "images"}
    result = command("predict", *(word.format(**places) for word in words))
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_class_words_are_allowed_and_said(folder, run, elsewhere, tmp_path):
    words = ["--class", "yes=face with a hat", "--class", "no=bare head", "--class", "x=dog"]
    result = good("predict", folder, elsewhere / "images", *words, "--out", tmp_path / "p.csv")
    assert "class words that the run was not trained on: face with a hat, bare head, dog" in result.stderr
    assert list(pd.read_csv(tmp_path / "p.csv")) == ["path", "row", "prediction"]
    assert not json.loads((tmp_path / "p.provenance.json").read_text())["classes_trained_on"]
    assert not run.with_classes(run.classes).new_classes
    same = run.with_classes(run.classes).predict(toyfaces.make(60, seed=77).images)
    assert same.equals(run.predict(toyfaces.make(60, seed=77).images))


def test_a_run_is_audited_on_another_table(folder, elsewhere, tmp_path):
    result = good("audit", "run", folder, elsewhere / "b.csv", "--draws", 100, "--out", tmp_path / "o")
    assert "judged: all 90 rows" in result.stdout
    table = pd.read_csv(tmp_path / "o" / "predictions.csv")
    told = ["smiling", "shape", "baseline", "method", "baseline score", "method score", "row", "path"]
    assert list(table) == told and len(table) == 90
    assert list(table["row"][:2]) == [2, 3] and table["path"][0] == "images/000.png"
    change = json.loads((tmp_path / "o" / "audit" / "comparison" / "audit.json").read_text())
    assert change["names"] == ["zero-shot", "dsop"] and change["n"] == 90
    assert change["provenance"]["trained_on"]["data"]
    good(
        "audit",
        "run",
        folder,
        elsewhere / "b.csv",
        "--group",
        "tint",
        "--draws",
        100,
        "--out",
        tmp_path / "t",
    )
    frame = pd.read_csv(elsewhere / "b.csv").assign(split=["train"] * 60 + ["test"] * 30)
    frame.to_csv(elsewhere / "split.csv", index=False)
    words = ["--prompts", elsewhere / "b.card.toml", "--draws", 100, "--out", tmp_path / "s"]
    result = good("audit", "run", folder, elsewhere / "split.csv", *words)
    assert "judged: 30 of 90 rows (split = test)" in result.stdout


def test_an_audit_of_labels_that_the_run_does_not_know(folder, elsewhere, tmp_path):
    frame = pd.read_csv(elsewhere / "b.csv")
    frame.assign(split="train").to_csv(elsewhere / "none.csv", index=False)
    card = ["--prompts", elsewhere / "b.card.toml", "--out", tmp_path / "o"]
    result = command("audit", "run", folder, elsewhere / "none.csv", *card)
    assert result.exit_code == 2 and "no test row" in result.stderr
    result = command("audit", "run", folder, elsewhere / "b.csv", "--label", "tint", *card)
    assert result.exit_code == 2 and not (tmp_path / "o").exists()


def test_the_exported_matrix_is_the_run_in_a_plain_open_clip_script(folder, run, elsewhere, tmp_path):
    out = tmp_path / "e"
    good("export", folder, "--to", "open_clip", "--out", out)
    assert {p.name for p in out.iterdir()} == {
        "classifier.safetensors",
        "frozen_model.json",
        "example.py",
        "README.md",
    }
    example = (out / "example.py").read_text()
    tree = ast.parse(example)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in getattr(node, "names", [])]
        )
    }
    assert imported == {"sys", "pathlib", "open_clip", "torch", "PIL", "safetensors"}
    steps = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.For | ast.Expr)]
    assert len(steps) - 1 <= 11, "ten steps and the docstring"
    from fvlfp.clip.lookup import TOYCLIP

    pictures = [elsewhere / "images" / f"{i:03d}.png" for i in range(8)]
    words = [sys.executable, "example.py", TOYCLIP / "toyclip64_fp16.safetensors", *pictures]
    done = subprocess.run([str(w) for w in words], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = run.predict(toyfaces.make(90, seed=77).images)[:8]
    assert [row[1] for row in rows] == wanted["prediction"].tolist()
    assert np.allclose([float(row[3]) for row in rows], wanted["score"], atol=1e-4)


def test_neither_an_audit_nor_an_export_takes_the_place_of_other_files(folder, elsewhere, tmp_path):
    """The run's own audit, a README.md, a predictions.csv: all were written over in silence."""
    table, mine = elsewhere / "b.csv", tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    for words in (["audit", "run", folder, table], ["export", folder, "--to", "open_clip"]):
        for out, message in ((folder, "choose another --out"), (mine, "holds something that is no")):
            result = command(*words, "--out", out)
            assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.stderr
    assert (mine / "README.md").read_text() == "mine" and len(list(mine.iterdir())) == 1


def test_two_exports_are_the_same_files(folder, tmp_path):
    for name in ("a", "b"):
        good("export", folder, "--to", "open_clip", "--out", tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    with safe_open(tmp_path / "a" / "classifier.safetensors", "pt") as file:
        facts = file.metadata()
    assert list(facts) == ["facts"], "several entries would stand in any order"
    assert json.loads(facts["facts"])["classes"] == ["no", "yes"]


def test_folding_is_exact(run):
    drawn = torch.Generator().manual_seed(0)
    z = torch.randn(50, run.task.frozen_texts.shape[1], generator=drawn)
    z = torch.nn.functional.normalize(z, dim=-1)
    classifier = Classifier.of(run.readout)
    assert torch.allclose(classifier.logits(z), run.readout.logits(z), atol=1e-4)
    alone = z @ classifier.weight.T + classifier.bias
    assert torch.equal(alone.argmax(1), run.readout.logits(z).argmax(1)), "same classes without the norm"


def test_the_model_card_has_the_verdict_and_the_licence_of_the_data(folder, tmp_path):
    good("export", folder, "--to", "open_clip", "--out", tmp_path / "e")
    card = (tmp_path / "e" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    keys = {line.partition(":")[0] for line in front.splitlines()}
    assert {"license", "license_name", "library_name", "pipeline_tag", "tags"} <= keys
    faces = toyfaces.make(60, seed=0)
    assert faces.card.licence in front and faces.card.label_origin in body
    audit = json.loads((folder / "audit" / "method" / "audit.json").read_text())
    gap = audit["attributes"]["shape"]["gaps"]["equalized_odds_difference_worst"]["value"]
    assert f"| shape | {gap:.3f} | " in body and "excludes 0" in body
    assert str(tmp_path) not in card and "\n\n\n" not in card
    words = ["--class", "a=cat|dog <b>", "--class", "b=dog"]
    good("export", folder, "--to", "open_clip", *words, "--out", tmp_path / "f")
    card = (tmp_path / "f" / "README.md").read_text()
    assert "No audit lies beside this run" in card and "cat\\|dog &lt;b&gt;" in card
    assert "**The class words are not those" in card


@pytest.mark.parametrize("kind", ["dsop", "fedclip", "leace", "vision"])
def test_onnx_is_the_run_from_pixels_to_probabilities(run_of, elsewhere, tmp_path, kind):
    pytest.importorskip("onnx", reason="the export needs onnx")
    pytest.importorskip("onnxruntime", reason="the export is checked with onnxruntime")
    good("export", run_of(kind), "--to", "onnx", "--out", tmp_path / "o")
    assert "random inputs: " in (tmp_path / "o" / "README.md").read_text()
    pictures = [str(elsewhere / "images" / f"{i:03d}.png") for i in range(8)]
    done = subprocess.run(
        [sys.executable, "example.py", *pictures], cwd=tmp_path / "o", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = load_run(run_of(kind)).predict(toyfaces.make(90, seed=77).images)[:8]
    assert [row[1] for row in rows] == wanted["prediction"].tolist()
    assert np.allclose([float(row[3]) for row in rows], wanted["score"], atol=1e-4)


def test_what_cannot_be_exported_says_so(folder, run_of, tmp_path, monkeypatch):
    assert "is not one of open_clip, onnx" in command("export", folder, "--to", "tflite").stderr
    for method, to, message in [
        ("fedclip", "open_clip", "not linear in the embedding: export it with --to onnx"),
        ("local", "open_clip", "one classifier for each client"),
        ("local", "onnx", "one classifier for each client"),
        ("thresholds", "open_clip", "need the perceived group of every picture"),
        ("thresholds", "onnx", "need the perceived group of every picture"),
        ("vision", "open_clip", "vision prompts change the image tower"),
    ]:
        result = command("export", run_of(method), "--to", to, "--out", tmp_path / "e")
        assert result.exit_code == 2 and message in result.stderr, result.output
        assert not (tmp_path / "e").exists()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = command("export", folder, "--to", "onnx", "--out", tmp_path / "e")
    assert result.exit_code == 2 and "pip install onnx onnxruntime" in result.stderr


def test_another_frozen_model_is_refused(folder, encoder):
    with pytest.raises(InputError, match="the run was trained with ToyCLIP-64, weights_sha256 = "):
        load_run(folder, encoder=encoder)
    (folder / "words.toml").rename(folder / "words.away")
    try:
        with pytest.raises(InputError, match=r"has no words.toml"):
            load_run(folder)
    finally:
        (folder / "words.away").rename(folder / "words.toml")
