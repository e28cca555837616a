"""The cells that ran before: looked at as text first, so that a question parses only those that can matter to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tf_mem_magic.notebook.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.mask import NotPython

_BARE = re.compile(r"(?<![.\w])[^\W\d]\w*\b(?![ \t]*[.(])|(?<=\bdef )\w+|(?<=\bclass )\w+")
_IMPORTED = re.compile(r"\bimport\b\s*(?:\((.*?)\)[ \t]*(?=$|[;#\r])|((?:[^\n\\;]|\\\n)*))", re.DOTALL | re.MULTILINE)
_DEFINED = re.compile(r"\b(?:class|def)\s+([^\W\d]\w*)")
_ALIAS = re.compile(
    r"(?:^|[;:]|%time)[ \t]*([^\W\d]\w*)[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])", re.MULTILINE
)
_WORD = re.compile(r"[^\W\d]\w*")


@lru_cache(maxsize=4096)
def _bound(text: str) -> frozenset[str]:
    """Give the names that a text may set anywhere: words that stand alone, not before a dot or a bracket."""
    return frozenset(_BARE.findall(text))


@lru_cache(maxsize=4096)
def _imported(text: str) -> frozenset[str]:
    """Give the words of a text's imports."""
    return frozenset(word for pair in _IMPORTED.findall(text) for word in _WORD.findall(" ".join(pair)))


@lru_cache(maxsize=4096)
def _named(text: str) -> frozenset[str]:
    """Give the names that a text may import, define, or make another name of something."""
    return _imported(text) | frozenset((*_DEFINED.findall(text), *_ALIAS.findall(text)))


class EarlierCells:
    """The cells that ran before, oldest first. Every answer holds each cell that matters, and may hold others."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self._found: dict[tuple[Callable[[str], frozenset[str]], str], tuple[int, ...]] = {}

    def mentions(self, *words: str) -> bool:
        """Tell whether one of ``words`` stands in a cell."""
        return any(self._numbers(words_of, word) for word in words)

    def with_word(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells that have one of ``words`` in their text."""
        return self._cells(words_of, words)

    def binding(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may set one of ``names``, in their functions too."""
        return self._cells(_bound, names)

    def importing(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells with one of ``words`` in an import."""
        return self._cells(_imported, words)

    def naming(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may import or define one of ``names``, or make it another name of something."""
        return self._cells(_named, names)

    def places_naming(self, name: str) -> tuple[int, ...]:
        """List where among :attr:`texts` the cells of :meth:`naming` stand."""
        return self._numbers(_named, name)

    def named(self, place: int) -> frozenset[str]:
        """Give the names that the cell at a place of :attr:`texts` may import or define."""
        return _named(self.texts[place])

    def all(self) -> tuple[PythonCell, ...]:
        """List every cell that is Python: for questions that no word can narrow down."""
        return tuple(cell for cell in map(read_cell, self.texts) if not isinstance(cell, NotPython))

    def _cells(self, words: Callable[[str], frozenset[str]], wanted: tuple[str, ...]) -> tuple[PythonCell, ...]:
        numbers = sorted({number for word in wanted for number in self._numbers(words, word)})
        cells = (read_cell(self.texts[number]) for number in numbers)
        return tuple(cell for cell in cells if not isinstance(cell, NotPython))

    def _numbers(self, words: Callable[[str], frozenset[str]], word: str) -> tuple[int, ...]:
        key = (words, word)
        if key not in self._found:
            if words is words_of:
                self._found[key] = tuple(n for n, text in enumerate(self.texts) if word in words_of(text))
            else:
                mentioned = self._numbers(words_of, word)
                self._found[key] = tuple(n for n in mentioned if word in words(self.texts[n]))
        return self._found[key]


@lru_cache(maxsize=32)
def earlier_cells(texts: tuple[str, ...]) -> EarlierCells:
    """Give the earlier cells with these texts; the same texts give the same answers, found once."""
    return EarlierCells(texts)
