"""Whether what failed only infers: it computes no gradients, and changes no weights."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.uses import called_name

_TRAINS = frozenset(
    "GradientTape fit train_on_batch apply_gradients minimize gradient gradients jacobian train_step apply "
    "assign assign_add assign_sub update_state_and_train".split()
)
_MAY_TRAIN = re.compile(r"(?i)train|step|fit|learn|update|optim|backward|epoch|adapt")
_INFERS = frozenset({"predict", "predict_on_batch", "test_on_batch", "evaluate"})


def only_infers(reader: Reader, regions: Iterable[ast.stmt]) -> bool:
    """Tell whether the code of ``regions`` surely infers and trains nothing, through the functions that it calls."""
    seen: set[str] = set()
    queue: list[ast.AST] = list(regions)
    infers = False
    while queue:
        for node in ast.walk(queue.pop()):
            if isinstance(node, ast.keyword) and node.arg == "training":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    return False
                infers = True
            if not isinstance(node, ast.Call):
                continue
            name = called_name(node)
            if name in _TRAINS:
                return False
            infers = infers or name in _INFERS or _is_model(reader, node.func)
            function = reader.notebook.function(name) if isinstance(node.func, ast.Name) and name else None
            if function is not None and name not in seen:
                queue.append(function.node)
            elif function is None and _MAY_TRAIN.search(name):
                return False
            seen.add(name)
    return infers


def _is_model(reader: Reader, func: ast.expr) -> bool:
    """Tell whether a model is called like a function, by a name that the facts know."""
    return isinstance(func, (ast.Name, ast.Attribute)) and reader.facts.model(reader.written(func)) is not None
