"""Quantize in a real kernel: after predictions that ran out of memory, and after runs that went well."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc, surviving

pytestmark = [pytest.mark.kernel, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers as L
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(3200, 1024)).astype("float32")
def build():
    return keras.Sequential([keras.Input((1024,)), *(L.Dense(1024, "relu") for _ in range(28)), L.Dense(10)])
model = build()"""
PREDICT = "%%tfmem -o big\nscores = model.predict(x, batch_size=3200, verbose=0)"
FIT = "%%tfmem -o rep\nlittle.fit(z, z[:, :1], epochs=2, verbose=0)"
LITTLE = """z = np.ones((64, 64), "float32")
little = keras.Sequential([keras.Input((64,)), L.Dense(64, "relu"), L.Dense(1)]); little.compile("adam", "mse")"""
KEYS = "[p.key for p in rep.outcome.new_cells]"


@pytest.fixture(scope="module")
def kernel():
    running, ran = surviving(first_run)
    with running:
        assert ran.status == "error"
        running.first = ran
        assert running.run(LITTLE).status == "ok"
        yield running


def first_run():
    running = Kernel(bfc(152), allow_stdin=True)
    try:
        ran = running.run(SETUP)
        assert ran.status == "ok", ran.errors
        return running, running.run(PREDICT)
    except BaseException:
        running.__exit__()
        raise


def test_after_predictions_that_ran_out_it_is_offered_last_and_below(kernel):
    offered = kernel.value("[(p.key, p.new_cell) for p in big.outcome.offered]")
    assert offered[-1] == ("quantize", True), kernel.value("[(d.key, d.reason) for d in big.outcome.declined]")
    assert "Or run another cell: this one stays as it is" in kernel.first.report_text


def test_it_rescues_the_predictions_once_the_model_itself_is_let_go(kernel):
    new = kernel.run('done = big.rerun("quantize")')
    assert (new.status, kernel.value("(done.status, done.comparison)")) == ("ok", ("ok", None)), new.err
    assert "output error on 32 samples" in new.out
    assert kernel.value("done.recording.cell.source == big.outcome.new_cells[-1].source")
    assert kernel.value("done.outcome.offered") == ()
    gone = kernel.run("%tfmem free model")
    assert gone.status == "ok", gone.errors
    after = kernel.run("%%tfmem -o small\nscores = model_int8.predict(x, batch_size=3200, verbose=0)")
    assert (after.status, kernel.value("small.status")) == ("ok", "ok"), after.errors
    assert kernel.value("small.comparison") is None


def test_after_a_run_that_went_well_it_is_offered_in_one_line(kernel):
    ran = kernel.run(FIT)
    assert ran.status == "ok", ran.errors
    assert "quantize" in kernel.value(KEYS)
    lines = [line for line in ran.report_text.splitlines() if "smaller for deployment" in line]
    assert len(lines) == 1
    assert "Make `little` smaller for deployment: " in lines[0]


def test_running_the_cell_again_is_no_rerun_of_the_offer(kernel):
    assert kernel.run(FIT).status == "ok"
    assert kernel.run(FIT).status == "ok"
    assert kernel.value("rep.comparison") is None


def test_quiet_and_short_always_on_runs_show_nothing(kernel):
    ran = kernel.run("%%tfmem -q\nlittle.predict(z, verbose=0);")
    assert (ran.status, ran.report_text.strip()) == ("ok", ""), ran.errors
    kernel.run("%tfmem on")
    shown = kernel.run("little.predict(z, verbose=0);")
    kernel.run("%tfmem off")
    assert shown.reports == {}
