"""An allocator's events, followed: kinds, layers, steps, the peak, and sums that are exact at every moment."""

from array import array

import pytest

from tf_mem_magic.core.step import Holder
from tf_mem_magic.memory.events import Events, kind_of, steps_in, traced_steps

BASE = 1000
"""Bytes in use before the trace."""


def events(*rows, base=BASE, **more):
    """Make events of ``(address, bytes asked for, chunk, op, run)``; one without ``op`` frees its address."""
    names, columns, held, in_use = {}, [], {}, base
    for at, row in enumerate(rows):
        address, requested, size, op, run = (
            row if len(row) == 5 else (row[0], *held.get(row[0], row[1:] or (0, 0)), "", 0)
        )
        frees = len(row) != 5
        held[address] = (requested, size)
        in_use += -size if frees else size
        region = "temp" if op.endswith("!") else "output"
        name = ("", "", False) if frees else (op.rstrip("!").removeprefix("data:"), region, op.startswith("data:"))
        index = names.setdefault(name, len(names))
        columns.append((at * 0.5, -size if frees else size, requested, address, in_use, run, index))
    made = [array(code, column) for code, column in zip("dqqQqql", zip(*columns))] if columns else []
    return Events("GPU:0", 4096, *made, names=tuple(names), **more)


def step(run, first):
    """A step: an activation of two layers, a gradient with its workspace, and the optimizer's temporary."""
    at = [first + i for i in range(6)]
    return [
        (at[0], 100, 128, "StatefulPartitionedCall/net_1/conv_1/Relu", run),
        (at[1], 60, 64, "StatefulPartitionedCall/net_1/dense_1/BiasAdd", run),
        (at[2], 200, 256, "StatefulPartitionedCall/gradient_tape/net_1/conv_1/Conv2DBackpropFilter!", run),
        (at[3], 30, 64, "StatefulPartitionedCall/gradient_tape/net_1/conv_1/Conv2DBackpropFilter", run),
        (at[2],),
        (at[0],),
        (at[1],),
        (at[4], 30, 64, "StatefulPartitionedCall/adam/Sqrt_1", run),
        (at[4],),
        (at[3],),
    ]


def run_of(*steps):
    return events(*(row for i, run in enumerate(steps) for row in step(run, 10 * i + 10)))


NAMES = {"layers": ("conv", "dense"), "optimizers": ("adam",)}


@pytest.mark.parametrize(
    ("op", "region", "is_data", "kind"),
    [
        ("StatefulPartitionedCall/net_1/conv_1/Relu", "output", False, "activations"),
        ("StatefulPartitionedCall/gradient_tape/net_1/conv_1/ReluGrad", "output", False, "gradients"),
        ("StatefulPartitionedCall/net_1/conv_1/Conv2D", "temp", False, "workspace"),
        ("StatefulPartitionedCall/gradient_tape/net_1/conv_1/Conv2DBackpropFilter", "temp", False, "workspace"),
        ("StatefulPartitionedCall/adam/Sqrt_1", "output", False, "updates"),
        ("StatefulPartitionedCall/adam/AssignSubVariableOp_2", "temp", False, "updates"),
        ("StatefulPartitionedCall/adam_1/Sqrt_1", "output", False, "updates"),
        ("adam", "output", False, "activations"),
        ("GatherV2", "output", True, "inputs"),
        ("StatefulPartitionedCall/IteratorGetNext", "output", False, "inputs"),
        ("", "", False, "other"),
    ],
)
def test_an_operations_path_tells_the_kind_of_its_memory(op, region, is_data, kind):
    assert kind_of(op, region, is_data, ("adam",)) == kind


def test_steps_begin_where_runs_with_gradients_do():
    starts, trains = steps_in(run_of(7, 8, 9))
    assert (starts, trains) == ((0, 10, 20), True)


def test_a_run_without_gradients_between_two_steps_is_none():
    rows = [*step(7, 10), (90, 500, 512, "StatefulPartitionedCall/net_1/conv_1/Relu", 55), (90,), *step(8, 30)]
    assert steps_in(events(*rows))[0] == (0, 12)


def test_a_step_that_is_much_larger_than_the_others_does_not_hide_them():
    large = [(90, 90_000, 90_000, "StatefulPartitionedCall/net_1/conv_1/Relu", 9), *step(9, 40)]
    assert steps_in(events(*step(7, 10), *step(8, 20), *large))[0] == (0, 10, 20)


def test_where_nothing_trains_the_largest_runs_are_the_steps():
    rows = [(i * 10 + k, 64, 64, f"net/layer_{k}/Relu", 100 + i) for i in range(3) for k in range(3)]
    assert steps_in(events(*rows)) == ((0, 3, 6), False)


def test_operations_by_themselves_are_no_steps():
    assert steps_in(events((1, 64, 64, "MatMul", 5), (1,), (1, 64, 64, "Relu", 6)))[0] == ()


def test_the_steps_between_the_first_and_the_last_are_told_of():
    told = traced_steps(run_of(1, 2, 3, 4), **NAMES)
    assert (told.steps, told.starts, told.seconds, told.began) == (2, (0.0, 5.0), 9.5, 5.0)
    assert (told.in_use, told.data, told.events) == ((BASE, BASE, BASE), (0, 0, 0), 20)


def test_no_more_than_three_steps_are_told_of():
    assert traced_steps(run_of(*range(1, 9)), **NAMES).steps == 3


