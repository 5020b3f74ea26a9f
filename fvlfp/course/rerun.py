"""`fvlfp grade --rerun`: a submitted notebook, run again on a fresh kernel, within a time limit.

This executes students' code with the rights of whoever grades. What this module does not do: it shuts no
code in. Run it where nothing can be lost: in a container, or under an account that owns nothing.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import nbformat

from fvlfp.kernel import OUTPUTS, START, on_a_kernel

#: Said before anything runs.
WARNING = (
    "--rerun executes the students' code with your rights: do it in a container, or as a user "
    "who owns nothing"
)


def read_quietly(path: Path) -> nbformat.NotebookNode:
    """A submitted notebook, without warnings about an older format or missing ids."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nbformat.read(path, as_version=4)


def rerun(path: Path, copy: Path, *, limit: float) -> Path:
    """Run a notebook from its first cell to its last, past errors; returns `copy`, with the new outputs.

    The saved outputs are thrown away first. Files that the notebook writes go to a temporary folder.

    Args:
        limit: seconds for all cells together; those that come later stay without an output.
    """
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = read_quietly(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    cells_began: list[float] = []

    def left(cell: Any) -> int:
        cells_began.append(time.monotonic())
        return max(1, round(limit - (cells_began[-1] - cells_began[0])))

    def run(kernel: str) -> None:
        runner = ExecutePreprocessor(
            timeout_func=left,
            startup_timeout=START,
            iopub_timeout=OUTPUTS,
            raise_on_iopub_timeout=True,  # a tick that is lost would count as an exercise that was not run
            allow_errors=True,
            kernel_name=kernel,
            extra_arguments=["--log-level=50"],  # the kernel's own chatter
        )
        runner.preprocess(notebook, {"metadata": {"path": str(work)}})

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "notebooks")  # lessons write into ../runs
        work.mkdir()
        try:
            on_a_kernel(run)
        except Exception as error:  # out of time, or the kernel died: what ran until then counts
            notebook.metadata["stopped"] = f"{type(error).__name__}: {error}".splitlines()[0]
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)
    return copy
