"""A cell with IPython's syntax as plain Python of the same lines and columns, so that it can be parsed.

Edits are made in the cell's own text, at positions found in the masked one: undoing the mask is never needed, and
what no edit touches stays as it was, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RUNS_PYTHON = frozenset({"tfmem", "time", "timeit", "capture", "prun", "memit", "wandb", "snakeviz", "scalene"})
"""Cell magics whose body is this kernel's Python."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_STRING_START = re.compile(r"(?i)(?:[rbuft]|br|rb|fr|rf|tr|rt)?('''|\"\"\"|'|\")")
_ASSIGN = re.compile(r"[^=!<>:+\-*/%&|^@]=[ \t]*([!%])")
_UNUSUAL = re.compile(r"\?|=[ \t]*[!%]|^\s*[%!,;/]", re.MULTILINE)
"""What every line has that only IPython understands, and few others have."""
_TIME = re.compile(r"[ \t]*%time (?=[ \t]*\S)")


@dataclass(frozen=True, slots=True)
class Masked:
    r"""A cell made readable for Python.

    ``python`` has the lines and columns of the cell, with ``\n`` between lines; ``hidden`` are the lines (from 1)
    that were replaced; ``skipped`` the blank lines at the top, which IPython drops before it counts lines.
    """

    python: str
    hidden: frozenset[int] = frozenset()
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class NotPython:
    """A cell that cannot be read as Python, and the reason as part of a sentence."""

    reason: str


def split_lines(text: str) -> list[str]:
    r"""Split at the line ends that Python knows (``\n``, ``\r\n``, ``\r``), keeping them."""
    return [line for line in _LINE.findall(text) if line]


def mask(source: str) -> Masked | NotPython:
    """Replace magics, shell lines and help requests of a cell by Python statements of the same lines."""
    lines = [line.rstrip("\r\n") for line in split_lines(source)]
    first = next((number for number, line in enumerate(lines) if line and not line.isspace()), None)
    if first is None:
        return NotPython("the cell is empty")
    hidden: set[int] = set()
    start = first
    while start < len(lines) and lines[start].startswith("%%"):
        name = (lines[start][2:].split() or [""])[0]
        if name not in RUNS_PYTHON:
            return NotPython(f"the cell is not read as Python under %%{name}")
        lines[start] = ""
        hidden.add(start + 1)
        start += 1
    if _UNUSUAL.search("\n".join(lines[start:])):
        _mask_lines(lines, start, hidden)
    return Masked("".join(f"{line}\n" for line in lines), frozenset(hidden), first)


def _mask_lines(lines: list[str], start: int, hidden: set[int]) -> None:
    state = _Lexer()
    number = start
    while number < len(lines):
        line = lines[number]
        if state.between_statements:
            timed = _TIME.match(line)
            if timed:
                line = lines[number] = line.replace("%time ", "if 1: ", 1)
            replacement = _replacement(line)
            if replacement is not None:
                number = _hide(lines, number, replacement, hidden)
                continue
        state.read(line)
        number += 1


def _hide(lines: list[str], number: int, replacement: str, hidden: set[int]) -> int:
    more = lines[number].endswith("\\")
    lines[number] = replacement
    hidden.add(number + 1)
    number += 1
    while more and number < len(lines):
        more = lines[number].endswith("\\")
        lines[number] = ""
        hidden.add(number + 1)
        number += 1
    return number


def _replacement(line: str) -> str | None:
    stripped = line.lstrip()
    indent = line[: len(line) - len(stripped)]
    if stripped[:1] in ("%", "!", "?", ",", ";", "/"):
        return f"{indent}pass"
    code = _code_of(line)
    assigned = _ASSIGN.search(code)
    if assigned and not any(bracket in code[: assigned.start()] for bracket in "({"):
        return line[: assigned.end() - 1] + "None"
    if code.rstrip().endswith("?"):
        return f"{indent}pass"
    return None


def _code_of(line: str) -> str:
    """Blank strings and comments of one line, keeping its columns."""
    lexer = _Lexer()
    return lexer.read(line)


class _Lexer:
    """Follows strings, comments, brackets and continuations from line to line."""

    def __init__(self) -> None:
        self.quote = ""
        self.depth = 0
        self.continued = False

    @property
    def between_statements(self) -> bool:
        return not self.quote and not self.depth and not self.continued

    def read(self, line: str) -> str:
        """Read one line without its end; give it with strings and comments blanked."""
        code: list[str] = []
        at = 0
        while at < len(line):
            if self.quote:
                at = self._in_string(line, at, code)
                continue
            char = line[at]
            if char == "#":
                code.append(" " * (len(line) - at))
                break
            if char in "'\"":
                opened = _STRING_START.match(line, at)
                self.quote = opened.group(1) if opened else char
                code.append("_" * len(self.quote))
                at += len(self.quote)
                continue
            self.depth += (char in "([{") - (char in ")]}")
            self.depth = max(self.depth, 0)
            code.append(char)
            at += 1
        self.continued = line.endswith("\\") and (bool(self.quote) or "".join(code).endswith("\\"))
        if len(self.quote) == 1 and not self.continued:
            self.quote = ""
        return "".join(code)

    def _in_string(self, line: str, at: int, code: list[str]) -> int:
        if line[at] == "\\":
            code.append("__"[: len(line) - at])
            return at + 2
        if line.startswith(self.quote, at):
            code.append("_" * len(self.quote))
            at += len(self.quote)
            self.quote = ""
            return at
        code.append("_")
        return at + 1
