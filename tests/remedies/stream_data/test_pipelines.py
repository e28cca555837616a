"""``tf.data`` pipelines: what ``stream-data`` changes and refuses; then real TensorFlow: the same elements, less memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.remedies.stream_data.test_remedy import array, ask
from tests.stream_runtime import run_cells
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.notebook.text.cell import read_cell

IMPORT = "from tf_mem_magic import apply\n"
TEMP = "import tempfile\n"
SLICES = "tf.data.Dataset.from_tensor_slices"
RANGE = "tf.data.Dataset.range(len(x))"
ROWS = ".map(apply.rows((x, y)))"


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        (f"d = {SLICES}((x, y)).shuffle(99).batch(8)", f"d = {RANGE}.shuffle(99).batch(8){ROWS}"),
        (f"d = {SLICES}((x, y)).batch(8).prefetch(2)", f"d = {RANGE}.batch(8){ROWS}.prefetch(2)"),
        (f"d = {SLICES}(x)", f"d = {RANGE}.map(apply.rows(x))"),
        (
            f"d = {SLICES}(({{'a': x, 'b': w}}, y[:5])).batch(8)",
            f"d = {RANGE}.batch(8).map(apply.rows(({{'a': x, 'b': w}}, y[:5])))",
        ),
        (f"d = {SLICES}((x, y)).map(f).batch(8)", f"d = {RANGE}{ROWS}.map(f).batch(8)"),
        (f"d = {SLICES}((x, y)).cache().shuffle(9).repeat()", f"d = {RANGE}.cache().shuffle(9).repeat(){ROWS}"),
        (f"d = {SLICES}((x, y)).cache('here').batch(2)", f"d = {RANGE}{ROWS}.cache('here').batch(2)"),
        (
            f"d = {SLICES}((x, y))\nd = d.shuffle(9)\nd = d.batch(8)\nmodel.fit(d)",
            f"d = {RANGE}\nd = d.shuffle(9)\nd = d.batch(8){ROWS}\nmodel.fit(d)",
        ),
        (
            f"d = {SLICES}((x, y))\ndel x\nd = d.batch(8)",
            f"d = {RANGE}{ROWS}\ndel x\nd = d.batch(8)",
        ),
        (
            f"d = {SLICES}((x, y))\na = d.take(8)\nb = d.skip(8)",
            f"d = {RANGE}{ROWS}\na = d.take(8)\nb = d.skip(8)",
        ),
        (
            f"d = (\n    {SLICES}((x, y))\n    .shuffle(9)  # mix\n    .batch(8)\n)",
            f"d = (\n    {RANGE}\n    .shuffle(9)  # mix\n    .batch(8){ROWS}\n)",
        ),
        (
            f"def make(a, b):\n    return {SLICES}((a, b)).batch(8)\nd = make(x, y)",
            "def make(a, b):\n    return tf.data.Dataset.range(len(a)).batch(8).map(apply.rows((a, b)))\nd = make(x, y)",
        ),
        (
            'x = np.load("x.npy")\nd = tf.data.Dataset.from_tensor_slices(x).batch(8)',
            'x = np.load("x.npy", mmap_mode="c")\nd = tf.data.Dataset.range(len(x)).batch(8).map(apply.rows(x))',
        ),
        (
            f"d = {SLICES}((x, y)).batch(8).prefetch(500)",
            f"d = {RANGE}.batch(8){ROWS}.prefetch(2)",
        ),
        (f"def make(a):\n    return {SLICES}(a).batch(8)\nd = make(load())", None),
        (f"d = {SLICES}((x, y)).shuffle(9)\ndel x\nd = d.repeat().batch(8)", None),
        (f"d = {SLICES}([x, w]).batch(8)", None),
        (f"d = {SLICES}((x, other)).batch(8)", None),
        (f"d = {SLICES}(pair).batch(8)", None),
        (f"d = {SLICES}((x, y), name='d').batch(8)", None),
        (f"d = {SLICES}((x, y)  # all\n).batch(8)", None),
        (f"d = {SLICES}((x, y)).batch(8)\nx = prepare(x)", None),
        ("d = tf.data.Dataset.from_generator(samples, tf.float32).batch(8)", None),
        (f"d = {SLICES}((x, y)).batch(8)\nx /= 255", None),
        (f"d = {SLICES}((x, y)).batch(8)\nx[0] = 1", None),
        (f"d = {SLICES}((x, y)).batch(8)\nnp.random.shuffle(x)", None),
        (f"s = tf.distribute.MirroredStrategy()\nd = {SLICES}((x, y)).batch(8)", None),
        ("d = spark.from_tensor_slices((x, y)).batch(8)", None),
    ],
)
def test_a_dataset_of_arrays_looks_its_samples_up(source, edited):
    answer = ask(source)
    if edited is None:
        assert isinstance(answer, Declined), answer.source
    else:
        assert isinstance(answer, Proposal), answer.reason
        assert IMPORT + edited == answer.source
        assert "same results" == answer.preserves


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("d = ds.map(f).cache()\nmodel.fit(d)", True),
        ("def make(n):\n    return tf.data.Dataset.list_files(n).map(f).cache()\nd = make(p)", True),
        ("def make(d):\n    return d.cache()\nd = make(ds)", True),
        ("def make(d):\n    return d.cache()\nd = make(spark)", False),
        ("d = ds.repeat().cache()", False),
        ("d = ds.repeat(2).cache()", True),
        ("d = ds.cache()\na = d.take(5)\nb = d.skip(5)", False),
        ("d = ds.cache()\nmodel.fit(d, validation_data=d)", False),
        ("d = ds.cache()\nmodel.fit(d)\nmodel.evaluate(d)", True),
        ("d = ds.cache()\nif a:\n    d = d.take(5)\nmodel.fit(d)", False),
    ],
)
def test_a_cache_goes_to_disk_where_one_reading_fills_it(source, edited):
    answer = ask(source)
    assert edited == isinstance(answer, Proposal), answer
    if edited:
        assert TEMP + source.replace(".cache()", '.cache(tempfile.mkdtemp() + "/cache")') == answer.source


FILES = "tf.data.Dataset.list_files(p)"
LOAD = "def load(n):\n    return tf.io.decode_jpeg(tf.io.read_file(n))\n"


@pytest.mark.parametrize(
    ("source", "edited", "preserves"),
    [
        (
            f"{LOAD}d = {FILES}.map(load, num_parallel_calls=4).shuffle(5000).batch(8)",
            f"{LOAD}d = {FILES}.shuffle(5000).map(load, num_parallel_calls=4).batch(8)",
            "same results",
        ),
        (
            f"d = ({FILES}\n    .map(unknown)\n    .shuffle(len(names), seed=1)\n    .batch(8))",
            f"d = ({FILES}\n    .shuffle(len(names), seed=1)\n    .map(unknown)\n    .batch(8))",
            "same effective batch",
        ),
        (
            f"d = {FILES}\nd = d.map(lambda n: tf.image.random_flip_up_down(n))\nd = d.shuffle(5000)",
            f"d = {FILES}.shuffle(5000)\nd = d.map(lambda n: tf.image.random_flip_up_down(n))\nd = d",
            "same effective batch",
        ),
        (f"d = {FILES}.map(load).shuffle(20)", None, None),
        (f"d = {FILES}.map(load).filter(good).shuffle(500)", None, None),
        (f"d = {FILES}.map(load, deterministic=False).shuffle(500)", None, None),
        (f"d = ({FILES}.map(load)  # all\n  .shuffle(500))", None, None),
        (f"d = {FILES}.shuffle(50000).map(load)", None, None),
        (f"d = {FILES}.map(load).batch(8).shuffle(800)", "shuffle(50)", "same effective batch"),
        ("d = tf.data.Dataset.from_generator(g).shuffle(20000)", "shuffle(1250)", "same effective batch"),
        ("d = tf.data.TFRecordDataset(n).map(f).shuffle(buffer_size=3200)", "buffer_size=200)", "same effective batch"),
        ("B = 1600\nd = ds.unbatch().shuffle(B)", "shuffle(100)", "same effective batch"),
        ("d = ds.shuffle(many)", None, None),
        ("d = spark.shuffle(20000)", None, None),
    ],
)
def test_a_shuffle_buffer_moves_or_shrinks(source, edited, preserves):
    answer = ask(source)
    if edited is None:
        assert isinstance(answer, Declined), answer.source
    else:
        assert isinstance(answer, Proposal), answer.reason
        assert edited in answer.source
        assert preserves == answer.preserves


def test_a_smaller_buffer_is_only_offered_where_its_pipeline_is_in_use():
    source = "d = ds.shuffle(20000)\nz = np.concatenate(parts)\nmodel.fit(d)"
    assert isinstance(ask(source, line=2), Declined)
    assert "shuffle(1250)" in ask(source, line=3).source


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        (
            "d = ds.map(f, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)\ne = ds.prefetch(-1)",
            "d = ds.map(f, num_parallel_calls=2).prefetch(2)\ne = ds.prefetch(2)",
        ),
        ("d = ds.map(f, num_parallel_calls=64)", "d = ds.map(f, num_parallel_calls=2)"),
        ("d = ds.prefetch(buffer_size=AUTO)", "d = ds.prefetch(buffer_size=2)"),
        ("d = ds.prefetch(buffer_size=LONG)", "d = ds.prefetch(buffer_size=2)"),
        ("d = ds.map(f, num_parallel_calls=8).prefetch(4)", None),
    ],
)
def test_what_is_prepared_ahead_is_bounded(source, edited):
    answer = ask(source)
    assert edited == (answer.source if isinstance(answer, Proposal) else None)


def test_autotune_is_left_alone_where_something_larger_was_found():
    answer = ask("d = ds.cache().prefetch(tf.data.AUTOTUNE)")
    assert TEMP + 'd = ds.cache(tempfile.mkdtemp() + "/cache").prefetch(tf.data.AUTOTUNE)' == answer.source


def test_why_a_cache_is_left_alone_is_said():
    assert "endless `repeat`" in ask("d = ds.repeat().cache()").reason
    assert "several readings" in ask("d = ds.cache()\na = d.take(5)\nb = d.skip(5)").reason


def test_a_pipeline_made_below_the_line_that_ran_out_is_left_alone():
    source = f"big = np.concatenate(parts)\nd = {SLICES}((x, y)).batch(8)"
    assert isinstance(ask(source, line=1), Declined)
    assert isinstance(ask(source, line=2), Proposal)


def test_where_fit_ran_out_on_arrays_the_pipelines_are_left_alone():
    source = "d = ds.cache()\nmodel.fit(x, y)"
    assert IMPORT + "d = ds.cache()\nmodel.fit(apply.stream(x, y, batch_size=32))" == ask(source, line=2).source


def test_small_arrays_are_left_alone():
    small = tuple(array(n, shape=(9,)) for n in "xy")
    assert isinstance(ask(f"d = {SLICES}((x, y)).batch(8)", values=small, limit=1 << 50), Declined)


def test_an_earlier_cell_without_anything_to_change_gives_no_patch():
    answer = ask("model.fit(ds)", earlier=("ds = tf.data.TFRecordDataset(p).batch(8)",))
    assert ("", False) == (answer.patch, "earlier cell" in answer.reason)


STEPS = st.lists(
    st.sampled_from([".shuffle(7)", ".batch(4)", ".repeat(2)", ".take(9)", ".prefetch(1)", ".cache()", ".map(f)"]),
    max_size=6,
)


@given(
    st.sampled_from(["", "%%tfmem\n", "\n%%tfmem -q\n%%time\n"]),
    st.lists(st.sampled_from(["# note", "%matplotlib inline", "", "ü = f'{1}'", "!ls", "b = 1 + \\\n  2"]), max_size=4),
    STEPS,
    st.sampled_from(["", "\n    ", "  # step\n    "]),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=200, deadline=None)
def test_every_other_byte_stays(lead, noise, steps, between, end):
    chain = "".join(between + step for step in steps)
    source = f"{lead}" + "".join(f"{line}\n" for line in noise) + f"d = ({SLICES}((x, y)){chain})  # ü\n"
    source = source.replace("\n", end)
    answer = ask(source)
    assert isinstance(answer, Proposal), answer.reason
    back = answer.source.replace(IMPORT.replace("\n", end), "").replace(TEMP.replace("\n", end), "")
    back = back.replace(ROWS, "").replace(RANGE, f"{SLICES}((x, y))").replace('tempfile.mkdtemp() + "/cache"', "")
    assert source == back
    assert hasattr(read_cell(answer.source), "tree")


EARLIER = """
import keras, numpy as np, os, tempfile, tensorflow as tf
rng = np.random.default_rng(0)
x = rng.standard_normal((103, 6)); y = rng.integers(0, 2, 103); w = rng.random(103).astype("float32")
small = rng.integers(0, 255, (103, 4, 4)).astype("uint8"); flags = rng.random(103) > 0.5
np.save("x.npy", x)
def f(a, b):
    return a * 2, b
