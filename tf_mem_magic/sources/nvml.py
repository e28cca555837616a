"""What NVIDIA's driver tells: ``device:GPU:n`` (all processes) and ``process:GPU:n`` (this one)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.recording import LimitBasis, PeakBasis
from tf_mem_magic.sources import Unavailable
from tf_mem_magic.sources._context import Logical, initialised_context, logical_devices
from tf_mem_magic.sources._cuda import Card, Unclear, card_of_ordinal, list_cards, visible_cards
from tf_mem_magic.sources._nvml import Fault, Memory, Nvml, describe_processes, open_nvml

NAME = "nvml"

_Answer = TypeVar("_Answer")

_SHARE = 0.005
"""Share of the time that listing processes may take: it is the costly call, a millisecond or more on real cards."""

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's fixed name of the first pid namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h)."""

_HIDDEN = "NVIDIA's driver does not tell what this process uses; containers, WSL and Windows hide it."


def open(proc: str = "/proc") -> NvmlSource | Unavailable:
    """Open the driver's figures, where it sees a card that CUDA shows to this process.

    ``proc`` stands for ``/proc``, so that tests can lay out a namespace of their own.
    """
    nvml = open_nvml()
    if isinstance(nvml, Fault):
        return Unavailable(NAME, nvml.reason)
    cards = list_cards(nvml)
    if isinstance(cards, Fault) or not cards:
        nvml.close()
        return Unavailable(NAME, cards.reason if isinstance(cards, Fault) else "NVIDIA's driver sees no card.")
    source = NvmlSource(nvml, cards, _pids_are_ours(proc))
    if source.is_blind:
        source.close()
        return Unavailable(NAME, source.trouble or "")
    return source


@dataclass(slots=True)
class _Target:
    """One of TensorFlow's GPUs and the card behind it, with what was last read of this process."""

    device: str
    card: Card
    process: int | None = None
    next_listing: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)


