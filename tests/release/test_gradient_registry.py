"""Custom gradients live as long as their graphs: no longer, and no shorter."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import gc, json, weakref
from tf_mem_magic.release.gradient_registry import tie_gradients_to_graphs
found = {"before": tie_gradients_to_graphs()}
import tensorflow as tf
from tensorflow.python.framework import ops

def entries():
    return sum(name.startswith("CustomGradient-") for name in ops.gradient_registry.list())

@tf.custom_gradient
def tripled(x):
    return x * 2.0, lambda upstream: upstream * 3.0

def make():
    weight = tf.Variable(tf.ones((256, 1024)))
    @tf.function
    def inner(x):
        return tripled(x) * weight[0, 0]
    return inner, weakref.ref(weight)

kept, _ = make()
kept(tf.constant(1.0))
dropped, variable = make()
dropped(tf.constant(1.0))
del dropped
gc.collect()
in_use = lambda: tf.config.experimental.get_memory_info("CPU:0")["current"]
found["entries"], held = entries(), in_use()
found["tied"] = tie_gradients_to_graphs()
found["tied again"] = tie_gradients_to_graphs()
gc.collect()
found["back"] = held - in_use()
found["entries after"] = entries()

@tf.function
def outer(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = kept(x) ** 2
    return tape.gradient(y, x)

x = tf.constant(5.0)
with tf.GradientTape() as tape:
    tape.watch(x)
    y = kept(x)
found["gradient"] = float(tape.gradient(y, x))
found["in a new graph"] = float(outer(x))
del kept, outer, tape
gc.collect()
tie_gradients_to_graphs()
gc.collect()
found["entries at last"] = entries()
print("@@@" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def seen():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": "128", "TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=240)
    assert "@@@" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("@@@")[2])


@pytest.mark.tf
def test_without_tensorflow_there_is_nothing_to_tie(seen):
    assert 0 == seen["before"]


@pytest.mark.tf
def test_tensorflow_keeps_the_gradient_of_a_function_that_is_gone(seen):
    assert 2 == seen["entries"]


@pytest.mark.tf
def test_each_gradient_is_tied_once(seen):
    assert (2, 0) == (seen["tied"], seen["tied again"])


@pytest.mark.tf
def test_the_variables_of_the_function_that_is_gone_come_back(seen):
    assert 2**20 <= seen["back"]
    assert 1 == seen["entries after"]


@pytest.mark.tf
def test_a_function_that_is_kept_keeps_its_gradient(seen):
    assert 3.0 == seen["gradient"]


@pytest.mark.tf
def test_a_gradient_taken_later_in_a_new_graph_is_right(seen):
    assert 2 * 10.0 * 3.0 == seen["in a new graph"]


@pytest.mark.tf
def test_in_the_end_no_entry_stays(seen):
    assert 0 == seen["entries at last"]
