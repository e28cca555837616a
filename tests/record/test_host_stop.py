"""``--host-stop``: a cell that is about to use up host memory is interrupted, with a report, before the system acts."""

from __future__ import annotations

import threading
import time

import pytest

from tests.kernel import Kernel
from tf_mem_magic.core.options import OptionError, parse_cell_line
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, HostFull, Recording
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.record import host_stop
from tf_mem_magic.sources._cgroup import pressing_use, tightest_group
from tf_mem_magic.sources.host import used_by_machine

MIB = 1 << 20


def lay_out(root, *, limit=1000 * MIB, used=0, cache=0, available=64_000, swap=0):
    """A tree in which one control group limits this process."""
    group = root / "sys/fs/cgroup/box"
    group.mkdir(parents=True, exist_ok=True)
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("0::/box\n")
    (root / "proc/self/mountinfo").write_text("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "proc/meminfo").write_text(f"MemTotal: 64000 kB\nMemAvailable: {available} kB\nSwapFree: {swap} kB\n")
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.stat").write_text(f"active_file {cache // 2}\ninactive_file {cache // 2}\nslab_reclaimable 0\n")
    (group / "memory.current").write_text(f"{used}\n")
    return root


def test_what_the_kernel_can_drop_does_not_press(tmp_path):
    root = lay_out(tmp_path, used=990 * MIB, cache=600 * MIB)
    assert 390 * MIB == pressing_use(tightest_group(root)).used


def test_a_machine_with_swap_space_has_more_room(tmp_path):
    root = lay_out(tmp_path, available=1_000, swap=3_000)
    assert (60_000 * 1024, 64_000 * 1024) == (used_by_machine(root).used, used_by_machine(root).limit)


@pytest.fixture
def interrupted(monkeypatch):
    """The threads that were interrupted, noted instead of interrupted."""
    noted = []
    monkeypatch.setattr(host_stop, "interrupt", noted.append)
    return noted


@pytest.fixture
def watch(monkeypatch, tmp_path, interrupted):
    """A watch in a laid-out tree, over a process whose own size is told."""

    def make(percent=95, **tree):
        monkeypatch.setattr(host_stop, "ROOT", lay_out(tmp_path, **tree))
        own = {"resident": 100 * MIB}
        monkeypatch.setattr(host_stop.HostStop, "_resident", lambda self: own["resident"])
        return host_stop.HostStop(percent, 7), own

    return make


def test_nothing_happens_below_the_share(watch, interrupted):
    stop, own = watch(used=940 * MIB)
    own["resident"] = 900 * MIB
    stop.poll()
    assert ([], None) == (interrupted, stop.full)


def test_the_cell_is_interrupted_once_at_the_share(watch, interrupted):
    stop, own = watch(used=951 * MIB)
    own["resident"] = 900 * MIB
    stop.poll()
    stop.poll()
    assert [7] == interrupted
    assert HostFull(900 * MIB, 951 * MIB, 1000 * MIB, 95) == stop.full


def test_another_share_can_be_asked_for(watch, interrupted):
    stop, own = watch(percent=50, used=501 * MIB)
    own["resident"] = 400 * MIB
    stop.poll()
    assert [7] == interrupted


def test_a_cell_that_did_not_grow_is_left_alone(watch, interrupted):
    stop, own = watch(used=990 * MIB)
    own["resident"] = 105 * MIB
    stop.poll()
    assert [] == interrupted


def test_memory_that_others_hold_is_no_reason(watch, interrupted):
    stop, own = watch(used=990 * MIB)
    own["resident"] = 400 * MIB
    stop.poll()
    assert [] == interrupted


def test_a_full_machine_counts_where_the_group_has_room(watch, interrupted):
    stop, own = watch(used=100 * MIB, available=1_000)
    own["resident"] = 50_000 * 1024 + 100 * MIB
    stop.poll()
    assert [7] == interrupted


def test_page_cache_is_no_reason(watch, interrupted):
    stop, own = watch(used=990 * MIB, cache=300 * MIB)
    own["resident"] = 690 * MIB
    stop.poll()
    assert [] == interrupted


def test_a_thread_of_its_own_is_interrupted_too():
    ended = []

    def work():
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    host_stop.interrupt(thread.ident)
    thread.join(60)
    assert ["interrupted"] == ended


def test_it_looks_again_sooner_where_memory_fills_fast(watch, monkeypatch, tmp_path):
    now = {"seconds": 100.0}
    monkeypatch.setattr(host_stop.time, "monotonic", lambda: now["seconds"])
    stop, _ = watch(used=700 * MIB)
    first = stop.poll()
    waits = []
    for used in (710, 910, 949):
        now["seconds"] += 0.1
        (tmp_path / "sys/fs/cgroup/box/memory.current").write_text(f"{used * MIB}\n")
        waits.append(stop.poll())
    # 10 MiB in 0.1 s leave time; at 200 MiB in 0.1 s the last 40 MiB are 20 ms; at 39 MiB, 1 MiB is 2.6 ms.
    assert (0.1, pytest.approx([0.1, 0.01, 0.01])) == (first, waits)


@pytest.mark.parametrize(("line", "percent"), [("", 95), ("--host-stop 80", 80), ("--host-stop off", 0)])
def test_the_share_is_an_option(line, percent):
    assert percent == parse_cell_line(line).host_stop


@pytest.mark.parametrize("word", ["0", "100", "-5", "9.5", "much"])
def test_a_bad_share_is_refused(word):
    with pytest.raises(OptionError, match="between 10 and 99, or off"):
        parse_cell_line(f"--host-stop={word}")


def test_the_diagnosis_is_host_memory_at_the_line_that_was_interrupted():
    frame = Frame("cell", 2, "<module>", in_cell=True, is_user=True)
    error = ErrorText("KeyboardInterrupt", "", (frame,))
    full = HostFull(900 * MIB, 951 * MIB, 1000 * MIB, 95)
    found = diagnose(Recording(Cell("a\nb"), status="oom", errors=(error,), host_full=full))
    assert ("host", "host", 2, 900 * MIB, 1000 * MIB) == (
        found.device,
        found.cause,
        found.line,
        found.in_use,
        found.limit,
    )
    assert "before host memory ran out" in found.text
    assert "95 % of what it may use was taken" in found.text


STEADY = """%%tfmem {options}
piled, sizes = [bytearray(b"x") * (300 << 20)], [300]
for _ in range(600):
    (group / "memory.current").write_text(str(start + (sizes[-1] << 20)))
    time.sleep(0.03)
    piled.append(bytearray(b"x") * (1 << 20))
    sizes.append(sizes[-1] + 1)
"""
SETUP = """%load_ext tf_mem_magic
import time, pathlib
from tf_mem_magic.record import host_stop
import tf_mem_magic as t
host_stop.ROOT = pathlib.Path({root!r})
import psutil
start = psutil.Process().memory_info().rss
group = host_stop.ROOT / "sys/fs/cgroup/box"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A kernel in whose control group a cell allocates steadily; what happened as plain values."""
    found = {}
    with Kernel() as kernel:
        root = tmp_path_factory.mktemp("root")
        ran = kernel.run(SETUP.format(root=str(root)))
        assert ran.status == "ok", ran.errors
        start = kernel.value("start")
        lay_out(root, limit=start + 400 * MIB, used=start)
        ran = kernel.run(STEADY.format(options=""))
        found["error"] = ran.errors[0].splitlines()[-1]
        found["text"] = ran.report_text
        found["status"] = kernel.value("t.last_report().status")
        found["cause"] = kernel.value("(t.last_report().diagnosis.cause, t.last_report().diagnosis.device)")
        found["line"] = kernel.value("t.last_report().diagnosis.line")
        found["share"] = kernel.value("(start + (sizes[-1] << 20)) / (start + (400 << 20))")
        found["full"] = kernel.value("t.last_report().recording.host_full.percent")
        found["alive"] = kernel.value("len(sizes) > 10")
        kernel.run("piled.clear(); (group / 'memory.current').write_text(str(start))")
        ran = kernel.run(STEADY.format(options="--host-stop off").replace("600", "120"))
        found["off"] = (ran.status, kernel.value("t.last_report().status"))
        kernel.run("piled.clear(); (group / 'memory.current').write_text(str(start))")
        ran = kernel.run("%%tfmem\nimport time\nprint('waiting', flush=True)\ntime.sleep(60)", interrupt_on="waiting")
        found["own interrupt"] = kernel.value("t.last_report().status")
        ran = kernel.run(STEADY.format(options="--on-oom auto"))
        found["auto"] = (ran.status, len(ran.errors), kernel.value("t.last_report().status"))
        kernel.run("piled.clear(); (group / 'memory.current').write_text(str(start))")
        waits = "%%tfmem --on-oom auto\nimport time\nprint('waiting', flush=True)\ntime.sleep(60)"
        ran = kernel.run(waits, interrupt_on="waiting")
        found["own interrupt under auto"] = (ran.status, len(ran.errors), kernel.value("t.last_report().status"))
    return found


@pytest.mark.kernel
@pytest.mark.oldest
class TestInAKernel:
    def test_the_cell_is_interrupted_before_its_limit(self, live):
        assert live["error"].startswith("KeyboardInterrupt")
        assert 0.95 <= live["share"] < 1.0

    def test_the_run_counts_as_out_of_host_memory(self, live):
        assert ("oom", ("host", "host"), 95) == (live["status"], live["cause"], live["full"])

    def test_the_report_says_so_and_where(self, live):
        assert "before host memory ran out" in " ".join(live["text"].split())
        assert 3 <= live["line"] <= 7

    def test_the_kernel_lives_on(self, live):
        assert live["alive"]

    def test_it_can_be_switched_off(self, live):
        assert ("ok", "ok") == live["off"]

    def test_a_persons_own_interrupt_stays_an_interrupt(self, live):
        assert "interrupted" == live["own interrupt"]

    def test_a_night_job_without_a_remedy_fails_with_the_interrupt_shown_once(self, live):
        assert ("error", 1, "oom") == live["auto"]

    def test_a_persons_own_interrupt_of_a_night_job_is_shown_as_always(self, live):
        assert ("error", 1, "interrupted") == live["own interrupt under auto"]
