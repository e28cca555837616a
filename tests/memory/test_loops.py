"""What a loop's results are."""

import pytest

from tests.kernel import bfc
from tests.memory.pools.test_pooled import MIB, PATCHES, convolution
from tests.memory.steps import KIB, Maker
from tests.script import found_by
from tf_mem_magic.core.step import Processor, Tensor
from tf_mem_magic.memory.forecast import made_ahead, own_of
from tf_mem_magic.memory.loops import follow, pushes_the_same
from tf_mem_magic.memory.pools.pooled import trained_in_pool
from tf_mem_magic.memory.sizes import in_half
from tf_mem_magic.memory.walk import Walk

ROUNDS = 5
LIST = Tensor((KIB,), "float32", ROUNDS)


def loop(pushed, setter="TensorListPushBack"):
    """A loop that is given a number, a list, a weight and a state, and adds to the list what ``pushed`` says."""
    inner = Maker()
    count, weight, state = inner.argument("count", 0), inner.argument("weight", 4), inner.argument("state", 4)
    held = inner.op("Placeholder", "list", outputs=(LIST,))
    inner.given.append(held[0])
    after = inner.op("MatMul", "cell/MatMul", state, weight, kib=4)
    item = {
        "what it is given": weight,
        "that through an identity": inner.op("Identity", "cell/Identity", weight, kib=4),
        "an element of what it is given": inner.op("TensorListGetItem", "cell/GetItem", weight, count, kib=4),
        "a weight it reads": inner.op("ReadVariableOp", "cell/Read", weight, kib=4),
        "what it makes": after,
        "what it carries on": state,
    }[pushed]
    inputs = (held, item) if setter == "TensorListPushBack" else (held, count, item)
    grown = inner.op(setter, "push", *inputs, outputs=(LIST,))
    body = inner.step(count, weight, after, grown)
    made = Maker()
    given = [
        made.op("Const", "zero", shape=(), dtype="int32"),
        made.op("MatMul", "w", kib=4),
        made.op("MatMul", "s", kib=4),
    ]
    given.append(made.op("EmptyTensorList", "empty", outputs=(LIST,)))
    outputs = (Tensor((), "int32"), Tensor((KIB,), "float32"), Tensor((KIB,), "float32"), LIST)
    made.op("While", "m_1/rnn/while", *given, outputs=outputs, shares=(-1,) * 4, body=0, trips=ROUNDS)
    return made.step((4, 3), (4, 2), bodies=(body,))


@pytest.mark.parametrize("setter", ["TensorListPushBack", "TensorListSetItem"])
@pytest.mark.parametrize(
    ("pushed", "same"),
    [
        ("what it is given", True),
        ("that through an identity", True),
        ("a weight it reads", True),
        ("what it makes", False),
        ("what it carries on", False),
    ],
)
def test_a_list_of_one_and_the_same_tensor_takes_no_memory_of_its_own(pushed, same, setter):
    step = loop(pushed, setter)
    assert follow(step.bodies[0], step.bodies[0].results[3]) == (3, True)
    assert pushes_the_same(step.bodies[0], 3) == same
    walk = Walk(step)
    for _ in walk.run():
        pass
    pieces = [buffer for buffer in walk.alive.values() if buffer.count > 1]
    assert [(one.count, one.size) for one in pieces] == ([] if same else [(ROUNDS, 4 * KIB)])


@pytest.mark.parametrize("setter", ["TensorListPushBack", "TensorListSetItem"])
@pytest.mark.parametrize(
    ("pushed", "holds"),
    [
        ("what it is given", True),
        ("that through an identity", True),
        ("an element of what it is given", True),
        ("a weight it reads", False),
        ("what it makes", False),
    ],
)
def test_what_a_loop_is_given_lives_as_long_as_the_list_that_it_was_put_into(pushed, holds, setter):
    walk = Walk(loop(pushed, setter))
    for _ in walk.run():
        pass
    assert ("w" in {walk.step.nodes[buffer.node].name for buffer in walk.alive.values()}) == holds


