"""What happens around the cells: dead kernels, restarts, budgets, odd cells, full disks, files from elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.kernel import ROOT, Kernel, bfc
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tf_mem_magic import load

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.timeout(600)]

LOAD = "%load_ext tf_mem_magic"
LAST = "__import__('tf_mem_magic').last_report()"


def environment(folder, notebook="mine.ipynb", **more):
    return {"TFMEM_CACHE": str(folder), "JPY_SESSION_NAME": notebook, **more}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with Kernel(environment(tmp_path_factory.mktemp("cache"))) as kernel:
        assert kernel.run(f"import os, sys, time\n{LOAD}").status == "ok"
        kernel.before_any_run = kernel.run("%tfmem last")
        yield kernel


def die(folder, cell, env=None, loaded=LOAD):
    """Run a cell in a kernel of the notebook until it prints "dying", and kill the kernel."""
    with Kernel(environment(folder) | (env or {})) as kernel:
        kernel.run(loaded)
        kernel.client.execute(cell)
        while True:
            message = kernel.client.get_iopub_msg(timeout=120)
            if message["msg_type"] == "stream" and "dying" in message["content"]["text"]:
                break
        kernel.manager.provisioner.process.send_signal(signal.SIGKILL)
        kernel.manager.provisioner.process.wait()


@pytest.fixture(scope="module")
def death(tmp_path_factory):
    """What later kernels of the notebook, and of another one, say of a kernel that was killed in a watched cell."""
    folder = tmp_path_factory.mktemp("death")
    cell = (
        "%%tfmem\nimport time\nheld = bytearray(64 << 20)\ntime.sleep(1)\nprint('dying', flush=True)\ntime.sleep(600)"
    )
    die(folder, cell)
    found = {"cell": cell}
    with Kernel(environment(folder, "theirs.ipynb")) as other:
        found["theirs"] = other.run(LOAD).out
    with Kernel(environment(folder)) as kernel:
        found["mine"] = kernel.run(LOAD).out
        shown = kernel.run("%tfmem last")
        found["shown"] = "".join(c["data"]["text/plain"] for k, c in shown.messages if k == "display_data")
    path = next(p for p in folder.rglob("*.tfmem"))
    report = load(path)
    series = report.recording.get("host:rss")
    found["loaded"] = (report.status, report.recording.cell.source, series.peak - series.values[0] > 60 << 20)
    with Kernel(environment(folder)) as kernel:
        found["again"] = kernel.run(LOAD).out
    return found


def test_the_next_kernel_of_the_notebook_tells_of_the_death_once(death):
    told = "The last kernel of this notebook died while a watched cell ran: %tfmem last shows its memory.\n"
    assert (told, "") == (death["mine"], death["again"])


def test_the_kernel_of_another_notebook_says_nothing(death):
    assert "" == death["theirs"]


def test_the_dead_kernels_memory_is_shown_and_can_be_loaded(death):
    assert death["shown"].startswith("✗ The kernel died after ")
    assert "host memory of this process" in death["shown"]
    assert ("killed", death["cell"], True) == death["loaded"]


COMMANDS = {
    "last": "%tfmem last: no cell was watched yet: start one with %%tfmem\n",
    "resume": "%tfmem resume: there is nothing to resume: no remedy of this notebook asked for a restart in the last day\n",
    "free nothing": "There is no `nothing` in this notebook.\n",
    "budget 1MiB": "%tfmem budget: a budget of 1.0 MiB is too small for TensorFlow to start: give 16 MiB or more\n",
    "budget much": "%tfmem budget: argument SIZE: 'much' is not a size; write for example 512MiB or 1.5GiB. "
    "%tfmem budget -h lists what it takes.\n",
    "": "%tfmem: the following arguments are required: COMMAND. %tfmem -h lists what it takes.\n",
    "apply": "%tfmem apply: the following arguments are required: N|KEY. %tfmem apply -h lists what it takes.\n",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_cannot_do_is_one_sentence(kernel, command):
    ran = kernel.before_any_run if command == "last" else kernel.run(f"%tfmem {command}")
    # A refused resume is an error to a script; what else cannot be done is only said.
    status = "error" if command == "resume" else "ok"
    assert (status, COMMANDS[command]) == (ran.status, ran.out + ran.err)


def test_status_and_doctor_work_without_tensorflow(kernel):
    assert "host memory of this process" in kernel.run("%tfmem status").out
    assert "✗ tensorflow: TensorFlow has not been imported." in kernel.run("%tfmem doctor").out
    assert kernel.value("'tensorflow' in sys.modules") is False


CELLS = {
    "forks": (
        # In one piece: what `print` writes in two may have the parent's between them, with or without us.
        "if os.fork() == 0:\n    _ = (sys.stdout.write('child\\n'), sys.stdout.flush())\n    os._exit(0)\n"
        "_ = os.wait()\nprint('parent')",
        "child\nparent\n",
    ),
    "starts processes": (
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))",
        "[1, 2]\n",
    ),
    "leads descriptor 2 elsewhere and back": (
        "kept = os.dup(2)\nelse_ = os.open(os.devnull, os.O_WRONLY)\nos.dup2(else_, 2)\n_ = os.write(2, b'lost')\n"
        "os.dup2(kept, 2)\nos.close(kept)\nos.close(else_)\nprint('after')",
        "after\n",
    ),
    "is another line magic": ("%tfmem off", "Only cells that start with %%tfmem are watched now.\n"),
}


@pytest.mark.parametrize("name", CELLS)
def test_an_odd_cell_runs_and_is_reported(kernel, name):
    cell, out = CELLS[name]
    ran = kernel.run(f"%%tfmem\n{cell}", timeout=60)
    assert ("ok", out, "") == (ran.status, ran.out, ran.err)
    assert 1 == len([text for text in ran.reports.values() if "peak" in text["text/plain"]])
    assert "still here\n" == kernel.run("print('still here')").out


def test_a_cell_that_sets_stdout_elsewhere_keeps_it_there(kernel):
    ran = kernel.run("%%tfmem\nimport io\nold, sys.stdout = sys.stdout, io.StringIO()\nprint('swallowed')")
    assert ("ok", "") == (ran.status, ran.out)
    assert "peak" in ran.report_text
    kernel.run("new, sys.stdout = sys.stdout, old")
    assert "swallowed\n" == kernel.value("new.getvalue()")


def test_a_thread_that_prints_after_the_cell_loses_nothing(kernel):
    cell = "import threading\ngo = threading.Event()\ndef late():\n    go.wait()\n    print('late out')\n    print('late err', file=sys.stderr)\n"
    kernel.run(f"%%tfmem\n{cell}thread = threading.Thread(target=late)\nthread.start()")
    ran = kernel.run("go.set()\nthread.join()\nprint('joined')")
    assert {"late out", "joined"} <= set(ran.out.split("\n"))
    assert "late err\n" == ran.err


def test_quiet_shows_nothing_where_all_went_well_and_a_line_where_not(kernel):
    well, failed = kernel.run("%%tfmem -q\n1"), kernel.run("%%tfmem -q\n1 / 0")
    assert ("", "1") == (well.report_text.strip(), well.result)
    assert "✗ ZeroDivisionError" in failed.report_text


def test_always_on_is_quiet_but_for_cells_that_fail(kernel):
    kernel.run("%tfmem on")
    quiet, failed = kernel.run("quiet = 1"), kernel.run("1 / 0")
    nested = kernel.run("%%tfmem -o outer\n_ = get_ipython().run_cell('%%tfmem -o inner\\n8')")
    kernel.run("%tfmem off")
    off = kernel.run("1 / 0")
    assert ("", "") == (quiet.report_text, off.report_text)
    assert "✗ ZeroDivisionError" in failed.report_text
    assert "ok" == nested.status
    assert ("ok", "ok", True) == kernel.value(
        "(outer.status, inner.status, outer.recording.seconds > inner.recording.seconds)"
    )


@pytest.fixture(scope="module", params=["file in the way", "no room"])
def without_cache(request, tmp_path_factory):
    """A kernel whose cache folder cannot take a recording."""
    folder = tmp_path_factory.mktemp("full")
    blocked = folder / "blocked"
    if request.param == "file in the way":
        blocked.write_text("")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))"
    with Kernel(environment(blocked, TMPDIR=str(folder))) as kernel:
        kernel.run(f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{LOAD}")
        if request.param == "no room":
            kernel.run(limit)
        yield kernel


def test_without_room_for_a_recording_the_cell_runs_and_the_report_says_so(without_cache):
    ran = without_cache.run("%%tfmem -o rep\nprint('ran')\n5")
    assert ("ok", "5") == (ran.status, ran.result)
    assert ran.out.endswith("ran\n")
    assert "The recording is kept in" in " ".join(ran.report_text.split())
    assert without_cache.value("rep.status") == "ok"


@pytest.fixture(scope="module")
def saved(kernel, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "report.json"
    kernel.run(f"%%tfmem --save {path}\n1")
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[: len(data) // 2], "the file is truncated or damaged"),
        (lambda data: b"", "the file is truncated or damaged"),
        (lambda data: b'{"cells": []}', "the file is no report of tf_mem_magic"),
        (lambda data: b"[1]", "the file is no report of tf_mem_magic"),
        (lambda data: data.replace(b'"schema": 1', b'"schema": 99'), "written by a newer tf_mem_magic"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(saved, tmp_path, change, words):
    path = tmp_path / "other.json"
    path.write_bytes(change(saved.read_bytes()))
    with pytest.raises(ValueError, match=words):
        load(path)


SCRIPT = """
import sys
from tf_mem_magic import record, last_report
with record("work") as running:
    held = bytearray(32 << 20)
