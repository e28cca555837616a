import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from tf_mem_magic.record import dumps as dumps_module
from tf_mem_magic.record.dumps import VARIABLE, DumpWatch, make_folder

DATA = Path(__file__).resolve().parents[1] / "data"
GPU = {"allocator:GPU:0": 5}


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    assert [] == dumps_module._own_prefixes


@pytest.fixture
def watch():
    watch = DumpWatch()
    watch.start()
    yield watch
    watch.stop()


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(dumps_module, "time", clock)
    return clock


count = iter(range(1, 10_000))


def write(number=2, allocator="GPU_0_bfc", prefix=None):
    """Write dumps as the allocator does: real ones, under its name and a time in microseconds."""
    prefix = prefix or os.environ[VARIABLE]
    for _ in range(number):
        shutil.copy(DATA / "dump-tf2.21.0.pb", f"{prefix}_{allocator}.{next(count)}")
    folder = os.path.dirname(prefix)
    os.utime(folder, ns=(next(count), time.time_ns() + next(count)))


def test_the_variable_leads_into_a_private_folder_and_is_taken_back(watch):
    folder = Path(os.environ[VARIABLE]).parent
    mode = stat.S_IMODE(folder.stat().st_mode)
    write()
    watch.stop()
    watch.stop()
    assert (0o700, False, None) == (mode, folder.exists(), os.environ.get(VARIABLE))


def test_a_folder_beside_the_recording_can_be_named(tmp_path):
    watch = DumpWatch(tmp_path / "run.dumps")
    watch.start()
    assert str(tmp_path / "run.dumps" / "dump") == os.environ[VARIABLE]
    watch.stop()
    assert not (tmp_path / "run.dumps").exists()


def test_what_the_user_has_set_is_used_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    write(1)
    watch = DumpWatch()
    watch.start()
    assert None is watch.poll(GPU)
    write(2)
    assert "GPU:0" == watch.poll(GPU)
    watch.stop()
    assert (str(tmp_path / "mine"), 3) == (os.environ[VARIABLE], len(list(tmp_path.iterdir())))


def test_a_variable_that_the_cell_has_set_is_left_alone(watch):
    os.environ[VARIABLE] = "/elsewhere/dump"
    watch.stop()
    assert "/elsewhere/dump" == os.environ.pop(VARIABLE)


@pytest.mark.parametrize("folder", ["tfmem-dumps-gone", "run-1.dumps"])
def test_what_the_watch_of_a_parent_process_has_set_is_not_taken_for_the_users(tmp_path, monkeypatch, folder):
    inherited = str(tmp_path / folder / "dump")
    monkeypatch.setenv(VARIABLE, inherited)
    watch = DumpWatch()
    watch.start()
    write()
    assert os.environ[VARIABLE] != inherited
    assert "GPU:0" == watch.poll(GPU)
    watch.stop()
    assert inherited == os.environ[VARIABLE]


def test_nested_watches_have_folders_of_their_own(watch):
    outer = os.environ[VARIABLE]
    inner = DumpWatch()
    inner.start()
    write()
    assert (None, "GPU:0") == (watch.poll(GPU), inner.poll(GPU))
    inner.stop()
    assert outer == os.environ[VARIABLE]


def test_without_a_folder_there_is_no_watch(monkeypatch):
    def full(prefix):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dumps_module.tempfile, "mkdtemp", full)
    watch = DumpWatch()
    watch.start()
    assert (None, (), None) == (watch.poll(GPU), watch.read(), os.environ.get(VARIABLE))
    watch.stop()


@pytest.mark.parametrize(
    ("allocator", "device"),
    [("GPU_1_bfc", "GPU:1"), ("PluggableDevice_0_bfc", "GPU:0"), ("bfc_cpu_allocator_for_gpu", "CPU:0")],
)
def test_two_dumps_at_once_mean_that_the_device_is_waiting(watch, allocator, device):
    write(2, allocator)
    assert device == watch.poll({})


def test_two_dumps_seen_one_after_the_other_mean_the_same(watch):
    write(1)
    first = watch.poll(GPU)
    write(1)
    assert (None, "GPU:0") == (first, watch.poll(GPU))


def test_a_single_dump_is_a_request_that_may_fail(watch, clock):
    write(1)
    assert None is watch.poll(GPU)
    clock.now += 5
    write(1)
    assert None is watch.poll(GPU)


def test_the_wait_is_over_when_the_request_is_met(watch):
    write()
    watch.poll(GPU)
    assert None is watch.poll({"allocator:GPU:0": 6})


