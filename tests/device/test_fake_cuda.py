"""PyTorch's own rules of devices, in a process of their own: see `fake_cuda.py`."""

import subprocess
import sys


def test_a_step_of_the_default_method_stays_on_a_fake_gpu():
    command = [sys.executable, "-m", "tests.device.fake_cuda"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
