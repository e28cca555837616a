"""Memory is really back: after an error, before a rerun, and where a person lets go of a name."""

import gc
import sys
import weakref

import pytest

from tests.kernel import Kernel, bfc
from tf_mem_magic.release.errors import release_exception
from tf_mem_magic.release.release import Released

SETUP = """
import gc, sys
import numpy as np, tensorflow as tf, keras
from tf_mem_magic.facts.before import snapshot as _snapshot
from tf_mem_magic.release.errors import release_exception as _release_exception
from tf_mem_magic.release.release import release_run as _release_run
from tf_mem_magic.release.by_name import free as _free

L = keras.layers
data = np.random.default_rng(1).random((4000, 512), "float32")
old = keras.Sequential([keras.Input((512,)), L.Dense(64, activation="swish"), L.Dense(8)])
old.compile("adam", "mse")
old.fit(data[:64], data[:64, :8], verbose=0)
models = []
_ip = get_ipython()


def _now():
    gc.collect()
    return tf.config.experimental.get_memory_info("CPU:0")["current"]


def _begin():
    global _before, _base
    _before, _base = _snapshot(_ip.user_ns), _now()


def _end(source):
    found = [_base, _now()]
    _release_exception(getattr(sys, "last_value", None))
    found.append(_now())
    released = _release_run(_ip, _before, source)
    return [*found, _now(), released.names]


warm = keras.Sequential([keras.Input((512,)), L.Dense(64)])
warm.compile("adam", "mse", run_eagerly=True)
warm.fit(data[:64], data[:64, :64], verbose=0)
warm = None
"""

FIT = """model = keras.Sequential([keras.Input((512,)), L.Dense(2048, activation="swish"), L.RepeatVector(16),
                        L.GlobalAveragePooling1D(), L.Dense(512)])
model.compile("adam", "mse", jit_compile=False)
history = model.fit(data, data, batch_size={batch}, verbose=0)
"""

LOOP = """net = keras.Sequential([keras.Input((512,)), L.Dense(2048, activation="swish"), L.RepeatVector(16),
                        L.GlobalAveragePooling1D(), L.Dense(512)])
opt = keras.optimizers.Adam()
x = tf.constant(data)

@tf.function
def step(batch):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((net(batch, training=True) - batch) ** 2)
    grads = tape.gradient(loss, net.trainable_variables)
    opt.apply_gradients(zip(grads, net.trainable_variables))
    return loss

for size in (64, 4000):
    loss = step(x[:size])
"""

EAGER = """def pile_up():
    kept = []
    while True:
        kept.append(tf.random.normal((1024, 1024, 8)))

first = tf.zeros((1024, 1024))
pile_up()
"""

ASYNC = """import asyncio

async def work():
    here = tf.zeros((1024, 1024, 4))
    await asyncio.sleep(0)
    piled = []
    while True:
        piled.append(tf.random.normal((1024, 1024, 8)))

await work()
"""