def test_what_other_operations_give_back_meanwhile_does_not_end_the_wait(watch):
    write()
    watch.poll({"allocator:GPU:0": 1000})
    polled = [watch.poll({"allocator:GPU:0": held}) for held in (990, 700, 705, 800)]
    assert ["GPU:0", "GPU:0", "GPU:0", None] == polled


def test_after_the_request_was_met_another_wait_is_seen(watch, clock):
    write()
    watch.poll(GPU)
    watch.poll({"allocator:GPU:0": 6})
    clock.now += 9
    write()
    assert "GPU:0" == watch.poll({"allocator:GPU:0": 4})


def test_the_wait_is_over_after_twelve_seconds(watch, clock):
    write()
    watch.poll(GPU)
    clock.now += 11.9
    still = watch.poll(GPU)
    clock.now += 0.2
    assert ("GPU:0", None) == (still, watch.poll(GPU))


@pytest.mark.parametrize("in_use", [5, 4])
def test_the_wait_is_over_when_the_allocator_gives_up(watch, clock, in_use):
    write()
    watch.poll(GPU)
    clock.now += 10
    write()
    assert None is watch.poll({"allocator:GPU:0": in_use})
    clock.now += 0.1
    write()
    assert None is watch.poll({"allocator:GPU:0": in_use})


@pytest.mark.parametrize(
    ("seconds", "numbers", "in_use", "given_up"),
    [
        ((0, 10), (2, 2), 4, 1),
        ((0, 10), (2, 3), 3, 1),
        ((0, 10, 13, 23.1), (2, 2, 2, 2), 4, 2),
        # It may have been met; it may fail; another one soon after; two that were met, a minute apart.
        ((0, 10), (2, 2), 6, 0),
        ((0,), (2,), 4, 0),
        ((0, 10), (1, 1), 4, 0),
        ((0, 10), (2, 1), 4, 0),
        ((0, 4), (2, 2), 4, 0),
        ((0, 60), (2, 2), 4, 0),
    ],
)
def test_requests_that_got_no_memory_are_counted_without_a_word_on_stderr(
    watch, clock, seconds, numbers, in_use, given_up
):
    """With TF_CPP_MIN_LOG_LEVEL=3 a tuner that had caught the error was told that all went well."""
    begun = clock.now
    for at, number in zip(seconds, numbers, strict=True):
        clock.now = begun + at
        watch.poll({"allocator:GPU:0": in_use if at else 4})
        write(number)
        if at < seconds[-1]:
            watch.poll({"allocator:GPU:0": 4})
    assert watch.gave_up() == ("GPU_0_bfc",) * given_up


def test_what_met_a_request_after_nine_seconds_is_no_failure(watch, clock):
    """At the limit many a request waits, and is met by what other operations give back."""
    for _ in range(6):
        write()
        watch.poll({"allocator:GPU:0": 4})
        clock.now += 9
        watch.poll({"allocator:GPU:0": 5})
        clock.now += 1.5
    assert watch.gave_up() == ()


def test_a_next_request_is_seen_after_the_allocator_has_given_up(watch, clock):
    write()
    watch.poll(GPU)
    clock.now += 10
    write()
    watch.poll(GPU)
    clock.now += 3
    write()
    assert "GPU:0" == watch.poll(GPU)


def test_dumps_during_a_wait_do_not_pile_up(watch):
    for _ in range(20):
        write()
        watch.poll(GPU)
    assert 4 == len(list(Path(os.environ[VARIABLE]).parent.iterdir()))


def test_a_wait_of_an_unknown_allocator_names_no_device(watch):
    write(2, "something")
    assert None is watch.poll(GPU)


def test_without_tensorflow_the_text_is_read(watch):
    write()
    (dump,) = watch.read((DATA / "dump-tf2.21.0.txt").read_text())
    assert ("text", "bfc_cpu_allocator_for_gpu", 64 * 2**20) == (dump.basis, dump.allocator, dump.requested)


def test_the_wanted_folder_is_made_for_this_user_alone(tmp_path):
    made = make_folder(tmp_path / "dump", "x-")
    assert made == tmp_path / "dump"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_where_it_is_there_already_or_none_is_wanted_another_one_is_made(tmp_path):
    (tmp_path / "dump").mkdir()
    others = [make_folder(wanted, "tfmem-test-") for wanted in (tmp_path / "dump", tmp_path / "no" / "dump", None)]
    assert len(set(others)) == 3
    for other in others:
        assert other.name.startswith("tfmem-test-")
        other.rmdir()
