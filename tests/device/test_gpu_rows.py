"""`make gpu-rows`, rehearsed on the pretended device: every part measures, and a fault loses one part."""

import json
import time

from benchmarks import gpu_rows, speed
from tests.device.pretended import DEVICE


def test_every_part_measures(watch, tmp_path, monkeypatch):
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speed, "pick_device", lambda name: DEVICE)
    assert sum(limit for _, limit in gpu_rows.PARTS.values()) <= 460
    slow = {name: (work, 100 * limit) for name, (work, limit) in gpu_rows.PARTS.items()}
    monkeypatch.setattr(gpu_rows, "PARTS", slow)  # the machine may be busy
    found = gpu_rows.measure(gpu_rows.Plan("cuda", small=True), tmp_path, budget=1e5)
    assert {name: found[name] for name in gpu_rows.PARTS if not isinstance(found[name], dict)} == {}
    assert found["bits"] == {"same_seed": True, "resumed": True, "without_graphs": True}
    for name, row in found["methods"].items():
        assert row["predictions_changed"] == 0 and row["largest_difference"] < 1e-3, name
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"]["ToyCLIP-64"]["graphs on"]["2"]
    assert found["text"]["ToyCLIP-64"][2]["share"] > 0
    assert len(found["vision prompts"]) == 3
    assert found["growth"]["clients"]["sequential"][10] > 0
    assert found["loop"]["largest_loss_difference"] < 1e-4
    assert 0 < found["audit"]["share_of_all"] < 1
    assert not (tmp_path / "gpu.md").exists()  # no GPU was there
    page = gpu_rows.page(found | {"machine": found["machine"] | {"gpu": "a pretended one"}})
    assert "| ToyCLIP-64, dtype | float32 |" in page and "a pretended one" in page


def test_a_part_that_fails_or_is_late_loses_no_other(tmp_path, monkeypatch):
    def fails(plan):
        raise ValueError("no such tower")

    parts = {
        "one": (lambda plan: {"a": 1.0}, 9),
        "two": (fails, 9),
        "three": (lambda plan: time.sleep(5), 1),
        "four": (lambda plan: {"b": 2}, 9),
    }
    monkeypatch.setattr(gpu_rows, "PARTS", parts)
    found = gpu_rows.measure(gpu_rows.Plan("cpu", small=True), tmp_path)
    assert [found[name] for name in parts] == [
        {"a": 1.0},
        "ValueError: no such tower",
        "no time was left",
        {"b": 2},
    ]
