"""Facts from live objects: pure cases in this process, Keras and TensorFlow in one subprocess with a real failure."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.facts import Facts, ScalarFact
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts, observe_fit

ROOT = Path(__file__).resolve().parents[2]


class Held:
    """Something that a weak reference can point to."""


@dataclass
class Config:
    batch_size: int = 64


class Slotted:
    __slots__ = ("bs",)

    def __init__(self):
        self.bs = 8


class Nosy:
    """Notes every attribute that is computed."""

    def __init__(self):
        self.asked = []

    @property
    def batch(self):
        self.asked.append("batch")
        return 1

    def __getattr__(self, name):
        self.__dict__["asked"].append(name)
        return 1


def scalars(source, **namespace):
    facts = gather_facts(namespace, snapshot(namespace), source)
    return {one.name: one.value for one in facts.scalars}


def test_a_snapshot_keeps_nothing_alive():
    namespace = {"value": Held()}
    reference = weakref.ref(namespace["value"])
    before = snapshot(namespace)
    del namespace["value"]
    gc.collect()
    assert reference() is None
    assert "value" in before.names


def test_a_snapshot_knows_what_was_there_by_identity_also_under_a_new_name():
    namespace = {"value": Held()}
    before = snapshot(namespace)
    assert before.held("other", namespace["value"])
    assert not before.held("value", Held())


def test_a_list_that_grew_is_no_longer_what_was_there():
    namespace = {"kept": [1]}
    before = snapshot(namespace)
    namespace["kept"].append(2)
    assert not before.held("kept", namespace["kept"])


def test_names_attributes_and_entries_are_read_as_written():
    found = scalars(
        "f(BATCH, cfg.batch_size, cfg2['bs'], point.x, slotted.bs, args.bs, table['a']['b'])",
        BATCH=32,
        cfg=Config(),
        cfg2={"bs": 16},
        point=namedtuple("Point", "x")(3),
        slotted=Slotted(),
        args=types.SimpleNamespace(bs=4),
        table={"a": {"b": 0.5}},
    )
    assert found == {
        "BATCH": 32,
        "cfg.batch_size": 64,
        "cfg2['bs']": 16,
        "point.x": 3,
        "slotted.bs": 8,
        "args.bs": 4,
        "table['a']['b']": 0.5,
    }


def test_constants_of_a_class_used_as_a_namespace_are_read():
    assert scalars("train(CFG.bs)", CFG=type("CFG", (), {"bs": 12})) == {"CFG.bs": 12}


def test_no_property_and_no_getattr_is_run():
    nosy = Nosy()
    assert scalars("f(nosy.batch, nosy.other)", nosy=nosy) == {}
    assert nosy.asked == []


def test_magics_and_the_tag_do_not_hide_the_rest_of_the_cell():
    assert scalars("%%tfmem -q\n%time f(A)\n!ls\nf(B)", A=1, B=2) == {"A": 1, "B": 2}


def test_a_functions_own_names_are_not_the_notebooks():
    assert scalars("def f(batch):\n    return batch + N", batch=5, N=7) == {"N": 7}


def test_secrets_long_texts_and_objects_are_left_out():
    assert scalars("f(api_key, text, thing, ok)", api_key="x", text="y" * 500, thing=Held(), ok="z") == {"ok": "z"}


def test_a_cell_that_is_no_python_has_no_scalars():
    assert scalars("f(A", A=1) == {}


def test_data_that_can_be_read_again_are_named_also_where_another_name_holds_them():
    table = np.zeros((4, 2))
    values = {"table": table, "view": table[:2], "pair": (table, table), "weights": {0: 1.0, 1: 2.0}, "unread": table}
    once = {"rows": iter(()), "made": (n for n in ()), "none": None, "empty": [], "n": 3}
    facts = gather_facts({**values, **once}, snapshot({}), "f(table, view, pair, weights, rows, made, none, empty, n)")
    assert facts.repeatable == ("table", "view", "pair", "weights")


def test_only_the_steering_part_of_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv("TF_GPU_ALLOCATOR", "cuda_malloc_async")
    monkeypatch.setenv("MY_TOKEN", "x")
    kept = dict(gather_facts({}, snapshot({}), "").environment)
    assert kept["TF_GPU_ALLOCATOR"] == "cuda_malloc_async"
    assert "MY_TOKEN" not in kept


def test_frames_without_keras_show_no_batch():
    assert observe_fit(sys._getframe()) is None
    assert observe_fit(None) is None


SCRIPT = """
import json, sys, threading
from tf_mem_magic.core.jsonio import encode
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts, observe_fit
told = {}
def keep(name, facts):
    told[name] = encode(facts).decode()
