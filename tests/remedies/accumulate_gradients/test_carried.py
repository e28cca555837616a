"""What a turn hands on to the next one: parts of a batch would move it on more often, with what each of them holds."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask
from tests.remedies.accumulate_gradients.test_turns import DATA, HEAD, INLINE, MEAN, STEP, answer, declined, inline
from tests.remedies.smaller_batch.test_remedy import ask as ask_smaller
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Proposal

MOVED = [
    (
        "cut",
        "cut = 0.5\n",
        "tf.reduce_mean(tf.nn.relu(tf.abs(b - model(a)) - cut))",
        "cut = 0.9 * cut + 0.1 * float(loss)",
    ),
    (
        "centre",
        "centre = np.zeros(1)\n",
        "tf.reduce_mean((model(a) - centre) ** 2)",
        "centre += 0.1 * (np.mean(b, 0) - centre)",
    ),
    (
        "queue",
        "queue = tf.zeros((256, 1))\n",
        "tf.reduce_mean((model(a) - queue[0]) ** 2)",
        "queue = tf.concat([queue[1:], tf.reduce_mean(b, 0)[None]], 0)",
    ),
    ("last", "last = 0.0\n", f"tf.reduce_mean({MEAN} + 0.0 * last)", "last = b"),
    (
        "seen['b']",
        "seen = {'b': 0.0}\n",
        "tf.reduce_mean((b - model(a) - seen['b']) ** 2)",
        "seen['b'] = tf.reduce_mean(b)",
    ),
    (
        "held.mean",
        "held = Held()\n",
        "tf.reduce_mean((b - model(a) - held.mean) ** 2)",
        "held.mean = 0.9 * held.mean + np.mean(b)",
    ),
    ("bank", "bank = []\n", "tf.reduce_mean((model(a) - tf.stack(bank)) ** 2)", "bank.append(tf.reduce_mean(b, 0))"),
    ("p", "p = 1.0\n", "tf.reduce_mean(p * (b - model(a)) ** 2)", "p *= share(b)"),
]
STAYS = [
    ("cut = 0.5\n", "tf.reduce_mean(tf.nn.relu(tf.abs(b - model(a)) - cut))", "shown = 0.9 * cut"),
    ("bank = []\n", MEAN, "bank.append(float(loss))"),
    ("at = 0\n", "tf.reduce_mean((b - model(a)) ** 2 * weights[at])", "at = next_place(at)"),
    ("total = 0.0\n", MEAN, "total = total + float(loss)"),
]


@pytest.mark.parametrize(("name", "before", "loss", "turn"), MOVED)
def test_what_each_batch_moves_on_would_be_moved_by_parts(name, before, loss, turn):
    reason = f"the loss reads `{name}`, which changes from turn to turn"
    declined(inline(before, f"    {turn}\n", loss), reason)
    loop = f"{before}for a, b in {DATA}:\n    loss = step(a, b)\n    {turn}\n"
    declined(answer(loop, loss), reason)


def test_what_the_step_itself_moves_on_is_moved_too():
    held = "    global last\n    with tf"
    for turn in ("last = b", "last = 0.5 * last + tf.reduce_mean(b)"):
        step = STEP.format(loss=f"tf.reduce_mean({MEAN} + 0.0 * last)", between=turn, more="").replace(
            "    with tf", held
        )
        source = f"{HEAD}last = 0.0\n{step}for a, b in {DATA}:\n    step(a, b)\n"
        found = ask(source, line=source.count("\n", 0, source.rindex(" step(a")) + 1)
        declined(found, "the loss reads `last`, which changes from turn to turn")


@pytest.mark.parametrize(("before", "loss", "turn"), STAYS)
def test_what_the_loss_does_not_read_hinders_nothing(before, loss, turn):
    found = inline(before, f"    {turn}\n", loss)
    assert isinstance(found, Proposal), found.reason


@pytest.mark.parametrize("turn", ["    weight = share(b)\n", "    weight = 1.0\n    weight *= share(b)\n"])
def test_what_a_turn_sets_before_it_reads_it_is_its_own(turn):
    source = f"weight = 1.0\nfor a, b in {DATA}:\n{turn}" + INLINE.format(
        loss=f"tf.reduce_mean({MEAN} * weight)", between="pass"
    )
    found = ask(HEAD + source, line=(HEAD + source).count("\n", 0, (HEAD + source).index("tape.gradient")) + 1)
    assert isinstance(found, Proposal), found.reason


@pytest.mark.parametrize(("name", "before", "loss", "turn"), MOVED)
def test_a_smaller_batch_says_that_it_moves_faster(name, before, loss, turn):
    body = INLINE.format(loss=loss, between="pass")
    source = f"{HEAD}{before}for i, (a, b) in enumerate({DATA}):\n{body}"
    told = f"The loss reads `{name}`, which changes with each step, so it changes faster."
    facts = Facts(models=(ModelFacts("model"),))
    assert told in ask_smaller(f"{source}    {turn}\n", facts).caveats
    assert not any("changes faster" in one for one in ask_smaller(source, facts).caveats)
