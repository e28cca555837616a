"""A failed run comes into view once, wherever it lies, and whatever there is to click. No TensorFlow: host memory."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests import lab as harness
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.timeout(600)]

SETUP = "%load_ext tf_mem_magic\nimport numpy as np, time"
FAILS = "\n".join(["def at(depth):", "    return at(depth - 1) if depth else np.zeros(1 << 50)", "at(4)"])
SLOW = f"%%tfmem\ntime.sleep(4)\n{FAILS}"
QUICK = f"%%tfmem\n{FAILS}"
REPORTED = f"%%tfmem --on-oom raise\n{FAILS}"
UNTRIED = f"%%tfmem --on-oom auto\n{FAILS}"
ABOVE, BELOW = 12, 12
FAILING = 1 + ABOVE

TOP = "() => { const n = document.querySelector('.tfmem-report'), b = n?.getBoundingClientRect(); return b?.height ? b.top : null; }"
SCROLLER = ".jp-WindowedPanel-outer"
SCROLLED = f"() => document.querySelector('{SCROLLER}').scrollTop"


def filler(number: int) -> str:
    return "\n".join(f"value_{number}_{line} = {line}" for line in range(9))


@pytest.fixture(scope="module", params=["contentVisibility", "full", "notebook"])
def lab(tmp_path_factory, request):
    """Serve JupyterLab in both of its ways to draw long notebooks, and Notebook 7."""
    app = "notebook" if request.param == "notebook" else "jupyterlab"
    folder = tmp_path_factory.mktemp("view")
    if app == "jupyterlab":
        place = folder / ".jupyter" / "lab" / "@jupyterlab" / "notebook-extension"
        place.mkdir(parents=True)
        (place / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": request.param}))
    with Lab(folder, size=(1280, 800), app=app) as running:
        yield running


def run_all(lab: Lab, cell: str, name: str) -> Lab:
    """Run all cells of a long notebook in whose middle this one fails; come back while it runs."""
    cells = [SETUP, *map(filler, range(ABOVE)), cell, *map(filler, range(BELOW))]
    harness.write_notebook(lab.folder / name, cells)
    lab.new_page()
    lab.open(name)
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    return lab


def has_failed(lab: Lab) -> None:
    wait_until(lambda: "Out of host memory" in json.dumps(lab.outputs(FAILING)), "the cell has failed")
    wait_until(lambda: lab.outputs(FAILING)[-1]["output_type"] == "error", "its error is there")


@pytest.fixture(scope="module")
def failed(lab):
    """Run all: the cell fails at once. What is then seen, after a scroll, after the page was loaded again."""
    run_all(lab, QUICK, "failed.ipynb")
    has_failed(lab)
    wait_until(lambda: (top := lab.page.evaluate(TOP)) is not None and 0 <= top < 300, "the headline is in view")
    lab.page.locator(".tfmem-open").wait_for()
    seen = {"error": shown_error(lab)}
    lab.page.locator(".tfmem-open").click()
    seen["opened error"] = shown_error(lab)
    lab.page.locator(".tfmem-open").click()
    seen["folded again"] = shown_error(lab)
    # At once: while the page still sees to it that the report stays in view.
    lab.page.mouse.move(640, 400)
    lab.page.mouse.wheel(0, -20_000)
    time.sleep(3)
    seen["scrolled away"] = lab.page.evaluate(SCROLLED)
    seen["saved"] = lab.save("failed.ipynb")["cells"][FAILING]["outputs"]
    lab.page.reload()
    lab.page.locator(SCROLLER).wait_for()
    time.sleep(4)
    seen["loaded again"] = lab.page.evaluate(SCROLLED)
    lab.shut_down()
    return seen


def shown_error(lab: Lab) -> tuple[float, str, str]:
    """Give how high the traceback is, what its button says, and what it says to who cannot see."""
    pre = "document.querySelector('.tfmem-open').parentElement.querySelector('pre')"
    button = lab.page.locator(".tfmem-open")
    height = lab.page.evaluate(f"() => {pre}.getBoundingClientRect().height / {pre}.scrollHeight")
    return round(height, 2), button.inner_text()[0], button.get_attribute("aria-expanded")


@pytest.mark.parametrize(
    "cell",
    [SLOW, REPORTED, UNTRIED],
    ids=["after the strip was there", "where it only reports", "where nothing could be tried"],
)
def test_in_a_long_notebook_a_failure_comes_into_view(lab, cell):
    run_all(lab, cell, "view.ipynb")
    has_failed(lab)
    wait_until(lambda: (top := lab.page.evaluate(TOP)) is not None and 0 <= top < 300, "the headline is in view", 20)
    lab.shut_down()


def test_a_quick_failure_is_in_view_once_and_what_the_person_scrolled_to_then_stays(failed):
    assert failed["scrolled away"] == 0


def test_a_page_that_is_loaded_again_stays_where_it_opens(failed):
    assert failed["loaded again"] == 0


def test_the_traceback_is_folded_opens_whole_and_folds_again(failed):
    height, mark, expanded = failed["error"]
    assert (height < 0.6, mark, expanded) == (True, "▸", "false")
    height, mark, expanded = failed["opened error"]
    assert (height >= 0.99, mark, expanded) == (True, "▾", "true")
    assert failed["folded again"] == failed["error"]


def test_the_saved_notebook_has_the_whole_traceback(failed):
    trace = re.sub("\x1b\\[[0-9;]*m", "", "\n".join(failed["saved"][-1]["traceback"]))
    assert [trace.count("at(4)") > 0, trace.count("depth - 1") > 0, "MemoryError" in trace] == [True] * 3


def test_what_the_person_scrolled_to_meanwhile_is_not_taken_away(lab):
    # The same cell as above, which does come into view where nobody scrolls.
    run_all(lab, SLOW, "scrolled.ipynb")
    lab.page.locator(".tfmem-strip").wait_for(state="attached")
    lab.page.mouse.move(640, 400)
    lab.page.mouse.wheel(0, -20_000)
    has_failed(lab)
    time.sleep(3)
    assert lab.page.evaluate(SCROLLED) == 0
    lab.shut_down()
