"""Bad input in a real JupyterLab: the panel says what happened, the old code is one click away, the rest works."""

from __future__ import annotations

import re

import pytest

from tests import lab as harness
from tests.kernel import bfc
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
x = np.zeros((16384, 64), 'float32'); y = np.zeros((16384, 1), 'float32'); runs = []"""
MODEL = """stack = [keras.Input((64,))] + [layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)"""
FIT = "%%tfmem\nmodel.fit(x, y, batch_size=16384, epochs=2, verbose=0);"
SMALLER = "Batch 8192"
MIXED = "16-bit compute"
ACCUMULATED = "Keep batch 16384, in "


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("bad"), env=bfc(158)) as running:
        yield running


@pytest.fixture
def notebook(lab, request):
    """Open a notebook of these cells in a fresh page and run all but the last; shut its kernel down afterwards."""
    name = f"{request.node.name[:60]}.ipynb"

    def open_notebook(*cells: str) -> int:
        harness.write_notebook(lab.folder / name, cells)
        lab.new_page()
        lab.open(name)
        for index in range(len(cells) - 1):
            lab.run(index)
        return len(cells) - 1

    yield open_notebook
    lab.shut_down()


def run_to(lab: Lab, index: int, words: str) -> str:
    """Run a cell to its end, until the panel shows ``words``; give all that is read below it."""
    lab.start(index)
    return ended_with(lab, index, words)


def ended_with(lab: Lab, index: int, words: str) -> str:
    lab.wait_for_text(index, words)
    wait_until(lambda: not lab.is_running(index), "the cell is at its end")
    return lab.output_text(index)


def declined_reason(lab: Lab, text: str):
    """Find a reason among the remedies that are not offered."""
    return lab.page.locator(".tfmem").get_by_text(text).first


def undo(lab: Lab, index: int, old: str) -> None:
    lab.click("Undo")
    wait_until(lambda: lab.source(index) == old, "the old code is back")
    lab.page.get_by_text("The cell has its old code again; it was not run.").wait_for()


def test_a_remedy_that_raises_is_declined_with_its_error_and_the_others_work(lab, notebook):
    raises = "def propose(context):\n    raise KeyError('gone')\nimport tf_mem_magic.remedies.xla as xla\nxla.propose = propose"
    last = notebook(SETUP, MODEL, raises, FIT)
    run_to(lab, last, SMALLER)
    broken = declined_reason(lab, "it failed on this cell (KeyError: 'gone'); please report that")
    growth = declined_reason(lab, "TensorFlow sees no GPU here")
    assert [False, False] == [broken.is_visible(), growth.is_visible()]
    lab.click("not offered")
    broken.wait_for()
    growth.wait_for()
    lab.click(SMALLER)
    assert "batch seen: 8192" in ended_with(lab, last, "it fits")
    assert "batch_size=8192" in lab.source(last)


def test_where_nothing_is_offered_the_reasons_can_be_read_all_the_same(lab, notebook):
    last = notebook(SETUP, "%%tfmem\nheld = [tf.zeros((1024, 1024, 8)) for _ in range(9)]")
    told = run_to(lab, last, "not offered")
    assert "Out of memory on CPU:0" in told
    reason = lab.page.get_by_text("no session of TensorFlow 1's style is open").first
    assert not reason.is_visible()
    lab.page.locator("summary", has_text="not offered").first.click()
    reason.wait_for()


def test_a_rerun_that_fails_for_another_reason_says_so_and_everything_can_be_tried_again(lab, notebook):
    fails = "runs.append(1)\nif len(runs) == 2: raise ValueError('the data are gone')\n"
    old = FIT.replace("model.fit", f"{fails}model.fit")
    # Deep enough that the parts are small: in a pool that two runs have left, those of two were once too large.
    last = notebook(SETUP, MODEL.replace("range(4)", "range(7)"), old)
    run_to(lab, last, "Batch ")
    lab.click(re.compile(r"^\s*Batch \d+\s*$"))
    told = ended_with(lab, last, "the rerun stopped with ValueError, not an out-of-memory error")
    assert "ValueError: the data are gone" in told
    assert "not seen in the rerun" in told
    assert "Try another change in its place" in told
    lab.click(ACCUMULATED)
    told = ended_with(lab, last, "it fits")
    assert re.search(r"→ Keep batch 16384, in [248] steps of \d+ ✓", " ".join(told.split()))
    assert re.search(r"apply\.accumulate_gradients\(model, [248]\)", lab.source(last))
    undo(lab, last, old)


def test_after_a_rerun_that_fits_there_is_more_room_one_click_further(lab, notebook):
    last = notebook(SETUP, MODEL, FIT)
    run_to(lab, last, SMALLER)
    lab.click(SMALLER)
    ended_with(lab, last, "it fits")
    further = "Batch 4096"
    assert not lab.page.get_by_role("button", name=further).first.is_visible()
    lab.click("More room, or another change")
    lab.click(further)
    told = ended_with(lab, last, "it ran again")
    assert "8192 ✓ → 4096 ✓" in " ".join(told.split())
    assert "batch_size=4096" in lab.source(last)


def test_a_model_that_cannot_be_cloned_or_changed_stays_whole(lab, notebook):
    model = """class Fixed(layers.Activation):
    def get_config(self): raise NotImplementedError("this layer cannot be cloned")
    @layers.Layer.dtype_policy.setter
    def dtype_policy(self, value):
        if "mixed" in str(getattr(value, "name", value)): raise ValueError("this layer keeps its precision")
        layers.Layer.dtype_policy.fset(self, value)
stack = [keras.Input((64,)), layers.Dense(128)] + [layers.Activation("tanh") for _ in range(24)]
stack += [Fixed("tanh"), layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)"""
    last = notebook(SETUP, model, "print({one.compute_dtype for one in model.layers})", FIT)
    run_to(lab, last, MIXED)
    lab.click(MIXED)
    told = ended_with(lab, last, "the rerun stopped with ValueError, not an out-of-memory error")
    assert "this layer keeps its precision" in told
    lab.run(2)
    assert "{'float32'}" == lab.output_text(2).strip()
    undo(lab, last, FIT)
    run_to(lab, last, SMALLER)
    lab.click(SMALLER)
    ended_with(lab, last, "it fits")


def test_data_that_can_be_read_only_once_are_named_before_a_rerun_fails_on_them(lab, notebook):
    old = "%%tfmem\nmodel.fit(data, verbose=0);"
    # Without products: a CPU's kernels copy their matrices into 32 bits.
    layers = "[layers.Dense(512)] + [layers.Activation('tanh') for _ in range(6)]"
    model = MODEL.replace('[layers.Dense(512, activation="relu") for _ in range(4)]', layers)
    last = notebook(SETUP, model, "data = ((x, y) for _ in range(1))", old)
    told = run_to(lab, last, MIXED)
    assert "Used up: data, run the cell that makes it first" in told
    lab.click(MIXED)
    told = ended_with(lab, last, "the rerun stopped with ValueError, not an out-of-memory error")
    assert "empty generator" in told
    undo(lab, last, old)