print(running.report.status, last_report() is running.report, "IPython" in sys.modules, "tensorflow" in sys.modules)
try:
    with record("broken") as broken:
        1 / 0
except ZeroDivisionError:
    print(broken.report.status, broken.report.recording.errors[0].type)
"""

TF_SCRIPT = """
import tensorflow as tf
from tf_mem_magic import record
try:
    with record("training") as running:
        kept = [tf.zeros((1024, 1024, 4)) for _ in range(40)]
except tf.errors.ResourceExhaustedError:
    report = running.report
    print(report.status, report.diagnosis.device, report.diagnosis.limit >> 20, report.diagnosis.requested >> 20)
"""


def script(code, tmp_path, **env):
    path = tmp_path / "script.py"
    path.write_text(code)
    environ = dict(os.environ, PYTHONPATH=str(ROOT), TFMEM_CACHE=str(tmp_path / "cache"), **env)
    return subprocess.run(
        [sys.executable, str(path)], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )


def test_a_script_records_without_ipython_and_tensorflow(tmp_path):
    assert "ok True False False\nerror ZeroDivisionError\n" == script(SCRIPT, tmp_path).stdout


@pytest.mark.tf
def test_a_script_records_an_out_of_memory_and_raises_it(tmp_path):
    assert "oom CPU:0 128 16\n" == script(TF_SCRIPT, tmp_path, **bfc(128)).stdout


@pytest.fixture(scope="module")
def budget(tmp_path_factory):
    """A kernel through all states of a budget, with real out-of-memory errors at the end."""
    with Kernel(environment(tmp_path_factory.mktemp("budget"))) as kernel:
        kernel.run(LOAD)
        found = {"before": kernel.run("%tfmem budget 128MiB").out}
        kernel.run("import tensorflow as tf, tf_mem_magic as t")
        found["after"] = kernel.run("%tfmem budget 64MiB").err
        cell = "def fill():\n    inside = [tf.zeros((1024, 1024, 4)) for _ in range(40)]\nfill()"
        raised = kernel.run(f"%%tfmem --on-oom raise -o rep --no-live\n{cell}")
        found["raised"] = (raised.status, kernel.value("(rep.status, rep.diagnosis.limit >> 20)"))
        in_use = "tf.config.experimental.get_memory_info('CPU:0')['current'] >> 20"
        found["released"] = kernel.value(in_use)
        held = "_f = sys.last_value.__traceback__\nwhile _f.tb_next and _f.tb_frame.f_code.co_name != 'fill': _f = _f.tb_next"
        grow = "def fill():\n    inside = []\n    while True:\n        inside.append(tf.zeros((1024, 1024, 4)))\nfill()"
        kernel.run(f"%%tfmem --keep-frames\n{grow}")
        kernel.run(f"import sys\n{held}")
        found["kept"] = kernel.value(f"(len(_f.tb_frame.f_locals['inside']), {in_use})")
        return found


@pytest.mark.tf
def test_a_budget_before_the_import_makes_a_real_out_of_memory(budget):
    assert "TensorFlow will run on the CPU as if it had 128 MiB. Import it and go on.\n" == budget["before"]
    assert ("error", ("oom", 128)) == budget["raised"]


@pytest.mark.tf
def test_a_budget_after_the_import_asks_for_a_restart(budget):
    assert budget["after"].startswith("%tfmem budget: TensorFlow is already imported")
    assert "Restart the kernel, then run %load_ext tf_mem_magic and %tfmem budget 64MiB" in budget["after"]


@pytest.mark.tf
def test_after_an_out_of_memory_nothing_is_held_unless_the_frames_are_kept(budget):
    count, in_use = budget["kept"]
    assert 0 == budget["released"]
    assert 64 < count * 16 <= in_use


RESUMED = """%%tfmem
with tf.device("GPU:0"):
    held = [tf.identity(tf.zeros((1024, 1024, 8))) for _ in range(2 if all(growing()) else N)]
