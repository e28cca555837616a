"""How many rows fit into a share of the device's memory."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.remedies._engine.rows import rows_that_fit


@pytest.mark.parametrize(
    ("limit", "in_use", "each", "rows"),
    [
        (800, None, 10, 10),
        (800, 400, 10, 10),
        (None, 400, 10, 5),
        (800, None, 1000, 0),
        (None, None, 10, None),
        (800, None, 0, None),
    ],
)
def test_they_take_the_share_of_the_limit_or_of_what_was_in_use(limit, in_use, each, rows):
    assert rows == rows_that_fit(Diagnosis("GPU:0", limit=limit, in_use=in_use), each, 1 / 8)
