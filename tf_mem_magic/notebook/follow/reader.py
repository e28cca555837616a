"""What following works with: the cell under analysis, each question answered once, and the values it ends in."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar, cast

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.model import Notebook, read_notebook
from tf_mem_magic.notebook.origins import reaches_tensorflow
from tf_mem_magic.notebook.scopes import Binding, Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.notebook.uses import Role, called_name, of_reads, role

MOST_STEPS = 5_000
"""So many questions are answered about one cell; what is asked beyond is unknown."""

_DEEPEST = 25
"""So many questions may wait for one another; each takes several frames of Python's stack."""

_MOST_BINDINGS = 100
"""A name that is bound more often is set in more than one place: which of them counts is not asked."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Question = Literal["resolve", "evaluate", "trace", "entry", "follows", "samples", "stays"]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the cell where a batch size stands or can be written: ``before`` + number + ``after``.

    Attributes
    ----------
    value : int
        The batch size that stands there now.
    start, end : int
        The range of the cell's text that the edit replaces.
    samples : int or None
        A dataset of that many samples is split again here, and its number of batches (``{count}`` in ``after``) must
        be restored.
    dataset : str
        The name of the dataset of an earlier cell that is split again here; empty: the batch itself is set.
    undo : str
        The line that sets back what the edit sets on an object of an earlier cell; empty: it sets nothing there.
    owner : str
        The name of that object.
    counts : str
        The number of batches that stands here, which grows as they shrink; empty: it is a batch size.
    uncounted : bool
        TensorFlow no longer knows how many batches the dataset that is split again here has.
    """

    value: int
    start: int
    end: int
    before: str = ""
    after: str = ""
    samples: int | None = None
    dataset: str = ""
    undo: str = ""
    owner: str = ""
    counts: str = ""
    uncounted: bool = False

    def edit(self, batch: int) -> CellEdit:
        """Return the edit that sets the batch size to ``batch``."""
        if self.counts:
            counts = _as_many_samples(self.counts, self.value, batch)
            return CellEdit(self.start, self.end, f"{self.before}{counts}{self.after}")
        after = self.after
        if self.samples is not None:
            after = after.replace("{count}", str(-(-self.samples // batch)))
        return CellEdit(self.start, self.end, f"{self.before}{batch}{after}")


_IS_CALL = re.compile(r"[\w.]+\([\w.]*\)")
"""A call that needs no brackets in a product: ``len(ds)``."""


def _as_many_samples(counts: str, old: int, new: int) -> str:
    """Write how many batches of ``new`` have the samples of ``counts`` batches of ``old``; below 0: all of them."""
    if counts.isdigit():
        return str(-(-int(counts) * old // new))
    if counts.startswith("-"):
        return counts
    counts = counts if counts.isidentifier() or _IS_CALL.fullmatch(counts) else f"({counts})"
    return f"{old // new} * {counts}" if old % new == 0 else f"-(-{counts} * {old} // {new})"


@dataclass(frozen=True, slots=True)
class Setting:
    """A batch size and the places that set it.

    Attributes
    ----------
    value : int
        The batch size, for one replica where ``per_replica``.
    slots : tuple of Slot
        The places that set it, all of them to be changed together.
    names : frozenset of str
        The names that change with it, as they are written.
    per_replica : bool
        It is multiplied by the number of replicas.
    notes : tuple of str
        Sentences for the user.
    imports : tuple of str
        Lines that the edit needs at the top of the cell.
    same_steps : bool
        The loop that takes the batches goes on taking as many, each of fewer samples.
    parts : int
        The cell takes batches of a part of it too, of one of so many: another size must be a multiple of that.
    kept : frozenset of str
        The names that hold the same number and stay as they are: they say how many samples there are.
    """

    value: int
    slots: tuple[Slot, ...]
    names: frozenset[str] = frozenset()
    per_replica: bool = False
    notes: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    same_steps: bool = False
    parts: int = 1
    kept: frozenset[str] = frozenset()

    @property
    def datasets(self) -> frozenset[str]:
        """The datasets of earlier cells that are split again."""
        return frozenset(slot.dataset for slot in self.slots if slot.dataset)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A batch size that cannot be told or set, and why, as a sentence without its capital and stop."""

    reason: str


Resolve = Callable[["Reader", ast.expr], Setting | Unknown]
"""Follows an expression to where its value is set; handed to what finds the next expression on the way."""


@dataclass
class Reader:
    """One cell under analysis.

    Attributes
    ----------
    cell : PythonCell
        Its text and tree.
    facts : Facts
        What is known of the live objects.
    lines : frozenset of int
        The cell's lines that led to the error.
    steps : int
        How many questions were worked out so far, at most :data:`MOST_STEPS`.
    """

    cell: PythonCell
    facts: Facts
    lines: frozenset[int] = frozenset()
    steps: int = field(default=0, init=False)
    _entered: dict[Function, ast.Call] = field(default_factory=dict, init=False)
    _context: frozenset[tuple[Function, ast.Call]] = field(default=frozenset(), init=False)
    _answers: dict[object, object] = field(default_factory=dict, init=False)
    _waiting: set[object] = field(default_factory=set, init=False)

    @property
    def scopes(self) -> Scopes:
        """The names of the cell."""
        return self.cell.scopes

    @cached_property
    def notebook(self) -> Notebook:
        """The cell and the cells before it."""
        return read_notebook(self.cell.source, self.facts.earlier_cells, self.cell.titles)

    def once(self, question: Question, node: ast.AST, key: object, work: Callable[[], _Answer]) -> _Answer | None:
        """Answer a question about ``node`` once; None where it waits for itself, or for too many others.

        Parameters
        ----------
        question : Question
            What is asked.
        node : ast.AST
            What it is asked about, from within the functions that are entered now.
        key : object
            What else the answer depends on.
        work : callable
            Works the answer out.
        """
        asked = (question, node, key, self._context)
        if asked in self._answers:
            return cast(_Answer, self._answers[asked])
        if asked in self._waiting or len(self._waiting) >= _DEEPEST or self.steps >= MOST_STEPS:
            return None
        self.steps += 1
        self._waiting.add(asked)
        try:
            answer = work()
        finally:
            self._waiting.discard(asked)
        self._answers[asked] = answer
        return answer

    @contextmanager
    def entering(self, function: Function | None, call: ast.Call | None) -> Iterator[None]:
        """Answer, within, as seen from ``function`` called by ``call``; where either is unknown, from all calls."""
        before, context = self._entered, self._context
        if function is not None and call is not None:
            self._entered = {**before, function: call}
            self._context = frozenset(self._entered.items())
        try:
            yield
        finally:
            self._entered, self._context = before, context

    def entered(self, function: Function) -> ast.Call | None:
        """Return the call by which ``function`` was entered; None where any may be meant."""
        return self._entered.get(function)

    def covers(self, node: ast.AST) -> bool:
        """Tell whether a line that led to the error lies within ``node``."""
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
        return any(first <= line <= last for line in self.lines)

    def bindings(self, name: ast.Name) -> list[Binding]:
        """List what binds ``name`` in the cell; empty where it comes from an earlier cell."""
        return self.scopes.of(self.scopes.home(name), name.id)

    def reaching(self, name: ast.Name) -> Binding | None:
        """Return the one binding whose value ``name`` surely reads."""
        found = self.bindings(name)
        return self.scopes.reaching(name, found) if len(found) <= _MOST_BINDINGS else None

    def role(self, node: ast.expr) -> Role:
        """Say what ``node``, which reads the batch size, is used for."""
        if node not in self._roles:
            self._roles[node] = "other"  # while it waits for itself
            found = role(self.scopes, node)
            self._roles[node] = self._role_of_parameter(node) if found == "other" else found
        return self._roles[node]

    def _role_of_parameter(self, default: ast.expr) -> Role:
        """Say what a default is used for: what its parameter is, in the function."""
        parents = self.scopes.parents
        args = parents.get(default)
        function = parents.get(args) if isinstance(args, ast.arguments) else None
        if not isinstance(args, ast.arguments) or not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return "other"
        positional = [*args.posonlyargs, *args.args]
        pairs = [*zip(positional[len(positional) - len(args.defaults) :], args.defaults)]
        pairs += [(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults) if d is not None]
        name = next((a.arg for a, d in pairs if d is default), "")
        return of_reads(self.role(load) for load in self.scopes.loads.get((function, name), []))

    def slot(self, node: ast.expr, value: int) -> Slot:
        """Return the slot that replaces ``node``."""
        return Slot(value, self.cell.start(node), self.cell.end(node))

    def scalar(self, text: str) -> int | None:
        """Return an integer that the facts know under ``text``."""
        value = self.facts.scalar(text)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def written(self, node: ast.AST) -> str:
        """Return how ``node`` is written, in one way whatever its spaces and quotes; shortened where it is endless."""
        if node not in self._texts:
            try:
                self._texts[node] = ast.unparse(node)
            except RecursionError:
                self._texts[node] = f"an expression in line {getattr(node, 'lineno', 0)}"
        return self._texts[node]

    @cached_property
    def index(self) -> dict[str, object]:
        """What was found by walking the whole cell, each kind once."""
        return {}

    @cached_property
    def _roles(self) -> dict[ast.expr, Role]:
        return {}

    @cached_property
    def _texts(self) -> dict[ast.AST, str]:
        return {}

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the cell's tree, walked once."""
        return self.cell.nodes

    @cached_property
    def star_imports(self) -> tuple[ast.ImportFrom, ...]:
        """The imports of every name of a module."""
        return tuple(n for n in self.nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*")

    @cached_property
    def calls(self) -> dict[str, list[ast.Call]]:
        """The calls of the cell, by the last part of what is called."""
        found: dict[str, list[ast.Call]] = {}
        for call in self.cell.calls:
            found.setdefault(called_name(call), []).append(call)
        return found

    def calls_of(self, *names: str) -> list[ast.Call]:
        """List the calls of functions and methods with one of these names."""
        return [call for name in names for call in self.calls.get(name, [])]

    @cached_property
    def tensorflow(self) -> str | None:
        """The name under which the cell can reach TensorFlow, by its own imports or those of earlier cells."""
        return reaches_tensorflow(self.cell, self.facts)


def merge(settings: Iterable[Setting]) -> Setting | Unknown:
    """Join settings that must agree."""
    found = list(settings)
    if not found:
        return Unknown("no batch size was found in the cell")
    if len({(s.value, s.per_replica) for s in found}) > 1:
        sizes = " and ".join(str(v) for v in sorted({s.value for s in found}))
        return Unknown(f"the cell uses several batch sizes here ({sizes})")
    first = found[0]
    return Setting(
        first.value,
        tuple(dict.fromkeys(slot for s in found for slot in s.slots)),
        frozenset().union(*(s.names for s in found)),
        first.per_replica,
        tuple(dict.fromkeys(note for s in found for note in s.notes)),
        tuple(dict.fromkeys(line for s in found for line in s.imports)),
        any(s.same_steps for s in found),
        math.lcm(*(s.parts for s in found)),
        frozenset().union(*(s.kept for s in found)),
    )
