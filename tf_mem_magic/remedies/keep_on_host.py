"""Keep on the host: a data set of large arrays stays in the computer's memory, and only its batches go to the GPU."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.origins import tensorflow_name
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory, no_strategy, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "keep-on-host"
TITLE = "Keep the data on the host"
HELPS: tuple[SituationKind, ...] = ("constant",)
GUARDS = (
    device_memory,
    no_strategy,
    python,
    situation(HELPS, "it was not an array copied to the device as a whole that ran out"),
)

_SLICES = frozenset({"from_tensor_slices", "from_tensors"})
_METHODS = _SLICES | frozenset(
    "batch padded_batch shuffle repeat prefetch cache take skip shard map filter with_options astype reshape".split()
)
_FUNCTIONS = frozenset("len int float min max range zip".split())
"""Methods and functions beside them in the statement that compute nothing on a GPU when the data set is made."""

_WHY = (
    "`from_tensor_slices` makes one constant of the whole array, on the GPU where there is one; made under the CPU's "
    "device it stays in the computer's memory, and each batch is copied when it is needed."
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where a data set of whole arrays was copied to a GPU before the first step."""
    statement = ask.failing_statement
    if statement is None:
        raise RefusedError("the statement that ran out of memory was not found in the cell")
    place = ask.cell.tree.body.index(statement)
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
    if not any(called_name(call) in _SLICES for call in calls):
        raise RefusedError("the statement that ran out makes no data set of arrays")
    other = next((call for call in calls if not _is_plain(call)), None)
    if other is not None:
        called = ast.unparse(other.func)
        raise RefusedError(f"the statement also calls `{called}`, and where that computes is not known")
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        name = f"the class `{statement.name}`" if isinstance(statement, ast.ClassDef) else f"`{statement.name}`"
        raise RefusedError(f"it ran out in {name}, and what else calls that is not certain")
    found = tensorflow_name(ask.names, place)
    if found is None:
        raise RefusedError("what `tf` means in this cell is not certain")
    tf, lines = found
    return Proposal(
        key=KEY,
        title="Keep the data in the computer's memory",
        source=ask.edit().around(place, place, f'with {tf}.device("CPU:0"):', *lines),
        original=ask.source,
        preserves="same results",
        caveats=("Each batch is copied to the GPU when it is needed; `prefetch` hides that.",),
        why=_WHY,
        answers_cause=True,
    )


def _is_plain(call: ast.Call) -> bool:
    """Whether a call computes nothing on a GPU when the data set is made."""
    return called_name(call) in (_METHODS if isinstance(call.func, ast.Attribute) else _FUNCTIONS)


def _example(
    name: str, cell: str, expect: str, declined: bool = False, kind: Any = "constant", line: int = 2
) -> Example:
    diagnosis = Diagnosis(
        "GPU:0", op="_EagerConst", line=line, situation=Situation(kind, "The whole array was copied.")
    )
    earlier = ("import numpy as np\nimport tensorflow as tf",)
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, earlier_cells=earlier)


_SET = "ds = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1000).batch(32)"
_MAPPED = "ds = (\n    tf.data.Dataset.from_tensor_slices(x)\n    .map(lambda a: a / 255)\n    .batch(32)\n)"

EXAMPLES: tuple[Example, ...] = (
    _example("a data set of arrays", f"%%tfmem\n{_SET}\n", f'%%tfmem\nwith tf.device("CPU:0"):\n    {_SET}\n'),
    _example(
        "over several lines, mapped",
        f"%%tfmem\n{_MAPPED}\n",
        '%%tfmem\nwith tf.device("CPU:0"):\n    ' + _MAPPED.replace("\n", "\n    ") + "\n",
    ),
    _example(
        "in the middle of a cell",
        f"%%tfmem\nn = 3\n{_SET}\nprint(n)\n",
        f'%%tfmem\nn = 3\nwith tf.device("CPU:0"):\n    {_SET}\nprint(n)\n',
        line=3,
    ),
    _example(
        "what else the statement calls is not known",
        "%%tfmem\nds = tf.data.Dataset.from_tensor_slices(load()).batch(32)\n",
        "also calls `load`",
        declined=True,
    ),
    _example("no data set", "%%tfmem\nz = tf.constant(x)\n", "makes no data set of arrays", declined=True),
    _example("an ordinary step", "%%tfmem\nmodel.fit(x, y)\n", "not an array copied", declined=True, kind="weight"),
    _example(
        "a function",
        "%%tfmem\ndef data():\n    return tf.data.Dataset.from_tensor_slices(x)\n\nd = data()\n",
        "ran out in `data`",
        declined=True,
        line=3,
    ),
)
