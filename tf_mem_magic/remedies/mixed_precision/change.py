"""The change to the cell: a policy before the model is built, or a call that changes the model that is there."""

from __future__ import annotations

import ast
import builtins

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.mixed_precision.output_layers import all_layers, output_layers
from tf_mem_magic.remedies.mixed_precision.places import Computing, first_place

_WITHOUT_LAYERS = frozenset({"numpy", "np", "pandas", "pd", "sklearn", "os", "tensorflow", "tf", "keras", "math"})

Change = tuple[str, str, tuple[str, ...]]


def change(ask: Ask, place: Computing, policy: str) -> Change:
    """Set the policy before the model is built, or change the model that exists when it computes.

    Returns
    -------
    tuple of (str, str, tuple of str)
        The changed cell, the code that takes back what it sets, and caveats.

    Raises
    ------
    RefusedError
        If neither is certain to reach the model, with its outputs in 32 bits.
    """
    made = _made(ask, place)
    start = _start_of_building(ask, place, made)
    if start is None:
        return _change_in_place(ask, place, policy)
    outputs = output_layers(ask.names, place.model, place.top)
    if outputs is not None:
        return _set_policy(ask, start, policy, outputs)
    if place.facts is not None and place.facts.form == "functional" and place.facts.weight_bytes and made:
        return _change_in_place(ask, place, policy)
    raise RefusedError(
        f"which layer gives the output of `{place.model}` cannot be told from this cell, and that one must stay in "
        '32 bits (dtype="float32")'
    )


def is_built_anew(ask: Ask, place: Computing) -> bool:
    """Tell whether the change is a policy before the model is built, rather than one of the model that is there."""
    return _start_of_building(ask, place, _made(ask, place)) is not None


def _made(ask: Ask, place: Computing) -> list[ast.stmt]:
    return [s for s in ask.cell.tree.body if place.model in _targets(s)]


def _start_of_building(ask: Ask, place: Computing, made: list[ast.stmt]) -> ast.stmt | None:
    """Find the top-level statement before which a global policy must stand; None for a model built earlier."""
    cell, names, facts = ask.cell, ask.names, place.facts
    if facts is not None and not facts.is_new and not any(names.builds(s) for s in made if _surely_runs(ask, s, place)):
        return None
    if any(names.loads(s) for s in made) or (facts is not None and facts.earlier_bytes):
        return None
    if kept := _keeps_its_own(ask, place, made):
        if facts is not None and facts.form == "functional" and facts.weight_bytes and made:
            return None
        raise RefusedError(f"`{place.model}` is built around `{kept}`, which keeps the precision it was made with")
    building = [s for s in cell.tree.body if names.builds(s)]
    first = min(building, key=cell.start, default=None)
    before = [s for s in made if cell.start(s) < cell.start(place.top)]
    if len(before) > 1 and all_layers(names, place.model, place.top) is not None:
        return before[-1]
    if first is None and made:
        return made[0]
    is_called = isinstance(place.top, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While))
    if first is not None and not is_called and cell.start(first) > cell.start(place.top):
        raise RefusedError(f"`{place.model}` was built before what this cell builds, by code that cannot be seen here")
    return first


