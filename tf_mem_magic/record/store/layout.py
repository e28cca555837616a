"""The layout of a recording file: numbers by name, texts of bounded length, a timeline for each series."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from tf_mem_magic.core.jsonio import UnreadableFileError, open_plain
from tf_mem_magic.core.timeline import Timeline, bytes_needed

MAGIC = b"TFMEMREC"
VERSION = 2
SERIES = 24
"""Series that a file has room for; further ones are kept in memory only."""

_KIB = 1024
MISSING = -1
NAME_SIZE = 1024
"""Bytes that the notebook's name may take."""

# name -> (offset, format). A number that is missing is -1.
_HEAD = {
    "magic": (0, "8s"),
    "version": (8, "<q"),
    "pid": (16, "<q"),
    "started": (24, "<d"),
    "seconds": (32, "<d"),
    "status": (40, "<q"),
    "locked": (48, "<q"),
    "tagged": (56, "<q"),
    "execution_count": (64, "<q"),
    "truncated": (72, "<q"),
    "series": (80, "<q"),
    "facts": (88, "<q"),
    "calls": (96, "<q"),
    "cell_id": (128, "64s"),
    "notebook": (192, f"{NAME_SIZE}s"),
}
_SLOTS_AT, _SLOT_SIZE = 4 * _KIB, 256
_SLOT = {
    "name": (0, "128s"),
    "peak": (128, "<q"),
    "peak_basis": (136, "<q"),
    "limit": (144, "<q"),
    "limit_basis": (152, "<q"),
    "before": (160, "<q"),
    "after": (168, "<q"),
}
# name -> size. Each text is its length (8 bytes), then UTF-8. What is written again and again has two places: the head
# says which one is whole, so that a process killed while it writes leaves the text before.
_SIZES = {
    "source": 64 * _KIB,
    "notes": 64 * _KIB,
    "dumps": 64 * _KIB,
    "earlier": 384 * _KIB,
    "facts0": 160 * _KIB,
    "facts1": 160 * _KIB,
    "calls0": 16 * _KIB,
    "calls1": 16 * _KIB,
}
_TEXTS_AT = 12 * _KIB
TEXTS = {
    name: (_TEXTS_AT + sum(list(_SIZES.values())[:index]), size) for index, (name, size) in enumerate(_SIZES.items())
}
_TIMELINES_AT = _TEXTS_AT + sum(_SIZES.values())
FILE_SIZE = _TIMELINES_AT + SERIES * bytes_needed()


class Page:
    """The bytes of a recording file by name: numbers of the head and of a series' slot, texts, timelines."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def get(self, name: str) -> Any:
        """Give a number or name of the head."""
        offset, form = _HEAD[name]
        return struct.unpack_from(form, self.view, offset)[0]

    def put(self, name: str, value: Any) -> None:
        """Write one."""
        offset, form = _HEAD[name]
        struct.pack_into(form, self.view, offset, value)

    def get_of(self, slot: int, name: str) -> Any:
        """Give a number or name of a series' slot."""
        offset, form = _SLOT[name]
        return struct.unpack_from(form, self.view, _SLOTS_AT + slot * _SLOT_SIZE + offset)[0]

    def put_of(self, slot: int, name: str, value: Any) -> None:
        """Write one of a slot."""
        offset, form = _SLOT[name]
        struct.pack_into(form, self.view, _SLOTS_AT + slot * _SLOT_SIZE + offset, value)

    def text(self, name: str) -> str:
        """Give a text.

        Raises
        ------
        UnreadableFileError
            If its length cannot be right.
        """
        offset, size = TEXTS[name]
        (length,) = struct.unpack_from("<q", self.view, offset)
        if not 0 <= length <= size - 8:
            raise UnreadableFileError("the recording is damaged")
        return bytes(self.view[offset + 8 : offset + 8 + length]).decode("utf-8", "replace")

    def put_text(self, name: str, data: bytes) -> bool:
        """Write a text; False, and nothing is written, where it does not fit."""
        offset, size = TEXTS[name]
        if len(data) > size - 8:
            return False
        struct.pack_into("<q", self.view, offset, 0)
        self.view[offset + 8 : offset + 8 + len(data)] = data
        struct.pack_into("<q", self.view, offset, len(data))
        return True

    def newest(self, name: str) -> str:
        """Give the newest of a text that has two places; empty: it was never written."""
        which = self.get(name)
        if which not in (0, 1, 2):
            raise UnreadableFileError("the recording is damaged")
        return self.text(f"{name}{which - 1}") if which else ""

    def put_newest(self, name: str, data: bytes) -> bool:
        """Write it anew; False, and nothing is written, where it does not fit."""
        other = 0 if self.get(name) == 2 else 1
        fits = self.put_text(f"{name}{other}", data)
        if fits:
            self.put(name, other + 1)
        return fits

    def timeline(self, slot: int) -> Timeline:
        """Give the timeline of a slot."""
        at = _TIMELINES_AT + slot * bytes_needed()
        return Timeline(self.view[at : at + bytes_needed()])


def read_page(path: Path) -> Page:
    """Read a whole recording file, checked to be one.

    Raises
    ------
    UnreadableFileError
        If the file cannot be read, is truncated or damaged, is no recording, or comes from a newer version.
    """
    return _read(path, FILE_SIZE + 1)


def read_head(path: Path) -> Page:
    """Read the head of a recording file only: its numbers and names; else as :func:`read_page`."""
    return _read(path, _SLOTS_AT)


def _read(path: Path, most: int) -> Page:
    try:
        with open_plain(path) as file:
            data, size = file.read(most), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UnreadableFileError(f"the recording cannot be read ({error.strerror}: {path})") from error
    if not data.startswith(MAGIC):
        raise UnreadableFileError("the file is no recording of tf_mem_magic")
    if len(data) < 16:
        raise UnreadableFileError("the recording is truncated")
    page = Page(memoryview(data))
    version = page.get("version")
    if version > VERSION:
        raise UnreadableFileError(
            f"the file was written by a newer tf_mem_magic (format {version}, this one reads {VERSION}): upgrade it"
        )
    if version < VERSION:
        raise UnreadableFileError(
            f"the recording was written by an older tf_mem_magic (format {version}, this one reads {VERSION})"
        )
    if size < FILE_SIZE:
        raise UnreadableFileError(f"the recording is truncated ({size} of {FILE_SIZE} bytes)")
    if size > FILE_SIZE:
        raise UnreadableFileError("the recording is damaged")
    return page