keep("without tensorflow", gather_facts({"x": 1}, snapshot({}), "f(x)"))
told["imported by us"] = sorted({"tensorflow", "keras", "numpy"} & set(sys.modules))
import numpy as np, tensorflow as tf, keras
keep("not initialised", gather_facts({"a": np.zeros(4)}, snapshot({}), ""))
told["woken"] = sys.modules["tensorflow.python.eager.context"].context()._initialized
L = keras.layers
seen = {}
def look(name):
    frame = lambda: sys._current_frames()[threading.main_thread().ident]
    thread = threading.Thread(target=lambda: seen.__setitem__(name, observe_fit(frame())))
    thread.start(); thread.join()
class Look(keras.callbacks.Callback):
    def __init__(self, name): super().__init__(); self.name = name
    def on_train_batch_end(self, batch, logs=None): look(self.name)
    def on_test_batch_end(self, batch, logs=None): look(self.name)
    def on_predict_batch_end(self, batch, logs=None): look(self.name)
class Data(keras.utils.PyDataset):
    batch_size = None
    def __init__(self): super().__init__(); self.batch_size = 20
    def __len__(self): return 5
    def __getitem__(self, i): return X[:20], Y[:20]
def generator():
    while True: yield X[:10], Y[:10]
X, Y = np.zeros((100, 8), "float32"), np.zeros((100,), "int32")
small = keras.Sequential([L.Input((8,)), L.Dense(4), L.Dense(2, "softmax")])
small.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "sparse_categorical_crossentropy")
base = tf.data.Dataset.from_tensor_slices((X, Y))
small.fit(X, Y, verbose=0, callbacks=[Look("fit default")])
small.fit(X, Y, batch_size=16, verbose=0, validation_split=0.5, callbacks=[Look("fit 16, seen last while it validates")])
small.fit(base.shuffle(50).batch(10).map(lambda a, b: (a, b)).cache().prefetch(2), verbose=0, callbacks=[Look("fit dataset")])
small.fit(base.batch(10).rebatch(5), verbose=0, callbacks=[Look("fit rebatch")])
small.fit(Data(), verbose=0, callbacks=[Look("fit PyDataset")])
small.fit(generator(), steps_per_epoch=2, verbose=0, callbacks=[Look("fit generator")])
small.evaluate(X, Y, batch_size=25, verbose=0, callbacks=[Look("evaluate")])
small.predict(X, batch_size=50, verbose=0, callbacks=[Look("predict")])
told["seen"] = {name: [one.method, one.batch, one.source] if one else None for name, one in seen.items()}

class Gan(keras.Model):
    def __init__(self):
        super().__init__(); self.generator = keras.Sequential([L.Input((4,)), L.Dense(8)], name="g")
    def call(self, x): return self.generator(x)
class Trainer:
    def __init__(self): self.model = keras.Sequential([L.Input((4,)), L.Dense(2)])
view = np.zeros((1000, 8), "float32")
loop_model = keras.Sequential([L.Input((3, 4)), L.LSTM(3)])
loop_optimizer = keras.optimizers.Adam(); loop_optimizer.build(loop_model.trainable_variables)
shared = small.layers[0]
gone = keras.Sequential([L.Input((5,)), L.Dense(7)])
left_optimizer = keras.optimizers.Adam(); left_optimizer.build(gone.trainable_variables); del gone
unused_optimizer = keras.optimizers.Adam()
frozen = keras.Sequential([L.Input((6,)), L.Dense(3, trainable=False), L.Dense(2)])
ns = dict(small=small, alias=small, gan=Gan(), trainer=Trainer(), models={"a": keras.Sequential([L.Input((2,)), L.Dense(1)])},
    frozen=frozen, taken=keras.Sequential([L.Input((6,)), L.Dense(3), L.Dense(2)]), left_optimizer=left_optimizer, unused_optimizer=unused_optimizer,
    loop_model=loop_model, loop_optimizer=loop_optimizer, inner=keras.Sequential([L.Input((8,)), shared]),
    mixed=keras.Sequential([L.Input((8,)), L.Dense(2, dtype="mixed_bfloat16")]),
    train=base.batch(10).prefetch(1), plain=base, endless=base.batch(4).repeat(), pieces={"val": base.padded_batch(8, ([8], []))},
    mapped=base.batch(7).map(lambda a, b: (a, b)).with_options(tf.data.Options()), ragged=base.batch(10).unbatch(), zipped=tf.data.Dataset.zip((base.batch(5), base.batch(5))),
    sequence=Data(), endless_python=generator(),
    array=view, window=view[:10], tensor=tf.zeros((100, 10)), variable=tf.Variable(tf.zeros((50,))), half=tf.zeros((8,), tf.bfloat16),
    acts=[tf.zeros((10,)), tf.zeros((30,))], raw=bytes(999), its_weights=small.weights, its_kernel=small.weights[0].value,
    its_state=small.optimizer.variables, Out={3: tf.zeros((7,))}, In=["", "x"], _ih=["x" * 9999], _i3="x", N=4)
