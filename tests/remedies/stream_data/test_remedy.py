"""``stream-data``: what is edited and what is refused; then real Keras: same samples, same results, less host memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import Kernel
from tests.record.test_host_stop import lay_out
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, NamedValue, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.stream_data.remedy import propose

ROOT = Path(__file__).resolve().parents[3]
IMPORT = "from tf_mem_magic import apply\n"


def array(name, **more):
    return NamedValue(name, 4 << 30, **({"kind": "numpy.ndarray", "shape": (1000, 8)} | more))


PAIR = NamedValue("pair", 1 << 30, "tuple of numpy.ndarray")
PARTS = NamedValue("parts", 1 << 30, "dict of numpy.ndarray")


def ask(source, *, line=None, limit=16 << 30, earlier=(), values=None):
    facts = Facts(
        models=(ModelFacts("model"), ModelFacts("net.head")),
        values=(*(array(n) for n in "xyw"), PAIR, PARTS) if values is None else values,
        scalars=(
            ScalarFact("SHARE", 0.1),
            ScalarFact("FILE", "x.npy"),
            ScalarFact("AUTO", -1),
            ScalarFact("LONG", 300),
            ScalarFact("path", "x.npz"),
        ),
        datasets=(DatasetFacts("ds", batch=32), DatasetFacts("gen", "PyDataset", 32)),
        earlier_cells=("import tensorflow as tf\nimport keras", *earlier),
    )
    cell = Cell(source)
    diagnosis = Diagnosis("host", line=line, limit=limit, cause="host")
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("GPU:0", "it was not the computer's own memory that ran out, and this saves no other"),
        ("CPU:0", "it saves whole arrays and what a data pipeline holds, and neither is known to fill the memory here"),
    ],
)
def test_where_no_data_fill_the_device_the_reason_is_what_it_saves_there(device, reason):
    """In a CPU's pool whole arrays lie too: "this saves no other" stood beside a notebook that it had rescued."""
    cell = Cell("model.fit(ds)")
    run = Recording(cell, status="oom", facts=Facts(datasets=(DatasetFacts("ds", batch=32),)))
    (only,) = propose(Context(cell, run, Diagnosis(device, line=1)))
    assert (type(only), only.reason) == (Declined, reason)