def noisy(a, b):
    return a + tf.random.normal(tf.shape(a), dtype=a.dtype), b
def look(d):
    return [[list(map(str, tf.nest.flatten(d.element_spec))), int(d.cardinality())], [list(d), list(d.take(9))] if d.cardinality() >= 0 else list(d.take(30))]
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1, "sigmoid")])
model.compile("sgd", "binary_crossentropy")
"""


def seen(chain, more=""):
    return EARLIER, f"d = {chain}\n{more}result = look(d)"


SAME = {
    "shuffled": seen(f"{SLICES}((x, y)).shuffle(20).batch(16)"),
    "a seed": seen(f"{SLICES}((x, y)).shuffle(200, seed=3).batch(16, drop_remainder=True)"),
    "one array": seen(f"{SLICES}(small).batch(16)"),
    "types": seen(f"{SLICES}(({{'a': small, 'b': x}}, (flags, w))).batch(10)"),
    "sample by sample": seen(f"{SLICES}((x, y))"),
    "mapped before the batch": seen(f"{SLICES}((x, y)).shuffle(50).map(f).batch(16).prefetch(tf.data.AUTOTUNE)"),
    "random numbers in a map": seen(f"{SLICES}((x, y)).shuffle(50).map(noisy).batch(16)"),
    "cached, repeated, cut": seen(f"{SLICES}((x, y)).cache().shuffle(30).repeat(3).skip(5).take(99).batch(7)"),
    "endless": seen(f"{SLICES}((x, y)).shuffle(30).repeat().batch(7)"),
    "batches shuffled": seen(f"{SLICES}((x, y)).batch(7).shuffle(9)"),
    "statement by statement": seen(f"{SLICES}((x, y))", "d = d.shuffle(40)\nd = d.batch(8).prefetch(1)\n"),
    "split in two": seen(
        f"{SLICES}((x, y))", "a = d.take(80).batch(8)\nb = d.skip(80).batch(8)\nd = a.concatenate(b)\n"
    ),
    "zipped": (EARLIER, f"d = tf.data.Dataset.zip(({SLICES}(x), {SLICES}(y))).batch(8)\nresult = look(d)"),
    "a slice": seen(f"{SLICES}((x[3:90], y[3:90])).batch(8)"),
    "a mapped file": (
        EARLIER,
        f'data = np.load("x.npy")\nd = {SLICES}((data, y)).shuffle(9).batch(8)\nresult = look(d)',
    ),
    "in a function": (
        EARLIER,
        f"def make(a, b, n):\n    d = {SLICES}((a, b))\n    return d.shuffle(n).batch(8)\nresult = look(make(x, y, 50))",
    ),
    "fit": (
        EARLIER,
        f"d = {SLICES}((x, y)).shuffle(50).batch(16).prefetch(2)\n"
        "h = model.fit(d, epochs=3, verbose=0)\nresult = [h.history, model.get_weights()]",
    ),
    "cache on disk": (
        EARLIER,
        "d = tf.data.Dataset.range(103).map(lambda i: tf.cast(i, 'float32')).cache().shuffle(50).batch(8)\n"
        "result = look(d)",
    ),
    "a cache of files": (
        EARLIER
        + "with tf.io.TFRecordWriter('r') as out:\n    for i in range(50): out.write(np.full(3, i, 'float32').tobytes())",
        "d = tf.data.TFRecordDataset('r').map(lambda s: tf.io.decode_raw(s, tf.float32)).cache().batch(8).prefetch(99)\n"
        "result = look(d)",
    ),
}

FOLDER = (
    EARLIER
    + """
