"""The cell runs as if we were not there: each cell runs plain in one kernel and tagged in another, side by side."""

from __future__ import annotations

import re

import pytest

from tests.kernel import Kernel

pytestmark = [pytest.mark.kernel, pytest.mark.oldest]

SETUP = """
import asyncio, os, subprocess, sys, time, warnings
import matplotlib.figure, matplotlib.backends.backend_agg  # importing it makes Python forget which warnings it has shown
from IPython import get_ipython
from IPython.display import HTML, display
ip = get_ipython()
def fail(): return 1 / 0
"""

CELLS = {
    "stdout and stderr": "print('out'); print('err', file=sys.stderr); print('out again')",
    "last expression": "6 * 7",
    "last expression suppressed": "6 * 7;",
    "nothing": "x = 1",
    "only a comment": "# nothing here",
    "display and result": "display(HTML('<b>bold</b>'))\n'result'",
    "several displays": "for i in range(3): display(i)",
    "a figure": "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.show()",
    "top-level await": "await asyncio.sleep(0.01)\n'awaited'",
    "async for": "async def g():\n    for i in range(2):\n        yield i\n[i async for i in g()]",
    "an error": "a = 1\nb = 2\n1 / 0",
    "an error in a function": "def f():\n    return fail()\nf()",
    "a chained error": "try:\n    fail()\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "an error in async code": "await asyncio.sleep(0)\nraise ValueError('async')",
    "a syntax error": "x = 1\nif True\n    pass",
    "an indentation error": "def f():\nreturn 1",
    "system exit": "raise SystemExit(3)",
    "sys.exit": "sys.exit('bye')",
    "a warning": "warnings.warn('careful')",
    "a warning in a function": "def w():\n    warnings.warn('deep', stacklevel=2)\nw()",
    "timed": "%time 1 + 1;",
    "a line magic": "%env TFMEM_TEST_VARIABLE=1",
    "a shell line": "!echo from the shell",
    "shell output in a name": "lines = !echo one; echo two\nlist(lines)",
    "stdout of a subprocess": "_ = subprocess.run(['sh', '-c', 'echo sub'], check=True)",
    "stderr of a subprocess": "_ = subprocess.run(['sh', '-c', 'echo sub >&2'], check=True)",
    "stdout at the descriptor": "_ = os.write(1, b'raw out\\n')",
    "stderr at the descriptor": "_ = os.write(2, b'raw err\\n')",
    "a print without newline": "print('no newline', end='')",
    "carriage returns": "for i in range(3): print(f'\\r{i}', end='', flush=True)",
    "nested run_cell": "r = ip.run_cell('print(1); 5')\nr.result",
    "a failing nested run_cell": "r = ip.run_cell('1 / 0')\nr.success",
    "the last line without newline and with spaces": "y = 3   \ny  ",
    "a long cell": "\n".join(f"v{i} = {i}" for i in range(200)) + "\nv199",
    "unicode": "print('héllo ✓ 漢字')\n'ü'",
    "a decorator": "import functools\n@functools.lru_cache\ndef q(n):\n    return n\nq(3)",
    "a class": "class C:\n    def __repr__(self):\n        return 'C!'\nC()",
    "input history": "In[-1].replace('%%tfmem\\n', '')",
    "help": "len?",
}

MAGICS = {
    "capture": "%%capture captured\nprint('hidden')\n5",
    "bash": "%%bash\necho in bash",
    "bash that fails": "%%bash\nexit 3",
    "writefile": "%%writefile /dev/null\ncontent",
    "html": "%%html\n<b>x</b>",
    "python subprocess": "%%script cat\nhello",
}


@pytest.fixture(scope="module")
def kernels():
    with Kernel() as plain, Kernel() as ours:
        for kernel in (plain, ours):
            assert kernel.run(SETUP).status == "ok"
        assert ours.run("%load_ext tf_mem_magic").status == "ok"
        assert plain.run("pass").status == "ok"
        yield plain, ours


def normal(page, tagged):
    """Take out what may differ: process ids and temporary names in file paths, times, and the tag's own line."""
    text = re.sub(r"ipykernel_\d+[/_]\d+", "ipykernel_N", repr(page))
    text = re.sub(r"\d{5,}\.py", "N.py", text)
    text = re.sub(r"In\[\d+\]|In \[\d+\]", "In[n]", text)
    text = re.sub(r"ipython-input-\d+-[0-9a-f]+", "ipython-input-N", text)
    text = re.sub(r"/tmp/\S*?/tmp\w+", "/tmp/N", text)
    text = re.sub(r"CPU times: [^\\]*", "CPU times: T", text)
    text = re.sub(r"\d+(\.\d+)? (ns|µs|μs|us|ms|s)\b", "T", text)
    if tagged:
        text = text.replace("# tfmem", "# plain").replace("%%tfmem", "# plain")
    return text


