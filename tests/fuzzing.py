"""What the tests with random inputs share: the same cases in every run, and messages that say something."""

from hypothesis import HealthCheck
from hypothesis import strategies as st

from fvlfp.errors import InputError

FIXED = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}


def often(common, rare):
    """One of the common values in two cases of three."""
    return st.sampled_from([*list(common) * max(1, 2 * len(rare) // len(common)), *rare])


def told(error: InputError) -> None:
    """A refusal says something to a person."""
    said = str(error)
    assert len(said) > 10 and "Traceback" not in said and "object at 0x" not in said
