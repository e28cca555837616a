"""What the text of a cell may do, told without parsing it: which cells matter to a question is asked of all of them.

Each answer is on the safe side: what is told not to be is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from tf_mem_magic.notebook.text.cell import words_of

_IMPORTED = re.compile(r"\bimport\b\s*(?:\((.*?)\)[ \t]*(?=$|[;#\r])|((?:[^\n\\;]|\\\n)*))", re.DOTALL | re.MULTILINE)
_FROM_IMPORTED = re.compile(rf"(?:\bfrom\s+([\w.]+)\s+)?{_IMPORTED.pattern}", re.DOTALL | re.MULTILINE)
_DEFINED = re.compile(r"\b(?:class|def)\s+([^\W\d]\w*)")
_ALIAS = re.compile(
    r"(?:^|[;:]|%time)[ \t]*([^\W\d]\w*)[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])", re.MULTILINE
)
_BODY = re.compile(r"^((?:async[ \t]+def|def|class)[ \t]+\w+).*(?:\n(?:[ \t].*)?(?=\n|\Z))*", re.MULTILINE)
_CALL = re.compile(r"(\b(?:def|class)[ \t]+)?\b([^\W\d]\w*)\s*\(")
_LOOPS = frozenset({"for", "while"})
_GOES_ON_AT_THE_EDGE = ('"""', "'''", "\\\n")
"""What may let a function go on at the left edge of a cell."""
_UNSURE = re.compile(r"[\"'#]|\b(?:for|as|del|import|lambda)\b")
"""What a line may have before a name that makes it uncertain whether a call is open there."""
_WORD = re.compile(r"[^\W\d]\w*")


@lru_cache(maxsize=4096)
def _imported(text: str) -> frozenset[str]:
    """Give the words of a text's imports."""
    return frozenset(word for pair in _IMPORTED.findall(text) for word in _WORD.findall(" ".join(pair)))


@lru_cache(maxsize=4096)
def import_parts(text: str) -> tuple[str, ...]:
    """List the parts of a text's imports, one for each name, with the module that it is imported from in front."""
    return tuple(
        f"{module} {part.strip()}"
        for module, bracket, line in _FROM_IMPORTED.findall(text)
        for part in (bracket or line).split(",")
    )


@lru_cache(maxsize=4096)
def imported_together(text: str) -> tuple[frozenset[str], ...]:
    """Give the words of each part of a text's imports, those of the module that it is imported from with them."""
    return tuple(frozenset(_WORD.findall(part)) - {"as"} for part in import_parts(text))


@lru_cache(maxsize=4096)
def given_names(text: str) -> frozenset[str]:
    """Give the names that a text may define, or make another name of something."""
    return frozenset((*_DEFINED.findall(text), *_ALIAS.findall(text)))


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


@lru_cache(maxsize=4096)
def calls_in(text: str) -> Counter[str]:
    """Count the places where a text may call each name: it stands before a bracket, and is not defined there."""
    return Counter(name for defined, name in _CALL.findall(text) if not defined)


def may_be_called_often(name: str, text: str) -> bool:
    """Whether a text may call a name in a loop, or in a function or class, which may run more than once."""
    calls, top = calls_in(text)[name], _on_top(text)
    return calls > 0 and (calls_in(top)[name] < calls or not _LOOPS.isdisjoint(words_of(top)))


def may_make_on_top(name: str, text: str) -> bool:
    """Whether a statement of the cell itself may set a name or change what it holds, none of a function or class."""
    top = _on_top(text)
    return name in words_of(top) and _is_more_than_given(_word(name), top)


def may_bind_on_top(name: str, text: str) -> bool:
    """Whether a statement of the cell itself may set a name, none of a function or class."""
    top = _on_top(text)
    return name in words_of(top) and _is_more_than_given(_alone(name), top)


@lru_cache(maxsize=256)
def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}\b")


def _opens_a_call(before: str) -> bool:
    """Whether the innermost bracket that a part of a line leaves open is that of a call, for certain."""
    closed = 0
    for at in range(len(before) - 1, 0, -1):
        if before[at] == ")":
            closed += 1
        elif before[at] == "(":
            if not closed:
                return (before[at - 1].isalnum() or before[at - 1] == "_") and _UNSURE.search(before) is None
            closed -= 1
    return False


def _is_more_than_given(places: re.Pattern[str], text: str) -> bool:
    """Whether a name stands anywhere but as an argument of a call, where nothing is set.

    It is one where the line opens a call before it that it has not closed; what is written in a way that this cannot
    tell counts as more.
    """
    for found in places.finditer(text):
        before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if not _opens_a_call(before) or text[found.end() : found.end() + 4].lstrip().startswith(":="):
            return True
    return False


def may_bind(name: str, text: str) -> bool:
    """Whether a text may set a name: it stands alone somewhere, not before a dot or a bracket, or is defined."""
    return _alone(name).search(text) is not None


@lru_cache(maxsize=256)
def _alone(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}\b(?![ \t]*[.(])|\b(?:def|class)\s+{name}\b")


def may_set(name: str, text: str) -> bool:
    """Whether a text may set a name of the notebook, or an attribute of it, otherwise than by importing it."""
    text = text if "global" in text else _on_top(text)
    rest = _IMPORTED.sub("", text) if "import" in text and name in _imported(text) else text
    return _is_more_than_given(_alone(name), rest) or _changed(name).search(rest) is not None


@lru_cache(maxsize=256)
def _changed(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}[ \t]*\.[^\n=()]*=(?!=)")


def may_import(name: str, text: str) -> bool:
    """Whether a text has a name in an import."""
    return "import" in text and name in _imported(text)


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
