"""Pages that lend less than JupyterLab does, with real runs: no notebook, no kernel, no restart, no script."""

from __future__ import annotations

import pytest

from tests import lab as harness
from tests.kernel import bfc
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = "%load_ext tf_mem_magic\nimport ipywidgets, keras, numpy as np, tensorflow as tf\nfrom keras import layers"
DATA = "x = np.zeros((16384, 64), 'float32'); y = np.zeros((16384, 1), 'float32')"
MODEL = """stack = [keras.Input((64,))] + [layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)"""
FIT = "%%tfmem\nmodel.fit(x, y, batch_size=16384, epochs=2, verbose=0);"
SEEN = "import tf_mem_magic as t; r = t.last_report(); print(r.status, sorted({b.batch for b in r.recording.facts.batches}))"
COPY = "Run a changed copy below: Batch 8192"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("tiers"), env=bfc(150)) as running:
        yield running


@pytest.fixture
def ran_out(lab, request):
    """Open a notebook in a page that hides something, and run it until its choices are shown."""

    def run(script: str, button: str, fit: str = FIT, *more: str, before=None) -> Lab:
        name = f"{request.node.name[:60]}.ipynb"
        harness.write_notebook(lab.folder / name, [SETUP, DATA, MODEL, fit, SEEN, *more])
        lab.new_page()
        if before is not None:
            before(lab.page)
        lab.open(name)
        lab.run(0)
        if script:
            lab.hide(script)
        for index in (1, 2):
            lab.run(index)
        lab.start(3)
        wait_until(lambda: button in lab.output_text(3) and not lab.is_running(3), f"the button {button!r} is there")
        return lab

    yield run
    lab.shut_down()


def fits_below(lab: Lab) -> None:
    """Click, and see the changed copy run inside the panel, report there, and leave the cell as it was."""
    lab.click(COPY)
    lab.wait_for_text(3, "Runs of this cell: 16384 ✗ → ")
    assert "it fits" in lab.output_text(3)
    assert FIT == lab.source(3)
    assert "Copy the cell" in lab.output_text(3)
    wait_until(lambda: not lab.is_running(3), "the run is over")
    lab.run(4)
    assert "ok [8192]" == lab.output_text(4).strip()
    assert "Error displaying widget" not in lab.page.inner_text("body")


def test_without_the_notebook_the_copy_runs_and_reports_in_the_panel(ran_out):
    fits_below(ran_out("hideNotebook();", COPY))


def test_without_the_kernel_the_copy_runs_and_reports_in_the_panel(ran_out):
    fits_below(ran_out("hideNotebook(); hideExecution();", COPY))


def test_without_the_script_the_copy_runs_and_reports_in_the_panel(ran_out):
    fits_below(ran_out("", COPY, before=lambda page: page.route("**/*anywidget*/**", lambda route: route.abort())))


def test_without_restart_the_plan_is_kept_and_resume_takes_it_up(ran_out):
    # After an out-of-memory under XLA every change takes a restart.
    fit = FIT.replace("model.fit", "model.compile('adam', 'mse', jit_compile=True)\nmodel.fit")
    resume = "%load_ext tf_mem_magic\n%tfmem resume"
    hide = "hide(s, 'restartKernel'); hide(s.session.kernel, 'restart');"
    lab = ran_out(hide, "Batch 4096", fit, resume)
    lab.click("Batch 4096")
    lab.page.get_by_text("Restart the kernel, then run %load_ext tf_mem_magic and %tfmem resume.").wait_for()
    assert fit == lab.source(3)
    lab.page.reload()  # the page has its restart again
    lab.page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    lab.restart()
    lab.run(5)
    assert "the cell with its remedy" in lab.output_text(5)
    lab.run(4)
    assert "16384" not in lab.output_text(4)
