"""Whole arrays that Keras copied, found among the chunks of a dump."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.memory.steps import dense_stack
from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.facts import BatchSeen, Facts, NamedValue
from tf_mem_magic.core.recording import Cell, Dump, Recording
from tf_mem_magic.core.step import Node, Step, StepFacts, Tensor, pack
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.data.arrays import BASIS, Copied, asked_for, copied_whole, with_arrays
from tf_mem_magic.explain import explain

MIB = 1 << 20


def array(name, shape, dtype="float64", bytes=0):
    return NamedValue(name, bytes, "numpy.ndarray", None, "earlier", shape, dtype)


def recording(*values, batch=128, source="arrays", method="fit"):
    return Recording(
        Cell("%%tfmem\nmodel.fit(x, y)"), facts=Facts(values=values, batches=(BatchSeen(method, batch, source),))
    )


def dump(*chunks):
    return Dump("cpu", "structured", chunks=(*chunks, (4 * MIB, 4 * MIB, 1)))


def told(run, *chunks, device="CPU:0"):
    return [(one.name, one.shape, one.dtype) for one in copied_whole(run, dump(*chunks), device)]


@pytest.mark.parametrize(
    ("value", "asked", "found"),
    [
        # Keras makes its own floating-point type of an array before it copies it; integers stay as they are.
        (array("x", (2000, 10000)), 2000 * 10000 * 4, ("x", (2000, 10000), "float32")),
        (
            array("pictures", (600, 64, 64, 3), "float16"),
            600 * 64 * 64 * 3 * 4,
            ("pictures", (600, 64, 64, 3), "float32"),
        ),
        (array("tokens", (9000, 400), "int64"), 9000 * 400 * 8, ("tokens", (9000, 400), "int64")),
        (array("masks", (500, 96, 96), "bool"), 500 * 96 * 96, ("masks", (500, 96, 96), "bool")),
        # A part: by `validation_split=0.2`, by a slice, of a name that shows fewer rows than it keeps.
        (array("x", (1500, 72, 104)), 1200 * 72 * 104 * 4, ("", (1200, 72, 104), "float32")),
        (array("x", (5000, 784), "uint8"), 4001 * 784, ("", (4001, 784), "uint8")),
        (array("val", (1000, 9000), bytes=5500 * 9000 * 8), 4500 * 9000 * 4, ("", (4500, 9000), "float32")),
    ],
)
def test_an_array_or_a_part_of_its_rows_is_known_by_its_bytes(value, asked, found):
    assert told(recording(value), (asked, asked + 256, 1)) == [found]


def test_inputs_and_targets_of_one_shape_are_both_found_with_what_their_chunks_take():
    asked, chunk = 1200 * 72 * 104 * 4, 64 * MIB
    found = copied_whole(recording(array("x", (1500, 72, 104))), dump((asked, chunk, 2)), "CPU:0")
    assert [(one.bytes, one.taken) for one in found] == [(asked, chunk)] * 2


@pytest.mark.parametrize(
    ("run", "chunk", "device"),
    [
        # On a GPU Keras leaves arrays in the computer's memory; datasets and generators come in batches.
        (recording(array("x", (2000, 10000))), (2000 * 10000 * 4, 1), "GPU:0"),
        (recording(array("x", (2000, 10000)), source="tf.data"), (2000 * 10000 * 4, 1), "CPU:0"),
        (recording(array("x", (2000, 10000)), source="PyDataset"), (2000 * 10000 * 4, 1), "CPU:0"),
        # Batches of a layer's values have as many bytes as some rows.
        (recording(array("x", (5000, 64, 64, 3))), (1280 * 64 * 64 * 3 * 4, 1), "CPU:0"),
        (recording(array("x", (5000, 64, 64, 3))), (128 * 64 * 64 * 3 * 4, 1), "CPU:0"),
        # No more rows than there are; a single number a row tells nothing.
        (recording(array("x", (1000, 10000))), (1700 * 10000 * 4, 1), "CPU:0"),
        (recording(array("labels", (90_000_000,), "int64")), (3_000_001 * 8, 1), "CPU:0"),
        # A layer, cell by cell.
        (recording(array("x", (2000, 10000))), (2000 * 10000 * 4, 30), "CPU:0"),
    ],
)
def test_what_may_be_a_layers_own_is_no_array(run, chunk, device):
    asked, count = chunk
    assert told(run, (asked, asked, count), device=device) == []


@pytest.mark.parametrize(
    ("cell", "names", "count", "told_as"),
    [
        # One array as inputs and as targets; the other of its shape does not stand in the cell.
        ("net.fit(clean, clean)", ("noisy", "clean"), 2, ["clean", "clean"]),
        ("net.fit(x=clean, y=clean, validation_data=(v, v))", ("noisy", "clean", "noisy_2"), 2, ["clean", "clean"]),
        ("net.fit(noisy, clean)", ("noisy", "clean", "other"), 2, ["noisy", "clean"]),
        # Which of two it is, nothing tells; nor where functions of other cells hold the names.
        ("net.fit(noisy, clean)", ("noisy", "clean"), 1, [""]),
        ("train()", ("noisy", "clean", "other"), 2, ["", ""]),
        ("train()", ("noisy",), 1, ["noisy"]),
        # A name within another one is none.
        ("net.fit(noisy_2, y)", ("noisy", "noisy_2"), 1, ["noisy_2"]),
        ("net.fit(noisy, clean)", ("noisy", "clean"), 3, ["noisy", "clean", ""]),
    ],
)
def test_of_arrays_of_one_shape_those_are_named_that_the_cell_names(cell, names, count, told_as):
    """An autoencoder's `fit(clean, clean)` was told to copy `noisy` twice."""
    shape = (1500, 72, 104)
    run = recording(*(array(name, shape) for name in names))
    run = replace(run, cell=Cell(f"%%tfmem\n{cell}"))
    asked = 1500 * 72 * 104 * 4
    assert [name for name, *_ in told(run, (asked, asked, count))] == told_as


