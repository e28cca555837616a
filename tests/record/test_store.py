import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tf_mem_magic.core.facts import Facts, FunctionFacts, ModelFacts, NamedValue
from tf_mem_magic.core.jsonio import UnreadableFileError
from tf_mem_magic.core.recording import Cell, ChunkGroup, Dump, Frame
from tf_mem_magic.record.store import folder as store_folder
from tf_mem_magic.record.store.file import is_store, open_store, read_notes, read_store
from tf_mem_magic.record.store.layout import FILE_SIZE, SERIES, Page
from tf_mem_magic.record.store.runs import notebook, stored_runs

CELL = Cell("%%tfmem\nmodel.fit(x, y)\n", "cell-1", 7)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recordings"


@pytest.fixture(autouse=True)
def nothing_leaks():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(before) == len(os.listdir("/proc/self/fd"))


@pytest.fixture
def store():
    opened = open_store(CELL, started=1234.5)
    yield opened
    opened.finish("ok")


def run_python(code, *arguments, **environment):
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_what_was_written_is_read_back(store):
    timeline = store.timeline("allocator:GPU:0")
    for n in range(5):
        timeline.add(n * 0.01, 2**40 + n)
    store.set_limit("allocator:GPU:0", 2**41, "configured")
    store.set_peak("allocator:GPU:0", 2**40 + 99, "counter")
    store.set_before("allocator:GPU:0", 3)
    store.set_after("allocator:GPU:0", 4)
    store.set_facts(Facts(tensorflow="2.21.0", models=(ModelFacts("model"),)))
    dump = Dump("GPU_0_bfc", "structured", in_use=5, groups=(ChunkGroup("", 5, 4, 1),))
    store.set_dumps((dump,))
    store.note("GPU:0 is full")
    store.finish("oom", seconds=2.5)
    recording = read_store(store.path)
    (series,) = recording.series
    assert (CELL, 1234.5, 2.5, "oom") == (recording.cell, recording.started, recording.seconds, recording.status)
    assert ((0.0, 0.01, 0.02, 0.03, 0.04), tuple(2**40 + n for n in range(5))) == (series.times, series.values)
    assert (2**40 + 99, "counter", 2**41, "configured") == (
        series.peak,
        series.peak_basis,
        series.limit,
        series.limit_basis,
    )
    assert ((("allocator:GPU:0", 3),), (("allocator:GPU:0", 4),)) == (recording.before, recording.after)
    assert ("2.21.0", (dump,)) == (recording.facts.tensorflow, recording.dumps)
    assert ("GPU:0 is full",) == read_notes(store.path)


def test_a_recording_that_was_not_finished_says_killed(store):
    store.timeline("host:rss").add(0.0, 5)
    recording = read_store(store.path)
    assert ("killed", 5, "sampled", None) == (
        recording.status,
        recording.series[0].peak,
        recording.series[0].peak_basis,
        recording.series[0].limit,
    )


