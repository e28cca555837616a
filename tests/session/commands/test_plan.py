"""``%tfmem plan``: which model is meant, and what its data are."""

from types import SimpleNamespace

import pytest

from tf_mem_magic.core.options import OptionError, parse_line
from tf_mem_magic.session.commands import plan


class Model:
    def __init__(self, compiled=True):
        self.compiled = compiled


@pytest.fixture(autouse=True)
def stand_in_for_keras(monkeypatch):
    from tf_mem_magic.facts import models

    monkeypatch.setattr(models, "_MODELS", (((__name__, "Model"), "model"),))


def test_the_only_compiled_model_is_meant_without_a_name():
    model = Model()
    assert plan.find_model({"base": Model(False), "x": 3, "model": model}, ()) == ("model", model)


def test_a_compiled_model_of_keras_2_is_no_model_that_is_not_compiled():
    """It says so as ``_is_compiled``, and the reason why it is not planned is another."""
    old = Model(False)
    old._is_compiled = True
    assert plan.find_model({"old": old}, ()) == ("old", old)


@pytest.mark.parametrize(
    ("namespace", "names", "words"),
    [
        ({"a": Model(), "b": Model()}, (), "which model? Compiled are a, b"),
        ({"a": Model(False)}, (), "no model is compiled yet; models are a"),
        ({"x": 1}, (), "no name holds a Keras model yet"),
        ({"model": Model()}, ("modle",), "did you mean model?"),
        ({"model": Model(), "x": 1}, ("x",), "`x` is an int, no Keras model; models are model"),
        ({"x": 1}, ("model",), "there is no `model`; no name holds a Keras model"),
    ],
)
def test_what_is_not_clear_is_said_with_the_names_that_there_are(namespace, names, words):
    with pytest.raises(ValueError, match="model") as told:
        plan.find_model(namespace, names)
    assert words in str(told.value)


def test_a_model_inside_a_container_or_an_object_has_its_own_name():
    model = Model()
    holder = SimpleNamespace()
    assert plan.find_model({"models": {"a": model}, "h": holder}, ("models['a']",)) == ("models['a']", model)


def test_data_are_found_by_name():
    assert plan.find_data({"x": 1, "y": 2}, ("x", "y")) == (("x", 1), ("y", 2))
    with pytest.raises(ValueError, match="did you mean x_train"):
        plan.find_data({"x_train": 1}, ("x_trian",))
    with pytest.raises(ValueError, match="at most three"):
        plan.find_data(dict.fromkeys("abcd", 1), tuple("abcd"))


def test_the_line_is_read():
    command = parse_line("plan model x y --batch 256 --shape 32,32,3")
    assert (command.names, command.batch, command.shape) == (("model", "x", "y"), 256, (32, 32, 3))
    assert (parse_line("plan").names, parse_line("plan m --shape 64").shape) == ((), (64,))


@pytest.mark.parametrize("bad", ["--batch 0", "--batch many", "--shape a,b", "--shape 3,0", "--shape -1,3"])
def test_a_size_that_is_none_is_refused(bad):
    with pytest.raises(OptionError):
        parse_line(f"plan model {bad}")
