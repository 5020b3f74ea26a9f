"""What produced every number of this project: scripts, and beside them their results."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
