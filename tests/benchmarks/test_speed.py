"""The plain loop computes what fvlfp computes; the page of numbers says what the JSON says."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import speed, speed_page

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_the_reference_loop_has_our_losses(encoder, tmp_path):
    found = speed.round_of(encoder, speed.jpegs(12, 16, tmp_path), clients=3, each=4)
    assert found["largest_loss_difference"] < 1e-5
    assert found["loss"][0] != pytest.approx(found["loss"][1], abs=1e-4)


def test_operations_are_counted_by_kind():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with speed.Operations() as operations:
        torch.addmm(torch.ones(7), a, b)
        torch.nn.functional.gelu(a) @ b.clone()
    assert operations.flop == 2 * (2 * 3 * 5 * 7)
    assert {kind: len(seen) for kind, seen in operations.seen.items()} == {
        "matrix products": 2,
        "attention": 0,
        "layer norm": 0,
        "GELU": 1,
        "copies and sums": 2,
    }
    for kind in operations.seen:
        operations.again(kind)


def test_the_page_says_what_was_measured():
    found = json.loads((RESULTS / "speed.json").read_text())
    assert (RESULTS / "speed.md").read_text() == speed_page.page(found)


def test_the_page_of_a_gpu():
    found = json.loads((RESULTS / "speed.json").read_text())
    there = {part: where | {"gpu": "a GPU"} for part, where in found["machines"].items()}
    page = speed_page.page(found | {"machine": there["text"], "machines": there})
    assert "No GPU was at hand" not in page and "[vision.md](vision.md)" in page
    assert "Measured on\na GPU, torch " in page
    assert "loss curves within 1e-3" in page and "loss curves within 1e-4" not in page
