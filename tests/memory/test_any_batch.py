"""The peak at any batch size, from a walk at two."""

import pytest

from tests.memory.steps import dense_stack
from tf_mem_magic.memory.any_batch import Line, _outermost, any_batch
from tf_mem_magic.memory.forecast import peak_of


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 16, 31, 64, 500, 4096])
@pytest.mark.parametrize("layers", [1, 3, 7])
def test_it_is_what_a_walk_at_that_batch_gives(batch, layers):
    both = dense_stack(layers, 8), dense_stack(layers, 16)
    told, walked = any_batch(both, 8, 16).peak(batch), peak_of(dense_stack(layers, batch))
    assert told.low == walked.low
    assert abs(told.high - walked.high) <= 1 + walked.high / 1000


def test_steps_of_different_operations_are_refused():
    with pytest.raises(ValueError, match="other operations"):
        any_batch((dense_stack(2, 8), dense_stack(3, 16)), 8, 16)


def test_only_lines_that_are_the_highest_somewhere_are_kept():
    below, flat, steep = Line(90, 1.0), Line(100, 0.5), Line(80, 9.0)
    assert _outermost([below, flat, steep, flat], 4) == (flat, steep)
