"""The one module that turns bytes and seconds into words."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_UNITS = {"B": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB, "KB": KIB, "MB": MIB, "GB": GIB, "TB": TIB}
_UNITS |= {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}


class Unit(NamedTuple):
    """A unit of size: ``size`` in bytes and its ``name``; ``digits``: as many significant digits at most."""

    size: int
    name: str
    digits: int | None = None

    def text(self, value: float) -> str:
        """Give ``value`` bytes in this unit, without the unit's name: ``"8.1"``."""
        if self.size == 1:
            return f"{value:.0f}"
        scaled = value / self.size
        if self.digits and round(abs(scaled), 1) >= 10 ** (self.digits - 1):
            return f"{scaled:.0f}"
        return f"{scaled:.1f}" if abs(scaled) < 1000 else f"{scaled:.0f}"


def unit_for(values: Iterable[float]) -> Unit:
    """Choose the one unit in which all of ``values`` (bytes) are shown: that of the largest.

    Within one comparison the unit never changes, so that numbers can be compared by eye.
    """
    largest = max((abs(v) for v in values), default=0)
    for size, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if largest >= size:
            return Unit(size, name)
    return Unit(1, "B")


def brief_unit(values: Iterable[float]) -> Unit:
    """Choose the unit for ``values`` (bytes) as :func:`unit_for` does, showing three significant digits at most."""
    known = [abs(v) for v in values]
    unit = unit_for(known)
    if max(known, default=0) >= 999.5 * unit.size and unit.size < TIB:
        unit = unit_for([unit.size * 1024])
    return unit._replace(digits=3)


def size(value: float | None, unit: Unit | None = None) -> str:
    """Give ``value`` bytes in words (``"8.1 GiB"``); an em dash where it is ``None``."""
    if value is None:
        return "—"
    unit = unit or unit_for([value])
    return f"{unit.text(value)} {unit.name}"


def size_range(low: float, high: float, unit: Unit | None = None) -> str:
    """Give a range of bytes in one unit: ``"7.0–8.1 GiB"``."""
    unit = unit or unit_for([low, high])
    first, last = unit.text(low), unit.text(high)
    return f"{first} {unit.name}" if first == last else f"{first}–{last} {unit.name}"


def duration(seconds: float) -> str:
    """Give a duration in words: ``"0.41 s"``, ``"12.3 s"``, ``"1:08"``, ``"2:03:04"``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def milliseconds(seconds: float) -> str:
    """Give a short duration in words: ``"2.13 ms"``, ``"213 ms"``."""
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def parse_size(text: str) -> int:
    """Read a size such as ``"512MiB"``, ``"1.5 GB"`` or ``"800m"`` as bytes.

    Powers of 1024 throughout, as TensorFlow and NVIDIA's tools count; a bare number is bytes.

    Raises
    ------
    ValueError
        With one sentence for the user, when the text is no positive size.
    """
    stripped = text.strip()
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = stripped[len(digits) :].strip().upper()
    try:
        value = Decimal(digits) * _UNITS[unit]
    except (KeyError, InvalidOperation):
        raise ValueError(f"{text!r} is not a size; write for example 512MiB or 1.5GiB") from None
    if not value.is_finite() or not 0 < value < 2**63:
        raise ValueError(f"{text!r} is not a usable size; it must be positive and below 8 EiB")
    return int(value)
