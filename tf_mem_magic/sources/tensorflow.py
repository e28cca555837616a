"""What TensorFlow's own allocators count: ``allocator:GPU:n``, and ``allocator:CPU:0`` where it keeps statistics."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.recording import LimitBasis, PeakBasis
from tf_mem_magic.sources import Unavailable
from tf_mem_magic.sources._context import Logical, initialised_context, logical_devices
from tf_mem_magic.sources._windows import Windows

NAME = "tensorflow"

_NO_CPU_STATISTICS = (
    "TensorFlow's CPU allocator keeps no statistics; "
    "set TF_CPU_ALLOCATOR_USE_BFC=1 before TensorFlow is imported to have them."
)


def open() -> TensorFlowSource | Unavailable:
    """Open the allocators' counters once the user's code has initialised TensorFlow's devices; never before."""
    context = initialised_context(NAME)
    if isinstance(context, Unavailable):
        return context
    try:
        devices = logical_devices(context)
        names: dict[str, str] = {}
        silent: list[str] = []
        for device in devices:
            if device.type != "GPU" and device.short != "CPU:0":
                continue
            try:
                context.get_memory_info(device.full)
            except Exception:
                silent.append(device.short)
            else:
                names[f"allocator:{device.short}"] = device.full
    except Exception as error:
        return Unavailable(NAME, f"TensorFlow's devices could not be listed ({type(error).__name__}: {error}).")
    silent_gpus = [name for name in silent if name.startswith("GPU")]
    if not names:
        return Unavailable(NAME, _no_statistics(silent_gpus[0]) if silent_gpus else _NO_CPU_STATISTICS)
    return TensorFlowSource(devices, names, _no_statistics(", ".join(silent_gpus)) if silent_gpus else None)


class TensorFlowSource:
    """The open counters. Each reset for a window of ours also resets the peak that the user's own code can read."""

    name = NAME

    def __init__(self, devices: tuple[Logical, ...], names: Mapping[str, str], trouble: str | None) -> None:
        self.trouble = trouble
        self._missing = trouble
        self._devices = devices
        self._names = names
        self._windows = Windows()
        self._lock = threading.Lock()

    def read(self) -> Mapping[str, int]:
        """Read the bytes in use now."""
        with self._lock:
            values, peaks = self._counters()
            self._windows = self._windows.see(peaks)
        return values

    def begin_window(self) -> None:
        """Begin a window: remember the peaks until now, and let the counters begin anew."""
        with self._lock:
            _, peaks = self._counters()
            self._windows = self._windows.begin(peaks)
            context = initialised_context(NAME)
            if isinstance(context, Unavailable):
                return
            for series in peaks:
                try:
                    context.reset_memory_stats(self._names[series])
                except Exception as error:
                    self.trouble = f"TensorFlow did not reset its counter of {_device(series)} ({error})."

    def end_window(self) -> Mapping[str, tuple[int, PeakBasis]]:
        """End the innermost window and give its peaks; with none open, those since TensorFlow was initialised."""
        with self._lock:
            _, peaks = self._counters()
            self._windows, found = self._windows.end(peaks)
        return found

    def limits(self) -> Mapping[str, tuple[int, LimitBasis]]:
        """Give the limits that were configured; TensorFlow does not tell those that it chose itself."""
        with self._lock:
            _, peaks = self._counters()
        found: dict[str, tuple[int, LimitBasis]] = {}
        for device in self._devices:
            series = f"allocator:{device.short}"
            limit = _cpu_limit() if device.short == "CPU:0" else device.limit
            # A variable that was set after TensorFlow had read it shows by a peak above it.
            if limit is not None and series in peaks and peaks[series] <= limit:
                found[series] = (limit, "configured")
        return found

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe TensorFlow's logical devices."""
        context = initialised_context(NAME)
        if isinstance(context, Unavailable):
            return ()
        return tuple(_facts(context, device) for device in self._devices)

    def close(self) -> None:
        """Nothing is held."""

    def _counters(self) -> tuple[dict[str, int], dict[str, int]]:
        values: dict[str, int] = {}
        peaks: dict[str, int] = {}
        context = initialised_context(NAME)
        if isinstance(context, Unavailable):
            self.trouble = "TensorFlow let go of its devices; its memory is no longer counted."
            return values, peaks
        self.trouble = self._missing
        for series, device in self._names.items():
            try:
                info = context.get_memory_info(device)
                values[series], peaks[series] = info["current"], info["peak"]
            except Exception as error:
                self.trouble = f"TensorFlow no longer tells the memory of {_device(series)} ({error})."
        return values, peaks


def _device(series: str) -> str:
    return series.partition(":")[2]


def _no_statistics(names: str) -> str:
    if os.environ.get("TF_GPU_ALLOCATOR") == "cuda_malloc_async":
        return f"The allocator of {names}, cuda_malloc_async, keeps no statistics."
    return f"The allocator of {names} keeps no statistics."


def _cpu_limit() -> int | None:
    """Give the limit of the CPU's BFC allocator where the environment sets one; it is read when TensorFlow starts."""
    if os.environ.get("TF_CPU_ALLOCATOR_USE_BFC", "").lower() not in ("1", "true"):
        return None
    text = os.environ.get("TF_CPU_BFC_MEM_LIMIT_IN_MB", "")
    return int(text) * 2**20 if text.isdecimal() and int(text) > 0 else None


def _facts(context: Any, device: Logical) -> DeviceFacts:
    kind = device.type if device.type in ("GPU", "CPU", "TPU") else "other"
    details: Mapping[str, Any] = {}
    growth = None
    try:
        details = context.get_device_details(device.physical)
        growth = _growth(context, device)
    except Exception:
        pass  # what TensorFlow cannot tell stays unknown
    return DeviceFacts(
        name=device.short,
        kind=kind,  # type: ignore[arg-type]
        hardware=details.get("device_name"),
        compute_capability=details.get("compute_capability"),
        growth=growth,
        logical=device.configured,
    )


def _growth(context: Any, device: Logical) -> bool | None:
    """Tell whether the pool grows on demand; the environment overrules what the configuration says."""
    if device.type != "GPU":
        return None
    forced = {"true": True, "false": False}.get(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower())
    return bool(context.get_memory_growth(device.physical)) if forced is None else forced
