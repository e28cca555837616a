"""The cells that ran before: looked at as text first, so that a question parses only those that can matter to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.text.mask import NotPython

_IMPORTED = re.compile(r"\bimport\b\s*(?:\((.*?)\)[ \t]*(?=$|[;#\r])|((?:[^\n\\;]|\\\n)*))", re.DOTALL | re.MULTILINE)
_DEFINED = re.compile(r"\b(?:class|def)\s+([^\W\d]\w*)")
_ALIAS = re.compile(
    r"(?:^|[;:]|%time)[ \t]*([^\W\d]\w*)[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])", re.MULTILINE
)
_WORD = re.compile(r"[^\W\d]\w*")


@lru_cache(maxsize=4096)
def _imported(text: str) -> frozenset[str]:
    """Give the words of a text's imports."""
    return frozenset(word for pair in _IMPORTED.findall(text) for word in _WORD.findall(" ".join(pair)))


@lru_cache(maxsize=4096)
def _named(text: str) -> frozenset[str]:
    """Give the names that a text may import, define, or make another name of something."""
    return _imported(text) | frozenset((*_DEFINED.findall(text), *_ALIAS.findall(text)))


def _may_bind(name: str, text: str) -> bool:
    """Whether a text may set a name: it stands alone somewhere, not before a dot or a bracket, or is defined."""
    return _alone(name).search(text) is not None


@lru_cache(maxsize=256)
def _alone(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![.\w]){name}\b(?![ \t]*[.(])|\b(?:def|class)\s+{name}\b")


def _may_import(name: str, text: str) -> bool:
    return "import" in text and name in _imported(text)


def _may_name(name: str, text: str) -> bool:
    if "import" in text and name in _imported(text):
        return True
    written = (f"{name} ", f"{name}=", f"{name}\t", f"{name}\\", f"def {name}", f"class {name}")
    return any(one in text for one in written) and _given(name).search(text) is not None


@lru_cache(maxsize=256)
def _given(name: str) -> re.Pattern[str]:
    """Give what finds the definition of a name, or a statement that makes it another name of something."""
    alias = rf"(?:^|[;:]|%time)[ \t]*{name}[ \t]*=[ \t(\\\n]*[^\W\d][\w.]*[ \t)]*(?=$|[;#\\\r])"
    return re.compile(rf"\b(?:class|def)\s+{name}\b|{alias}", re.MULTILINE)


def _has(name: str, text: str) -> bool:
    return name in words_of(text)


class EarlierCells:
    """The cells that ran before, oldest first. Every answer holds each cell that matters, and may hold others."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self._found: dict[tuple[Callable[[str, str], bool], str], tuple[int, ...]] = {}

    def mentions(self, *words: str) -> bool:
        """Tell whether one of ``words`` stands in a cell."""
        return any(self._numbers(_has, word) for word in words)

    def with_word(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells that have one of ``words`` in their text."""
        return self._cells(_has, words)

    def binding(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may set one of ``names``, in their functions too."""
        return self._cells(_may_bind, names)

    def importing(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells with one of ``words`` in an import."""
        return self._cells(_may_import, words)

    def naming(self, *names: str) -> tuple[PythonCell, ...]:
        """List the cells that may import or define one of ``names``, or make it another name of something."""
        return self._cells(_may_name, names)

    def places_naming(self, name: str) -> tuple[int, ...]:
        """List where among :attr:`texts` the cells of :meth:`naming` stand."""
        return self._numbers(_may_name, name)

    def named(self, place: int) -> frozenset[str]:
        """Give the names that the cell at a place of :attr:`texts` may import or define."""
        return _named(self.texts[place])

    def all(self) -> tuple[PythonCell, ...]:
        """List every cell that is Python: for questions that no word can narrow down."""
        return tuple(cell for cell in map(read_cell, self.texts) if not isinstance(cell, NotPython))

    def _cells(self, matters: Callable[[str, str], bool], wanted: tuple[str, ...]) -> tuple[PythonCell, ...]:
        numbers = sorted({number for word in wanted for number in self._numbers(matters, word)})
        cells = (read_cell(self.texts[number]) for number in numbers)
        return tuple(cell for cell in cells if not isinstance(cell, NotPython))

    def _numbers(self, matters: Callable[[str, str], bool], word: str) -> tuple[int, ...]:
        key = (matters, word)
        if key not in self._found:
            if matters is _has:
                found = tuple(n for n, text in enumerate(self.texts) if word in words_of(text))
            else:
                found = tuple(n for n in self._numbers(_has, word) if matters(word, self.texts[n]))
            self._found[key] = found
        return self._found[key]


@lru_cache(maxsize=32)
def earlier_cells(texts: tuple[str, ...]) -> EarlierCells:
    """Give the earlier cells with these texts; the same texts give the same answers, found once."""
    return EarlierCells(texts)
