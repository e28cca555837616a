"""List to host: what a loop appends to a list is kept as NumPy arrays, in the computer's memory."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import GrownFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.diagnose.situation_data import joins
from tf_mem_magic.notebook.fills import Fill, fills_of
from tf_mem_magic.notebook.origins import tensorflow_name
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "list-to-host"
TITLE = "Keep a list in the computer's memory"
HELPS: tuple[SituationKind, ...] = ("growing",)
GUARDS = (device_memory, python, situation(HELPS, "no list of tensors that grew in this cell filled the memory"))

_ADDS = frozenset({"extend", "insert", "update", "setdefault", "appendleft"})
_OF_TENSORS = frozenset({"numpy", "get_shape", "set_shape", "as_list", "ref"})
_TAPES = frozenset({"GradientTape", "ForwardAccumulator"})
_WHY = (
    "A tensor in a list keeps its memory on the device; the same values as NumPy arrays lie in the computer's memory."
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where a list that the cell fills with tensors in a loop holds the memory."""
    diagnosis = ask.diagnosis
    assert diagnosis is not None  # its guard
    assert diagnosis.situation is not None  # its guard
    name = diagnosis.situation.holder
    grown = next((g for g in ask.facts.grown if g.name == name and g.device == diagnosis.device), None)
    if grown is None or not name.isidentifier():
        raise RefusedError(f"`{name}` is no plain name")
    if joins(diagnosis, grown.bytes):
        raise RefusedError(
            f"it ran out where the entries of `{name}` are joined, which takes all of them to the device"
        )
    fill = _the_fill(ask, name)
    tensor = fill.entry
    top = ask.statement(fill.statement)
    found = tensorflow_name(ask.names, ask.cell.tree.body.index(top))
    if found is None or found[1]:
        raise RefusedError("no name for TensorFlow is certain in this cell")
    tf = found[0]
    element = ask.notebook.free_name("t", "tensor")
    text = ask.cell.text(tensor)
    keep = f'{element}.numpy() if hasattr({element}, "numpy") else {element}'
    moved = f"{tf}.nest.map_structure(lambda {element}: {keep}, {text})"
    edit = ask.edit().replace(tensor, moved)
    home = ask.scopes.home(fill.name)
    made_here = any(binding.node is not fill.statement for binding in ask.scopes.of(home, name))
    if not made_here:
        # It is an earlier cell's list or dict: what the run that failed has added is still in it.
        drop = "pop" if fill.at_end else "popitem"
        edit = edit.before(top, f"while len({name}) > {grown.before}: {name}.{drop}()")
    return Proposal(
        key=KEY,
        title=f"Keep `{name}` in the computer's memory",
        source=edit.source(),
        original=ask.source,
        preserves="same results",
        caveats=(
            *(() if made_here else (f"What the run that failed had added to `{name}` is dropped first.",)),
            f"The entries of `{name}` become NumPy arrays: no gradient flows through them, and `.numpy()` is gone.",
        ),
        why=_WHY,
        answers_cause=True,
    )


def _the_fill(ask: Ask, name: str) -> Fill:
    """Find the one place where the cell adds to the list or dict, and be certain that its entries may be arrays."""
    fills = list(fills_of(ask.cell, name))
    more = [c for c in ask.cell.calls if called_name(c) in _ADDS and ast.unparse(c.func).rpartition(".")[0] == name]
    if len(fills) != 1 or more:
        raise RefusedError(f"the one place where `{name}` gets its entries was not found in the cell")
    fill = fills[0]
    inside = list(ask.scopes.up(fill.statement))
    function = next((n for n in inside if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))), None)
    if function is not None:
        _check_function(ask, function, fill)
    if any(isinstance(n, ast.With) and _is_tape(n) for n in inside):
        raise RefusedError(f"`{name}` is filled while a tape records, so its entries may be needed for gradients")
    own = set(ast.walk(fill.statement))
    for node in ask.scopes.loads.get((ask.scopes.home(fill.name), name), []):
        if node not in own and any(isinstance(n, ast.With) and _is_tape(n) for n in ask.scopes.up(node)):
            raise RefusedError(f"a tape reads `{name}`, and no gradient flows through arrays")
    asked = _asked_of_tensors(ask, name, ask.scopes.home(fill.name))
    if asked:
        raise RefusedError(f"the cell asks entries of `{name}` for `.{asked}()`, which arrays do not have")
    return fill


