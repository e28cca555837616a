"""What was being made when memory ran out, on recordings of real errors (tests/data/capture_situations.py)."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from tf_mem_magic.core.facts import BuildingFacts, Facts, GrownFacts, ModelFacts
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording, Series
from tf_mem_magic.core.step import StepFacts
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.oom import find_oom
from tf_mem_magic.diagnose.situation import find_situation
from tf_mem_magic.diagnose.situation_data import one_sample
from tf_mem_magic.explain import explain

OOM = "tensorflow.python.framework.errors_impl.ResourceExhaustedError"
FOLDER = Path(__file__).resolve().parents[1] / "data" / "situations"


def recording(name: str) -> Recording:
    return decode((FOLDER / f"{name}.json").read_bytes(), Recording)


def situation(name: str, **changes):
    diagnosis = diagnose(replace(recording(name), **changes))
    assert diagnosis is not None
    return diagnosis.situation


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (
            "flatten_dense",
            "weight",
            "The kernel of the layer `Dense(1024, …)`, [131072, 1024] float32, alone needs 512",
        ),
        ("weights_adam", "weights-fill", "Weights (64.1) and the optimizer's values (128) fill 192 of 200 MiB"),
        ("big_picture", "one-sample", "One sample alone needs it (1600 × 1200 × 32 values in one layer)"),
        ("one_hot_eager", "eager-data", "The result of one operation on all rows, [500, 64, 8000] float32, is 977 MiB"),
        ("resize_eager", "eager-data", "The result of one operation on all rows, [600, 224, 224, 3] float32"),
        ("pairwise", "eager-data", "The result of one operation on all rows, [1200, 1200, 64] float32"),
        (
            "validation",
            "validation",
            "The training of this epoch fitted; its validation needs more, in batches of 1,000",
        ),
        ("kfold_list", "models-kept", "`models` keeps 9 models of this cell, with their optimizers: 216 of the 24"),
        ("predict_concat", "outputs", "`predict` keeps the results of all batches on CPU:0, and they are joined there"),
        ("whole_arrays", "arrays", "`fit` copies the arrays that it is given to CPU:0 as a whole ([1200, 72, 104] fl"),
        (
            "style_transfer",
            "one-sample",
            "Three pictures at once need it (96 × 144 × 64 values in one layer), with what",
        ),
        ("shuffle_buffer", "pipeline", "The data pipeline holds 1,321 tensors of 192 KiB each"),
        ("epoch_end", "callback-call", "It ran out in `on_epoch_end` of a callback, beside the training"),
        ("tape_over_loop", "one-tape", "One gradient tape records all rounds of the loop"),
        ("jacobian", "jacobian", "The rows of a Jacobian (256 of them) are computed at once"),
        (
            "long_attention",
            "one-sample",
            "One sample alone needs it (8 × 2048 × 2048 values in one layer), with what is",
        ),
    ],
)
def test_what_was_being_made_is_told(name, kind, words):
    found = situation(name)
    assert found is not None
    assert found.kind == kind
    assert found.text.startswith(words)
    whole = diagnose(recording(name))
    assert whole is not None
    assert found.text in whole.text


def test_an_ordinary_step_that_ran_out_rules_nothing_out():
    assert situation("validation", facts=replace(recording("validation").facts, validating=False)) is None


@pytest.mark.parametrize("name", ["flatten_dense", "one_hot_eager", "pairwise"])
def test_nothing_is_offered_that_cannot_help_and_what_would_is_said(name):
    outcome = explain(recording(name))
    assert outcome.offered == ()
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.situation is not None
    assert outcome.diagnosis.situation.advice


@pytest.mark.parametrize("batch", [8, 16, 200])
def test_pictures_of_a_batch_are_not_told_to_be_made_smaller(batch):
    run = recording("style_transfer")
    step = replace(run.facts.step, batch=batch)
    assert situation("style_transfer", facts=replace(run.facts, step=step)) is None


def test_neither_kernels_nor_values_that_are_no_pictures_are_taken_for_some():
    run = recording("style_transfer")
    whole = diagnose(run)
    for shape in ((3, 3, 512, 512), (3, 144, 64), (3, 8, 12, 512), (12, 96, 144, 64)):
        layers = tuple(replace(row, shape=shape) for row in whole.layers)
        assert one_sample(run, replace(whole, layers=layers)) is None
    alone = tuple(replace(row, shape=(1, 96, 144, 64)) for row in whole.layers)
    found = one_sample(run, replace(whole, layers=alone))
    assert found.text.startswith("One picture alone needs it (96 × 144 × 64 values in one layer)")
    assert "smaller-batch" in found.rules_out


def test_a_picture_that_is_one_sample_gets_no_smaller_batch():
    keys = {proposal.key for proposal in explain(recording("big_picture")).offered}
    assert not keys & {"smaller-batch", "accumulate-gradients"}


def test_flattened_pictures_are_told_to_be_pooled_and_other_wide_layers_are_not():
    told = situation("flatten_dense")
    assert "GlobalAveragePooling2D" in told.code
    cell = recording("flatten_dense").cell
    plain = situation("flatten_dense", cell=replace(cell, source=cell.source.replace("layers.Flatten(), ", "")))
    assert "Flatten" not in plain.advice + plain.code
    assert "1,024" in plain.advice


def test_a_layer_is_named_only_where_one_of_that_width_is_in_the_notebook():
    cell = recording("flatten_dense").cell
    twice = situation("flatten_dense", cell=replace(cell, source=cell.source + "\nz = layers.Embedding(1024, 8)"))
    assert "Dense(1024" in twice.text
    both = situation("flatten_dense", cell=replace(cell, source=cell.source + "\nz = layers.Embedding(131_072, 1024)"))
    assert both.text.startswith("The kernel of a layer, [131072, 1024]")


def test_the_rows_of_all_pairs_are_written_with_the_name_of_the_array():
    assert "emb[i : i + 128, None]" in situation("pairwise").code


def test_a_weight_that_keras_lost_while_it_traced_is_an_out_of_memory():
    lost = replace(recording("lazy_net"), status="oom")
    found = diagnose(lost)
    assert found is not None
    assert found.requested == 65536 * 2048 * 4
    assert found.situation is not None
    assert found.situation.kind == "weight"


@pytest.mark.parametrize(
    "change",
    [
        {"dumps": ()},
        {"errors": (ErrorText("AttributeError", "'SymbolicTensor' object has no attribute 'handle'"),)},
        {"errors": (ErrorText("AttributeError", "'Net' object has no attribute 'handle'"),)},
    ],
)
def test_the_same_words_prove_nothing_without_a_dump_or_from_elsewhere(change):
    lost = replace(recording("lazy_net"), **change)
    assert find_oom(lost.errors, lost.facts, lost.dumps) is None


IN_USER_CODE = """in user code:

    File "/tmp/ipykernel_1/81.py", line 8, in train_step  *
        gradients = tape.gradient(loss, model.trainable_variables)
    File "{0}", line 37, in handle
        return self.value.handle

    AttributeError: 'SymbolicTensor' object has no attribute 'handle'
