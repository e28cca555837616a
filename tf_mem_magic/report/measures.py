"""Which numbers a report is about, in which unit, and under which names."""

from __future__ import annotations

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Recording, Series
from tf_mem_magic.core.units import Unit, brief_unit, duration, size

OFF_SCALE = 4
"""A limit this many times above the highest value is named beside a chart instead of drawn: it would flatten it."""


def focus(outcome: Outcome) -> Series | None:
    """Find the series that the report is about: that of the device that ran out, else the fullest one."""
    recording, diagnosis = outcome.recording, outcome.diagnosis
    if outcome.comparison is not None and outcome.comparison.after is not None:
        return outcome.comparison.after
    if diagnosis is None:
        return _that_mattered(recording)
    if diagnosis.device == "host":
        return recording.get("host:rss") or recording.main
    names = (f"{kind}:{diagnosis.device}" for kind in ("allocator", "process", "device"))
    found = [series for series in map(recording.get, names) if series is not None]
    return found[0] if found else recording.main


def _that_mattered(recording: Recording) -> Series | None:
    """Find the series of a run that went well: the device's, or the host's where the device was idle beside it."""
    main, host = recording.main, recording.get("host:rss")
    if main is None or host is None or main is host or not main.limit:
        return main
    trained = any(model.steps > (model.steps_before or 0) for model in recording.facts.models)
    device, own = _grown(recording, main), _grown(recording, host)
    idle = device <= _IDLE * main.limit and not trained and not recording.facts.batches
    return host if idle and own >= max(_MUCH, _TIMES * device) else main


_IDLE = 0.01
"""Share of its limit by which a device's bytes in use may grow and still be called idle."""

_MUCH = 64 << 20
"""Bytes by which host memory must grow beside an idle device to be what a report is about."""

_TIMES = 10
"""How many times what the device took the host must have taken."""


def _grown(recording: Recording, series: Series) -> int:
    """Give the bytes by which a series rose above its start; 0 where that is not known."""
    start = dict(recording.before).get(series.name, series.values[0] if series.values else None)
    return max(series.peak - start, 0) if series.peak is not None and start is not None else 0


def limit_of(outcome: Outcome) -> int | None:
    """Give the limit in bytes that the report's main series has to stay under; None where nobody tells."""
    series, diagnosis, comparison = focus(outcome), outcome.diagnosis, outcome.comparison
    known = (
        diagnosis.limit if diagnosis else None,
        comparison.limit if comparison else None,
        series.limit if series else None,
        comparison.before.limit if comparison and comparison.before else None,
    )
    return next((limit for limit in known if limit is not None), None)


def unit_of(outcome: Outcome) -> Unit:
    """Choose the one unit of the report, so that all its numbers about one device can be compared by eye."""
    series, diagnosis, comparison = focus(outcome), outcome.diagnosis, outcome.comparison
    values = [limit_of(outcome), series.peak if series else None]
    if diagnosis is not None:
        values += [diagnosis.in_use]
    if comparison is not None and comparison.before is not None:
        values += [comparison.before.peak]
    return brief_unit([value for value in values if value is not None])


def amount(value: float | None, unit: Unit | None = None) -> str:
    """Give bytes in words, three digits at most; never "0.0" for something that is there."""
    if value is None:
        return "—"
    unit = unit or brief_unit([value])
    if value and not float(unit.text(value)):
        return f"< 0.1 {unit.name}"
    return size(value, unit)


def of_limit(value: int, limit: int | None, unit: Unit) -> str:
    """Give a value beside its limit in one unit: ``"13.9 of 14.7 GiB"``."""
    if limit is None:
        return amount(value, unit)
    return f"{amount(value, unit).removesuffix(f' {unit.name}')} of {amount(limit, unit)}"


def took(seconds: float) -> str:
    """Give a duration in words, "< 0.01 s" for what is shorter."""
    return "< 0.01 s" if seconds < 0.005 else duration(seconds)


def quantity(series: Series) -> str:
    """Name what a series measures: ``"in use on GPU:0"``."""
    if series.kind == "host":
        return "host memory of this process"
    words = {
        "allocator": "in use on {}",
        "pool": "pool on {}",
        "process": "held by this process on {}",
        "device": "device used on {}, all processes",
    }
    return words.get(series.kind, "{}").format(series.device or series.name)


def peak_words(series: Series, unit: Unit | None = None, limit: int | None = None, when: bool = True) -> str:
    """Say a series' peak: ``"peak 13.9 of 14.7 GiB in use on GPU:0 at 12.1 s (95 %)"``; a sampled one with ≥."""
    limit = limit if limit is not None else series.limit
    if series.peak is None:
        return f"{quantity(series)}: not measured"
    unit = unit or brief_unit([series.peak, limit or 0])
    bound = "≥ " if series.peak_basis == "sampled" else ""
    share = f" ({bound}{100 * series.peak / limit:.0f} %)" if limit else ""
    moment = peak_moment(series) if when else ""
    number = of_limit(series.peak, limit, unit)
    return f"peak {bound}{number} {quantity(series)}{f' {moment}' if moment else ''}{share}"


def peak_moment(series: Series) -> str:
    """Say when the peak was: ``"at 12.1 s"``; empty for a counter's peak that no sample came near."""
    if series.peak is None or series.peak_time is None:
        return ""
    seen = max(series.values)
    if seen < 0.9 * series.peak:
        return ""
    return f"{'at' if seen >= series.peak else 'near'} {took(series.peak_time)}"


def capital(text: str) -> str:
    """Begin ``text`` with a capital letter, the rest as it is."""
    return text[:1].upper() + text[1:]
