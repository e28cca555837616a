"""The rows of a Jacobian one after the other: the tape that records is the one that is kept, with the same result."""

from __future__ import annotations

import json

import pytest

from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies.jacobian_row_by_row import propose


def ask(source, *frames):
    """Ask about a cell that ran out in its line with ``jacobian``."""
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "jacobian(" in text)
    diagnosis = Diagnosis("GPU:0", line=line, op="pfor/Tile", situation=Situation("jacobian", ""))
    recorded = {"status": "oom", "errors": (ErrorText("ResourceExhaustedError", "", frames),)}
    (answer,) = propose(example("", source, "", diagnosis=diagnosis, recorded=recorded).context)
    return answer


WITH = "with tf.GradientTape({}) as g:\n    g.watch(x)\n    out = net(x)\njac = g.{}\n"
STYLES = {
    "plain": WITH.format("", "jacobian(out, net.trainable_variables)"),
    "not persistent": WITH.format("persistent=False", "jacobian(out, net.trainable_variables)"),
    "not persistent, by position": WITH.format("False, watch_accessed_variables=True", "jacobian(out, net.weights)"),
    "persistent by a name": "keep = False\n" + WITH.format("persistent=keep", "jacobian(out, x)"),
    "persistent": WITH.format("True", "jacobian(target=out, sources=x)"),
    "unconnected by position": WITH.format("", "jacobian(out, net.weights, tf.UnconnectedGradients.ZERO)"),
    "all by position": WITH.format("", 'jacobian(out, x, "none", None, True)'),
    "for each sample": WITH.format("", "batch_jacobian(out, x, experimental_use_pfor=True)"),
    "a second tape of the same name": (
        "with tf.GradientTape() as g:\n    loss = tf.reduce_sum(net(x))\nslope = g.gradient(loss, net.weights)\n"
        + WITH.format("", "jacobian(out, x)")
    ),
    "a tape of the same name in a function": (
        "def slope(x):\n    with tf.GradientTape() as g:\n        g.watch(x)\n        y = tf.reduce_sum(net(x))\n"
        "    return g.gradient(y, x)\nfirst = slope(x)\n" + WITH.format("", "jacobian(out, x)")
    ),
    "in a function": (
        "def rows(x):\n    with tf.GradientTape() as tape:\n        tape.watch(x)\n        out = net(x)\n"
        "    return tape.jacobian(out, x)\njac = rows(x)\n"
    ),
    "traced": (
        "@tf.function\ndef rows(x):\n    with tf.GradientTape() as tape:\n        tape.watch(x)\n        out = net(x)\n"
        "    return tape.jacobian(out, net.trainable_variables)\njac = rows(x)\n"
    ),
    "a tape with a name first": (
        "tape = tf.GradientTape()\nwith tape:\n    tape.watch(x)\n    out = net(x)\njac = tape.jacobian(out, x)\n"
    ),
    "a Hessian": (
        "with tf.GradientTape() as outer:\n    outer.watch(x)\n    with tf.GradientTape() as inner:\n"
        "        inner.watch(x)\n        y = tf.reduce_sum(net(x) ** 2)\n    slope = inner.gradient(y, x)\n"
        "jac = outer.jacobian(slope, x)\n"
    ),
    "in a loop": (
        "jac = []\nfor part in (x, x + 1.0):\n    with tf.GradientTape() as g:\n        g.watch(part)\n"
        "        out = net(part)\n    jac.append(g.jacobian(out, part))\n"
    ),
}


@pytest.mark.parametrize("source", STYLES.values(), ids=STYLES)
def test_exactly_one_tape_is_kept_and_the_rows_are_told_to_come_one_by_one(source):
    answer = ask(source)
    assert isinstance(answer, Proposal), answer.reason
    call = next(line for line in answer.source.splitlines() if "jacobian(" in line)
    assert "experimental_use_pfor=False" in call or call.endswith("None, False)")
    assert "persistent=False" not in answer.source
    assert answer.source.count("persistent=True") + answer.source.count("Tape(True") == 1
    assert "experimental_use_pfor=True" not in answer.source


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (WITH.format("", "jacobian(*pair)"), "hidden behind stars"),
        (WITH.format("", "jacobian(out, x, **how)"), "hidden behind stars"),
        (WITH.format("**how", "jacobian(out, x)"), "hidden behind stars"),
        (WITH.format("", 'jacobian(out, x, "none", None, False)'), "one after the other already"),
        (WITH.format("", "jacobian(out, x, experimental_use_pfor=False)"), "one after the other already"),
        (WITH.format("", "jacobian(out, x, experimental_use_pfor=fast)"), "is told how to do it"),
        (
            "def open_tape():\n    with tf.GradientTape() as g:\n        pass\n    return g\njac = g.jacobian(y, x)\n",
            "where `g` is opened was not found",
        ),
        (
            "if more:\n    with tf.GradientTape() as g:\n        y = f(x)\njac = g.jacobian(y, x)\n",
            "where `g` is opened was not found",
        ),
        ("with tf.GradientTape() as g:\n    y = f(x)\n    jac = g.jacobian(y, x)\n", "`g` still records"),
        (
            "with tf.GradientTape() as outer:\n    with tf.GradientTape() as g:\n        y = f(x)\n"
            "    jac = g.jacobian(y, x)\nz = outer.gradient(jac, x)\n",
            "another tape records the Jacobian",
        ),
    ],
)
def test_what_is_not_certain_is_declined_with_its_reason(source, reason):
    answer = ask(source)
    assert isinstance(answer, Declined)
    assert reason in answer.reason


def test_a_function_that_is_called_while_another_tape_records_is_recorded_too():
    source = (
        "def rows(x):\n    with tf.GradientTape() as g:\n        g.watch(x)\n        y = net(x)\n"
        "    return g.batch_jacobian(y, x)\n"
        "with tf.GradientTape() as outer:\n    penalty = tf.reduce_sum(rows(x))\nouter.gradient(penalty, x)\n"
    )
    called, inside = Frame("In[5]", 7, "<module>", True, True), Frame("In[5]", 5, "rows", True, True)
    answer = ask(source, called, inside)
    assert isinstance(answer, Declined)
    assert "another tape records the Jacobian" in answer.reason
    alone = source.replace("with tf.GradientTape() as outer:\n    penalty", "if True:\n    penalty")
    assert isinstance(ask(alone, called, inside), Proposal)


RUN = """
import json
import keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(0)
net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
x = tf.random.normal((2, 3))
def result(source):
    space = {"tf": tf, "net": net, "x": x}
    exec(source, space)
    return [np.asarray(one) for one in tf.nest.flatten(space["jac"])]
same = []
for before, after in json.loads(PAIRS):
    old, new = result(before), result(after)
    same.append(len(old) == len(new) and all(np.allclose(a, b, atol=1e-5) for a, b in zip(old, new)))
print("FOUND" + json.dumps(same))
"""


@pytest.mark.tf
def test_the_rows_one_by_one_are_the_same_as_all_at_once_in_every_style():
    pairs = json.dumps([[source, ask(source).source] for source in STYLES.values()])
    assert [True] * len(STYLES) == found_by(RUN.replace("PAIRS", repr(pairs)), None)
