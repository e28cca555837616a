"""What looking at a notebook's names costs, counted in calls: it does not grow with what a run that went well ignores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tf_mem_magic.facts import gather, scalars
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts


def calls(work: Callable[[], Any]) -> int:
    """Count the calls, of Python's functions and of C's, that ``work`` makes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def looked_at(names: Mapping[str, Any], source: str, ended: Any) -> int:
    gather_facts(names, snapshot(names), source, ended=ended)  # what is found only once has been found
    return calls(lambda: gather_facts(names, snapshot(names), source, ended=ended))


def lines(count: int) -> str:
    return "\n".join(f"a{n % 50} = np.dot(b, cfg.width) + table['x'] * {n}" for n in range(count))


def test_the_length_of_a_cell_that_went_well_is_no_matter():
    names = {"b": np.ones(3), "cfg": object(), "table": {"x": 1}}
    assert looked_at(names, lines(10_000), "well") <= looked_at(names, lines(10), "well") + 50


def test_a_cell_that_went_well_is_not_read(monkeypatch):
    for part in ("find_functions", "find_scalars", "used_names", "used_by_others", "mask"):
        monkeypatch.setattr(gather, part, None)
    assert gather_facts({"x": 1}, snapshot({}), "f(x)", ended="well").scalars == ()


@pytest.mark.parametrize(
    "source", [lines, lambda n: "f(" + "x + " * n + "x)", lambda n: "f(x" + ".y" * (n // 10) + ")"]
)
def test_reading_a_cell_that_failed_grows_with_its_length_alone(source):
    names = {"b": 1, "x": 2, "table": {"x": 1}}
    one, two = (calls(lambda n=n: scalars.find_scalars(source(n), names)) for n in (200, 2_000))
    assert two <= 12 * one


def test_functions_in_functions_are_walked_once_for_each_level():
    def nested(depth: int) -> str:
        return "\n".join(" " * n + f"def f{n}(a{n}): " for n in range(depth)) + "\n" + " " * depth + "return BATCH"

    one, two = (calls(lambda n=n: scalars.find_scalars(nested(n), {"BATCH": 1})) for n in (20, 80))
    assert two <= 5 * one


def test_names_cost_a_few_calls_each():
    few, many = ({f"n{i}": np.ones(2) for i in range(count)} for count in (500, 5_000))
    one, two = looked_at(few, "", "well"), looked_at(many, "", "well")
    assert two <= 11 * one
    assert two <= 55 * len(many)


@pytest.mark.parametrize("kind", [dict, list])
def test_long_containers_are_looked_into_within_a_budget(kind):
    def container(length: int) -> Any:
        return dict.fromkeys(range(length), 1.0) if kind is dict else [1.0] * length

    one, two = (looked_at({f"n{i}": container(n) for i in range(300)}, "", "well") for n in (1_000, 10_000))
    assert two <= 1.5 * one


def test_many_containers_are_looked_into_within_a_budget():
    names = {f"n{i}": [object() for _ in range(60)] for i in range(5_000)}
    assert looked_at(names, "", "well") <= 150 * len(names)
    assert len(snapshot(names).names) <= 6 * len(names)


def test_most_of_many_values_are_described_and_the_largest_first():
    facts = gather_facts({f"n{i}": np.ones(i + 1) for i in range(2_000)}, snapshot({}), "", ended="well")
    assert (500, "n1999") == (len(facts.values), facts.values[0].name)
