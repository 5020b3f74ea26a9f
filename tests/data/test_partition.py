"""How rows are dealt to clients: everybody gets some, nothing is lost, and the knob does what it says."""

import numpy as np
import pandas as pd
import pytest

from fvlfp.data.partition import split_clients
from fvlfp.errors import InputError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "y": RNG.choice(["no", "yes"], 3000),
        "g": RNG.choice(["a", "b", "c"], 3000),
        "client": RNG.choice(["north", "south"], 3000),
    }
)


def deal(scheme, **changes):
    settings = {"clients": 8, "label": "y", "groups": ["g"], "concentration": 0.3, "seed": 1}
    return split_clients(FRAME, scheme=scheme, **(settings | changes))


def unlikeness(owner, column):
    """Mean total variation distance between a client's shares and everybody's."""
    table = pd.crosstab(owner, FRAME[column], normalize="index")
    overall = FRAME[column].value_counts(normalize=True)[table.columns]
    return float((table - overall).abs().sum(axis=1).mean() / 2)


@pytest.mark.parametrize("scheme", ["iid", "class", "group", "class-group", "quantity"])
def test_every_client_has_rows_and_the_seed_decides(scheme):
    owner = deal(scheme)
    sizes = np.bincount(owner, minlength=8)
    assert len(owner) == 3000
    assert sizes.min() >= 10
    assert sizes.sum() == 3000
    assert np.array_equal(owner, deal(scheme))
    assert not np.array_equal(owner, deal(scheme, seed=2))


def test_each_scheme_skews_what_it_names():
    skew = {s: (unlikeness(deal(s), "y"), unlikeness(deal(s), "g")) for s in ("iid", "class", "group")}
    assert max(skew["iid"]) < 0.06
    assert skew["class"][0] > 0.2 > skew["class"][1]
    assert skew["group"][1] > 0.2 > skew["group"][0]
    sizes = np.bincount(deal("quantity"))
    assert sizes.max() > 5 * np.median(sizes) or sizes.max() > 1000
    assert max(unlikeness(deal("quantity", concentration=5.0), c) for c in "yg") < 0.12


def test_a_large_concentration_is_nearly_iid():
    assert unlikeness(deal("class-group", concentration=1000.0), "y") < 0.05
    assert unlikeness(deal("class-group", concentration=0.1), "y") > 0.25


def test_the_tables_own_clients():
    owner = deal("column")
    assert np.array_equal(owner == 1, (FRAME["client"] == "south").to_numpy())
    with pytest.raises(InputError, match="needs a column named 'client'"):
        split_clients(FRAME.drop(columns="client"), clients=2, scheme="column", label="y", groups=["g"])


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="cannot give 400 clients 10 rows each"):
        deal("iid", clients=400)


def test_opposed_halves_learn_opposite_correlations():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.choice(["n", "y"], 4000), "g": rng.choice(["a", "b"], 4000)})
    owner = split_clients(frame, clients=5, scheme="opposed", label="y", groups=["g"], seed=1)
    sizes = np.bincount(owner, minlength=5)
    assert sizes.min() > 500
    alike = (frame["y"] == "y") == (frame["g"] == "b")
    assert alike[owner < 3].mean() == pytest.approx(0.9, abs=0.02)
    assert alike[owner >= 3].mean() == pytest.approx(0.1, abs=0.02)