class NvmlSource:
    """The driver's figures. They have no counters, so peaks are sampled.

    Which card is which is settled anew once TensorFlow has initialised its devices. Until then TensorFlow's GPUs are
    taken to be the cards that CUDA shows, in its order.
    """

    name = NAME

    def __init__(self, nvml: Nvml, cards: tuple[Card, ...], pids_are_ours: bool) -> None:
        self._nvml = nvml
        self._cards = cards
        self._pids_are_ours = pids_are_ours
        self._targets: tuple[_Target, ...] = ()
        self._unmatched: tuple[str, ...] = ()
        self._matched_to_tensorflow = False
        self._lock = threading.Lock()
        self._match(None)
        self._follow_tensorflow()

    @property
    def is_blind(self) -> bool:
        """Whether no card will ever be read: none is visible, or none could be told from the others."""
        return not self._targets and (self._matched_to_tensorflow or self._unmatched == (_NONE_VISIBLE,))

    @property
    def trouble(self) -> str | None:
        """Why some or all values are missing."""
        faults = [text for target in self._targets for text in tuple(target.faults.values())]
        return " ".join(dict.fromkeys([*self._unmatched, *faults])) or None

    def read(self) -> Mapping[str, int]:
        """Read the bytes used on each card; this process's own are a little older where listing them is costly."""
        with self._lock:
            self._follow_tensorflow()
            values: dict[str, int] = {}
            for target in self._targets:
                memory = self._memory(target)
                if memory is not None:
                    values[f"device:{target.device}"] = memory.used
                self._list_process(target)
                if target.process is not None:
                    values[f"process:{target.device}"] = target.process
            return values

    def begin_window(self) -> None:
        """Begin a window; there is nothing to reset."""

    def end_window(self) -> Mapping[str, tuple[int, PeakBasis]]:
        """End a window; there is no counter."""
        return {}

    def limits(self) -> Mapping[str, tuple[int, LimitBasis]]:
        """Give what all processes together can use of each card."""
        found: dict[str, tuple[int, LimitBasis]] = {}
        with self._lock:
            self._follow_tensorflow()
            for target in self._targets:
                memory = self._memory(target)
                if memory is not None:
                    found[f"device:{target.device}"] = found[f"process:{target.device}"] = (
                        memory.usable,
                        "device-total",
                    )
        return found

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe the cards and who else uses them."""
        with self._lock:
            self._follow_tensorflow()
            return tuple(self._describe(target) for target in self._targets)

    def close(self) -> None:
        """Give NVML back."""
        with self._lock:
            self._targets = ()
            self._nvml.close()

    def _memory(self, target: _Target) -> Memory | None:
        memory = self._nvml.memory(target.card.handle)
        return _settled(target, "memory", f"The memory of {target.device} cannot be read.", memory)

    def _list_process(self, target: _Target) -> None:
        started = time.perf_counter()
        if started < target.next_listing:
            return
        target.process = self._own_bytes(target)
        ended = time.perf_counter()
        target.next_listing = ended + (ended - started) / _SHARE

    def _own_bytes(self, target: _Target) -> int | None:
        listed = self._nvml.processes(target.card.handle)
        processes = _settled(target, "process", f"What processes use of {target.device} cannot be read.", listed)
        if processes is None:
            return None
        own = processes.get(os.getpid())
        if own is None and (os.getpid() in processes or self._is_hidden(processes)):
            target.faults["process"] = f"{target.device}: {_HIDDEN}"
            return None
        return own or 0

    def _is_hidden(self, processes: Mapping[int, int | None]) -> bool:
        """Whether the list leaves out processes: ours, although it uses the card, or those of another namespace."""
        return os.getpid() not in processes and (self._matched_to_tensorflow or not self._pids_are_ours)

    def _describe(self, target: _Target) -> DeviceFacts:
        memory = self._memory(target)
        capability = self._nvml.ask("nvmlDeviceGetCudaComputeCapability", target.card.handle)
        processes = self._nvml.processes(target.card.handle)
        others = None
        if not isinstance(processes, Fault) and self._pids_are_ours and not self._is_hidden(processes):
            others = describe_processes({pid: used for pid, used in processes.items() if pid != os.getpid()})
        return DeviceFacts(
            name=target.device,
            hardware=target.card.name,
            compute_capability=None if isinstance(capability, Fault) else (int(capability[0]), int(capability[1])),
            total=None if memory is None else memory.total,
            free=None if memory is None else memory.free,
            others=others,
            uuid=target.card.uuid,
        )

    def _follow_tensorflow(self) -> None:
        if self._matched_to_tensorflow:
            return
        context = initialised_context(NAME)
        if not isinstance(context, Unavailable):
            self._matched_to_tensorflow = True
            self._match(context)

    def _match(self, context: Any | None) -> None:
        """Find the card behind each GPU; ``context`` is TensorFlow's once it is initialised."""
        visible = visible_cards(self._cards, os.environ)
        if context is None:
            self._targets = () if isinstance(visible, Unclear) else _in_order(visible)
            self._unmatched = (visible.reason,) if isinstance(visible, Unclear) else ()
            if not self._targets and not self._unmatched:
                self._unmatched = (_NONE_VISIBLE,)
            return
        targets, unmatched = [], []
        try:
            gpus = [d for d in logical_devices(context) if d.type == "GPU" and not d.pluggable]
        except Exception as error:
            gpus, unmatched = [], [f"TensorFlow's devices could not be listed ({type(error).__name__}: {error})."]
        for gpu in gpus:
            card = _card_behind(gpu, self._cards, visible)
            if card is None:
                why = f" {visible.reason}" if isinstance(visible, Unclear) else ""
                unmatched.append(f"Which card is TensorFlow's {gpu.short} cannot be told.{why}")
            else:
                targets.append(_Target(gpu.short, card))
        if not gpus and not unmatched:
            unmatched = ["TensorFlow uses no NVIDIA card in this process."]
        self._targets, self._unmatched = tuple(targets), tuple(unmatched)


_NONE_VISIBLE = "CUDA_VISIBLE_DEVICES hides every card from this process."


def _in_order(cards: tuple[Card, ...]) -> tuple[_Target, ...]:
    return tuple(_Target(f"GPU:{index}", card) for index, card in enumerate(cards))


def _card_behind(gpu: Logical, cards: tuple[Card, ...], visible: tuple[Card, ...] | Unclear) -> Card | None:
    """Find the card of a GPU of TensorFlow's, whose physical device bears CUDA's number."""
    number = str(getattr(gpu.physical, "name", "")).rpartition(":")[2]
    if not number.isdecimal():
        return None
    card = card_of_ordinal(cards, int(number))
    if card is None and not isinstance(visible, Unclear) and int(number) < len(visible):
        card = visible[int(number)]
    return card


def _settled(target: _Target, what: str, sentence: str, answer: _Answer | Fault) -> _Answer | None:
    """Give the answer, or None and a note of the fault; an answer takes an earlier fault back."""
    if isinstance(answer, Fault):
        target.faults[what] = f"{sentence} {answer.reason}"
        return None
    target.faults.pop(what, None)
    return answer


def _pids_are_ours(proc: str) -> bool:
    """Whether the pids that the driver tells mean the same to us: not so inside most containers and under WSL."""
    if not os.path.isdir(proc):
        return True
    try:
        return os.readlink(f"{proc}/self/ns/pid") == _INITIAL_PID_NAMESPACE
    except OSError:
        return False
