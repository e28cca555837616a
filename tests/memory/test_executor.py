"""The order in which the executor runs a step: what waits for what, and what runs at once."""

import pytest

from tests.memory.pools.test_pooled import PATCHES, convolution
from tests.memory.steps import Maker, dense_stack
from tests.memory.test_walk import loop_step
from tf_mem_magic.core.step import Processor
from tf_mem_magic.memory.executor import events_of, needed_in
from tf_mem_magic.memory.forecast import peak_of

LARGE = 1 << 20


def most_at_once(events):
    now = most = 0
    for _, begins in events:
        now += 1 if begins else -1
        most = max(most, now)
    return most


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize(
    "step", [dense_stack(4, batch=512), convolution(16), loop_step(5)], ids=["dense", "conv", "loop"]
)
def test_what_is_needed_runs_once_and_after_what_it_reads(step, threads):
    ended, running = set(), set()
    for at, begins in events_of(step, threads):
        if begins:
            node = step.nodes[at]
            assert {source for source, _ in node.inputs} | set(node.after) <= ended | {at}
            assert at not in running | ended
            running.add(at)
        else:
            running.remove(at)
            ended.add(at)
    assert ended == {at for at, needed in enumerate(needed_in(step)) if needed}
    assert not running


def branches(count):
    """Some branches that nothing ties together, each of two operations on large tensors."""
    made = Maker()
    x = made.argument("x", shape=(LARGE,))
    ends = []
    for i in range(count):
        first = made.op("Tanh", f"first_{i}", x, shape=(LARGE,))
        ends.append(made.op("Tanh", f"second_{i}", first, shape=(LARGE,)))
    return made.step(*ends)


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 2), (3, 3), (8, 4)])
def test_as_many_run_at_once_as_there_are_threads_and_branches(threads, at_once):
    assert most_at_once(events_of(branches(4), threads)) == at_once


def test_a_thread_goes_on_with_what_it_has_made_ready():
    """Branch by branch, so that few buffers of the first operations are alive."""
    step = branches(6)
    begun = [step.nodes[at].name for at, begins in events_of(step, 1) if begins and step.nodes[at].kind == "Tanh"]
    assert [name[-1] for name in begun[::2]] == [name[-1] for name in begun[1::2]]


def test_both_gradients_of_a_convolution_run_at_once_on_two_threads_and_not_on_one():
    step = convolution(16)
    one, two = (peak_of(step, Processor(threads=threads)).high for threads in (1, 2))
    assert PATCHES < one < 1.2 * PATCHES
    assert two - one == pytest.approx(PATCHES, rel=0.1)


def test_the_same_step_is_run_once():
    step = dense_stack(3)
    assert events_of(step, 2) is events_of(step, 2)
