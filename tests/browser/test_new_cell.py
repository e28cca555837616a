"""Remedies that are a cell of their own, in a real JupyterLab: a click adds the cell below and runs it."""

from __future__ import annotations

import pytest

from tests import lab as harness
from tests.kernel import bfc
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = "%load_ext tf_mem_magic\nimport keras, numpy as np, tensorflow as tf\nfrom keras import layers"
DATA = """x = np.random.default_rng(0).normal(size=(4096, 64)).astype("float32"); y = x[:, :1]
stack = [keras.Input((64,))] + [layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)"""
FIT = "%%tfmem\nmodel.fit(x, y, batch_size=256, epochs=4, verbose=0);\n"
AFTER = "print('after')"
LINE = "Make model smaller for deployment"
BUTTON = "Run a new cell below: Quantize a copy of model to int8"
CELLS = [SETUP, DATA, FIT, AFTER]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new-cell")


def sources(lab: Lab) -> list[str]:
    return lab.cell(0, "c.parent.widgets.map((each) => each.model.sharedModel.getSource())")


def run_to_the_fold(lab: Lab, name: str) -> None:
    harness.write_notebook(lab.folder / name, CELLS)
    lab.open(name)
    for index in (0, 1):
        lab.run(index)
    lab.start(2)
    wait_until(lambda: LINE in lab.output_text(2) and not lab.is_running(2), "the folded line is there")


def unfold(lab: Lab) -> None:
    lab.page.locator("button.tfmem-toggle", has_text=LINE).click()
    lab.page.locator("button.jupyter-button", has_text=BUTTON).wait_for(state="visible")


@pytest.mark.parametrize("dark", [False, True])
def test_a_click_adds_the_cell_below_and_runs_it_and_leaves_the_cell_that_ran_alone(folder, dark):
    with Lab(folder, env=bfc(400), dark=dark) as lab:
        run_to_the_fold(lab, f"added-{dark}.ipynb")
        assert not lab.page.locator("button.jupyter-button", has_text=BUTTON).is_visible()
        before = lab.output_text(2)
        lab.shot(folder / f"folded-{dark}.png")
        unfold(lab)
        lab.shot(folder / f"open-{dark}.png")
        lab.click(BUTTON)
        wait_until(lambda: len(sources(lab)) == 5, "a cell was added")
        wait_until(lambda: "output error on 32 samples" in lab.output_text(3), "the new cell has run")
        wait_until(lambda: not lab.is_running(3), "the new cell has ended")
        lab.cell(3, "c.node.scrollIntoView()")
        lab.shot(folder / f"ran-{dark}.png")
        first, second, fit, new, after = sources(lab)
        assert [first, second, fit, after] == CELLS
        assert 'model_int8 = apply.quantize(model, "int8", sample=x)' in new
        assert "weights: 3.1 → " in lab.output_text(3)
        assert "Runs of this cell" not in lab.output_text(3)
        assert "smaller for deployment" not in lab.output_text(3)
        assert before.splitlines()[0] == lab.output_text(2).splitlines()[0]
        lab.click(BUTTON)
        wait_until(lambda: lab.count(3) not in (None, 4) and not lab.is_running(3), "the same new cell has run again")
        assert len(sources(lab)) == 5
        lab.set_source(4, "print(type(model_int8).__name__, model.layers[0].dtype_policy.name)")
        lab.run(4)
        assert lab.output_text(4).strip() == "Sequential float32"
        lab.shut_down()


def test_without_our_script_copy_comes_first_and_the_new_cell_runs_inside_the_panel(folder):
    with Lab(folder, env=bfc(400)) as lab:
        lab.page.route("**/*anywidget*/**", lambda route: route.abort())
        run_to_the_fold(lab, "blocked.ipynb")
        wait_until(lambda: lab.page.locator("button", has_text="Copy the cell").count(), "the panel's texts are there")
        unfold(lab)
        lab.shot(folder / "blocked.png")
        lab.click(BUTTON)
        wait_until(lambda: "output error on 32 samples" in lab.output_text(2), "the new cell has run in the panel")
        lab.shot(folder / "blocked-ran.png")
        assert sources(lab) == CELLS
        lab.shut_down()
