"""A small CLIP from a table: captions say the card's words, a stopped run goes on to the same bits."""

import json

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from benchmarks import sets
from data_prep import table_clip
from data_prep.contrastive import Checkpoint, true_pairs
from data_prep.table_clip import Recipe, caption, epoch_rows, jitter, pixels_of, start_from, train
from fvlfp.clip.encoder import Encoder
from fvlfp.data import toyfaces
from fvlfp.errors import InputError

QUICK = Recipe(tower="vit", epochs=1.5, batch=16, warmup=4)


@pytest.fixture(scope="module")
def faces():
    """64 drawn faces: any table with images and a card will do."""
    return toyfaces.make(64, seed=3)


def test_captions_state_facts_in_the_words_of_the_card():
    rng = np.random.default_rng(0)
    row = {"smiling": "yes", "eyeglasses": "no", "gender": "Male"}
    kinds = set()
    for _ in range(300):
        text, facts = caption(sets.CELEBA, row, rng)
        assert facts.items() <= row.items()
        assert not {"hat", "woman", "serious", "young"} & set(text.split())
        kinds.add(tuple(sorted(facts)))
        if facts == {"smiling": "yes", "gender": "Male"}:
            assert "smiling person" in text and ("man" in text.split(",")[0] or "male" in text)
    assert kinds == {
        ("smiling",), ("eyeglasses",), ("gender",), ("gender", "smiling"), ("eyeglasses", "gender"),
    }  # fmt: skip
    assert caption(sets.CELEBA, {"gender": "Male"}, rng)[1] == {"gender": "Male"}


def test_a_caption_is_true_of_every_image_with_its_facts():
    facts = torch.tensor([[0, 1], [0, 2]])
    stated = torch.tensor([[0, -1], [-1, 1], [0, 2]])
    assert true_pairs(facts, stated).tolist() == [[True, True, False], [True, False, True]]


def test_rows_of_an_epoch_balance_classes():
    assert epoch_rows(None, 3).tolist() == [0, 1, 2]
    assert epoch_rows(np.array(["a", "b", "a", "a", "a"]), 5).tolist() == [0, 1, 1, 1, 1, 2, 3, 4]
    with pytest.raises(InputError, match="nothing to balance"):
        epoch_rows(np.array(["a", "a"]), 2)


@pytest.mark.parametrize("size", [(64, 64), (89, 109), (130, 70)])
def test_pixels_are_those_of_open_clips_own_transform(faces, size):
    picture = faces.images[0].resize(size)
    mine = table_clip.normalise(pixels_of([picture], 64))
    theirs = open_clip.image_transform(64, is_train=False)(picture)
    assert torch.allclose(mine[0], theirs, atol=1e-5)


def test_jitter_moves_mirrors_and_turns():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)
    padded = np.pad(one[0], ((4, 4), (4, 4), (0, 0)), mode="edge")
    crops = [padded[y : y + 16, x : x + 16] for y in range(9) for x in range(9)]
    plain = {c.tobytes() for crop in crops for c in (crop, np.ascontiguousarray(crop[:, ::-1]))}
    seen = {jitter(one, rng, turns=False)[0].tobytes() for _ in range(100)}
    assert seen <= plain and len(seen) > 50
    turned = [jitter(one, rng, turns=True)[0] for _ in range(100)]
    assert 10 < sum(x.tobytes() not in plain for x in turned) < 95  # three of four turns
    assert all(any(np.rot90(x, k).tobytes() in plain for k in range(4)) for x in turned)


