"""A callback that calls the model on all samples at once: the call that ran out, and no other."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies.callback_in_batches.remedy import propose

HEAD = "class Score(keras.callbacks.Callback):\n    def on_epoch_end(self, epoch, logs=None):\n"
CALL = "        out = self.model(x_val, training=False)\n"
FIT = "model.fit(x, y, callbacks=[Score()])\n"


def ask(cell, earlier, line, function="on_epoch_end", shape=(600, 64, 64, 32), requested=300 << 20, at=3):
    """Ask where line ``line`` of an earlier cell ran out (of this cell where ``earlier`` is empty)."""
    frames = (Frame("<cell>", 1, "<module>", True, True), Frame("<old>", at, "on_epoch_end", not earlier, True))
    frames = (frames[0], *([frames[1]] if function != "on_epoch_end" else []))
    frames = (*frames, Frame("<old>", line, function, not earlier, True))
    diagnosis = Diagnosis(
        "GPU:0",
        line=1,
        layer="Conv2D",
        shape=shape,
        requested=requested,
        limit=250 << 20,
        situation=Situation("callback-call", ""),
    )
    asked = example(
        "",
        cell,
        "",
        diagnosis=diagnosis,
        recorded={"status": "oom", "errors": (ErrorText("ResourceExhaustedError", "", frames),)},
        models=(ModelFacts("model", rowwise=True, steps=8, steps_before=0),),
        earlier_cells=earlier,
    )
    (answer,) = propose(asked.context)
    return answer


def reason(*given, **more):
    answer = ask(*given, **more)
    assert isinstance(answer, Declined), answer.source
    return answer.reason


@pytest.mark.parametrize(
    ("call", "changed"),
    [
        ("self.model(x_val)", "apply.in_batches(self.model, x_val, 32)"),
        ("self.model(self.data[0], training=False)", "apply.in_batches(self.model, self.data[0], 32, training=False)"),
        ("np.argmax(self.model(x_val).numpy(), 1)", "np.argmax(apply.in_batches(self.model, x_val, 32).numpy(), 1)"),
        ("self.model([left, right])", "apply.in_batches(self.model, [left, right], 32)"),
        ("model(x_val, training=False)", "apply.in_batches(model, x_val, 32, training=False)"),
    ],
)
def test_the_call_that_ran_out_is_made_for_some_samples_at_a_time(call, changed):
    old = f"{HEAD}        out = {call}\n        print(out)"
    answer = ask(FIT, (old,), 3)
    assert isinstance(answer, Proposal)
    assert f"{HEAD}        out = {changed}\n        print(out)\n" in answer.source
    assert answer.undo == old


@pytest.mark.parametrize(
    "body",
    [
        "        with tf.GradientTape() as tape:\n    {call}",
        "        with tape:\n            with tf.device('GPU:0'):\n        {call}",
        "        with tf.GradientTape(persistent=True) as t, strategy.scope():\n    {call}",
    ],
)
def test_a_call_through_which_a_gradient_is_taken_stays(body):
    old = HEAD + body.format(call=CALL)
    line = next(n for n, text in enumerate(old.splitlines(), 1) if "self.model(" in text)
    assert "a gradient may be taken" in reason(FIT, (old,), line)


@pytest.mark.parametrize(
    "body",
    [
        "        @tf.function\n        def heat(x_val):\n            return self.model(x_val)\n        heat(x_val)\n",
        "        heat = tf.function(lambda x: self.model(x))\n        heat(x_val)\n",
    ],
)
def test_a_call_in_a_function_inside_stays(body):
    old = HEAD + body
    inside = next(n for n, text in enumerate(old.splitlines(), 1) if "self.model(" in text)
    assert isinstance(ask(FIT, (old,), inside, function="heat"), Declined)
    assert "may run as a graph" in reason(FIT, (old,), inside)


def test_the_callback_of_the_line_that_ran_out_is_changed_and_not_another():
    first = f"{HEAD.replace('Score', 'Small')}{CALL.replace('x_val', 'x_val[:8]')}"
    second = f"{HEAD}        self.seen = epoch\n        self.shown = 0\n        self.last = 1\n{CALL}"
    cell = "model.fit(x, y, callbacks=[Small(), Score()])\n"
    answer = ask(cell, (f"{first}\n{second}",), 10)
    assert isinstance(answer, Proposal)
    assert "in `Score`" in answer.title
    assert "class Small" not in answer.source
    answer = ask(cell, (f"{first}\n{second}",), 3)
    assert "in `Small`" in answer.title


def test_where_the_callback_that_ran_out_calls_no_model_another_one_stays_as_it_is():
    other = f"{HEAD.replace('Score', 'Show')}        plt.imshow(tf.image.resize(pictures, (900, 900))[0])\n"
    old = f"{other}\n{HEAD}{CALL}"
    assert "calls no model on data" in reason("model.fit(x, callbacks=[Show(), Score()])", (old,), 3)


def test_a_method_that_the_hook_calls_is_changed():
    old = f"{HEAD}        self.measure()\n    def measure(self):\n{CALL}"
    answer = ask(FIT, (old,), 5, function="measure")
    assert isinstance(answer, Proposal)
    assert "apply.in_batches(self.model, x_val, 32, training=False)" in answer.source


def test_a_model_of_the_users_own_class_ran_out_inside_its_call():
    net = "class Net(keras.Model):\n    def call(self, x):\n        return self.dense(x)\n"
    answer = ask(
        FIT, (net, f"{HEAD}        self.one = 1\n        self.two = 2\n\n\n\n{CALL}"), 3, function="call", at=8
    )
    assert isinstance(answer, Proposal)
    assert "class Score" in answer.source
    assert "class Net" not in answer.source


def test_a_class_whose_cell_ran_twice_is_found():
    old = HEAD + CALL
    assert isinstance(ask(FIT, (old, old), 3), Proposal)
    assert isinstance(ask(FIT, (old, "z = 1", old.replace("x_val", "x_test")), 3), Proposal)
    last = ask(FIT, (old, old.replace("x_val", "x_test")), 3)
    assert "x_test" in last.source


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        ("model.fit(x, callbacks=[cb for cb in found if isinstance(cb, Score)])", ()),
        ("print(Score)\nmodel.fit(x, callbacks=[score])", ()),
        ("Score.every = 2\nmodel.fit(x, callbacks=found)", ()),
        ("def later():\n    return Score()\nmodel.fit(x, callbacks=[score])", ()),
        ("class Best(Score):\n    pass\nmodel.fit(x, callbacks=[Best()])", ()),
        ("model.fit(x, callbacks=made)", ("made = [Score()]",)),
    ],
)
def test_a_callback_that_the_cell_only_names_was_made_before(cell, earlier):
    assert "does not make the `Score` itself" in reason(cell, (HEAD + CALL, *earlier), 3)


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        ("score = Score()\nmodel.fit(x, callbacks=[score])", ()),
        ("cbs = [keras.callbacks.EarlyStopping(), Score()]\nmodel.fit(x, callbacks=cbs)", ()),
        (
            "model.fit(x, callbacks=callbacks_for(3))",
            ("def callbacks_for(n):\n    return [Score() for _ in range(n)]",),
        ),
        ("def go():\n    model.fit(x, callbacks=[Score()])\ngo()", ()),
    ],
)
def test_a_callback_that_the_cell_makes_follows_the_change(cell, earlier):
    assert isinstance(ask(cell, (HEAD + CALL, *earlier), 3), Proposal)


def test_few_samples_are_said_to_be_few():
    assert "on 8 samples" in reason(FIT, (HEAD + CALL,), 3, shape=(8, 2048, 2048, 32), requested=1 << 20)


def test_as_many_samples_are_taken_as_fit():
    answer = ask(FIT, (HEAD + CALL,), 3, shape=(60, 1024, 1024, 3))
    assert "x_val, 6," in answer.source


@pytest.mark.parametrize("decorated", [("@register\n", ""), ("", "    @tf.function\n")])
def test_what_a_decorator_may_change_stays(decorated):
    of_class, of_method = decorated
    old = of_class + HEAD.replace("    def", f"{of_method}    def") + CALL
    assert "a decorator may change" in reason(FIT, (old,), 4)


IN_BATCHES = """
import json
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply

a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
two = keras.Model([a, b], keras.layers.Dense(4)(keras.layers.Concatenate()([a, b])))
left, right = np.random.rand(10, 3).astype("float32"), np.random.rand(10, 2).astype("float32")
whole = two([left, right]).numpy()
same = [np.allclose(whole, apply.in_batches(two, x, 4).numpy()) for x in ([left, right], {"a": left, "b": right})]
try:
    apply.in_batches(two, [left, right[:9]], 4)
    told = ""
except ValueError as error:
    told = str(error)
print("FOUND" + json.dumps([same, told]))
"""


@pytest.mark.tf
def test_several_inputs_are_cut_together():
    from tests.script import found_by

    assert [[True, True], "the inputs have different numbers of samples: 9, 10"] == found_by(IN_BATCHES, None)
