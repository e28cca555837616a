"""Frozen values to JSON and back; a file that cannot be read gives one clear sentence."""

from __future__ import annotations

from typing import Any, TypeVar

from tf_mem_magic.core.recording import SCHEMA

T = TypeVar("T")


class UnreadableFileError(ValueError):
    """A saved report or recording that is truncated, damaged, or from a newer version."""


def encode(value: Any) -> bytes:
    """Give a frozen value as JSON."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def decode(data: bytes, kind: type[T]) -> T:
    """Read JSON made by :func:`encode` as ``kind``.

    Raises
    ------
    UnreadableFileError
        If the text is truncated or damaged, or was written by a newer version of tf_mem_magic.
    """
    import msgspec

    try:
        raw = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UnreadableFileError(f"the file is truncated or damaged ({error})") from error
    schema = _schema_of(raw)
    if schema is not None and schema > SCHEMA:
        raise UnreadableFileError(
            f"the file was written by a newer tf_mem_magic (format {schema}, this one reads {SCHEMA}): upgrade it"
        )
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise UnreadableFileError(f"the file is no report of tf_mem_magic ({error})") from error


def _schema_of(raw: Any) -> int | None:
    while isinstance(raw, dict):
        if isinstance(raw.get("schema"), int):
            return int(raw["schema"])
        raw = raw.get("recording")
    return None
