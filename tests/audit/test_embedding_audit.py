"""The audit of an embedding: planted groups are found, what cannot be judged says why, the page shows it."""

import numpy as np
import pandas as pd
import pytest

from fvlfp.audit import audit
from fvlfp.audit.clip.clip_options import EmbeddingOptions
from fvlfp.audit.clip.embedding_audit import Words, audit_embedding
from fvlfp.audit.clip.embeddings import counterfactual, group_means, overlap, plane, subspace
from fvlfp.audit.report import page
from fvlfp.errors import InputError

FEW = EmbeddingOptions(draws=100)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def planted():
    """Axis 0 is the class, axis 1 the group, and the class texts lean on the group a little."""
    rng = np.random.default_rng(0)
    n = 400
    label, group = rng.integers(0, 2, n), rng.integers(0, 2, n)
    z = rng.normal(0, 0.25, (n, 6))
    z[:, 0] += np.where(label == 1, 0.5, -0.5)
    z[:, 1] += np.where(group == 1, 1.0, -1.0)
    texts = np.stack(
        [[[-1, -0.5, 0, 0, 0, 1], [1, 0.5, 0, 0, 0, 1]], [[-1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1]]]
    )
    said = {"u": unit(np.array([[0, -1.0, 0, 0, 0, 1]])), "v": unit(np.array([[0, 1.0, 0, 0, 0, 1]]))}
    names = np.array(["u", "v"])[group].astype(object)
    words = Words(queries=["no", "yes"], classes=unit(texts), groups={"g": said})
    return unit(z), np.array(["no", "yes"])[label].tolist(), names, words


def test_planted_group_is_found_by_every_part(planted):
    z, labels, names, words = planted
    found = audit_embedding(z, labels, {"g": names.tolist()}, words, EmbeddingOptions(draws=200))
    entry = found["attributes"]["g"]
    assert entry["reasons"] == {}
    assert min(row["balanced_accuracy"] for row in entry["leakage"]) > 0.95
    everybody = entry["flips"][0]
    assert everybody["group"] == "all" and everybody["value"] > 0.3
    assert everybody["band"] == [
        pytest.approx(0, abs=0.02),
        everybody["value"],
    ]  # template 2 ignores the group
    skew = {row["query"]: row for row in entry["retrieval"] if row["measure"] == f"max_skew@{found['k']}"}
    assert skew["yes"]["group"] == "v" and skew["yes"]["p_adjusted"] < 0.05
    assert skew["yes"]["band_low"] < skew["yes"]["value"] == skew["yes"]["band_high"]
    spaces = entry["subspaces"]
    at = {name: i for i, name in enumerate(spaces["names"])}
    assert spaces["matrix"][at["words of the groups"]][at["images of the groups"]] > 0.9
    assert found["target"] == "population" and found["k"] == 40


def test_missing_groups_small_groups_and_one_group_say_why(planted):
    z, labels, names, words = planted
    some = names.copy()
    some[:3], some[3:5] = None, "tiny"
    columns = {"g": some.tolist(), "alone": ["x"] * 400}
    found = audit_embedding(z, labels, columns, words, FEW)["attributes"]
    assert found["g"]["leakage"] is None and "at least five" in found["g"]["reasons"]["leakage"]
    assert found["g"]["flips"][0]["n"] == 397 and found["g"]["shown"][:3] == [None] * 3
    assert set(found["alone"]["reasons"]) == {"retrieval", "leakage", "flips", "subspaces"}


def test_harmful_words_only_when_offered_and_with_a_band(planted):
    z, labels, names, words = planted
    assert "associations" not in audit_embedding(z, labels, {"g": names}, words, FEW)["attributes"]["g"]
    texts = unit(np.stack([[[0, -1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0]], [[1.0, 0, 0, 0, 0, 0]] * 2]))
    offered = Words(words.queries, words.classes, offered={"g": (["person", "thief"], texts)})
    entry = audit_embedding(z, labels, {"g": names}, offered, FEW)["attributes"]["g"]["associations"]
    share = {(r["category"], r["group"]): r for r in entry["rates"]}
    assert share["crime-related", "v"]["value"] > 0.95 > 0.05 > share["crime-related", "u"]["value"]
    assert share["crime-related", "v"]["band"][0] == 0  # both texts alike: the first is always chosen
    gap = {r["category"]: r for r in entry["gaps"]}["crime-related"]
    assert gap["p_adjusted"] < 0.05 and gap["low"] > 0.8


@pytest.mark.parametrize("options", [{"k": 400}, {"k": 0}, {"target": "nice"}])
def test_a_k_or_target_that_makes_no_sense_is_refused(planted, options):
    z, labels, names, words = planted
    with pytest.raises(InputError, match=r"k=|target"):
        audit_embedding(z, labels, {"g": names}, words, EmbeddingOptions(**options))


def test_page_shows_every_part_with_names_as_data(planted):
    z, labels, names, words = planted
    hostile = [{"u": "<script>", "v": "$x_1$"}[name] for name in names]
    texts = np.stack([words.classes[0]] * 2)
    offered = Words(words.queries, words.classes, words.groups, {"g": (["person", "thief"], texts)})
    document = audit(
        pd.DataFrame({"y": labels, "p": labels, "g": hostile}),
        label="y", prediction="p", groups=["g"], draws=100,
    ).document  # fmt: skip
    document["embedding"] = audit_embedding(z, labels, {"g": hostile, "one": ["x"] * 400}, offered, FEW)
    shown = dict(page.sections(document))
    html = shown["The embedding, by perceived g"]
    for heading in ("What gives the group away", "Who comes up first", "Subspaces", "Harmful words"):
        assert heading in html
    assert "population" in html and "MaxSkew@40" in html and "Modality gap" in html
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "only one group" in shown["What could not be judged"]


def test_group_means_are_balanced_over_classes():
    z = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    groups, labels = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])
    assert group_means(z, groups, labels) == pytest.approx(np.full((2, 2), 0.5))
    assert group_means(z[:4], np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])) == pytest.approx(
        np.array([[1, 0], [0.5, 0.5]])
    )


def test_counterfactual_moves_to_another_group_and_stays_on_the_sphere():
    rng = np.random.default_rng(1)
    z, groups = unit(rng.normal(size=(50, 4))), rng.integers(0, 3, 50)
    means = rng.normal(size=(3, 4))
    moved = counterfactual(z, groups, means)
    assert np.linalg.norm(moved, axis=1) == pytest.approx(np.ones(50))
    candidates = unit(z[:, None] + means[None] - means[groups][:, None])  # (n, G, d)
    which = np.abs(candidates - moved[:, None]).max(-1).argmin(1)
    assert (which != groups).all() and set(which) == {0, 1, 2}
    assert (counterfactual(z, groups, means) == moved).all()


def test_subspace_is_that_of_the_differences():
    points = np.array([[1.0, 5, 0], [1, 7, 0], [1, 6, 0]])
    assert overlap(subspace(points), np.array([[0.0], [1], [0]])) == pytest.approx(1)
    assert subspace(points).shape == (3, 1)
    with pytest.raises(InputError, match="fewer than two"):
        subspace(points[:1])


def test_plane_picks_at_most_so_many_images_and_names_them():
    rng = np.random.default_rng(2)
    found = plane(rng.normal(size=(1500, 3)), rng.normal(size=(2, 3)))
    assert len(found["rows"]) == len(found["images"]) == 1000 == len(set(found["rows"]))
    assert len(found["texts"]) == 2 and found["modality_gap"] > 0
