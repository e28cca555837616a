"""Processes that begin with TensorFlow imported, and not yet awake: forked from one that imported it once.

Some hundred tests need a process of their own, as an allocator's limit holds for one process, and the import takes
most of what they cost: 3.9 s of processor time before the first operation, 0.6 s in a fork (two cores, TensorFlow
2.21). The import reads a few variables and starts nothing: no device, no allocator, no thread pool of TensorFlow's; so
a fork that gets another limit has that limit. What is about the import itself takes a process that did none.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("tensorflow", "keras", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "ipywidgets")
AT_IMPORT = {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""What TensorFlow reads while it is imported, as the server has it: a fork cannot have other values."""
_UNLIKE = (
    "TF_CPP_MIN_LOG_LEVEL",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "KERAS_HOME",
    "KERAS_BACKEND",
    "TF_USE_LEGACY_KERAS",
    "PYTHONHASHSEED",
    "PYTHONMALLOC",
)
"""What a process reads when it starts or imports: whoever sets one of these gets a process of its own."""


def suits(environment: Mapping[str, str]) -> bool:
    """Tell whether a fork runs under ``environment`` as a process would that is started with it."""
    same_import = all(environment.get(name) == value for name, value in AT_IMPORT.items())
    same_start = all(environment.get(name) == os.environ.get(name) for name in _UNLIKE)
    return same_import and same_start and _paths(environment) <= _paths(os.environ)


def _paths(environment: Mapping[str, str]) -> set[str]:
    """Give the folders to import from; TensorFlow loads a plugin that it finds in one of them."""
    return {str(ROOT), "", *environment.get("PYTHONPATH", "").split(os.pathsep)}


class Forked:
    """A forked process, as ``subprocess.Popen`` shows one."""

    stdin = stdout = stderr = None

    def __init__(self, request: Mapping[str, Any], files: tuple[int, int, int] = (0, 1, 2)) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.connect(address())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        self._line.sendmsg([b"!"], rights)
        self._line.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._line.makefile("rb")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Give its status where it has ended."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._line, selectors.EVENT_READ)
                if waiting.select(timeout):
                    self.returncode = int(self._answers.readline() or -signal.SIGKILL)
                    self._answers.close()
                    self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


_LONGEST = 850
"""Seconds after which a script is given up."""


def run(
    code: str, given: str, environment: Mapping[str, str], folder: Path, fresh: bool
) -> subprocess.CompletedProcess[str]:
    """Run ``python -c code`` with what is ``given`` on its input: in a fork, where ``environment`` suits one.

    A ``fresh`` process imports TensorFlow for itself, or never.
    """
    command = ["-c", code]
    if fresh or not suits(environment):
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            input=given,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    with (
        tempfile.TemporaryFile("w+") as written,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        written.write(given)
        written.seek(0)
        process = start(command, environment, str(folder), (written.fileno(), out.fileno(), err.fileno()))
        try:
            process.wait(_LONGEST)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.wait(), out.read(), err.read())


def start(
    command: list[str], environment: Mapping[str, str], folder: str, files: tuple[int, int, int] = (0, 1, 2)
) -> Forked:
    """Start ``python`` with a ``command`` of ``-c code …`` or ``-m module …``; ``files`` are its standard ones."""
    assert command[0] in ("-c", "-m"), command
    return Forked({"command": command, "environment": dict(environment), "folder": folder}, files)


ADDRESS = "TESTS_FORK_SERVER"
"""Names the server's socket, for a Jupyter server that starts kernels for the same tests."""
_started: list[tuple[str, subprocess.Popen[bytes]]] = []


def address() -> str:
    """Give the address of this process's server; start it where there is none."""
    if told := os.environ.get(ADDRESS):
        return told
    if not _started:
        environment = {**os.environ, **AT_IMPORT}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", __name__, path := f"{tempfile.mkdtemp(prefix='forks-')}/socket"]
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        atexit.register(process.communicate)
        _started.append((path, process))
    return _started[0][0]


def _serve(address: str) -> dict[str, Any]:
    """Fork what is asked for until the tests end; in a fork, give what it is to do."""
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    asked = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        asked.register(source, selectors.EVENT_READ)
    print("ready", flush=True)
    running: dict[int, socket.socket] = {}
    while True:
        ready = [key.fileobj for key, _ in asked.select()]
        if sys.stdin in ready:
            sys.exit()  # whoever asked is gone
        if woken in ready:
            woken.recv(4096)
            _tell_ends(running)
        if listener in ready:
            line, _ = listener.accept()
            request, files = _read(line)
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                asked.close()
                for held in (listener, woken, wakes, line, *running.values()):
                    held.close()
                return request | {"files": files}
            for number in files:
                os.close(number)
            running[pid] = line
            line.sendall(b"%d\n" % pid)


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as line:
            try:
                line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            except OSError:
                pass  # nobody waits for it any more


def _read(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    files = array.array("i")
    _, rights, _, _ = line.recvmsg(1, socket.CMSG_SPACE(3 * files.itemsize))
    for _, _, data in rights:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    with line.makefile("rb") as request:
        return json.loads(request.readline()), list(files)


def _become(request: dict[str, Any]) -> None:
    """Be the process that was asked for, from its standard files to its command's end."""
    os.setsid()
    for place, number in enumerate(request["files"]):
        os.dup2(number, place)
        os.close(number)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    time.tzset()
    os.chdir(request["folder"])
    how, what, *arguments = request["command"]
    paths = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
    installed = [path for path in sys.path if path not in _OUR_PATHS]
    sys.path[:] = ["" if how == "-c" else request["folder"], *(path for path in paths if path), *installed]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if plugin := os.environ.get("TF_PLUGGABLE_DEVICE_LIBRARY_PATH"):  # as TensorFlow does when it is imported
        importlib.import_module("tensorflow.python.framework.load_library").load_pluggable_device_library(plugin)
    sys.argv = [how, *arguments]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


_OUR_PATHS = _paths(os.environ)

if __name__ == "__main__":
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read while a kernel is imported: it ends with its parent
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    _become(_serve(sys.argv[1]))
