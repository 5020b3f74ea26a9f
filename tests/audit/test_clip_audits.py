"""Retrieval skew, leakage probes, word associations, flips and embedding pictures."""

import numpy as np
import pandas as pd
import pytest

from fvlfp.audit.clip.embeddings import modality_gap, overlap, picture
from fvlfp.audit.clip.probes import CLIP_PAPER, associations, flip_rate, leakage
from fvlfp.audit.clip.retrieval import audit_retrieval, max_skew, ndkl, target_shares
from fvlfp.audit.report import plots
from fvlfp.errors import InputError


def test_skew_and_divergence_by_hand():
    ranked, equal = np.array([0, 0, 1, 1]), np.array([0.5, 0.5])
    assert max_skew(ranked, equal, 2) == pytest.approx(np.log(2))
    assert max_skew(ranked, equal, 3) == pytest.approx(np.log((2 / 3) / 0.5))
    third = 2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3)
    weight = 1 / np.log2([2, 3, 4, 5])
    expected = (np.log(2) * weight[0] + np.log(2) * weight[1] + third * weight[2]) / weight.sum()
    assert ndkl(ranked, equal) == pytest.approx(expected)


def test_a_k_that_cannot_see_the_model_is_refused():
    for k in (4, 9, 0):
        with pytest.raises(InputError, match="sees the model only"):
            max_skew(np.array([0, 1, 1, 0]), np.array([0.5, 0.5]), k)


def test_a_biased_query_is_found_and_a_random_one_is_not():
    rng = np.random.default_rng(0)
    groups = rng.choice(["amber", "teal", "violet"], 900)
    biased = rng.normal(0.8 * (groups == "teal"))
    table = audit_retrieval(
        [biased, rng.normal(size=900)], groups, queries=["a clever face", "a face"], k=90, draws=300
    ).set_index(["query", "measure"])
    hit = table.loc[("a clever face", "max_skew@90")]
    top = pd.Series(groups[np.argsort(-biased)[:90]]).value_counts(normalize=True)
    assert hit.group == "teal" and hit.p_adjusted < 0.05
    assert hit.value == pytest.approx(np.log(top["teal"] / (groups == "teal").mean()))
    assert (table.loc["a face"].p_value > 0.05).all() and (table.target == "population").all()


def test_targets():
    names, codes = ["a", "b"], np.array([0, 0, 0, 1])
    assert target_shares(names, codes, "population").tolist() == [0.75, 0.25]
    assert target_shares(names, codes, "uniform").tolist() == [0.5, 0.5]
    assert target_shares(names, codes, {"a": 0.4, "b": 0.6}).tolist() == [0.4, 0.6]
    for target, message in (
        ("equal", "use 'population'"),
        ({"a": 1.0}, "'b' no share"),
        ({"a": 1, "b": 1}, "sum to 2"),
    ):
        with pytest.raises(InputError, match=message):
            target_shares(names, codes, target)


@pytest.mark.parametrize(
    ("scores", "groups", "message"),
    [
        (np.zeros((2, 4)), list("abab"), "not 1 queries x 4"),
        (np.full((1, 4), np.nan), list("abab"), "not finite"),
        (np.zeros((1, 4)), list("aaaa"), "only one group"),
        (np.zeros((1, 4)), ["a", "b", None, "a"], "without a perceived group"),
    ],
)
def test_bad_retrieval_input(scores, groups, message):
    with pytest.raises(InputError, match=message):
        audit_retrieval(scores, groups, queries=["q"], k=2)


# leakage


def test_probes_read_what_is_there_and_not_what_is_not():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 800)
    noise = rng.normal(size=(800, 6))
    shifted = noise + np.outer(groups, [1.5, 0, 0, 0, 0, 0])
    found = leakage(shifted, groups).set_index("probe")
    assert (found.low > 0.7).all() and (found.chance == 0.5).all() and found.n.tolist() == [800, 800]
    quiet = leakage(noise, groups)
    assert (quiet.low < 0.5).all() and (quiet.high > 0.5).all()


def test_only_the_non_linear_probe_reads_a_product():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2))
    found = leakage(x, x[:, 0] * x[:, 1] > 0).set_index("probe")
    assert found.loc["linear", "high"] < 0.6 < 0.8 < found.loc["non-linear", "low"]


def test_clients_are_judged_by_probes_of_the_others():
    """Each client shifts the groups its own way: nothing carries over, whatever a probe learns at home."""
    rng = np.random.default_rng(0)
    groups, clients = np.tile([0, 1], 400), np.repeat([0, 1], 400)
    x = rng.normal(size=(800, 4))
    x[:, 0] += 3 * np.where(clients == 0, groups, 1 - groups)
    away = leakage(x, groups, clients=clients).set_index("probe")
    assert away.loc["linear", "balanced_accuracy"] < 0.3 and away.loc["linear", "folds"] == 2
    with pytest.raises(InputError, match="one client"):
        leakage(x, groups, clients=np.zeros(800))
    with pytest.raises(InputError, match="nothing to leak"):
        leakage(x, np.zeros(800))
    with pytest.raises(InputError, match="not finite"):
        leakage(np.full((800, 2), np.nan), groups)
    with pytest.raises(InputError, match="need"):
        leakage(x[:5], groups)


# words


def test_associations_count_words_by_group():
    assigned = ["thief"] * 30 + ["person"] * 70 + ["criminal"] * 5 + ["person"] * 95
    groups = ["a"] * 100 + ["b"] * 100
    rates, gaps = associations(assigned, groups, draws=500)
    crime = rates[rates.category == "crime-related"].set_index("group")
    assert crime.value.to_dict() == pytest.approx({"a": 0.3, "b": 0.05})
    gaps = gaps.set_index("category")
    assert gaps.loc["crime-related", "low"] > 0.1 and gaps.loc["crime-related", "p_adjusted"] < 0.01
    assert gaps.loc["non-human", "value"] == 0 and set(gaps.index) == set(CLIP_PAPER)
    with pytest.raises(InputError, match="same number"):
        associations(["thief"], ["a", "b"])


def test_flip_rate():
    table = flip_rate([1, 1, 0, 0], [1, 0, 0, 1], ["a", "a", "b", "b"]).set_index("group")
    assert table.value.to_dict() == {"all": 0.5, "a": 0.5, "b": 0.5}
    assert table.loc["all", ["flips", "n"]].tolist() == [2, 4]
    with pytest.raises(InputError, match="equal"):
        flip_rate([1], [1, 2])


# embeddings


def test_modality_gap_and_overlap_by_hand():
    assert modality_gap([[1, 0], [0, 1]], [[-1, 0], [0, -1]]) == pytest.approx(np.sqrt(2))
    e = np.eye(4)
    assert overlap(e[:, :2], e[:, :2]) == pytest.approx(1)
    assert overlap(e[:, :2], e[:, 1:3]) == pytest.approx(0.5)
    assert overlap(e[:, :1], (e[:, :1] + e[:, 1:2]) / np.sqrt(2)) == pytest.approx(0.5)
    with pytest.raises(InputError, match="orthonormal"):
        overlap(2 * e[:, :1], e)


@pytest.mark.figures
def test_picture_shows_groups_and_texts():
    rng = np.random.default_rng(0)
    drawn = plots.svg(
        picture(rng.normal(size=(60, 5)), rng.normal(size=(4, 5)), ["<b>", "$b$"] * 30)
    ).decode()
    assert "&lt;b&gt; (n=30)" in drawn and "$b$ (n=30)" in drawn and "texts" in drawn
