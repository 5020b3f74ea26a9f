import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def table():
    """600 predictions with a planted TPR gap between round and square, none between tints."""
    rng = np.random.default_rng(11)
    n = 600
    shape = rng.choice(["round", "square"], n)
    label = rng.choice(["no", "yes"], n)
    right = rng.random(n) < np.where((shape == "square") & (label == "yes"), 0.6, 0.9)
    tint = np.empty(n, object)
    order = np.lexsort([rng.random(n), right, label, shape])
    tint[order] = np.resize(["amber", "teal", "violet"], n)  # the same mixture in every cell
    other = np.where(label == "yes", "no", "yes")
    return pd.DataFrame(
        {
            "shape": shape,
            "tint": tint,
            "smiling": label,
            "prediction": np.where(right, label, other),
        }
    )
