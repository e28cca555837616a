"""Chunks told by what is in them."""

from tests.memory.steps import KIB, Maker
from tf_mem_magic.memory.account import open_ledger, take_batches, take_known, take_live, take_workspace
from tf_mem_magic.memory.live import find_stop, live_at


def test_what_is_taken_is_no_longer_there():
    ledger = open_ledger([(KIB, KIB, 2), (KIB, 4 * KIB, 1)])
    assert (ledger.take(KIB, 2), ledger.take(KIB, 2), ledger.rest()) == (2, 1, 0)
    assert ledger.rounding == 3 * KIB


def test_only_chunks_of_exactly_these_bytes_are_taken():
    ledger = open_ledger([(KIB, KIB, 1)])
    take_known(ledger, [("weights", "m", KIB - 4), ("values", "x", KIB)])
    assert [(share.part, share.bytes) for share in ledger.shares] == [("values", KIB)]


def test_a_steps_tensors_and_a_kernels_workspace_are_told_apart():
    made = Maker()
    a = made.op("MatMul", "m_1/dense_1/MatMul", made.argument("x", 2), kib=4)
    step = made.step(made.op("Conv2DBackpropInput", "conv", a, kib=8))
    live = live_at(step, find_stop(step, "conv"), "first", {"dense_1": "dense"}, requested=8 * KIB)
    ledger = open_ledger([(4 * KIB, 4 * KIB, 1), (2 * KIB, 2 * KIB, 2), (5 * KIB, 5 * KIB, 1)])
    take_live(ledger, live)
    take_batches(ledger, {2 * KIB: "batches"}, step)
    take_workspace(ledger, step, live)
    found = [(share.part, share.layer, share.bytes // KIB) for share in ledger.shares]
    assert found == [("activations", "dense", 4), ("inputs", "", 4), ("workspace", "", 5)]
    assert ledger.rest() == 0


def test_without_a_kernel_that_needs_one_nothing_is_called_workspace():
    made = Maker()
    a = made.op("Relu", "a", kib=4)
    step = made.step(made.op("Neg", "b", a, a, kib=4))
    live = live_at(step, find_stop(step, "b"), "first", {})
    ledger = open_ledger([(5 * KIB, 5 * KIB, 1)])
    take_workspace(ledger, step, live)
    assert (ledger.shares, ledger.rest()) == ([], 5 * KIB)


def test_of_a_size_that_other_tensors_have_too_only_two_chunks_are_batches():
    made = Maker()
    step = made.step(made.op("Relu", "a", made.argument("x", 4), kib=4))
    ledger = open_ledger([(4 * KIB, 4 * KIB, 9)])
    take_batches(ledger, {4 * KIB: "batches"}, step)
    assert [share.count for share in ledger.shares] == [2]
