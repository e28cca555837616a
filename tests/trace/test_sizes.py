"""Which of a step's sizes is its batch: a picture, a mask or a table of weights may go along with it."""

import pytest

from tf_mem_magic.trace.sizes import batch_of


@pytest.mark.parametrize(
    ("leading", "led", "batch"),
    [
        ([(64, False), (64, False)], {64: 40}, 64),
        # Two pictures of 96 rows, between which 32 are blended.
        ([(96, False), (96, False), (32, False)], {32: 500, 96: 4, 1: 6}, 32),
        # A mask of 128 x 128 for all of a batch.
        ([(128, False), (16, False)], {16: 80, 128: 3}, 16),
        # A function that is handed its weights.
        ([(8, False), (784, False), (256, False)], {8: 60, 784: 2, 256: 2}, 8),
        # What the step was traced for any number of is the batch, however many there are of another size.
        ([(96, False), (96, False), (32, True)], {96: 4}, 32),
        ([(20, True), (20, True), (10, True)], {}, 20),
        # Nothing is known of the results: what most arguments have.
        ([(16, False), (16, False), (4, False)], {}, 16),
        ([], {7: 3}, None),
    ],
)
def test_the_batch_is_what_the_step_is_computed_of(leading, led, batch):
    assert batch_of(leading, led) == batch
    assert batch_of(leading[::-1], led) == batch
