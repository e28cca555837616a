"""A step as a value: sizes, and its short form for a file."""

import pytest

from tests.memory.steps import dense_stack
from tests.memory.test_walk import loop_step
from tf_mem_magic.core.step import StepFacts, Tensor, pack, unpack


@pytest.mark.parametrize(
    ("tensor", "size"),
    [
        (Tensor((2, 3), "float32"), 24),
        (Tensor((2, 3), "float16"), 12),
        (Tensor((), "int64"), 8),
        (Tensor((), "resource"), 0),
        (Tensor(None, "float32"), None),
    ],
)
def test_a_tensors_bytes_follow_from_shape_and_type(tensor, size):
    assert tensor.bytes == size


def test_a_step_comes_back_from_its_short_form():
    steps = (dense_stack(3), loop_step(7))
    assert unpack(pack(steps)) == steps


def test_a_damaged_short_form_is_a_clear_error_and_gives_no_step():
    text = pack([dense_stack(2)])[:-20]
    with pytest.raises(ValueError, match="damaged"):
        unpack(text)
    assert StepFacts(packed=text).steps == ()
