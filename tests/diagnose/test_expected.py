"""The peak to expect after a change."""

from dataclasses import replace

import pytest

from tests.diagnose.test_chunks import FULL, WEIGHT, run
from tests.memory.steps import Maker, dense_stack
from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.core.step import OF_GRAPH, pack
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.expected import (
    ABOVE,
    ABOVE_ELSEWHERE,
    BELOW,
    expected,
    saves_nothing,
)

MIB = 1 << 20
BATCH = 2048
ACTIVATION = BATCH * 256 * 4


def failed(batch=BATCH, limit=16 * MIB, other=None, **step):
    """A stack of 8 dense layers at a batch that ran out after six of them."""
    activation = batch * 256 * 4
    recording = run([(WEIGHT, WEIGHT, 8), (activation, activation, 6)], op="m_1/dense_6_1/MatMul")
    packed = pack([dense_stack(8, batch=batch)] + ([dense_stack(8, batch=other)] if other else []))
    facts = replace(recording.facts, models=(replace(recording.facts.models[0], weight_bytes=8 * WEIGHT),))
    known = replace(
        facts.step, batch=batch, other=other, packed=packed, variables=(("weights", "m", WEIGHT),) * 8, **step
    )
    dump = replace(recording.dumps[0], limit=limit)
    recording = replace(recording, facts=replace(facts, step=known), dumps=(dump,))
    return recording, diagnose(recording)


def peak(**effect):
    recording, diagnosis = failed()
    return expected(recording, diagnosis, Effect(**effect))


