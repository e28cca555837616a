"""A Stop at any moment stops its cell and leaves nothing; neither does an error that IPython cannot print."""

from __future__ import annotations

import sys
import time

import pytest

from tests.kernel import Kernel
from tests.session.stops import SETUP, headline, stop_at, stops

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with Kernel({"TFMEM_CACHE": str(tmp_path_factory.mktemp("cache"))}) as kernel:
        assert kernel.run(SETUP).status == "ok"
        yield kernel


def test_twenty_stops_at_random_moments_each_stop_their_cell_and_leave_nothing(kernel):
    assert [] == [one for one in stops(kernel, early=8, late=12, seed=time.time_ns()) if not one.is_good]


@pytest.mark.parametrize("kind", ["sync", "await"])
def test_with_auto_nothing_stays_either(kernel, kind):
    stopped = stop_at(kernel, kind, 0.5, options=" --on-oom auto")
    assert stopped.is_good, stopped


def test_a_stop_while_the_report_is_made_ends_the_cell_with_one_line(kernel):
    kernel.run(
        "import tf_mem_magic.explain as _e\n_explain = _e.explain\n"
        "def _slow(*args, **names):\n    print('explaining', flush=True)\n    time.sleep(30)\n"
        "_e.explain = _slow"
    )
    ran = kernel.run("%%tfmem -o rep\n1 + 1", interrupt_on="explaining")
    kernel.run("_e.explain = _explain")
    assert "error" == ran.status
    assert "stopped while tf_mem_magic made its report" in ran.errors[0]
    assert (1, True) == (len(headline(ran)), "nterrupted" in headline(ran)[0])
    assert ({}, "interrupted") == kernel.value("(_left(), rep.status)")


def test_a_stop_before_the_code_begins_is_a_stop_at_its_first_line(kernel):
    kernel.run(
        "import tf_mem_magic.record.capture as _c\n_snapshot = _c.snapshot\n"
        "def _slow(names):\n    if names:\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(0.2)\n"
        "    return _snapshot(names)\n_c.snapshot = _slow"
    )
    ran = kernel.run("%%tfmem -o rep\nreached = 1\nprint('reached')")
    kernel.run("_c.snapshot = _snapshot")
    assert ("error", "") == (ran.status, ran.out)
    assert "----> 2 reached = 1" in ran.errors[0]
    assert ({}, "interrupted", False) == kernel.value("(_left(), rep.status, 'reached' in globals())")


def test_a_task_that_the_cell_cancels_itself_is_no_stop(kernel):
    ran = kernel.run("%%tfmem -o rep\nt = asyncio.ensure_future(asyncio.sleep(9))\nt.cancel()\nawait t")
    # Before Python 3.11 a task does not tell whether it was asked to end: there it passes for a Stop.
    assert ("error", "error" if sys.version_info >= (3, 11) else "interrupted") == (
        ran.status,
        kernel.value("rep.status"),
    )


@pytest.mark.parametrize(
    "error",
    [
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Mute()",
        "raise ValueError('lone \\udcff surrogate')",
        "class Mute(Exception):\n    def __str__(self): return 1\nraise Mute()",
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError\nawait asyncio.sleep(0)\nraise Mute()",
        "await asyncio.sleep(0)\nraise ValueError('lone \\udcff surrogate')",
        "class Mute(Exception):\n    def __str__(self): raise SystemExit\nraise Mute()",
        "class Odd(Exception):\n    def _render_traceback_(self): return ['\\udcff']\nraise Odd()",
    ],
)
def test_an_error_that_cannot_be_printed_leaves_nothing(kernel, error):
    kernel.client.execute(f"%%tfmem -o rep\n{error}", store_history=True, stop_on_error=False)
    kernel.run("1", timeout=60)
    assert ({}, "error") == kernel.value("(_left(), rep.status)")
    assert "ok" == kernel.run("%%tfmem -o rep\n2").status