@pytest.mark.parametrize(
    ("call", "edited"),
    [
        ("model.fit(x, y)", "model.fit(apply.stream(x, y, batch_size=32))"),
        ("model.fit(x, y, 64, 3)", None),
        ("model.fit(x, y, 64)", "model.fit(apply.stream(x, y, batch_size=64))"),
        ("model.fit(x)", "model.fit(apply.stream(x, batch_size=32))"),
        ("h = model.fit(x, y, epochs=2)", "h = model.fit(apply.stream(x, y, batch_size=32), epochs=2)"),
        ("model.fit(y=y, x=x)", "model.fit(x=apply.stream(x, y, batch_size=32))"),
        (
            "model.fit(x, y, validation_split=0.25, batch_size=8)",
            "model.fit(apply.stream(x, y, batch_size=8, but_last=0.25), validation_data=apply.stream(x, y, batch_size=8, shuffle=False, last=0.25))",
        ),
        (
            "model.fit(x, y, validation_split=SHARE)",
            "model.fit(apply.stream(x, y, batch_size=32, but_last=SHARE), validation_data=apply.stream(x, y, batch_size=32, shuffle=False, last=SHARE))",
        ),
        ("model.fit(x, y, validation_split=unknown)", None),
        ("model.fit(x, y, validation_split=0.25, validation_data=ds)", None),
        (
            "model.fit(x, y, validation_data=(x[:9], y[:9], w[:9]))",
            "model.fit(apply.stream(x, y, batch_size=32), validation_data=apply.stream(x[:9], y[:9], w[:9], batch_size=32, shuffle=False))",
        ),
        (
            "model.fit(x, y, 64, validation_data=(x, y), validation_batch_size=V)",
            "model.fit(apply.stream(x, y, batch_size=64), validation_data=apply.stream(x, y, batch_size=V, shuffle=False), validation_batch_size=V)",
        ),
        (
            "model.fit(x, y, 64, validation_data=pair)",
            "model.fit(apply.stream(x, y, batch_size=64), validation_data=apply.stream(*pair, batch_size=64, shuffle=False))",
        ),
        (
            "model.fit(x, y, batch_size=64, validation_data=load())",
            "model.fit(apply.stream(x, y, batch_size=64), validation_batch_size=64, validation_data=load())",
        ),
        (
            "model.fit(x, y, 64, validation_data=load())",
            "model.fit(apply.stream(x, y, batch_size=64), validation_data=load(), validation_batch_size=64)",
        ),
        ("model.fit(x, y, 64, validation_data=ds)", "model.fit(apply.stream(x, y, batch_size=64), validation_data=ds)"),
        ("model.fit([x, w], y)", "model.fit(apply.stream([x, w], y, batch_size=32))"),
        ("model.fit({'a': x}, {'b': y})", "model.fit(apply.stream({'a': x}, {'b': y}, batch_size=32))"),
        ("model.fit(parts, y)", "model.fit(apply.stream(parts, y, batch_size=32))"),
        ("model.fit({**more}, y)", None),
        ("model.fit([x, other], y)", None),
        (
            "model.fit(x, y, class_weight={0: 2.0})",
            "model.fit(apply.stream(x, y, batch_size=32), class_weight={0: 2.0})",
        ),
        ("model.fit(x, y, sample_weight=None)", "model.fit(apply.stream(x, y, batch_size=32), sample_weight=None)"),
        ("model.predict(x)", "model.predict(apply.stream(x, batch_size=32, shuffle=False))"),
        ("model.predict(x, 8, verbose=0)", "model.predict(apply.stream(x, batch_size=8, shuffle=False), verbose=0)"),
        ("model.predict(x, steps=4)", None),
        ("model.evaluate(x, y, 8)", "model.evaluate(apply.stream(x, y, batch_size=8, shuffle=False))"),
        (
            "def go(m, a):\n    m.fit(a, y)\ngo(model, x)",
            "def go(m, a):\n    m.fit(apply.stream(a, y, batch_size=32))\ngo(model, x)",
        ),
        ("def go(m, a):\n    m.fit(a, y)\ngo(model, load())", None),
        ("def go(x):\n    model.fit(x, y)\ngo(other)", None),
        ("def apply(a): pass\nmodel.fit(x, y)", None),
        (
            "model.fit(x,  # samples\n    y,  # targets\n    epochs=2)",
            "model.fit(apply.stream(x, y, batch_size=32),  # samples\n    # targets\n    epochs=2)",
        ),
        (
            "model.fit(\n    x,  # samples\n    y,\n    batch_size=4,\n    epochs=2)",
            "model.fit(\n    apply.stream(x, y, batch_size=4),  # samples\n    epochs=2)",
        ),
        (
            "model.fit(\n    x,  # samples\n    y,\n    batch_size=4  # small\n)",
            "model.fit(\n    apply.stream(x, y, batch_size=4),  # samples\n      # small\n)",
        ),
        ("model.fit(epochs=2, x=x, y=y)", "model.fit(epochs=2, x=apply.stream(x, y, batch_size=32))"),
        ("net.head.fit(x, y, batch_size=B)", "net.head.fit(apply.stream(x, y, batch_size=B))"),
        (
            "model.fit(x, y, sample_weight=w, shuffle=True)",
            "model.fit(apply.stream(x, y, sample_weight=w, batch_size=32), shuffle=True)",
        ),
        ("model.fit(x, y, validation_split=0.0)", "model.fit(apply.stream(x, y, batch_size=32), validation_split=0.0)"),
        ("model.fit(x, y, shuffle=flag)", None),
        ("model.fit(x, y, batch_size=None)", None),
        ("model.fit(x, y, steps_per_epoch=5)", None),
        ("model.fit(*data)", None),
        ("model.fit(ds)", None),
        ("model.fit(gen)", None),
        ("model.fit((x), y)", None),
        ("model.fit(x.T, y)", None),
        (
            "model.fit(x[chosen], y[chosen], 8)",
            "model.fit(apply.stream(x[chosen], y[chosen], batch_size=8))",
        ),
        (
            "model.fit(x.astype('float32').reshape(-1, 8, 1) / 255.0, y)",
            "model.fit(apply.stream(x.astype('float32').reshape(-1, 8, 1) / 255.0, y, batch_size=32))",
        ),
        (
            "model.fit(x[:, :3], y, validation_data=(x[i], y[i]))",
            "model.fit(apply.stream(x[:, :3], y, batch_size=32), "
            "validation_data=apply.stream(x[i], y[i], batch_size=32, shuffle=False))",
        ),
        ("model.fit(x[chosen], y[chosen], validation_split=0.5)", None),
        ("model.fit(x / other, y)", None),
        ("model.fit(x.mean(), y)", None),
        ("model.fit(pair[0], pair[1])", None),
        ("forest.fit(x, y)", None),
        ("model.fit(x, y); model.fit(x, y)", None),
        ("model.fit(\n    x,\n    y,\n    64,\n)", "model.fit(\n    apply.stream(x, y, batch_size=64),\n)"),
        ("print(f'{model.fit(x, y)}')", None),
    ],
)
def test_arrays_of_fit(call, edited):
    answer = ask(call)
    if edited is None:
        assert isinstance(answer, Declined), answer.source
    else:
        assert isinstance(answer, Proposal), answer.reason
        assert IMPORT + edited == answer.source