def test_a_list_of_a_tensors_rows_is_a_copy_of_each():
    made = Maker()
    x = made.op("MatMul", "x", shape=(4, KIB))
    rows = made.op("TensorListFromTensor", "rows", x, outputs=(LIST,))
    step = made.step(made.op("TensorListStack", "stack", rows, shape=(4, KIB)))
    walk, held = Walk(step), {}
    for at in walk.run():
        held[step.nodes[at].name] = sorted((b.count, b.size // KIB) for b in walk.alive.values())
    assert held["rows"] == [(1, 16), (4, 4)]
    assert held["stack"] == [(1, 16), (4, 4)]


@pytest.mark.parametrize("setter", ["TensorListPushBack", "TensorListSetItem"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_16_bits_each_round_casts_the_weight_it_reads_and_the_list_holds_all_copies(setter, dtype):
    half = in_half(loop("a weight it reads", setter), dtype)
    assert not pushes_the_same(half.bodies[0], 3)
    walk = Walk(half)
    for _ in walk.run():
        pass
    (pieces,) = (buffer for buffer in walk.alive.values() if buffer.count > 1)
    assert (pieces.count, pieces.size) == (ROUNDS, 2 * KIB)


@pytest.mark.parametrize("pushed", ["what it is given", "that through an identity"])
def test_in_16_bits_what_a_loop_is_given_is_cast_once_before_it(pushed):
    assert pushes_the_same(in_half(loop(pushed), "float16").bodies[0], 3)


MEASURE = """
import gc, json, sys
import keras, numpy as np, tensorflow as tf
given, found = json.load(sys.stdin), {}
memory = lambda: tf.config.experimental.get_memory_info("CPU:0")
for name, (kind, units, steps, batch) in given.items():
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        layer = getattr(keras.layers, kind)(units, return_sequences=True)
        model = keras.Sequential([keras.Input((steps, 32)), layer, keras.layers.Dense(4, dtype="float32")])
        model.compile("sgd", "mse")
        x, y = np.ones((batch, steps, 32), "float32"), np.ones((batch, steps, 4), "float32")
        gc.collect()
        tf.config.experimental.reset_memory_stats("CPU:0")
        base = memory()["current"]
        model.fit(x, y, batch_size=batch, verbose=0)
        found[f"{name}, {policy}"] = memory()["peak"] - base
print("FOUND" + json.dumps(found))
"""
RNNS = {
    "wide LSTM": ("LSTM", 256, 40, 96),
    "narrow LSTM": ("LSTM", 64, 40, 384),
    "wide GRU": ("GRU", 256, 40, 96),
    "wide RNN": ("SimpleRNN", 256, 40, 96),
}


@pytest.mark.tf
@pytest.mark.timeout(400)
def test_16_bits_save_half_of_a_narrow_loop_and_little_or_nothing_of_a_wide_one():
    found = found_by(MEASURE, RNNS, bfc(1000))
    share = {name: found[f"{name}, mixed_bfloat16"] / found[f"{name}, float32"] for name in RNNS}
    assert share["narrow LSTM"] < 0.85
    assert min(share["wide LSTM"], share["wide GRU"], share["wide RNN"]) > 0.8


def test_zeros_like_a_list_are_as_many_as_it_has_elements():
    made = Maker()
    held = Tensor((KIB,), "float32", ROUNDS)
    grown = made.op(
        "While", "loop", made.op("EmptyTensorList", "empty", outputs=(LIST,)), outputs=(held,), shares=(-1,)
    )
    made.op("ZerosLike", "zeros", grown, outputs=(Tensor((), "variant"),))
    walk = Walk(made.step((2, 0)))
    for _ in walk.run():
        pass
    assert [(one.count, one.size) for one in walk.alive.values()] == [(ROUNDS, 4 * KIB)]


@pytest.mark.parametrize(("trips", "ahead"), [(1, 0), (5, 4), (200, 31)])
def test_zeros_that_wait_for_nothing_are_made_in_as_many_rounds_as_run_at_once(trips, ahead):
    inner = Maker()
    state = inner.argument("state", 4)
    zeros = inner.op("Fill", "zeros", kib=2)
    body = inner.step(inner.op("MatMul", "next", state, zeros, kib=4))
    made = Maker()
    first = made.op("MatMul", "first", kib=4)
    one = made.op("While", "one", first, outputs=(Tensor((KIB,), "float32"),), shares=(-1,), body=0, trips=trips)
    two = made.op("While", "two", one, outputs=(Tensor((KIB,), "float32"),), shares=(-1,), body=0, trips=trips)
    step = made.step(two, bodies=(body,))
    assert [made_ahead(step, at) for at in range(3)] == [0, *[ahead * 2 * KIB] * 2]
    own = own_of(step, Processor(0, 2))
    # The second loop has run ahead while the first one runs.
    assert own[1] - own[2] == ahead * 2 * KIB


def looped(body):
    """A loop whose body is a step, and whose state is one number."""
    made = Maker()
    first = made.op("Const", "first", shape=(), dtype="int32")
    loop = made.op("While", "loop", first, outputs=(Tensor((), "int32"),), shares=(-1,), body=0, trips=4)
    return made.step(loop, bodies=(body,))


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 2), (8, 2)])
def test_kernels_of_one_round_run_at_once_as_others_do(threads, at_once):
    """Both gradients of a convolution in the body, as of a ConvLSTM."""
    step = looped(convolution(16))
    own = own_of(step, Processor(0, threads))[1]
    assert at_once * PATCHES < own < (at_once + 0.6) * PATCHES


def test_what_a_round_needs_lies_in_chunks_of_its_own_not_in_one():
    """Each of two buffers of 17 MiB finds room in one of two regions of 20, where one of 36 would need a third."""
    for one in trained_in_pool(looped(convolution(16)), Processor(0, 2), [MIB], (), [(20 * MIB, 20 * MIB)]):
        assert 2 * PATCHES < one.asked
        assert 40 * MIB < one.peak < 48 * MIB
