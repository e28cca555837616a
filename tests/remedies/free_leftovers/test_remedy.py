"""The remedy ``free-leftovers``: what it names and what it never does; then a real kernel that earlier cells filled."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import Kernel, bfc
from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Declined, Pick, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell, words_of
from tf_mem_magic.remedies.free_leftovers.ancestry import needed_by
from tf_mem_magic.remedies.free_leftovers.remedy import MOST_NAMES, propose

MIB = 1 << 20


def ask(
    source,
    *,
    device="GPU:0",
    cause="leftovers",
    breakdown=(),
    numbers=(None, None, None),
    picked=None,
    garbage=0,
    **facts,
):
    cell = Cell(source)
    back = ((f"allocator:{device}", garbage * MIB),)
    recording = Recording(cell, status="oom", facts=Facts(**facts), garbage=back)
    requested, in_use, limit = (n and n * MIB for n in numbers)
    known = {"requested": requested, "in_use": in_use, "limit": limit}
    diagnosis = Diagnosis(device, cause=cause, breakdown=breakdown, **known)
    (only,) = propose(Context(cell, recording, diagnosis, picked=picked))
    return only


def tensor(name, mib=64, device="GPU:0", **more):
    return NamedValue(name, mib * MIB, "tf.Tensor", device, **more)


def model(name, **more):
    return ModelFacts(name, weight_bytes=64 * MIB, device="GPU:0", **({"steps_before": 0} | more))


TRAINED = model("old", steps=4, steps_before=4)


def let_go(answer):
    assert isinstance(answer, Proposal), answer
    calls = [n for n in ast.walk(read_cell(answer.source).tree) if isinstance(n, ast.Call)]
    (call,) = [c for c in calls if ast.unparse(c.func) == "apply.free"]
    return [ast.literal_eval(a) for a in call.args]


@pytest.mark.parametrize(
    ("earlier", "kept"),
    [
        ("used = old", {"used", "old"}),
        ("used = make(old)", {"used", "make", "old"}),
        ("used = [old]", {"used", "old"}),
        ("used = []\nfor m in nets:\n    used.append(m)", {"used", "m", "nets"}),
        ("used.part = old", {"used", "old"}),
        ("used[0] = old", {"used", "old"}),
        ("used += [old]", {"used", "old"}),
        ("with open_it(old) as used:\n    pass", {"used", "open_it", "old"}),
        ("if flag:\n    used = old", {"used", "old"}),
        ("def used():\n    return old", {"used", "old"}),
        ("def change():\n    global used\n    used = old", {"used", "old"}),
        ("used = keras.Model(old.input, old.output)", {"used", "keras", "old"}),
        ("used = old.fit(x, y)", {"used", "old"}),
        ("used = globals()['old']", {"used", "globals", "old"}),
        ("%time used = old", {"used", "old"}),
        ("used = old.predict(x)", {"used"}),
        ("used.fit(old, y)", {"used"}),
        ("old.fit(used)\nother = old", {"used"}),
        ("old = [used for used in range(3)]", {"used"}),
        ("used, old = load()", {"used", "load"}),
        ("import used", {"used"}),
        ("%%bash\nused = old", {"used"}),
    ],
)
def test_what_may_be_a_part_of_a_name_is_found(earlier, kept):
    assert kept == {"used", *needed_by(["used"], words_of(earlier), [earlier])}


def test_a_chain_over_several_cells_is_followed():
    assert {"c", "b", "a"} == needed_by(["c"], ["a", "b", "c"], ["a = 1", "b = [a]", "c = b"])


@pytest.mark.parametrize(
    "source",
    ["step(old)", "x = 'old'", "%time step(old)", "!python train.py {old}", "def f():\n    return old\nf()"],
)
def test_a_name_that_the_cell_speaks_of_stays(source):
    assert isinstance(ask(source, values=(tensor("old"),)), Declined)


@pytest.mark.parametrize(
    "made",
    [
        "out = base.get_layer('mixed7').output\nnet = keras.Model(base.input, layers.Dense(1)(out))",
        "net = keras.Sequential([*base.layers[:3], layers.Dense(1)])",
        "features = base.layers[4].output\nhead = layers.Flatten()(features)\nnet = keras.Model(base.inputs, head)",
        "nets = {'small': keras.Model(base.input, base.layers[2].output)}\nnet = nets['small']",
    ],
)
def test_of_what_the_model_was_cut_from_it_is_said_that_it_cannot_go_alone(made):
    """The paragraph names it as what earlier cells left: that no name was found would contradict it."""
    parts = (Part("earlier", 64 * MIB, "names", ("base",)),)
    cells = ("import keras\nfrom keras import layers\nbase = keras.applications.InceptionV3()", made)
    models = (model("net", steps=1), model("base"))
    answer = ask("net.fit(x, y)", models=models, earlier_cells=cells, breakdown=parts)
    assert isinstance(answer, Declined)
    assert answer.reason.startswith(
        "`base`: earlier cells had it at hand where they made what this cell uses, which may"
    )


@pytest.mark.parametrize(
    ("names", "made", "told"),
    [
        (("table",), "net = build(table.shape[1])", "`table`: earlier cells had it at hand where"),
        (("table",), "net = build()\nnet.adapt(table)", "`table`: earlier cells had it at hand where"),
        (("a", "b"), "net = build(len(a) + len(b))", "`a` and `b`: earlier cells had them at hand where"),
        (("a", "b", "c"), "net = build(a, b, c)", "`a`, `b` and others: earlier cells had them at hand where"),
    ],
)
def test_what_may_only_have_been_looked_at_is_not_said_to_be_kept(names, made, told):
    parts = (Part("earlier", 64 * MIB, "names", names),)
    cells = (f"{', '.join(names)} = load()", made)
    values = tuple(tensor(name) for name in names)
    answer = ask("net.fit(x, y)", models=(model("net", steps=1),), values=values, earlier_cells=cells, breakdown=parts)
    assert isinstance(answer, Declined)
    assert answer.reason.startswith(told)
    assert answer.reason.endswith(f"which may hold {'it' if len(names) == 1 else 'them'} still")


def test_a_model_that_the_cell_trained_stays_whatever_reached_it():
    answer = ask("train()", models=(model("net", steps=3), model("old")))
    assert ["old"] == let_go(answer)


def test_what_a_new_model_of_the_cell_was_made_from_stays():
    made = ModelFacts("features", weight_bytes=MIB, device="GPU:0")
    answer = ask("go()", models=(made, model("base")), values=(tensor("z"),), earlier_cells=("features = cut(base)",))
    assert ["z"] == let_go(answer)


def test_values_that_the_cell_made_small_ones_and_those_elsewhere_stay():
    values = (
        tensor("new", origin="cell"),
        tensor("tiny", 0),
        tensor("far", device="GPU:1"),
        tensor("host", device=None),
    )
    assert ["old"] == let_go(ask("go()", values=(*values, tensor("old"))))


def test_where_the_host_ran_out_arrays_are_named():
    values = (NamedValue("table", 900 * MIB, "pandas.DataFrame"), tensor("card"))
    assert ["table"] == let_go(ask("go()", device="host", cause="host", values=values))


def test_ipythons_short_names_are_left_alone():
    assert isinstance(ask("go()", values=(tensor("_"), tensor("__"))), Declined)


def test_a_models_own_variables_count_with_the_model_only():
    values = (NamedValue("weights", 64 * MIB, "list of keras.Variable", "GPU:0"),)
    assert isinstance(ask("go()", values=values), Declined)


def test_a_list_of_models_is_one_name():
    answer = ask("go()", models=(model("nets[0]", steps=4, steps_before=4), model("nets[1]")))
    assert (["nets"], "Let go of nets (128 MiB)") == (let_go(answer), answer.title)


def test_a_trained_model_can_be_saved_first_and_the_line_passes_when_it_is_gone():
    answer = ask("go()", models=(TRAINED,), values=(tensor("z"),), picked=("old",))
    (saving,) = [c for c in answer.choices if c.label.startswith("Save")]
    expected = 'from tf_mem_magic import apply\napply.free("old", save={"old": "old.keras"})\ngo()'
    assert expected == saving.source
    assert "old.keras" in saving.note


def test_a_trained_model_in_a_dictionary_can_be_saved_first():
    nets = replace(TRAINED, name="nets['a']")
    (saving,) = ask("go()", models=(nets,)).choices
    (call,) = [n for n in ast.walk(read_cell(saving.source).tree) if isinstance(n, ast.Call) and n.keywords]
    assert {"nets['a']": "nets_a.keras"} == ast.literal_eval(call.keywords[0].value)


def test_an_untrained_model_is_not_worth_saving():
    assert () == ask("go()", models=(model("old"),)).choices


def test_saving_takes_a_file_name_that_no_cell_speaks_of():
    earlier = ("cb = ModelCheckpoint('old.keras')",)
    answer = ask("go()", models=(TRAINED,), earlier_cells=earlier)
    assert 'save={"old": "old_kept.keras"}' in answer.choices[0].source


FOUND = {"models": (TRAINED,), "values": (tensor("a", 300), tensor("Out[3]", 200))}


def test_each_name_is_there_to_be_ticked_with_its_size_and_what_it_is():
    assert (
        Pick("a", 300 * MIB, "tf.Tensor", True),
        Pick("Out[3]", 200 * MIB, "displayed, tf.Tensor", True),
        Pick("old", 64 * MIB, "trained model", False),
    ) == ask("go()", **FOUND).picks


@pytest.mark.parametrize(
    ("requested", "ticked"), [(400, ["a", "Out[3]"]), (500, ["a", "Out[3]"]), (501, ["a", "Out[3]", "old"])]
)
def test_a_trained_model_is_ticked_only_where_the_rest_is_not_enough(requested, ticked):
    answer = ask("go()", numbers=(requested, 1000, 1000), **FOUND)
    assert (ticked, ticked) == (let_go(answer), [p.name for p in answer.picks if p.ticked])


def test_where_there_are_only_trained_models_the_largest_that_are_needed_are_ticked():
    models = (TRAINED, replace(TRAINED, name="older"), replace(TRAINED, name="oldest", weight_bytes=9 * MIB))
    assert ["old", "older"] == let_go(ask("go()", numbers=(100, 1000, 1000), models=models))


@given(st.sets(st.sampled_from(["a", "Out[3]", "old"]), min_size=1))
def test_the_edit_is_made_of_what_is_ticked(names):
    answer = ask("go()", picked=tuple(sorted(names)), **FOUND)
    assert names == set(let_go(answer)) == {p.name for p in answer.picks if p.ticked}
    assert ("old" in names) == (len(answer.choices) == 1)
    assert (names == {"a", "Out[3]", "old"}) == (not any("Not ticked" in c for c in answer.caveats))


def test_what_is_ticked_is_let_go_even_where_it_is_not_enough_and_that_is_said():
    answer = ask("go()", numbers=(400, 1000, 1000), picked=("a",), **FOUND)
    assert (["a"], "100 MiB would still be missing.") == (let_go(answer), answer.why)


@pytest.mark.parametrize("picked", [(), ("gone",), ("model",)])
def test_a_name_that_cannot_be_let_go_cannot_be_ticked(picked):
    assert "nothing is ticked" == ask("model.fit()", picked=picked, **FOUND).reason


def test_the_largest_names_are_offered_where_there_are_very_many():
    values = tuple(tensor(f"v{i}", 2 + i) for i in range(60))
    picks = ask("go()", values=values).picks
    assert (MOST_NAMES, "v59", "v20") == (len(picks), picks[0].name, picks[-1].name)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((100, 1000, 1001), "hold there (a, b) is 50.0 MiB, of a limit of 1.0 GiB: too little to matter"),
        ((100, 1000, 1000), None),
        (
            (1001, None, None),
            "hold there (a, b) is 50.0 MiB, of the 1.0 GiB that were asked for: too little to matter",
        ),
        ((1000, None, None), None),
        ((None, None, None), None),
    ],
)
def test_less_than_a_twentieth_of_the_limit_is_offered_under_other_settings_only(numbers, reason):
    answer = ask("go()", numbers=numbers, values=(tensor("a", 30), tensor("b", 20)))
    if reason is None:
        assert not isinstance(answer, Declined) or "still be missing" in answer.reason
    else:
        assert (True, ["a", "b"]) == (answer.reason.endswith(reason), let_go(answer.settings))


def test_what_no_name_holds_is_told_apart():
    left = Part("earlier", 300 * MIB, "counted")
    assert "a restart frees them" in ask("go()", breakdown=(left,)).reason


@pytest.mark.parametrize(
    ("source", "dataset"),
    [
        ("model.fit(train)", DatasetFacts("train")),
        ("for batch in pairs.rebatch(8):\n    step(batch)", DatasetFacts("pairs", batch=16)),
        ("ebm.fit(x, validation_data=x_test)", DatasetFacts("x_test", cardinality=1)),
    ],
)
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_what_a_dataset_may_hold_is_not_said_to_be_held_by_no_name(source, dataset, kind):
    left = Part("earlier", 13 * MIB, "counted")
    told = ask(source, breakdown=(left,), datasets=(replace(dataset, kind=kind),)).reason
    assert ("may be among them" in told, "no name of yours" in told) == (kind == "tf.data", kind != "tf.data")


def test_where_garbage_was_all_that_was_missing_the_cell_can_run_again_as_it_is():
    answer = ask("model.fit(x, y)", numbers=(30, 80, 100), garbage=10)
    assert (answer.source, answer.diff, answer.asks) == ("model.fit(x, y)", "", False)
    assert answer.title == "Run it again: 10.0 MiB of garbage are gone"


@pytest.mark.parametrize(("numbers", "garbage"), [((30, 80, 100), 9), ((20, 80, 100), 10), ((None, 80, 100), 10)])
def test_where_more_is_missing_or_nothing_is_known_garbage_is_no_remedy(numbers, garbage):
    assert isinstance(ask("model.fit(x, y)", numbers=numbers, garbage=garbage), Declined)


def test_it_is_never_applied_without_a_click():
    assert ask("go()", values=(tensor("old"),)).asks


def test_it_is_made_for_leftovers():
    answers = [ask("go()", cause=cause, values=(tensor("old"),)) for cause in ("leftovers", "fragmentation")]
    assert [True, False] == [a.answers_cause for a in answers]


NOISE = st.lists(
    st.sampled_from(
        ["# note", "%matplotlib inline", "", "ü = 1", "!ls", "f'{ü}'", "a = (1,\n     2)", "b = 1 + \\\n    2"]
    ),
    max_size=5,
)


@given(
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n%%time\n", "\n\n%%tfmem\n", '"""text"""\n']),
    st.sampled_from(["", "from __future__ import annotations\n"]),
    NOISE,
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_other_byte_stays_and_the_lines_run_first(lead, future, noise, end, final):
    source = lead + future + "".join(f"{line}\n" for line in noise) + "def go():\n    pass" + ("\n" if final else "")
    source = source.replace("\n", end)
    added = end.join(["from tf_mem_magic import apply", 'apply.free("old")', ""])
    answer = ask(source, values=(tensor("old"),))
    assert source == answer.source.replace(added, "")
    code = [s for s in read_cell(answer.source).tree.body if not isinstance(s, (ast.Pass, ast.Expr))]
    assert ["ImportFrom"] * (1 + bool(future)) == [type(s).__name__ for s in code[: 1 + bool(future)]]


SETUP = """%load_ext tf_mem_magic
import gc, keras, numpy as np, tensorflow as tf, tf_mem_magic as t
from keras import layers as L
x = np.random.default_rng(0).random((2048, 256), "float32"); y = x[:, :1]

