"""One moment as the live strip shows it: which series, which words."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.core import units
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.report.picture.live import Live, LiveSeries
from tf_mem_magic.report.sentences import headline, mark

WORKING_OUT = "working out what filled it and what would fit …"

NEAR = 0.9
"""Share of the limit from which the strip turns amber."""


def tick_message(live: Live) -> dict[str, Any]:
    """Give the message that the page draws: words from here, curves in bytes and seconds."""
    main = main_series(live)
    numbers = [_numbers(s, first=s is main) for s in _shown(live, main)]
    near = main is not None and main.limit is not None and main.value >= NEAR * main.limit
    return {
        "op": "tick",
        "seconds": live.seconds,
        "elapsed": clock(live.seconds),
        "numbers": numbers,
        "label": numbers[0] if numbers else "no memory series yet",
        "words": _words(live, main, near),
        "amber": bool(near or live.warning or live.waiting),
        "top": _top(live, main),
        "limit": _limit_in_view(main),
        "main": _curve(main),
        "device": _curve(_device_of(live, main)),
    }


def ended_message(outcome: Outcome) -> dict[str, str]:
    """Give the message that ends the strip's moments before the report is there: what happened, what is under way."""
    return {"op": "ended", "state": f"{mark(outcome)} {headline(outcome)}", "words": WORKING_OUT}


def main_series(live: Live) -> LiveSeries | None:
    """Choose the curve: the fullest GPU's allocator, else the CPU's, else a process, else the host."""
    return min(live.series, key=_rank, default=None)


def clock(seconds: float) -> str:
    """Give the running time as a clock: ``"0:42"``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def device_name(name: str) -> str:
    """Name what a series belongs to, in words: ``"GPU:0"``, or ``"host"``."""
    kind, _, rest = name.partition(":")
    return "host" if kind == "host" else rest


def _rank(series: LiveSeries) -> tuple[int, float, int]:
    kind = series.name.split(":", 1)[0]
    order = {"allocator": 0, "process": 2, "device": 3, "host": 4}.get(kind, 5)
    if series.name.startswith("allocator:CPU"):
        order = 1
    return (order, -(series.value / series.limit if series.limit else 0.0), -series.value)


def _shown(live: Live, main: LiveSeries | None) -> list[LiveSeries]:
    """Give the main series, its device as all processes use it, the other allocators, then the host."""
    device = _device_of(live, main)
    others = [s for s in live.series if s is not main and s.name.startswith("allocator:GPU")]
    host = [s for s in live.series if s is not main and s.name.startswith("host:")]
    return [s for s in (main, device, *others, *host) if s is not None]


def _numbers(series: LiveSeries, *, first: bool) -> str:
    name = device_name(series.name)
    if not first and series.name.startswith("device:"):
        return f"all processes {_brief(series.value)}"
    if not first:
        return f"{name} {_brief(series.value)}"
    unit = units.brief_unit([series.value, series.peak, series.limit or 0])
    limit = "" if series.limit is None else f"   limit {units.size(series.limit, unit)}"
    return f"{name}   in use {units.size(series.value, unit)}   peak {units.size(series.peak, unit)}{limit}"


def _brief(value: int) -> str:
    return units.size(value, units.brief_unit([value]))


def summary(live: Live) -> str:
    """Say the moment in one line: ``running 0:42   GPU:0   in use 11.2 GiB   peak 13.9 GiB   host 6.1 GiB``."""
    main = main_series(live)
    shown = _shown(live, main)
    numbers = [_numbers(series, first=series is main) for series in shown]
    return "   ".join((f"running {clock(live.seconds)}", *numbers))


def _words(live: Live, main: LiveSeries | None, near: bool) -> str:
    if live.waiting is not None:
        return f"{live.waiting} is full: TensorFlow is waiting up to 10 s for memory to be freed …"
    if live.warning:
        return live.warning
    if near and main is not None:
        return f"{device_name(main.name)} is close to its limit."
    return ""


def _device_of(live: Live, main: LiveSeries | None) -> LiveSeries | None:
    if main is None or not main.name.startswith("allocator:"):
        return None
    name = "device:" + device_name(main.name)
    return next((s for s in live.series if s.name == name), None)


def _limit_in_view(main: LiveSeries | None) -> int | None:
    """Give the limit where it is near enough to be drawn without flattening the curve."""
    if main is None or main.limit is None or main.peak < 0.3 * main.limit:
        return None
    return main.limit


def _top(live: Live, main: LiveSeries | None) -> float:
    device = _device_of(live, main)
    heights = [main.peak if main else 0, _limit_in_view(main) or 0, *(main.values if main else ())]
    heights += device.values if device else ()
    return 1.08 * max(1, *heights)


def _curve(series: LiveSeries | None) -> dict[str, Any] | None:
    if series is None or not series.times:
        return None
    return {"times": [round(t, 3) for t in series.times], "values": list(series.values)}