def both(kernels, cell, tag="%%tfmem\n", stand_in="# plain\n"):
    plain, ours = kernels
    expected, got = plain.run(stand_in + cell), ours.run(tag + cell)
    return expected, got


@pytest.mark.parametrize("name", CELLS)
def test_a_tagged_cell_shows_what_the_plain_cell_shows(kernels, name):
    expected, got = both(kernels, CELLS[name])
    assert normal(got.page(), True) == normal(expected.page(), True)
    assert (got.status, got.count) == (expected.status, expected.count)


@pytest.mark.parametrize("name", MAGICS)
def test_a_magic_cell_shows_what_it_shows_without_the_tag(kernels, name):
    expected, got = both(kernels, MAGICS[name], stand_in="")
    assert normal(got.page(), True) == normal(expected.page(), True)
    assert (got.status, got.count) == (expected.status, expected.count)


def test_an_error_names_the_right_cell_and_line_once(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem\na = 1\nb = 2\n1 / 0")
    assert len(got.errors) == 1
    named = got.errors[0].replace("In [", "In[")
    # Older IPythons name the cell's first line: 4 up to Python 3.10, 0 since.
    assert f"In[{got.count}], line 4" in named or "<cell line: 4>" in named or "<cell line: 0>" in named
    assert re.search(r"-+> 4 1 / 0", got.errors[0])


@pytest.mark.parametrize(
    "cell",
    ["%%time\n%%tfmem\nprint('x')\n1 + 1", "%%tfmem\n%%time\nprint('x')\n1 + 1"],
)
def test_time_works_inside_and_outside(kernels, cell):
    _, ours = kernels
    got = ours.run(cell)
    assert got.status == "ok"
    assert "x\n" in got.out
    assert "Wall time" in got.out
    assert got.result == "2"
    assert "✓" in got.report_text


def test_capture_around_us_captures_the_cell_and_not_the_report(kernels):
    _, ours = kernels
    got = ours.run("%%capture held\n%%tfmem\nprint('inside')")
    assert got.out == ""
    assert len(got.reports) >= 1
    assert "✓" in got.report_text
    assert ours.run("print(held.stdout, end='')").out == "inside\n"


def test_capture_inside_us_captures_the_cell(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem\n%%capture held2\nprint('inside')")
    assert got.out == ""
    assert "✓" in got.report_text
    assert ours.run("print(held2.stdout, end='')").out == "inside\n"


def test_an_interrupt_interrupts_the_cell_and_is_reported(kernels):
    _, ours = kernels
    # Not flushed: the interrupt would meet the flush itself, on older kernels, instead of the cell's own line.
    got = ours.run("%%tfmem\nprint('go')\nfor _ in range(300): time.sleep(0.1)", interrupt_on="go")
    assert got.status == "error"
    assert "KeyboardInterrupt" in got.errors[0]
    assert len(got.errors) == 1
    assert ours.value("__import__('tf_mem_magic').last_report().status") == "interrupted"


def test_in_and_out_and_the_count_are_those_of_a_plain_cell(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem -q\n'kept'")
    kept = ours.value(f"(Out[{got.count}], In[{got.count}], ip.history_manager.input_hist_raw[{got.count}])")
    assert kept == ("kept", "# tfmem -q\n'kept'", "%%tfmem -q\n'kept'")


def test_no_names_are_put_into_the_namespace(kernels):
    plain, ours = kernels
    names = "sorted(n for n in globals() if not n.startswith('_'))"
    for kernel in (plain, ours):
        kernel.run("%reset -f in out")
        kernel.run(SETUP)
    before = ours.value(names)
    ours.run("%%tfmem\npass")
    assert ours.value(names) == before


def test_autoreload_sees_a_changed_module(kernels, tmp_path):
    _, ours = kernels
    module = tmp_path / "tfmem_reloaded.py"
    module.write_text("VALUE = 1\n")
    ours.run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n%load_ext autoreload\n%autoreload 2\nimport tfmem_reloaded"
    )
    module.write_text("VALUE = 22222\n")
    assert ours.run("%%tfmem\nprint(tfmem_reloaded.VALUE)").out == "22222\n"
    ours.run("%autoreload 0")


def test_output_options_store_and_save_the_report(kernels, tmp_path):
    _, ours = kernels
    path = tmp_path / "report.json"
    ours.run(f"%%tfmem -o rep --save {path}\nkept = 1")
    assert ours.value("(rep.status, rep.recording.cell.tagged, rep.recording.seconds > 0)") == ("ok", True, True)
    saved = "__import__('tf_mem_magic').load({0!r}).recording.{1} == rep.recording.{1}"
    for part in ("cell.source", "seconds", "series"):
        assert ours.value(saved.format(str(path), part)) is True


def test_a_folder_that_cannot_be_written_is_said_and_the_cell_still_runs(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem --save /proc/nowhere/report.json\nprint('ran')")
    assert got.out == "ran\n"
    assert got.err.startswith("%%tfmem: the report could not be saved to /proc/nowhere/report.json: ")
    assert got.err.count("\n") == 1


def test_an_unknown_option_is_one_sentence_and_the_cell_still_runs(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem --frobnicate\nprint('ran')")
    assert (got.status, got.out) == ("ok", "ran\n")
    assert got.err.startswith("%%tfmem: unrecognized arguments: --frobnicate.")
    assert got.err.count("\n") == 1


def test_help_is_shown_instead_of_running_the_cell(kernels):
    _, ours = kernels
    got = ours.run("%%tfmem -h\nprint('ran')")
    assert ("ok", True, False) == (got.status, "--on-oom" in got.out, got.out.endswith("ran\n"))


def test_an_empty_cell_is_harmless(kernels):
    _, ours = kernels
    for cell in ("%%tfmem", "%%tfmem\n", "%%tfmem\n\n   \n"):
        got = ours.run(cell)
        assert (got.status, got.out, got.err) == ("ok", "", "")


def test_loading_twice_is_harmless_and_unloading_restores_everything():
    state = (
        "print(len(ip.input_transformers_cleanup), len(ip.events.callbacks['pre_run_cell']),"
        " len(ip.events.callbacks['post_run_cell']), 'tfmem' in ip.magics_manager.magics['cell'],"
        " 'tfmem' in ip.magics_manager.magics['line'], sorted(t.name for t in threading.enumerate() if 'tfmem' in t.name))"
    )
    with Kernel() as kernel:
        kernel.run("import threading; ip = get_ipython()")
        before = kernel.run(state).out
        kernel.run("%load_ext tf_mem_magic")
        kernel.run("import tf_mem_magic; tf_mem_magic.load_ipython_extension(ip)")
        loaded = kernel.run(state).out
        got = kernel.run("%%tfmem\n1")
        assert len(got.reports) == 1
        kernel.run("%unload_ext tf_mem_magic")
        assert kernel.run(state).out == before != loaded
        assert kernel.run("%%tfmem\n1").status == "error"
        kernel.run("%load_ext tf_mem_magic")
        kernel.run("%%tfmem -o again\n%unload_ext tf_mem_magic\nprint('unloaded inside')")
        assert kernel.run(state).out == before


def test_always_on_watches_every_cell_and_stays_quiet(kernels):
    _, ours = kernels
    ours.run("%tfmem on")
    got = ours.run("small = 1\nsmall")
    assert got.result == "1"
    assert got.report_text == ""
    ours.run("1 / 0")
    last = "__import__('tf_mem_magic').last_report().recording.cell"
    assert ours.value(f"({last}.tagged, {last}.source)") == (False, "1 / 0")
    ours.run("%tfmem off")


BREAK = """
from tf_mem_magic.record import {module}
_kept = {module}.{name}
def _broken(*arguments, **keywords):
    raise RuntimeError("broken on purpose")
{module}.{name} = _broken
"""


@pytest.mark.parametrize(
    ("module", "name"), [("capture", "snapshot"), ("capture", "gather_facts"), ("capture", "to_error_texts")]
)
def test_an_error_of_ours_is_one_line_and_leaves_nothing_behind(kernels, module, name):
    _, ours = kernels
    state = "(os.readlink('/proc/self/fd/2'), os.environ.get('TF_BFC_MEMORY_DUMP'), ip.custom_exceptions)"
    before = ours.value(state)
    ours.run(BREAK.format(module=module, name=name))
    got = ours.run("%%tfmem --on-oom auto\nprint('ran')\n1 / 0")
    ours.run(f"{module}.{name} = _kept")
    assert (got.out, len(got.errors)) == ("ran\n", 1)
    assert "broken on purpose" in got.err
    assert name == "snapshot" or "after" in got.report_text  # what could not be read is missing, the report is not
    assert got.err.count("\n") == 1
    assert ours.value(state) == before
