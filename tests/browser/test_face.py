"""In five seconds: what a person sees when memory ran out, and after the click. One lab, one real out-of-memory."""

from __future__ import annotations

import base64
import mimetypes
import re
import time

import pytest

from tests import lab as harness
from tests.browser.seen import SEEN, told, violations
from tests.kernel import bfc
from tests.lab import Lab, wait_until
from tests.needs import lacking, need

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.tf, pytest.mark.timeout(900)]

CELLS = [
    "%load_ext tf_mem_magic\nimport keras, numpy as np, tensorflow as tf\nfrom keras import layers",
    "x = np.zeros((16384, 64), 'float32'); y = np.zeros((16384, 1), 'float32')",
    "stack = [keras.Input((64,)), layers.Dense(128)] + [layers.Activation('tanh') for _ in range(22)] + [layers.Dense(1)]\n"
    "model = keras.Sequential(stack)\nmodel.compile('adam', 'mse', jit_compile=False)",
    "%%tfmem\nbatch = 16384\n\n\n\nmodel.fit(x, y, batch_size=batch, epochs=12, verbose=0);",
    "print('this cell is not reached')",
]
FIT = 3

BUTTONS = ".tfmem-main-button"


def tell_story(lab: Lab, name: str) -> dict:
    """Run all cells, look, click the first button, look, undo, look: everything that the tests ask about."""
    harness.write_notebook(lab.folder / name, CELLS)
    lab.new_page()
    lab.open(name)
    lab.page.evaluate(SEEN)
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    # All cells in one go: TensorFlow's import, the wait for memory and the report.
    patience = 3 * harness.PATIENCE
    wait_until(lambda: "Batch 8192" in lab.output_text(FIT) and not lab.is_running(FIT), "the panel is there", patience)
    time.sleep(3)
    seen = {"shot": lab.shot(lab.folder / f"{name}.png")}
    for what in ("words", "faint", "names", "folds", "lefts", "right", "boxed", "errorHeight"):
        seen[what] = told(lab, what)
    seen["axe"] = violations(lab)
    seen["buttons"] = told(lab, "inView", BUTTONS)[:3]
    seen["heights"] = lab.page.evaluate("() => window.heights.splice(0)")
    seen["said"] = lab.page.evaluate("() => window.said.splice(0)")
    seen["spoken"] = lab.page.locator(".tfmem-spoken").all_inner_texts()
    return seen


def opened(lab: Lab) -> dict:
    """Open the first row and all that is folded below the buttons; tell what is then faint and what axe says; fold it."""
    folds = lab.page.locator(".tfmem-toggle:visible, .tfmem-rest summary:visible, .tfmem-report summary:visible")
    count = folds.count()
    for index in range(count):
        folds.nth(index).click()
    time.sleep(0.5)
    seen = {what: told(lab, what) for what in ("faint", "folds", "names")} | {"axe": violations(lab)}
    seen["shown"] = lab.page.locator(".tfmem pre:visible").count()
    lab.shot(lab.folder / f"opened-{count}.png")
    for index in reversed(range(count)):
        folds.nth(index).click()
    time.sleep(0.5)
    seen["folded again"] = told(lab, "folds")
    return seen


FOCUS = "() => document.activeElement.className"


def click(lab: Lab, seen: dict) -> None:
    lab.click("Batch 8192")
    wait_until(lambda: told(lab, "line", "batch = 8192"), "the changed line is in view")
    wait_until(lambda: lab.page.locator(".tfmem-mark").count(), "the changed line is marked")
    seen["during"] = told(lab, "inView", ".tfmem-waiting, .tfmem-strip, .tfmem-headline")
    wait_until(lambda: lab.page.locator(".tfmem-strip:visible").count(), "the strip of the rerun is there")
    seen["focus during"] = lab.page.evaluate(FOCUS)
    seen["faint running"] = told(lab, "faint")
    seen["held"] = lab.page.evaluate("() => window.heights.at(-1)?.[1][0]")
    wait_until(lambda: "it fits" in lab.output_text(FIT) and not lab.is_running(FIT), "the rerun has ended")
    time.sleep(3)
    seen["line after"], seen["headline after"] = (
        told(lab, "line", "batch = 8192"),
        told(lab, "inView", ".tfmem-headline"),
    )
    seen["focus"] = lab.page.evaluate(FOCUS)
    seen["said by the rerun"] = lab.page.evaluate("() => window.said.splice(0)")
    seen["rerun heights"] = lab.page.evaluate("() => window.heights.map((h) => h[1])")
    seen["marks left"] = lab.page.locator(".tfmem-mark").count()
    lab.shot(lab.folder / "after.png")


README_STYLE = """body { width: 838px; margin: 0; font: 16px/1.5 sans-serif } p, pre, ul { margin: 0 0 16px }
h1 { font-size: 2em; margin: 0 0 16px; padding-bottom: 10px } pre { padding: 16px; font-size: 85%; line-height: 1.45 }
code { font-size: 85% } pre code { font-size: 100% } img { max-width: 100% }"""


