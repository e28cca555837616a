"""The step that ran out of memory, read from a real failure: exact, complete, and nothing is touched."""

import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.trace.functions import function_named_in
from tf_mem_magic.trace.observe import nearest_first

SCRIPT = """
import gc, json, sys, time
import numpy as np, keras, tensorflow as tf
from keras import layers
from tf_mem_magic.api import record
from tf_mem_magic.trace import observe
from tf_mem_magic.trace.sizes import at_length, batch_in, data_of

given = json.load(sys.stdin)
UNITS, BATCH, LAYERS = given["units"], given["batch"], given["layers"]
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input((UNITS,)), *(layers.Dense(UNITS, activation="relu") for _ in range(LAYERS)),
                          layers.Dropout(0.1), layers.Dense(1)])
model.compile("sgd", "mse", jit_compile=False)
x, y = np.zeros((BATCH * 2, UNITS), "float32"), np.zeros((BATCH * 2, 1), "float32")
model.fit(x[:4], y[:4], batch_size=2, verbose=0)
in_use = lambda: tf.config.experimental.get_memory_info("CPU:0")["current"]
found = {}
states = lambda: [
    np.random.get_state()[1].tolist(),
    [v.numpy().tolist() for v in model.variables if "seed" in v.path],
    float(sum(np.abs(v.numpy()).sum() for v in model.trainable_variables)),
    int(model.optimizer.iterations.numpy()),
]
real = observe.observe_step
def watched(error, namespace, batches, *more):
    gc.collect()
    before = states()
    tf.config.experimental.reset_memory_stats("CPU:0")
    held = in_use()
    step = real(error, namespace, batches, *more)
    found["peak while reading"] = tf.config.experimental.get_memory_info("CPU:0")["peak"] - held
    gc.collect()
    found["left"] = in_use() - held
    found["same state"] = states() == before
    found["step"] = [step.function, step.op, step.batch, step.other, step.why_not, step.seconds, step.compiled]
    found["layers"] = step.layers
    found["variables"] = sorted(step.variables)
    return step
observe.observe_step = watched
try:
    with record() as running:
        model.fit(x, y, batch_size=BATCH, verbose=0)
except tf.errors.ResourceExhaustedError:
    pass
report = running.report
diagnosis = report.diagnosis
found["status"], found["in use"] = report.status, diagnosis.in_use
found["parts"] = {part.kind: part.bytes for part in diagnosis.breakdown}
found["rows"] = [[r.layer, r.kind, r.bytes, r.shape, r.count] for r in diagnosis.layers]
observe.observe_step = real
report = diagnosis = running = None

@tf.function(reduce_retracing=True)
def train(rows, wanted):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(rows, training=True) - wanted))
    for weight, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        weight.assign_sub(0.01 * gradient)

def loop():
    for size in (2, 3, BATCH):
        train(tf.constant(x[:size]), tf.constant(y[:size]))

try:
    with record() as running:
        loop()
except tf.errors.ResourceExhaustedError:
    pass
diagnosis, step = running.report.diagnosis, running.report.recording.facts.step
found["loop"] = [step.batch, step.other, step.why_not, diagnosis.in_use]
found["loop's parts"] = {part.kind: part.bytes for part in diagnosis.breakdown}
found["loop's layers"] = [row.layer for row in diagnosis.layers if row.bytes >= 1 << 20]
scaled = layers.Normalization(axis=None)  # holds small tensors, not variables
scaled.adapt(x[:8] + 1.0)
small = tf.constant([1.0, 2.0])
class Shifted(layers.Layer):
    def call(self, rows):
        return rows + small[1]
normal = keras.Sequential([keras.Input((UNITS,)), scaled, Shifted(),
                           *(layers.Dense(UNITS, activation="relu") for _ in range(LAYERS)), layers.Dense(1)])
normal.compile("sgd", "mse", jit_compile=False)
try:
    with record() as running:
        normal.fit(x, y, batch_size=BATCH, verbose=0)
except tf.errors.ResourceExhaustedError:
    pass
step = running.report.recording.facts.step
found["small constants"] = [step.why_not, len(step.layers), bool(running.report.diagnosis.layers)]


@tf.function
def faded(picture, shares):
    return tf.reduce_sum(tf.tanh(model(tf.reshape(picture[None] * shares[:, None, None], (-1, UNITS)))))

@tf.function
def weighed(rows, weights):
    return tf.reduce_sum(tf.nn.relu(tf.nn.relu(rows) @ weights) ** 2)

def batch_of_call(function, *shapes):
    graph = function.get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes)).graph
    return batch_in(graph, [*shapes, *[None] * (len(graph.inputs) - len(shapes))])

found["batches"] = [batch_of_call(faded, (16, UNITS // 16), (8,)), batch_of_call(weighed, (8, 16), (16, 4))]

def drawing(iterator):
    rows, wanted = next(iterator)
    return tf.reduce_mean(tf.reduce_mean(tf.nn.relu(rows), (1, 2, 3)) - wanted)

def drawn(taken, *sides):
    spec = (tf.TensorSpec((*sides, 3)), tf.TensorSpec(()))
    made = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=spec).batch(4)
    graph = tf.function(drawing).get_concrete_function(iter(made)).graph
    flat, length = at_length(graph, [None] * len(graph.inputs), 4, (5, 7), time.thread_time() + 9, taken)
    return None if flat is None else [[list(shape) for shape in data_of(flat)], length]

found["any sides"] = [drawn((12, 20, 3), None, None), drawn((12, 20, 3), 12, None), drawn((12, 20, 1), None, None),
                      drawn((9, 20, 3), 12, None), drawn(None, None, None), drawn((12, 20, 3), 12, 20)]

def summed(iterator):
    rows = next(iterator)
    turns = tf.map_fn(lambda row: tf.nn.relu(row) * 2.0, tf.transpose(rows))
    return tf.reduce_sum(tf.shape(rows)) + tf.cast(tf.reduce_sum(turns), tf.int32)

def length_told_by(failed):
    made = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=tf.TensorSpec((None,))).batch(4)
    graph = tf.function(summed).get_concrete_function(iter(made)).graph
    return at_length(graph, [None] * len(graph.inputs), 4, failed, time.thread_time() + 9)[1]

found["told by"] = [length_told_by(shape) for shape in ((2,), (), (4,), (7, 4), (4, 9), (9, 9))]
found["eager"] = real(ValueError("no function in here"), {}, ()).why_not
print("FOUND" + json.dumps(found))
"""
UNITS, BATCH, LAYERS = 512, 8192, 6
ACTIVATION = UNITS * BATCH * 4


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, {"units": UNITS, "batch": BATCH, "layers": LAYERS}, bfc(150))