ns["_3"] = ns["_"] = ns["Out"][3]
ns["trainer"].model.compile("adam", "mse")
before = snapshot(ns)
ns["made"] = tf.zeros((123,)); ns["acts"].append(tf.zeros((5,)))
ns["new_model"] = keras.Sequential([L.Input((2,)), L.Dense(1)])
ns["around"] = keras.Sequential([L.Input((6,)), ns.pop("taken"), L.Dense(1, use_bias=False)])
ns["new_data"] = base.batch(3)
small.fit(X, Y, batch_size=50, verbose=0)
keep("plain", gather_facts(ns, before, "f(N)", None, (), ("import keras",)))

wide = keras.Sequential([L.Input((8,)), L.Dense(4000, "relu"), L.Dense(2, "softmax")])
wide.compile("adam", "sparse_categorical_crossentropy")
wide.fit(X, Y, batch_size=50, epochs=2, verbose=0)
ns = dict(wide=wide)
before = snapshot(ns)
big = np.zeros((60000, 8), "float32"), np.zeros(60000, "int32")
try:
    wide.fit(*big, batch_size=20000, epochs=5, initial_epoch=2, verbose=0)
except tf.errors.ResourceExhaustedError as error:
    keep("oom", gather_facts(ns, before, "", error))
try:
    wide.fit(X, Y, batch_size=50, verbose=0, epochs=3, validation_data=big, validation_batch_size=60000)
except tf.errors.ResourceExhaustedError as error:
    keep("oom while validating", gather_facts(ns, before, "", error))