"""
SIZE = """N = 40
growing = lambda: [bool(tf.config.experimental.get_memory_growth(g)) for g in tf.config.list_physical_devices('GPU')]
_ = tf.config.list_logical_devices('GPU')"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Memory growth planned in one kernel and resumed in the next, on a GPU made of RAM."""
    folder = tmp_path_factory.mktemp("resume")
    try:
        env = environment(folder / "cache") | ramgpu_env(folder, mib=256)
    except CannotBuildError as problem:
        lacking(problem)
    compared = f"(lambda c: c and (c.key, c.status_before, c.status_after))({LAST}.comparison)"
    with Kernel(env) as kernel:
        kernel.run(LOAD)
        kernel.run("import tensorflow as tf")
        kernel.run(SIZE)
        assert "error" == kernel.run(RESUMED).status
        found = {"first": kernel.value("growing()")}
        ran = kernel.run(f"{LAST}.rerun('memory-growth')")
        found["planned"] = (ran.status, ran.errors)
        found["own"] = kernel.run("%tfmem resume").err
    with Kernel(env) as late:
        late.run("import tensorflow as tf\n_ = tf.config.list_logical_devices()")
        late.run(LOAD)
        found["late"] = late.run("%tfmem resume").err
    with Kernel(env) as kernel:
        found["told"] = kernel.run(LOAD).out
        ran = kernel.run("%tfmem resume")
        found["ran"] = (ran.out, ran.err)
        found["growth"] = kernel.value("growing()")
        found["comparison"] = kernel.value(compared)
        found["fits"] = ran.report_text
        found["twice"] = kernel.run("%tfmem resume").err
    with Kernel(env) as kernel:
        said = kernel.run(LOAD).out
        kernel.run("import tensorflow as tf")
        kernel.run(SIZE)
        ran = kernel.run(RESUMED)
        found["later"] = (said, kernel.value("growing()"), ran.status, kernel.value(compared))
        found["later text"] = ran.report_text
    return found


