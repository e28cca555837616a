"""The one guard through which every call to NVIDIA's management library (NVML) goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.core.facts import ProcessFacts


@dataclass(frozen=True, slots=True)
class Fault:
    """A call that failed: NVML's ``code`` (None: it was not NVML that failed), and the reason as a sentence."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a card in bytes: ``total`` and ``free``, ``used`` by all processes, ``usable`` by them at most."""

    total: int
    free: int
    used: int
    usable: int


_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND, _NO_LIBRARY, _NO_FUNCTION = 3, 4, 6, 12, 13
_VERSION_MISMATCH = 25

_REASONS = {
    1: "NVIDIA's driver library was shut down by other code in this process.",
    _NOT_SUPPORTED: "The card or its driver does not support this.",
    _NO_PERMISSION: "This user may not read it.",
    9: "NVIDIA's driver is not running.",
    10: "The card did not answer in time.",
    _NO_LIBRARY: "NVIDIA's driver library was not found; this machine has no NVIDIA card, or no driver for it.",
    _NO_FUNCTION: "The installed driver is too old for this.",
    15: "The driver has lost the card; only a reset or a restart of the machine brings it back.",
    16: "The card needs a reset.",
    18: "The driver was updated while it was running; the machine needs a restart.",
    28: "NVIDIA's driver sees no card.",
    999: "NVIDIA's driver reports an error that it does not know itself.",
}


class Nvml:
    """NVML, initialised. It counts initialisations itself, so other users in this process are not disturbed."""

    def __init__(self, pynvml: Any) -> None:
        self._pynvml = pynvml
        self._open = True

    def ask(self, function: str, *arguments: Any) -> Any | Fault:
        """Call ``function`` of nvidia-ml-py; a failure of any kind is an answer."""
        return _guarded(self._pynvml, function, *arguments)

    def close(self) -> None:
        """Give NVML back. Idempotent."""
        if self._open:
            self._open = False
            self.ask("nvmlShutdown")

    def memory(self, handle: Any) -> Memory | Fault:
        """Read the memory of a card; drivers older than 510 count what is reserved as used."""
        version = getattr(self._pynvml, "nvmlMemory_v2", None)
        found = self.ask("nvmlDeviceGetMemoryInfo", handle, version)
        if isinstance(found, Fault) and found.code in (_NO_FUNCTION, _VERSION_MISMATCH, _NOT_SUPPORTED):
            found = self.ask("nvmlDeviceGetMemoryInfo", handle)
        if isinstance(found, Fault):
            return found
        total, free, used = int(found.total), int(found.free), int(found.used)
        return Memory(total, free, used, total - int(getattr(found, "reserved", 0)))

    def processes(self, handle: Any) -> Mapping[int, int | None] | Fault:
        """Read the bytes of each process on a card by pid; None for those that the driver does not tell."""
        computing = self._running("Compute", handle)
        if isinstance(computing, Fault):
            return computing
        drawing = self._running("Graphics", handle)  # many cards cannot draw; then only computing counts
        found: dict[int, int | None] = {}
        for process in [*computing, *([] if isinstance(drawing, Fault) else drawing)]:
            used = process.usedGpuMemory
            # A process that computes and draws is in both lists, with the same bytes.
            found[process.pid] = found.get(process.pid) if used is None else max(used, found.get(process.pid) or 0)
        return found

    def _running(self, kind: str, handle: Any) -> list[Any] | Fault:
        found: list[Any] | Fault = Fault(_NO_FUNCTION, _REASONS[_NO_FUNCTION])
        for version in ("_v3", "_v2"):
            found = self.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle)
            if not (isinstance(found, Fault) and found.code == _NO_FUNCTION):
                break
        return found


def open_nvml() -> Nvml | Fault:
    """Initialise NVML."""
    try:
        import pynvml
    except ImportError:
        return Fault(None, "The package nvidia-ml-py is not installed.")
    answer = _guarded(pynvml, "nvmlInit")
    return answer if isinstance(answer, Fault) else Nvml(pynvml)


def describe_processes(found: Mapping[int, int | None]) -> tuple[ProcessFacts, ...]:
    """Name the users of processes (bytes by pid) where they can be read, the largest process first."""
    facts = [ProcessFacts(pid, _user(pid), used) for pid, used in found.items()]
    return tuple(sorted(facts, key=lambda fact: (-(fact.bytes or 0), fact.pid)))


def _user(pid: int) -> str | None:
    try:
        import psutil

        return str(psutil.Process(pid).username())
    except Exception:  # the process has ended, or is hidden from this user
        return None


def _guarded(pynvml: Any, function: str, *arguments: Any) -> Any | Fault:
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        code = int(error.value)
        return Fault(code, _REASONS.get(code) or f"NVIDIA's driver says: {str(error).rstrip('.')} (NVML error {code}).")
    except Exception as error:
        return Fault(None, f"nvidia-ml-py failed in {function} ({type(error).__name__}: {error}).")
