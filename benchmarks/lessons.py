"""How long each lesson computes, for whoever plans a class.

    python -m benchmarks.lessons [--profiles smoke,lesson]

Writes `benchmarks/results/lessons.json` and `lessons.md`. Seconds are processor seconds of one core (user and
system, the kernel's start included), which another job on the machine changes little; a machine with nothing
else to do needs about as long by the clock. Each lesson starts from nothing: no saved stage, no cached
feature. Needs nothing but the package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from fvlfp.tour import lessons

RESULTS = Path(__file__).resolve().parent / "results"
ONE = "from pathlib import Path; from fvlfp.tour import run_lesson; import sys; "
ONE += "run_lesson(Path(sys.argv[1]), Path(sys.argv[2]), profile=sys.argv[3], seed=0, device='cpu')"


def measure(lesson: Path, profile: str) -> dict[str, float]:
    """Processor seconds and peak memory (MiB, of the largest process) of one lesson."""
    with tempfile.TemporaryDirectory() as empty:
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "FVLFP_CACHE": f"{empty}/cache"}
        words = [sys.executable, "-c", ONE, str(lesson), f"{empty}/out", profile]
        child = subprocess.Popen(words, env=environ)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{lesson.stem} failed at the {profile} profile")
    return {"cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mib": round(used.ru_maxrss / 1024)}


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where, profiles = results["machine"], list(results["profiles"])
    lines = [
        "# How long the lessons compute",
        "",
        f"Made by `python -m benchmarks.lessons` on {where['cpu']} ({where['cores']} cores, one used), no "
        f"accelerator, Python {where['python']}, torch {where['torch']}. Seconds are processor seconds from "
        "nothing: no saved stage, no cached feature, the kernel's start included. A second run is shorter.",
        "",
        f"| lesson | {' | '.join(f'{p}, s' for p in profiles)} | peak memory, MiB |",
        f"|---|{'---|' * (len(profiles) + 1)}",
    ]
    for lesson in results["profiles"][profiles[0]]:
        cells = [results["profiles"][p][lesson] for p in profiles]
        peak = max(cell["peak_mib"] for cell in cells)
        lines.append(f"| {lesson} | {' | '.join(format(c['cpu_s'], '.0f') for c in cells)} | {peak:.0f} |")
    total = [sum(c["cpu_s"] for c in results["profiles"][p].values()) for p in profiles]
    lines += [f"| all | {' | '.join(f'{t:.0f}' for t in total)} | |", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure every lesson; what is already measured in `lessons.json` is kept."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--profiles", default="smoke,lesson")
    file = RESULTS / "lessons.json"
    done = json.loads(file.read_text())["profiles"] if file.is_file() else {}
    results: dict[str, Any] = {"machine": machine(), "profiles": done}
    for profile in options.parse_args().profiles.split(","):
        for lesson in lessons():
            cells = done.setdefault(profile, {})
            if lesson.stem not in cells:
                cells[lesson.stem] = measure(lesson, profile)
                print(profile, lesson.stem, cells[lesson.stem], flush=True)
                file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "lessons.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
