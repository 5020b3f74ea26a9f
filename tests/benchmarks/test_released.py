"""The audit of released CLIPs: the page says what its JSON holds, and lessons' counts agree."""

import json

import pandas as pd
import pytest

from benchmarks import RESULTS, released
from benchmarks.released_page import page
from fvlfp.audit import audit
from fvlfp.course.released import released_answers, released_counts
from fvlfp.errors import InputError


@pytest.fixture(scope="module")
def found():
    return json.loads((RESULTS / "released.json").read_text())


def test_the_page_is_the_one_of_its_json(found):
    assert (RESULTS / "released.md").read_text() == page(found)


def test_limits_stand_before_results(found):
    text = page(found)
    assert text.index("## Read this first") < text.index("## In short") < text.index("## 1.")
    assert "crop" in text[: text.index("## In short")]


@pytest.mark.parametrize("k", [0, 5, 9])
def test_counts_give_the_numbers_of_the_page(found, k):
    """`released_answers` rebuilds the rows; OpenAI's ViT-L/14 (k = 5) was asked twice."""
    entry = found["gender"][k]
    for attribute in ("race", "age"):
        rows = released_answers(entry["name"], asked="gender", attribute=attribute, prompts=entry["family"])
        assert len(rows) == found["n"]
        document = audit(
            rows, label="label", prediction="answer", groups=[attribute], positive="Male", draws=100
        ).document
        mine, wanted = document["attributes"][attribute], entry["attributes"][attribute]
        for gap, e in wanted["gaps"].items():
            assert mine["gaps"][gap]["value"] == pytest.approx(e["value"])
        assert mine["worst_cell_recall"]["cell"] == wanted["worst_cell_recall"]["cell"]


def test_counts_cover_every_image_once():
    table = released_counts()
    total = table.groupby(["asked", "prompts", "checkpoint", "attribute"])["n"].sum()
    assert len(total) == 2 * (len(released.GENDER) + len(released.RACE)) and (total == 10_954).all()


def test_unknown_checkpoint_and_two_lists_of_prompts_are_refused():
    with pytest.raises(InputError, match="there are: CommonPool-M"):
        released_answers("ViT-Z", asked="gender", attribute="race")
    with pytest.raises(InputError, match="A and B"):
        released_answers("OpenAI ViT-L/14", asked="gender", attribute="race")
    with pytest.raises(InputError, match="by 'hair'"):
        released_answers("OpenAI ViT-B/16", asked="gender", attribute="hair")


def test_comparisons_stay_within_a_family():
    for a, b in (*released.SIZE, *released.DATA):
        assert released.GENDER[a].family == released.GENDER[b].family
    frame = pd.DataFrame({"file": ["1"], "gender": ["Male"], "race": ["x"], "age": ["0-2"]})
    with pytest.raises(ValueError, match="different prompts"):
        released.one_comparison(frame, released.GENDER[0], released.GENDER[5], 100, 0.95)


def test_holm_runs_over_all_checkpoints_together():
    def fake(p):
        gaps = {g: {"p_value": x} for g, x in zip(released.TESTED, p, strict=True)}
        return {"attributes": {"race": {"gaps": gaps}}}

    audits = [fake((0.01, 0.5)), fake((0.02, 0.03))]
    released.across(audits, released.TESTED)
    told = [e["p_across"] for d in audits for e in d["attributes"]["race"]["gaps"].values()]
    # by hand: sorted .01 x 4, .02 x 3, .03 x 2, .5 x 1, each at least the one before
    assert told == pytest.approx([0.04, 0.5, 0.06, 0.06])
