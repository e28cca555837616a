"""Letting go of leftovers by ticking their names, in a real JupyterLab: a real out-of-memory, real memory back."""

from __future__ import annotations

import json

import pytest

from tests import lab as harness
from tests.browser.seen import SEEN, told
from tests.kernel import bfc
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.tf, pytest.mark.timeout(900)]

MIB = 1 << 20
SETUP = "%load_ext tf_mem_magic\nimport gc, json, keras, tensorflow as tf\nfrom keras import layers"
FILL = """cache = tf.ones((16, 1024, 1024))
kept = tf.ones((12, 1024, 1024))
old = keras.Sequential([keras.Input((1024,)), layers.Dense(1024), layers.Dense(1)])
old.compile("sgd", "mse")
old.fit(tf.ones((8, 1024)), tf.ones((8, 1)), verbose=0);"""
SHOWN = "tf.ones((8, 1024, 1024))"
FAILS = "%%tfmem\npiled = [tf.ones((1024, 1024)) for _ in range(60)]"
LOOK = """gc.collect()
print(json.dumps([[name in globals() for name in ("cache", "kept", "old", "piled")], len(Out),
    tf.config.experimental.get_memory_info("CPU:0")["current"]]))"""
FREE = "from tf_mem_magic import apply\napply.free({})\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("leftovers")


def open_at_the_panel(lab: Lab, name: str) -> None:
    harness.write_notebook(lab.folder / name, [SETUP, FILL, SHOWN, FAILS, LOOK])
    lab.new_page()
    lab.open(name)
    for index in range(3):
        lab.run(index)
    lab.start(3)
    lab.button("Let go of cache").wait_for()
    wait_until(lambda: not lab.is_running(3), "the cell has ended")


def open_names(lab: Lab) -> None:
    """Open the boxes."""
    lab.page.locator(".tfmem-picks .tfmem-toggle", has_text="4 names to tick").click()
    wait_until(lambda: "144 MiB of 148 MiB ticked." in lab.output_text(3), "the names can be ticked")


def looked(lab: Lab) -> list:
    """Give which names are there, how many results IPython keeps, and the bytes in use."""
    lab.run(4)
    return json.loads(lab.output_text(4).strip())


def box(lab: Lab, name: str):
    return lab.page.get_by_role("checkbox", name=name)


def test_only_what_is_ticked_is_let_go_and_its_memory_is_really_back(folder):
    with Lab(folder, env=bfc(330)) as lab:
        open_at_the_panel(lab, "ticked.ipynb")
        open_names(lab)
        before = looked(lab)
        boxes = {name: box(lab, name) for name in ("cache (64.0 MiB", "kept (48.0 MiB", "Out[3] (32.0 MiB", "old (")}
        assert [True, True, True, False] == [b.is_checked() for b in boxes.values()]

        boxes["kept (48.0 MiB"].uncheck()
        lab.button("Let go of cache, Out[3] (96.0 MiB)").wait_for()
        assert FAILS == lab.source(3)
        boxes["old ("].focus()
        lab.page.keyboard.press("Space")
        lab.button("Let go of cache, Out[3], old (100 MiB)").wait_for()
        lab.button("Save old first").wait_for()
        lab.click("change")
        change = lab.page.locator(".tfmem-picks .tfmem-change pre")
        assert '+apply.free("cache", "Out[3]", "old")' in change.inner_text()
        boxes["old ("].uncheck()
        wait_until(lambda: '+apply.free("cache", "Out[3]")' in change.inner_text(), "the open change follows the ticks")

        lab.click("Let go of cache, Out[3] (96.0 MiB)")
        wait_until(lambda: "Runs of this cell:" in lab.output_text(3) and not lab.is_running(3), "the rerun has ended")
        assert "it fits" in lab.output_text(3)
        assert FAILS.replace("\n", "\n" + FREE.format('"cache", "Out[3]"'), 1) == lab.source(3)
        names, results, in_use = looked(lab)
        assert ([False, True, True, True], before[1] - 1) == (names, results)
        # The cell's own 240 MiB are held now; 96 MiB of what was there before are gone.
        assert before[2] - 96 * MIB + 240 * MIB == pytest.approx(in_use, abs=MIB)

        lab.click("Undo")
        wait_until(lambda: lab.source(3) == FAILS, "the old code is back")
        lab.shut_down()


@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 1200), (False, 420)])
def test_the_boxes_are_reached_by_keyboard_and_nothing_scrolls_sideways(folder, dark, width):
    with Lab(folder, env=bfc(330), size=(width, 1000), dark=dark) as lab:
        open_at_the_panel(lab, "looks.ipynb")
        if width < 1000:
            lab.command("application:toggle-left-area")
        lab.page.evaluate(SEEN)
        words = told(lab, "words")
        assert 30 < len(words) <= 90, " ".join(words)
        open_names(lab)
        lab.page.locator(".tfmem-picks button").first.focus()
        reached = []
        for _ in range(9):
            reached.append(lab.page.evaluate("document.activeElement.closest('label, button')?.innerText.trim()"))
            lab.page.keyboard.press("Tab")
        assert "Let go of cache, kept, Out[3] (144 MiB)" == reached[0]
        assert {"cache (64.0 MiB, tf.Tensor)", "kept (48.0 MiB, tf.Tensor)"} <= set(reached)
        wide = "[...document.querySelectorAll('.tfmem, .tfmem *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        wide += " getComputedStyle(e).overflowX !== 'visible').map(e => e.className)"
        assert [] == [
            name for name in lab.page.evaluate(wide) if not {"tfmem-spoken", "tfmem-unseen"} & set(str(name).split())
        ]
        lab.cell(3, "c.node.scrollIntoView()")
        lab.shot(folder / f"leftovers-{'dark' if dark else 'light'}-{width}.png")
        lab.shut_down()
