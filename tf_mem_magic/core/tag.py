"""The ``%%tfmem`` line of a cell: find it, and take it out so that the cell runs as if it were not there."""

from __future__ import annotations

TAG = "%%tfmem"
COMMAND = "%tfmem"


def find_tag(raw_cell: str) -> str | None:
    """Give the options text of the cell's ``%%tfmem`` line; None where the cell has none.

    The tag may be any of the leading ``%%`` lines: ``%%time`` may stand above it.
    """
    for line in raw_cell.lstrip().splitlines():
        if not line.startswith("%%"):
            return None
        if _is_tag(line):
            return line[len(TAG) :].strip()
    return None


def is_command(raw_cell: str) -> bool:
    """Tell whether the cell holds ``%tfmem`` commands alone, which are no work of the person's own."""
    lines = [line.strip() for line in raw_cell.splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    return bool(code) and all(line.split()[0] == COMMAND for line in code)


def strip_tag(lines: list[str]) -> list[str]:
    """Turn the leading ``%%tfmem`` line into a comment, or drop it where another ``%%magic`` follows.

    An input transformer: pure, idempotent, called more than once on a cell. The comment keeps line numbers right;
    a magic that follows must be the cell's first line, so there the tag goes altogether. Where the tag asks for help,
    nothing of the cell is run.
    """
    if not lines or not _is_tag(lines[0]):
        return lines
    if {"-h", "--help"} & set(lines[0][len(TAG) :].split()):
        return ["# " + lines[0][2:].rstrip("\r\n") + "\n"]
    rest = lines[1:]
    following = next((i for i, line in enumerate(rest) if line.strip()), None)
    if following is not None and rest[following].startswith("%%"):
        return rest[following:]
    return ["# " + lines[0][2:].rstrip("\r\n") + "\n", *rest]


def dropped_lines(raw_cell: str) -> int:
    """Count the cell's leading lines that are missing from the code Python compiles.

    The line that a traceback names, plus this, is the line in the cell (the first being 1).
    """
    lines = raw_cell.lstrip().splitlines()
    magics = 0
    while magics < len(lines) and (lines[magics].startswith("%%") or not lines[magics].strip()):
        if _is_tag(lines[magics]) and not _magic_follows(lines[magics + 1 :]):
            return magics
        magics += 1
    return magics


def _is_tag(line: str) -> bool:
    return line.startswith(TAG) and (len(line.rstrip()) == len(TAG) or line[len(TAG)].isspace())


def _magic_follows(rest: list[str]) -> bool:
    following = next((line for line in rest if line.strip()), "")
    return following.startswith("%%")