@pytest.mark.parametrize(
    ("load", "edited"),
    [
        ('x = np.load("x.npy")', 'x = np.load("x.npy", mmap_mode="c")'),
        ('x = np.load("x.npz")', None),
        ("x = np.load(path)", None),
        ('x = np.load(f"{folder}/x.npy")', 'x = np.load(f"{folder}/x.npy", mmap_mode="c")'),
        ('x = np.load(Path(folder) / "x.npy")', 'x = np.load(Path(folder) / "x.npy", mmap_mode="c")'),
        ('x = np.load(os.path.join(a, "x.npy"))', 'x = np.load(os.path.join(a, "x.npy"), mmap_mode="c")'),
        ("x = np.load(FILE)", 'x = np.load(FILE, mmap_mode="c")'),
        ('x = np.load("x.npy", allow_pickle=True)', None),
        ('x = np.load("x.npy") / 255', None),
        ('x = np.load("x.npy")\nx = x / 255', None),
    ],
)
def test_only_a_file_that_surely_can_be_mapped_is_mapped(load, edited):
    fit = "\nmodel.fit(apply.stream(x, y, batch_size=32))"
    assert IMPORT + (edited or load) + fit == ask(f"{load}\nmodel.fit(x, y)").source


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("d = ds.cache()", 'import tempfile\nd = ds.cache(tempfile.mkdtemp() + "/cache")'),
        ("d = ds.prefetch(500)", "d = ds.prefetch(2)"),
        (
            "d = tf.data.TFRecordDataset(files).map(f).cache().batch(8)",
            'import tempfile\nd = tf.data.TFRecordDataset(files).map(f).cache(tempfile.mkdtemp() + "/cache").batch(8)',
        ),
        ("d = ds.prefetch(tf.data.AUTOTUNE)", "d = ds.prefetch(2)"),
        ("d = ds.prefetch(2)", None),
        ("d = ds.cache('file')", None),
        ("d = spark.cache()", None),
        ("d = gen.prefetch(500)", None),
    ],
)
def test_caches_and_queues_of_tf_data(source, edited):
    answer = ask(source)
    assert edited == (answer.source if isinstance(answer, Proposal) else None)


def test_shuffled_samples_come_in_another_order_and_that_is_said():
    shuffled, ordered = ask("model.fit(x, y)"), ask("model.fit(x, y, shuffle=False)")
    assert ("same effective batch", "same results") == (shuffled.preserves, ordered.preserves)
    assert any("another order" in caveat for caveat in shuffled.caveats)


