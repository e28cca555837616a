"""GPUs as remedies see them: how much of a card others hold, and whether that is known."""

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts, merge_devices
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies._engine.cards import (
    DESKTOP,
    find_card,
    held_by_others,
    is_cuda,
    is_occupied,
    room,
    words_in_cells,
)
from tf_mem_magic.remedies._engine.question import Ask

GIB = 2**30


def card(*held, total=16 * GIB):
    return DeviceFacts("GPU:0", total=total, others=tuple(ProcessFacts(7 + i, None, b) for i, b in enumerate(held)))


def context(source="model.fit(x)", device="GPU:0", earlier=(), devices=(), cause="unknown"):
    cell = Cell(source)
    facts = Facts(initialised=True, devices=devices, earlier_cells=earlier)
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis(device, cause=cause))


def test_what_other_processes_hold_is_added_up():
    assert (3 * GIB, 13 * GIB) == (held_by_others(card(GIB, 2 * GIB)), room(card(GIB, 2 * GIB)))


def test_where_one_process_hides_its_bytes_the_sum_is_unknown_and_the_card_occupied():
    assert (None, None, True) == (held_by_others(card(GIB, None)), room(card(GIB, None)), is_occupied(card(GIB, None)))


def test_where_nobody_tells_nothing_is_known():
    hidden = DeviceFacts("GPU:0", total=GIB)
    assert (None, None, None) == (held_by_others(hidden), room(hidden), is_occupied(hidden))


@pytest.mark.parametrize(("held", "occupied"), [((), False), ((4 << 20,), False), ((DESKTOP,), True)])
def test_a_desktop_does_not_occupy_a_card(held, occupied):
    assert occupied is is_occupied(card(*held))


def test_only_cuda_tells_a_compute_capability_or_an_identity():
    known = [DeviceFacts("GPU:0", compute_capability=(7, 5)), DeviceFacts("GPU:0", uuid="GPU-1"), DeviceFacts("GPU:0")]
    assert [True, True, False] == [is_cuda(one) for one in known]


def test_the_driver_tells_the_identity_of_a_card_that_tensorflow_names():
    merged = merge_devices([DeviceFacts("GPU:0", growth=True), DeviceFacts("GPU:0", uuid="GPU-1", total=GIB)])
    assert (DeviceFacts("GPU:0", growth=True, uuid="GPU-1", total=GIB),) == merged


def test_the_card_that_ran_out_is_found():
    cards = (DeviceFacts("GPU:0", uuid="a"), DeviceFacts("GPU:1", uuid="b"))
    assert cards[1] == find_card(Ask(context(device="GPU:1", devices=cards)))


def test_a_word_in_a_cell_is_a_whole_word():
    asked = Ask(context("x = GPU_ALLOCATOR_2", earlier=("y = 1  # set_visible_devices",)))
    assert ("", "set_visible_devices") == (
        words_in_cells(asked, "GPU_ALLOCATOR"),
        words_in_cells(asked, "GPU_ALLOCATOR", "set_visible_devices"),
    )
