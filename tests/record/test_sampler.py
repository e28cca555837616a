import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.recording import Cell, MissingSource
from tf_mem_magic.record.pool import SourcePool
from tf_mem_magic.record.sampler import Sampler
from tf_mem_magic.record.store.file import open_store, read_notes, read_store
from tf_mem_magic.sources import Unavailable

ROOT = Path(__file__).resolve().parents[1].parent
GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def nothing_leaks():
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    wait_for(lambda: threads == threading.active_count())
    assert before == len(os.listdir("/proc/self/fd"))


@pytest.fixture
def store():
    opened = open_store(Cell("train()"))
    yield opened
    opened.finish("ok")


class Plain:
    """A source whose values the test sets; its counter counts like TensorFlow's."""

    def __init__(self, name="fake", **values):
        self.name, self.trouble = name, None
        self.values = {key.replace("_", ":"): value for key, value in values.items()}
        self.limit, self.counter, self.windows = {}, {}, 0
        self.log, self.reads, self.closed = [], 0, 0

    def read(self):
        self.reads += 1
        return dict(self.values)

    def begin_window(self):
        self.windows += 1
        self.log.append("begin")

    def end_window(self):
        self.windows -= 1
        self.log.append("end")
        return {name: (value, "counter") for name, value in self.counter.items()}

    def limits(self):
        return dict(self.limit)

    def devices(self):
        return ()

    def close(self):
        self.closed += 1


def module(source, name=None):
    return SimpleNamespace(NAME=name or source.name, open=lambda: source)


def pool_of(*sources):
    return SourcePool([module(source) for source in sources])


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def run(sampler, until):
    sampler.start()
    wait_for(until)
    return sampler.stop()


def test_a_run_gives_its_series_with_the_readings_before_and_after(store):
    source = Plain(host_rss=10)
    sampler = Sampler(pool_of(source), store)
    sampler.start()
    source.values["host:rss"] = 30
    wait_for(lambda: store.timeline("host:rss").points()[1][-1] == 30)
    source.values["host:rss"] = 20
    sampled = sampler.stop()
    (series,) = sampled.series
    assert (("host:rss", 10),) == sampled.before
    assert (("host:rss", 20),) == sampled.after
    assert ("host:rss", 30, "sampled", {10, 20, 30}) == (
        series.name,
        series.peak,
        series.peak_basis,
        set(series.values),
    )
    assert list(series.times) == sorted(series.times)


def test_a_counters_peak_is_the_peak(store):
    source = Plain(allocator_GPU_0=10)
    source.counter = {"allocator:GPU:0": 99}
    sampled = run(Sampler(pool_of(source), store), lambda: source.reads > 3)
    assert (99, "counter") == (sampled.series[0].peak, sampled.series[0].peak_basis)
    assert 99 == read_store(store.path).series[0].peak


def test_a_counter_below_a_sample_was_reset_by_somebody_and_is_not_believed(store):
    source = Plain(allocator_GPU_0=10)
    source.counter = {"allocator:GPU:0": 4}
    sampled = run(Sampler(pool_of(source), store), lambda: source.reads > 3)
    assert (10, "sampled") == (sampled.series[0].peak, sampled.series[0].peak_basis)


def test_stopping_twice_gives_the_same(store):
    sampler = Sampler(pool_of(Plain(host_rss=1)), store)
    sampler.start()
    assert sampler.stop() is sampler.stop()


def test_stopping_without_starting_gives_nothing(store):
    sampler = Sampler(pool_of(Plain(host_rss=1)), store)
    sampler._done.set()
    assert () == sampler.stop().series


def test_what_was_sampled_is_in_the_file_while_the_cell_runs(store):
    source = Plain(host_rss=10)
    source.limit = {"host:rss": (100, "configured")}
    sampler = Sampler(pool_of(source), store)
    sampler.start()
    recording = read_store(store.path)
    sampler.stop()
    assert ("killed", (("host:rss", 10),), 100, "configured") == (
        recording.status,
        recording.before,
        recording.series[0].limit,
        recording.series[0].limit_basis,
    )


def test_a_missing_source_says_why(store):
    missing = SimpleNamespace(NAME="nvml", open=lambda: Unavailable("nvml", "There is no card."))
    source = Plain(host_rss=1)
    pool = SourcePool([missing, module(source)])
    sampled = run(Sampler(pool, store), lambda: source.reads > 3)
    assert (MissingSource("nvml", "There is no card."),) == sampled.missing


