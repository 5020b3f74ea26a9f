"""The plain loop computes what fvlfp computes; the page of numbers says what the JSON says."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import speed, speed_page

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_the_reference_loop_has_our_losses(encoder, tmp_path):
    found = speed._loop(encoder, speed.jpegs(12, 16, tmp_path), clients=3, each=4)
    assert found["largest_loss_difference"] < 1e-5
    assert found["loss"][0] != pytest.approx(found["loss"][1], abs=1e-4)


def test_the_products_of_the_tower_are_counted():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with speed.Matmuls() as products:
        torch.addmm(torch.ones(7), a, b)
        torch.relu(a) @ b
    assert products.flop == 2 * (2 * 3 * 5 * 7)
    products.again("cpu")()


def test_the_page_says_what_was_measured():
    found = json.loads((RESULTS / "speed.json").read_text())
    assert (RESULTS / "speed.md").read_text() == speed_page.page(found)
