"""``%%tfmem --trace`` in a real kernel: steps whose bytes are known, exact sums, and nothing is left however it ends."""

from __future__ import annotations

import json

import pytest

from tests.kernel import Kernel, bfc
from tests.script import found_by

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

BATCH, SIDE = 64, 32
FIRST, SECOND = (BATCH * SIDE * SIDE * filters * 4 for filters in (16, 8))
"""Bytes of the two convolutions' outputs."""

SETUP = f"""
import glob, importlib, json, os, tempfile, threading, time
import numpy as np, keras, tensorflow as tf
# Not written out: a notebook that names it is not traced.
running = importlib.import_module("tensorflow.python.profi" + "ler.profi" + "ler_v2")
keras.utils.set_random_seed(1)
layers = keras.layers
model = keras.Sequential([keras.Input(({SIDE}, {SIDE}, 3)),
    layers.Conv2D(16, 3, padding="same", activation="relu", name="first"),
    layers.Conv2D(8, 3, padding="same", name="second"), layers.Flatten(), layers.Dense(10, name="last")])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
optimizer = keras.optimizers.SGD()
x, y = np.zeros(({BATCH * 40}, {SIDE}, {SIDE}, 3), "float32"), np.zeros({BATCH * 40}, "int64")

def told(report):
    from tf_mem_magic.core import jsonio
    return json.loads(jsonio.encode(report.recording.traced))

def left():
    folders = glob.glob(tempfile.gettempdir() + "/tfmem-trace-*")
    folders += glob.glob(os.environ["TFMEM_CACHE"] + "/**/*.trace", recursive=True)
    threads = [t.name for t in threading.enumerate() if t.name == "tfmem-trace"]
    return folders + threads + ([] if running._profiler is None else ["a session"])

@tf.function
def train(rows, wanted):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(wanted, model(rows, training=True), True))
    optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))

def loop(steps):
    for i in range(steps):
        train(x[:{BATCH}], y[:{BATCH}])

def wait(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        train(x[:{BATCH}], y[:{BATCH}])
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    env = {**bfc(300), "TFMEM_CACHE": str(tmp_path_factory.mktemp("cache")), "CUDA_VISIBLE_DEVICES": ""}
    with Kernel(env) as kernel:
        assert kernel.run("%load_ext tf_mem_magic\n" + SETUP).status == "ok"
        yield kernel


def traced(kernel):
    return json.loads(kernel.value("json.dumps(told(rep))"))


@pytest.fixture(scope="module")
def fit(kernel):
    ran = kernel.run(f"%%tfmem --trace -o rep\nmodel.fit(x, y, batch_size={BATCH}, epochs=4, verbose=0)")
    assert ran.status == "ok", ran.errors
    return traced(kernel), ran, kernel.value("left()")


def test_two_or_three_steps_of_a_fit_are_traced_and_nothing_stays(fit):
    steps, _, left = fit
    assert (steps["why_not"], steps["device"], left) == ("", "CPU:0", [])
    assert steps["steps"] in (2, 3)
    assert len(steps["starts"]) == steps["steps"]


def test_at_every_moment_the_kinds_sum_to_the_allocators_counter(fit):
    steps, _, _ = fit
    assert sum(held for _, held in steps["parts"]) == steps["peak"]
    sums = [sum(values[i] for _, values in steps["course"]) for i in range(len(steps["times"]))]
    assert max(sums) == steps["peak"]
    assert (sums[0], sums[-1]) == pytest.approx((steps["in_use"][0], steps["in_use"][-1]), abs=1 << 20)
    assert all(value >= 0 for _, values in steps["course"] for value in values)


def test_the_weights_and_the_optimizers_values_are_those_of_the_model(fit, kernel):
    steps, _, _ = fit
    weights = kernel.value("sum(v.numpy().nbytes for v in model.variables)")
    assert dict(steps["parts"])["weights"] == pytest.approx(weights, rel=0.02)
    assert dict(steps["parts"])["optimizer"] == pytest.approx(2 * weights, rel=0.02)


def test_the_activations_are_those_of_the_models_form(fit):
    """Forward, both convolutions' outputs are alive together, and the first one as long as its gradient needs it."""
    steps, _, _ = fit
    held = {row["layer"]: row["bytes"] for row in steps["holders"] if row["kind"] == "activations"}
    assert held["first"] == FIRST
    most = max(dict(steps["course"])["activations"])
    assert FIRST + SECOND <= most <= FIRST + SECOND + BATCH * 1024


def test_the_report_tells_of_the_steps(fit):
    _, ran, _ = fit
    said = " ".join(ran.report_text.split())
    assert "Largest layers at the peak: second" in said
    assert "first" in said.partition("Largest layers at the peak:")[2]
    assert "profiler_session" not in ran.err
    assert any(">traced steps<" in data.get("text/html", "") for data in ran.reports.values())


