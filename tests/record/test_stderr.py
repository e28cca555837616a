import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tf_mem_magic.record import stderr as stderr_module
from tf_mem_magic.record.stderr import StderrCapture

ROOT = Path(__file__).resolve().parents[1].parent
DUMP = (Path(__file__).resolve().parents[1] / "data" / "dump-tf2.21.0.txt").read_bytes()
ONE_DUMP_LINE = b"I0000 00:00:1.1 7 bfc_allocator.cc:1105] InUse at 7f76 of size 256 next 1\n"


@pytest.fixture(autouse=True)
def nothing_leaks():
    with StderrCapture():
        pass  # the one stream past every capture is made once and stays
    before, threads = os.listdir("/proc/self/fd"), threading.active_count()
    yield
    wait_for(lambda: threading.active_count() == threads)
    assert len(before) == len(os.listdir("/proc/self/fd"))


def on_terminal(test):
    """Lead descriptor 2 into a file that stands for the terminal; ``terminal`` reads it.

    No fixture, because pytest leads descriptor 2 anew between a fixture and its test.
    """
    others = [name for name in inspect.signature(test).parameters if name != "terminal"]

    def run(tmp_path, **fixtures):
        kept, path = os.dup(2), tmp_path / "terminal"
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 2)
        os.close(target)
        try:
            test(path.read_bytes, **({"tmp_path": tmp_path, **fixtures} if "tmp_path" in others else fixtures))
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    run.__name__ = test.__name__
    names = dict.fromkeys(["tmp_path", *others])
    run.__signature__ = inspect.Signature([inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in names])
    return run


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def run_python(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        **{"stderr": subprocess.PIPE, "check": False, "timeout": 120, **options},
    )


@on_terminal
def test_lines_that_are_no_dump_reach_the_terminal_unchanged(terminal):
    with StderrCapture() as capture:
        os.write(2, b"first\n\xff\x00 raw\n")
        subprocess.run(["sh", "-c", "echo from a process >&2"], check=True)
    assert (b"first\n\xff\x00 raw\nfrom a process\n", "") == (terminal(), capture.dump_text)


@on_terminal
def test_the_dump_is_folded(terminal):
    with StderrCapture() as capture:
        os.write(2, b"before\n" + ONE_DUMP_LINE + b"after\n")
    assert (b"before\nafter\n", ONE_DUMP_LINE.decode()) == (terminal(), capture.dump_text)


@on_terminal
def test_complete_lines_are_forwarded_while_the_cell_runs(terminal):
    with StderrCapture() as capture:
        os.write(2, b"epoch 1\nepo")
        capture.poll()
        assert b"epoch 1\n" == terminal()
    assert b"epoch 1\nepo" == terminal()


@on_terminal
def test_a_progress_bar_without_an_end_of_line_arrives_while_it_moves(terminal):
    with StderrCapture() as capture:
        os.write(2, b"\r 10%")
        wait_for(lambda: capture.poll() or terminal() == b"\r 10%")
        os.write(2, b"\r 20%")
        capture.poll()
        assert b"\r 10%\r 20%" == terminal()