def test_a_file_that_ran_out_while_it_was_loaded_is_mapped():
    source = 'x = np.load("x.npy")\ny = np.load("y.npy")\nmodel.fit(x, y)'
    mapped = source.replace('.npy")', '.npy", mmap_mode="c")').replace("x, y", "apply.stream(x, y, batch_size=32)")
    assert IMPORT + mapped == ask(source, line=1, values=()).source


def test_a_mapped_file_of_an_earlier_cell_is_an_array():
    answer = ask("model.fit(x, y)", values=(array("y"),), earlier=('x = np.load("x.npy", mmap_mode="r")',))
    assert IMPORT + "model.fit(apply.stream(x, y, batch_size=32))" == answer.source


def test_a_mapped_file_that_was_replaced_is_not():
    cells = ('x = np.load("x.npy", mmap_mode="r")', "x = load()")
    assert isinstance(ask("model.fit(x, y)", values=(array("y"),), earlier=cells), Declined)


def test_texts_are_not_streamed():
    assert isinstance(ask("model.fit(x, y)", values=(array("x", dtype="object"), array("y"))), Declined)


@pytest.mark.parametrize(
    "dtype", ["float32, object", "object, int64", "float32, str224", "float32, other", "tf.Tensor"]
)
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("model.fit(parts, y)", "dict of numpy.ndarray"),
        ("model.evaluate(x=parts, y=y)", "tuple of numpy.ndarray"),
        ("p = model.predict(parts, batch_size=64)", "list of numpy.ndarray"),
        ("def run(given):\n  return model.fit(given, y, epochs=3)\nrun(parts)", "dict of numpy.ndarray"),
        ("model.fit({'all': parts, 'more': x}, y)", "list of numpy.ndarray"),
    ],
)
def test_containers_that_hold_texts_too_are_not_streamed(call, kind, dtype):
    """Keras makes tensors of arrays of texts, but takes none of them from a dataset of Python."""
    parts = NamedValue("parts", 4 << 30, kind, dtype=dtype)
    assert isinstance(ask(call, values=(parts, array("x"), array("y"))), Declined)


def test_containers_of_numbers_are_streamed():
    parts = NamedValue("parts", 4 << 30, "dict of numpy.ndarray", dtype="float32, int64")
    assert "apply.stream(parts, y," in ask("model.fit(parts, y)", values=(parts, array("y"))).source


def test_validation_data_of_texts_stay_as_they_are():
    pair = NamedValue("pair", 1 << 30, "tuple of numpy.ndarray", dtype="object, int64")
    changed = ask("model.fit(x, y, validation_data=pair)", values=(array("x"), array("y"), pair)).source
    assert "validation_data=pair" in changed


def test_small_arrays_are_not_the_reason():
    small = tuple(array(n, shape=(9,)) for n in "xy")
    small = tuple(NamedValue(v.name, 1 << 20, v.kind, None, "earlier", v.shape) for v in small)
    assert "hold only 2.0 MiB" in ask("model.fit(x, y)", values=small).reason


@pytest.mark.parametrize(
    "source",
    [
        "one = np.expand_dims(load(path), axis=0)\nmodel.predict(one)",
        "x = np.array([x])\nmodel.predict(x, verbose=0)",
        "for seed in seeds:\n    ids = pad_sequences([t(seed)], maxlen=9)\n    model.predict(ids)",
        "model.predict([x[:1], y[0:1]])",
    ],
)
def test_one_sample_is_nothing_to_stream(source):
    answer = ask(source)
    assert isinstance(answer, Declined), answer.diff
    assert answer.reason == "`predict` gets one sample: there is nothing to cut into batches"