def stepped(run):
    step = StepFacts("__inference_step_1", "m_1/dense_1_1/MatMul", 128, pack([dense_stack(3)]), layers=("dense_1",))
    return replace(run, facts=replace(run.facts, step=step))


@pytest.mark.parametrize(
    ("value", "asked", "rows"),
    [
        (array("targets", (640, 10, 6000)), 512 * 10 * 6000 * 4, (512, 10, 6000)),
        (array("pictures", (3000, 96, 96, 3), "uint8"), 2560 * 96 * 96 * 3, (2560, 96, 96, 3)),
        # Of short rows a kernel's workspace is a multiple too.
        (array("x", (9000, 32, 32)), 1280 * 32 * 32 * 4, None),
    ],
)
def test_rows_that_are_whole_batches_are_told_from_a_layers_where_the_step_is_known(value, asked, rows):
    """``validation_split`` leaves 512 of 640 rows, four batches: they were taken for activations, and 9 % were missing."""
    run = recording(value)
    assert told(run, (asked, asked, 1)) == []
    assert [shape for _, shape, _ in told(stepped(run), (asked, asked, 1))] == ([] if rows is None else [rows])


def test_what_was_asked_for_in_vain_may_be_the_array_itself():
    run, asked = recording(array("x", (2001, 9001))), 2001 * 9001 * 4
    rounded = -(-asked // 256) * 256
    assert [asked_for(run, n, "CPU:0").name for n in (asked, rounded)] == ["x", "x"]
    assert asked_for(run, asked - 256 * 9, "CPU:0") is None
    assert asked_for(run, asked, "GPU:0") is None


@pytest.mark.parametrize(
    ("shape", "found"), [(None, "z"), ((400, 256), "z"), ((128, 800), None), ((409600,), None), ((256, 400), None)]
)
def test_what_the_error_says_of_the_request_decides(shape, found):
    """A cell's [128, 612] was taken for 306 rows of an array of 256 numbers each."""
    one = asked_for(recording(array("z", (400, 256))), 400 * 256 * 4, "CPU:0", shape)
    assert (one.name if one else None) == found


def test_values_of_a_loop_inside_the_step_are_the_steps():
    run = stepped(recording(array("z", (900, 256))))
    asked = 612 * 256 * 4
    assert told(run, (asked, asked, 1)) == [("", (612, 256), "float32")]
    (step,) = run.facts.step.steps
    inside = Step((Node("while/cell/add", "AddV2", outputs=(Tensor((128, 1224), "float32"),)),))
    looped = replace(run.facts.step, packed=pack([replace(step, bodies=(inside,))]))
    run = replace(run, facts=replace(run.facts, step=looped))
    assert told(run, (asked, asked, 1)) == []
    assert asked_for(run, asked, "CPU:0") is None


def test_arrays_are_no_rest_and_the_parts_sum_to_the_same():
    parts = (Part("weights", 5, "w"), Part("other", 95, "rest"))
    assert with_arrays(parts, (Copied("x", (9, 9), "float32", 60, 70),)) == (
        parts[0],
        Part("arrays", 70, BASIS, ("x",)),
        Part("other", 25, "rest"),
    )
    more = (Part("values", 5, "named", ("z",)), Part("other", 9, "rest"))
    found = with_arrays(more, (Copied("", (9, 9), "float32", 60, 70),))
    assert [(part.kind, part.bytes, part.names) for part in found] == [
        ("values", 5, ("z",)),
        ("arrays", 9, ()),
        ("other", 0, ()),
    ]
    assert with_arrays(parts, ()) == parts


def test_what_keras_copies_stays_whatever_the_batch(situations):
    """A real failure whose arrays were taken for activations: a smaller batch was told to fit, and failed."""
    run = situations("whole_arrays")
    outcome = explain(run)
    first, *others = outcome.offered
    # Tried: in four steps of 64 it took 234 of 274 MiB.
    assert first.key == "accumulate-gradients"
    assert first.estimate.low < 234 * MIB < first.estimate.high <= outcome.diagnosis.limit
    alone = {p.key: p.estimate for p in others}
    # 128 MiB of them are left beside any batch.
    assert alone["smaller-batch"].low > 128 * MIB
    streamed = next(p.source for p in others if p.key == "stream-data")
    assert "apply.stream([encoder_input, decoder_input], decoder_target, batch_size=" in streamed
    assert outcome.diagnosis.situation.text.startswith("`fit` copies the arrays that it is given to CPU:0 as a whole (")


def test_of_a_generator_nothing_is_said(situations):
    run = situations("whole_arrays")
    seen = tuple(replace(one, source="PyDataset") for one in run.facts.batches)
    diagnosis = diagnose(replace(run, facts=replace(run.facts, batches=seen)))
    assert diagnosis.situation is None or diagnosis.situation.kind != "arrays"


@pytest.fixture
def situations():
    from tests.diagnose.test_situation import recording as read

    return read