for i in range(120):
    tf.io.write_file(f"in/{i:03}", tf.io.serialize_tensor(np.full((4,), i, "float32")))
def load(name):
    return tf.io.parse_tensor(tf.io.read_file(name), tf.float32)
def jitter(name):
    return load(name) + tf.random.uniform((4,))
names = [f"in/{i:03}" for i in range(120)]
def gen():
    for i in range(3000): yield np.full(3, i, "float32")
"""
)
FILED = {
    "files": (FOLDER, "d = tf.data.Dataset.list_files('in/*').map(load).shuffle(110).batch(8)\nresult = look(d)"),
    "names": (
        FOLDER,
        "d = tf.data.Dataset.from_tensor_slices(names).map(load, num_parallel_calls=tf.data.AUTOTUNE)\n"
        "d = d.prefetch(4).shuffle(110, seed=2).repeat(2).batch(8)\nresult = look(d)",
    ),
    "an endless queue": (
        FOLDER,
        "d = tf.data.Dataset.range(60).map(lambda i: i * 2, num_parallel_calls=-1).prefetch(-1)\nresult = look(d)",
    ),
}
OTHER = {
    "jitter": (FOLDER, "d = tf.data.Dataset.from_tensor_slices(names).map(jitter).shuffle(110).batch(8)\nresult = look(d)"),
    "a generator": (
        FOLDER,
        "d = tf.data.Dataset.from_generator(gen, output_signature=tf.TensorSpec((3,))).shuffle(2000).batch(8)\n"
        "result = [sorted(np.concatenate(list(d))[:, 0]), list(d)]",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run_cells({**SAME, **FILED, **OTHER}, tmp_path_factory.mktemp("pipelines"))


@pytest.mark.tf
@pytest.mark.parametrize("name", [*SAME, *FILED])
def test_the_changed_pipeline_gives_the_same_elements_in_the_same_order(ran, name):
    one = ran[name]
    assert "same results" == one.get("preserves"), one
    assert one["before"] == one["after"]


@pytest.mark.tf
def test_random_numbers_of_a_map_meet_other_samples_and_that_is_said(ran):
    one = ran["jitter"]
    assert "same effective batch" == one.get("preserves"), one
    assert one["before"] != one["after"]


@pytest.mark.tf
def test_a_smaller_buffer_gives_the_same_samples_in_another_order(ran):
    one = ran["a generator"]
    assert "shuffle(125)" in one.get("source", ""), one
    (_, before), (_, after) = ran["a generator"]["before"], ran["a generator"]["after"]
    assert one["before"][0] == one["after"][0]
    assert before != after