def height_of_the_readme(lab: Lab) -> float:
    """Measure what stands before "The commands", set as GitHub sets a README."""
    from markdown_it import MarkdownIt

    text = (harness.PROJECT / "README.md").read_text(encoding="utf-8").partition("## The commands")[0]
    page = MarkdownIt("commonmark").render(text)
    for path in set(re.findall(r'src="([^"]+)"', page)):
        kind = mimetypes.guess_type(path)[0]
        data = base64.b64encode((harness.PROJECT / path).read_bytes()).decode()
        page = page.replace(f'src="{path}"', f'src="data:{kind};base64,{data}"')
    tab = lab.page.context.new_page()
    tab.set_content(f"<style>{README_STYLE}</style>{page}", wait_until="load")
    height = tab.evaluate("() => document.documentElement.getBoundingClientRect().height")
    tab.close()
    return height


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("face"), env=bfc(150), size=(1280, 800)) as lab:
        seen = tell_story(lab, "face.ipynb")
        seen["opened"] = {"JupyterLab Light": opened(lab)}
        for theme in ("JupyterLab Dark", "JupyterLab Dark High Contrast", "JupyterLab Light"):
            lab.command("apputils:change-theme", {"theme": theme})
            time.sleep(1.5)
            seen[theme] = told(lab, "faint")
            if theme not in seen["opened"]:
                seen["opened"][theme] = opened(lab)
            lab.shot(lab.folder / f"{theme}.png")
        for width in (1920, 420):
            lab.page.set_viewport_size({"width": width, "height": 900})
            if width < 1000:
                lab.command("application:toggle-left-area")
            time.sleep(1)
            seen[width] = (
                told(lab, "right"),
                lab.page.evaluate(
                    "() => [...document.querySelectorAll('.tfmem *, .tfmem-report *, .tfmem-rest *')]"
                    ".filter((n) => n.checkVisibility() && !n.closest('.tfmem-spoken, .tfmem-unseen, pre') && n.getBoundingClientRect().right > innerWidth + 1).length"
                ),
            )
            lab.shot(lab.folder / f"{width}.png")
        lab.page.set_viewport_size({"width": 1280, "height": 800})
        lab.command("application:toggle-left-area")
        time.sleep(1)
        click(lab, seen)
        saved = lab.save("face.ipynb")["cells"][FIT]["outputs"]
        seen["saved"] = [output.get("data", {}) for output in saved]
        lab.click("Undo")
        lab.wait_for_text(FIT, "Undone, not run yet")
        time.sleep(1)
        seen["after undo"] = told(lab, "names")
        lab.set_source(FIT + 1, "%%tfmem\nimport time; time.sleep(2)")
        lab.run(FIT + 1)
        lab.wait_for_text(FIT + 1, "timeline")
        time.sleep(1)
        seen["quiet"] = lab.cell(FIT + 1, "c.node.querySelector('.jp-Cell-outputWrapper').style.cssText")
        lab.page.set_viewport_size({"width": 1280, "height": 420})
        lab.set_source(FIT + 1, "%%tfmem\nnp.zeros(1 << 50)")
        lab.run(FIT + 1)
        lab.wait_for_text(FIT + 1, "Out of host memory")
        lab.cell(FIT + 1, "(c.outputsScrolled = true, null)")
        time.sleep(0.5)
        hidden = "((o) => o.scrollHeight - o.clientHeight)(c.node.querySelector('.jp-OutputArea'))"
        seen["set to scroll"] = lab.cell(FIT + 1, hidden)
        seen["readme"] = height_of_the_readme(lab)
        lab.shut_down()
    return seen


def test_after_run_all_the_first_three_buttons_are_in_view(story):
    assert story["buttons"] == [True, True, True]


def test_before_anything_is_opened_there_are_at_most_ninety_words(story):
    assert len(story["words"]) <= 90, " ".join(story["words"])


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_what_is_opened_is_as_easy_to_read_and_says_that_it_is_open(story, theme):
    seen = story["opened"][theme]
    assert (seen["faint"], seen["axe"] or []) == ([], [])
    assert seen["shown"] >= 1
    assert "true" in seen["folds"]
    assert set(seen["folded again"]) == {"false"}
    assert len(seen["names"]) == len(set(seen["names"])), seen["names"]


