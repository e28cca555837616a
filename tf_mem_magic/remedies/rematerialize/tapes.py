"""The tapes on which the training that ran out records, by the notebook's own code."""

from __future__ import annotations

import ast

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import TRAINING, Ask

_MOST = 60


def tapes_of(ask: Ask) -> list[ast.Call]:
    """List the calls of ``GradientTape`` in what ran: the cell, what it calls, and the model's own training step.

    Other cells may hold tapes for other purposes: they do not count.
    """
    own_step: bool | None = True
    queue: list[tuple[PythonCell, ast.AST]] = [(ask.cell, ask.cell.tree)]
    try:
        place = ask.place
    except RefusedError:
        place = None
    if place is not None and place.facts is not None:
        own_step = place.facts.own_step
        queue = [(ask.cell, place.top)] if place.by_keras and own_step is False else queue
    found: dict[int, ast.Call] = {}
    seen = set[str]()
    steps = () if own_step is False else ask.notebook.cells_with("train_step")
    while queue and len(seen) < _MOST:
        cell, top = queue.pop()
        for node in ast.walk(top):
            if isinstance(node, ast.Call) and called_name(node) == "GradientTape":
                found[id(node)] = node
            elif isinstance(node, ast.Call) and called_name(node) in TRAINING and steps:
                # Only Keras's own methods call a model's training step.
                classes = [(c, n) for c in steps for n in c.tree.body if isinstance(n, ast.ClassDef) and _has_step(n)]
                steps, queue = (), [*queue, *classes]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in seen:
                if cell.scopes.home(node) is not cell.tree:
                    continue  # a parameter or a name of a function's own
                seen.add(node.id)
                function = ask.notebook.function(node.id)
                if function is not None and not isinstance(function.node, ast.ClassDef):
                    queue.append((function.cell, function.node))
    return list(found.values())


def _has_step(node: ast.ClassDef) -> bool:
    return any(isinstance(s, ast.FunctionDef) and s.name == "train_step" for s in node.body)