def _check_function(ask: Ask, function: ast.AST, fill: Fill) -> None:
    """Be certain that what fills a list is a function of the cell that is only called, and that the list is its own."""
    name = fill.name.id
    own = isinstance(function, ast.FunctionDef) and ask.scopes.home(fill.name) is function
    if not own or not isinstance(function, ast.FunctionDef) or ask.scopes.parents.get(function) is not ask.cell.tree:
        raise RefusedError("it is filled in a function, which TensorFlow may run as a graph")
    loads = ask.scopes.loads.get((ask.cell.tree, function.name), [])
    called = all(isinstance(up := ask.scopes.parents.get(n), ast.Call) and up.func is n for n in loads)
    elsewhere = any(use.cell is not ask.cell for use in ask.notebook.uses(function.name))
    if function.decorator_list or not called or elsewhere:
        raise RefusedError(f"it is filled in `{function.name}`, which TensorFlow may run as a graph")
    if all(binding.node is fill.statement or binding.kind == "param" for binding in ask.scopes.of(function, name)):
        raise RefusedError(f"`{function.name}` is given the list, and what else is done with it is not known")
    if any(isinstance(n, ast.With) and _is_tape(n) for n in ask.cell.nodes):
        raise RefusedError(f"the cell records on a tape, and no gradient flows through arrays in `{name}`")
    given = (n for n in ast.walk(function) if isinstance(n, (ast.Return, ast.Yield)) and n.value is not None)
    if any(_is_handed_on(n.value, name) for n in given if n.value is not None):
        inside = set(ast.walk(function))
        asks = (n.attr for n in ask.cell.nodes if isinstance(n, ast.Attribute) and n not in inside)
        asked = next((attr for attr in asks if attr in _OF_TENSORS), "")
        if asked:
            raise RefusedError(f"`{function.name}` gives `{name}` back, and the cell asks for `.{asked}()` outside it")


def _is_handed_on(given: ast.expr, name: str) -> bool:
    """Tell whether a list leaves a function as it is, alone or among others, and not by what a call makes of it."""
    if isinstance(given, (ast.Tuple, ast.List)):
        return any(_is_handed_on(one, name) for one in given.elts)
    return not isinstance(given, ast.Call) and _mentions(given, name)


def _asked_of_tensors(ask: Ask, name: str, home: ast.AST) -> str:
    """Give what only tensors have that the cell asks entries of the list for; empty where it asks nothing such.

    An entry is reached by the list itself, by a loop over it, or by a name that it was given.
    """
    entries = {name}
    for node in ask.cell.nodes:
        if isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)) and _mentions(node.iter, name):
            entries |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.Assign) and _root(node.value) == name and not isinstance(node.value, ast.Call):
            entries |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    asks = (n for n in ask.cell.nodes if isinstance(n, ast.Attribute) and n.attr in _OF_TENSORS)
    inside = (node.attr for node in asks if _root(node) in entries)
    return next(inside, "") or _asked_elsewhere(ask, name, home)


def _asked_elsewhere(ask: Ask, name: str, home: ast.AST) -> str:
    """Give what a function of an earlier cell that reads the list by its name asks tensors for."""
    if home is not ask.cell.tree:
        return ""
    reads = (use for use in ask.notebook.uses(name) if use.cell is not ask.cell and use.kind == "reads")
    uses = [use for use in reads if use.cell.scopes.home(use.node) is use.cell.tree]
    functions = {
        parent for use in uses for parent in use.cell.scopes.up(use.node) if isinstance(parent, ast.FunctionDef)
    }
    parts = (n for function in functions for n in ast.walk(function) if isinstance(n, ast.Attribute))
    return next((n.attr for n in parts if n.attr in _OF_TENSORS), "")


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_tape(statement: ast.With) -> bool:
    calls = (item.context_expr for item in statement.items)
    return any(isinstance(c, ast.Call) and called_name(c) in _TAPES for c in calls)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node))


def _example(name: str, cell: str, expect: str, declined: bool = False, **more: Any) -> Example:
    situation = more.pop("situation", Situation("growing", "`grads` went from 0 to 48 entries.", holder="grads"))
    grown = (GrownFacts("grads", 0, 48, 190 << 20, "tf.Tensor", "GPU:0"),)
    earlier = more.pop("earlier_cells", ("import tensorflow as tf",))
    diagnosis = Diagnosis("GPU:0", line=3, in_use=199 << 20, situation=situation)
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, grown=grown, earlier_cells=earlier)


_LOOP = "%%tfmem\nfor x in data:\n    g = step(x)\n    grads.append({0})\n"
_OWN = (
    "%%tfmem\ndef go(data):\n    grads = []\n    for x in data: grads.append({0})\n    return tf.add_n(grads)\ngo(d)\n"
)
_EMPTIED = "while len(grads) > 0: grads.pop()\n"
_MOVED = 'tf.nest.map_structure(lambda t: t.numpy() if hasattr(t, "numpy") else t, {0})'