@pytest.mark.tf
def test_the_parts_of_a_real_failure_add_up_and_explain_nearly_all_of_it(found):
    parts = found["parts"]
    assert (found["status"], sum(parts.values())) == ("oom", found["in use"])
    assert parts.get("other", 0) <= 0.03 * found["in use"], parts


@pytest.mark.tf
def test_a_tensor_that_samples_of_any_length_bring_about_does_not_tell_theirs(found):
    """The shape of a shape, a single number and a row of the batch are there whatever the length is."""
    assert found["told by"] == [None, None, None, 7, 9, None]


@pytest.mark.tf
def test_the_activations_are_those_that_the_models_form_tells(found):
    """One activation a layer, in the forward pass at most one more: each has the same known size."""
    rows = [row for row in found["rows"] if row[1] == "activations" and row[2] >= ACTIVATION]
    assert rows
    assert all(bytes % ACTIVATION == 0 for _, _, bytes, _, _ in rows)
    assert sum(row[2] for row in rows) // ACTIVATION in range(2, LAYERS + 2)


@pytest.mark.tf
def test_the_rows_carry_the_layers_own_names(found):
    named = {row[0] for row in found["rows"] if row[2] >= ACTIVATION}
    assert named <= set(found["layers"])


@pytest.mark.tf
def test_the_step_is_known_with_its_batch_and_every_variable(found):
    function, op, batch, _, why_not, _, compiled = found["step"]
    assert (function[:12], bool(op), batch, why_not, compiled) == ("__inference_", True, BATCH, "", False)
    sizes = [size for part, _, size in found["variables"] if part == "weights"]
    assert sizes.count(UNITS * UNITS * 4) == LAYERS


@pytest.mark.tf
def test_reading_the_step_leaves_weights_random_state_and_memory_as_they_are(found):
    assert (found["same state"], found["left"]) == (True, 0)
    assert found["peak while reading"] < 1 << 20


@pytest.mark.tf
def test_a_loop_of_ones_own_is_read_at_the_sizes_that_it_was_called_with(found):
    batch, other, why_not, in_use = found["loop"]
    assert (batch, other, why_not) == (BATCH, BATCH // 2, "")
    parts = found["loop's parts"]
    assert sum(parts.values()) == in_use
    assert parts.get("other", 0) <= 0.03 * in_use, parts
    assert found["loop's layers"]
    assert set(found["loop's layers"]) <= set(found["layers"])


@pytest.mark.tf
def test_small_tensors_that_a_layer_holds_do_not_hinder_reading_the_step(found):
    why_not, layers, told = found["small constants"]
    assert (why_not, layers > LAYERS, told) == ("", True, True)


@pytest.mark.tf
def test_the_batch_is_what_most_of_the_step_is_computed_of(found):
    assert found["batches"] == [8, 8]


@pytest.mark.tf
def test_samples_of_any_size_have_the_one_that_the_model_takes(found):
    known = [[4, 12, 20, 3], [4]]
    assert found["any sides"] == [[known, [12, 20, 3]], [known, [12, 20, 3]], None, None, None, [known, None]]


@pytest.mark.tf
def test_an_error_without_a_graph_says_so(found):
    assert "operation by operation" in found["eager"]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("OOM when allocating [[{{node a}}]] [Op:__inference_train_step_12]", "__inference_train_step_12"),
        ("OOM when allocating tensor [Op:MatMul]", None),
        ("OOM [Op:__wrapped__MatMul_device_]", None),
    ],
)
def test_the_error_names_the_function_that_ran(message, name):
    assert function_named_in(message) == name


@pytest.mark.parametrize(("validating", "first"), [(False, "fit"), (True, "evaluate")])
def test_the_batch_is_that_of_the_call_that_failed(validating, first):
    seen = (BatchSeen("evaluate", 512, "arrays"), BatchSeen("fit", 64, "arrays"))
    assert {nearest_first(order, validating)[0].method for order in (seen, seen[::-1])} == {first}
