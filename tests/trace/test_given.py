"""What a model would be given: dtypes of arrays of many kinds, the loss of each output, samples of any size."""

from types import SimpleNamespace

import numpy as np
import pytest

from tf_mem_magic import plan
from tf_mem_magic.trace.given import CannotPlanError, _check_sizes, dtype_name, each_loss


class Tensor:
    """Its dtype prints as PyTorch's do."""

    dtype = type("dtype", (), {"__str__": lambda _: "torch.float32"})()


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.zeros(3, "int8"), "int8"),
        (np.zeros(3), "float64"),
        (Tensor(), "float32"),
        (SimpleNamespace(dtypes=("int64", "int64")), "int64"),
        (SimpleNamespace(dtypes=("int64", "float64")), "float"),
        (SimpleNamespace(dtype="Int64"), "int64"),
    ],
)
def test_arrays_tables_and_tensors_of_others_have_a_dtype(array, name):
    assert dtype_name(array) == name


@pytest.mark.parametrize(
    ("loss", "outputs", "names", "each"),
    [
        ("mse", "out", ["out"], ["mse"]),
        (["mse", "mae"], [1, 2], ["a", "b"], ["mse", "mae"]),
        ({"b": "mae", "a": "mse"}, [1, 2], ["a", "b"], ["mse", "mae"]),
        ({"b": "mae"}, [1, 2], ["a", "b"], [None, "mae"]),
        ({"b": "mae", "a": "mse"}, {"b": 1, "a": 2}, None, ["mse", "mae"]),
        ({"out": "mse"}, "out", ["out"], ["mse"]),
        ({"b": "mae"}, [1, 2], None, ["mae", None]),
    ],
)
def test_each_output_has_its_own_loss_by_place_or_by_name(loss, outputs, names, each):
    assert each_loss(loss, outputs, names, 2 if isinstance(outputs, (list, dict)) else 1) == each


def test_samples_of_any_size_are_refused():
    _check_sizes("ds", [(None, 8, 8, 3), (None,), ()])
    with pytest.raises(CannotPlanError, match=r"`ds` holds samples of any size, \(any, 3\): leave it out"):
        _check_sizes("ds", [(None, 8), (None, None, 3)])
    with pytest.raises(CannotPlanError, match="does not tell the shape"):
        _check_sizes("ds", [SimpleNamespace(rank=None)])


@pytest.mark.parametrize(
    ("given", "words"),
    [((None,), "`model` is a NoneType, no Keras model"), ((None, 1, 2, 3, 4), "at most three: inputs, targets")],
)
def test_what_is_no_model_and_too_many_data_are_one_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        plan(*given)