EXAMPLES: tuple[Example, ...] = (
    _example(
        "an earlier cell's list, filled in a loop",
        _LOOP.format("g"),
        _LOOP.format(_MOVED.format("g")).replace("%%tfmem\n", "%%tfmem\n" + _EMPTIED),
    ),
    _example(
        "the cell's own list, and an expression",
        "%%tfmem\ngrads = []\nfor x in data: grads.append(step(x)[0] * 2)\n",
        "%%tfmem\ngrads = []\nfor x in data: grads.append(" + _MOVED.format("step(x)[0] * 2") + ")\n",
    ),
    _example(
        "in a function",
        "%%tfmem\ndef go(x):\n    grads.append(step(x))\n\nfor x in data: go(x)\n",
        "filled in a function",
        declined=True,
    ),
    _example(
        "a list of a function's own",
        _OWN.format("step(x)"),
        _OWN.format(_MOVED.format("step(x)")),
    ),
    *(
        _example(f"{what}, in a function", f"%%tfmem\n{cell}", reason, declined=True)
        for what, cell, reason in (
            (
                "made a graph",
                "@tf.function\ndef go():\n    grads = []\n    for x in data: grads.append(step(x))\ngo()\n",
                "may run as a graph",
            ),
            (
                "made a graph later",
                "def go():\n    grads = []\n    for x in data: grads.append(step(x))\ntf.function(go)()\n",
                "may run as a graph",
            ),
            (
                "a list that it is given",
                "def go(grads):\n    for x in data: grads.append(step(x))\ngo(all)\n",
                "is given the list",
            ),
            (
                "called while a tape records",
                "def go():\n    grads = []\n    for x in data: grads.append(step(x))\n    return grads\n"
                "with tf.GradientTape() as tape:\n    y = go()\n",
                "records on a tape",
            ),
            (
                "given back to where it is asked for numpy()",
                "def go():\n    grads = []\n    for x in data: grads.append(step(x))\n    return grads, 1\n"
                "print(go()[0][0].numpy())\n",
                "asks for `.numpy()` outside",
            ),
        )
    ),
    _example(
        "a tape reads it",
        _LOOP.format("g") + "with tf.GradientTape() as tape:\n    z = tf.add_n(grads)\n",
        "a tape reads `grads`",
        declined=True,
    ),
    _example(
        "filled while a tape records",
        "%%tfmem\nwith tf.GradientTape() as tape:\n    grads.append(step(x))\n",
        "while a tape records",
        declined=True,
    ),
    _example(
        "its entries are asked for numpy()",
        _LOOP.format("g") + "print(grads[0].numpy())\n",
        "asks entries of `grads` for `.numpy()`",
        declined=True,
    ),
    _example(
        "as a sum",
        "%%tfmem\ngrads = []\nfor x in data:\n    grads += [step(x)]\n",
        "%%tfmem\ngrads = []\nfor x in data:\n    grads += [" + _MOVED.format("step(x)") + "]\n",
    ),
    _example(
        "a dict of an earlier cell",
        "%%tfmem\nfor n, x in enumerate(data):\n    grads[n] = step(x)\n",
        f"%%tfmem\n{_EMPTIED.replace('pop', 'popitem')}for n, x in enumerate(data):\n"
        f"    grads[n] = {_MOVED.format('step(x)')}\n",
    ),
    _example(
        "entries of a loop over it are asked for numpy()",
        _LOOP.format("g") + "print(np.mean([one.numpy() for n, one in enumerate(grads)]))\n",
        "asks entries of `grads` for `.numpy()`",
        declined=True,
    ),
    _example(
        "an entry with a name of its own is asked for its shape",
        _LOOP.format("g") + "last = grads[-1]\nprint(last.shape.as_list())\n",
        "asks entries of `grads` for `.as_list()`",
        declined=True,
    ),
    _example(
        "a function of an earlier cell asks for numpy()",
        _LOOP.format("g") + "show()\n",
        "asks entries of `grads` for `.numpy()`",
        declined=True,
        earlier_cells=("import tensorflow as tf", "def show():\n    print([g.numpy().mean() for g in grads])"),
    ),
    _example(
        "what is computed of them is a tensor all the same",
        _LOOP.format("g") + "total = tf.add_n(grads)\nprint(total.numpy())\n",
        _LOOP.format(_MOVED.format("g")).replace("%%tfmem\n", "%%tfmem\n" + _EMPTIED)
        + "total = tf.add_n(grads)\nprint(total.numpy())\n",
    ),
    _example("two places", _LOOP.format("g") + "grads.append(g)\n", "the one place", declined=True),
    _example("an ordinary step", _LOOP.format("g"), "no list of tensors", declined=True, situation=None),
)
