"""A machine's own memory and limits, and what they are for."""

import json
from threading import Thread

import pytest
import torch

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs import ledger as ledger_module
from fvlfp.runs.ledger import Ledger, OwnLimits, split_of

CFG = Config.make("smoke", device="cpu")


def test_one_split_is_answered_for_and_repeats_are_free(tmp_path):
    path = tmp_path / "answers.json"
    Ledger(path, OwnLimits()).admit("a")
    Ledger(path, OwnLimits()).admit("a")
    with pytest.raises(InputError, match=r"another split .* .splits=2 in the node config"):
        Ledger(path, OwnLimits()).admit("b")
    Ledger(path, OwnLimits(splits=2)).admit("b")
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{")
    with pytest.raises(InputError, match=r"answers\.json, .* is damaged"):
        Ledger(path, OwnLimits()).admit("a")


def test_two_questions_at_once_are_answered_one_after_the_other(tmp_path, monkeypatch):
    path, write, told = tmp_path / "answers.json", ledger_module.write_atomically, []

    def ask_for_another_split():
        with pytest.raises(InputError, match="another split") as error:
            Ledger(path, OwnLimits()).admit("b")
        told.append(error)

    other = Thread(target=ask_for_another_split)

    def meanwhile(*words):
        other.start()
        other.join(0.5)  # it has come as far as it gets
        write(*words)

    monkeypatch.setattr(ledger_module, "write_atomically", meanwhile)
    Ledger(path, OwnLimits()).admit("a")
    other.join()
    assert told and json.loads(path.read_text()) == {"splits": ["a"]}


def test_new_moments_are_counted(tmp_path):
    ledger = Ledger(tmp_path / "answers.json", OwnLimits(moments=2))
    for answer in (b"1", b"2", b"1"):
        ledger.tell_moments(answer)
    with pytest.raises(InputError, match="moments=3"):
        ledger.tell_moments(b"3")


def test_a_split_changes_with_seed_fraction_and_any_row(tmp_path):
    table = tmp_path / "faces.csv"
    table.write_text("path,smiling\na.png,yes\n")
    first = split_of(table, 0, CFG)
    assert first == split_of(table, 0, CFG.replace(rounds=7, lr=0.1))
    others = [split_of(table, 0, CFG.replace(seed=1)), split_of(table, 0, CFG.replace(val_fraction=0.21))]
    others.append(split_of(table, 1, CFG))
    table.write_text("path,smiling\na.png,yes\nb.png,no\n")
    assert len({first, *others, split_of(table, 0, CFG)}) == 5


def test_two_splits_that_differ_by_one_row_give_that_row(tmp_path):
    """The attack that the memory is for: val_fraction 0.2, then 0.2 + 1/n."""
    from fvlfp import dsop

    z = torch.nn.functional.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    y, soft = torch.arange(60) % 2, torch.full((60, 2), 0.5)
    larger = dsop.moments(z[12:], y[12:], soft[12:], 2, 5)[0].sum((0, 1))
    smaller = dsop.moments(z[13:], y[13:], soft[13:], 2, 5)[0].sum((0, 1))
    assert float(torch.cosine_similarity(larger - smaller, z[12], dim=0)) > 0.999
    table = tmp_path / "faces.csv"
    table.write_text("path,smiling\n" + "a.png,yes\n" * 60)
    ledger = Ledger(tmp_path / "answers.json", OwnLimits())
    ledger.admit(split_of(table, 0, CFG))
    with pytest.raises(InputError):
        ledger.admit(split_of(table, 0, CFG.replace(val_fraction=0.2 + 1 / 60)))


@pytest.mark.parametrize("model", ["hf-hub:somebody/evil", "local-dir:/tmp/evil", "../evil"])
def test_no_model_comes_from_elsewhere_by_a_run_config(model):
    with pytest.raises(InputError, match="fetched from the internet"):
        OwnLimits().permit(CFG.replace(model=model))


def test_limits_have_safe_defaults_and_are_read_or_refused():
    assert OwnLimits.of({"data": "x"}) == OwnLimits(min_cell=5, splits=1, moments=8)
    assert OwnLimits.of({"min-cell": 9, "splits": "3"}) == OwnLimits(min_cell=9, splits=3)
    with pytest.raises(InputError, match="no count under 5"):
        OwnLimits().permit(CFG.replace(min_cell=2))
    for bad in ("few", -1, 2.5):
        with pytest.raises(InputError, match="no whole number"):
            OwnLimits.of({"splits": bad})