AGAIN = "wide.compile('adam', 'mse')\nwide.fit(data, data, batch_size={batch}, verbose=0)"
"""A cell that compiles a model of an earlier cell, and so gives it a new optimizer in each run."""
WIDE = """
wide = keras.Sequential([keras.Input((512,)), L.Dense(4096), L.Dense(512)])
"""
GOOD = FIT.format(batch=100)
IN_A_LIST = GOOD + "models.append(model)\n"
_SMALL = "keras.Sequential([keras.Input((512,)), L.Dense(4)])"
_STEP = """with tf.GradientTape() as tape:
    loss = tf.reduce_mean(small(data[:8]) ** 2)
opt.apply_gradients(zip(tape.gradient(loss, small.trainable_variables), small.trainable_variables))
"""
_FITS = "small.compile(opt, 'mse')\nsmall.fit(data[:8], data[:8, :4], verbose=0)\n"
_ADAM = "opt = same = keras.optimizers.Adam(2e-3, beta_1=0.8)\n"
OPTIMIZERS = {
    "made anew, by fit": (_ADAM, f"small = {_SMALL}\n{_FITS}"),
    "made anew, own loop": (_ADAM, f"small = {_SMALL}\n{_STEP}"),
    "a schedule": (
        "opt = same = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))",
        f"small = {_SMALL}\n{_FITS}",
    ),
    "of an earlier cell": (f"{_ADAM}small = {_SMALL}", _FITS),
    "built in the cell": (f"{_ADAM}small = keras.Sequential([L.Dense(4)])", _STEP.replace("small(", "small(1.0 * ")),
    "kept in a list": (f"{_ADAM}models = []", f"small = {_SMALL}\nmodels.append(small)\n{_STEP}"),
    "built before": (f"{_ADAM}opt.build({_SMALL}.trainable_variables)", "n = 1"),
}
"""An earlier cell, and one that is run, taken back and run again."""
CASES = {"fit": FIT.format(batch=4000), "loop": LOOP, "eager": EAGER, "async": ASYNC}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Everything that one kernel went through, as plain values."""
    found = {}
    env = {**bfc(256), "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    with Kernel(env) as kernel:
        ran = kernel.run(SETUP)
        assert ran.status == "ok", ran.errors
        predicted = kernel.value("old.predict(data[:4], verbose=0).tolist()")
        for name, source in CASES.items():
            kernel.run("_begin()")
            failed = kernel.run(source)
            if name == "eager":
                kernel.run("_release_exception(sys.last_value)")
                found["whole traceback"] = kernel.run("%tb")
            found[name] = {"error": failed.errors, "bytes": kernel.value(f"_end({source!r})")}
            found[name]["traceback"] = kernel.run("%tb")
        reruns = []
        for _ in range(10):
            kernel.run("_begin()")
            assert [] == kernel.run(GOOD).errors
            reruns.append(kernel.value(f"_end({GOOD!r})"))
        found["reruns"] = reruns
        kernel.run("_begin()")
        assert kernel.run(IN_A_LIST).status == "ok"
        found["list"] = kernel.value(f"_end({IN_A_LIST!r})")
        found["listed model"] = kernel.value("models[0].predict(data[:4], verbose=0).shape")
        found["old"] = (predicted, kernel.value("old.predict(data[:4], verbose=0).tolist()"))
        found["old trains"] = kernel.run("old.fit(data[:64], data[:64, :8], verbose=0)").errors
        found |= _free_things(kernel)
        found["compiled anew"] = _compiled_anew(kernel)
        found["optimizers"] = {name: _with_an_optimizer_from_before(kernel, *case) for name, case in OPTIMIZERS.items()}
    return found


def _with_an_optimizer_from_before(kernel, earlier, source):
    """Run a cell twice as a rerun does; give its error, what the release says, and the optimizer in between."""
    assert kernel.run(earlier).errors == []
    kernel.run("_begin()")
    assert kernel.run(source).errors == []
    said = kernel.value(f"[s for s in _release_run(_ip, _before, {source!r}).sentences if 'anew' in s]")
    state = kernel.value("(int(opt.iterations), round(float(opt.get_config().get('beta_1', 0)), 3), opt is same)")
    return kernel.run(source).errors, said, state


def _compiled_anew(kernel):
    """Give the bytes before a cell that trains a model of an earlier one, after it, and as the cell runs again."""
    kernel.run(WIDE)
    source = AGAIN.format(batch=500)
    kernel.run("_begin()")
    assert kernel.run(source).status == "ok"
    other = kernel.value("(_release_run(_ip, _before, '', None, 'wide.fit(data, data)'), _now())[1]")
    again = kernel.value(f"(_release_run(_ip, _before, '', None, {source!r}), _now())[1]")
    ran = kernel.run(source)
    return kernel.value("_base"), other, again, ran.errors


def _free_things(kernel):
    found = {"base": kernel.value("models.clear() or _release_run(_ip, _before, '') and _now()")}
    assert kernel.run(GOOD).status == "ok"
    found["free model"] = kernel.value("_free(_ip, ('model',))")
    found["free model names"] = kernel.value("[n for n in ('model', 'history') if n in globals()]")
    kernel.run("history = None")
    found["after free model"] = kernel.value("_free(_ip, ('history',)) and _now()")
    assert kernel.run("big = tf.zeros((1024, 1024))\nsame = big\nbig").status == "ok"
    found["free tensor"] = kernel.value("_free(_ip, ('same',))")
    found["after free tensor"] = kernel.value("_now()")
    assert kernel.run("tf.zeros((1024, 1024))").status == "ok"
    found["free result"] = kernel.value("_free(_ip, (f'Out[{max(_ip.user_ns[\"Out\"])}]',)).startswith('Let go of')")
    found["after free result"] = kernel.value("_now()")
    source = "base_model = keras.Sequential([keras.Input((512,)), L.Dense(1024)])\n"
    source += "whole = keras.Sequential([base_model, L.Dense(4)])\nbox = {'deep': [base_model]}\n"
    assert kernel.run(source).status == "ok"
    found["free shared"] = kernel.value("_free(_ip, ('base_model',))")
    found["whole"] = kernel.value("whole.predict(data[:4], verbose=0).shape")
    for name in ("nothing_here", "In", "box['deep']"):
        found[f"free {name}"] = kernel.value(f"_free(_ip, ({name!r},))")
    return found


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
@pytest.mark.parametrize("case", CASES)
def test_the_case_runs_out_of_memory(seen, case):
    assert [True] == ["ResourceExhaustedError" in text for text in seen[case]["error"]]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
@pytest.mark.parametrize("case", CASES)
def test_the_error_holds_memory_and_all_of_it_comes_back_to_the_byte(seen, case):
    before, failed, _, released, _ = seen[case]["bytes"]
    assert failed > before
    assert before == released


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_frames_alone_held_what_a_function_had_piled_up(seen):
    _, failed, without_frames, _, _ = seen["async"]["bytes"]
    assert 64 * 2**20 < failed - without_frames


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_what_the_failed_run_bound_is_let_go_by_name(seen):
    assert ("model",) == seen["fit"]["bytes"][4]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_line_of_the_cell_and_the_error_can_still_be_shown_before_a_rerun(seen):
    shown = "".join(seen["eager"]["traceback"].errors) + seen["eager"]["traceback"].out
    assert "pile_up()" in shown
    assert "ResourceExhaustedError" in shown


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_after_the_error_alone_was_released_the_whole_traceback_can_be_shown(seen):
    shown = "".join(seen["whole traceback"].errors) + seen["whole traceback"].out
    assert "kept.append" in shown


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_ten_reruns_of_a_cell_that_builds_and_trains_a_model_leave_nothing(seen):
    assert [0] * 10 == [released - before for before, _, _, released, _ in seen["reruns"]]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_each_rerun_did_hold_a_model(seen):
    assert all(held - before > 20 * 2**20 for before, held, _, _, _ in seen["reruns"])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_a_model_that_a_list_from_before_holds_lives_on(seen):
    before, _, _, released, _ = seen["list"]
    assert released - before > 20 * 2**20
    assert (4, 512) == seen["listed model"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_a_model_from_before_keeps_its_weights_and_trains_on(seen):
    before, after = seen["old"]
    assert before == after
    assert [] == seen["old trains"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_freeing_a_model_gives_its_memory_back_though_its_history_still_refers_to_it(seen):
    assert seen["free model"].startswith("Let go of `model`: ")
    assert "MiB of CPU:0 came back." in seen["free model"]
    assert "refers to `model`, so it was emptied and cannot be used any more." in seen["free model"]
    assert ["history"] == seen["free model names"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_after_freeing_everything_nothing_is_left(seen):
    assert seen["base"] == seen["after free model"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_freeing_a_tensor_takes_its_other_names_and_its_output_along(seen):
    assert "Let go of `same` (and `big`, the same object): 4.0 MiB of CPU:0 came back." == seen["free tensor"]
    assert seen["base"] == seen["after free tensor"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_a_result_can_be_freed(seen):
    assert seen["free result"]
    assert seen["base"] == seen["after free result"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_weights_that_another_model_shares_keep_their_values(seen):
    assert (4, 4) == seen["whole"]
    assert "cannot be used" not in seen["free shared"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing_here", "There is no `nothing_here` in this notebook."),
        ("In", "`In` belongs to IPython and stays."),
        ("box['deep']", "`box['deep']` is a part of `box`: free that, or delete the part yourself."),
    ],
)
def test_what_cannot_be_freed_says_why(seen, name, sentence):
    assert sentence == seen[f"free {name}"]


class Heavy:
    """Stands for a tensor."""


def fail_with(heavy):
    held = heavy
    raise ValueError("no memory") from (held and None)


def caught(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError


def test_frames_give_up_what_they_hold():
    heavy = Heavy()
    error, reference = caught(fail_with, heavy), weakref.ref(heavy)
    del heavy
    assert reference() is not None
    release_exception(error)
    assert reference() is None


def test_frames_looked_at_before_give_it_up_too():
    heavy = Heavy()
    error, reference = caught(fail_with, heavy), weakref.ref(heavy)
    del heavy
    _ = error.__traceback__.tb_next.tb_frame.f_locals["held"] is None
    release_exception(error)
    assert reference() is None


def test_an_exception_keeps_its_frames_where_asked():
    heavy = Heavy()
    error, reference = caught(fail_with, heavy), weakref.ref(heavy)
    del heavy
    assert 0 == release_exception(error, keep_frames=True)
    assert reference() is not None


def test_causes_and_contexts_are_emptied():
    def outer(heavy):
        try:
            fail_with(heavy)
        except ValueError as inner:
            raise KeyError("outer") from inner

    heavy = Heavy()
    error, reference = caught(outer, heavy), weakref.ref(heavy)
    del heavy
    release_exception(error)
    gc.collect()
    assert reference() is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_members_of_a_group_are_emptied():
    heavy = Heavy()
    error, reference = caught(fail_with, heavy), weakref.ref(heavy)
    del heavy
    group = ExceptionGroup("several", [error])  # noqa: F821
    del error
    release_exception(group)
    assert reference() is None


def test_a_generator_that_may_go_on_is_left_alone():
    def numbers():
        kept = []
        try:
            raise ValueError("inside")
        except ValueError as error:
            kept.append(error)
        yield kept[0]
        yield 2

    generator = numbers()
    release_exception(next(generator))
    assert 2 == next(generator)


def test_frames_that_still_run_are_left_alone():
    mine = Heavy()
    release_exception(caught(fail_with, mine))
    assert isinstance(mine, Heavy)


def test_no_exception_is_nothing_to_release():
    assert 0 == release_exception(None)


def test_a_release_that_gave_nothing_back_is_not_told():
    assert () == Released(("x",), (("allocator:CPU:0", 0),)).sentences


def test_a_release_is_told_with_its_bytes():
    released = Released(("history", "model"), (("allocator:GPU:0", 3 << 20),))
    sentence = "Released before this run: `history` and `model` of the run before it (3.0 MiB of GPU:0 came back)."
    assert (sentence,) == released.sentences


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_a_model_that_is_compiled_anew_lets_go_of_the_old_optimizer_before_and_no_other_does(seen):
    """Adam keeps two values for each of 4.2 million weights: 32 MiB."""
    base, other, again, errors = seen["compiled anew"]
    assert other - base > 30 << 20
    assert again - base < 1 << 20
    assert errors == []


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_an_optimizer_from_before_begins_anew_with_the_model_that_is_made_anew(seen):
    for case, state in (("made anew, by fit", (0, 0.8, True)), ("made anew, own loop", (0, 0.8, True)),
                        ("a schedule", (0, 0.0, True))):  # fmt: skip
        errors, said, found = seen["optimizers"][case]
        assert (case, errors, found) == (case, [], state)
        assert said == ["`opt` begins anew: the run before had built it for a model that is made anew."]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_an_optimizer_whose_model_stays_keeps_its_steps(seen):
    for case, steps in (
        ("of an earlier cell", 1),
        ("built in the cell", 1),
        ("kept in a list", 1),
        ("built before", 0),
    ):
        _, said, (found, _, is_same) = seen["optimizers"][case]
        assert (case, found, is_same, said) == (case, steps, True, [])