def test_layers_and_updates_of_a_model_that_only_a_function_holds_have_their_names(kernel):
    code = f"""%%tfmem --trace -o rep
def main():
    net = keras.models.clone_model(model)
    net.compile("rmsprop", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    net.fit(x, y, batch_size={BATCH}, epochs=3, verbose=0)
main()
"""
    assert kernel.run(code).status == "ok"
    steps = traced(kernel)
    assert (steps["why_not"], steps["steps"] in (2, 3)) == ("", True)
    assert {row["layer"] for row in steps["holders"] if row["kind"] == "activations"} >= {"first"}
    assert max(dict(steps["course"])["updates"]) > 0


def test_a_loop_of_ones_own_is_traced_too(kernel):
    kernel.run("loop(2)")
    assert kernel.run("%%tfmem --trace -o rep\nwait(4)").status == "ok"
    steps = traced(kernel)
    assert (steps["why_not"], steps["steps"] in (2, 3), kernel.value("left()")) == ("", True, [])
    assert {"first", "second"} <= {row["layer"] for row in steps["holders"]}


def test_operations_by_themselves_are_no_steps_and_this_is_said(kernel):
    assert (
        kernel.run("%%tfmem --trace -o rep\nfor _ in range(25): train.python_function(x[:64], y[:64])").status == "ok"
    )
    steps = traced(kernel)
    assert steps["steps"] == 0
    assert any("No whole step" in note for note in steps["notes"])


def test_a_cell_that_ends_before_its_first_step_says_so(kernel):
    ran = kernel.run("%%tfmem --trace -o rep\n1 + 1")
    said = " ".join(ran.report_text.split())
    assert "No steps were traced: none was seen: a trace begins after the first step of a `fit`" in said


def test_a_fit_of_one_step_says_that_its_first_is_not_traced_and_what_to_do(kernel):
    ran = kernel.run(f"%%tfmem --trace -o rep\nmodel.fit(x[:{BATCH}], y[:{BATCH}], batch_size={BATCH}, verbose=0)")
    said = " ".join(ran.report_text.split())
    assert "`fit` was over before a step after its first was seen" in said
    assert "let it train for 5 steps or more" in said


def test_what_follows_the_only_step_is_not_shown_as_one(kernel):
    kernel.run(
        "class Slow(keras.callbacks.Callback):\n    def on_train_batch_end(self, batch, logs=None): time.sleep(1)"
    )
    fit = f"model.fit(x[:{BATCH}], y[:{BATCH}], batch_size={BATCH}, callbacks=[Slow()], verbose=0)"
    ran = kernel.run(f"%%tfmem --trace -o rep\nimport time\n{fit}")
    assert "`fit` was over before a step after its first was seen" in " ".join(ran.report_text.split())


def test_a_profiler_of_ones_own_is_left_alone(kernel):
    kernel.run("folder = tempfile.mkdtemp()\nrunning.start(folder)")
    ran = kernel.run(f"%%tfmem --trace -o rep\nmodel.fit(x, y, batch_size={BATCH}, epochs=3, verbose=0)")
    assert ran.status == "ok", ran.errors
    assert traced(kernel)["why_not"] == "another profiler was running, which was left alone"
    assert kernel.run("running.stop()").status == "ok"
    assert kernel.value("len(glob.glob(folder + '/**/*.xplane.pb', recursive=True))") == 1


def test_a_stop_while_it_traces_leaves_nothing(kernel):
    ran = kernel.run("%%tfmem --trace -o rep\nprint('going', flush=True)\nwait(30)", interrupt_after=2.0)
    assert (ran.status, kernel.value("left()")) == ("error", [])
    assert traced(kernel)["peak"] > FIRST


def test_running_out_of_memory_while_it_traces_leaves_nothing_and_is_told_of(kernel):
    """Last: after it TensorFlow's CPU is in no good state."""
    code = f"""%%tfmem --trace -o rep
def more():
    wait(1.0)
    rows = tf.zeros(({BATCH * 60}, {SIDE}, {SIDE}, 3))
    train(rows, tf.zeros({BATCH * 60}, "int64"))
more()
"""
    ran = kernel.run(code)
    assert (ran.status, kernel.value("rep.status"), kernel.value("left()")) == ("error", "oom", [])
    steps = traced(kernel)
    assert (steps["why_not"], steps["device"]) == ("", "CPU:0")
    assert sum(held for _, held in steps["parts"]) == steps["peak"] > FIRST


NOTHING = """
import json
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.record.step_trace import StepTrace

def told(in_fit, saw_fit, failed=False):
    trace, space = StepTrace(()), xplane_pb2.XSpace()
    space.planes.add(name="/host:CPU")
    trace._began_in_fit, trace._saw_fit, trace._data = in_fit, saw_fit, space.SerializeToString()
    return trace.tell(Facts(), {}, failed).why_not

print("FOUND" + json.dumps([told(True, True), told(False, True), told(False, False), told(True, True, failed=True)]))
"""


def test_a_trace_without_an_allocation_says_so_unless_it_only_saw_a_fit_end():
    in_fit, behind, elsewhere, failed = found_by(NOTHING)
    for said in (in_fit, behind):
        assert "`fit` was over before a step after its first was seen" in said
    assert "told of no allocation" in elsewhere
    assert "told of no allocation" in failed
