"""A few hundred of the calls of ``python -m tests.fuzz.ops``."""

from tests.fuzz.ops import faults
from tests.ops.conftest import compiled_for_cpu


@compiled_for_cpu
def test_calls_are_right_or_name_what_is_wrong():
    assert faults(range(600)) == []
