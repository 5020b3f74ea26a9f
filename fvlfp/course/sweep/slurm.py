"""A sweep on a cluster: the text of a Slurm array job whose tasks share one sweep.

Every task runs the same command. The tasks share the cells by locks in the sweep's folder, so another task
takes over the cell of one that was killed. The folder must lie on a file system that all nodes see and that
has locks between machines. What this module does not do: it submits nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path


def array_job(grid: Path, out: Path, *, tasks: int, limit: float | None = None) -> str:
    """The job's text: `tasks` tasks with one cell at a time, each cell stopped after `limit` seconds.

    >>> print(array_job(Path("g.toml"), Path("runs/my sweep"), tasks=4), end="")
    #!/bin/bash
    #SBATCH --job-name=fvlfp-sweep
    #SBATCH --array=1-4
    #SBATCH --cpus-per-task=1
    #SBATCH --output=fvlfp-sweep-%A-%a.log
    # Add what your cluster asks for (partition, time, memory), and activate the environment of fvlfp.
    set -e
    fvlfp sweep g.toml --out 'runs/my sweep' --workers 1
    """
    words = ["fvlfp", "sweep", str(grid), "--out", str(out), "--workers", "1"]
    if limit is not None:
        words += ["--limit", f"{limit:g}"]
    return f"""#!/bin/bash
#SBATCH --job-name=fvlfp-sweep
#SBATCH --array=1-{tasks}
#SBATCH --cpus-per-task=1
#SBATCH --output=fvlfp-sweep-%A-%a.log
# Add what your cluster asks for (partition, time, memory), and activate the environment of fvlfp.
set -e
{shlex.join(words)}
"""