@pytest.mark.parametrize("theme", ["faint", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_every_text_has_a_contrast_of_four_and_a_half(story, theme):
    assert story[theme] == []


def test_axe_finds_no_serious_barrier(story):
    if story["axe"] is None:
        lacking("axe-playwright-python, which brings axe-core, is not installed")
    assert story["axe"] == []


def test_the_height_takes_one_step_when_the_report_completes_and_two_where_the_page_is_busy(story):
    """Headline, panel and what lies below come as three messages; a page that is busy draws between them."""
    complete = [height for _, (height, has_headline, _) in story["heights"] if has_headline]
    assert len(dict.fromkeys(complete)) <= 3, story["heights"]


def test_the_waiting_message_is_there_during_the_wait_and_not_after_it(story):
    waits = [(at, "is full" in words) for at, (_, _, words) in story["heights"]]
    begun = next(at for at, waiting in waits if waiting)
    over = next(at for at, waiting in waits if at > begun and not waiting)
    assert over - begun > 7000
    assert not any(waiting for at, waiting in waits if at > over)


def test_rows_stand_in_one_grid(story):
    assert len(set(story["lefts"])) == 1


def test_nothing_is_boxed_and_the_traceback_takes_a_few_lines(story):
    assert (story["boxed"], story["errorHeight"] < 140) == (False, True)


def test_what_folds_says_so_and_every_name_is_its_own(story):
    assert set(story["folds"]) == {"false"}
    assert len(story["names"]) == len(set(story["names"])), story["names"]


def test_the_outcome_is_spoken_once(story):
    assert len([words for words in story["spoken"] if words]) == 1
    told = [words for words in story["said"] if "Out of memory" in words]
    assert len(told) == 1, story["said"]
    assert len([words for words in story["said by the rerun"] if "it fits" in words]) == 1, story["said by the rerun"]


def test_while_it_runs_again_every_text_has_that_contrast_too(story):
    assert story["faint running"] == []


def test_on_a_wide_screen_a_row_is_not_stretched_and_on_a_narrow_one_nothing_is_cut(story):
    assert story[1920][0] <= 880
    assert (story[1920][1], story[420][1]) == (0, 0)


def test_on_the_click_the_cell_stays_in_view_with_its_change_marked_and_something_runs_below(story):
    assert (any(story["during"]), story["line after"], story["marks left"]) == (True, True, 0)


def test_the_height_is_held_until_the_new_report_stands(story):
    before = [height for height, has_headline, _ in story["rerun heights"] if not has_headline]
    assert min(before) >= 0.95 * story["heights"][-1][1][0], story["rerun heights"]


def test_the_focus_goes_to_the_running_output_and_then_to_the_result(story):
    assert story["focus during"] in ("tfmem-strip", "tfmem-waiting"), story["focus during"]
    assert (story["headline after"], story["focus"]) == ([True], "tfmem-report")


def test_after_undo_one_button_is_left(story):
    assert story["after undo"] == ["Run again"]


def test_a_cell_that_went_well_holds_no_height_once_its_strip_is_gone(story):
    assert story["quiet"] == ""


def test_an_output_that_was_set_to_scroll_is_not_boxed_around_a_report(story):
    # The box would be 200 pixels high; margins may stand out a little.
    assert story["set to scroll"] <= 40


def test_the_readme_takes_one_and_a_half_screens_before_the_commands(story):
    assert story["readme"] <= 1.5 * 900


def test_a_saved_report_is_at_most_sixty_kilobytes_with_one_picture(story):
    ours = [data for data in story["saved"] if "tfmem" in str(data.get("text/html", "")) or "image/png" in data]
    size = sum(len("".join(part)) for data in ours for part in data.values())
    pictures = sum("image/png" in data for data in ours) + str(ours).count("<img")
    assert (size <= 60_000, pictures) == (True, 1), [
        {kind: len("".join(part)) for kind, part in data.items()} for data in ours
    ]


def test_in_notebook_7_a_button_is_in_view_after_run_all_and_the_headline_after_the_click(tmp_path_factory):
    need("notebook")
    with Lab(tmp_path_factory.mktemp("nb7"), env=bfc(150), size=(1280, 800), app="notebook") as lab:
        seen = tell_story(lab, "face.ipynb")
        assert (seen["buttons"], seen["boxed"]) == ([True, True, True], False)
        assert (seen["axe"] or [], seen["faint"], opened(lab)["axe"] or []) == ([], [], [])
        click(lab, seen)
        assert (seen["line after"], seen["headline after"]) == (True, [True])
        lab.set_source(FIT, f"{LONG}\nnp.zeros(1 << 50)")
        lab.run(FIT)
        wait_until(lambda: boxed(lab) == (True, True), "Notebook 7 boxes a long output")
        lab.set_source(FIT, f"%%tfmem\n{LONG}\nnp.zeros(1 << 50)")
        lab.run(FIT)
        lab.wait_for_text(FIT, "Out of host memory")
        wait_until(lambda: boxed(lab) == (True, False), "what it marks as boxed is not, around a report")
        lab.shut_down()


LONG = "for i in range(300): print('line', i)"


def boxed(lab: Lab) -> tuple[bool, bool]:
    """Tell whether the front end means the cell's outputs to scroll in a box of their own, and whether they do."""
    marked, hidden = lab.cell(
        FIT,
        "((o) => [c.node.classList.contains('jp-mod-outputsScrolled'), o.scrollHeight - o.clientHeight])"
        "(c.node.querySelector('.jp-OutputArea'))",
    )
    return marked, hidden > 40