@on_terminal
def test_descriptor_2_is_given_back_after_an_exception(terminal):
    def fail():
        with StderrCapture():
            os.write(2, b"inside\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    os.write(2, b"outside\n")
    assert b"inside\noutside\n" == terminal()


@on_terminal
def test_stopping_twice_is_harmless(terminal):
    capture = StderrCapture()
    capture.start()
    capture.stop()
    capture.stop()
    capture.poll()
    os.write(2, b"after\n")
    assert (b"after\n", False) == (terminal(), capture.is_active)


@on_terminal
def test_captures_nest(terminal):
    with StderrCapture() as outer:
        os.write(2, b"outer before\n")
        with StderrCapture() as inner:
            os.write(2, b"inner\n" + ONE_DUMP_LINE)
        os.write(2, b"outer after\n")
    assert (b"outer before\ninner\nouter after\n", ONE_DUMP_LINE.decode(), "") == (
        terminal(),
        inner.dump_text,
        outer.dump_text,
    )


@on_terminal
def test_a_large_dump_leaves_memory_bounded_and_the_rest_intact(terminal):
    with StderrCapture() as capture:
        for n in range(60_000):
            os.write(2, ONE_DUMP_LINE)
            if n % 1000 == 0:
                os.write(2, b"line %d\n" % n)
                capture.poll()
    assert b"".join(b"line %d\n" % n for n in range(0, 60_000, 1000)) == terminal()
    assert 4 << 20 >= len(capture.dump_text) > 3 << 20


def test_a_reader_that_does_not_read_never_blocks_a_poll():
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    capture = StderrCapture()
    capture.start()
    sent = b"x" * 79 + b"\n"
    for _ in range(5000):
        os.write(2, sent)
    capture.poll()
    received = []

    def read_all():
        while sum(map(len, received)) < len(sent) * 5000:
            received.append(os.read(reading, 1 << 16))

    reader = threading.Thread(target=read_all)
    reader.start()
    capture.stop()
    os.dup2(kept, 2)
    os.close(kept)
    reader.join()
    os.close(reading)
    assert sent * 5000 == b"".join(received)


def test_a_reader_that_went_away_does_no_harm():
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    os.close(reading)
    with StderrCapture() as capture:
        os.write(2, b"nobody reads this\n")
        capture.poll()
    os.dup2(kept, 2)
    os.close(kept)
    assert not capture.is_active


@on_terminal
def test_a_named_file_is_removed_at_the_end(terminal, tmp_path):
    path = tmp_path / "recording.stderr"
    with StderrCapture(path):
        os.write(2, ONE_DUMP_LINE)
        assert (ONE_DUMP_LINE, 0o600) == (path.read_bytes(), path.stat().st_mode & 0o777)
    assert not path.exists()


@on_terminal
def test_a_named_file_that_cannot_be_made_is_replaced_by_a_nameless_one(terminal, tmp_path):
    with StderrCapture(tmp_path / "no such folder" / "x") as capture:
        os.write(2, b"line\n")
    assert (b"line\n", "") == (terminal(), capture.dump_text)


@on_terminal
def test_without_any_file_nothing_is_captured(terminal, monkeypatch):
    def full(prefix):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stderr_module.tempfile, "mkstemp", full)
    with StderrCapture() as capture:
        os.write(2, ONE_DUMP_LINE)
        assert not capture.is_active
    assert ONE_DUMP_LINE == terminal()


@on_terminal
def test_a_process_that_outlives_the_cell_still_reaches_the_terminal(terminal):
    with StderrCapture():
        process = subprocess.Popen(["sh", "-c", "read line; echo $line >&2; read line"], stdin=subprocess.PIPE)
    process.stdin.write(b"much later\n")
    process.stdin.flush()
    wait_for(lambda: terminal() == b"much later\n")
    process.stdin.close()
    process.wait()


@on_terminal
def test_a_descriptor_2_that_the_cell_has_led_elsewhere_stays_there(terminal, tmp_path):
    path = tmp_path / "elsewhere"
    with StderrCapture():
        os.write(2, b"captured\n")
        elsewhere = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(elsewhere, 2)
        os.close(elsewhere)
    os.write(2, b"elsewhere\n")
    assert (b"captured\n", b"elsewhere\n") == (terminal(), path.read_bytes())


@on_terminal
def test_a_forked_child_neither_stops_nor_empties_the_capture(terminal):
    with StderrCapture() as capture:
        pid = os.fork()
        if pid == 0:
            os.write(2, b"child\n")
            capture.stop()
            os._exit(0)
        os.waitpid(pid, 0)
        os.write(2, b"parent\n")
    assert b"child\nparent\n" == terminal()


SCRIPT = """
    import logging, os, sys
    from tf_mem_magic.record.stderr import StderrCapture
    original = sys.stderr
    with StderrCapture() as capture:
        print("python", file=sys.stderr)
        os.write(1, b"[stdout]")
        os.write(2, b"descriptor\\n")
        logging.basicConfig()
        direct = sys.stderr
    assert sys.stderr is original
    logging.warning("a handler made in the cell still works")
    with StderrCapture():
        assert sys.stderr is direct
        logging.warning("again")
"""


