"""The page of what vision prompts cost says what the JSON says."""

import json
from pathlib import Path

from benchmarks import vision

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_the_page_says_what_was_measured():
    found = json.loads((RESULTS / "vision.json").read_text())
    assert (RESULTS / "vision.md").read_text() == vision.page(found)
