"""Graph mode: the training step as a TensorFlow graph, which lets go of each result after its last use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.origins import reaches_tensorflow
from tf_mem_magic.notebook.text.cell import PythonCell, parse
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_line, shares_line
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.guards import device_memory, no_strategy, smaller_than_device
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.graph_mode.numbers import is_entry, loops_over_numbers, number_lists
from tf_mem_magic.remedies.graph_mode.set_anew import set_anew
from tf_mem_magic.remedies.graph_mode.shapes import changing_shape
from tf_mem_magic.remedies.graph_mode.traceable import counts_samples, held_objects, untraceable

KEY = "graph-mode"
TITLE = "Graph mode"
GUARDS = (
    device_memory.saying("the computer's own memory ran out, not the memory that training steps use"),
    smaller_than_device.saying("one allocation alone is larger than the device, and a graph makes it too"),
)

_WHY = (
    "Run eagerly, Python holds every intermediate result until its name is let go; a graph lets go of each one after "
    "its last use."
)
_CAVEATS = (
    "Random numbers differ: a graph draws dropout masks and the like from other seeds.",
    "It is traced once for each shape of its inputs, and once more for a smaller last batch.",
    "Python inside runs when it is traced, not at each step.",
)
_EAGERLY = "run_eagerly"
_FUNCTIONS = "run_functions_eagerly"
_UPDATES = frozenset({"apply_gradients", "apply", "minimize", "assign", "assign_add", "assign_sub"})
_KERAS_METHODS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics", "update_state", "result")


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer a graph where the cell trains eagerly and its step does the same as one."""
    cell, facts = ask.cell, ask.facts
    if _functions_run_eagerly(ask):
        raise RefusedError("tf.config.run_functions_eagerly is used: take that out, and graphs are graphs again")
    no_strategy.saying("the training runs under a distribution strategy")(ask)
    edits, title, undo = _of_keras(cell, facts) or _of_step(cell, facts)
    changed = ask.edit().edit(*edits).source()
    return Proposal(
        key=KEY,
        title=title,
        source=changed,
        original=ask.source,
        preserves="close numerics",
        caveats=_CAVEATS,
        why=_WHY,
        undo=undo,
    )


_Change = tuple[list[CellEdit], str, str]


def _functions_run_eagerly(ask: Ask) -> bool:
    """Tell whether functions run eagerly for what a cell last set: not by a comment, nor where it was taken back."""
    found = [(cell, call) for cell in ask.notebook.cells_with(_FUNCTIONS) for call in cell.calls]
    found = [(cell, call) for cell, call in found if called_name(call) == _FUNCTIONS]
    if not found:
        return False
    cell = found[-1][0]
    last = max((call for one, call in found if one is cell), key=cell.start)
    plain = any(isinstance(one, ast.Expr) and one.value is last for one in cell.tree.body)
    return not all(map(_sets_graphs, (last,) if plain else (call for _, call in found)))


def _sets_graphs(call: ast.Call) -> bool:
    """Tell whether ``run_functions_eagerly`` is surely given False."""
    given = [*call.args, *(one.value for one in call.keywords)]
    return len(given) == 1 and isinstance(given[0], ast.Constant) and given[0].value is False


def _of_keras(cell: PythonCell, facts: Facts) -> _Change | None:
    """Take ``run_eagerly=True`` back, in ``compile`` or on a model compiled earlier; None where it is not set."""
    calls = [n for n in ast.walk(cell.tree) if isinstance(n, ast.Call)]
    given = [k for c in calls if called_name(c) == "compile" for k in c.keywords if k.arg == _EAGERLY]
    if given:
        return _in_compile(cell, facts, given)
    fits = [c for c in calls if called_name(c) == "fit" and isinstance(c.func, ast.Attribute)]
    names = {ast.unparse(c.func.value) for c in fits if isinstance(c.func, ast.Attribute)}
    models = [m for m in facts.models if m.name in names]
    if not fits:
        return None
    if not any(model.run_eagerly for model in models):
        raise RefusedError("Keras already runs this training as a graph, as far as is known")
    if len(models) != 1 or len(fits) != 1:
        raise RefusedError("the cell calls `fit` more than once, and which call ran out is not followed")
    _check_methods(cell, facts)
    at = next(s for s in cell.tree.body if fits[0] in set(ast.walk(s)))
    if isinstance(at, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or shares_line(cell, at):
        raise RefusedError("the call of fit stands where no line can be put before it")
    model = models[0].name
    if binds_model(at, model):
        raise RefusedError(f"`{model}` is made or chosen in the statement that trains it")
    if f"{model}.{_EAGERLY}" in {ast.unparse(n) for n in ast.walk(cell.tree) if isinstance(n, ast.Attribute)}:
        raise RefusedError(f"the cell sets `{model}.{_EAGERLY}` itself")
    lines = (f"{model}.run_eagerly = False", f"{model}.train_function = {model}.test_function = None")
    return (
        [insert_line(cell, at, *lines)],
        f"`{model}` as a graph",
        "\n".join((f"{model}.run_eagerly = True", lines[1])),
    )


def _in_compile(cell: PythonCell, facts: Facts, given: list[ast.keyword]) -> _Change:
    on = [k.value for k in given if isinstance(k.value, ast.Constant) and k.value.value is True]
    if len(given) != 1 or len(on) != 1:
        raise RefusedError(f"`{_EAGERLY}` is set in a way that cannot be followed, or is off")
    _check_methods(cell, facts)
    edit = CellEdit(cell.start(on[0]), cell.end(on[0]), "False")
    return [edit], f"{_EAGERLY}=False", ""


def _check_methods(cell: PythonCell, facts: Facts) -> None:
    """Refuse where a model's own method, or a function handed to Keras, would not do the same in a graph."""
    functions = _functions(cell, facts)
    compiles = any(called_name(call) == "compile" for call in cell.calls)
    fits = [] if compiles else [call for call in cell.calls if called_name(call) == "fit"]
    changing = set_anew(cell, _trees(cell, facts), fits)
    held = held_objects(_trees(cell, facts))
    for tree in _trees(cell, facts):
        classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        called = [f for c in classes for f in c.body if isinstance(f, ast.FunctionDef) and f.name in _KERAS_METHODS]
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called_name(n) in ("compile", "Lambda")]
        handed = {n for c in calls for n in _names(c)}
        for function in (*called, *(f for name, f in functions.items() if name in handed)):
            _check(untraceable(function, functions, changing, held))
            _check(_branch(function) or counts_samples(function, functions))


