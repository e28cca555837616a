"""The cells that ran before: looked at as text first, so that a question parses only those that can matter to it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from threading import Lock
from typing import TypeVar, cast

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.outline import (
    calls_of,
    given_names,
    imported_together,
    may_bind,
    may_bind_on_top,
    may_give,
    may_import,
    may_make_on_top,
    may_name,
    may_set,
)

T = TypeVar("T")

_MOST_QUESTIONS = 4096
"""More answers than this are not kept of one list of cells."""
_END = "\n\0\n"
"""Stands between two texts, and in none."""
_MOST_LISTS = 4
"""Of more notebooks than this nothing is kept: a kernel has one, a test or a benchmark a few."""


class _Known:
    """What was found in a list of texts that grows at its end: each text is looked at once for each question."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._all = ""
        self._begins: list[int] = []
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._found: dict[Hashable, tuple[list[int], int]] = {}

    def grow(self, texts: Iterable[str]) -> None:
        """Add texts at the end."""
        for text in texts:
            place = len(self.texts)
            for word in words_of(text):
                self._places[word].append(place)
            self.texts.append(text)
        self._all = _END.join(self.texts)
        self._begins = [0, *accumulate(len(text) + len(_END) for text in self.texts)]

    def with_word(self, word: str) -> list[int]:
        """List the places of the texts that have a word."""
        return self._places.get(word, [])

    def where(self, matters: Callable[[str, str], bool], word: str) -> list[int]:
        """List the places of the texts that have a word, and for which ``matters`` is true."""
        near = self.with_word(word)
        if not near:
            return near
        return self._asked(
            (matters, word),
            lambda since: [n for n in near[bisect_left(near, since) :] if matters(word, self.texts[n])],
        )

    def having(self, part: str) -> list[int]:
        """List the places of the texts in which ``part`` stands, as it is written."""

        def look(since: int) -> list[int]:
            found: list[int] = []
            at = self._all.find(part, self._begins[since])
            while at >= 0:
                found.append(bisect_right(self._begins, at) - 1)
                at = self._all.find(part, self._begins[found[-1] + 1])
            return found

        return self._asked(("having", part), look)

    def matching(self, pattern: re.Pattern[str], literals: tuple[str, ...]) -> list[int]:
        """List the places of the texts in which a pattern is found, and one of ``literals``, if any, stands."""

        def look(since: int) -> Iterable[int]:
            if not literals:
                return range(since, len(self.texts))
            return sorted({n for literal in literals for n in self.having(literal) if n >= since})

        return self._asked(
            (pattern, literals), lambda since: [n for n in look(since) if pattern.search(self.texts[n]) is not None]
        )

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
        return any(self._cut(self._known.having(text)) for text in texts)

    def matches(self, pattern: re.Pattern[str], *literals: str) -> bool:
        """Tell whether a pattern is found in a cell; looked for only where one of ``literals``, if any, stands."""
        return bool(self._cut(self._known.matching(pattern, literals)))

    def words_ending(self, ending: str) -> frozenset[str]:
        """List the words that end so."""
        near = self._cut(self._known.having(ending))
        return frozenset(word for n in near for word in words_of(self._known.texts[n]) if word.endswith(ending))

    def with_word(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells that have one of ``words`` in their text."""
        return self._cells(self.places_with(*words))

    def places_with(self, *words: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`with_word` stand."""
        return self._together([self._known.with_word(word) for word in words])

    def binding(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may set one of ``names``, in their functions too."""
        return self._cells(self._together([self._known.where(may_bind, name) for name in names]))

    def binding_on_top(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells of which a statement itself may set a name, and their places: the last one first.

        They are parsed as they are asked for.
        """
        return self._numbered(reversed(self._cut(self._known.where(may_bind_on_top, name))))

    def making(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells of which a statement itself may make or change what a name holds, the last one first."""
        return self._numbered(reversed(self._cut(self._known.where(may_make_on_top, name))))

    def setting(self, name: str) -> Iterator[PythonCell]:
        """Yield the cells that may set a name of the notebook otherwise than by importing it, the last one first."""
        return (cell for _, cell in self._numbered(reversed(self._cut(self._known.where(may_set, name)))))

    def importing(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells with one of ``words`` in an import."""
        return self._cells(self.places_importing(*words))

    def places_importing(self, *words: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`importing` stand."""
        return self._together([self._known.where(may_import, word) for word in words])

    def places_setting(self, *names: str) -> list[int]:
        """List where cells stand that may set one of ``names`` otherwise than by importing it."""
        return self._together([self._known.where(may_set, name) for name in names])

    def naming(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may import or define one of ``names``, or make it another name of something."""
        return self._cells(self._together([self._known.where(may_name, name) for name in names]))

    def places_naming(self, name: str) -> list[int]:
        """List where among :attr:`texts` the cells of :meth:`naming` stand that do more than import the name."""
        return self._cut(self._known.where(may_give, name))

    def importing_newest_first(self, name: str) -> Iterator[tuple[int, PythonCell]]:
        """Yield the cells with a name in an import and their places, the last one first: parsed as they are asked."""
        return self._numbered(reversed(self._cut(self._known.where(may_import, name))))

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
                    imported = (part for part in imported_together(text) if not known.isdisjoint(part))
                    found[place] = given_names(text).union(*imported)
                    ahead += found[place] - known
                    known |= found[place]
        return found, frozenset(known)

    def may_call_again(self, name: str) -> bool:
        """Tell whether cells may call a name in more than one place, or in a loop or function."""
        places = 0
        for place in self._cut(self._known.with_word(name)):
            calls, often = calls_of(name, self.texts[place])
            places += calls
            if often or places > 1:
                return True
        return False

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
_GROWS = Lock()
"""Held where a list grows: a notebook is also read while its cell still waits for memory, in another thread."""


@lru_cache(maxsize=32)
def earlier_cells(texts: tuple[str, ...]) -> EarlierCells:
    """Give the earlier cells with these texts; the same texts give the same answers, found once."""
    return EarlierCells(texts, _known_of(texts))


def _known_of(texts: tuple[str, ...]) -> _Known:
    """Find what is known of these texts, or of those that they go on from: a notebook grows by a cell at a time."""
    with _GROWS:
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
