"""What training will need and what fits, from a step that is known in closed form."""

import dataclasses

import pytest

from tests.memory.steps import dense_stack, in_blocks
from tf_mem_magic.core.step import Node, Step, Tensor
from tf_mem_magic.diagnose.planning.plan import CARDS, make_plan, peak_at, rounded
from tf_mem_magic.diagnose.planning.values import Ahead, Place

MIB = 1 << 20
WIDTH = 256
WEIGHTS = 3 * WIDTH * WIDTH * 4
AHEAD = Ahead(
    "model",
    64,
    (dense_stack(3, 64, WIDTH), dense_stack(3, 128, WIDTH)),
    weights=WEIGHTS,
    slots=2 * WEIGHTS,
    made=WEIGHTS,
    data=WIDTH * 4,
    trainable=WEIGHTS,
    optimizer="Adam",
)


def here(limit, taken=0):
    return Place("GPU:0", limit, taken, here=True)


def rows(plan):
    return {row.name: row for row in plan.rows}


def test_the_peak_holds_weights_slots_and_activations_at_the_least():
    low, high = peak_at(AHEAD, 64)
    assert low >= 3 * WEIGHTS + 3 * 64 * WIDTH * 4
    assert low < high


def test_the_largest_batch_fits_and_a_sixteenth_more_does_not():
    limit = 40 * MIB
    batch = make_plan(AHEAD, [here(limit)]).rows[0].batches[0]
    assert peak_at(AHEAD, batch)[1] <= limit < peak_at(AHEAD, batch + batch // 8)[1]


def test_what_other_things_hold_is_not_there_to_be_used():
    free, shared = (make_plan(AHEAD, [here(40 * MIB, taken)]).rows[0].batches for taken in (0, 20 * MIB))
    assert 0 < shared[0] < free[0]
    assert shared[1:] == free[1:]


def test_where_not_one_sample_fits_it_is_none():
    assert make_plan(AHEAD, [here(WEIGHTS)]).rows[0].batches[0] == 0


def test_every_change_that_is_offered_lowers_the_peak():
    plan = make_plan(AHEAD, [here(40 * MIB)])
    first, *others = plan.rows
    assert [row.name for row in others] == ["mixed_float16", "SGD with momentum", "SGD"]
    assert all(row.high < first.high for row in others)
    assert len(first.batches) == 1 + len(CARDS)


def test_a_lighter_optimizer_takes_its_values_off():
    told = rows(make_plan(AHEAD, []))
    assert told["as it is"].low - told["SGD"].low == 2 * WEIGHTS
    assert told["as it is"].low - told["SGD with momentum"].low == WEIGHTS


def test_accumulation_takes_a_part_of_the_batch_and_keeps_gradients():
    large = dataclasses.replace(AHEAD, batch=4096, steps=(dense_stack(3, 4096, WIDTH), dense_stack(3, 8192, WIDTH)))
    told = rows(make_plan(large, []))["accumulate, 4 parts"]
    assert told.low == peak_at(large, 1024)[0] + WEIGHTS
    assert all(batch % 4 == 0 for batch in told.batches)


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"policy": "mixed_float16"}, "mixed_float16"),
        ({"slots": 0}, "SGD"),
        ({"slots": WEIGHTS}, "SGD with momentum"),
    ],
)
def test_what_is_so_already_is_no_row(change, gone):
    assert gone not in rows(make_plan(dataclasses.replace(AHEAD, **change), []))


def test_blocks_that_are_computed_again_lower_the_peak():
    blocks = tuple(f"block_{i}" for i in range(3))
    steps = tuple(in_blocks(dense_stack(12, batch, WIDTH), layers=4) for batch in (4096, 8192))
    told = rows(make_plan(dataclasses.replace(AHEAD, batch=4096, steps=steps, blocks=blocks), []))
    assert told["rematerialize 3 blocks"].low < told["as it is"].low
    assert told["mixed_float16 and rematerialize"].low < told["mixed_float16"].low


def test_of_a_model_for_one_batch_size_the_columns_say_whether_that_fits():
    plan = make_plan(dataclasses.replace(AHEAD, steps=AHEAD.steps[:1]), [here(40 * MIB)])
    assert {batch for row in plan.rows for batch in row.batches} == {64}
    small = make_plan(dataclasses.replace(AHEAD, steps=AHEAD.steps[:1]), [here(WEIGHTS)])
    assert {row.batches[0] for row in small.rows} == {0}
    assert "takes batches of 64 and no others" in " ".join(plan.notes)


@pytest.mark.parametrize("cpu", [True, False])
def test_that_conv3d_leaps_at_some_batch_is_said_of_a_cpu(cpu):
    step = Step((Node("c", "Conv3D", outputs=(Tensor((4, 8, 8, 8, 2), "float32"),), shares=(-1,)),), ((0, 0),))
    place = Place("CPU:0" if cpu else "GPU:0", 40 * MIB, cpu=cpu, here=True)
    notes = make_plan(dataclasses.replace(AHEAD, steps=(step, step)), [place]).notes
    assert any("Conv3D" in note for note in notes) == cpu


def test_what_xla_compiles_is_said_to_be_another_program():
    assert "XLA" in make_plan(dataclasses.replace(AHEAD, jit=True), []).notes[0]


def test_arrays_that_may_go_to_a_gpu_as_a_whole_are_said_with_their_size():
    told = make_plan(dataclasses.replace(AHEAD, arrays=300 * MIB), []).notes
    assert [note for note in told if "copy arrays there as a whole, 300 MiB beside this" in note]
    assert make_plan(dataclasses.replace(AHEAD, arrays=100), []).notes == ()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_whose_size_only_the_run_tells_are_counted_by_their_number(dtype):
    step = Step((Node("a", "Relu", outputs=(Tensor(None, dtype), Tensor(None, "int32")), shares=(-1, -1)),))
    told = make_plan(dataclasses.replace(AHEAD, steps=(step, step)), []).notes
    assert told == ("1 tensor has a size that only the run tells: not counted.",)


@pytest.mark.parametrize(("batch", "written"), [(1, 1), (13, 13), (17, 16), (27, 26), (107, 104), (1000, 960)])
def test_batches_are_numbers_that_one_would_write(batch, written):
    assert rounded(batch) == written