def _keeps_its_own(ask: Ask, place: Computing, made: list[ast.stmt]) -> str:
    """Name the model of an earlier cell, or from a file, around which the cell builds the one that ran out."""
    earlier = {m.name for m in ask.facts.models if not m.is_new and not m.local and m.weight_bytes}
    loaded = {t for s in ask.cell.tree.body if ask.names.loads(s) for t in _targets(s)}
    building = [s for s in ask.cell.tree.body if ask.names.builds(s) or s in made]
    symbolic = {t for s in building for t in _targets(s)}
    building += [s for s in ask.cell.tree.body if _calls_on(s, symbolic) and s not in building]
    unseen = _made_unseen(ask, min(building, key=ask.cell.start, default=None))
    functions = [f for f in ask.cell.tree.body if isinstance(f, ast.FunctionDef) and any(map(ask.names.builds, f.body))]
    called = isinstance(place.top, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    for statement in (*building, *functions):
        if not called and ask.cell.start(statement) > ask.cell.start(place.top):
            continue  # it came after what ran out
        bound = _targets(statement)
        read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        read &= earlier | loaded | (unseen & _as_layers(statement))
        if kept := sorted(read - bound - {place.model}):
            return kept[0]
    return ""


def _calls_on(statement: ast.stmt, symbolic: set[str]) -> bool:
    """Tell whether a statement calls what a name holds on what Keras's layers gave, or adds it to a model.

    ``h = base(inputs)``, ``model.add(base)``.
    """
    calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
    given = [n for call in calls if isinstance(call.func, ast.Name) for a in call.args for n in ast.walk(a)]
    given += [c.func.value for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "add"]
    is_code = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    return not is_code and any(isinstance(n, ast.Name) and n.id in symbolic for n in given)


def _as_layers(statement: ast.stmt) -> set[str]:
    """Name what a statement uses as a layer: called, added, put in a list of layers, or asked for its output."""
    found: list[ast.AST] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            # What is given constants alone makes a layer, and is none.
            on = [*node.args, *(keyword.value for keyword in node.keywords)]
            found += [node.func] if any(isinstance(n, ast.Name) for one in on for n in ast.walk(one)) else []
            found += node.args if called_name(node) == "add" else []
            lists = node.args if called_name(node) == "Sequential" else []
            found += [one for given in lists if isinstance(given, (ast.List, ast.Tuple)) for one in given.elts]
        elif isinstance(node, ast.Attribute) and node.attr in ("output", "outputs", "input", "layers"):
            found.append(node.value)
    return {one.id for one in found if isinstance(one, ast.Name)}


def _made_unseen(ask: Ask, first: ast.stmt | None) -> set[str]:
    """Name what code that is not seen here made before the policy would stand: ``bert = load_bert(path)``."""
    end = -1 if first is None else ask.cell.start(first)
    statements = [s for s in ask.cell.tree.body if ask.cell.start(s) < end and isinstance(s, ast.Assign)]
    made = [s for s in statements if isinstance(s.value, ast.Call) and not _is_plain(ask, s.value)]
    return {t for s in made for t in _targets(s)}


def _is_plain(ask: Ask, call: ast.Call) -> bool:
    """Tell whether a call surely makes no layer: one of Python's, of a library that has none, or a partial function."""
    if called_name(call) == "partial":
        return True
    root: ast.expr = call.func
    while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
        root = root.func if isinstance(root, ast.Call) else root.value
    if not isinstance(root, ast.Name):
        return True
    meaning = (ask.names.meaning(root.id) or root.id).partition(".")[0]
    return hasattr(builtins, root.id) or meaning in _WITHOUT_LAYERS


def _surely_runs(ask: Ask, statement: ast.stmt, place: Computing) -> bool:
    """Tell whether a statement has surely made the model anew when it computes: it stands before, under no ``if``."""
    before = ask.cell.start(statement) <= ask.cell.start(place.top)
    return before and not isinstance(statement, (ast.If, ast.Try))


def _targets(statement: ast.stmt) -> set[str]:
    nodes = (n for n in ast.walk(statement) if isinstance(n, (ast.Name, ast.Attribute, ast.Subscript)))
    return {ast.unparse(n) for n in nodes if isinstance(n.ctx, ast.Store)}


def _set_policy(ask: Ask, start: ast.stmt, policy: str, outputs: list[ast.Call]) -> Change:
    """Set the global policy before the model is built, and keep its output layers in float32."""
    handle = ask.names.handle(start)
    keras = handle or "keras"
    lines = ([] if handle else ["import keras"]) + [f'{keras}.config.set_dtype_policy("{policy}")']
    editor = ask.edit().before(start, *lines)
    for call in outputs:
        editor.argument(call, "dtype", '"float32"')
    undo = f'import keras\nkeras.config.set_dtype_policy("{ask.facts.policy}")'
    return editor.source(), undo, ("The policy stays set for models that later cells build; Undo sets it back.",)


def _change_in_place(ask: Ask, place: Computing, policy: str) -> Change:
    """Change the model that exists before it trains, by a call that stands in the cell."""
    model = place.facts
    if model is None:
        raise RefusedError("it could not be seen where the model is built")
    if not (model.weight_bytes or model.trainable_bytes):  # what another name's model holds is counted there
        raise RefusedError(f"`{place.model}` is not built yet: it has no weights")
    if model.is_new and model.form == "subclassed" and model.weight_bytes > model.earlier_bytes > 0:
        raise RefusedError(
            f"`{place.model}` makes layers of its own beside the models that it is given, and they may not be built "
            "yet where the change would stand"
        )
    if place.own_loop and model.form == "subclassed" and not place.by_keras:
        raise RefusedError(
            f"what gives the outputs of `{place.model}` is not known, and your own loop needs them in 32 bits"
        )
    earlier = ask.notebook.before.has("tf.function")
    if place.own_loop and earlier and "tf.function" not in ask.source and not place.by_keras:
        raise RefusedError("the training step may be a tf.function of an earlier cell, which keeps the old precision")
    at = first_place(ask, place)
    editor = ask.edit().before(at, f'apply.mixed_precision({place.model}, "{policy}")', apply=True)
    caveats = ("The changed cell needs tf_mem_magic; other models that share its layers change too.",)
    undo = f'from tf_mem_magic import apply\napply.mixed_precision({place.model}, "float32")'
    return editor.source(), undo, caveats
