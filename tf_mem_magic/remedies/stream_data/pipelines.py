"""What makes a ``tf.data`` pipeline hold much memory, and the edits that take it away."""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass, field

from tf_mem_magic.core.proposals import Preserves, RefusedError
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.edits import IMPORT
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_argument, insert_on_top
from tf_mem_magic.remedies.stream_data.dataset_chains import Chain, Chains, method
from tf_mem_magic.remedies.stream_data.dataset_slices import LookedUp, look_up_samples
from tf_mem_magic.remedies.stream_data.shuffle_buffers import SHARE, draws_nothing, is_many, move_before_maps
from tf_mem_magic.remedies.stream_data.streaming import Change

LONGEST_QUEUE = 16
"""Batches prepared ahead beyond which a shorter queue is proposed."""

_PART = frozenset({"take", "skip", "shard"})


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

    def weaken(self, same: bool) -> None:
        if not same:
            self.preserves = "same effective batch"

    def add(self, edits: list[CellEdit], title: str, why: str, caveats: tuple[str, ...], top: str = "") -> None:
        self.edits += edits
        for known, new in ((self.titles, title), (self.whys, why), (self.top, top)):
            if new and new not in known:
                known.append(new)
        self.caveats += [one for one in caveats if one not in self.caveats]


def stream_pipelines(
    reader: Reader, line: int | None, limit: int | None, in_use: Collection[int] = ()
) -> Change | None:
    """Change the pipelines of a cell so that they hold less; None where there is nothing to change.

    ``line`` is the cell's line that ran out: a pipeline that is made only below it is left alone. What the lines of
    ``in_use`` make is in use whatever that line reads. Refused where what holds much cannot be changed.
    """
    found = _Found()
    chains = Chains(reader)
    made = [c for c in chains.find() if line is None or reader.scopes.top_statement(c.root).lineno <= line]
    used = [chain.root.lineno in in_use or _is_in_use(reader, chain, line) for chain in made]
    pipelines = [_Pipeline(reader, chains, chain, found) for chain in made]
    for pipeline, is_used in zip(pipelines, used):
        pipeline.change(limit, is_used)
    if not found.edits and not found.reasons:
        for pipeline, is_used in zip(pipelines, used):
            if is_used:
                pipeline.bound()
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


def _is_in_use(reader: Reader, chain: Chain, line: int | None) -> bool:
    """Whether the statement that ran out makes the pipeline, or reads the name that holds it."""
    if line is None:
        return True
    tops = [s for s in reader.cell.tree.body if s.lineno <= line <= (s.end_lineno or s.lineno)]
    nodes = [node for top in tops for node in ast.walk(top)]
    named = chain.name is not None and any(isinstance(n, ast.Name) and n.id == chain.name.name for n in nodes)
    return named or chain.root in nodes or not isinstance(reader.scopes.scope_of(chain.root), ast.Module)


class _Pipeline:
    """One pipeline, and the edits that it needs."""

    def __init__(self, reader: Reader, chains: Chains, chain: Chain, found: _Found) -> None:
        self.reader, self.cell, self.chains, self.chain, self.found = reader, reader.cell, chains, chain, found

    def change(self, limit: int | None, in_use: bool) -> None:
        rest = list(self.chain.steps)
        looked_up = self._slices(limit)
        if looked_up is not None:
            rest = rest[looked_up:]
        for step in rest:
            if method(step) == "cache" and not step.args and not step.keywords and self._may_cache(step):
                self._cache(step)
            elif method(step) == "shuffle" and looked_up is None:
                self._shuffle(step, in_use)
            else:
                self._queue(step)

    def _slices(self, limit: int | None) -> int | None:
        """Let the pipeline carry the numbers of samples; give how many of its steps do that (None: no change)."""
        looked_up = look_up_samples(self.reader, self.chains, self.chain, limit)
        if isinstance(looked_up, str):
            self.found.reasons.append(looked_up)
        if not isinstance(looked_up, LookedUp):
            return None
        self.found.add(
            list(looked_up.edits),
            "look samples up instead of copying the arrays",
            "`from_tensor_slices` keeps a copy of the arrays, and a shuffle buffer one of its samples; here the "
            "pipeline carries the numbers of samples, and only the samples of a batch are copied.",
            looked_up.caveats,
            IMPORT,
        )
        return looked_up.steps

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

    def _shuffle(self, step: ast.Call, in_use: bool) -> None:
        """Shuffle before the samples are loaded, where that is the same order; else use a smaller buffer."""
        many = is_many(self.reader, self.chain, step)
        moved = move_before_maps(self.reader, self.chains, self.chain, step)
        if moved:
            pure = draws_nothing(self.reader, self.chains, self.chain, step)
            drawn = "Where the function of `.map` draws random numbers, they now meet other samples."
            self.found.weaken(pure)
            self.found.add(
                moved,
                "shuffle before loading",
                "A shuffle buffer holds whole samples; before `.map` it holds only what they are made from.",
                () if pure else (drawn,),
            )
        elif many is not None and in_use and not self._is_small(step):
            size = int(evaluate(self.reader, many) or 0)
            smaller = max(size // SHARE, 1)
            self.found.weaken(False)
            self.found.add(
                [CellEdit(self.cell.start(many), self.cell.end(many), str(smaller))],
                f"shuffle buffer {size} → {smaller}",
                "A shuffle buffer holds as many elements as it is long.",
                ("The order is another one, and mixed less: data sorted by class want mixing on disk first.",),
            )

    def _is_small(self, step: ast.Call) -> bool:
        """Whether the buffer holds only numbers or file names."""
        source = any(self.chains.is_source(self.chain.root, f"Dataset.{name}") for name in ("range", "list_files"))
        return source and "map" not in map(method, self.chain.steps[: self.chain.steps.index(step)])

    def _queue(self, step: ast.Call) -> None:
        """Shorten what is prepared ahead where it is plainly long."""
        for node, least in self._ahead(step):
            long = evaluate(self.reader, node)
            if isinstance(long, int) and long > LONGEST_QUEUE:
                self.found.add(
                    [CellEdit(self.cell.start(node), self.cell.end(node), str(least))],
                    "a short queue",
                    "A queue holds as many batches as it is long.",
                    ("The input may be slower where single batches take long.",),
                )

    def bound(self) -> None:
        """Set what TensorFlow chooses itself to prepare ahead to small numbers."""
        for step in self.chain.steps:
            for node, least in self._ahead(step):
                if self.chains.names.origin(node).endswith(".AUTOTUNE") or evaluate(self.reader, node) == -1:
                    self.found.add(
                        [CellEdit(self.cell.start(node), self.cell.end(node), str(least))],
                        "prepare less ahead",
                        "Under `AUTOTUNE` TensorFlow prepares as many elements ahead as it finds room for on the "
                        "machine, which may be more than this process may use.",
                        ("The input may be slower.",),
                    )

    def _ahead(self, step: ast.Call) -> list[tuple[ast.expr, int]]:
        """List the arguments that say how much is prepared ahead, each with a small value for it."""
        queue = [*step.args, *(k.value for k in step.keywords if k.arg == "buffer_size")]
        found = [(node, 2) for node in queue if method(step) == "prefetch" and len(queue) == 1]
        return found + [(k.value, 2) for k in step.keywords if k.arg == "num_parallel_calls"]