def test_a_killed_process_leaves_its_recording(cache):
    code = """
        import os, signal, sys
        from pathlib import Path
        from tf_mem_magic.core.recording import Cell
        from tf_mem_magic.record.store.file import open_store
        store = open_store(Cell("boom()"))
        timeline = store.timeline("host:rss")
        for n in range(100_000):
            timeline.add(n * 0.01, n)
        store.note("the last words")
        store.beside(".stderr").write_bytes(b"F0000 Check failed: the device is gone")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert -signal.SIGKILL == run_python(code).returncode
    (run,) = stored_runs(cache)
    recording = read_store(run.path)
    assert (True, "killed", "boom()") == (run.killed, recording.status, recording.cell.source)
    assert notebook() == run.notebook
    assert 99_999 == recording.series[0].peak
    assert ("the last words",) == read_notes(run.path)
    assert "F0000 Check failed: the device is gone" == recording.stderr


def test_the_size_is_constant_and_small(store):
    before = store.path.stat().st_size
    for series in range(SERIES + 2):
        timeline = store.timeline(f"device:GPU:{series}")
        for n in range(5000):
            timeline.add(n * 0.01, n)
    for n in range(5000):
        store.note(f"note {n} " + "x" * 50)
    assert (before, FILE_SIZE) == (store.path.stat().st_size, store.path.stat().st_size)
    assert FILE_SIZE <= 3 * 2**20
    assert store.path.stat().st_blocks * 512 >= FILE_SIZE


def test_series_beyond_the_room_are_kept_in_memory_and_said(store):
    timelines = [store.timeline(f"device:GPU:{n}") for n in range(SERIES + 1)]
    timelines[-1].add(0.0, 5)
    store.set_limit(f"device:GPU:{SERIES}", 9, "configured")
    assert "more than 24 series" in store.notice
    assert ((0.0,), (5,)) == timelines[-1].points()
    assert SERIES == len(read_store(store.path).series)


def test_the_newest_notes_survive(store):
    for n in range(5000):
        store.note(f"note {n} of many that are long enough to fill the room there is")
    notes = read_notes(store.path)
    assert "note 4999 of many that are long enough to fill the room there is" == notes[-1]
    assert all(note.startswith("note ") for note in notes)


def test_a_source_that_is_too_long_is_cut_at_a_character_and_said():
    store = open_store(Cell("é" * 100_000))
    source = read_store(store.path).cell.source
    store.finish("ok")
    assert set("é") == set(source)
    assert 30_000 < len(source) < 33_000
    assert "The cell's source is longer than the file has room for; its end is missing." == read_notes(store.path)[0]


def test_facts_that_are_too_long_are_left_out_with_a_note(store):
    store.set_facts(Facts(tensorflow="2.21.0"))
    store.set_facts(Facts(functions=(FunctionFacts("f", "x" * 200_000, "file", 1),)))
    assert Facts(tensorflow="2.21.0") == read_store(store.path).facts
    assert ("The facts are too long for the recording file and were left out.",) == read_notes(store.path)


def test_of_facts_that_are_too_long_the_largest_values_stay(store):
    values = tuple(NamedValue("x" * 1000, 5 - n, "list") for n in range(500))
    store.set_facts(Facts(values=values))
    assert values[:50] == read_store(store.path).facts.values


def test_without_facts_it_is_known_that_nothing_is(store):
    assert Facts(partial=True) == read_store(store.path).facts


def test_the_newest_earlier_cells_stay_where_not_all_fit(store):
    cells = tuple(f"cell {n}" + "x" * 10_000 for n in range(100))
    store.set_earlier(cells)
    kept = read_store(store.path).facts.earlier_cells
    assert cells[-len(kept) :] == kept
    assert 10 < len(kept) < 50
    assert "the first ones are missing" in read_notes(store.path)[0]


def test_facts_and_calls_are_written_anew_and_the_last_whole_ones_are_read(store):
    for n in range(4):
        store.set_facts(Facts(tensorflow=str(n)))
        store.set_calls((Frame("cell.py", n, "<module>", True, True),))
        recording = read_store(store.path)
        assert (str(n), n) == (recording.facts.tensorflow, recording.errors[0].frames[0].line)


def test_a_process_that_dies_while_it_writes_facts_leaves_those_before(store, monkeypatch):
    store.set_facts(Facts(tensorflow="whole"))
    monkeypatch.setattr(Page, "put", lambda *arguments: pytest.fail("died"))
    with pytest.raises(pytest.fail.Exception):
        store.set_facts(Facts(tensorflow="half"))
    monkeypatch.undo()
    assert "whole" == read_store(store.path).facts.tensorflow


def test_where_the_code_was_is_told_of_a_killed_run_alone(store):
    store.set_calls((Frame("cell.py", 3, "<module>", True, True),))
    store.finish("ok")
    assert () == read_store(store.path).errors


def test_only_the_user_can_read_it(store):
    assert 0o600 == stat.S_IMODE(store.path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(store.path.parent.stat().st_mode)


def test_a_finished_store_takes_nothing_more_in(store):
    store.finish("ok", 1.0)
    store.note("late")
    store.set_seconds(9.0)
    store.set_limit("host:rss", 1, "configured")
    store.timeline("host:rss").add(0.0, 1)
    store.finish("error", 9.0)
    recording = read_store(store.path)
    assert ("ok", 1.0, ()) == (recording.status, recording.seconds, recording.series)


def test_a_forked_child_changes_nothing(store):
    store.timeline("host:rss").add(0.0, 1)
    pid = os.fork()
    if pid == 0:
        store.note("from the child")
        store.finish("error")
        os._exit(0)
    os.waitpid(pid, 0)
    store.timeline("host:rss").add(1.0, 2)
    assert ("killed", (1, 2), ()) == (
        read_store(store.path).status,
        read_store(store.path).series[0].values,
        read_notes(store.path),
    )


def test_old_recordings_are_pruned_with_what_lies_beside_them(cache):
    for n in range(store_folder.KEPT + 5):
        store = open_store(Cell(f"cell {n}"))
        store.beside(".stderr").write_text("x")
        store.beside(".dumps").mkdir()
        store.finish("ok")
        os.utime(store.path, (n, n))
    open_store(Cell("last")).finish("ok")
    assert ["last", *(f"cell {n}" for n in range(12, 5, -1))] == [
        read_store(run.path).cell.source for run in stored_runs(cache)
    ]
    assert 3 * store_folder.KEPT - 2 == len(list(cache.iterdir()))


def test_a_running_recording_is_never_pruned(store, cache):
    os.utime(store.path, (1, 1))
    for _ in range(store_folder.KEPT + 3):
        open_store(Cell("x")).finish("ok")
    assert store.path in [run.path for run in stored_runs(cache) if run.running]


def test_a_dead_process_with_a_living_ones_number_counts_as_killed(store, cache):
    (run,) = stored_runs(cache)
    copy = run.path.with_name(f"copy{store_folder.SUFFIX}")
    copy.write_bytes(run.path.read_bytes())
    killed = {run.path: run.killed for run in stored_runs(cache)}
    assert {store.path: False, copy: True} == killed


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: b"", "is no recording"),
        (lambda data: b"{}" * 2000, "is no recording"),
        (lambda data: data[:9], "is truncated"),
        (lambda data: data[:-1], f"is truncated ({FILE_SIZE - 1} of {FILE_SIZE} bytes)"),
        (lambda data: data + b"x", "is damaged"),
        (lambda data: data[:8] + struct.pack("<q", 99) + data[16:], "newer tf_mem_magic (format 99, this one reads 2)"),
        (lambda data: data[:8] + struct.pack("<q", 1) + data[16:], "older tf_mem_magic (format 1, this one reads 2)"),
        (lambda data: data[:88] + struct.pack("<q", 7) + data[96:], "is damaged"),
        (lambda data: data[:40] + struct.pack("<q", -1) + data[48:], "is damaged"),
        (lambda data: data[:40] + b"\x77" * 8 + data[48:], "is damaged"),
        (lambda data: data[:4096] + b"\xee" * (FILE_SIZE - 4096), "is damaged"),
    ],
)
def test_a_file_that_is_no_whole_recording_gives_one_sentence(store, tmp_path, damage, sentence):
    store.timeline("host:rss").add(0.0, 1)
    path = tmp_path / "damaged.tfmem"
    path.write_bytes(damage(store.path.read_bytes()))
    with pytest.raises(UnreadableFileError) as caught:
        read_store(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_gives_one_sentence(tmp_path):
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_store(tmp_path / "nothing.tfmem")


def test_a_recording_file_is_told_from_others(store, tmp_path):
    other = tmp_path / "report.json"
    other.write_text("{}")
    assert (True, False) == (is_store(store.path), is_store(other))


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    found = [
        store_folder.cache_folder({"TFMEM_CACHE": "/a", "XDG_CACHE_HOME": "/b"}),
        store_folder.cache_folder({"XDG_CACHE_HOME": "/b"}),
        store_folder.cache_folder({"XDG_CACHE_HOME": "relative"}),
        store_folder.cache_folder({}),
    ]
    expected = ["/a", "/b/tf_mem_magic", "/home/someone/.cache/tf_mem_magic", "/home/someone/.cache/tf_mem_magic"]
    assert expected == [str(path) for path in found]


def test_without_a_home_the_recording_lies_in_the_temp_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TFMEM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    store = open_store(CELL)
    store.finish("ok")
    assert tmp_path / f"tf_mem_magic-{os.getuid()}" / "recordings" == store.path.parent


def test_where_the_cache_cannot_be_written_the_recording_lies_in_the_temp_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_store(CELL)
    store.finish("ok")
    folder = tmp_path / f"tf_mem_magic-{os.getuid()}" / "recordings"
    assert folder == store.path.parent
    assert store.notice.startswith(f"The recording is kept in {folder} (Not a directory")


def test_where_nothing_can_be_written_the_recording_is_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    store = open_store(CELL)
    timeline = store.timeline("host:rss")
    timeline.add(0.0, 5)
    store.note("a note")
    points = timeline.points()
    store.finish("ok")
    assert (None, None, ((0.0,), (5,))) == (store.path, store.beside(".stderr"), points)
    assert (
        "The recording is kept in memory only (Not a directory): nothing is left of it if the kernel dies."
        == store.notice
    )


def test_a_full_disk_leaves_no_file_behind_and_the_next_folder_is_used(tmp_path, monkeypatch, cache):
    real = os.posix_fallocate

    def full(fd, offset, size):
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(cache)):
            raise OSError(28, "No space left on device")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_store(CELL)
    store.finish("ok")
    assert [] == list(cache.iterdir())
    assert "No space left on device" in store.notice
    assert "ok" == read_store(store.path).status


def test_a_folder_that_somebody_else_put_in_the_temp_folder_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        store_folder.make_private(tmp_path / "link" / "recordings")


def test_a_cache_folder_that_the_user_has_led_elsewhere_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    store = open_store(CELL)
    store.finish("ok")
    assert (tmp_path / "cache" / "recordings", None) == (store.path.parent, store.notice)
