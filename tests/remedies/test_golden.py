"""Every answer of the gallery is the golden one; ``python -m tests.golden`` writes it anew and prints the difference."""

from __future__ import annotations

import pytest

from tests.golden.answers import FILES, difference


@pytest.mark.parametrize("part", FILES)
def test_every_answer_is_the_golden_one(part):
    assert difference(part) == ""
