"""What grew while a cell ran: containers of arrays by name, and functions that were traced again."""

from __future__ import annotations

import sys
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from tests.script import found_by
from tf_mem_magic.core.facts import GrownFacts
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts


def grown(names, change, ended="well"):
    before = snapshot(names)
    change(names)
    return gather_facts(names, before, "", ended=ended).grown


def test_a_list_of_arrays_that_grew_is_named_with_its_counts_and_the_bytes_that_came():
    names = {"kept": [np.zeros(10)], "same": [np.zeros(10)] * 3, "numbers": [1.0]}

    def change(names):
        names["kept"] += [np.zeros(100), np.zeros(50, "float32")]
        names["numbers"] += [2.0] * 100

    assert (GrownFacts("kept", 1, 3, 1000, "numpy.ndarray"),) == grown(names, change)


@pytest.mark.parametrize(
    ("kind", "add"),
    [
        (dict, lambda d, n: d.__setitem__(n, np.zeros(8))),
        (deque, lambda d, n: d.append(np.zeros(8))),
        (list, lambda d, n: d.append(np.zeros(8))),
    ],
)
def test_dicts_and_deques_grow_too_also_inside_an_object(kind, add):
    holder = SimpleNamespace(log=kind())
    (one,) = grown({"holder": holder}, lambda _: [add(holder.log, n) for n in range(5)])
    assert ("holder.log", 0, 5, 320) == (one.name, one.before, one.after, one.bytes)


def test_a_container_that_the_cell_made_had_nothing_before():
    (one,) = grown({}, lambda names: names.update(grads=[np.zeros(4) for _ in range(6)]))
    assert ("grads", 0, 6, 192) == (one.name, one.before, one.after, one.bytes)


@pytest.mark.parametrize("entry", [list, tuple, lambda arrays: dict(enumerate(arrays))])
def test_what_each_entry_holds_counts_and_is_told_once(entry):
    names = {"grads": []}

    def change(names):
        names["grads"] += [entry([np.zeros(10), np.zeros(20)]) for _ in range(7)]

    (one,) = grown(names, change)
    assert ("grads", 0, 7, 7 * 240) == (one.name, one.before, one.after, one.bytes)


def test_one_more_entry_a_shared_array_and_a_second_name_are_not_counted_again():
    array = np.zeros(10)

    def change(names):
        names["one"].append(np.zeros(10))
        names["shared"] += [array] * 5
        names["alias"] = names["shared"]

    (one,) = grown({"one": [], "shared": []}, change)
    assert ("shared", 5, 80) == (one.name, one.after, one.bytes)


def test_a_list_in_a_function_that_led_to_the_error_is_named_as_there():
    def train():
        grads = []
        for _ in range(4):
            grads.append(np.zeros(10))  # noqa: PERF401 - as people write it
        raise ValueError(len(grads))

    try:
        train()
    except ValueError as error:
        facts = gather_facts({}, snapshot({}), "train()", error)
    assert ("grads", 0, 4, 320) == next((g.name, g.before, g.after, g.bytes) for g in facts.grown if g.name == "grads")


def test_what_the_failing_lines_read_is_described():
    def inner(table, parts):
        return table @ parts["right"] + parts["n"]

    left, size = np.zeros((3, 4), "float32"), SimpleNamespace(right=np.zeros((5, 2)))
    try:
        inner(left, {"right": size.right, "n": 3})
    except ValueError as error:
        inputs = gather_facts({}, snapshot({}), "", error).inputs
    assert [("table", (3, 4), "float32", 48), ("parts['right']", (5, 2), "float64", 80)] == [
        (v.name, v.shape, v.dtype, v.bytes) for v in inputs[:2]
    ]


def test_of_a_compound_statement_only_its_own_line_is_read():
    rows, other = np.zeros((2, 3)), np.zeros(7)

    def walk():
        for row in iter_badly(rows):
            row + other

    def iter_badly(rows):
        raise ValueError

    try:
        walk()
    except ValueError as error:
        inputs = gather_facts({}, snapshot({}), "", error).inputs
    assert ["rows"] == [value.name for value in inputs]


SCRIPT = """
import json
import tensorflow as tf
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts

@tf.function
def step(x, n):
    return x * n

@tf.function
def steady(x):
    return x + 1

class Trainer:
    @tf.function
    def train(self, n):
        return tf.constant(1.0) * n

trainer, grads = Trainer(), [tf.zeros((4,))]
x = tf.constant(2.0)
step(x, 1); steady(x)
names = dict(step=step, steady=steady, trainer=trainer, grads=grads, x=x)
before = snapshot(names)
for n in range(5):
    step(x, n)
    steady(x)
    trainer.train(n)
    grads.append(tf.zeros((100,)))
facts = gather_facts(names, before, "", ended="well")
grown = [[g.name, g.before, g.after, g.bytes, g.kind, g.device] for g in facts.grown]
print("FOUND" + json.dumps([[[t.name, t.before, t.after] for t in facts.traced], grown]))
"""


@pytest.mark.tf
def test_traces_and_tensors_that_came_in_the_cell_are_counted():
    traced, grown = found_by(SCRIPT, None)
    assert [["trainer.train", 0, 5], ["step", 1, 5]] == traced
    assert [["grads", 1, 6, 2000, "tf.Tensor", "CPU:0"]] == grown


def test_without_tensorflow_nothing_is_traced():
    assert "tensorflow" not in sys.modules
    assert () == gather_facts({"f": test_without_tensorflow_nothing_is_traced}, snapshot({}), "").traced
