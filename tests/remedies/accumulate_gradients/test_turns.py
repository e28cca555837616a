"""What a turn of a loop does beside its update: it would do it at each smaller batch."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import BUILD, ask
from tf_mem_magic.core.proposals import Declined, Proposal

HEAD = BUILD.format('"adam"') + "optimizer = keras.optimizers.SGD(0.1)\nloss_fn = keras.losses.MeanSquaredError()\n"
STEP = """def step(a, b{more}):
    with tf.GradientTape() as tape:
        loss = {loss}
    grads = tape.gradient(loss, model.trainable_variables)
    {between}
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss

"""
INLINE = """    with tf.GradientTape() as tape:
        loss = {loss}
    grads = tape.gradient(loss, model.trainable_variables)
    {between}
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
MEAN = "loss_fn(b, model(a, training=True))"
DATA = "tf.data.Dataset.from_tensor_slices((x, y)).batch(64)"
LOOP = f"for a, b in {DATA}:\n    step(a, b)\n"


def answer(loop, loss=MEAN, between="pass", more=""):
    source = HEAD + STEP.format(loss=loss, between=between, more=more) + loop
    return ask(source, line=source.count("\n", 0, source.rindex(" step(a")) + 1)


def inline(before="", after="", loss=MEAN, between="pass"):
    body = INLINE.format(loss=loss, between=between)
    source = f"{HEAD}{before}for i, (a, b) in enumerate({DATA}):\n{body}{after}"
    return ask(source, line=source.count("\n", 0, source.index("tape.gradient")) + 1)


def declined(found, reason):
    assert isinstance(found, Declined), found.diff
    assert reason in found.reason


@pytest.mark.parametrize(
    "between",
    [
        "grads[0] = tf.clip_by_value(grads[0], -1, 1)",
        "for i in range(len(grads)): grads[i] = tf.clip_by_norm(grads[i], 1.0)",
        "grads[-1] *= 0.1",
        "grads.reverse()",
    ],
)
def test_gradients_that_are_changed_in_place_are_changed(between):
    declined(answer(LOOP, between=between), "the gradients are changed")
    declined(inline(between=between), "the gradients are changed")


@pytest.mark.parametrize(
    "sets",
    [
        "setattr(optimizer, 'learning_rate', 0.1 / n)",
        "keras.backend.set_value(optimizer.learning_rate, 0.1 / n)",
        "K.set_value(optimizer.lr, 0.1 / n)",
        "optimizer.learning_rate.assign(0.1 / n)",
        "optimizer.lr = 0.1 / n",
    ],
)
def test_a_rate_that_a_turn_sets_would_be_set_more_often(sets):
    declined(answer(f"{LOOP}    {sets}\n"), "sets the learning rate")
    declined(answer(LOOP, between=sets), "sets the learning rate")
    declined(inline(after=f"    {sets}\n"), "sets the learning rate")


def test_a_rate_that_is_set_for_an_epoch_stays():
    inner = LOOP.replace("\n    ", "\n        ")
    found = answer(f"for n in range(2):\n    optimizer.learning_rate = 0.1 / (n + 1)\n    {inner}")
    assert isinstance(found, Proposal), found.reason
    slower = "def slower(n):\n    optimizer.learning_rate = 0.1 / (n + 1)\n"
    found = answer(f"{slower}for n in range(2):\n    slower(n)\n    {inner}")
    assert isinstance(found, Proposal), found.reason
    declined(answer(f"{slower}for n in range(2):\n    {inner}        slower(n)\n"), "sets the learning rate")


@pytest.mark.parametrize(
    "sets",
    [
        "for t, w in zip(target.variables, model.variables): t.assign(0.9 * t + 0.1 * w)",
        "target.set_weights(model.get_weights())",
        "ema.apply(model.trainable_variables)",
        "for v in model.trainable_variables: v.assign_sub(0.01 * v)",
    ],
)
def test_weights_that_a_turn_sets_would_be_set_by_parts(sets):
    declined(answer(f"{LOOP}    {sets}\n"), "each turn calls")
    declined(answer(LOOP, between=sets), "each turn calls")
    declined(inline(after=f"    {sets}\n"), "each turn calls")
    outside = answer(f"for n in range(2):\n    {LOOP.replace(chr(10) + '    ', chr(10) + '        ')}    {sets}\n")
    assert isinstance(outside, Proposal), outside.reason


@pytest.mark.parametrize(
    "loop",
    [
        f"for i, (a, b) in enumerate({DATA}):\n    if i % 2 == 0:\n        step(a, b)\n",
        f"for a, b in {DATA}:\n    if tf.reduce_mean(b) < 0:\n        continue\n    step(a, b)\n",
        f"n = 0\nfor a, b in {DATA}:\n    n += 1\n    if n > 3:\n        step(a, b)\n",
    ],
)
def test_batches_that_make_no_update_would_be_others(loop):
    declined(answer(loop), "not each batch makes an update")


