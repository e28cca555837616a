"""What makes a ``tf.data`` pipeline hold much memory, and the edits that take it away."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from tf_mem_magic.cells.array_calls import LITTLE
from tf_mem_magic.cells.dataset_chains import Chain, Chains, method
from tf_mem_magic.cells.settings import Reader, evaluate
from tf_mem_magic.cells.source import CellEdit, insert_argument
from tf_mem_magic.cells.streaming import (
    IMPORT,
    MAPPED_NOTE,
    PACKAGE_NOTE,
    STAYS_NOTE,
    Change,
    Held,
    RefusedError,
    find_arrays,
    known_bytes,
    map_files,
)
from tf_mem_magic.cells.top import insert_on_top
from tf_mem_magic.core.proposals import Preserves

LONGEST_QUEUE = 16
"""Batches prepared ahead beyond which a shorter queue is proposed."""

_ANY_ELEMENT = frozenset({"shuffle", "repeat", "take", "skip", "shard", "batch", "cache", "prefetch", "with_options"})
"""Steps that do the same whatever the elements are, so also with the numbers of samples."""

_PART = frozenset({"take", "skip", "shard"})
_CHANGERS = frozenset({"fill", "sort", "resize", "put", "partition", "setfield", "byteswap", "shuffle"})


@dataclass
class _Found:
    """What was found so far: edits, lines for the top, and what is said of them."""

    edits: list[CellEdit] = field(default_factory=list)
    top: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    preserves: Preserves = "same results"

    def add(self, edits: list[CellEdit], title: str, why: str, caveats: tuple[str, ...], top: str = "") -> None:
        self.edits += edits
        for known, new in ((self.titles, title), (self.whys, why), (self.top, top)):
            if new and new not in known:
                known.append(new)
        self.caveats += [one for one in caveats if one not in self.caveats]


def stream_pipelines(reader: Reader, line: int | None, limit: int | None) -> Change | None:
    """Change the pipelines of a cell so that they hold less; None where there is nothing to change.

    ``line`` is the cell's line that ran out: a pipeline that is made only below it is left alone. Refused where what
    holds much cannot be changed.
    """
    found = _Found()
    for chain in Chains(reader).find():
        if line is None or reader.scopes.top_statement(chain.root).lineno <= line:
            _Pipeline(reader, chain, found).change(limit)
    if not found.edits and found.reasons:
        raise RefusedError(found.reasons[0])
    if not found.edits:
        return None
    title = " and ".join([", ".join(found.titles[:-1]), found.titles[-1]] if found.titles[1:] else found.titles)
    top = [insert_on_top(reader.cell, found.top)] if found.top else []
    return Change(
        title[0].upper() + title[1:],
        (*top, *dict.fromkeys(found.edits)),
        found.preserves,
        " ".join(found.whys),
        tuple(found.caveats),
    )


class _Pipeline:
    """One pipeline, and the edits that it needs."""

    def __init__(self, reader: Reader, chain: Chain, found: _Found) -> None:
        self.reader, self.cell, self.chain, self.found = reader, reader.cell, chain, found

    def change(self, limit: int | None) -> None:
        rest = list(self.chain.steps)
        looked_up = self._slices(limit)
        if looked_up is not None:
            rest = rest[looked_up:]
        for step in rest:
            if method(step) == "cache" and not step.args and not step.keywords and self._may_cache(step):
                self._cache(step)
            elif method(step) == "prefetch":
                self._queue(step)

    def _slices(self, limit: int | None) -> int | None:
        """Let the pipeline carry the numbers of samples; give how many of its steps do that, None where none may."""
        root = self.chain.root
        if not isinstance(root, ast.Call) or not isinstance(root.func, ast.Attribute):
            return None
        if root.func.attr != "from_tensor_slices" or len(root.args) != 1 or root.keywords:
            return None
        data = root.args[0]
        held = None if _has_lists(data) else find_arrays(self.reader, data)
        if not Chains(self.reader).is_source(root) or held is None or not self._plain(root, data):
            return None
        copied = known_bytes(held)
        little = limit is not None and copied is not None and 2 * copied < LITTLE * limit
        if little or any(v.kind != "numpy.ndarray" for v in self.reader.facts.values if v.name in _names(held)):
            return None
        if "distribute" in self.cell.python:
            self.found.reasons.append("the dataset may be spread over several devices")
            return None
        if self._changed_in_place(root, held):
            self.found.reasons.append("the arrays are changed in place after the dataset was made, which took a copy")
            return None
        steps = self._carrying(root)
        last = steps[-1] if steps else root
        self.found.add(
            [
                CellEdit(self.cell.end(root.func.value), self.cell.end(root), f".range(len({self._first(data)}))"),
                CellEdit(self.cell.end(last), self.cell.end(last), f".map(apply.rows({self.cell.text(data)}))"),
                *(maps := map_files(self.reader, held)),
            ],
            "look samples up instead of copying the arrays",
            "`from_tensor_slices` keeps a copy of the arrays, and a shuffle buffer one of its samples; here the "
            "pipeline carries the numbers of samples, and only the samples of a batch are copied.",
            (
                MAPPED_NOTE if maps else STAYS_NOTE,
                "The arrays must not change while the dataset is used.",
                *(() if "batch" in map(method, steps) else ("Samples are looked up one by one, which takes longer.",)),
                PACKAGE_NOTE,
            ),
            IMPORT,
        )
        return len(steps)

    def _carrying(self, root: ast.Call) -> list[ast.Call]:
        """Give the steps that shall carry numbers: up to the last batch, shuffle, cache or the like."""
        steps: list[ast.Call] = []
        for step in self.chain.steps:
            if method(step) not in _ANY_ELEMENT or (method(step) == "cache" and (step.args or step.keywords)):
                break
            if self._rebound(root, step):
                break
            steps.append(step)
        while steps and method(steps[-1]) in ("prefetch", "with_options"):
            steps.pop()
        return steps

    def _rebound(self, root: ast.Call, step: ast.Call) -> bool:
        """Whether a name of the arrays is bound between the start of the pipeline and a step of it."""
        after = self.reader.scopes.statement(root).lineno
        before = self.reader.scopes.statement(step).end_lineno or 0
        nodes = [n for n in ast.walk(self.cell.tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
        return any(n.id in _texts(root.args[0]) and after <= n.lineno <= before for n in nodes)

    def _changed_in_place(self, root: ast.Call, held: list[Held]) -> bool:
        names = _names(held) | _texts(root.args[0])
        later = (n for n in ast.walk(self.cell.tree) if getattr(n, "lineno", 0) >= root.lineno)
        return any(_changes(node, names) for node in later)

    def _plain(self, root: ast.Call, data: ast.expr) -> bool:
        """Whether no comment stands in the text that is replaced, and no bracket around the data."""
        assert isinstance(root.func, ast.Attribute)
        source = self.cell.source
        around = source[self.cell.end(root.func.value) : self.cell.start(data)]
        around += source[self.cell.end(data) : self.cell.end(root)]
        return "#" not in around and around.count("(") == 1

    def _first(self, data: ast.expr) -> str:
        while isinstance(data, (ast.Tuple, ast.Dict)):
            data = data.elts[0] if isinstance(data, ast.Tuple) else data.values[0]
        return self.cell.text(data)

    def _may_cache(self, step: ast.Call) -> bool:
        """Whether the cache can lie on disk: it is filled in one reading, and never by two at the same time."""
        before = self.chain.steps[: self.chain.steps.index(step)]
        if any(method(s) == "repeat" and not s.args and not s.keywords for s in before):
            self.found.reasons.append("the cache stands after an endless `repeat`, so it grows without end")
            return False
        uses = () if self.chain.name is None else self.chain.uses
        statements = {self.reader.scopes.statement(use) for use in uses or ()}
        parts = [use for use in uses or () if self._takes_part(use)]
        if uses is None or len(statements) < len(uses) or (len(uses) > 1 and parts):
            self.found.reasons.append("several readings at once may fill the cache, which one on disk does not allow")
            return False
        return True

    def _takes_part(self, use: ast.Name) -> bool:
        above = self.reader.scopes.parents[use]
        return isinstance(above, ast.Attribute) and above.attr in _PART

    def _cache(self, step: ast.Call) -> None:
        self.found.add(
            [insert_argument(self.cell, step, 'tempfile.mkdtemp() + "/cache"')],
            "cache on disk",
            "An in-memory cache holds every sample.",
            (
                "The cache is a new folder of temporary files in every run; they stay on disk until you delete them.",
                "Reading it from disk is slower than from memory, and two readers at once cannot fill it.",
            ),
            "import tempfile",
        )

    def _queue(self, step: ast.Call) -> None:
        given = [*step.args, *(k.value for k in step.keywords if k.arg == "buffer_size")]
        long = evaluate(self.reader, given[0]) if len(given) == 1 else None
        if isinstance(long, int) and long > LONGEST_QUEUE:
            self.found.add(
                [CellEdit(self.cell.start(given[0]), self.cell.end(given[0]), "2")],
                "a short queue",
                "A queue holds as many batches as it is long.",
                ("The input may be slower where single batches take long.",),
            )


def _has_lists(data: ast.expr) -> bool:
    return any(isinstance(node, ast.List) for node in ast.walk(data))


def _names(held: list[Held]) -> set[str]:
    return {one.name for one in held}


def _texts(root: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(root) if isinstance(n, ast.Name)}


def _changes(node: ast.AST, names: set[str]) -> bool:
    """Whether a statement or call changes one of the arrays in place."""
    if isinstance(node, ast.AugAssign):
        return _root(node.target) in names
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return _root(node) in names
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _CHANGERS and any(_root(one) in names for one in (node.func, *node.args)):
            return True
        return any(k.arg == "out" and _root(k.value) in names for k in node.keywords)
    return False


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