@pytest.mark.tf
def test_growth_is_on_after_resume_and_the_runs_are_compared(resumed):
    assert ([False], [True]) == (resumed["first"], resumed["growth"])
    assert ("memory-growth", "oom", "ok") == resumed["comparison"]
    assert "✓ Restart with memory growth: it fits" in resumed["fits"]


@pytest.mark.tf
def test_after_growth_has_fitted_a_normal_restart_claims_nothing(resumed):
    assert ("", [False], "error", None) == resumed["later"]
    assert "Out of memory on GPU:0" in resumed["later text"]
    assert "it fits" not in resumed["later text"]


@pytest.mark.tf
def test_a_rerun_with_growth_is_planned_in_one_line(resumed):
    told = "Restart with memory growth: planned. Restart the kernel, then run %load_ext tf_mem_magic and %tfmem resume."
    assert ("error", [told]) == resumed["planned"]


@pytest.mark.tf
def test_the_new_kernel_says_that_a_restart_was_planned(resumed):
    assert "a restart was planned" in resumed["told"].lower()
    assert "%tfmem resume" in resumed["told"]
    assert "the cell with its remedy" in resumed["ran"][0]


@pytest.mark.tf
def test_resume_says_why_it_cannot(resumed):
    nothing = "%tfmem resume: there is nothing to resume: "
    assert resumed["own"].startswith(nothing)
    assert resumed["twice"].startswith(nothing)
    assert resumed["late"].startswith("%tfmem resume: TensorFlow has already set up its devices in this kernel.")
