"""Objects that raise or never return when they are asked are skipped one by one; everything else is still found."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.facts.zoo import Nasty, zoo
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.jsonio import decode, encode
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts
from tf_mem_magic.release.release import forget_results

CELL = "\n".join(f"f({name}, {name}.shape, {name}['a'], {name}[0])" for name in zoo()) + "\nf(good, BATCH)"


@pytest.fixture(autouse=True)
def nothing_asked():
    Nasty.asked.clear()
    yield
    Nasty.asked.clear()


def names_around(animals):
    """The animals between two good values, also inside containers, objects and IPython's own history."""
    holder = SimpleNamespace(**animals)
    return {
        "BATCH": 32, **animals, "holder": holder, "listed": [*animals.values(), np.ones(7)], "keyed": dict(animals),
        "Out": dict(enumerate(animals.values())), "_": animals["nasty"], "good": np.zeros(100),
    }  # fmt: skip


@pytest.mark.parametrize("ended", ["failed", "well"])
def test_no_animal_is_asked_and_what_stands_beside_them_is_found(ended):
    names = names_around(zoo())
    before = snapshot(names)
    facts = gather_facts(names, before, CELL, ended=ended)
    found = {value.name: value for value in facts.values}
    assert [] == Nasty.asked
    assert (800, "earlier") == (found["good"].bytes, found["good"].origin)
    assert ((10, 2), 80) == (found["array"].shape, found["array"].bytes)
    assert 56 == found["listed"].bytes
    assert ended == "well" or facts.scalar("BATCH") == 32


@pytest.mark.parametrize("name", zoo())
def test_each_animal_alone_hides_nothing(name):
    names = {"BATCH": 32, name: zoo()[name], "good": np.zeros(100)}
    facts = gather_facts(names, snapshot(names), CELL)
    assert (32, 800) == (facts.scalar("BATCH"), next(v.bytes for v in facts.values if v.name == "good"))
    assert "good" in facts.repeatable
    assert [] == Nasty.asked


def test_what_was_found_among_them_can_be_written_and_read_back():
    names = names_around(zoo())
    facts = gather_facts(names, snapshot(names), CELL)
    back = decode(encode(facts), Facts)
    assert ("?", None, 32) == tuple(map(back.scalar, ("surrogate", "nan", "BATCH")))
    assert (facts.values, facts.repeatable) == (back.values, back.repeatable)


def test_results_that_cannot_be_asked_are_let_go_of_like_any_other():
    animals = {name: one for name, one in zoo().items() if not name.startswith(("huge", "surrogate", "nan"))}
    space = {"Out": dict(enumerate(animals.values())), "_3": animals["nasty"], "x": animals["nasty"]}
    shell = SimpleNamespace(user_ns=space, user_ns_hidden={}, displayhook=SimpleNamespace())
    forget_results(shell, list(animals.values()))
    assert {"Out", "x"} == set(space)
    assert 1 >= len(space["Out"])
    assert [] == Nasty.asked
