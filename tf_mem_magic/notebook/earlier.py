"""The cells that ran before: looked at as text first, so that a question parses only those that can matter to it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar, cast

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.text.mask import NotPython

T = TypeVar("T")
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

_MOST_QUESTIONS = 4096
"""More answers than this are not kept of one list of cells."""
_MOST_LISTS = 4
"""Of more notebooks than this nothing is kept: a kernel has one, a test or a benchmark a few."""


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
def _imports(text: str) -> tuple[frozenset[str], ...]:
    """Give the words of each part of a text's imports, those of the module that it is imported from with them."""
    return tuple(frozenset(_WORD.findall(part)) - {"as"} for part in import_parts(text))


@lru_cache(maxsize=4096)
def _given_names(text: str) -> frozenset[str]:
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
def _calls(text: str) -> Counter[str]:
    """Count the places where a text may call each name: it stands before a bracket, and is not defined there."""
    return Counter(name for defined, name in _CALL.findall(text) if not defined)


def _may_be_called_often(name: str, text: str) -> bool:
    """Whether a text may call a name in a loop, or in a function or class, which may run more than once."""
    calls, top = _calls(text)[name], _on_top(text)
    return calls > 0 and (_calls(top)[name] < calls or not _LOOPS.isdisjoint(words_of(top)))


def _may_make_on_top(name: str, text: str) -> bool:
    """Whether a statement of the cell itself may set a name or change what it holds, none of a function or class."""
    top = _on_top(text)
    return name in words_of(top) and _is_more_than_given(_word(name), top)


def _may_bind_on_top(name: str, text: str) -> bool:
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


def _may_bind(name: str, text: str) -> bool:
    """Whether a text may set a name: it stands alone somewhere, not before a dot or a bracket, or is defined."""
    return _alone(name).search(text) is not None


