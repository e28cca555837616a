"""What the text of a cell may do, told without parsing it: which cells matter to a question is asked of all of them.

Each answer is on the safe side: what is told not to be is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tf_mem_magic.notebook.text.cell import words_of

_IMPORTED = re.compile(
    r"import\b(?<!\wimport)\s*(?:\((.*?)\)[ \t]*(?=$|[;#\r])|((?:[^\n\\;]|\\\n)*))", re.DOTALL | re.MULTILINE
)
_FROM = re.compile(r"\bfrom\s+([\w.]+)\s+\Z")
_DEFINED = re.compile(r"(?:class|def)(?<!\wclass)(?<!\wdef)\s+([^\W\d]\w*)")
_IS_A_NAME = re.compile(r"=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])", re.MULTILINE)
_SET = re.compile(r"(?:^|[;:]|%time)[ \t]*([^\W\d]\w*)[ \t]*\Z", re.MULTILINE)
_BODY = re.compile(r"^((?:async[ \t]+def|def|class)[ \t]+\w+).*(?:\n(?:[ \t].*)?(?=\n|\Z))*", re.MULTILINE)
_EDGE = re.compile(r"\n(?:async[ \t]+def|def|class)[ \t]+(\w+)")
_OPENS = re.compile(r"\s*\(")
_LOOP = re.compile(r"\b(?:for|while)\b")
_GOES_ON_AT_THE_EDGE = ('"""', "'''", "\\\n")
"""What may let a function go on at the left edge of a cell."""
_UNSURE = re.compile(r"[\"'#]|\b(?:for|as|del|import|lambda)\b")
"""What a line may have before a name that makes it uncertain whether a call is open there."""
_WORD = re.compile(r"[^\W\d]\w*")
_AFTER = re.compile(r"[ \t]*[.(]")
"""What is behind a name that only reads what it holds."""
_DEFINES = re.compile(r"\b(?:def|class)[ \t]+\Z")
_PART = re.compile(r"\w")
_IMPORTS = re.compile(r"[ \t]*(?:from[ \t]+[\w.]+[ \t]+)?import\b[^;(\\#]*\Z")
"""What a line has before a name that it imports."""

_LONGEST = 1000
"""Of a line with more characters before a name nothing is told by its text: whoever asks has it parsed."""


@lru_cache(maxsize=4096)
def _imported(text: str) -> frozenset[str]:
    """Give the words of a text's imports."""
    return frozenset(word for pair in _IMPORTED.findall(text) for word in _WORD.findall(" ".join(pair)))


@lru_cache(maxsize=4096)
def import_parts(text: str) -> tuple[str, ...]:
    """List the parts of a text's imports, one for each name, with the module that it is imported from in front."""
    found = []
    for one in _IMPORTED.finditer(text):
        begins = _FROM.search(text, max(one.start() - _LONGEST, 0), one.start())
        module = begins[1] if begins is not None else ""
        found += [f"{module} {part.strip()}" for part in (one[1] or one[2]).split(",")]
    return tuple(found)


@lru_cache(maxsize=4096)
def imported_together(text: str) -> tuple[frozenset[str], ...]:
    """Give the words of each part of a text's imports, those of the module that it is imported from with them."""
    return tuple(frozenset(_WORD.findall(part)) - {"as"} for part in import_parts(text))


@lru_cache(maxsize=4096)
def given_names(text: str) -> frozenset[str]:
    """Give the names that a text may define, or make another name of something."""
    ends = (found.start() for found in _IS_A_NAME.finditer(text))
    aliases = (_SET.search(text, max(end - _LONGEST, 0), end) for end in ends)
    return frozenset((*_DEFINED.findall(text), *(alias[1] for alias in aliases if alias is not None)))


@lru_cache(maxsize=4096)
def _on_top(text: str) -> str:
    """Give a text without the functions and classes that begin at its left edge; their names stay.

    Where a line at the left edge stands inside of one, more is left than that.
    """
    return _BODY.sub(r"\1", text) if "def " in text or "class " in text else text


@dataclass(frozen=True, slots=True)
class DefinitionText:
    """A function or class that begins at the left edge of a cell: its name, and all words that may be in it."""

    name: str
    is_class: bool
    reads: frozenset[str]


@lru_cache(maxsize=4096)
def definitions_of(text: str) -> tuple[DefinitionText, ...]:
    """List the functions and classes of a cell, by its text alone."""
    if "def " not in text and "class " not in text:
        return ()
    whole = words_of(text) if any(mark in text for mark in _GOES_ON_AT_THE_EDGE) else None
    found = []
    for one in _BODY.finditer(text):
        name = one[1].split()[-1]
        reads = whole if whole is not None else frozenset(_WORD.findall(one[0][len(one[1]) :]))
        found.append(DefinitionText(name, one[1].startswith("class"), reads - {name}))
    return tuple(found)


def names_defined(text: str) -> frozenset[str]:
    """Give the names of the functions and classes that begin at the left edge of a cell."""
    return frozenset(_EDGE.findall("\n" + text)) if "def " in text or "class " in text else frozenset()


def times_called(name: str, text: str) -> int:
    """Count the places where a text may call a name: it stands before a bracket, and is not defined there."""
    count, at = 0, text.find(name)
    while at >= 0:
        end = at + len(name)
        if _OPENS.match(text, end) is not None and not (at and _PART.match(text, at - 1)):
            count += not _is_defined(text, at)
        at = text.find(name, end)
    return count


def calls_of(name: str, text: str) -> tuple[int, bool]:
    """Count the places where a text may call a name, and say whether one may run more than once.

    That may be so in a loop, and in a function or class.
    """
    calls = times_called(name, text)
    if not calls:
        return 0, False
    top = _on_top(text)
    return calls, _loops(top) or times_called(name, top) < calls


