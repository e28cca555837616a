"""Named values: what is told of containers, without TensorFlow."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from tf_mem_magic.facts.values import find_values

NUMBERS = np.ones((50, 4), "float32")
IDS = np.arange(50)
TEXTS = np.array([f"text {n}" for n in range(50)], dtype=object)


@pytest.mark.parametrize(
    ("held", "dtype"),
    [
        ((NUMBERS, IDS), "float32, int64"),
        ([NUMBERS.copy(), NUMBERS[1:].copy()], "float32"),
        ({"age": NUMBERS, "job": TEXTS}, "float32, object"),
        (OrderedDict(job=TEXTS, age=NUMBERS), "object, float32"),
        ({"age": NUMBERS, "job": TEXTS.astype(str)}, "float32, str224"),
        ([NUMBERS, ["a", "b"], 3], "float32, other"),
    ],
)
def test_a_container_names_the_types_of_what_it_holds(held, dtype):
    (value,) = find_values([("held", held)], lambda *_: True)
    assert value.kind.endswith("of numpy.ndarray")
    assert value.dtype == dtype


def test_an_array_names_its_own():
    assert [value.dtype for value in find_values([("x", NUMBERS), ("t", TEXTS)], lambda *_: True)] == [
        "float32",
        "object",
    ]