def stack(width):
    return [keras.Input((256,)), L.Dense(width, activation="relu"), L.Dense(width, activation="relu"), L.Dense(1)]

def build(width):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(stack(width))
    model.compile("adam", "mse", jit_compile=False)
    return model

old = build(1024)
old.fit(x[:64], y[:64], verbose=0)
kept = keras.Sequential(stack(512))
cache = tf.ones((8, 1024, 1024))
mask = tf.ones((1024, 1024))
other = mask
def scale(batch): return tf.reduce_mean(mask) * batch
gone = build(256)
gone.fit(x[:64], y[:64], verbose=0)
spare = gone.optimizer
del gone
model = build(256)
model.fit(x[:64], y[:64], verbose=0)
start = [w.numpy() for w in model.weights], [v.numpy() for v in model.optimizer.variables]
def hold(net):
    def inner(): return net
    return inner
held = hold(kept)
gc.collect()
"""
SHOWN = "tf.ones((6, 1024, 1024))"
FAILS = """%%tfmem
keras.utils.set_random_seed(2)
for variable, value in zip(model.weights + model.optimizer.variables, start[0] + start[1]): variable.assign(value)
piled = [tf.ones((1024, 1024)) for _ in range(25)]
losses = model.fit(x, y, batch_size=256, verbose=0, shuffle=False).history["loss"]
scaled = float(scale(tf.constant(2.0)))
del piled
"""


TICK = """from tf_mem_magic.session.clicks import PanelActions
panel = PanelActions(first._rerun.__self__)
ticked = panel.combine(("free-leftovers",), tuple(p.name for p in first.proposals[0].picks))"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """One kernel that earlier cells filled: what happened there as plain values."""
    found = {}
    with Kernel(bfc(150), cwd=str(tmp_path_factory.mktemp("notebook"))) as kernel:
        for code in (SETUP, SHOWN):
            ran = kernel.run(code)
            assert ran.status == "ok", ran.errors
        ran = kernel.run(FAILS)
        assert "ResourceExhausted" in ran.errors[0], ran.errors
        kernel.run("first = t.last_report()")
        found["cause"] = kernel.value("first.diagnosis.cause")
        found["first"] = kernel.value("first.proposals[0].key")
        found["title"] = kernel.value("first.proposals[0].title")
        found["free"] = kernel.value("[l for l in first.proposals[0].source.splitlines() if 'apply.free' in l][0]")
        picks = "[(p.name, p.what, p.ticked) for p in first.proposals[0].picks]"
        found["picks"] = kernel.value(picks)
        kernel.run(TICK)
        found["save"] = kernel.value("[c.label for c in ticked.choices]")
        saving = kernel.value("ticked.choices[0].source")
        predicted = kernel.value("old.predict(x[:2], verbose=0).tolist()")
        before = kernel.value("tf.config.experimental.get_memory_info('CPU:0')['current']")
        ran = kernel.run(saving)
        found["said"] = ran.out
        found["error"] = ran.errors
        found["status"] = kernel.value("t.last_report().status")
        found["compared"] = kernel.value("t.last_report().comparison.status_before")
        found["peak"] = kernel.value("t.last_report().recording.get('allocator:CPU:0').peak")
        found["losses"] = kernel.value("losses")
        found["scaled"] = kernel.value("scaled")
        found["names"] = kernel.value(
            "[n in globals() for n in ('old', 'cache', 'spare', 'kept', 'mask', 'model', 'held')]"
        )
        found["results"] = kernel.value("len(Out)")
        kernel.run("gc.collect()")
        found["back"] = before - kernel.value("tf.config.experimental.get_memory_info('CPU:0')['current']")
        found["saved"] = predicted == kernel.value(
            "keras.saving.load_model('old.keras').predict(x[:2], verbose=0).tolist()"
        )
        found["again"] = kernel.run(saving).status
        found["alias"] = kernel.run("apply.free('mask')").out
        found["closure"] = kernel.run("apply.free('kept')").out
        found["kept works"] = kernel.run("held().predict(x[:2], verbose=0)").status
        ran = kernel.run(FAILS.replace("%%tfmem\n", ""))
        assert ran.status == "ok", ran.errors
        found["losses without us"] = kernel.value("losses")
        found["rerun"] = _by_rerun(kernel)
    return found


def _by_rerun(kernel):
    """Fill the memory once more, and go by ``report.rerun``."""
    kernel.run("cache = [tf.ones((1024, 1024)) for _ in range(20)]")
    ran = kernel.run(FAILS)
    assert "ResourceExhausted" in ran.errors[0], ran.errors
    kernel.run("second = t.last_report()\nthird = second.rerun('free-leftovers')")
    return kernel.value("(second.status, third.status, 'cache' in globals())")


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.timeout(600)
class TestInAKernel:
    def test_leftovers_are_found_to_be_the_cause_and_the_remedy_comes_first(self, live):
        assert ("leftovers", "free-leftovers") == (live["cause"], live["first"])

    def test_old_model_cache_and_displayed_value_are_named_and_nothing_that_is_needed(self, live):
        assert 'apply.free("cache", "Out[2]", "spare", "kept")' == live["free"]
        assert [
            ("cache", "tf.Tensor", True),
            ("Out[2]", "displayed, tf.Tensor", True),
            ("old", "trained model", False),
            ("spare", "optimizer", True),
            ("kept", "model", True),
        ] == live["picks"]

    def test_a_trained_model_that_is_ticked_can_be_saved_first(self, live):
        assert ["Save old first"] == live["save"]
        assert "Saved `old` as old.keras." in live["said"]

    def test_the_changed_cell_fits(self, live):
        assert ("ok", "oom", []) == (live["status"], live["compared"], live["error"])

    def test_the_memory_comes_back(self, live):
        assert live["back"] >= (32 + 24 + 3 * 5) * MIB

    def test_what_came_back_is_said(self, live):
        assert "of CPU:0 came back" in live["said"]

    def test_what_the_cell_needs_is_still_there(self, live):
        assert [False, False, False, True, True, True, True] == live["names"]
        assert 2.0 == live["scaled"]

    def test_the_results_are_the_same_as_without_the_leftovers(self, live):
        assert live["losses without us"] == live["losses"]

    def test_the_model_was_saved_before_it_went(self, live):
        assert live["saved"]

    def test_the_changed_cell_can_run_again(self, live):
        assert "ok" == live["again"]

    def test_what_another_name_or_a_closure_holds_stays(self, live):
        assert ("`mask` stays: `other` holds it too.\n", "`kept` stays: `held` holds it too.\n") == (
            live["alias"],
            live["closure"],
        )
        assert "ok" == live["kept works"]

    def test_the_same_by_report_rerun(self, live):
        assert ("oom", "ok", False) == live["rerun"]