def test_a_stopped_run_goes_on_to_the_same_bits(faces, tmp_path):
    whole = train(faces, QUICK).state_dict()

    class Stop(Exception):
        pass

    class Stopping(Checkpoint):
        steps = 0

        def due(self):
            self.steps += 1
            return self.steps == 3

        def write(self, state):
            super().write(state)
            raise Stop

    path = tmp_path / "x.checkpoint"
    with pytest.raises(Stop):
        train(faces, QUICK, checkpoint=Stopping(path))
    again = train(faces, QUICK, checkpoint=Checkpoint(path)).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_weights_are_taken_where_name_and_shape_agree(tmp_path):
    from safetensors.torch import save_file

    a, b = (open_clip.CLIP(**Recipe(tower=t).config) for t in ("vit", "resnet"))
    save_file({k: v.contiguous() for k, v in b.state_dict().items()}, tmp_path / "b.safetensors")
    taken = start_from(a, tmp_path / "b.safetensors")
    assert "token_embedding.weight" in taken
    assert not any(name.startswith("visual.layer") for name in taken)
    assert torch.equal(a.token_embedding.weight, b.token_embedding.weight)
    save_file({"other": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="no tensor that fits"):
        start_from(a, tmp_path / "c.safetensors")


def test_the_command_writes_a_model_that_the_encoder_loads(tmp_path, capsys):
    folder = tmp_path / "toy"
    (folder / "images").mkdir(parents=True)
    data = toyfaces.make(24, seed=5)
    names = [f"images/{i}.png" for i in range(len(data))]
    for name, image in zip(names, data.images, strict=True):
        image.save(folder / name)
    data.frame.drop(columns=["path"], errors="ignore").assign(path=names).to_csv(
        folder / "toy.csv", index=False
    )
    (folder / "toy.card.toml").write_text(data.card.to_toml())
    out = tmp_path / "out"
    arguments = [str(folder / "toy.csv"), "--out", str(out), "--name", "Tiny-64", "--tower", "vit"]
    assert table_clip.main([*arguments, "--epochs", "1", "--batch", "8", "--warmup", "2"]) == 0
    told = json.loads((out / "Tiny-64.recipe.json").read_text())
    encoder = Encoder.load(
        "Tiny-64",
        pretrained=str(out / "Tiny-64.safetensors"),
        model_config=out / "Tiny-64.json",
        device="cpu",
    )
    assert encoder.provenance["weights_sha256"] == told["weights_sha256"]
    assert told["rows"] == 24 and told["recipe"]["tower"] == "vit"
    assert encoder.encode_images(data.images[:2]).shape == (2, 128)
    for wrong, message in (
        (["--batch", "99"], "24 rows"), (["--tower", "x"], "tower 'x'"), (["--balance", "x"], "balance"),
    ):  # fmt: skip
        assert table_clip.main([*arguments, "--batch", "8", *wrong]) == 2
        assert message in capsys.readouterr().err


def labels(**columns):
    return pd.DataFrame(columns, dtype=object)


def lines(frame):
    return enumerate(frame.to_dict("records"), 2)


def test_a_table_of_labels_without_a_column_is_refused(tmp_path):
    folder = tmp_path / "data" / "celeba"
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text("file,identity\n000001.jpg,1\n")
    with pytest.raises(InputError, match="row 1: no column 'Smiling'"):
        sets.convert("celeba", tmp_path / "out", tmp_path)


def test_people_and_lesions_are_in_one_part_only():
    n = 400
    frame = labels(
        file=[f"{i:06d}.jpg" for i in range(n)], identity=[str(i // 3) for i in range(n)],
        **{a: ["0", "1"] * (n // 2) for a, _, _ in sets.CELEBA_USED.values()},
    )  # fmt: skip
    rows = sets.celeba_rows(lines(frame))
    parts = {}
    for who, row in zip(frame["identity"], rows, strict=True):
        assert parts.setdefault(who, row["split"]) == row["split"]
    assert set(parts.values()) == {"pretrain", "train", "test"}
    assert rows[1]["smiling"] == "yes" and rows[0]["gender"] == "Female"
    with pytest.raises(InputError, match="row 2: Smiling = '2'"):
        sets.celeba_rows(lines(frame.head(1).assign(Smiling="2")))


def test_lesions_without_age_sex_or_site_are_left_out():
    frame = labels(
        file=["ISIC_1.jpg"] * 4, lesion_id=["a", "b", "c", "d"], dx=["mel", "nv", "df", "bcc"],
        malignant=["1", "0", "0", "1"], age=["0.0", "35.0", "50.0", "65.0"],
        age_group=["<40", "<40", "40-59", "60+"], sex=["male", "", "female", "male"],
        localization=["back", "ear", "unknown", "ear"],
    )  # fmt: skip
    rows = sets.ham_rows(lines(frame))
    assert [(r["malignant"], r["diagnosis"], r["age_group"], r["sex"], r["site"]) for r in rows] == [
        ("yes", "basal cell carcinoma", "60 and over", "male", "ear")
    ]
    with pytest.raises(InputError, match="row 5: dx = 'x'"):
        sets.ham_rows(lines(frame.assign(dx="x")))