print("FOUND" + json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    return found_by(SCRIPT, env=bfc(192), fresh=True)


@pytest.fixture(scope="module")
def plain(told):
    return decode(told["plain"].encode(), Facts)


@pytest.fixture(scope="module")
def oom(told):
    return decode(told["oom"].encode(), Facts)


def value(facts, name):
    return next((one for one in facts.values if one.name == name), None)


@pytest.mark.tf
class TestLive:
    def test_nothing_is_imported_where_the_user_did_not(self, told):
        assert told["imported by us"] == []
        assert decode(told["without tensorflow"].encode(), Facts).scalars == (ScalarFact("x", 1),)

    def test_tensorflow_is_not_woken(self, told):
        facts = decode(told["not initialised"].encode(), Facts)
        assert not told["woken"]
        assert not facts.initialised
        assert facts.tensorflow
        assert value(facts, "a").bytes == 32

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ("fit default", ["fit", 32, "arrays"]),
            ("fit 16, seen last while it validates", ["fit", 16, "arrays"]),
            ("fit dataset", ["fit", 10, "tf.data"]),
            ("fit rebatch", ["fit", 5, "tf.data"]),
            ("fit PyDataset", ["fit", 20, "PyDataset"]),
            ("fit generator", ["fit", 10, "generator"]),
            ("evaluate", ["evaluate", 25, "arrays"]),
            ("predict", ["predict", 50, "arrays"]),
        ],
    )
    def test_the_batch_size_in_use_is_read_from_another_thread(self, told, call, expected):
        assert told["seen"][call] == expected

    def test_models_are_found_one_level_inside_and_once(self, plain):
        names = [m.name for m in plain.models]
        expected = [
            "small",
            "gan",
            "frozen",
            "loop_model",
            "inner",
            "mixed",
            "new_model",
            "around",
            "gan.generator",
            "trainer.model",
        ]
        assert names == [*expected, "models['a']"]

    def test_a_model_is_described_by_what_it_is_made_of(self, plain):
        small = plain.model("small")
        assert (small.layers, small.optimizer, small.schedule) == (("InputLayer", "Dense"), "SGD", "ExponentialDecay")
        assert small.device == "CPU:0"
        assert small.jit_compile is False
        assert small.accumulates == 1

    def test_bytes_are_those_of_the_variables(self, plain):
        assert plain.model("small").weight_bytes == 4 * (8 * 4 + 4 + 4 * 2 + 2)

    def test_what_is_frozen_is_not_trained(self, plain):
        frozen = plain.model("frozen")
        assert (4 * (6 * 3 + 3 + 3 * 2 + 2), 4 * (3 * 2 + 2)) == (frozen.weight_bytes, frozen.trainable_bytes)

    def test_what_a_new_model_took_in_was_there_before(self, plain):
        around = plain.model("around")
        assert (4 * (6 * 3 + 3 + 3 * 2 + 2 + 2), 4 * (6 * 3 + 3 + 3 * 2 + 2)) == (
            around.weight_bytes,
            around.earlier_bytes,
        )
        assert (True, 0) == (around.is_new, plain.model("new_model").earlier_bytes)

    def test_a_variable_that_two_models_share_is_counted_once(self, plain):
        assert plain.model("inner").weight_bytes == 0
        assert plain.model("gan").weight_bytes + plain.model("gan.generator").weight_bytes == 4 * (4 * 8 + 8)

    def test_a_name_that_holds_a_models_variables_holds_nothing_of_its_own(self, plain):
        assert {"its_weights", "its_kernel", "its_state"}.isdisjoint(one.name for one in plain.values)
        assert value(plain, "variable").bytes == 200

    def test_the_optimizer_of_a_custom_loop_belongs_to_its_model(self, plain):
        loop = plain.model("loop_model")
        assert loop.optimizer == "Adam"
        assert loop.optimizer_bytes >= 2 * loop.weight_bytes

    def test_steps_are_counted_before_and_after(self, plain):
        small = plain.model("small")
        assert small.steps - small.steps_before == 2
        assert not small.is_new
        assert plain.model("new_model").is_new

    def test_how_a_model_is_made_is_told(self, plain):
        assert [plain.model(name).form for name in ("small", "gan")] == ["sequential", "subclassed"]

    def test_a_policy_of_the_layers_is_the_models_policy(self, plain):
        assert plain.model("mixed").dtype_policy == "mixed_bfloat16"
        assert plain.model("small").dtype_policy == "float32"

    @pytest.mark.parametrize(
        ("name", "kind", "batch", "cardinality"),
        [
            ("train", "tf.data", 10, 10),
            ("plain", "tf.data", None, 100),
            ("endless", "tf.data", 4, None),
            ("mapped", "tf.data", 7, 15),
            ("ragged", "tf.data", None, None),
            ("zipped", "tf.data", 5, 20),
            ("pieces['val']", "tf.data", 8, 13),
            ("sequence", "PyDataset", 20, 5),
            ("endless_python", "generator", None, None),
        ],
    )
    def test_datasets_tell_their_batch_or_none(self, plain, name, kind, batch, cardinality):
        found = plain.dataset(name)
        assert (found.kind, found.batch) == (kind, batch)
        assert name == "ragged" or found.cardinality == cardinality
        assert not found.is_new

    def test_a_dataset_that_the_cell_made_is_new(self, plain):
        assert plain.dataset("new_data").is_new

    @pytest.mark.parametrize(
        ("name", "size", "kind", "origin"),
        [
            ("array", 32000, "numpy.ndarray", "earlier"),
            ("tensor", 4000, "tf.Tensor", "earlier"),
            ("variable", 200, "tf.Variable", "earlier"),
            ("half", 16, "tf.Tensor", "earlier"),
            ("acts", 180, "list of tf.Tensor", "cell"),
            ("raw", 999, "bytes", "earlier"),
            ("Out[3]", 28, "tf.Tensor", "earlier"),
            ("made", 492, "tf.Tensor", "cell"),
            # Weights and both moments, its count of steps and its learning rate.
            ("left_optimizer", 3 * 4 * (5 * 7 + 7) + 8 + 4, "optimizer", "earlier"),
        ],
    )
    def test_named_values_have_their_size_and_origin(self, plain, name, size, kind, origin):
        found = value(plain, name)
        assert (found.bytes, found.kind, found.origin) == (size, kind, origin)

    def test_tensors_say_where_they_are(self, plain):
        assert value(plain, "tensor").device == "CPU:0"
        assert value(plain, "array").device is None

    def test_a_view_has_its_own_shape_and_no_bytes_of_its_own(self, plain):
        found = value(plain, "window")
        assert (found.bytes, found.shape) == (0, (10, 8))

    @pytest.mark.parametrize("name", ["_", "_3", "_ih", "In", "Out", "loop_optimizer", "unused_optimizer"])
    def test_aliases_and_ipythons_own_names_are_not_counted_again(self, plain, name):
        assert value(plain, name) is None

    def test_the_rest_is_there(self, plain):
        assert plain.scalar("N") == 4
        assert plain.earlier_cells == ("import keras",)
        assert plain.initialised
        assert dict(plain.environment)["TF_CPU_BFC_MEM_LIMIT_IN_MB"] == "192"

    def test_a_failure_shows_the_batch_and_how_far_training_got(self, oom):
        assert [(b.method, b.batch) for b in oom.batches] == [("fit", 20000)]
        assert (oom.epochs_done, oom.steps_done) == (2, 0)

    def test_a_failure_while_validating_shows_both_batches(self, told):
        facts = decode(told["oom while validating"].encode(), Facts)
        assert [(b.method, b.batch) for b in facts.batches] == [("evaluate", 60000), ("fit", 50)]
        assert (facts.epochs_done, facts.steps_done) == (0, 2)


