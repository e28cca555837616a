"""The bytes in use, chunk by chunk."""

from dataclasses import replace

import pytest

from tests.memory.steps import KIB, dense_stack
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.jsonio import decode, encode
from tf_mem_magic.core.recording import Cell, Dump, ErrorText, Recording, Series
from tf_mem_magic.core.step import OF_GRAPH, StepFacts, pack
from tf_mem_magic.diagnose.cause import diagnose

ERRORS = "tensorflow.python.framework.errors_impl"
WEIGHT = 256 * KIB
LAYERS = ("dense_0", "dense_1", "dense_2")


def oom(op, shape):
    text = (
        f"OOM when allocating tensor with shape[{shape}] and type float on /job:localhost/replica:0/task:0/device:GPU:0 "
        f"by allocator GPU_0_bfc\n\t [[{{{{node {op}}}}}]] [Op:__inference_step_12]"
    )
    return ErrorText("ResourceExhaustedError", text, (), (f"{ERRORS}.ResourceExhaustedError", f"{ERRORS}.OpError"))


def run(chunks, op="gradient_tape/m_1/dense_1_1/MatMul", packed=None, values=()):
    step = StepFacts(
        "__inference_step_12",
        op,
        8,
        pack([dense_stack(3)]) if packed is None else packed,
        variables=tuple(("weights", "m", WEIGHT) for _ in range(3)),
        layers=LAYERS,
    )
    model = ModelFacts("m", weight_bytes=3 * WEIGHT, device="GPU:0", steps_before=0)
    dump = Dump("GPU_0_bfc", "structured", 4 << 20, sum(size * n for _, size, n in chunks), chunks=tuple(chunks))
    return Recording(
        Cell("%%tfmem\nm.fit(x, y)"),
        1.0,
        (Series("allocator:GPU:0", peak=4 << 20, limit=4 << 20),),
        "oom",
        (oom(op, "8,256"),),
        (dump,),
        facts=Facts(models=(model,), values=values, step=step),
    )


# Weights; three activations (the first layer's input is the caller's); the gradients of two weights and of one layer.
FULL = [(WEIGHT, WEIGHT, 3), (8 * KIB, 8 * KIB, 3), (WEIGHT, WEIGHT, 1)]


def parts_of(recording):
    diagnosis = diagnose(recording)
    return {part.kind: part.bytes // KIB for part in diagnosis.breakdown}, diagnosis


def test_activations_and_gradients_are_told_apart_and_the_parts_add_up():
    parts, diagnosis = parts_of(run(FULL))
    assert parts["weights"] == 768
    assert parts["gradients"] >= 256
    assert parts["activations"] >= 8
    assert sum(part.bytes for part in diagnosis.breakdown) == diagnosis.in_use
    assert "other" not in parts


def test_what_a_chunk_has_too_much_is_rounding():
    parts, _ = parts_of(run([*FULL[:2], (WEIGHT, 2 * WEIGHT, 1)]))
    assert parts["rounding"] == 256


def test_what_nothing_explains_stays_a_part_of_its_own():
    parts, diagnosis = parts_of(run([*FULL, (8 * KIB, 8 * KIB, 40)]))
    assert parts["other"] >= 300
    assert sum(part.bytes for part in diagnosis.breakdown) == diagnosis.in_use


def test_the_layers_tell_name_kind_bytes_and_shape():
    _, diagnosis = parts_of(run(FULL))
    rows = {(row.layer, row.kind): row for row in diagnosis.layers}
    row = rows["dense_1", "gradients"]
    assert row.bytes >= WEIGHT
    assert row.shape == (256, 256)
    assert row.dtype == "float32"
    assert [row.bytes for row in diagnosis.layers] == sorted((row.bytes for row in diagnosis.layers), reverse=True)


def test_a_named_value_on_the_device_is_no_activation():
    named = NamedValue("kept", 8 * KIB, "tensor", "GPU:0", "cell")
    with_it, _ = parts_of(run([*FULL, (8 * KIB, 8 * KIB, 1)], values=(named,)))
    without, _ = parts_of(run(FULL))
    assert (with_it["values"], with_it["activations"]) == (8, without["activations"])


@pytest.mark.parametrize("packed", ["", "no step at all"])
def test_without_a_step_the_breakdown_is_what_names_tell(packed):
    parts, diagnosis = parts_of(run(FULL, packed=packed))
    assert set(parts) == {"weights", "other"}
    assert diagnosis.layers == ()


def test_an_operation_that_is_not_in_the_step_explains_nothing():
    parts, _ = parts_of(run(FULL, op="elsewhere/Op"))
    assert set(parts) == {"weights", "other"}


def test_a_recording_keeps_step_and_chunks_in_a_file():
    recording = run(FULL)
    assert decode(encode(recording), Recording) == recording


def test_an_array_that_was_there_before_is_an_input_and_not_what_earlier_cells_left():
    array = 100 * KIB
    value = NamedValue("x", array, "numpy.ndarray")
    recording = run([*FULL, (array, array + KIB, 1)], values=(value,))
    before = (("allocator:GPU:0", 3 * WEIGHT + array + KIB),)
    parts, diagnosis = parts_of(replace(recording, before=before))
    assert (parts["inputs"], parts["rounding"]) == (108, 1)  # the array and the batch that the step read
    assert "earlier" not in parts
    assert sum(part.bytes for part in diagnosis.breakdown) == diagnosis.in_use


def test_variables_that_only_the_graph_leads_to_are_weights():
    recording = run(FULL)
    step = replace(recording.facts.step, variables=(("weights", OF_GRAPH, WEIGHT),) * 3)
    parts, diagnosis = parts_of(replace(recording, facts=Facts(step=step)))
    assert parts["weights"] == 768
    assert "other" not in parts
    assert sum(part.bytes for part in diagnosis.breakdown) == diagnosis.in_use


def test_such_variables_that_were_there_when_the_cell_began_are_a_part_already():
    recording = run(FULL)
    step = replace(recording.facts.step, variables=(("weights", OF_GRAPH, WEIGHT),) * 3)
    before = (("allocator:GPU:0", 3 * WEIGHT),)
    parts, _ = parts_of(replace(recording, facts=Facts(step=step), before=before))
    assert (parts["earlier"], parts.get("weights", 0)) == (768, 0)