def test_in_a_script_pythons_own_lines_appear_at_once_and_in_order(tmp_path):
    path = tmp_path / "out"
    with open(path, "ab") as both:
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], cwd=ROOT, stdout=both, stderr=both)
    expected = b"python\n[stdout]descriptor\nWARNING:root:a handler made in the cell still works\nWARNING:root:again\n"
    assert (0, expected) == (done.returncode, path.read_bytes())


def test_in_a_terminal_everything_appears_once():
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(sys.executable, ["-c", textwrap.dedent(SCRIPT)], cwd=str(ROOT), timeout=60)
    child.expect(pexpect.EOF)
    lines = child.before.decode().replace("[stdout]", "").splitlines()
    child.close()
    assert ["WARNING:root:a handler made in the cell still works", "WARNING:root:again", "descriptor", "python"] == (
        sorted(lines)
    )


def test_with_descriptor_2_closed_nothing_happens():
    code = """
        import os, sys
        os.close(2)
        from tf_mem_magic.record.stderr import StderrCapture
        with StderrCapture() as capture:
            print(capture.is_active)
        try:
            os.fstat(2)
        except OSError:
            print("still closed")
    """
    done = run_python(code)
    assert b"False\nstill closed\n" == done.stdout


def test_without_a_python_stderr_descriptor_2_is_still_captured():
    code = """
        import os, sys
        sys.stderr = None
        from tf_mem_magic.record.stderr import StderrCapture
        with StderrCapture() as capture:
            os.write(2, b"line\\n")
        print(sys.stderr)
    """
    done = run_python(code)
    assert (b"None\n", b"line\n") == (done.stdout, done.stderr)


def test_a_stream_of_the_users_own_making_is_left_alone():
    code = """
        import os, sys
        class Mine:
            def write(self, text): os.write(1, text.encode())
        sys.stderr = mine = Mine()
        from tf_mem_magic.record.stderr import StderrCapture
        with StderrCapture():
            assert sys.stderr is mine
            print("mine", file=sys.stderr)
            os.write(2, b"line\\n")
        os._exit(0)  # Python itself would flush it, and fail
    """
    done = run_python(code)
    assert (0, b"mine\n", b"line\n") == (done.returncode, done.stdout, done.stderr)


def test_a_killed_process_leaves_a_named_file_behind(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from tf_mem_magic.record.stderr import StderrCapture
        capture = StderrCapture(Path(sys.argv[1]))
        capture.start()
        os.write(2, b"F0000 Check failed\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    path = tmp_path / "recording.stderr"
    assert (-signal.SIGKILL, b"F0000 Check failed\n") == (run_python(code, str(path)).returncode, path.read_bytes())


def test_code_that_holds_pythons_lock_while_it_writes_much_does_not_hang(tmp_path):
    # ctypes.PyDLL keeps the lock: through a pipe read by this very process this would never end.
    code = """
        import ctypes, os, sys, threading
        from tf_mem_magic.record.stderr import StderrCapture
        reading, writing = os.pipe()
        kept = os.dup(2)
        os.dup2(writing, 2)
        os.close(writing)
        total = 0
        def read_all():
            global total
            while total < 1_600_000:
                total += len(os.read(reading, 4096))
        reader = threading.Thread(target=read_all)
        reader.start()
        with StderrCapture():
            text = b"x" * 79 + b"\\n"
            ctypes.PyDLL(None).write(2, text * 20_000, 80 * 20_000)
        os.dup2(kept, 2)
        reader.join()
        print(total)
    """
    done = run_python(code)
    assert b"1600000\n" == done.stdout


def test_a_multiprocessing_pool_works_during_a_capture():
    code = """
        import json, multiprocessing, os, sys
        from tf_mem_magic.record.stderr import StderrCapture
        def work(n):
            os.write(2, b"worker\\n")
            return n * n
        with StderrCapture():
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(json.dumps(pool.map(work, range(4))))
    """
    done = run_python(code)
    assert ([0, 1, 4, 9], b"worker\n" * 4) == (json.loads(done.stdout), done.stderr)