@pytest.mark.parametrize("other", [None, BATCH // 2])
def test_a_smaller_batch_needs_less_and_the_weights_stay(other):
    recording, diagnosis = failed(other=other)
    whole, half, one = (expected(recording, diagnosis, Effect(batch=(BATCH, n))) for n in (BATCH, BATCH // 2, 1))
    assert whole.low > 1.4 * half.low > 2 * one.low
    assert whole.high > 1.4 * half.high > 2 * one.high
    assert one.low >= 8 * WEIGHT
    # Eight activations at most, and the gradients of weights.
    assert half.low <= 8 * WEIGHT + 10 * ACTIVATION // 2 + 3 * WEIGHT


@pytest.mark.parametrize(("threads", "above"), [(2, ABOVE), (0, ABOVE_ELSEWHERE)])
def test_the_range_lies_around_what_the_step_takes_and_is_wider_where_nothing_was_measured(threads, above):
    told = expected(*failed(threads=threads), Effect(batch=(BATCH, BATCH // 2)))
    low, high = told.low - 8 * WEIGHT, told.high - 8 * WEIGHT
    assert high / low >= above / BELOW * 0.99
    assert threads == 0 or high / low == pytest.approx(above / BELOW, rel=0.01)


def test_two_traces_and_one_tell_the_same_where_sizes_do_not_coincide():
    one, two = (expected(*failed(batch=640, other=other), Effect(batch=(640, 64))) for other in (None, 320))
    assert one == two


def test_the_peak_without_a_change_is_no_less_than_what_was_seen():
    recording, diagnosis = failed()
    now = expected(recording, diagnosis, Effect())
    assert now.low >= diagnosis.in_use + diagnosis.requested


def test_what_is_let_go_of_lowers_the_peak_by_its_bytes():
    before, after = peak(), peak(released=3 * MIB)
    assert (before.low - after.low, before.high - after.high) == (3 * MIB, 3 * MIB)


def test_what_the_cell_lets_go_of_is_there_as_it_begins_but_for_garbage():
    recording, diagnosis = failed()
    name = f"allocator:{diagnosis.device}"
    begun = replace(recording, before=((name, 90 * MIB),), garbage=((name, 20 * MIB),))
    effect = Effect(batch=(BATCH, 1), released=60 * MIB)
    told = expected(begun, diagnosis, effect)
    assert (told.low, told.high) == (70 * MIB, 70 * MIB)
    assert expected(begun, diagnosis, Effect(batch=(BATCH, 1))).high < 70 * MIB


def test_accumulation_adds_a_variable_for_each_weight():
    smaller, adding = peak(batch=(BATCH, 256)), peak(batch=(BATCH, 256), accumulates=True)
    assert (adding.low - smaller.low, adding.high - smaller.high) == (8 * WEIGHT, 8 * WEIGHT)


def test_sums_that_keras_clears_take_zeros_of_each_shape_besides():
    plain, keras = (peak(batch=(BATCH, 256), accumulates=True, sums=sums) for sums in (False, True))
    assert keras.high - plain.high >= WEIGHT


def test_an_optimizer_that_keeps_less_lowers_the_peak_by_what_it_does_not_keep():
    recording, diagnosis = failed()
    model = replace(recording.facts.models[0], optimizer_bytes=2 * WEIGHT)
    recording = replace(recording, facts=replace(recording.facts, models=(model,)))
    diagnosis = diagnose(recording)
    kept, none = (expected(recording, diagnosis, Effect(slots=slots)) for slots in (1, 0))
    assert kept.high - none.high == 8 * WEIGHT


def test_16_bits_need_less_and_surely_not_less_than_half_of_the_step():
    now, half = peak(), peak(policy="mixed_float16")
    assert half.high < now.high
    assert half.low >= 8 * WEIGHT


def test_layers_that_are_computed_again_do_not_hold_their_activations():
    recording, diagnosis = failed(layers=tuple(f"dense_{i}" for i in range(8)))
    now = expected(recording, diagnosis, Effect())
    pairs = (("dense_0", "dense_1"), ("dense_2", "dense_3"))
    some = expected(recording, diagnosis, Effect(recompute=pairs))
    assert now.low - some.low >= ACTIVATION


@pytest.mark.parametrize("effect", [Effect(staged=True), Effect(jit=True), Effect(recompute=())])
def test_what_cannot_be_computed_has_no_estimate(effect):
    assert expected(*failed(), effect) is None


def test_without_a_step_there_is_no_estimate():
    recording = run(FULL, packed="")
    assert expected(recording, diagnose(recording), Effect(batch=(8, 4))) is None


def test_a_step_that_xla_compiled_has_no_estimate():
    assert expected(*failed(compiled=True), Effect(batch=(BATCH, 1))) is None


def test_a_change_that_saves_nothing_says_so_with_the_numbers():
    recording, diagnosis = failed()
    assert "the peak would not fall" in saves_nothing(recording, diagnosis, Effect(batch=(BATCH, BATCH)))
    assert saves_nothing(recording, diagnosis, Effect(batch=(BATCH, BATCH // 4))) == ""


def test_what_the_failed_run_held_beyond_the_simulation_counts_at_other_batches_too():
    recording, diagnosis = failed(limit=64 * MIB)
    chunks = (*recording.dumps[0].chunks, (ACTIVATION, ACTIVATION, 20))
    dump = replace(recording.dumps[0], chunks=chunks, in_use=diagnosis.in_use + 20 * ACTIVATION)
    more = replace(recording, dumps=(dump,))
    half = Effect(batch=(BATCH, BATCH // 2))
    held = diagnose(more)
    beyond, usual = expected(more, held, half), expected(recording, diagnosis, half)
    assert beyond.low > 1.5 * usual.low
    assert expected(more, held, Effect(batch=(BATCH, BATCH))).low >= held.in_use - 8 * WEIGHT


@pytest.mark.parametrize(("threads", "stays"), [(0, True), (2, False)])
def test_workspace_stays_at_another_batch_where_it_is_not_known_from_the_sources(threads, stays):
    recording, diagnosis = failed(limit=64 * MIB, threads=threads)
    scratch = 5 * MIB + 256  # of no tensor's size
    dump = recording.dumps[0]
    dump = replace(dump, chunks=(*dump.chunks, (scratch, scratch, 1)), in_use=diagnosis.in_use + scratch)
    more = replace(recording, dumps=(dump,))
    held, quarter = diagnose(more), Effect(batch=(BATCH, BATCH // 4))
    assert {part.kind: part.bytes for part in held.breakdown}["workspace"] == scratch
    without, beside = expected(recording, diagnosis, quarter), expected(more, held, quarter)
    assert (beside.low - without.low == scratch) == stays


def test_what_chunks_have_beyond_the_request_widens_the_range_upwards():
    recording, diagnosis = failed(limit=64 * MIB)
    chunks = tuple((asked, size * 3 // 2, count) for asked, size, count in recording.dumps[0].chunks)
    in_use = sum(size * count for _, size, count in chunks)
    rounded = replace(recording, dumps=(replace(recording.dumps[0], chunks=chunks, in_use=in_use),))
    half = Effect(batch=(BATCH, BATCH // 2))
    tight, loose = expected(recording, diagnosis, half), expected(rounded, diagnose(rounded), half)
    assert loose.high > 1.1 * tight.high
    assert loose.low < 1.15 * tight.low


def test_in_a_validation_what_is_no_tensor_of_its_step_stays_at_any_batch():
    """The training's last batch is held beside it: 4 MiB that a smaller validation batch does not make smaller."""
    recording, diagnosis = failed()
    parts = tuple(part for part in diagnosis.breakdown if part.kind == "weights")
    held = replace(diagnosis, breakdown=(*parts, Part("other", 4 * MIB, "")), in_use=8 * WEIGHT + 4 * MIB)
    validating = replace(recording, facts=replace(recording.facts, validating=True))
    quarter = Effect(batch=(BATCH, BATCH // 4))
    without, beside = (expected(run, held, quarter) for run in (recording, validating))
    assert beside.low - without.low > 3 * MIB
    assert beside.low >= 8 * WEIGHT + 4 * MIB


def updating(values, width=256):
    """A dense layer whose optimizer computes so many values of the gradient at once."""
    made = Maker()
    x = made.argument("x", shape=(BATCH, width))
    kernel = made.op("Placeholder", "k", dtype="resource", shape=())
    read = made.op("ReadVariableOp", "m_1/dense_0_1/Read", kernel, shape=(width, width))
    out = made.op("MatMul", "m_1/dense_0_1/MatMul", x, read, shape=(BATCH, width))
    gradient = made.op("MatMul", "gradient_tape/m_1/dense_0_1/MatMul_1", x, out, shape=(width, width))
    parts = [made.op("Mul", f"adam/Mul_{i}", gradient, gradient, shape=(width, width)) for i in range(values)]
    update = made.op("AddN", "adam/AddN", *parts, shape=(width, width))
    made.op("AssignSubVariableOp", "adam/AssignSub", kernel, update, outputs=())
    return made.step()


@pytest.mark.parametrize("values", [64, 96, 128])
def test_a_lighter_optimizer_may_compute_less_of_the_gradients_than_the_one_that_ran(values):
    recording, diagnosis = failed(limit=64 * MIB)
    step = replace(recording.facts.step, packed=pack([updating(values)]), other=None)
    recording = replace(recording, facts=replace(recording.facts, step=step))
    kept, lighter = (expected(recording, diagnosis, Effect(slots=slots)) for slots in (None, 0))
    assert kept.low > 0.8 * values * WEIGHT
    assert lighter.low < 0.5 * values * WEIGHT
    assert lighter.high >= 0.8 * values * WEIGHT


def test_an_update_from_sums_counts_the_weights_of_the_model_that_trains_and_of_no_other():
    recording, diagnosis = failed()
    facts = recording.facts
    at_work = replace(facts.models[0], name="m", optimizer="Adam", trainable_bytes=8 * WEIGHT, steps=1)
    idle = replace(at_work, name="old", trainable_bytes=800 * WEIGHT, steps=5, steps_before=5)
    variables = (*facts.step.variables, ("weights", "old", 800 * WEIGHT))
    both = replace(facts, models=(idle, at_work), step=replace(facts.step, variables=variables))
    alone = replace(facts, models=(at_work,))
    effect = Effect(batch=(BATCH, BATCH // 2), accumulates=True, sums=True)
    told = [expected(replace(recording, facts=one), diagnosis, effect) for one in (alone, both)]
    # What another model's variables add as accumulators' room is told beside the step, not as an update of them.
    assert told[1].high - told[0].high <= 800 * WEIGHT


def test_variables_that_share_a_buffer_until_they_are_written_to_count_each():
    """What a loop's own Adam keeps of a weight begins as one array of zeros: a third of its bytes is not there yet."""
    recording, diagnosis = failed()
    variables = (("weights", OF_GRAPH, WEIGHT),) * 24
    step = replace(recording.facts.step, variables=variables)
    told = []
    for there in (24, 16):
        parts = tuple(part for part in diagnosis.breakdown if part.kind not in ("weights", "other"))
        held = replace(diagnosis, breakdown=(Part("weights", there * WEIGHT, ""), *parts))
        nameless = replace(recording, facts=replace(recording.facts, step=step, models=()))
        told.append(expected(nameless, held, Effect(batch=(BATCH, BATCH // 2))))
    assert told[0] == told[1]


def test_the_batch_that_the_step_reads_is_counted_once():
    recording, diagnosis = failed(limit=64 * MIB)
    (step,) = recording.facts.step.steps
    nodes = (replace(step.nodes[0], kind="IteratorGetNext"), *step.nodes[1:])
    drawing = replace(recording.facts.step, packed=pack([replace(step, nodes=nodes, given=())]))
    recording = replace(recording, facts=replace(recording.facts, step=drawing))
    told = []
    for batches in (1, 2):
        parts = (*diagnosis.breakdown, Part("inputs", batches * ACTIVATION, ""))
        in_use = diagnosis.in_use + batches * ACTIVATION
        held = replace(diagnosis, breakdown=parts, in_use=in_use)
        told.append(expected(recording, held, Effect(batch=(BATCH, BATCH // 2))))
    assert told[1].low - told[0].low == ACTIVATION // 2
    most = 8 * WEIGHT + 12 * ACTIVATION // 2 + 3 * WEIGHT
    assert told[0].low <= most


@pytest.mark.parametrize("part", [2, 4, 8])
def test_of_several_batches_the_next_one_lies_beside_the_step_on_a_processor(part):
    """As allocation events show: two drawn batches at the peak, where a run of one batch has one."""
    told = {}
    for kind in ("IteratorGetNext", "Placeholder"):
        recording, diagnosis = failed(limit=64 * MIB, threads=2)
        (step,) = recording.facts.step.steps
        nodes = (replace(step.nodes[0], kind=kind), *step.nodes[1:])
        drawing = replace(recording.facts.step, packed=pack([replace(step, nodes=nodes, given=())]))
        recording = replace(recording, facts=replace(recording.facts, step=drawing))
        told[kind] = expected(recording, diagnosis, Effect(batch=(BATCH, BATCH // part)))
    # What a step is given by its caller takes nothing of its own.
    drawn = ACTIVATION // part
    assert told["IteratorGetNext"].high - told["Placeholder"].high >= 1.5 * drawn
    assert told["IteratorGetNext"].low - told["Placeholder"].low <= 1.5 * drawn


def training(batch=BATCH, width=256):
    """A dense layer, its loss as Keras names it, and its gradient."""
    made = Maker()
    x = made.op("IteratorGetNext", "IteratorGetNext", shape=(batch, width))
    kernel = made.op("Placeholder", "k", dtype="resource", shape=())
    read = made.op("ReadVariableOp", "m_1/dense_0_1/Read", kernel, shape=(width, width))
    out = made.op("MatMul", "m_1/dense_0_1/MatMul", x, read, shape=(batch, width))
    wide = made.op("Conv2D", "m_1/wide_1/Conv2D", out, shape=(batch, 4 * width))
    loss = made.op("Sum", "compile_loss/mse/Sum", wide, shape=())
    gradient = made.op("MatMul", "gradient_tape/m_1/dense_0_1/MatMul_1", wide, loss, out, shape=(width, width))
    made.op("AssignSubVariableOp", "sgd/AssignSub", kernel, gradient, outputs=())
    return made.step(loss)


@pytest.mark.parametrize("own", [BATCH // 8, BATCH, 2 * BATCH])
def test_a_validation_that_keeps_its_batch_bounds_what_a_smaller_batch_of_the_training_takes(own):
    recording, diagnosis = failed(limit=64 * MIB)
    step = replace(recording.facts.step, packed=pack([training(), training(BATCH // 2)]), other=BATCH // 2)
    seen = BatchSeen("validation", own, "tf.data")
    recording = replace(recording, facts=replace(recording.facts, step=step, validation=seen))
    smaller = Effect(batch=(BATCH, BATCH // 4))
    alone, kept = (expected(recording, diagnosis, one) for one in (smaller, replace(smaller, validation=own)))
    # What a sample takes going forward: itself, the layer's output, and the wide one.
    forward = 8 * WEIGHT + 5 * ACTIVATION * own // BATCH
    if own < BATCH // 4:
        assert kept == alone
    else:
        assert kept.low > alone.low
        assert kept.low <= forward + ACTIVATION <= 1.2 * kept.high
        assert kept.low > 0.85 * forward
    validating = replace(recording, facts=replace(recording.facts, validating=True))
    assert expected(validating, diagnosis, replace(smaller, validation=own)) == expected(validating, diagnosis, smaller)
