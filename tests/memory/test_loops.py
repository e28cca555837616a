"""What a loop's results are."""

import pytest

from tests.memory.steps import KIB, Maker
from tf_mem_magic.core.step import Tensor
from tf_mem_magic.memory.loops import follow, pushes_the_same
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
