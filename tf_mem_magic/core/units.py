"""The one module that turns bytes, seconds and types into words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

_SPOKEN_AN = re.compile(r"[aei]|o(?!ne)|u(?!ni|se|net|ti)|nd[a-z]", re.IGNORECASE)
_LETTERS_AN = re.compile(r"[AEFHILMNORSX](?:[A-Z]|\d|$)")
"""Beginnings of names before which one says "an": of words, and of letters spoken one by one."""

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_UNITS = {"B": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB, "KB": KIB, "MB": MIB, "GB": GIB, "TB": TIB}
_UNITS |= {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}


class Unit(NamedTuple):
    """A unit of size: ``size`` in bytes and its ``name``."""

    size: int
    name: str

    def text(self, value: float) -> str:
        """Give ``value`` bytes in this unit, without the unit's name, with one decimal below a hundred: ``"8.1"``."""
        scaled = value / self.size
        return f"{scaled:.0f}" if self.size == 1 or round(abs(scaled), 1) >= 100 else f"{scaled:.1f}"

    def holds(self, value: float) -> bool:
        """Tell whether three digits are enough for ``value`` bytes in this unit."""
        return abs(value) < 999.5 * self.size


_SCALE = (Unit(1, "B"), Unit(KIB, "KiB"), Unit(MIB, "MiB"), Unit(GIB, "GiB"), Unit(TIB, "TiB"))


def brief_unit(values: Iterable[float]) -> Unit:
    """Choose the one unit in which all of ``values`` (bytes) are shown, with three digits at most: that of the largest.

    Within one comparison the unit never changes, so that numbers can be compared by eye.
    """
    largest = max((abs(v) for v in values), default=0)
    return next((unit for unit in _SCALE if unit.holds(largest)), _SCALE[-1])


def size(value: float | None, unit: Unit | None = None) -> str:
    """Give ``value`` bytes in words (``"8.1 GiB"``), three digits at most; an em dash where it is ``None``.

    A ``unit`` that would take more digits gives way to a larger one.
    """
    if value is None:
        return "—"
    unit = unit if unit is not None and unit.holds(value) else brief_unit([value])
    return f"{unit.text(value)} {unit.name}"


def size_range(low: float, high: float, unit: Unit | None = None) -> str:
    """Give a range of bytes in one unit: ``"7.0–8.1 GiB"``."""
    unit = unit if unit is not None and unit.holds(high) else brief_unit([low, high])
    first, last = unit.text(low), unit.text(high)
    return f"{first} {unit.name}" if first == last else f"{first}–{last} {unit.name}"


def duration(seconds: float) -> str:
    """Give a duration in words: ``"0.41 s"``, ``"12.3 s"``, ``"1:08"``, ``"2:03:04"``."""
    if round(seconds, 2) < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def milliseconds(seconds: float) -> str:
    """Give a short duration in words: ``"2.13 ms"``, ``"213 ms"``; one of a second or more as any other."""
    value = seconds * 1000
    if round(value) >= 1000:
        return duration(seconds)
    return (
        f"{value:.2f} ms" if round(value, 2) < 10 else f"{value:.1f} ms" if round(value, 1) < 100 else f"{value:.0f} ms"
    )


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


def named_kind(value: object) -> str:
    """Name what kind of thing a value is, with its article: ``"an int"``, ``"a list"``, ``"an LSTM"``."""
    name = type(value).__name__
    is_an = _LETTERS_AN.match(name) or _SPOKEN_AN.match(name)
    return f"{'an' if is_an else 'a'} {name}"
