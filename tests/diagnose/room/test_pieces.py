"""Whether a changed step finds room in the pieces of a pool: in this process, or only in a new one."""

from dataclasses import replace

import pytest

from tests.memory.pools.test_pooled import MIB, convolution
from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Cell, Dump, ErrorText, Recording, Series
from tf_mem_magic.core.step import StepFacts, pack
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.dump import grown_pool
from tf_mem_magic.diagnose.room.pieces import _held, fresh_peak, peak_here, room_for, room_in_fresh

GROWN = (2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB)
"""The regions of a pool that grew request by request, with 30 MiB taken."""


def failed(limit=41 * MIB, regions=GROWN, batch=128, device="CPU:0"):
    """The step at a batch that ran out, in a pool that lies in pieces."""
    allocator = "bfc_cpu_allocator_for_gpu" if device == "CPU:0" else "GPU_0_bfc"
    op = "gradient_tape/m_1/conv_1/Input"
    text = (
        f"OOM when allocating tensor with shape[129,121,288] and type float on "
        f"/job:localhost/replica:0/task:0/device:{device} by allocator {allocator}\n\t [[{{{{node {op}}}}}]]"
    )
    kinds = ("tensorflow.python.framework.errors_impl.ResourceExhaustedError",)
    step = StepFacts(
        "__inference_step_1", op, batch, pack([convolution(batch), convolution(batch // 2)]), batch // 2, threads=2
    )
    dump = Dump(allocator, "structured", limit, 20 * MIB, chunks=((20 * MIB, 20 * MIB, 1),), regions=regions)
    recording = Recording(
        Cell("%%tfmem\nm.fit(x, y)"),
        1.0,
        (Series(f"allocator:{device}", peak=20 * MIB, limit=limit),),
        "oom",
        (ErrorText("ResourceExhaustedError", text, (), kinds),),
        (dump,),
        facts=Facts(step=step),
    )
    return recording, diagnose(recording)


def test_a_buffer_larger_than_every_piece_and_than_what_is_left_finds_room_only_in_a_fresh_process():
    """62 of 74 MiB are taken, in pieces of at most 16: of 17 MiB there is none, and 12 are left to take."""
    recording, diagnosis = failed(limit=74 * MIB, regions=(*GROWN, 16 * MIB, 16 * MIB), batch=1024)
    assert room_for(recording, diagnosis, Effect(batch=(1024, 16))) == "fresh"


def test_a_model_of_an_earlier_cell_takes_its_room_once():
    """Its variables are a part of their own, as leftovers: counted as the step's too they left no room for any."""
    recording, diagnosis = failed(limit=300 * MIB, regions=(*GROWN, 64 * MIB, 128 * MIB), batch=2048)
    old = ModelFacts("old", ("Dense",), "Adam", weight_bytes=40 * MIB, steps=1, steps_before=1, device="CPU:0")
    step = replace(recording.facts.step, variables=(("weights", "old", 40 * MIB),))
    with_old = replace(recording, facts=replace(recording.facts, models=(old,), step=step))
    left = replace(diagnosis, breakdown=(*diagnosis.breakdown, Part("earlier", 40 * MIB, "", ("old",))))
    effect = Effect(batch=(2048, 16))
    once = fresh_peak(recording, left, effect)
    assert once is not None
    assert fresh_peak(with_old, left, effect) == once


def test_where_two_buffers_at_once_have_no_room_in_a_new_process_either_one_at_a_time_may():
    """30 of 41 MiB are taken, in pieces of at most 16: of 17 MiB there is none, and 11 are left to take."""
    recording, diagnosis = failed()
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) == "alone"


def test_where_enough_is_left_to_take_for_all_that_runs_at_once_there_is_room_here():
    recording, diagnosis = failed(limit=90 * MIB, batch=2048)
    assert room_for(recording, diagnosis, Effect(batch=(2048, 16))) == "here"


def test_where_enough_is_left_to_take_for_one_of_two_buffers_it_is_likely_to_find_room():
    """Four notebooks that were sent into a new kernel for it found room in the pieces that there were."""
    recording, diagnosis = failed(limit=52 * MIB)
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) == "likely"
    assert room_in_fresh(recording, diagnosis, Effect(batch=(128, 16))) == "alone"


def test_the_largest_region_may_be_taken_in_part_by_what_outlasts_the_failure():
    """21 MiB are one piece for a buffer of 17, but not where a quarter of them is something else's."""
    regions = (2 * MIB, 4 * MIB, 8 * MIB, 21 * MIB)
    recording, diagnosis = failed(limit=42 * MIB, regions=regions)
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) == "likely"
    small = failed(limit=42 * MIB, regions=(*regions[:3], 16 * MIB))
    assert room_for(*small, Effect(batch=(128, 16))) == "alone"


@pytest.mark.parametrize("limit", [52, 60, 68])
def test_the_peak_in_the_pieces_is_that_of_one_buffer_at_a_time(limit):
    recording, diagnosis = failed(limit=limit * MIB)
    told = peak_here(recording, diagnosis, Effect(batch=(128, 16)))
    assert 17 * MIB < told.low <= told.high < 42 * MIB
    assert told.word(400 * MIB) == "likely"
    assert peak_here(*failed(limit=41 * MIB), Effect(batch=(128, 16))) is None


