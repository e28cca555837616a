"""Pipelines that earlier cells made, written once more in the cell that uses them: which statements, and whether."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.follow.behind import Piece, pieces
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import insert_line, shares_line
from tf_mem_magic.remedies.stream_data.made_again import draws_other_samples, is_made_again

_SEEDS = ("set_seed", "set_random_seed")

Place = tuple[int, int]
"""Where a statement stands among the earlier cells: the cell's place, and its own in the cell."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The cell with statements of earlier cells before the first of its own that reads what they make.

    Attributes
    ----------
    cell : PythonCell
        The cell with them, as they are.
    line : int or None
        The line that ran out, as it is counted there.
    made : dict of Place to range
        The statements that were taken over, and their lines.
    names : tuple of str
        The datasets that they make.
    drawn : bool
        They shuffle without a seed, so in another order than before.
    """

    cell: PythonCell
    line: int | None
    made: dict[Place, range]
    names: tuple[str, ...]
    drawn: bool

    @property
    def lines(self) -> range:
        """The lines of all that was taken over."""
        spans = self.made.values()
        return range(min(s.start for s in spans), max(s.stop for s in spans))


@dataclass
class Takeover:
    """What a cell's datasets of earlier cells are made of, and how much of it is to be written again.

    Raises
    ------
    RefusedError
        If it is not certain that the same statements would make the same datasets: what they read was set anew, they
        do more than make datasets, or they would draw other samples.
    """

    reader: Reader
    at_line: int | None
    roots: tuple[str, ...]
    taken: dict[Place, Piece] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = {one.name for one in self.reader.facts.datasets if one.kind == "tf.data" and not one.is_new}
        self._origins = KerasNames(self.reader.cell, self.reader.facts.earlier_cells)
        queue = [(name, True) for name in self.roots]
        while queue:
            name, surely = queue.pop(0)
            if name not in self.names:
                read = self._made_of(name, surely)
                if read is not None:
                    self.names.append(name)
                    queue += [(one, False) for one in read]
                    queue += [(one, True) for one in self._made_with(name)]

    def _made_of(self, name: str, surely: bool) -> list[str] | None:
        """Take the statements that made the value of ``name``; give the datasets that they read.

        None where it is left as it is: not ``surely`` needed, and made by more than such statements.
        """
        found: dict[Place, Piece] = {}
        for place, piece in reversed(self._history(name)):
            if not self._is_plain(piece, name):
                break
            found[place] = piece
            if name not in piece.words:
                self.taken |= found
                for at, one in found.items():
                    for function in sorted(one.words):
                        self._take_function(function, at)
                return sorted({one for piece in found.values() for one in piece.words & self._known})
        if surely:
            raise RefusedError(f"by code that does more than make `{name}`")
        return None

    def _made_with(self, name: str) -> list[str]:
        """Give the datasets that earlier cells made with ``name``: they would keep the old one."""
        before = self.reader.notebook.before
        cells = ((place, before.at(place)) for place in before.places_with(name))
        found = [p for _, cell in cells if cell is not None for p in cell.once(pieces) if name in p.words]
        return sorted({one for piece in found for one in piece.defines & self._known})

    def _take_function(self, name: str, place: Place) -> None:
        """Take a function of the notebook that makes datasets, as it was when the statement at ``place`` called it."""
        made = [(at, piece) for at, piece in self._history(name) if at < place]
        if made and isinstance(made[-1][1].statement, ast.FunctionDef) and self._is_plain(made[-1][1], name):
            self.taken[made[-1][0]] = made[-1][1]
            for word in sorted(made[-1][1].words - {name}):
                self._take_function(word, made[-1][0])

    def _is_plain(self, piece: Piece, name: str) -> bool:
        statement, cell = piece.statement, piece.cell
        lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
        if cell.hidden.intersection(lines):
            return False
        if isinstance(statement, ast.Assign):
            targets = [ast.unparse(target) for target in statement.targets]
            return targets == [name] and is_made_again(statement.value, self._origins, self._known, self._makes_data)
        return isinstance(statement, ast.FunctionDef) and is_made_again(
            statement, self._origins, self._known, self._makes_data
        )

    def _makes_data(self, name: str) -> bool:
        found = self.reader.notebook.function(name)
        if found is None or not found.is_earlier or not isinstance(found.node, ast.FunctionDef):
            return False
        return is_made_again(found.node, self._origins, self._known, lambda _: False)

    def _history(self, name: str) -> list[tuple[Place, Piece]]:
        """List the statements of earlier cells that set or change what ``name`` holds, oldest first."""
        return sorted(
            (
                ((place, index), piece)
                for place, cell in self.reader.notebook.before.making(name)
                for index, piece in enumerate(cell.once(pieces))
                if name in piece.defines
            ),
            key=lambda found: found[0],
        )

    # -- what must not have changed since ----------------------------------------------------------------------------

    def checked(self, only: Collection[Place]) -> TakenOver:
        """Write ``only`` these statements into the cell, where they surely make the same again."""
        taken = self.written(only)
        self._check_names({place: self.taken[place] for place in taken.made}, self._first_use(taken.names))
        statements = [self.taken[place].statement for place in taken.made]
        drawn, told = draws_other_samples(statements, self._seeds_since(min(taken.made)))
        if told:
            raise RefusedError(told)
        return replace(taken, drawn=drawn)

    def written(self, only: Collection[Place] | None = None) -> TakenOver:
        """Write the statements, or ``only`` some of them, into the cell as they are."""
        chosen = {place: self.taken[place] for place in sorted(self.taken) if only is None or place in only}
        names = tuple(dict.fromkeys(n for p in chosen.values() for n in sorted(p.defines) if n in self._known))
        first = self._first_use(names)
        lines: list[str] = []
        made: dict[Place, range] = {}
        for place, piece in chosen.items():
            text = piece.cell.text(piece.statement).splitlines()
            made[place] = range(first.lineno + len(lines), first.lineno + len(lines) + len(text))
            lines += text
        changed = read_cell(self._with(first, lines))
        if isinstance(changed, NotPython):
            raise RefusedError("in a way that cannot be written again here")
        line = self.at_line
        moved = line if line is None or line < first.lineno else line + len(lines)
        return TakenOver(changed, moved, made, names, False)

    def _with(self, first: ast.stmt, lines: list[str]) -> str:
        cell = self.reader.cell
        if shares_line(cell, first):
            raise RefusedError(f"and the statement that uses it here shares its line {cell.aside(first)} with another")
        added = insert_line(cell, first, *lines)
        return f"{cell.source[: added.start]}{added.text}{cell.source[added.end :]}"

    def _seeds_since(self, place: Place) -> bool:
        """Whether a seed for everything may have been set since: with it a seeded shuffle draws otherwise."""
        cells = self.reader.notebook.before.places_with(*_SEEDS)
        return any(at >= place[0] for at in cells) or not self.reader.cell.words.isdisjoint(_SEEDS)

    def _first_use(self, names: Iterable[str]) -> ast.stmt:
        body = self.reader.cell.tree.body
        return next(s for s in body if {n.id for n in ast.walk(s) if isinstance(n, ast.Name)} & set(names))

    def _check_names(self, chosen: dict[Place, Piece], first: ast.stmt) -> None:
        body = self.reader.cell.once(pieces)
        here = {name for piece in body[: self.reader.cell.tree.body.index(first)] for name in piece.defines}
        for place, piece in chosen.items():
            for word in sorted(self._all_words(piece)):
                history = [at for at, _ in self._history(word)]
                later = [at for at in history if at > place]
                before = [at for at in history if at < place]
                again = later and not (set(later) <= set(chosen) and before and before[-1] in chosen)
                if again or word in here or self._is_shuffled(word, place):
                    raise RefusedError(f"and `{word}`, which that reads, was changed since")

    def _all_words(self, piece: Piece) -> set[str]:
        """Name what a statement reads, through the functions of the notebook that it names."""
        found, queue = set[str](), sorted(piece.words)
        while queue:
            word = queue.pop()
            if word in found:
                continue
            found.add(word)
            made = self._history(word)
            if made and isinstance(made[-1][1].statement, (ast.FunctionDef, ast.ClassDef)):
                queue += sorted(made[-1][1].words)
        return found

    def _is_shuffled(self, name: str, since: Place) -> bool:
        """Whether what ``name`` holds was shuffled in place after a statement, here or in an earlier cell."""
        before = self.reader.notebook.before
        cells = [(place, before.at(place)) for place in before.places_with(name) if place >= since[0]]
        later = [
            statement
            for place, cell in cells
            if cell is not None and "shuffle" in cell.words
            for index, statement in enumerate(cell.tree.body)
            if (place, index) > since
        ]
        return any(_shuffles(statement, name) for statement in (*later, *self.reader.cell.tree.body))

    # -- how much of it is needed ------------------------------------------------------------------------------------

    def needed(self, edited: Iterable[Place]) -> set[Place]:
        """Give the statements that are needed where those of ``edited`` are changed.

        Those that read what a changed one makes, and those before them of which the value is gone by now.
        """
        kept: set[Place] = set()
        queue = list(edited)
        while queue:
            place = queue.pop()
            if place in kept:
                continue
            kept.add(place)
            piece = self.taken[place]
            queue += [at for at, other in self.taken.items() if at > place and other.words & piece.defines]
            for word in piece.words:
                history = [at for at, _ in self._history(word)]
                if any(at >= place for at in history):
                    queue += [at for at in history if at < place and at in self.taken][-1:]
        return kept


def datasets_read(reader: Reader, line: int | None) -> tuple[str, ...]:
    """Name the datasets of earlier cells that the statement which ran out reads, also by functions of the cell.

    A name that the cell has bound anew by then is its own.
    """
    known = {one.name for one in reader.facts.datasets if one.kind == "tf.data" and not one.is_new}
    body = reader.cell.tree.body
    tops = [s for s in body if line is None or s.lineno <= line <= (s.end_lineno or s.lineno)]
    if any(isinstance(top, (ast.FunctionDef, ast.ClassDef)) for top in tops):
        tops = body
    read = {n.id for top in tops for n in ast.walk(top) if isinstance(n, ast.Name)}
    tops = [*tops, *(s for s in body if isinstance(s, ast.FunctionDef) and s.name in read)]
    inside = {node for top in tops for node in ast.walk(top)}
    found: dict[str, None] = {}
    for name in sorted(known & {n.id for n in inside if isinstance(n, ast.Name)}):
        loads = reader.scopes.loads.get((reader.cell.tree, name), [])
        bound = [b.node for b in reader.scopes.of(reader.cell.tree, name)]
        first = min((getattr(node, "lineno", 0) for node in bound), default=None)
        if any(load in inside and (first is None or load.lineno <= first) for load in loads):
            found[name] = None
    return tuple(found)


def _shuffles(statement: ast.stmt, name: str) -> bool:
    calls = (n for n in ast.walk(statement) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
    given: Iterator[ast.expr] = (a for call in calls if _is_shuffle(call) for a in call.args)
    return any(isinstance(a, ast.Name) and a.id == name for a in given)


def _is_shuffle(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "shuffle"