def test_the_peak_is_the_allocators_and_its_parts_sum_to_it():
    told = traced_steps(run_of(1, 2, 3), **NAMES, weights=600, slots=300)
    assert (told.peak, told.peak_time) == (BASE + 128 + 64 + 256 + 64, 1.5)
    parts = dict(told.parts)
    assert sum(parts.values()) == told.peak
    assert parts == {
        "weights": 600, "optimizer": 300, "values": 100,
        "activations": 160, "workspace": 200, "gradients": 30, "rounding": 28 + 4 + 56 + 34,
    }  # fmt: skip


def test_the_largest_holders_at_the_peak_are_named_by_layer_and_kind():
    told = traced_steps(run_of(1, 2, 3), **NAMES)
    conv = "StatefulPartitionedCall/gradient_tape/net_1/conv_1/Conv2DBackpropFilter"
    assert told.holders == (
        Holder("conv", "workspace", 200, 1, conv),
        Holder("conv", "activations", 100, 1, "StatefulPartitionedCall/net_1/conv_1/Relu"),
        Holder("dense", "activations", 60, 1, "StatefulPartitionedCall/net_1/dense_1/BiasAdd"),
        Holder("conv", "gradients", 30, 1, conv),
    )


def test_at_every_moment_the_kinds_sum_to_the_allocators_counter():
    made = run_of(1, 2, 3, 4)
    told = traced_steps(made, **NAMES)
    counter = {second - 5.0: value for second, value in zip(made.seconds, made.in_use)}
    sums = [sum(values[i] for _, values in told.course) for i in range(len(told.times))]
    assert sums == [counter[time] for time in told.times]
    assert len(sums) == 20


def test_data_drawn_ahead_is_told_apart_from_what_steps_leave():
    ahead = [(900 + i, 80, 80, "data:GatherV2", 0) for i in range(2)]
    rows = [*step(1, 10), *step(2, 20), ahead[0], *step(3, 30), ahead[1], *step(4, 40)]
    told = traced_steps(events(*rows), **NAMES)
    assert (told.in_use, told.data) == ((BASE, BASE + 80, BASE + 160), (0, 80, 160))


def test_pieces_from_before_the_trace_are_counted_when_they_go():
    rows = [*step(1, 10), *step(2, 20)[:5], (999, 300, 300), *step(2, 20)[5:], *step(3, 30)]
    told = traced_steps(events(*rows), **NAMES)
    assert (told.unknown, told.unknown_bytes) == (1, 300)
    assert told.in_use == (BASE, BASE - 300)


def test_what_outlives_the_step_after_its_own_lies_there_from_then_on():
    kept = (77, 50, 50, "StatefulPartitionedCall/net_1/conv_1/AssignVariableOp", 2)
    rows = [*step(1, 10), *step(2, 20), kept, *step(3, 30), *step(4, 40), *step(5, 50)]
    told = traced_steps(events(*rows), **NAMES, weights=BASE + 50)
    course = dict(told.course)
    assert course["weights"][0] == BASE
    assert course["weights"][-1] == BASE + 50


def test_a_step_that_failed_counts_though_it_is_not_whole():
    made = events(*step(1, 10), *step(2, 20), *step(3, 30)[:3])
    told = traced_steps(made, **NAMES, failed=True)
    assert (told.steps, told.starts) == (1, (0.0, 5.0))
    assert told.seconds == 6.0


def test_of_a_first_whole_step_that_failed_only_it_is_shown_and_this_is_said():
    told = traced_steps(events(*step(1, 10), *step(2, 20)[:3]), **NAMES, failed=True)
    assert (told.steps, told.seconds) == (0, 1.0)
    assert told.notes == ("No whole step could be told from the next: what ran since the last one began is shown.",)


def test_a_piece_whose_end_was_not_told_of_is_not_counted_twice():
    rows = [*step(1, 10), *step(2, 20)[:6], (20, 100, 128, "StatefulPartitionedCall/net_1/conv_1/Relu", 2)]
    rows[-2:-1] = []  # the first piece at this address is not freed
    told = traced_steps(events(*rows, *step(3, 30)), **NAMES)
    assert dict(told.course)["activations"][-1] == 160


def test_without_steps_all_that_was_traced_is_told_of():
    told = traced_steps(events((1, 64, 64, "MatMul", 5), (1,), (1, 90, 128, "Relu", 6)), **NAMES)
    assert (told.steps, told.starts, told.peak, told.events) == (0, (), BASE + 128, 3)
    assert any("No whole step" in note for note in told.notes)


def test_no_events_is_said():
    assert traced_steps(events(), **NAMES).why_not == "the allocator told of nothing while it was traced"


def test_what_was_cut_off_is_said():
    told = traced_steps(events(*step(1, 10), *step(2, 20), *step(3, 30), cut=1.25), **NAMES)
    assert any("1.2 s" in note for note in told.notes)


def test_a_course_of_many_events_keeps_the_peak_and_few_moments():
    rows = [*step(1, 10)]
    for i in range(400):
        rows += [(1000 + i, 8, 8, "StatefulPartitionedCall/net_1/dense_1/Relu", 2)]
    rows += [(2000, 10, 10, "StatefulPartitionedCall/gradient_tape/x/y", 2), *step(3, 30)]
    rows += step(4, 40)
    told = traced_steps(events(*rows), **NAMES)
    assert len(told.times) <= 162
    assert max(sum(values[i] for _, values in told.course) for i in range(len(told.times))) == told.peak