"""
STEP = (Frame("/tmp/ipykernel_1/81.py", 8, "train_step", False, True),)


OF_A_MODEL = ("__call__", "call", "forward", "train_step", "step", "compute_loss", "val_step", "train_one_epoch")
OF_DATA = ("prepare", "normalize", "stepwise", "callback", "load_training_set")


@pytest.mark.parametrize("name", ["one_hot_eager", "resize_eager", "pairwise"])
def test_what_a_model_of_ones_own_computes_is_no_operation_on_all_rows(name):
    (error,) = recording(name).errors[:1]
    for function in (*OF_A_MODEL, *OF_DATA):
        inner = Frame("/tmp/ipykernel_1/2.py", 7, function, in_cell=False, is_user=True)
        within = replace(error, frames=(error.frames[0], inner, *error.frames[1:]))
        assert (situation(name, errors=(within,)) is None) is (function in OF_A_MODEL), function


@pytest.mark.parametrize("op", ["MatMul_1", "Relu", "BiasAdd_3"])
def test_an_operation_of_a_graph_is_a_steps(op):
    full = recording("pairwise")
    (error,) = full.errors[:1]
    told = error.message.partition("}} ")[2].partition("[Op:")[0]
    error = replace(error, message=f"{told}\n\t [[{{{{node {op}}}}}]] [Op:__inference_f_12]")
    read = replace(full.facts, step=StepFacts("__inference_f_12", op, 1200))
    assert situation("pairwise", errors=(error,), facts=read) is None
    assert situation("pairwise", errors=(error,)) is not None, "without the graph nothing tells that it is one"


@pytest.mark.parametrize(
    ("file", "is_lost"),
    [
        ("/usr/lib/python3.11/site-packages/keras/src/backend/tensorflow/core.py", True),
        ("C:\\Python\\site-packages\\keras\\src\\backend\\tensorflow\\core.py", True),
        ("/home/me/my_layers.py", False),
    ],
)
def test_a_weight_that_was_lost_in_a_function_of_the_users_own_is_recognised_by_the_message(file, is_lost):
    error = ErrorText("AttributeError", IN_USER_CODE.format(file), STEP)
    lost = replace(recording("lazy_net"), errors=(error,))
    assert is_lost is (find_oom(lost.errors, lost.facts, lost.dumps) is not None)


def test_the_computers_own_memory_is_no_situation_of_a_device():
    full = recording("resize_eager")
    assert situation("resize_eager") is not None
    assert diagnose(replace(full, status="error")) is None


@pytest.mark.parametrize(
    ("function", "shape", "told"),
    [
        ("to_categorical", (49152000, 60000), "60,000 numbers for each of 49,152,000 labels"),
        ("to_categorical", (900, 40, 30000), "30,000 numbers for each of 36,000 labels"),
        ("pad_sequences", (49152000, 60000), None),
        ("to_categorical", (60000,), None),
    ],
)
def test_one_hot_labels_that_the_computer_has_no_room_for_want_a_sparse_loss(function, shape, told):
    frames = (Frame("/nb/1.py", 2, "<module>", is_user=True), Frame("/lib/numerical_utils.py", 96, function))
    size = prod(shape) * 8
    message = f"Unable to allocate {size / 2**40:.3g} TiB for an array with shape {shape} and data type float64"
    error = ErrorText("MemoryError", message, frames, ("builtins.MemoryError",))
    run = Recording(Cell("labels = keras.utils.to_categorical(y, n)"), status="oom", errors=(error,))
    found = diagnose(run).situation
    assert (found is None) == (told is None)
    if found is not None:
        assert told in found.text
        assert "sparse_categorical_crossentropy" in found.code


def grown(name: str, bytes_: int, device: str | None = "CPU:0", after: int = 48):
    facts = recording("validation").facts
    return replace(facts, grown=(GrownFacts(name, 0, after, bytes_, "tf.Tensor", device),))


def test_a_list_that_a_loop_filled_is_named_with_its_entries_and_bytes():
    found = situation("validation", facts=grown("grads", 100 << 20))
    assert found is not None
    assert found.kind == "growing"
    assert found.text.startswith("`grads` went from 0 to 48 entries in this cell, and its tensors hold 100")


@pytest.mark.parametrize(
    ("op", "requested", "code"),
    [
        ("ConcatV2", 100 << 20, "np.concatenate(grads)"),
        ("Concat", 100 << 20, "np.concatenate(grads)"),
        ("Pack", 101 << 20, "np.stack(grads)"),
        # One more entry, or another operation, joins nothing.
        ("ConcatV2", 2 << 20, "float(value)"),
        ("Mul", 100 << 20, "float(value)"),
    ],
)
def test_where_the_entries_are_joined_it_says_to_join_them_in_the_computers_memory(op, requested, code):
    """`tf.concat(preds, 0)` at the end takes all of them to the device, whatever they were kept as."""
    full = recording("one_hot_eager")
    facts = replace(full.facts, grown=(GrownFacts("grads", 0, 48, 100 << 20, "tf.Tensor", "CPU:0"),))
    diagnosis = replace(diagnose(replace(full, facts=facts)), op=op, requested=requested, in_use=150 << 20)
    found = find_situation(replace(full, facts=facts), diagnosis, None)
    assert (found.kind, code in found.code) == ("growing", True)
    assert ("cpu-offload" in found.helps) is ("np." in code)


@pytest.mark.parametrize(
    ("lines", "edited"),
    [
        (("both = tf.concat(preds, 0)",), ('with tf.device("CPU:0"):', "    both = tf.concat(preds, 0)")),
        (
            ("both = tf.concat(preds, axis=0)[:9]",),
            ('with tf.device("CPU:0"):', "    both = tf.concat(preds, axis=0)[:9]"),
        ),
        # Gradients, or a function of the notebook's: not certain.
        (("both = join(preds)",), None),
    ],
)
def test_on_a_gpu_what_joins_the_entries_of_a_list_is_computed_by_the_cpu(lines, edited):
    begun = ("%%tfmem", "preds = []", "for x in data:", "    preds.append(model(x))")
    where = "/job:localhost/replica:0/task:0/device:GPU:0"
    message = (
        f"{{{{function_node __wrapped__ConcatV2_device_{where}}}}} OOM when allocating tensor with shape[4000,32,32,4] and "
        f"type float on {where} by allocator GPU_0_bfc [Op:ConcatV2] name: concat"
    )
    frames = (Frame("c.py", len(begun) + 1, "<module>", True, True),)
    error = ErrorText("ResourceExhaustedError", message, frames, (OOM,))
    facts = Facts(
        "2.21.0",
        "3.15.1",
        True,
        models=(ModelFacts("model"),),
        grown=(GrownFacts("preds", 0, 40, 62 << 20, "tf.Tensor", "GPU:0"),),
        earlier_cells=("import tensorflow as tf",),
    )
    series = Series("allocator:GPU:0", (0.0, 1.0), (1, 131 << 20), 131 << 20, "counter", 150 << 20, "configured")
    run = Recording(Cell("\n".join((*begun, *lines))), 1.0, (series,), "oom", (error,), facts=facts)
    sources = [one.source for one in explain(run).offered if one.key == "cpu-offload"]
    assert sources == ([] if edited is None else ["\n".join((*begun, *edited))])


@pytest.mark.parametrize(
    "facts", [grown("grads", 1 << 20), grown("x", 100 << 20, device=None), grown("pair", 100 << 20, after=1)]
)
def test_a_small_list_one_in_host_memory_or_a_single_entry_is_no_cause(facts):
    assert situation("validation", facts=replace(facts, validating=False)) is None


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("validation", "smaller-batch"),
        ("kfold_list", "collect-garbage"),
        ("predict_concat", "outputs-to-host"),
        ("longer", "accumulate-gradients"),
        ("leftovers_and_batch", "accumulate-gradients"),  # 282 of 300 MiB, and nothing is let go of
        ("weights_adam", "lighter-optimizer"),
        ("big_picture", "in-tiles"),
        ("resize_eager", "rows-in-chunks"),
        ("jacobian", "jacobian-row-by-row"),
        ("epoch_end", "callback-in-batches"),
    ],
)
def test_the_first_button_is_the_one_that_was_seen_to_fit(name, first):
    assert explain(recording(name)).offered[0].key == first


@pytest.mark.parametrize("name", ["pairwise", "tape_over_loop"])
def test_what_only_the_code_itself_can_change_has_no_button_but_lines_to_copy(name):
    outcome = explain(recording(name))
    assert outcome.offered == ()
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.situation is not None
    assert outcome.diagnosis.situation.code


def test_a_tape_that_is_opened_in_the_loop_is_none_around_it():
    cell = recording("tape_over_loop").cell
    inside = "%%tfmem\nfor xb, yb in data:\n    with tf.GradientTape() as tape:\n        total = net(xb)\n"
    assert situation("tape_over_loop", cell=replace(cell, source=inside)) is None


def test_a_shuffled_pipeline_of_few_elements_is_not_what_filled_the_memory():
    full = recording("shuffle_buffer")
    few = tuple(replace(dump, chunks=((4, 256, 3),)) for dump in full.dumps)
    found = situation("shuffle_buffer", dumps=few)
    assert found is None or found.kind != "pipeline"


def test_results_that_fill_the_device_before_they_are_joined_are_told_too():
    full = recording("predict_concat")
    errors = tuple(
        replace(one, message=one.message.replace("ConcatV2", "Conv2D").replace("400,128", "4,128"))
        for one in full.errors
    )
    found = situation("predict_concat", errors=errors)
    assert found is not None
    assert found.kind == "outputs"
    assert "of 2.0 MiB each so far" in found.text


def test_samples_of_any_length_are_simulated_at_the_length_that_failed():
    step = recording("longer").facts.step
    assert step is not None
    assert step.data == ((16, 900), (16,))
    estimate = explain(recording("longer")).offered[0].estimate
    assert estimate is not None
    assert estimate.high <= 250 << 20


def test_leftovers_without_which_the_step_would_not_fit_either_are_said_to_be_so():
    told = explain(recording("leftovers_and_batch")).diagnosis
    assert told is not None
    assert "would have fitted, but not the whole step: about" in told.text


def test_two_changes_are_one_button_only_where_neither_fits_alone_or_a_very_small_batch_only():
    full = recording("leftovers_and_batch")
    # A Keras that cannot accumulate: where it can, that fits alone.
    offered = explain(replace(full, facts=replace(full.facts, keras="3.8.0"))).offered
    limit = 300 << 20
    assert offered[0].estimate.word(limit) in ("fits", "likely")
    fitting = [one for one in offered[1:] if one.estimate.word(limit) not in ("no", "tight")]
    assert [one.effect.batch for one in fitting] == [(256, 16)]
    assert "Alone nothing larger than batch 16 is sure to fit." in offered[0].why
    assert 'apply.free("old")' in offered[0].source
    assert all("+" not in one.key for name in ("validation", "longer") for one in explain(recording(name)).offered)


def test_a_pool_in_pieces_since_a_failure_gets_a_fresh_kernel_first_and_a_first_failure_does_not():
    full = recording("validation")
    dump = replace(full.dumps[0], in_use=60 << 20, pool=250 << 20, largest_free=70 << 20)
    errors = tuple(
        replace(one, message=one.message.replace("[1000,64,64,32]", "[200,64,64,32]")) for one in full.errors
    )
    pieces = replace(full, dumps=(dump,), errors=errors, facts=replace(full.facts, validating=False))
    again = explain(replace(pieces, failed_before=1))
    assert again.diagnosis is not None
    assert again.diagnosis.situation is not None
    assert again.diagnosis.situation.kind == "in-pieces"
    assert again.offered[0].key == "fresh-kernel"
    assert again.offered[0].takes_effect == "restart"
    assert all(one.key != "fresh-kernel" for one in explain(pieces).offered)


@pytest.mark.parametrize(
    ("growth", "begins"), [(False, "begins with one piece."), (True, "begins without them."), (None, "without them.")]
)
def test_a_fresh_kernel_begins_with_one_piece_only_where_the_pool_does_not_grow(growth, begins):
    full = recording("validation")
    dump = replace(full.dumps[0], in_use=60 << 20, pool=250 << 20, largest_free=70 << 20)
    errors = tuple(
        replace(one, message=one.message.replace("[1000,64,64,32]", "[200,64,64,32]")) for one in full.errors
    )
    devices = tuple(replace(one, growth=growth) for one in full.facts.devices)
    facts = replace(full.facts, validating=False, devices=devices)
    found = diagnose(replace(full, dumps=(dump,), errors=errors, facts=facts, failed_before=1))
    assert found is not None
    assert found.cause == "fragmentation"
    assert found.situation.kind == "in-pieces"
    assert found.situation.text.endswith(begins)
    assert "earlier run left" not in found.situation.text


def test_the_rows_of_a_jacobian_are_counted_only_where_an_axis_holds_nothing_else():
    full = recording("jacobian")
    told = "ReluGrad_1/pfor/Tile"
    mixed = tuple(
        replace(one, message=one.message.replace(told, "conv2d/Conv2DBackpropInput/pfor/Conv2DBackpropInput"))
        for one in full.errors
    )
    assert situation("jacobian").text.startswith("The rows of a Jacobian (256 of them) are")
    assert situation("jacobian", errors=mixed).text.startswith("The rows of a Jacobian are computed at once")


def test_of_a_list_of_tensors_and_one_of_models_that_which_holds_more_is_told():
    full = recording("kfold_list")
    small = (GrownFacts("preds", 0, 48, 70 << 20, "tf.Tensor", "CPU:0"),)
    large = (GrownFacts("preds", 0, 48, 230 << 20, "tf.Tensor", "CPU:0"),)
    assert situation("kfold_list", facts=replace(full.facts, grown=small)).holder == "models"
    assert situation("kfold_list", facts=replace(full.facts, grown=large)).holder == "preds"


def test_a_list_that_filled_the_device_is_told_also_where_a_further_model_was_being_built():
    full = recording("kfold_list")
    for small in (
        BuildingFacts("dense_18", "Dense", "kernel", (1024, 2048), "float32"),
        BuildingFacts("d", "", "", (8,), ""),
    ):
        assert situation("kfold_list", facts=replace(full.facts, building=small)).kind == "models-kept"
    tensors = (GrownFacts("outs", 0, 48, 230 << 20, "tf.Tensor", "CPU:0"),)
    assert situation("kfold_list", facts=replace(full.facts, building=small, grown=tensors)).kind == "growing"


def test_a_weight_larger_than_the_list_beside_it_is_what_did_not_fit():
    full = recording("kfold_list")
    built = BuildingFacts("wide", "Dense", "kernel", (65536, 1024), "float32")
    huge = tuple(replace(one, message=one.message.replace("[1024,2048]", "[65536,1024]")) for one in full.errors)
    found = situation("kfold_list", facts=replace(full.facts, building=built), errors=huge)
    assert found.kind == "weight"


def test_a_callback_that_computes_something_else_calls_no_model():
    full = recording("epoch_end")
    plain = tuple(
        replace(
            one,
            message=one.message.replace("Exception encountered when calling Conv2D.call().", "")
            .partition("Arguments received")[0]
            .replace("Conv2D", "ResizeBilinear"),
        )
        for one in full.errors[1:]
    )
    found = situation("epoch_end", errors=plain)
    assert found.kind == "callback"
    assert all(one.key != "callback-in-batches" for one in explain(replace(full, errors=plain)).offered)


def test_the_layer_that_was_being_built_is_named_also_where_keras_lost_the_error():
    full = recording("lazy_net")
    built = BuildingFacts("dense_2", "", "kernel", (65536, 2048), "float32")
    found = situation("lazy_net", facts=replace(full.facts, building=built), status="oom")
    assert found.text.startswith("The kernel of `dense_2`, [65536, 2048] float32, alone needs 512 MiB, which is more")
    named = situation("lazy_net", facts=replace(full.facts, building=replace(built, kind="Dense")), status="oom")
    assert named.text.startswith("The kernel of `dense_2` (a Dense layer), [65536, 2048] float32")
