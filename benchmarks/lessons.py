"""How long each lesson computes, for whoever plans a class.

    python -m benchmarks.lessons [--profiles smoke,lesson]

Writes `benchmarks/results/lessons.json` and `lessons.md`, and the numbers into TEACHING.md. Seconds are
processor seconds of one core (user and system, the kernel's start included), which another job on the machine
changes little; a machine with nothing else to do needs about as long by the clock. Each lesson starts from
nothing: no saved stage, no cached feature. Needs nothing but the package. To measure a lesson anew, take its
entries out of `lessons.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.markdown import table
from fvlfp.course.tour import lessons

RESULTS = Path(__file__).resolve().parent / "results"
TEACHING = RESULTS.parent.parent / "TEACHING.md"
ONE = "from pathlib import Path; from fvlfp.course.tour import run_lesson; import sys; "
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
        *measured_elsewhere(results),
        "",
    ]
    rows = []
    for lesson in results["profiles"][profiles[0]]:
        peak = max(
            results["profiles"][p][lesson]["peak_mib"] for p in profiles if lesson in results["profiles"][p]
        )
        rows.append([lesson, *(seconds(results, p, lesson) for p in profiles), f"{peak:.0f}"])
    heads = ["lesson", *(f"{p}, s" for p in profiles), "peak memory, MiB"]
    sums = (f"{sum(c['cpu_s'] for c in results['profiles'][p].values()) / 60:.1f} ({p})" for p in profiles)
    together = f"All {len(rows)} together, in minutes: {', '.join(sums)}."
    return "\n".join([*lines, *table(heads, rows), "", together, ""])


def measured_elsewhere(results: dict[str, Any]) -> list[str]:
    """A sentence for each other machine that lessons were measured on."""
    found: dict[str, set[str]] = {}
    for cells in results["profiles"].values():
        for lesson, cell in cells.items():
            if "machine" in cell:
                found.setdefault(cell["machine"], set()).add(lesson[:2])
    return [f"Measured later, on {machine}: {', '.join(sorted(some))}." for machine, some in found.items()]


def seconds(results: dict[str, Any], profile: str, lesson: str) -> str:
    """What the tables say about one lesson."""
    found = results["profiles"].get(profile, {}).get(lesson)
    return f"{found['cpu_s']:.0f}" if found else "not measured"


def in_teaching(text: str, results: dict[str, Any]) -> str:
    """TEACHING.md with the measured numbers in its table of lessons."""

    def row(found: re.Match[str]) -> str:
        numbers = " | ".join(seconds(results, profile, found[2]) for profile in ("smoke", "lesson"))
        return f"{found[1]}{numbers} |"

    return re.sub(
        r"^(\| \[\d\d\]\(notebooks/(\w+)\.ipynb\) \| )[^|]+\|[^|]+\|", row, text, flags=re.MULTILINE
    )


def write(results: dict[str, Any]) -> None:
    """The page of results, and the table in TEACHING.md."""
    (RESULTS / "lessons.md").write_text(page(results), encoding="utf-8")
    text = TEACHING.read_text(encoding="utf-8")
    TEACHING.write_text(in_teaching(text, results), encoding="utf-8")


def main() -> None:
    """Measure every lesson that `lessons.json` does not hold yet, and write all pages."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--profiles", default="smoke,lesson")
    file = RESULTS / "lessons.json"
    here: dict[str, Any] = {"machine": machine(), "profiles": {}}
    results = json.loads(file.read_text()) if file.is_file() else here
    done = results["profiles"]
    now = "{cpu}, torch {torch}".format_map(machine())
    elsewhere = {} if results["machine"] == machine() else {"machine": now}
    for profile in options.parse_args().profiles.split(","):
        for lesson in lessons():
            cells = done.setdefault(profile, {})
            if lesson.stem not in cells:
                cells[lesson.stem] = measure(lesson, profile) | elsewhere
                print(profile, lesson.stem, cells[lesson.stem], flush=True)
                file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write(results)


if __name__ == "__main__":
    main()
