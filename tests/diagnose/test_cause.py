"""Diagnosis of recordings: numbers, place, cause, breakdown and the paragraph."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import captured
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, DeviceFacts, Facts, ModelFacts, NamedValue, ProcessFacts
from tf_mem_magic.core.recording import Cell, Dump, ErrorText, Frame, Recording, Series
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose import explanation
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.explanation import needed

MIB, GIB = 2**20, 2**30
CELL = "/tmp/ipykernel_7/1.py"
GPU = "GPU:0"
TF = "tensorflow.python.framework.errors_impl"
SOURCE = "%%tfmem\nmodel.fit(x, y, batch_size=256)"
MESSAGE = (
    "Graph execution error:\n\nDetected at node functional_1_1/conv2d_4_1/Relu defined at (most recent call last):\n"
    '  File "/v/lib/python3/site-packages/keras/src/layers/layer.py", line 1002, in __call__\n\n'
    '  File "/v/lib/python3/site-packages/keras/src/layers/layer.py", line 1002, in __call__\n\n'
    "OOM when allocating tensor with shape[256,112,112,128] and type float on "
    "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc\n"
    "\t [[{{node functional_1_1/conv2d_4_1/Relu}}]] [Op:__inference_one_step_on_data_9]"
)
REQUESTED = 256 * 112 * 112 * 128 * 4
IN_CELL = Frame(CELL, 2, "<module>", in_cell=True, is_user=True)


def error(message=MESSAGE, frames=(IN_CELL,), kind="ResourceExhaustedError"):
    return ErrorText(kind, message, frames, (f"{TF}.{kind}", f"{TF}.OpError"))


def series(in_use=14 * GIB, limit=15 * GIB, name="allocator:GPU:0"):
    return Series(name, (0.0, 1.0, 12.0), (0, in_use // 2, in_use), in_use + 7, "counter", limit, "configured")


def recording(**changes):
    base = Recording(Cell(SOURCE), 12.0, (series(),), "oom", (error(),))
    return replace(base, **changes)


def dump(**changes):
    base = Dump("GPU_0_bfc", "structured", limit=15 * GIB, in_use=14 * GIB, pool=15 * GIB, largest_free=GIB)
    return replace(base, **changes)


# Whether there is a diagnosis at all


@pytest.mark.parametrize("status", ["ok", "error", "interrupted"])
def test_a_run_that_did_not_run_out_of_memory_has_no_diagnosis(status):
    assert diagnose(recording(status=status)) is None


def test_a_killed_run_without_evidence_has_no_diagnosis():
    assert diagnose(recording(status="killed", errors=())) is None


def test_a_killed_run_that_left_a_dump_ran_out_on_the_dumps_device():
    found = diagnose(recording(status="killed", errors=(), dumps=(dump(requested=5 * GIB, op="mul"),)))
    assert (GPU, 5 * GIB, "mul", "too-big") == (found.device, found.requested, found.op, found.cause)


def test_a_killed_run_whose_host_memory_was_at_its_limit_ran_out_on_the_host():
    found = diagnose(recording(status="killed", errors=(), series=(series(95, 100, "host:rss"),)))
    assert ("host", "host") == (found.device, found.cause)


def test_a_killed_run_whose_host_memory_was_half_used_has_no_diagnosis():
    assert diagnose(recording(status="killed", errors=(), series=(series(50, 100, "host:rss"),))) is None


def test_a_killed_run_that_threw_bad_alloc_ran_out_on_the_host():
    stderr = "terminate called after throwing an instance of 'std::bad_alloc'"
    assert "host" == diagnose(recording(status="killed", errors=(), stderr=stderr)).device


# Numbers


def test_the_error_tells_device_bytes_shape_type_layer_and_line():
    found = diagnose(recording())
    told = (found.device, found.requested, found.shape, found.dtype, found.layer, found.line, found.file)
    assert (GPU, REQUESTED, (256, 112, 112, 128), "float32", "conv2d_4", 2, CELL) == told


def test_the_structured_dump_tells_in_use_and_limit_before_the_series_does():
    found = diagnose(recording(dumps=(dump(in_use=13 * GIB, limit=16 * GIB, fragmentation=0.5),)))
    assert (13 * GIB, 16 * GIB, 0.5) == (found.in_use, found.limit, found.fragmentation)


def test_the_structured_dump_goes_before_a_newer_one_in_text():
    text = dump(basis="text", in_use=1, limit=2)
    assert 14 * GIB == diagnose(recording(dumps=(dump(), text))).in_use


def test_another_devices_dump_tells_nothing_about_this_one():
    assert 14 * GIB == diagnose(recording(dumps=(dump(allocator="GPU_1_bfc", in_use=1),))).in_use


def test_without_a_dump_the_bytes_in_use_are_those_while_the_allocator_waited_not_an_earlier_peak():
    curve = Series("allocator:GPU:0", (0.0, 5.0, 20.0, 25.0, 30.0), (0, 9 * GIB, 4 * GIB, 5 * GIB, GIB), 10 * GIB)
    assert 5 * GIB == diagnose(recording(series=(curve,))).in_use


def test_without_any_numbers_nothing_is_invented():
    found = diagnose(recording(series=()))
    assert (None, None, (), "unknown") == (found.in_use, found.limit, found.breakdown, found.cause)


def test_the_cpus_own_allocator_is_a_device_where_it_is_measured():
    found = diagnose(recording(errors=captured.load("2.21.0", "eager"), series=(series(name="allocator:CPU:0"),)))
    assert "CPU:0" == found.device


def test_the_plain_cpu_is_the_host():
    assert "host" == diagnose(recording(errors=captured.load("2.21.0", "data_batch"), series=())).device


def test_a_compiled_program_ran_out_on_the_device_that_is_measured():
    found = diagnose(recording(errors=captured.load("2.21.0", "jit")))
    assert (GPU, True) == (found.device, found.jit)


# Place


def place(frames, source=SOURCE, errors=None):
    found = diagnose(recording(cell=Cell(source), errors=errors or (error(frames=frames),)))
    return found.line, found.text.splitlines()[1]


def test_a_call_in_the_cell_is_shown_with_its_line():
    assert (2, "Line 2 of your cell: model.fit(x, y, batch_size=256)") == place((IN_CELL,))


def test_a_function_of_the_cell_is_shown_with_the_line_that_called_it():
    inner = Frame(CELL, 3, "step", in_cell=True, is_user=True)
    source = "%%tfmem\nstep(a)\n    b = a * 2"
    assert (3, "Line 3 of your cell in step, called from line 2: b = a * 2") == place((IN_CELL, inner), source)


def test_an_imported_module_is_shown_with_the_cells_line_that_led_there():
    frames = (IN_CELL, Frame("/home/me/loop.py", 88, "train_step", is_user=True), Frame("/v/keras.py", 1, "f"))
    expected = "loop.py:88 in train_step, called from line 2 of your cell: model.fit(x, y, batch_size=256)"
    assert (2, expected) == place(frames)


def test_an_earlier_cells_function_is_called_that():
    frames = (IN_CELL, Frame("/tmp/ipykernel_7/99.py", 5, "build", is_user=True))
    expected = "Line 5 of an earlier cell in build, called from line 2 of your cell: model.fit(x, y, batch_size=256)"
    assert (2, expected) == place(frames)


def test_a_script_without_a_cell_is_shown_by_file_and_line():
    assert (None, "train.py:12.") == place((Frame("/home/me/train.py", 12, "<module>", is_user=True),))


def test_the_frames_outside_a_wrapped_exceptions_try_come_from_the_raised_one():
    chain = captured.load("2.21.0", "wrapped")
    assert (5, "Line 5 of your cell in load, called from line 8.") == place((), SOURCE, chain)


def test_a_comprehension_is_no_place_of_its_own():
    assert 3 == diagnose(recording(errors=captured.load("2.21.0", "eager"), series=())).line


def test_code_in_a_function_that_a_graph_runs_is_found_in_the_cell():
    found = diagnose(recording(errors=captured.load("2.21.0", "train_step"), series=()))
    assert (12, "train_step") == (found.line, found.frame.function)


# Cause


def cause(**changes):
    return diagnose(recording(**changes)).cause


def others(*held, total=24 * GIB, logical=False):
    processes = tuple(ProcessFacts(4121 + i, "alice", b) for i, b in enumerate(held))
    return Facts(devices=(DeviceFacts(GPU, total=total, others=processes, logical=logical),))


def test_numpys_own_failure_is_the_hosts():
    assert "host" == cause(errors=captured.load("2.21.0", "numpy"))


def test_other_processes_are_the_cause_where_the_request_would_fit_without_them():
    assert "other-process" == cause(facts=others(9 * GIB))


def test_other_processes_are_not_the_cause_where_they_hold_too_little():
    assert "too-big" == cause(facts=others(100 * MIB))


def test_other_processes_are_not_the_cause_of_a_limit_that_the_person_set():
    assert "too-big" == cause(facts=others(9 * GIB, logical=True))


def test_other_processes_on_memory_that_the_limit_includes_are_not_the_cause():
    assert "too-big" == cause(facts=others(9 * GIB, total=15 * GIB))


def test_values_of_earlier_cells_that_this_one_does_not_name_are_leftovers():
    assert "leftovers" == cause(facts=Facts(values=(NamedValue("cache", GIB, "tf.Tensor", GPU),)))


def test_values_of_earlier_cells_that_this_one_uses_are_no_leftovers():
    assert "too-big" == cause(facts=Facts(values=(NamedValue("x", GIB, "tf.Tensor", GPU),)))


def test_leftovers_on_the_host_are_not_the_cause_on_a_card():
    assert "too-big" == cause(facts=Facts(values=(NamedValue("cache", GIB, "numpy.ndarray"),)))


def test_bytes_in_use_ever_since_the_cell_began_that_no_name_holds_are_leftovers():
    curve = Series("allocator:GPU:0", (0.0, 12.0), (3 * GIB, 14 * GIB), 14 * GIB, "counter", 15 * GIB)
    assert "leftovers" == cause(series=(curve,), before=(("allocator:GPU:0", 3 * GIB),))


def test_a_trifle_with_a_name_is_not_said_to_hold_what_no_name_holds():
    curve = Series("allocator:GPU:0", (0.0, 12.0), (3 * GIB, 14 * GIB), 14 * GIB, "counter", 15 * GIB)
    facts = Facts(values=(NamedValue("Out[45]", 12, "tf.Tensor", GPU),))
    found = diagnose(recording(series=(curve,), before=(("allocator:GPU:0", 3 * GIB),), facts=facts))
    assert "Earlier runs left 3.0 GiB for which no name was found on GPU:0" in found.text
    assert [()] == [part.names for part in found.breakdown if part.kind == "earlier"]


def test_bytes_of_the_beginning_that_were_given_back_meanwhile_are_no_leftovers():
    assert "too-big" == cause(before=(("allocator:GPU:0", 3 * GIB),))


def test_bytes_of_the_beginning_that_a_value_of_the_cell_may_have_replaced_are_no_leftovers():
    curve = Series("allocator:GPU:0", (0.0, 12.0), (3 * GIB, 14 * GIB), 14 * GIB, "counter", 15 * GIB)
    facts = Facts(values=(NamedValue("z", 3 * GIB, "tf.Tensor", GPU, "cell"),))
    assert "too-big" == cause(series=(curve,), before=(("allocator:GPU:0", 3 * GIB),), facts=facts)


def test_weights_of_an_earlier_model_that_the_cell_built_its_own_around_are_no_leftovers():
    curve = Series("allocator:GPU:0", (0.0, 12.0), (3 * GIB, 14 * GIB), 14 * GIB, "counter", 15 * GIB)
    facts = Facts(models=(ModelFacts("model", weight_bytes=3 * GIB, device=GPU, earlier_bytes=3 * GIB),))
    assert "too-big" == cause(series=(curve,), before=(("allocator:GPU:0", 3 * GIB),), facts=facts)


def test_a_request_larger_than_device_only_where_the_whole_device_is_smaller():
    usual = Diagnosis(GPU, requested=2 * GIB, in_use=14 * GIB, limit=15 * GIB, cause="too-big")
    assert (False, True) == (usual.larger_than_device, replace(usual, requested=16 * GIB).larger_than_device)


def test_enough_free_bytes_in_no_piece_large_enough_are_fragmentation():
    assert "fragmentation" == cause(dumps=(dump(in_use=12 * GIB),))


def test_a_full_pool_whose_last_bytes_are_in_pieces_is_simply_too_small():
    assert "too-big" == cause(dumps=(dump(in_use=37 * GIB, limit=40 * GIB, pool=40 * GIB),))


@pytest.mark.parametrize(("held", "expected"), [(4, "leftovers"), (1, "too-big")])
def test_a_full_pool_in_pieces_is_full_of_leftovers_only_where_they_hold_the_request(held, expected):
    facts = Facts(values=(NamedValue("cache", held * GIB, "tf.Tensor", GPU),))
    assert expected == cause(dumps=(dump(in_use=37 * GIB, limit=40 * GIB, pool=40 * GIB),), facts=facts)


@pytest.mark.parametrize(("held", "expected"), [(2, "other-process"), (1, "too-big")])
def test_a_full_pool_in_pieces_lacks_another_process_memory_only_where_it_holds_the_request(held, expected):
    full = dump(in_use=37 * GIB, limit=40 * GIB, pool=40 * GIB)
    assert expected == cause(dumps=(full,), facts=others(held * GIB, total=48 * GIB))


def test_a_free_piece_that_is_large_enough_is_no_fragmentation():
    assert "unknown" == cause(dumps=(dump(in_use=12 * GIB, largest_free=3 * GIB),))


# Breakdown


def test_the_parts_name_what_they_are_made_of():
    facts = Facts(
        models=(
            ModelFacts("model", weight_bytes=800, optimizer_bytes=1600, device=GPU),
            ModelFacts("old_model", weight_bytes=300, optimizer_bytes=200, device=GPU, steps_before=0),
            ModelFacts("elsewhere", weight_bytes=99, device="GPU:1"),
        ),
        values=(
            NamedValue("x", 50, "tf.Tensor", GPU),
            NamedValue("z", 70, "tf.Tensor", GPU, "cell"),
            NamedValue("junk", 40, "tf.Tensor", GPU),
            NamedValue("array", 7000, "numpy.ndarray"),
        ),
    )
    found = diagnose(recording(facts=facts, series=(series(10_000),)))
    expected = [
        ("weights", 800, ("model",)),
        ("optimizer", 1600, ("model",)),
        ("values", 120, ("z", "x")),
        ("earlier", 540, ("old_model", "junk")),
        ("other", 6940, ()),
    ]
    assert expected == [(p.kind, p.bytes, p.names) for p in found.breakdown]


sizes = st.integers(0, 2**40)


@given(sizes, sizes, sizes, sizes, sizes, sizes)
def test_the_parts_always_sum_to_the_bytes_in_use_and_are_never_negative(in_use, weights, slots, value, left, before):
    facts = Facts(
        models=(ModelFacts("model", weight_bytes=weights, optimizer_bytes=slots, device=GPU),),
        values=(NamedValue("z", value, "tf.Tensor", GPU, "cell"), NamedValue("junk", left, "tf.Tensor", GPU)),
    )
    curve = Series("allocator:GPU:0", (0.0,), (in_use,), in_use)
    run = recording(facts=facts, series=(curve,), before=(("allocator:GPU:0", before),))
    parts = [part.bytes for part in diagnose(run).breakdown]
    assert (in_use, True) == (sum(parts), all(size > 0 for size in parts))


def test_a_part_that_is_cut_says_so():
    facts = Facts(models=(ModelFacts("model", weight_bytes=20 * GIB, device=GPU),))
    (part,) = diagnose(recording(facts=facts)).breakdown
    assert (14 * GIB, "no more than was in use: the named bytes are more than that") == (part.bytes, part.basis)


# Text


def test_the_paragraph_says_what_happened_where_what_was_needed_and_the_level():
    facts = Facts(epochs_done=0, steps_done=0)
    expected = (
        "Out of memory on GPU:0 after 12.0 s, in the first step of epoch 1.\n"
        "Line 2 of your cell: model.fit(x, y, batch_size=256)\n"
        "Activations of conv2d_4 needed 1.5 GiB more ([256,112,112,128] float32); "
        "1.0 of 15.0 GiB were free."
    )
    assert expected == diagnose(recording(facts=facts)).text


def test_the_detail_leaves_out_what_a_headline_says():
    expected = "Activations of conv2d_4 needed 1.5 GiB more ([256,112,112,128] float32); "
    assert expected + "1.0 of 15.0 GiB were free." == diagnose(recording()).detail


@pytest.mark.parametrize(
    ("device", "requested", "in_use", "limit", "expected"),
    [
        ("GPU:0", 84 * MIB, 208 * MIB, 300 * MIB, "92.0 of 300 MiB were free, probably in smaller pieces."),
        ("GPU:0", 20 * MIB, 10 * GIB, 12 * GIB, "2.0 of 12.0 GiB were free, probably in smaller pieces."),
        (
            "GPU:0",
            40 * MIB,
            12 * GIB - 50 * MIB,
            12 * GIB,
            "50.0 MiB of 12.0 GiB were free, probably in smaller pieces.",
        ),
        ("GPU:0", 84 * MIB, 250 * MIB, 300 * MIB, "50.0 of 300 MiB were free."),
        # No piece of a pool is smaller than 256 bytes: what is free now was not when so little was asked for.
        ("GPU:0", 8, 59 * MIB, 60 * MIB, "1.0 of 60.0 MiB were free, given back by others after it was asked for."),
        ("GPU:0", 256, 2 * GIB, 3 * GIB, "1.0 of 3.0 GiB were free, given back by others after it was asked for."),
        ("GPU:0", 4096, 59 * MIB, 60 * MIB, "1.0 of 60.0 MiB were free, probably in smaller pieces."),
        ("host", 1 * GIB, 3 * GIB, 8 * GIB, "this process held 3.0 of 8.0 GiB, and the system gave no more."),
    ],
)
def test_what_there_was_is_told_so_that_it_explains_the_failure_also_where_no_pieces_are_known(
    device, requested, in_use, limit, expected
):
    assert (
        needed(Diagnosis(device, requested, in_use=in_use, limit=limit)) == f"It needed {told(requested)}; {expected}"
    )


def told(requested):
    return f"{size(requested)} more"


def test_free_memory_of_another_order_than_the_request_has_a_unit_that_holds_it():
    known = dump(limit=4 * GIB, in_use=2 * GIB, pool=2 * GIB + 1500 * MIB, largest_free=4 * MIB)
    found = needed(Diagnosis("GPU:0", 900 * MIB, in_use=2 * GIB, limit=4 * GIB), None, known)
    assert found == "It needed 0.9 GiB more; 2.0 GiB were free, 0.5 of them not yet taken from the device."


def last_sentence(**changes):
    return diagnose(recording(**changes)).text.splitlines()[-1]


def test_the_other_processes_are_named():
    expected = (
        "Other processes hold 9.0 GiB of this card (pid 4121, alice): without them the request would have fitted."
    )
    assert expected == last_sentence(facts=others(9 * GIB))


def test_the_leftovers_are_named():
    expected = "Earlier runs left 1.0 GiB in cache on GPU:0: without that the request would have fitted."
    assert expected == last_sentence(facts=Facts(values=(NamedValue("cache", GIB, "tf.Tensor", GPU),)))


def garbage(size=4 * GIB, **facts):
    return {"discarded": (("allocator:GPU:0", size),), "facts": Facts(**facts)}


def test_what_the_cell_made_and_no_longer_uses_is_told():
    expected = "4.0 GiB were garbage: what this cell had made before and nothing uses any more."
    assert f"{expected} Without that the request would have fitted." == last_sentence(**garbage())
    trifle = (NamedValue("counter", 4, "tf.Tensor", GPU),)
    assert f"{expected} Without that the request would have fitted." == last_sentence(**garbage(values=trifle))
    cache = (NamedValue("cache", GIB, "tf.Tensor", GPU),)
    both = f"Earlier runs left 1.0 GiB in cache on GPU:0. {expected} Without both the request would have fitted."
    assert both == last_sentence(**garbage(values=cache))


def test_garbage_of_the_cell_is_a_part_of_its_own_and_its_cause():
    assert "leftovers" == cause(**garbage())
    parts = diagnose(recording(**garbage())).breakdown
    assert {"garbage": 4 * GIB, "other": 10 * GIB} == {part.kind: part.bytes for part in parts}
    assert "too-big" == cause(**garbage(GIB // 2))


def test_fragmentation_is_told_by_both_numbers():
    expected = "; 3.0 GiB were free, in pieces of at most 1.0."
    assert last_sentence(dumps=(dump(in_use=12 * GIB),)).endswith(expected)


def test_that_the_last_bytes_of_a_full_pool_were_in_pieces_is_told_too():
    nearly = dump(in_use=37 * GIB, limit=40 * GIB, pool=40 * GIB)
    assert last_sentence(dumps=(nearly,)).endswith("; 3.0 GiB were free, in pieces of at most 1.0.")


def test_what_the_pool_has_not_taken_yet_is_told_where_that_is_the_larger_piece():
    most = dump(in_use=13 * GIB, limit=16 * GIB, pool=int(14.6 * GIB))
    assert last_sentence(dumps=(most,)).endswith("; 3.0 GiB were free, 1.4 of them not yet taken from the device.")


def test_a_piece_that_was_nearly_enough_is_not_said_to_be_as_large_as_the_request():
    nearly = dump(in_use=12 * GIB, largest_free=int(1.53 * GIB) - 1000)
    assert last_sentence(dumps=(nearly,)).endswith("; 3.0 GiB were free, in pieces of just under 1.5.")


def test_a_request_above_the_limit_is_said_to_be_that():
    assert "That alone is more than the limit; with what was in use it comes to 2.0 GiB." == last_sentence(
        series=(series(GIB // 2, GIB),)
    )


def test_a_disguised_error_says_how_it_is_known():
    message = "Failed copying input tensor: Dst tensor is not initialized."
    found = last_sentence(errors=(error(message, kind="InternalError"),), dumps=(dump(),))
    assert "The error's own words do not speak of memory; the allocator's dump does." == found


def test_a_tiny_request_is_not_shown_as_zero():
    message = (
        "OOM when allocating tensor with shape[100] and type float on /device:GPU:0 by allocator GPU_0_bfc [Op:Add]"
    )
    assert last_sentence(errors=(error(message),)).startswith("The operation Add needed 400 B more ([100] float32);")


def test_host_memory_is_called_that():
    rss = series(2 * GIB, 16 * GIB, "host:rss")
    lines = diagnose(recording(errors=captured.load("2.21.0", "python"), series=(rss,))).text.splitlines()
    assert ("Out of host memory after 12.0 s.", "This process held 2.0 of 16.0 GiB.") == (lines[0], lines[-1])


def test_a_step_within_an_epoch_is_counted_from_one():
    facts = Facts(epochs_done=2, steps_done=4)
    assert "in step 5 of epoch 3." in diagnose(recording(facts=facts)).text


def test_a_model_that_only_a_function_of_an_earlier_cell_trains_is_no_leftover():
    facts = Facts(models=(ModelFacts("generator", weight_bytes=GIB, steps_before=0, device=GPU),), used=("generator",))
    assert "too-big" == cause(facts=facts)


def test_a_model_that_took_steps_in_the_cell_is_no_leftover():
    facts = Facts(models=(ModelFacts("net", weight_bytes=GIB, steps=2, steps_before=1, device=GPU),))
    assert "too-big" == cause(facts=facts)


def test_several_leftovers_are_listed_with_commas():
    values = (NamedValue("a", GIB, "tf.Tensor", GPU), NamedValue("b", GIB, "tf.Tensor", GPU))
    assert "Earlier runs left 2.0 GiB in a, b on GPU:0" in last_sentence(facts=Facts(values=values))


def test_little_that_earlier_cells_left_is_not_called_the_cause():
    assert "too-big" == cause(facts=Facts(values=(NamedValue("cache", 600 * MIB, "tf.Tensor", GPU),)))


def test_bytes_that_may_be_the_data_of_a_dataset_that_the_cell_uses_are_not_called_the_cause():
    curve = Series("allocator:GPU:0", (0.0, 12.0), (3 * GIB, 14 * GIB), 14 * GIB, "counter", 15 * GIB)
    facts = Facts(datasets=(DatasetFacts("x", batch=8),))
    assert "too-big" == cause(series=(curve,), before=(("allocator:GPU:0", 3 * GIB),), facts=facts)


@pytest.mark.parametrize(
    ("layer", "words"),
    [("Dense", "a Dense layer"), ("Embedding", "an Embedding layer"), ("dense_1", "the layer dense_1")],
)
def test_a_layer_is_named_as_it_is_known(layer, words):
    assert explanation._layer(layer) == words