@lru_cache(maxsize=256)
def _alone(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}\b(?![ \t]*[.(])|\b(?:def|class)\s+{name}\b")


def _may_set(name: str, text: str) -> bool:
    """Whether a text may set a name of the notebook, or an attribute of it, otherwise than by importing it."""
    text = text if "global" in text else _on_top(text)
    rest = _IMPORTED.sub("", text) if "import" in text and name in _imported(text) else text
    return _is_more_than_given(_alone(name), rest) or _changed(name).search(rest) is not None


@lru_cache(maxsize=256)
def _changed(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}[ \t]*\.[^\n=()]*=(?!=)")


def _may_import(name: str, text: str) -> bool:
    return "import" in text and name in _imported(text)


def _may_name(name: str, text: str) -> bool:
    return _may_import(name, text) or _may_give(name, text)


def _may_give(name: str, text: str) -> bool:
    """Whether a text may define a name, or make it another name of something."""
    written = (f"{name} ", f"{name}=", f"{name}\t", f"{name}\\", f"def {name}", f"class {name}")
    return any(one in text for one in written) and _given(name).search(text) is not None


@lru_cache(maxsize=256)
def _given(name: str) -> re.Pattern[str]:
    """Give what finds the definition of a name, or a statement that makes it another name of something."""
    alias = rf"(?:^|[;:]|%time)[ \t]*{name}[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])"
    return re.compile(rf"\b(?:class|def)\s+{name}\b|{alias}", re.MULTILINE)


def _stands(text: str, cell: str) -> bool:
    return text in cell


class _Known:
    """What was found in a list of texts that grows at its end: each text is looked at once for each question."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.words: list[frozenset[str]] = []
        self._all: set[str] = set()
        self._found: dict[Hashable, tuple[list[int], int]] = {}

    def grow(self, texts: Iterable[str]) -> None:
        """Add texts at the end."""
        for text in texts:
            self.texts.append(text)
            self.words.append(words_of(text))
            self._all |= self.words[-1]

    def with_word(self, word: str) -> list[int]:
        """List the places of the texts that have a word."""
        if word not in self._all:
            return []
        return self._asked(word, lambda since: [n for n in range(since, len(self.words)) if word in self.words[n]])

    def where(self, matters: Callable[[str, str], bool], word: str) -> list[int]:
        """List the places of the texts that have a word, and for which ``matters`` is true."""
        near = self.with_word(word)
        if not near:
            return near
        return self._asked(
            (matters, word),
            lambda since: [n for n in near[bisect_left(near, since) :] if matters(word, self.texts[n])],
        )

    def having(self, key: Hashable, matters: Callable[[str], bool]) -> list[int]:
        """List the places of all texts for which ``matters`` is true; ``key`` stands for the question."""
        return self._asked(key, lambda since: [n for n in range(since, len(self.texts)) if matters(self.texts[n])])

    def _asked(self, key: Hashable, look: Callable[[int], list[int]]) -> list[int]:
        found, seen = self._found.get(key, ([], 0))
        if seen < len(self.texts):
            if len(self._found) > _MOST_QUESTIONS:
                self._found.clear()
            found = found + look(seen)
            self._found[key] = (found, len(self.texts))
        return found


class EarlierCells:
    """The cells that ran before, oldest first. Every answer holds each cell that matters, and may hold others."""

    def __init__(self, texts: tuple[str, ...], known: _Known) -> None:
        self.texts = texts
        self._known = known
        self._parts: dict[Hashable, object] = {}

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Give what ``work`` says of these cells, worked out once for each ``key``; to be small, and without trees."""
        if key not in self._parts:
            if len(self._parts) > _MOST_QUESTIONS:
                self._parts.clear()
            self._parts[key] = work()
        return cast(T, self._parts[key])

    def mentions(self, *words: str) -> bool:
        """Tell whether one of ``words`` stands in a cell."""
        return any(self._cut(self._known.with_word(word)) for word in words)

    def has(self, *texts: str) -> bool:
        """Tell whether one of ``texts`` stands in a cell, as it is written."""
        return any(self._cut(self._known.having(("has", text), partial(_stands, text))) for text in texts)

    def matches(self, pattern: re.Pattern[str], *literals: str) -> bool:
        """Tell whether a pattern is found in a cell; looked for only where one of ``literals``, if any, stands."""

        def matters(cell: str) -> bool:
            near = not literals or any(literal in cell for literal in literals)
            return near and pattern.search(cell) is not None

        return bool(self._cut(self._known.having((pattern, literals), matters)))

    def words_ending(self, ending: str) -> frozenset[str]:
        """List the words that end so."""
        near = self._cut(self._known.having(("ends", ending), lambda cell: ending in cell))
        return frozenset(word for n in near for word in self._known.words[n] if word.endswith(ending))

    def with_word(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells that have one of ``words`` in their text."""
        return self._cells(self.places_with(*words))

    def places_with(self, *words: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`with_word` stand."""
        return self._together([self._known.with_word(word) for word in words])

    def binding(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may set one of ``names``, in their functions too."""
        return self._cells(self._together([self._known.where(_may_bind, name) for name in names]))

    def binding_on_top(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells of which a statement itself may set a name, and their places: the last one first.

        They are parsed as they are asked for.
        """
        return self._numbered(reversed(self._cut(self._known.where(_may_bind_on_top, name))))

    def making(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells of which a statement itself may make or change what a name holds, the last one first."""
        return self._numbered(reversed(self._cut(self._known.where(_may_make_on_top, name))))

    def setting_newest_first(self, name: str) -> Iterator[PythonCell]:
        """Yield the cells that may set a name of the notebook otherwise than by importing it, the last one first."""
        return (cell for _, cell in self._numbered(reversed(self._cut(self._known.where(_may_set, name)))))

    def importing(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells with one of ``words`` in an import."""
        return self._cells(self.places_importing(*words))

    def places_importing(self, *words: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`importing` stand."""
        return self._together([self._known.where(_may_import, word) for word in words])

    def places_setting(self, *names: str) -> list[int]:
        """List where cells stand that may set one of ``names`` otherwise than by importing it."""
        return self._together([self._known.where(_may_set, name) for name in names])

    def naming(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may import or define one of ``names``, or make it another name of something."""
        return self._cells(self._together([self._known.where(_may_name, name) for name in names]))

    def places_naming(self, name: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`naming` stand that do more than import the name."""
        return self._cut(self._known.where(_may_give, name))

    def importing_newest_first(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells with a name in an import and their places, the last one first: parsed as they are asked."""
        return self._numbered(reversed(self._cut(self._known.where(_may_import, name))))

    def reached_from(self, *words: str) -> tuple[dict[int, frozenset[str]], frozenset[str]]:
        """Give where the cells stand that use ``words``, or names that come of them, with the names that they make.

        A name comes of a word that is imported with it, or that stands in the text that defines it. What comes second
        are all these words and names.
        """
        known, ahead = set(words), list(words)
        found: dict[int, frozenset[str]] = {}
        while ahead:
            for place in self._cut(self._known.with_word(ahead.pop())):
                if place not in found:
                    text = self.texts[place]
                    imported = (part for part in _imports(text) if not known.isdisjoint(part))
                    found[place] = _given_names(text).union(*imported)
                    ahead += found[place] - known
                    known |= found[place]
        return found, frozenset(known)

    def may_call_again(self, name: str) -> bool:
        """Tell whether cells may call a name in more than one place, or in a loop or function."""
        near = [self.texts[place] for place in self._cut(self._known.with_word(name))]
        places = sum(_calls(text)[name] for text in near)
        return places > 1 or any(_may_be_called_often(name, text) for text in near)

    def at(self, place: int) -> PythonCell | None:
        """Give the cell at a place of :attr:`texts`; None where it is no Python."""
        cell = read_cell(self.texts[place])
        return None if isinstance(cell, NotPython) else cell

    def all(self) -> tuple[PythonCell, ...]:
        """List every cell that is Python: for questions that no word can narrow down."""
        return self._cells(range(len(self.texts)))

    def _cells(self, places: Iterable[int]) -> tuple[PythonCell, ...]:
        return tuple(cell for _, cell in self._numbered(places))

    def _numbered(self, places: Iterable[int]) -> Iterator[tuple[int, PythonCell]]:
        return ((place, cell) for place in places if (cell := self.at(place)) is not None)

    def _together(self, found: list[list[int]]) -> list[int]:
        if len(found) == 1:
            return self._cut(found[0])
        return sorted({place for places in found for place in self._cut(places)})

    def _cut(self, places: list[int]) -> list[int]:
        """Leave out what stands behind these cells, where more is known than they are."""
        if len(self._known.texts) == len(self.texts):
            return places
        return places[: bisect_left(places, len(self.texts))]


_LISTS: list[_Known] = []
"""The lists of cells that were asked about last, the newest one first."""


@lru_cache(maxsize=32)
def earlier_cells(texts: tuple[str, ...]) -> EarlierCells:
    """Give the earlier cells with these texts; the same texts give the same answers, found once."""
    return EarlierCells(texts, _known_of(texts))


def _known_of(texts: tuple[str, ...]) -> _Known:
    """Find what is known of these texts, or of those that they go on from: a notebook grows by a cell at a time."""
    known = next((one for one in _LISTS if _agree(one.texts, texts)), None)
    if known is None:
        known = _Known()
    else:
        _LISTS.remove(known)
    _LISTS.insert(0, known)
    del _LISTS[_MOST_LISTS:]
    known.grow(texts[len(known.texts) :])
    return known


def _agree(known: list[str], texts: tuple[str, ...]) -> bool:
    both = min(len(known), len(texts))
    return (both > 0 or not texts or not known) and tuple(known[:both]) == texts[:both]