def test_a_source_that_may_open_later_is_opened_during_the_run(store):
    source = Plain("tensorflow", allocator_GPU_0=7)
    source.counter = {"allocator:GPU:0": 99}
    answers = [Unavailable("tensorflow", "Not yet.", later=True)] * 2
    late = SimpleNamespace(NAME="tensorflow", open=lambda: answers.pop() if answers else source)
    sampled = run(Sampler(SourcePool([late]), store), lambda: source.reads > 2)
    # It counted for this run from its beginning: there is a peak, and nothing was in use before.
    assert ((), 99, "counter", ()) == (
        sampled.before,
        sampled.series[0].peak,
        sampled.series[0].peak_basis,
        sampled.missing,
    )


def test_a_source_that_never_opens_is_asked_once(store):
    asked = []

    def open_it():
        asked.append(1)
        return Unavailable("nvml", "There is no card.")

    source = Plain(host_rss=1)
    pool = SourcePool([SimpleNamespace(NAME="nvml", open=open_it), module(source)])
    run(Sampler(pool, store), lambda: source.reads > 3)
    run(Sampler(pool, store), lambda: source.reads > 6)
    assert [1] == asked


def test_a_source_that_raises_in_spite_of_its_promise_is_named_and_left_out(store):
    source, broken = Plain(host_rss=1), Plain("broken", device_GPU_0=1)
    broken.read = lambda: 1 / 0
    sampled = run(Sampler(pool_of(broken, source), store), lambda: source.reads > 3)
    assert ("host:rss",) == tuple(series.name for series in sampled.series)
    assert (MissingSource("broken", "It failed (ZeroDivisionError: division by zero)."),) == sampled.missing


def test_a_source_that_raises_at_opening_is_named(store):
    source = Plain(host_rss=1)
    pool = SourcePool([SimpleNamespace(NAME="broken", open=lambda: 1 / 0), module(source)])
    sampled = run(Sampler(pool, store), lambda: source.reads > 3)
    assert (
        MissingSource("broken", "It could not be opened (ZeroDivisionError: division by zero)."),
    ) == sampled.missing


def test_a_source_that_hangs_holds_nobody_up(store):
    hung, go_on = Plain("hung", device_GPU_0=1), threading.Event()
    answers = iter(range(3))

    def read():
        if next(answers, None) is None:
            go_on.wait(60)
        return {"device:GPU:0": 1}

    hung.read = read
    pool = pool_of(hung)
    sampler = Sampler(pool, store)
    sampler.start()
    wait_for(lambda: next(answers, None) is None)
    sampled = sampler.stop()
    second = Sampler(pool, open_store(Cell("next")))
    second.start()
    again = second.stop()
    second._store.finish("ok")
    store.finish("ok")
    go_on.set()
    assert ("A source of memory figures did not answer; its last values are missing.",) == sampled.notices
    assert ((MissingSource("hung", "It did not answer."),), ()) == (again.missing, again.notices)


def test_ticks_show_the_moment(store):
    source, lives = Plain(allocator_GPU_0=GIB), []
    source.limit = {"allocator:GPU:0": (4 * GIB, "configured")}
    run(Sampler(pool_of(source), store, on_tick=lives.append), lambda: len(lives) >= 2)
    (series,) = lives[-1].series
    assert ("allocator:GPU:0", GIB, GIB, 4 * GIB) == (series.name, series.value, series.peak, series.limit)
    assert 1 < len(series.times) == len(series.values) <= 300
    assert 0 < lives[0].seconds < lives[1].seconds
    assert ("", None) == (lives[-1].warning, lives[-1].waiting)


def test_a_tick_that_raises_is_the_last_and_is_said(store):
    source, ticks = Plain(host_rss=1), []

    def fail(live):
        ticks.append(source.reads)
        raise ZeroDivisionError("no view")

    sampled = run(Sampler(pool_of(source), store, on_tick=fail), lambda: ticks and source.reads > ticks[0] + 40)
    assert (1, ("The live view stopped (ZeroDivisionError: no view).",)) == (len(ticks), sampled.notices)