def _branch(function: ast.FunctionDef) -> str:
    """Say which test of a function may be of a tensor: Keras does not turn Python's branches into a graph's."""
    for node in ast.walk(function):
        if not isinstance(node, (ast.If, ast.While, ast.IfExp)) or "is None" in (test := ast.unparse(node.test)):
            continue
        if "is not None" not in test and not re.fullmatch(r"(?:not )?(?:training|self\.[\w.]+)", test):
            return f"`{function.name}` branches on `{test}`, which in a graph may be a tensor"
    return ""


def _of_step(cell: PythonCell, facts: Facts) -> _Change:
    """Put ``@tf.function`` on the one function of the cell that takes a training step."""
    steps = [n for n in cell.tree.body if isinstance(n, ast.FunctionDef) and _takes_step(n)]
    if len(steps) != 1:
        raise RefusedError(_no_step(cell, steps))
    step = steps[0]
    if step.decorator_list:
        decorators = ", ".join(ast.unparse(d) for d in step.decorator_list)
        graph = "function" in decorators
        raise RefusedError(f"`{step.name}` is a graph already" if graph else f"`{step.name}` is decorated already")
    calls = _calls_of(cell, step)
    listed = number_lists(_trees(cell, facts))
    changing = frozenset((*_changing(cell.tree), *loops_over_numbers(cell.tree, listed)))
    for call in calls:
        part = changing_shape(cell, _trees(cell, facts), call, changing)
        if part:
            raise RefusedError(
                f"`{step.name}` is given `{part}`, whose shape may be another at each call: each would be traced anew"
            )
        given = (*call.args, *(k.value for k in call.keywords))
        bad = next((a for a in given if _names(a) & changing and not is_entry(a, listed)), None)
        if bad is not None:
            raise RefusedError(
                f"`{step.name}` is given `{ast.unparse(bad)}`, which may be a Python number: each would be traced anew"
            )
    changing |= set_anew(cell, _trees(cell, facts), calls)
    _check(untraceable(step, _functions(cell, facts), changing, held_objects(_trees(cell, facts))))
    handle = reaches_tensorflow(cell, facts)
    if handle is None or handle in {n.id for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and _stores(n)}:
        raise RefusedError("the cell does not surely reach TensorFlow by a name")
    return [insert_line(cell, step, f"@{handle}.function")], f"`{step.name}` as a tf.function", ""


def _calls_of(cell: PythonCell, step: ast.FunctionDef) -> list[ast.Call]:
    """List the calls of the step; refuse where it is wrapped, handed on, or not called in a loop."""
    uses = [n for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and n.id == step.name]
    calls = [n for n in ast.walk(cell.tree) if isinstance(n, ast.Call) and n.func in uses]
    wrapped = [c for c in ast.walk(cell.tree) if isinstance(c, ast.Call) and any(a in uses for a in c.args)]
    if any(ast.unparse(c.func).endswith("function") for c in wrapped):
        raise RefusedError(f"`{step.name}` is a graph already")
    if len(calls) != len(uses) or not calls:
        raise RefusedError(f"`{step.name}` is not simply called in this cell")
    if any(isinstance(a, ast.Starred) for c in calls for a in c.args):
        raise RefusedError(f"what `{step.name}` is called with cannot be followed")
    return calls


