"""Frozen values to JSON and back: what cannot be written is left out and said, what cannot be read is one sentence."""

from __future__ import annotations

import os
import stat
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tf_mem_magic.core.recording import SCHEMA, Recording
from tf_mem_magic.core.writable import writable

T = TypeVar("T")

MOST_BYTES = 256 << 20
"""A longer file is none of ours: the longest that a report can fill is a few megabytes."""

_NAMED = 4


class UnreadableFileError(ValueError):
    """A saved report or recording that is truncated, damaged, or from a newer version."""


def encode(value: Any, indent: int | None = 1) -> bytes:
    """Give a frozen value as JSON, indented to be read by people (None: as short as it can be).

    What JSON or :func:`decode` cannot hold (numbers of more than 64 bits, not a number, lone surrogates, texts of many
    megabytes) is left out or replaced; the ``notices`` of a value that has some say so.
    """
    import msgspec

    kept, left_out = writable(value)
    if left_out and is_dataclass(kept) and not isinstance(kept, type) and "notices" in {f.name for f in fields(kept)}:
        kept = replace(kept, notices=(*getattr(kept, "notices", ()), _sentence(left_out)))
    data = msgspec.json.encode(kept)
    return data if indent is None else msgspec.json.format(data, indent=indent)


def decode(data: bytes, kind: type[T]) -> T:
    """Read JSON made by :func:`encode` as ``kind``.

    Raises
    ------
    UnreadableFileError
        If the text is truncated, damaged or contradicts itself, or was written by a newer version of tf_mem_magic.
    """
    import msgspec

    try:
        raw = msgspec.json.decode(data)
    except RecursionError:
        raise UnreadableFileError("the file is damaged (it is nested too deeply)") from None
    except (msgspec.MsgspecError, ValueError, MemoryError) as error:  # msgspec's own are ValueErrors since 0.20
        raise UnreadableFileError(f"the file is truncated or damaged ({error})") from error
    schema = _schema_of(raw)
    if schema is not None and schema > SCHEMA:
        raise UnreadableFileError(
            f"the file was written by a newer tf_mem_magic (format {schema}, this one reads {SCHEMA}): upgrade it"
        )
    try:
        value = msgspec.convert(raw, kind)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise UnreadableFileError(f"the file is no report of tf_mem_magic ({error})") from error
    recording = value if isinstance(value, Recording) else getattr(value, "recording", None)
    if isinstance(recording, Recording) and recording.contradiction:
        raise UnreadableFileError(f"the file is damaged ({recording.contradiction})")
    return value


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a whole file of bounded length.

    Raises
    ------
    OSError
        If it cannot be read.
    UnreadableFileError
        If it is no plain file, or too long.
    """
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UnreadableFileError(f"the file is no report of tf_mem_magic (it is longer than {most} bytes)")
    return data


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to be read; a pipe or a device may never end.

    Raises
    ------
    OSError
        If it cannot be opened.
    UnreadableFileError
        If it is something else.
    """
    file = open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise UnreadableFileError(f"{path} is no plain file")


def _sentence(left_out: tuple[str, ...]) -> str:
    named = ", ".join(left_out[:_NAMED]) + (f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else "")
    return f"Left out of the file, because it cannot hold such values: {named}."


def _schema_of(raw: Any) -> int | None:
    while isinstance(raw, dict):
        if isinstance(raw.get("schema"), int):
            return int(raw["schema"])
        raw = raw.get("recording")
    return None
