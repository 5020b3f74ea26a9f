"""The machine a number was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fvlfp import __version__


def machine() -> dict[str, str | int]:
    """Processor, cores, system, and the versions that can change a result."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "fvlfp": __version__,  # which may run from its folder, not installed
        **{name: version(name) for name in ("torch", "open_clip_torch", "flwr", "numpy")},
    }


@cache
def code_state() -> str:
    """The commit that the code is at, with "+" behind it where tracked files differ; "" without git.

    What a run writes, `benchmarks/results`, does not count.

    Asked once a process: a run of hours may see the next commit arrive, but it goes on with its own code.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results").strip()
        return git("rev-parse", "--short=10", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def named(where: Mapping[str, Any]) -> str:
    """What `machine()` told, for a page: processor, cores, and the two versions that matter most."""
    return f"{where['cpu']}, {where['cores']} cores, torch {where['torch']}, flwr {where['flwr']}"