def _no_step(cell: PythonCell, steps: list[ast.FunctionDef]) -> str:
    """Say why the training step is not one function of the cell."""
    if steps:
        return f"more than one function takes a training step: {', '.join(f'`{s.name}`' for s in steps)}"
    called = {called_name(call) for call in cell.calls}
    if "GradientTape" not in called:
        return "the cell has no training loop of its own with a GradientTape"
    adds = any(isinstance(n, ast.AugAssign) and not isinstance(n.value, ast.Constant) for n in cell.nodes)
    if not (called & _UPDATES or adds):
        return "the cell takes gradients, and no update of weights by them can be seen"
    holders = [n for n in cell.nodes if isinstance(n, ast.FunctionDef) and "GradientTape" in _called(n)]
    graphs = [n.name for n in holders if any("function" in ast.unparse(d) for d in n.decorator_list)]
    if len(holders) == len(graphs) == 1:
        return f"`{graphs[0]}` is a graph already"
    if len(holders) == 1 and "apply_gradients" not in _called(holders[0]):
        return f"`{holders[0].name}` takes the gradients without `apply_gradients`, so it may be no whole training step"
    return "the training step is not one function of its own: put it in one to make it a graph"


def _called(tree: ast.AST) -> set[str]:
    return {called_name(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _takes_step(function: ast.FunctionDef) -> bool:
    names = _called(function)
    looping = any(isinstance(n, (ast.For, ast.While)) for n in ast.walk(function))
    return {"GradientTape", "apply_gradients"} <= names and not looping


def _changing(tree: ast.Module) -> Iterator[str]:
    """Yield names that hold Python numbers which change as the cell runs: counters of loops, and sums."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and not isinstance(node.target, ast.Attribute):
            yield from _names(node.target)
        if isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.iter, ast.Call):
            name = called_name(node.iter)
            if name in ("range", "trange", "count"):
                yield from _names(node.target)
            if name == "enumerate" and isinstance(node.target, ast.Tuple):
                yield from _names(node.target.elts[0])
        if isinstance(node, (ast.For, ast.While)):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Assign) and isinstance(inner.value, (ast.BinOp, ast.Constant, ast.BoolOp)):
                    for target in inner.targets:
                        yield from _names(target) if not isinstance(target, ast.Attribute) else ()


def _functions(cell: PythonCell, facts: Facts) -> dict[str, ast.FunctionDef]:
    found = (n for tree in _trees(cell, facts) for n in ast.walk(tree))
    return {n.name: n for n in found if isinstance(n, ast.FunctionDef)}


def _trees(cell: PythonCell, facts: Facts) -> list[ast.Module]:
    return [*(tree for tree in map(parse, facts.earlier_cells) if tree is not None), cell.tree]


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _stores(name: ast.Name) -> bool:
    return not isinstance(name.ctx, ast.Load)


def _check(reason: str) -> None:
    if reason:
        raise RefusedError(reason)


def _known(source: str, line: int, *models: ModelFacts, device: str = "GPU:0") -> Context:
    facts = Facts("2.21.0", "3.15.1", True, models=models, earlier_cells=("import keras\nimport tensorflow as tf",))
    cell = Cell(source)
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis(device, line=line))


_STEP = """%%tfmem
{0}def step(a, b):
    with tf.GradientTape() as tape:
        loss = loss_of(b, model(a, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss

for a, b in data:
    print(float(step(a, b)))
"""
_COMPILE = '%%tfmem\nmodel.compile("adam", "mse", run_eagerly={0})\nmodel.fit(x, y)'
_EAGER = ModelFacts("model", ("Dense",), run_eagerly=True, steps_before=0)

EXAMPLES: tuple[Example, ...] = (
    Example("the step of a custom loop", _known(_STEP.format(""), 10), _STEP.format("@tf.function\n")),
    Example("run_eagerly in compile", _known(_COMPILE.format("True"), 3, _EAGER), _COMPILE.format("False")),
    Example(
        "a model that an earlier cell compiled with run_eagerly",
        _known("%%tfmem\nmodel.fit(x, y)", 2, _EAGER),
        "%%tfmem\nmodel.run_eagerly = False\nmodel.train_function = model.test_function = None\nmodel.fit(x, y)",
    ),
    Example("a graph already", _known(_STEP.format("@tf.function\n"), 10), "a graph already", declined=True),
    Example(
        "a step that reads a value",
        _known(_STEP.format("").replace("return loss\n", "return loss.numpy()\n"), 10),
        "calls `.numpy()`",
        declined=True,
    ),
    Example(
        "a step that keeps a history",
        _known(_STEP.format("").replace("return loss\n", "history.append(loss)\n"), 10),
        "calls `history.append`",
        declined=True,
    ),
    Example(
        "Keras trains as a graph",
        _known("%%tfmem\nmodel.fit(x, y)", 2, ModelFacts("model", steps_before=0)),
        "already runs this training as a graph",
        declined=True,
    ),
    Example(
        "host memory ran out", _known(_STEP.format(""), 10, device="host"), "the computer's own memory", declined=True
    ),
)
