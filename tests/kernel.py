"""Drive a real Jupyter kernel, as a page would, and see what it sends."""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jupyter_client.manager import KernelManager

from tests.forked.kernels import fork, wants_fork
from tests.needs import heavy_test

ROOT = Path(__file__).resolve().parent.parent
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def bfc(mib: int = 512) -> dict[str, str]:
    """The environment of a CPU that runs out of memory as a GPU does."""
    return {
        "TF_CPU_ALLOCATOR_USE_BFC": "1",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(mib),
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }


class KernelDiedError(Exception):
    """The kernel's process ended while it ran a cell."""


Made = TypeVar("Made")


def surviving(make: Callable[[], Made], tries: int = 3) -> Made:
    """Give what ``make`` gives; once more where TensorFlow ended the process, as its CPU may when memory runs out.

    A GPU's error is an exception. On a CPU an operation that gets no memory sometimes ends the process instead, with
    or without us, and such a run shows nothing.
    """
    for _ in range(tries - 1):
        try:
            return make()
        except KernelDiedError:
            continue
    return make()


@dataclass
class Ran:
    """What one execute request brought: the page's view of the cell."""

    status: str = ""
    count: int | None = None
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """When the kernel sent each of ``messages``, by its own clock (Unix time)."""

    def stream(self, name: str) -> str:
        return "".join(c["text"] for kind, c in self.messages if kind == "stream" and c["name"] == name)

    @property
    def out(self) -> str:
        return self.stream("stdout")

    @property
    def err(self) -> str:
        return self.stream("stderr")

    @property
    def result(self) -> str | None:
        return next((c["data"].get("text/plain") for kind, c in self.messages if kind == "execute_result"), None)

    @property
    def errors(self) -> list[str]:
        return [ANSI.sub("", "\n".join(c["traceback"])) for kind, c in self.messages if kind == "error"]

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """The final content of our own slots, by display id, in the order they were reserved."""
        slots: dict[str, dict[str, Any]] = {}
        for kind, content in self.messages:
            name = content.get("transient", {}).get("display_id") or ""
            if kind in ("display_data", "update_display_data") and name.startswith("tfmem-"):
                slots[name] = content["data"]
        return slots

    @property
    def report_text(self) -> str:
        return "\n".join(d.get("text/plain", "") for d in self.reports.values())

    def page(self) -> list[tuple[Any, ...]]:
        """The cell's own output, without our slots: what must be the same as without us."""
        seen: list[tuple[Any, ...]] = []
        for kind, content in self.messages:
            if (content.get("transient") or {}).get("display_id", "").startswith("tfmem-"):
                continue
            if kind == "stream":
                if seen and seen[-1][:2] == ("stream", content["name"]):
                    seen[-1] = (*seen[-1][:2], seen[-1][2] + content["text"])
                else:
                    seen.append(("stream", content["name"], content["text"]))
            elif kind in ("display_data", "execute_result"):
                seen.append((kind, content["data"].get("text/plain"), tuple(sorted(content["data"]))))
            elif kind == "error":
                seen.append((kind, content["ename"], content["evalue"], ANSI.sub("", "\n".join(content["traceback"]))))
        return seen


class Kernel:
    """A kernel of this Python, with the project importable.

    One whose environment says what TensorFlow's memory is has TensorFlow imported from the start; ``fresh`` starts one
    that has not.
    """

    def __init__(
        self,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        allow_stdin: bool = False,
        fresh: bool = False,
    ) -> None:
        heavy_test()
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment |= env or {}
        self.allow_stdin = allow_stdin
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[0] = sys.executable
        if wants_fork(environment) and not fresh:
            fork(self.manager)
        self.manager.start_kernel(env=environment, cwd=cwd or os.getcwd())
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: Any) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(
        self,
        code: str,
        timeout: float = 240,
        cell_id: str | None = None,
        interrupt_on: str = "",
        tags: Sequence[str] = (),
        interrupt_after: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Ran:
        """Execute ``code``; interrupt the kernel once its output holds ``interrupt_on``, or so long after it began."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": self.allow_stdin,
            "stop_on_error": False,
        }
        message = self.client.session.msg("execute_request", content)
        message["metadata"].update(metadata or {})
        if cell_id:
            message["metadata"]["cellId"] = cell_id
        if tags:
            message["metadata"]["tags"] = list(tags)
        self.client.shell_channel.send(message)
        ran, wanted, end = Ran(), message["header"]["msg_id"], time.monotonic() + timeout
        while True:
            got = self._next(self.client.get_iopub_msg, end)
            kind, content = got["msg_type"], got["content"]
            if kind == "update_display_data" or got["parent_header"].get("msg_id") == wanted:
                ran.messages.append((kind, content))
                ran.sent.append(got["header"]["date"].timestamp())
            if interrupt_after is not None and kind == "execute_input":
                threading.Timer(interrupt_after, self.manager.interrupt_kernel).start()
            if interrupt_on and kind == "stream" and interrupt_on in content["text"]:
                self.manager.interrupt_kernel()
                interrupt_on = ""
            if (
                kind == "status"
                and content["execution_state"] == "idle"
                and got["parent_header"].get("msg_id") == wanted
            ):
                break
        while True:
            reply = self._next(self.client.get_shell_msg, end)
            if reply["parent_header"].get("msg_id") == wanted:
                break
        ran.status, ran.count = reply["content"]["status"], reply["content"].get("execution_count")
        return ran

    def _next(self, get: Callable[..., Any], end: float) -> Any:
        """Wait for a message until ``end``, or until the kernel has died."""
        while True:
            try:
                return get(timeout=min(max(end - time.monotonic(), 1), 5))
            except queue.Empty:
                if not self.manager.is_alive():
                    raise KernelDiedError from None
                if time.monotonic() >= end:
                    raise

    def value(self, expression: str) -> Any:
        """Evaluate an expression of plain values in the kernel."""
        import ast

        ran = self.run(f"print(repr({expression}))")
        assert ran.status == "ok", ran.errors
        return ast.literal_eval(ran.out)
