"""What watching costs, as far as it does not depend on a clock; ``python -m tests.benchmarks`` measures the rest."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tests.kernel import Kernel
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.facts.names import reachable
from tf_mem_magic.facts.values import find_values
from tf_mem_magic.report.bundle import whole_bundle
from tf_mem_magic.report.sentences import SHORT, has_timeline

ROOT = Path(__file__).resolve().parent.parent
HEAVY = set("tensorflow keras matplotlib ipywidgets anywidget libcst msgspec pynvml numpy".split())
NEW_MODULES = "sorted({name.partition('.')[0] for name in set(sys.modules) - before})"


def python(code: str, cache: Path) -> set[str]:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), TFMEM_CACHE=str(cache), IPYTHONDIR=str(cache))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


LOADS = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "tf_mem_magic")
print({NEW_MODULES})
"""

LEAVES_A_RECORDING = """
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.record.store.file import open_store
open_store(Cell("pass")).finish("ok")
print([])
"""


def test_loading_imports_nothing_heavy(tmp_path):
    assert set() == python(LOADS, tmp_path) & (HEAVY | {"psutil", "IPython.display"})


def test_loading_imports_nothing_heavy_where_recordings_lie_in_the_cache(tmp_path):
    python(LEAVES_A_RECORDING, tmp_path)
    assert set() == python(LOADS.replace(".partition('.')[0]", ""), tmp_path) & {
        "tf_mem_magic.record.store.file",
        *HEAVY,
    }


@pytest.fixture(scope="module")
def kernel():
    with Kernel(allow_stdin=True) as running:
        running.run("import sys\n%load_ext tf_mem_magic\nbefore = set(sys.modules)")
        yield running


def ours(ran):
    """Give the messages of our own displays."""
    return [kind for kind, c in ran.messages if (c.get("transient") or {}).get("display_id", "").startswith("tfmem-")]


@pytest.mark.kernel
@pytest.mark.oldest
def test_an_empty_tagged_cell_shows_one_line_in_four_messages_and_imports_nothing_for_pictures(kernel):
    ran = kernel.run("%%tfmem\npass")
    assert ["display_data", "display_data", "display_data", "update_display_data"] == ours(ran)
    assert 1 == len(ran.report_text.strip().splitlines())
    # What a recording is written with is there from its first moment.
    assert set() == set(kernel.value(NEW_MODULES)) & (HEAVY - {"pynvml", "msgspec"})


@pytest.mark.kernel
@pytest.mark.oldest
def test_an_untagged_quiet_cell_shows_nothing_in_always_on_mode(kernel):
    kernel.run("%tfmem on")
    ran = kernel.run("pass")
    kernel.run("%tfmem off")
    assert [] == ours(ran)


@pytest.mark.kernel
@pytest.mark.oldest
def test_nothing_is_warmed_up_while_no_allocator_waits(kernel):
    kernel.run("""import time
from tf_mem_magic.session.warm import WarmUp
warmed, warm = [], WarmUp._warm
WarmUp._warm = warmed.append""")
    kernel.run("%%tfmem\ntime.sleep(1)")
    kernel.run("WarmUp._warm = warm")
    assert kernel.value("warmed") == []


def test_a_short_run_that_went_well_has_no_picture_and_one_line():
    quiet = Outcome(Recording(Cell("pass"), SHORT / 2))
    assert "image/png" not in whole_bundle(quiet)
    assert not has_timeline(quiet)


@pytest.mark.parametrize(("seconds", "status"), [(SHORT, "ok"), (0.0, "oom"), (0.0, "killed")])
def test_a_longer_run_and_one_that_ran_out_of_memory_have_a_timeline(seconds, status):
    assert has_timeline(Outcome(Recording(Cell("pass"), seconds, status=status)))


def test_long_containers_are_not_copied_to_look_at_them():
    namespace = {"words": dict.fromkeys(range(500_000)), "history": [0.5] * 500_000}
    tracemalloc.start()
    try:
        find_values(reachable(namespace), lambda name, value: False)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 500_000