@lru_cache(maxsize=4096)
def _loops(text: str) -> bool:
    return ("for" in text or "while" in text) and _LOOP.search(text) is not None


def may_make_on_top(name: str, text: str) -> bool:
    """Whether a statement of the cell itself may set a name or change what it holds, none of a function or class."""
    return any(True for _ in _more_than_given(name, _on_top(text), alone=False))


@lru_cache(maxsize=4096)
def may_bind_on_top(name: str, text: str) -> bool:
    """Whether a statement of the cell itself may set a name, none of a function or class."""
    return any(True for _ in _more_than_given(name, _on_top(text), alone=True))


def _opens_a_call(before: str) -> bool:
    """Whether the innermost bracket that a part of a line leaves open is that of a call, for certain."""
    closed, ends = 0, len(before)
    while (at := before.rfind("(", 1, ends)) > 0:
        closed += before.count(")", at, ends)
        if not closed:
            return (before[at - 1].isalnum() or before[at - 1] == "_") and _UNSURE.search(before) is None
        closed, ends = closed - 1, at
    return False


@lru_cache(maxsize=256)
def _whole(name: str) -> re.Pattern[str]:
    """Give what finds a name that is no part of a longer one, and not behind a dot: the name first, which is fast."""
    return re.compile(rf"{name}(?!\w)(?<![.\w]{name})")


def _standing(name: str, text: str) -> Iterator[int]:
    """Yield where a name begins in a text: whole words, none of them behind a dot."""
    return (found.start() for found in _whole(name).finditer(text))


def _is_defined(text: str, at: int) -> bool:
    """Whether ``def`` or ``class`` stands before a place."""
    return text[at - 1 : at].isspace() and _DEFINES.search(text, max(at - 80, 0), at) is not None


def _more_than_given(name: str, text: str, *, alone: bool) -> Iterator[tuple[int, str]]:
    """Yield where a name stands but as an argument of a call, where nothing is set, and the line before it.

    It is one where the line opens a call before it that it has not closed; what is written in a way that this cannot
    tell counts as more. With ``alone`` only what stands not before a dot or a bracket, or is defined.
    """
    for at in _standing(name, text):
        end = at + len(name)
        if not alone or _AFTER.match(text, end) is None or _is_defined(text, at):
            before = _line_before(text, at)
            if before is None:
                yield at, ""
            elif not _opens_a_call(before) or text[end : end + 4].lstrip().startswith(":="):
                yield at, before


def may_bind(name: str, text: str) -> bool:
    """Whether a text may set a name: it stands alone somewhere, not before a dot or a bracket, or is defined."""
    return any(_AFTER.match(text, at + len(name)) is None or _is_defined(text, at) for at in _standing(name, text))


def may_set(name: str, text: str) -> bool:
    """Whether a text may set a name of the notebook, or an attribute of it, otherwise than by importing it."""
    whole, text = text, text if "global" in text else _on_top(text)
    if _changed(name).search(text) is not None:
        return True
    if whole is not text and not may_bind_on_top(name, whole):
        return False
    found = [before for _, before in _more_than_given(name, text, alone=True) if not _IMPORTS.match(before)]
    if not found or "import" not in text or name not in _imported(text):
        return bool(found)
    return any(True for _ in _more_than_given(name, _IMPORTED.sub("", text), alone=True))


@lru_cache(maxsize=256)
def _changed(name: str) -> re.Pattern[str]:
    """Give what finds a name of which an attribute is set."""
    return re.compile(rf"{name}(?<![.\w]{name})[ \t]*\.(?:[^\n=()]{{0,{_LONGEST}}}=(?!=)|[^\n=()]{{{_LONGEST}}})")


def may_import(name: str, text: str) -> bool:
    """Whether a text has a name in an import."""
    if "import" not in text:
        return False
    places = tuple(found.start() for found in _word(name).finditer(text))
    lines = (_line_before(text, at) for at in places)
    if any(line is not None and _IMPORTS.match(line) for line in lines):
        return True
    return any(_may_go_on_from_an_import(text, at) for at in places) and name in _imported(text)


@lru_cache(maxsize=256)
def _word(name: str) -> re.Pattern[str]:
    """Give what finds a name that is no part of a longer one."""
    return re.compile(rf"{name}(?!\w)(?<!\w{name})")


def _line_before(text: str, at: int) -> str | None:
    """Give what stands before a place in its line; None where that is long."""
    begins = text.rfind("\n", max(at - _LONGEST, 0), at) + 1
    return text[begins:at] if begins or at < _LONGEST else None


def _may_go_on_from_an_import(text: str, at: int) -> bool:
    """Whether an ``import`` before a place may not have ended there: in its line, or where that opens a bracket."""
    last = text.rfind("import", max(at - _LONGEST, 0), at)
    if last < 0:
        return at > _LONGEST
    line, ended, _ = text[last + 6 : at].partition("\n")
    return not ended or "(" in line or "\\" in line


def may_name(name: str, text: str) -> bool:
    """Whether a text may import or define a name, or make it another name of something."""
    return may_import(name, text) or may_give(name, text)


def may_give(name: str, text: str) -> bool:
    """Whether a text may define a name, or make it another name of something."""
    written = (f"{name} ", f"{name}=", f"{name}\t", f"{name}\\", f"def {name}", f"class {name}")
    return any(one in text for one in written) and _given(name).search(text) is not None


@lru_cache(maxsize=256)
def _given(name: str) -> re.Pattern[str]:
    """Give what finds the definition of a name, or a statement that makes it another name of something."""
    alias = rf"(?:^|[;:]|%time)[ \t]*{name}[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])"
    return re.compile(rf"\b(?:class|def)\s+{name}\b|{alias}", re.MULTILINE)
