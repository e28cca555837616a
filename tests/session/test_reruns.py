"""A rerun is known by its identity: ``report.rerun`` and a click get that very run's report, or hear that there is none."""

from __future__ import annotations

import re

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.tf, pytest.mark.timeout(600)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf, time, tf_mem_magic as t
x = np.random.default_rng(1).random((4096, 256), "float32")
tf.zeros(1)
def build():
    print("waiting", flush=True)
    time.sleep(wait)
    made = keras.Sequential([keras.Input((256,))] + [keras.layers.Dense(512, "relu") for _ in range(4)])
    made.compile("adam", "mse", jit_compile=False)
    return made
wait = 0
def facts(report):
    return (report.status, report.comparison and report.comparison.key, report.recording.cell.source == half.source)
"""
CELL = "model = build()\nmodel.fit(x, x[:, :1], batch_size=4096, epochs=1, verbose=0)"
FIRST = """first = t.last_report()
half = next(p for p in first.proposals if p.key == "smaller-batch")
"""
GOOD = ("ok", "smaller-batch", True)


@pytest.fixture(scope="module")
def kernel():
    """A kernel in which an untagged cell has run out of memory while every cell was watched."""
    with Kernel(bfc(58)) as kernel:
        assert kernel.run(SETUP).status == "ok"
        kernel.run("%tfmem on")
        assert kernel.run(CELL).status == "error"
        kernel.run("%tfmem status")
        kernel.run("1 + 1")
        assert kernel.run(FIRST).status == "ok"
        yield kernel
        kernel.run("%tfmem off")


def rerun(kernel, cell="got = first.rerun('smaller-batch')", **how):
    kernel.run("got = None")
    return kernel.run(cell, **how)


def test_later_quiet_cells_do_not_replace_the_last_report(kernel):
    assert ("oom", CELL) == kernel.value("(first.status, first.recording.cell.source)")
    shown = [content["data"] for kind, content in kernel.run("%tfmem last").messages if kind == "display_data"]
    assert "Out of memory" in shown[0]["text/plain"]


def shown(ran):
    """Give our reports in what a cell displayed, as plain text."""
    texts = [c["data"].get("text/plain", "") for kind, c in ran.messages if kind in ("display_data", "execute_result")]
    return [text for text in texts if text[:1] in ("✗", "✓", "●")]


def test_misspelled_keys_and_names_get_the_nearest_one(kernel):
    assert "did you mean smaller-batch?" in kernel.run("%tfmem apply smaler-batch").err
    assert "Did you mean first instead of frist?" in kernel.run("%tfmem free frist").out


def test_free_without_a_name_lists_what_could_go_in_columns(kernel):
    _, found, listed = kernel.run("%tfmem free").out.partition("What could go (%tfmem free NAME):\n")
    assert found
    columns = [re.fullmatch(r"  (\S+ +\S+ .?iB  )\S.*", line) for line in listed.splitlines()]
    assert all(columns), listed
    assert len({len(match[1]) for match in columns}) == 1, listed


def test_apply_takes_a_change_by_its_key_and_shows_one_report(kernel):
    ran = kernel.run("%tfmem apply smaller-batch")
    assert GOOD == kernel.value("facts(t.last_report())")
    assert sum("it fits" in text or "it ran" in text for text in ran.report_text.split("\n\n")) == 1, ran.report_text


def test_history_and_last_tell_of_the_failure_and_of_what_was_applied(kernel):
    lines = kernel.run("%tfmem history").out.splitlines()
    assert ("Out of memory" in lines[-2], "Batch" in lines[-1]) == (True, True), lines
    last = shown(kernel.run("%tfmem last 3"))
    assert [text[0] for text in last][-2:] == ["✗", "✓"], last


def test_deployment_is_told_once_for_a_model_and_not_where_it_was_only_built(kernel):
    kernel.run("%%tfmem\na, b = x[:64], x[:64, :8]\nnet = keras.Sequential([keras.Input((256,)), keras.layers.Dense(2048), "
               "keras.layers.Dense(8)])\nnet.compile('sgd', 'mse')")  # fmt: skip
    told = [kernel.value("bool(t.last_report().outcome.new_cells)")]
    for _ in range(2):
        assert kernel.run("%%tfmem\nnet.fit(a, b, batch_size=32, epochs=1, verbose=0)").status == "ok"
        told.append(kernel.value("bool(t.last_report().outcome.new_cells)"))
    assert told == [False, True, False]


def test_a_rerun_gives_its_own_report_while_every_cell_is_watched(kernel):
    assert "ok" == rerun(kernel).status
    assert GOOD == kernel.value("facts(got)")


def test_a_rerun_is_watched_after_the_extension_watches_no_other_cell(kernel):
    kernel.run("%tfmem off")
    assert "ok" == rerun(kernel).status
    kernel.run("%tfmem on")
    assert GOOD == kernel.value("facts(got)")


def test_in_a_watched_cell_the_rerun_and_that_cell_have_a_report_each(kernel):
    rerun(kernel, "%%tfmem -o outer\ngot = first.rerun('smaller-batch')\nafter = got.recording.cell.source")
    assert GOOD == kernel.value("facts(got)")
    assert (False, True, None) == kernel.value(
        "(outer is got, 'after =' in outer.recording.cell.source, outer.comparison)"
    )


def test_a_stop_of_the_rerun_stops_the_cell_that_asked_for_it(kernel):
    kernel.run("wait = 60")
    ran = rerun(kernel, "got = first.rerun('smaller-batch')\nprint('went on')", interrupt_on="waiting")
    kernel.run("wait = 0")
    assert ("error", False) == (ran.status, "went on" in ran.out)
    assert (None, "interrupted") == kernel.value(
        "(got, [r.status for r in get_ipython()._tf_mem_magic.session.reports][-2])"
    )
    assert "ok" == rerun(kernel).status
    assert GOOD == kernel.value("facts(got)")


def test_a_stop_while_the_rerun_releases_memory_stops_it_before_it_begins(kernel):
    kernel.run(
        "import os, signal, tf_mem_magic.release.release as _r\n_release = _r.release_run\n"
        "def _stopping(*arguments):\n    os.kill(os.getpid(), signal.SIGINT)\n    return _release(*arguments)\n"
        "_r.release_run = _stopping"
    )
    ran = rerun(kernel, "got = first.rerun('smaller-batch')\nprint('went on')")
    kernel.run("_r.release_run = _release")
    assert ("error", "") == (ran.status, ran.out)
    assert kernel.value("got") is None
    assert "ok" == rerun(kernel).status
    assert GOOD == kernel.value("facts(got)")


def test_a_click_is_known_by_the_identity_that_its_message_carries(kernel):
    assert kernel.run("1 / 0").status == "error"
    expect = (
        "from tf_mem_magic.session.clicks import PanelActions\n"
        "session = get_ipython()._tf_mem_magic.session\n"
        "live = first._rerun.__self__\n"
        "identity = PanelActions(live).expect(half.source, 'smaller-batch')"
    )
    kernel.run("%tfmem off")
    assert kernel.run(expect).status == "ok"
    live = kernel.value("identity")
    ran = kernel.run(kernel.value("half.source") + "  # as another page writes it", metadata={"tfmem": {"rerun": live}})
    assert "waiting" in ran.out
    # Whether it fits depends on what the reruns before it left.
    assert "smaller-batch" == kernel.value("facts(t.last_report())[1]")


def test_the_same_text_without_the_identity_is_no_second_rerun(kernel):
    kernel.run(kernel.value("half.source"))
    kernel.run("%%tfmem\n" + kernel.value("half.source"))
    assert kernel.value("t.last_report().comparison") is None


def test_without_the_extension_the_rerun_says_that_it_was_not_watched(kernel):
    kernel.run("x = x[:64]  # it fits, whatever the reruns before it left\n%unload_ext tf_mem_magic")
    ran = rerun(kernel)
    kernel.run("%load_ext tf_mem_magic\n%tfmem on")
    assert "RuntimeError: the rerun did not run" in ran.errors[0]