@pytest.mark.parametrize(
    "call", ["fit(x, y, batch_size=256)", "evaluate(x=x, y=y)", "predict(x, verbose=0)", "fit(x, y, sample_weight=w)"]
)
def test_a_model_of_keras_2_takes_no_data_of_keras_3(call):
    values = tuple(array(name) for name in "xyw")
    facts = Facts("2.21.0", "2.19.0", models=(ModelFacts("model"),), values=values, earlier_cells=("import tf_keras",))
    cell = Cell(f"%%tfmem\nmodel.{call}")
    diagnosis = Diagnosis("host", line=2, limit=16 << 30, cause="host")
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    assert isinstance(only, Declined)
    assert only.reason.endswith("of Keras 2 (tf_keras) takes no data of Keras 3, which this makes")


def test_tensors_and_lists_are_refused():
    values = (array("x", kind="tf.Tensor"), array("y"))
    assert "NumPy arrays by their names" in ask("model.fit(x, y)", values=values).reason


@given(
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n%%time\n", "\n\n%%tfmem\n"]),
    st.lists(
        st.sampled_from(
            ["# note", "%matplotlib inline", "", "ü = 'ü'", "!ls", "def f():\n    return f'{ü}'", "b = 1 + \\\n  2"]
        ),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=150, deadline=None)
def test_every_other_byte_stays(lead, noise, end):
    fit = "h = model.fit(\n    x, y,\n    epochs=2)  # train\n"
    source = (lead + "".join(f"{line}\n" for line in noise) + fit).replace("\n", end)
    answer = ask(source)
    back = answer.source.replace("apply.stream(x, y, batch_size=32)", "x, y").replace(IMPORT.replace("\n", end), "")
    assert source == back
    assert hasattr(read_cell(answer.source), "tree")


SCRIPT = """
import json, os, sys, resource
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
what, folder = sys.argv[1], sys.argv[2]

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
def reset():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
def model():
    keras.utils.set_random_seed(3)
    m = keras.Sequential([keras.Input((COLUMNS,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
    m.compile("sgd", "mse")
    return m

COLUMNS = 512
found = {}
if what == "same":
    COLUMNS = 6
    rng = np.random.default_rng(0)
    x = rng.standard_normal((103, 6)); y = rng.standard_normal(103); w = rng.random(103)
    def losses(*args, **more):
        m = model()
        return [m.fit(*args, verbose=0, epochs=3, **more).history["loss"], [v.tolist() for v in m.get_weights()]]
    found["arrays"] = losses(x, y, batch_size=16, sample_weight=w, shuffle=False)
    found["stream"] = losses(apply.stream(x, y, sample_weight=w, batch_size=16, shuffle=False), shuffle=False)
    found["other order"] = losses(apply.stream(x, y, sample_weight=w, batch_size=16))
    batches = apply.stream(np.arange(103), batch_size=16)
    epochs = []
    for _ in range(2):
        epochs.append([int(v) for i in range(len(batches)) for v in batches[i][0]]); batches.on_epoch_end()
    found["epochs"] = epochs
    found["lengths"] = [len(batches), len(batches[6][0])]
    found["dtypes"] = [str(part.dtype) for part in apply.stream(x, np.arange(103))[0]]
    keras.utils.set_random_seed(5); one = apply.stream(x, y)[0][0].tolist()
    keras.utils.set_random_seed(5); found["reproducible"] = one == apply.stream(x, y)[0][0].tolist()
    for name, call in {
        "lengths differ": lambda: apply.stream(x, y[:5]), "rows": lambda: apply.rows((x, y[:5])),
        "empty part": lambda: apply.stream(x, last=0.999), "both parts": lambda: apply.stream(x, last=0.5, but_last=0.5),
        "weights alone": lambda: apply.stream(x, sample_weight=w), "batch": lambda: apply.stream(x, batch_size=0)}.items():
        try: call()
        except ValueError as error: found[name] = str(error)
    parts = [apply.stream(np.arange(103), shuffle=False, **{side: 0.3}) for side in ("but_last", "last")]
    found["parts"] = [parts[0].count, parts[1].count, int(parts[1][0][0][0])]
    seen = []
    class Noted(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None): seen.append(batch)
    model().fit(apply.stream(x, y, batch_size=16), verbose=0, epochs=2, callbacks=[Noted()])
    found["steps"] = seen
else:
    rows = 40_000
    path = os.path.join(folder, "x.npy")
    if not os.path.exists(path):
        np.save(path, np.ones((rows, COLUMNS), "float32"))
    y = np.zeros((rows, 1), "float32")
    m = model(); m.fit(np.ones((64, COLUMNS), "float32"), y[:64], verbose=0)
    m.fit(apply.stream(np.ones((64, COLUMNS), "float32"), y[:64]), verbose=0)
    x = np.load(path, mmap_mode="c" if what == "mapped" else None)
    reset(); before = peak()
    if what == "arrays": m.fit(x, y, batch_size=256, verbose=0)
    elif what in ("stream", "mapped"): m.fit(apply.stream(x, y, batch_size=256), verbose=0)
    else:
        ds = tf.data.Dataset.from_generator(lambda: iter(apply.stream(x, y, batch_size=256, shuffle=False)),
            output_signature=(tf.TensorSpec((None, COLUMNS)), tf.TensorSpec((None, 1))))
        if what == "cache": ds = ds.cache()
        if what == "cache on disk": ds = ds.cache(os.path.join(folder, "cache"))
        if what == "queue": ds = ds.prefetch(1000)
        if what == "short queue": ds = ds.prefetch(2)
        m.fit(ds, verbose=0)
    found = {"grown": peak() - before, "data": x.nbytes + y.nbytes}
print("FOUND" + json.dumps(found))
"""


def run(what, folder):
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, what, str(folder)], env=env, capture_output=True, text=True, timeout=280
    )
    assert "FOUND" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.partition("FOUND")[2])


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    return run("same", tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    found = {what: run(what, folder) for what in ("arrays", "stream", "cache", "cache on disk", "queue", "short queue")}
    return {what: one["grown"] / one["data"] for what, one in found.items()}


@pytest.mark.tf
class TestWithKeras:
    def test_without_shuffling_losses_and_weights_are_those_of_the_arrays(self, same):
        assert same["arrays"] == same["stream"]

    def test_shuffled_training_takes_another_order(self, same):
        assert same["arrays"] != same["other order"]

    def test_every_epoch_has_every_sample_once_in_a_new_order(self, same):
        first, second = same["epochs"]
        assert (list(range(103)), list(range(103))) == (sorted(first), sorted(second))
        assert first != second

    def test_the_last_batch_may_be_smaller(self, same):
        assert [7, 7] == same["lengths"]

    def test_fit_takes_as_many_steps_as_with_arrays(self, same):
        assert [*range(7), *range(7)] == same["steps"]

    def test_values_come_in_keras_own_precision_and_integers_as_they_are(self, same):
        assert ["float32", "int64"] == same["dtypes"]

    def test_keras_random_seed_makes_the_order_reproducible(self, same):
        assert same["reproducible"]

    def test_wrong_arguments_are_refused(self, same):
        assert "different numbers of samples: 5, 103" in same["lengths differ"]
        assert "at least 1" in same["batch"]
        assert "different numbers of samples: 5, 103" in same["rows"]
        assert "leaves one side without any" in same["empty part"]
        assert "exclude each other" in same["both parts"]
        assert "need targets" in same["weights alone"]

    def test_a_split_takes_the_samples_that_keras_takes(self, same):
        assert [72, 31, 72] == same["parts"]


@pytest.mark.tf
@pytest.mark.timeout(900)
class TestHostMemory:
    def test_arrays_grow_the_process_by_a_copy_and_a_stream_by_little(self, grown):
        assert grown["arrays"] > 0.9
        assert grown["stream"] < 0.4

    def test_a_cache_on_disk_holds_less_than_one_in_memory(self, grown):
        assert grown["cache"] > 0.9
        assert grown["cache on disk"] < 0.4

    def test_a_short_queue_holds_less_than_a_long_one(self, grown):
        assert grown["short queue"] < grown["queue"]


LIVE = """%load_ext tf_mem_magic
import pathlib, threading, time
import keras, numpy as np, psutil, tensorflow as tf, tf_mem_magic as t
from tf_mem_magic.record import host_stop
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.ones((72_000, 1024), "float32"); y = np.zeros((72_000, 1), "float32")
model.fit(x[:64], y[:64], verbose=0)
host_stop.ROOT = pathlib.Path({root!r})
group = host_stop.ROOT / "sys/fs/cgroup/box"
start = psutil.Process().memory_info().rss

def follow():
    while True:
        if group.exists():
            (group / "memory.next").write_text(str(psutil.Process().memory_info().rss))
            (group / "memory.next").replace(group / "memory.current")
        time.sleep(0.02)

threading.Thread(target=follow, daemon=True).start()
"""


DATASET = """%%tfmem
d = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1000).batch(128)
history = model.fit(d, epochs=6, verbose=0)
"""


def leave_room(kernel, root):
    """Give the process 300 MiB more than it has now, of which about 240 may be used; one copy of ``x`` has 281.

    What a ``fit`` that was interrupted leaves behind differs from run to run: from nothing to a copy of its arrays.
    """
    now = kernel.value("psutil.Process().memory_info().rss")
    lay_out(root, limit=now + (300 << 20), used=now)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A kernel whose control group has less room than the copies that ``fit`` makes of the arrays."""
    root = tmp_path_factory.mktemp("group")
    with Kernel() as kernel:
        ran = kernel.run(LIVE.format(root=str(root)))
        assert ran.status == "ok", ran.errors
        leave_room(kernel, root)
        ran = kernel.run("%%tfmem\nhistory = model.fit(x, y, batch_size=128, epochs=6, verbose=0)\n")
        assert ran.status == "error", ran.report_text
        kernel.run("first = t.last_report()")
        leave_room(kernel, root)
        found = {"first": kernel.value("(first.status, first.diagnosis.cause, first.proposals[0].key)")}
        ran = kernel.run("second = first.rerun('stream-data')")
        assert ran.status == "ok", ran.errors
        found["second"] = kernel.value("(second.status, len(history.epoch))")
        growth = "[s.peak - s.values[0] for s in (r.recording.get('host:rss') for r in (first, second))]"
        found["growth"] = kernel.value(growth)
        leave_room(kernel, root)
        ran = kernel.run(DATASET)
        assert ran.status == "error", ran.report_text
        kernel.run("third = t.last_report()")
        leave_room(kernel, root)
        found["third"] = kernel.value("(third.status, third.diagnosis.cause, third.proposals[0].key)")
        ran = kernel.run("fourth = third.rerun('stream-data')")
        assert ran.status == "ok", ran.errors
        found["fourth"] = kernel.value("(fourth.status, len(history.epoch), fourth.recording.cell.source)")
    return found


@pytest.mark.kernel
@pytest.mark.oldest
@pytest.mark.tf
@pytest.mark.timeout(600)
class TestInAKernel:
    def test_fit_is_interrupted_before_host_memory_runs_out_and_streaming_is_offered_first(self, live):
        assert ("oom", "host", "stream-data") == live["first"]

    def test_the_streamed_cell_fits(self, live):
        assert ("ok", 6) == live["second"]

    def test_the_peak_was_measured_to_fall(self, live):
        arrays = 72_000 * 1024 * 4
        assert live["growth"][0] - live["growth"][1] > arrays / 2

    def test_a_dataset_of_the_arrays_is_stopped_too_and_one_that_looks_them_up_fits(self, live):
        assert ("oom", "host", "stream-data") == live["third"]
        status, epochs, source = live["fourth"]
        assert ("ok", 6) == (status, epochs)
        assert "tf.data.Dataset.range(len(x)).shuffle(1000).batch(128).map(apply.rows((x, y)))" in source


@pytest.mark.parametrize("data", ["train", "distribute(train)", "window.train", "(train)"])
def test_steps_are_not_the_reason_where_the_data_are_no_arrays(data):
    assert "is not given NumPy arrays" in ask(f"model.fit({data}, steps_per_epoch=10, epochs=3)").reason
    assert "`steps_per_epoch` works only with whole arrays" in ask("model.fit(x, y, steps_per_epoch=10)").reason