COMPILED_ANEW = """
import json
import keras
import numpy as np
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
x = np.zeros((6, 2), "float32")
model.compile("sgd", "mse")
model.fit(x, x[:, :1], batch_size=2, verbose=0)
names = {"model": model}
before = snapshot(names)
model.compile("sgd", "mse")
model.fit(x, x[:, :1], batch_size=6, verbose=0)
told = gather_facts(names, before, "model.fit(x)").model("model")
print("FOUND" + json.dumps([told.steps, told.steps_before, told.is_new]))
"""


@pytest.mark.tf
def test_a_model_that_is_compiled_anew_begins_at_no_steps():
    assert [1, 0, False] == found_by(COMPILED_ANEW, None)


def test_an_array_with_two_names_is_known_by_the_one_that_the_failed_cell_uses():
    array = np.zeros(1 << 20)
    names = {"a": array, "used": array}
    assert [v.name for v in gather_facts(names, snapshot(names), "f(used)").values] == ["used"]
    assert [v.name for v in gather_facts(names, snapshot(names), "f(x)").values] == ["a"]


def test_parts_of_one_array_are_known_by_their_shapes_and_count_once():
    x = np.zeros((500, 40))
    names = {"x_val": x[:100], "x_train": x[100:], "x": x, "flat": x.reshape(-1), "again": x, "copied": x[:7].copy()}
    found = {v.name: v for v in gather_facts(names, snapshot(names), "fit(x_train)").values}
    assert {name: v.shape for name, v in found.items()} == {
        "x_val": (100, 40),
        "x_train": (400, 40),
        "x": (500, 40),
        "flat": (20000,),
        "copied": (7, 40),
    }
    assert sum(v.bytes for v in found.values()) == x.nbytes + 7 * 40 * 8
    assert found["x_train"].extent == 400 * 40 * 8


def test_a_variable_that_models_share_counts_for_the_one_in_use():
    from types import SimpleNamespace

    from tf_mem_magic.facts.models import describe_models

    backbone, head, old_head = (SimpleNamespace(shape=(n,), dtype=SimpleNamespace(itemsize=4)) for n in (100, 1, 50))
    more = SimpleNamespace(shape=(1,), dtype=SimpleNamespace(itemsize=4))
    new, old = SimpleNamespace(weights=[backbone, head]), SimpleNamespace(weights=[backbone, old_head, more])

    def sizes(used):
        models = [("old", old), ("new", new)]
        found = describe_models(
            models, [], lambda _: None, lambda _: True, lambda _: 0, *([lambda name: name == used] if used else [])
        )
        return {one.name: one.weight_bytes for one in found}

    assert sizes("new") == {"new": 404, "old": 204}
    assert sizes(None) == {"old": 604, "new": 4}