@pytest.mark.parametrize(
    ("values", "limits", "warning"),
    [
        ({"allocator_GPU_0": 139}, {"allocator:GPU:0": 147}, "GPU:0 is nearly full: 13.9 of 14.7 GiB."),
        ({"allocator_GPU_0": 100}, {"allocator:GPU:0": 147}, ""),
        # TensorFlow reserves most of a card: the card is full, its allocator is not.
        ({"allocator_GPU_0": 10, "device_GPU_0": 140}, {"device:GPU:0": 147}, ""),
        (
            {"allocator_GPU_0": 139, "device_GPU_0": 140},
            {"device:GPU:0": 147},
            "GPU:0 is nearly full: 13.9 of 14.7 GiB.",
        ),
        ({"device_GPU_0": 139}, {"device:GPU:0": 147}, "GPU:0 is nearly full: 13.9 of 14.7 GiB."),
        ({"host_rss": 300}, {"host:rss": 320}, "Host memory is nearly full: 30.0 of 32.0 GiB."),
        ({"host_rss": 300}, {}, ""),
    ],
)
def test_memory_that_is_nearly_full_is_said(store, values, limits, warning):
    source, lives = Plain(**{name: value * GIB // 10 for name, value in values.items()}), []
    source.limit = {name: (value * GIB // 10, "configured") for name, value in limits.items()}
    run(Sampler(pool_of(source), store, on_tick=lives.append), lambda: lives)
    assert (warning, (warning,) if warning else ()) == (lives[-1].warning, read_notes(store.path))


def test_nested_runs_each_have_a_window_of_each_source(store):
    source = Plain(host_rss=1)
    pool = pool_of(source)
    outer = Sampler(pool, store)
    outer.start()
    inner_store = open_store(Cell("inner"))
    inner = Sampler(pool, inner_store)
    inner.start()
    inner.stop()
    inner_store.finish("ok")
    outer.stop()
    assert ["begin", "begin", "end", "end"] == source.log


def test_a_source_opened_while_runs_are_nested_tells_every_run_what_it_has_counted(store):
    source = Plain("late", host_rss=1)
    opened = []
    late = SimpleNamespace(NAME="late", open=lambda: source if opened else Unavailable("late", "Not yet.", later=True))
    pool = SourcePool([late])
    outer = Sampler(pool, store)
    outer.start()
    inner_store = open_store(Cell("inner"))
    inner = Sampler(pool, inner_store)
    inner.start()
    opened.append(True)
    wait_for(lambda: source.reads > 2)
    source.counter = {"host:rss": 99}
    inner_peak = inner.stop().series[0].peak
    inner_store.finish("ok")
    # It opened after both had begun and counts since then: neither needs a window of its own.
    assert (99, 99, ["end", "end"]) == (inner_peak, outer.stop().series[0].peak, source.log)


def test_runs_that_do_not_end_inside_one_another_have_no_counted_peak():
    source = Plain(host_rss=1)
    source.counter = {"host:rss": 99}
    pool = pool_of(source)
    pool.begin("first")
    pool.begin("second")
    assert ({}, {"host:rss": (99, "counter")}, {}) == (pool.end("first"), pool.end("second"), pool.end("first"))
    assert 0 == source.windows


def test_a_pool_opens_a_source_once_and_closes_it():
    source = Plain(host_rss=1)
    opened = []
    pool = SourcePool([SimpleNamespace(NAME="fake", open=lambda: opened.append(1) or source)])
    for run_name in ("first", "second"):
        pool.begin(run_name)
        pool.end(run_name)
    pool.close()
    assert ([1], 1, ()) == (opened, source.closed, pool.sources)


def test_a_slow_source_is_read_less_often_than_a_cheap_one(store):
    cheap, slow = Plain(host_rss=1), Plain("slow", device_GPU_0=1)

    def read():
        slow.reads += 1
        end = time.thread_time() + 0.003
        while time.thread_time() < end:
            pass
        return {"device:GPU:0": 1}

    slow.read = read
    run(Sampler(pool_of(slow, cheap), store), lambda: cheap.reads >= 30)
    assert cheap.reads > 2 * slow.reads


def test_a_forked_child_leaves_the_recording_alone(store):
    source = Plain(host_rss=1)
    sampler = Sampler(pool_of(source), store)
    sampler.start()
    pid = os.fork()
    if pid == 0:
        sampler.stop()
        store.finish("error")
        os._exit(0)
    os.waitpid(pid, 0)
    reads = source.reads
    wait_for(lambda: source.reads > reads + 3)
    sampled = sampler.stop()
    assert ((("host:rss", 1),), "killed") == (sampled.after, read_store(store.path).status)


def test_the_sources_of_the_package_are_sampled_by_default(store):
    pool = SourcePool()
    sampler = Sampler(pool, store)
    sampler.start()
    sampled = sampler.stop()
    pool.close()
    assert "host:rss" in [series.name for series in sampled.series]
    assert "TensorFlow has not been imported." in [m.reason for m in sampled.missing if m.name == "tensorflow"]


OOM = """
    import json, os, subprocess, sys, time
    from dataclasses import asdict
    from pathlib import Path
    from tf_mem_magic.core.recording import Cell
    from tf_mem_magic.record.dumps import DumpWatch, read_dump
    from tf_mem_magic.record.pool import SourcePool
    from tf_mem_magic.record.sampler import Sampler
    from tf_mem_magic.record.stderr import StderrCapture
    from tf_mem_magic.record.store.file import open_store, read_notes, read_store

    lives = []
    store = open_store(Cell("train()"))
    stderr, dumps = StderrCapture(store.beside(".stderr")), DumpWatch(store.beside(".dumps"))
    sampler = Sampler(SourcePool(), store, on_tick=lives.append, dumps=dumps, stderr=stderr)
    dumps.start(); sampler.start(); stderr.start()
    subprocess.run("echo a line of a process >&2", shell=True)

    import tensorflow as tf
    blocks = [tf.random.normal((256, 1024)) for _ in range(6)]
    began = time.monotonic() - sampler._began
    try:
        tf.zeros((64, 1024, 256))
        error = None
    except tf.errors.ResourceExhaustedError as caught:
        error = type(caught).__name__
    ended = time.monotonic() - sampler._began
    killed = read_store(store.path)
    while lives[-1].waiting is not None or lives[-1].seconds < ended + 0.5:
        time.sleep(0.05)
    peak = tf.config.experimental.get_memory_info("CPU:0")

    stderr.stop()
    sampled = sampler.stop()
    found = dumps.read(stderr.dump_text)
    dumps.stop()
    notes = read_notes(store.path)
    store.finish("oom")
    print(json.dumps({
        "error": error,
        "began": began,
        "ended": ended,
        "waiting": [(live.seconds, live.waiting) for live in lives],
        "dumps": [asdict(dump) for dump in found],
        "folded": stderr.dump_text,
        "notes": notes,
        "series": {s.name: [s.peak, s.peak_basis, s.limit] for s in sampled.series},
        "peak": peak["peak"],
        "left": sorted(path.suffix for path in store.path.parent.iterdir()),
        "variable": os.environ.get("TF_BFC_MEMORY_DUMP"),
        "killed": [killed.status, [asdict(dump) for dump in killed.dumps]],
        "captured": [asdict(read_dump(path)) for path in sorted(Path(sys.argv[1]).glob("*.pb"))],
    }))
"""


@pytest.fixture(scope="module")
def oom(tmp_path_factory):
    """A real out-of-memory of TensorFlow's, with all pieces together."""
    environment = {
        **os.environ,
        "TFMEM_CACHE": str(tmp_path_factory.mktemp("cache")),
        "TF_CPU_ALLOCATOR_USE_BFC": "1",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": "16",
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }
    command = [sys.executable, "-c", textwrap.dedent(OOM), str(ROOT / "tests" / "data")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


@pytest.mark.tf
def test_while_the_allocator_waits_the_live_view_says_so(oom):
    during = [device for seconds, device in oom["waiting"] if oom["began"] + 1 < seconds < oom["ended"] - 0.5]
    assert len(during) > 20
    assert {"CPU:0"} == set(during)


@pytest.mark.tf
def test_after_the_wait_the_live_view_no_longer_says_so(oom):
    assert None is oom["waiting"][-1][1]


@pytest.mark.tf
def test_the_dump_is_folded_away_and_every_other_line_reaches_the_user(oom):
    assert "BFCAllocator dump for" in oom["folded"]
    assert "bfc_allocator.cc" not in oom["stderr"]
    assert "a line of a process\n" in oom["stderr"]
    assert "OOM when allocating tensor" in oom["stderr"]


@pytest.mark.tf
def test_the_structured_dump_adds_up_to_what_was_in_use(oom):
    (dump,) = oom["dumps"]
    assert "structured" == dump["basis"]
    assert dump["in_use"] == sum(group["bytes"] for group in dump["groups"])
    assert (16 * 2**20, 64 * 2**20, "Fill") == (dump["limit"], dump["requested"], dump["op"])
    assert dump["pool"] - dump["in_use"] >= dump["largest_free"] > 0


@pytest.mark.tf
def test_the_peak_is_the_allocators_own(oom):
    assert [oom["peak"], "counter", 16 * 2**20] == oom["series"]["allocator:CPU:0"]


@pytest.mark.tf
def test_a_kernel_that_died_in_the_wait_would_have_left_its_dump(oom):
    status, (dump,) = oom["killed"]
    assert ("killed", "bfc_cpu_allocator_for_gpu") == (status, dump["allocator"])
    assert "CPU:0 is full: its allocator is waiting for memory to be freed." in oom["notes"]


@pytest.mark.tf
def test_nothing_but_the_recording_is_left(oom):
    assert ([".tfmem"], None) == (oom["left"], oom["variable"])


@pytest.mark.tf
def test_the_captured_structured_dumps_add_up_and_agree_with_their_texts(oom):
    from tf_mem_magic.diagnose.dump import parse_dumps

    texts = sorted((ROOT / "tests" / "data").glob("dump-tf*.txt"))
    assert len(texts) == len(oom["captured"])
    for text, structured in zip(texts, oom["captured"]):
        (written,) = parse_dumps(text.read_text())
        assert structured["in_use"] == sum(group["bytes"] for group in structured["groups"])
        assert (written.in_use, written.pool, written.largest_free, written.fragmentation) == (
            structured["in_use"],
            structured["pool"],
            structured["largest_free"],
            structured["fragmentation"],
        )
