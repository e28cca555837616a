from __future__ import annotations

import pytest

from tf_mem_magic.core.tag import dropped_lines, find_tag, is_command, strip_tag


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%tfmem\nx = 1", ""),
        ("%%tfmem -o r\nx = 1", "-o r"),
        ("\n\n%%tfmem -q\nx = 1", "-q"),
        ("%%time\n%%tfmem -o r\nx = 1", "-o r"),
        ("x = 1\n%%tfmem\n", None),
        ("%%tfmemory\nx", None),
        ("# %%tfmem\nx", None),
        ("%tfmem on", None),
        ("", None),
    ],
)
def test_the_tag_is_found_among_the_leading_magics_only(cell, expected):
    assert find_tag(cell) == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%tfmem apply 1", True),
        ("# take the first\n\n  %tfmem apply 1\n%tfmem last\n", True),
        ("%tfmem apply 1\nmodel.fit(x)", False),
        ("%%tfmem\nmodel.fit(x)", False),
        ("%tfmemory\n", False),
        ("# nothing", False),
        ("", False),
    ],
)
def test_a_cell_of_commands_alone_is_told_from_work(cell, expected):
    assert is_command(cell) is expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%tfmem -o r\nx = 1\n", "# tfmem -o r\nx = 1\n"),
        ("%%tfmem\n%%time\nx\n", "%%time\nx\n"),
        ("%%tfmem\n\n%%bash\nls\n", "%%bash\nls\n"),
        ("%%tfmem", "# tfmem\n"),
        ("x = 1\n", "x = 1\n"),
    ],
)
def test_the_tag_becomes_a_comment_or_makes_room_for_the_next_magic(cell, expected):
    assert "".join(strip_tag(cell.splitlines(keepends=True))) == expected


def test_stripping_twice_is_stripping_once():
    once = strip_tag(["%%tfmem\n", "x\n"])
    assert strip_tag(once) == once


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%tfmem\ncode", 0),
        ("%%tfmem\n%%time\ncode", 2),
        ("%%time\n%%tfmem\ncode", 1),
        ("%%tfmem\n\n%%time\ncode", 3),
        ("code", 0),
    ],
)
def test_lines_that_python_never_sees_are_counted(cell, expected):
    assert dropped_lines(cell) == expected