@pytest.mark.parametrize("flag", ["training", "not frozen", "mode == 'train'", "self.training"])
def test_a_flag_that_no_turn_changes_decides_for_all(flag):
    found = answer(f"for a, b in {DATA}:\n    if {flag}:\n        step(a, b)\n")
    assert isinstance(found, Proposal), found.reason


@pytest.mark.parametrize(
    ("loop", "reason"),
    [
        (f"{LOOP}    step(a, b)\n", "which of them make one update is not known"),
        (f"for a, b in {DATA}:\n    for _ in range(3):\n        step(a, b)\n", "more than once by a batch"),
    ],
)
def test_a_batch_that_makes_several_updates_would_mix_them(loop, reason):
    declined(answer(loop), reason)


@pytest.mark.parametrize(
    ("loss", "turn"),
    [
        (f"tf.reduce_mean(beta * {MEAN})", "beta *= 0.9"),
        (f"tf.reduce_mean({MEAN} * beta)", "beta = min(1.0, i / 100)"),
        (f"tf.reduce_mean({MEAN} * i)", "pass"),
    ],
)
def test_a_number_that_each_turn_changes_would_change_more_often(loss, turn):
    declined(inline("beta = 1.0\n", f"    {turn}\n", loss), "changes from turn to turn")
    if "beta" in loss:
        loop = f"beta = 1.0\nfor i, (a, b) in enumerate({DATA}):\n    step(a, b)\n    {turn}\n"
        declined(answer(loop, loss), "changes from turn to turn")
        declined(answer(loop.replace("step(a, b)", "step(a, b, beta)"), loss, more=", beta"), "from turn to turn")


@pytest.mark.parametrize(
    "turn", ["total += loss", "n += 1", "total = total + float(loss)", "print(i, loss)", "seen.assign_add(1)"]
)
def test_what_only_counts_or_tells_hinders_nothing(turn):
    found = inline("total = n = 0\nseen = tf.Variable(0)\n", f"    {turn}\n")
    assert isinstance(found, Proposal), found.reason


OWN = "def own(b, p):\n    {}\n\n"


@pytest.mark.parametrize(
    ("body", "offered"),
    [
        ("return tf.reduce_mean((b - p) ** 2)", True),
        ("loss = tf.reduce_mean(tf.abs(b - p))\n    return loss", True),
        ("return keras.ops.mean(keras.losses.huber(b, p))", True),
        ("return tf.reduce_sum((b - p) ** 2)", False),
        ("return tf.reduce_mean((b - p) ** 2, axis=-1)", False),
        ("return tf.sqrt(tf.reduce_mean((b - p) ** 2))", False),
    ],
)
def test_a_mean_that_a_function_gives_is_one(body, offered):
    source = HEAD + OWN.format(body) + STEP.format(loss="own(b, model(a))", between="pass", more="") + LOOP
    found = ask(source, line=source.count("\n", 0, source.index("    step(a")) + 1)
    assert isinstance(found, Proposal if offered else Declined), found


@pytest.mark.parametrize(
    "losses", ["sum(model.losses)", "tf.add_n(model.losses)", "tf.add_n(model.losses) if model.losses else 0.0"]
)
def test_losses_of_weights_may_be_added_to_a_mean(losses):
    found = inline(loss=f"{MEAN}\n        loss += {losses}")
    assert isinstance(found, Proposal), found.reason
    assert isinstance(inline(loss=f"{MEAN}\n        loss += tf.reduce_sum(b)"), Declined)


PENALTY = """def penalty(a):
    with tf.GradientTape() as inner:
        inner.watch(a)
        out = model(a)
    slopes = {}
    return tf.reduce_mean((tf.norm(slopes, axis=1) - 1.0) ** 2)

"""
OF_INPUTS = ["inner.gradient(out, a)", "inner.gradient(out, [a])[0]", "inner.gradient(target=out, sources=a)"]


@pytest.mark.parametrize("slopes", OF_INPUTS)
def test_a_penalty_on_gradients_is_named_as_what_hinders(slopes):
    step = STEP.format(loss=f"{MEAN} + 10.0 * penalty(a)", between="pass", more="")
    source = HEAD + PENALTY.format(slopes) + step + LOOP
    found = ask(source, line=source.count("\n", 0, source.rindex(" step(a")) + 1)
    declined(found, "the loss is computed of gradients too (in line 9), as a penalty")


@pytest.mark.parametrize(
    "more",
    [
        "optimizer.apply_gradients(zip(grads, model.trainable_variables))",
        "other = tape.gradient(loss, head.trainable_weights)\n    slower.apply_gradients(zip(other, head.trainable_weights))",
        "slower.apply_gradients(zip(tape.gradient(loss, theirs.variables), theirs.variables))",
    ],
)
def test_two_updates_of_a_turn_are_named_as_what_hinders(more):
    declined(answer(LOOP, between=more), "and which of them make one update is not known")
