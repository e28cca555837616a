"""What ``plan`` is given, where no model has to be traced to know it for wrong."""

import pytest

import tf_mem_magic


@pytest.mark.parametrize(
    ("given", "words"),
    [((None,), "`model` is a NoneType, no Keras model"), ((None, 1, 2, 3, 4), "at most three: inputs, targets")],
)
def test_what_cannot_be_planned_is_one_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        tf_mem_magic.plan(*given)
