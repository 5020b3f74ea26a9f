"""The table of families: every row works or tells why not."""

import pytest

from benchmarks import families

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.mark.parametrize(
    ("text", "kind"),
    [({}, "causal"), ({"no_causal_mask": True, "pool_type": "last", "hf_tokenizer_name": "x"}, "whole")],
)
def test_a_small_family_works(monkeypatch, text, kind):
    config = {**TINY, "text_cfg": TINY["text_cfg"] | text}
    monkeypatch.setattr(families.open_clip, "get_model_config", lambda name: config)
    row = families.try_family("small", "any")
    assert row.audit.startswith("works (image ") and row.training.startswith(f"works ({kind} tower")
    page = families.page([row])
    assert "Of 1 families 1 can be audited and 1 can be trained." in page and "| small | any |" in page


def test_a_difference_is_told():
    assert families._verdict("x", 2e-5) == "DIFFERS (x)" == families._verdict("x", float("nan"))


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_works_or_is_refused(family):
    row = families.try_family(family, families.FAMILIES[family])
    for told in (row.audit, row.training):
        assert told.startswith(("works", "refused"))