@pytest.mark.parametrize(
    ("limit", "room"), [(50, "perhaps"), (56, "alone"), (64, "perhaps"), (66, "likely"), (76, "likely")]
)
def test_it_is_likely_only_with_the_margin_of_what_was_measured(limit, room):
    """It takes 48 to 56 MiB; of 134 MiB a batch was chosen whose peak was told to reach 135, before one that fits."""
    recording, diagnosis = failed(limit=limit * MIB, batch=2048)
    assert room_for(recording, diagnosis, Effect(batch=(2048, 256))) == room


@pytest.mark.parametrize(("copies", "to_host"), [(2, 0), (1, 0), (2, 40 * MIB)])
def test_each_array_that_keras_copies_is_a_chunk_of_its_own(copies, to_host):
    """Two arrays of 9 MiB in chunks of 16 were taken for one of 32, for which no piece had room."""
    recording, diagnosis = failed(limit=160 * MIB, regions=(2 * MIB, 16 * MIB, 16 * MIB, 28 * MIB, 32 * MIB))
    array = NamedValue("x", 9 * MIB, "numpy.ndarray", shape=(9 * 1024, 16, 16), dtype="float32")
    facts = replace(recording.facts, values=(array,), batches=(BatchSeen("fit", 128, "arrays"),))
    dump = replace(recording.dumps[0], chunks=((9 * MIB, 16 * MIB, copies), (4 * MIB, 4 * MIB, 1)))
    recording = replace(recording, facts=facts, dumps=(dump,))
    parts = (*diagnosis.breakdown, Part("arrays", 16 * MIB * copies, "", ("x",)))
    held = list(_held(recording, replace(diagnosis, breakdown=parts), Effect(to_host=to_host), 0))
    assert held.count(9 * MIB) == (0 if to_host else copies)
    assert 16 * MIB * copies not in held


def test_the_peak_in_a_new_process_counts_whole_chunks():
    """A buffer of 17 MiB takes a region of 32; where no way of running fits, there is no peak to tell."""
    recording, diagnosis = failed()
    told = fresh_peak(recording, diagnosis, Effect(batch=(128, 16)))
    assert told is not None
    assert 32 * MIB < told.low <= told.high < 37 * MIB
    assert [told.word(limit * MIB) for limit in (400, 40, 20)] == ["likely", "likely", "no"]
    assert fresh_peak(*failed(limit=16 * MIB), Effect(batch=(128, 16))) is None


def test_where_even_a_new_pool_has_no_such_piece_there_is_room_nowhere():
    recording, diagnosis = failed(limit=16 * MIB, regions=(2 * MIB, 4 * MIB, 8 * MIB))
    assert room_for(recording, diagnosis, Effect(batch=(128, 1))) == "nowhere"


def test_what_no_name_holds_is_not_there_in_a_new_process():
    recording, diagnosis = failed()
    alone = fresh_peak(recording, diagnosis, Effect(batch=(128, 16)))
    before = replace(recording, before=(("allocator:CPU:0", 8 * MIB),))
    left = replace(diagnosis, breakdown=(*diagnosis.breakdown, Part("earlier", 8 * MIB, "")))
    assert fresh_peak(before, left, Effect(batch=(128, 16))) == alone
    assert fresh_peak(recording, left, Effect(batch=(128, 16))) != alone  # here a name holds them


def test_two_buffers_at_once_that_only_just_find_room_are_kept_apart():
    """Both take 65 MiB with the rest: of 70 MiB that is close, of 76 it is not."""
    rooms = [room_in_fresh(*failed(limit=limit * MIB, batch=1024), Effect(batch=(1024, 8))) for limit in (70, 76)]
    assert rooms == ["alone", "fresh"]
    recording, diagnosis = failed(limit=70 * MIB, batch=1024)
    alone, both = (fresh_peak(recording, diagnosis, Effect(batch=(1024, 8)), at_once) for at_once in (1, 2))
    assert alone.high < 40 * MIB < 60 * MIB < both.high


def test_an_array_may_lie_in_the_pool_too():
    """With 9 MiB of an array in a chunk of 16 there is no region of 32 left for a buffer of 17."""
    recording, diagnosis = failed()
    array = NamedValue("x", 9 * MIB, "numpy.ndarray")
    recording = replace(recording, facts=replace(recording.facts, values=(array,)))
    rooms = [room_in_fresh(recording, diagnosis, Effect(batch=(128, 16)), copied) for copied in (False, True)]
    assert rooms == ["alone", None]


def test_a_pool_that_gives_regions_back_is_not_judged():
    recording, diagnosis = failed(device="GPU:0")
    assert grown_pool(recording, diagnosis) is None
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) is None


def test_a_pool_of_one_piece_is_not_judged():
    recording, diagnosis = failed(regions=(41 * MIB,))
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) is None


def test_a_step_that_would_have_found_room_by_these_rules_is_not_judged():
    recording, diagnosis = failed(limit=400 * MIB)
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) is None


@pytest.mark.parametrize("effect", [Effect(policy="mixed_float16"), Effect(recompute=("conv",)), Effect(jit=False)])
def test_a_change_whose_step_is_not_known_is_not_judged(effect):
    recording, diagnosis = failed()
    assert room_for(recording, diagnosis, effect) is None


def test_without_a_step_nothing_is_judged():
    recording, diagnosis = failed()
    recording = replace(recording, facts=Facts())
    assert room_for(recording, diagnosis, Effect(batch=(128, 16))) is None
