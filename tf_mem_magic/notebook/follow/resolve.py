"""Where a batch size is set: follow an expression of the cell to the place in the text that decides it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.cell import CellEdit, PythonCell, line_start
from tf_mem_magic.notebook.scopes import Binding, Scopes, position
from tf_mem_magic.notebook.uses import called_name, is_batch_name, role

_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the cell where the batch size ``value`` stands or can be written: ``before`` + number + ``after``.

    ``samples``: a dataset of that many samples is split again here, and its number of batches must be restored.
    """

    value: int
    start: int
    end: int
    before: str = ""
    after: str = ""
    samples: int | None = None

    def edit(self, batch: int) -> CellEdit:
        """Give the edit that sets the batch size to ``batch``."""
        after = self.after
        if self.samples is not None:
            after = after.replace("{count}", str(-(-self.samples // batch)))
        return CellEdit(self.start, self.end, f"{self.before}{batch}{after}")


@dataclass(frozen=True, slots=True)
class Setting:
    """A batch size and the places that set it.

    ``names`` are the names that change with it; ``per_replica``: it is multiplied by the number of replicas;
    ``notes`` are sentences for the user.
    """

    value: int
    slots: tuple[Slot, ...]
    names: frozenset[str] = frozenset()
    per_replica: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """A batch size that cannot be told or set, and why, as a sentence without its capital and stop."""

    reason: str


@dataclass
class Reader:
    """One cell under analysis: its text and tree, the facts, and the lines that led to the error."""

    cell: PythonCell
    facts: Facts
    lines: frozenset[int] = frozenset()
    scopes: Scopes = field(init=False)
    entered: dict[ast.AST, ast.Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scopes = self.cell.scopes

    def covers(self, node: ast.AST) -> bool:
        """Say whether a line that led to the error lies within ``node``."""
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
        return any(first <= line <= last for line in self.lines)

    def bindings(self, name: ast.Name) -> list[Binding]:
        """List what binds ``name`` in the cell; empty where it comes from an earlier cell."""
        return self.scopes.of(self.scopes.home(name), name.id)

    def slot(self, node: ast.expr, value: int) -> Slot:
        """Give the slot that replaces ``node``."""
        return Slot(value, self.cell.start(node), self.cell.end(node))

    def scalar(self, text: str) -> int | None:
        """Give an integer that the facts know under ``text``."""
        value = self.facts.scalar(text)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def merge(settings: Iterable[Setting]) -> Setting | Unknown:
    """Join settings that must agree."""
    found = list(settings)
    if not found:
        return Unknown("no batch size was found in the cell")
    if len({(s.value, s.per_replica) for s in found}) > 1:
        sizes = " and ".join(str(v) for v in sorted({s.value for s in found}))
        return Unknown(f"the cell uses several batch sizes here ({sizes})")
    first = found[0]
    slots = tuple(dict.fromkeys(slot for s in found for slot in s.slots))
    notes = tuple(dict.fromkeys(note for s in found for note in s.notes))
    return Setting(first.value, slots, frozenset().union(*(s.names for s in found)), first.per_replica, notes)


def resolve(reader: Reader, expr: ast.expr, depth: int = 0) -> Setting | Unknown:
    """Follow ``expr`` to where its value is set."""
    from tf_mem_magic.notebook.follow import containers

    computed = Unknown(f"the batch size in line {expr.lineno} is computed when the cell runs")
    if depth > _DEEPEST:
        return computed
    if isinstance(expr, ast.Constant):
        return _constant(reader, expr)
    if isinstance(expr, ast.NamedExpr):
        found = reader.scopes.of(reader.scopes.home(expr.target), expr.target.id)
        return _through_name(reader, expr.target.id, found, expr, expr.value, depth)
    if isinstance(expr, ast.Name):
        return _name(reader, expr, depth)
    if containers.is_entry(expr):
        return containers.resolve_entry(reader, expr, depth)
    if isinstance(expr, ast.BinOp):
        replicas = _replicas(reader, expr, depth)
        if replicas is not None:
            return replicas
    if isinstance(expr, (ast.BinOp, ast.UnaryOp, ast.Call)):
        value = evaluate(reader, expr)
        if isinstance(value, int):
            return Setting(value, (reader.slot(expr, value),))
    return computed


def evaluate(reader: Reader, expr: ast.expr, depth: int = 0) -> int | float | None:
    """Compute an expression of constants and of names that surely hold constants; None where it is neither."""
    if depth > _DEEPEST:
        return None
    if isinstance(expr, ast.Constant):
        plain = isinstance(expr.value, (int, float)) and not isinstance(expr.value, bool)
        return expr.value if plain else None  # type: ignore[return-value]
    if isinstance(expr, ast.Name):
        found = reader.bindings(expr)
        if not found:
            return reader.scalar(expr.id)
        chosen = reader.scopes.reaching(expr, found)
        if chosen is None or chosen.value is None or chosen.kind != "assign":
            return None
        return evaluate(reader, chosen.value, depth + 1)
    if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, (ast.USub, ast.UAdd)):
        operand = evaluate(reader, expr.operand, depth + 1)
        return None if operand is None else -operand if isinstance(expr.op, ast.USub) else operand
    if isinstance(expr, ast.Call) and isinstance(expr.func, ast.Name) and expr.func.id == "int":
        if len(expr.args) != 1 or expr.keywords or reader.bindings(expr.func):
            return None
        if isinstance(expr.args[0], ast.Constant) and isinstance(expr.args[0].value, str):
            return int(expr.args[0].value) if expr.args[0].value.strip().isdecimal() else None
        inner = evaluate(reader, expr.args[0], depth + 1)
        return None if inner is None else int(inner)
    if isinstance(expr, ast.BinOp):
        left, right = evaluate(reader, expr.left, depth + 1), evaluate(reader, expr.right, depth + 1)
        return None if left is None or right is None else _compute(expr.op, left, right)
    return None


def _compute(op: ast.operator, left: float, right: float) -> int | float | None:
    try:
        if isinstance(op, ast.Add):
            return left + right
        if isinstance(op, ast.Sub):
            return left - right
        if isinstance(op, ast.Mult):
            return left * right
        if isinstance(op, ast.FloorDiv):
            return left // right
        if isinstance(op, ast.Div):
            return left / right
        if isinstance(op, ast.Pow) and 0 <= right <= 40 and abs(left) <= 1024:
            return float(left**right) if isinstance(left, float) else int(left ** int(right))
        if isinstance(op, ast.LShift) and isinstance(left, int) and isinstance(right, int) and 0 <= right <= 40:
            return left << right
    except (ArithmeticError, ValueError):
        return None
    return None


def _constant(reader: Reader, expr: ast.Constant) -> Setting | Unknown:
    if type(expr.value) is not int:
        return Unknown(f"the batch size in line {expr.lineno} is no whole number")
    return Setting(expr.value, (reader.slot(expr, expr.value),))


def _name(reader: Reader, expr: ast.Name, depth: int) -> Setting | Unknown:
    found = reader.bindings(expr)
    if not found:
        return earlier(reader, expr, reader.scopes.loads.get((reader.scopes.home(expr), expr.id), []))
    if any(b.kind == "loop" for b in found):
        return Unknown(f"`{expr.id}` takes several values in a loop")
    chosen = reader.scopes.reaching(expr, found)
    if chosen is None:
        return Unknown(f"`{expr.id}` is set in more than one place or only under a condition")
    star = _star_import_after(reader, chosen)
    if star is not None:
        return Unknown(f"`{expr.id}` may be replaced by the import in line {star.lineno}")
    if chosen.kind == "param":
        return _parameter(reader, chosen, depth)
    if chosen.value is None:
        return Unknown(f"`{expr.id}` is computed when the cell runs")
    return _through_name(reader, expr.id, found, expr, chosen.value, depth)


def _star_import_after(reader: Reader, binding: Binding) -> ast.ImportFrom | None:
    harmless = ("tensorflow", "keras", "numpy", "matplotlib", "math", "typing")
    imports = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
    foreign = [n for n in imports if (n.module or "").split(".")[0] not in harmless]
    return next((n for n in foreign if position(n) > position(binding.node)), None)


def _through_name(
    reader: Reader, name: str, found: list[Binding], use: ast.expr, value: ast.expr, depth: int
) -> Setting | Unknown:
    home = found[0].scope
    if isinstance(home, ast.Module) and name in reader.facts.read_elsewhere:
        return _read_elsewhere(name)
    known = reader.scalar(name) if isinstance(home, ast.Module) else None
    inner = resolve(reader, value, depth + 1)
    if isinstance(inner, Unknown):
        return inner
    if known is not None and len(found) == 1 and not inner.per_replica and known != inner.value:
        return Unknown(f"`{name}` is {known} now, but the cell says {inner.value}")
    names = {name, *_also_assigned(value, reader)}
    loads = [n for one in names for n in reader.scopes.loads.get((home, one), [])]
    blocked = _blocked(reader, name, loads, use, inner.value)
    if blocked is not None:
        return blocked if isinstance(blocked, Unknown) or not inner.per_replica else inner
    return replace(inner, names=inner.names | names)


def _also_assigned(value: ast.expr, reader: Reader) -> set[str]:
    """Name the other targets of a chained assignment ``a = b = 64``."""
    statement = reader.scopes.parents.get(value)
    if isinstance(statement, ast.Assign):
        return {t.id for t in statement.targets if isinstance(t, ast.Name)}
    return set()


def _blocked(reader: Reader, name: str, loads: list[ast.Name], use: ast.expr, value: int) -> Setting | Unknown | None:
    """Where the name also means something else: write the number at ``use``, or refuse; else None."""
    roles = [(load, role(reader.scopes, load)) for load in loads]
    others = [load for load, its in roles if its == "other"]
    if not others:
        return None
    lines = ", ".join(str(n) for n in sorted({load.lineno for load in others}))
    handed = is_batch_name(name) and any(_is_handed(reader, load) for load in others)
    if handed or any(its == "coupled" for _, its in roles) or isinstance(use, ast.NamedExpr):
        return Unknown(f"`{name}` also decides something else (line {lines}), so changing it could change the model")
    note = f"`{name}` stays {value}: it is also used for something else (line {lines})."
    return Setting(value, (reader.slot(use, value),), notes=(note,))


def _is_handed(reader: Reader, load: ast.Name) -> bool:
    """Say whether a batch size is handed to a function: it may build something for that batch size only."""
    call = reader.scopes.parents[load]
    return isinstance(call, ast.Call) and load in call.args and called_name(call)[:1].islower()


def earlier(reader: Reader, expr: ast.expr, loads: list[ast.Name]) -> Setting | Unknown:
    """Set a value that comes from an earlier cell: by a line before the cell first reads it."""
    text = reader.cell.text(expr)
    value = reader.scalar(text)
    if value is None:
        return Unknown(f"`{text}` comes from an earlier cell, and its value is not known")
    if isinstance(expr, ast.Name):
        blocked = _blocked(reader, expr.id, loads, expr, value)
        if blocked is not None:
            return blocked
        if expr.id in reader.facts.read_elsewhere:
            return _read_elsewhere(expr.id)
    else:
        frozen = ("frozen=True", "namedtuple", "NamedTuple", "Frozen", "MappingProxyType")
        if any(word in cell for cell in reader.facts.earlier_cells for word in frozen):
            return Setting(value, (reader.slot(expr, value),))
    first = min((reader.scopes.top_statement(n) for n in [*loads, expr]), key=lambda s: s.lineno)
    at = line_start(reader.cell, first)
    slot = Slot(value, at, at, f"{text} = ", reader.cell.newline)
    return Setting(value, (slot,), frozenset({text}))


def _read_elsewhere(name: str) -> Unknown:
    return Unknown(
        f"code of an earlier cell, which this cell runs, reads `{name}` too: make it smaller where it is set, and run "
        "the cells from there on again"
    )


def _replicas(reader: Reader, expr: ast.BinOp, depth: int) -> Setting | Unknown | None:
    sides = [expr.left, expr.right]
    counts = [s for s in sides if "num_replicas_in_sync" in ast.unparse(_definition_or_self(reader, s))]
    if len(counts) != 1:
        return None
    other = sides[0] if counts[0] is sides[1] else sides[1]
    inner = resolve(reader, other, depth + 1)
    if isinstance(inner, Unknown):
        return inner
    if isinstance(expr.op, ast.Mult):
        return replace(inner, per_replica=True)
    if isinstance(expr.op, ast.FloorDiv) and other is expr.left:
        return inner
    return Unknown(f"the batch size in line {expr.lineno} is computed when the cell runs")


def _definition_or_self(reader: Reader, expr: ast.expr) -> ast.expr:
    if isinstance(expr, ast.Name):
        chosen = reader.scopes.reaching(expr, reader.bindings(expr))
        if chosen is not None and chosen.value is not None:
            return chosen.value
    return expr


def _parameter(reader: Reader, binding: Binding, depth: int) -> Setting | Unknown:
    from tf_mem_magic.notebook.follow import calls

    inner = calls.resolve_parameter(reader, binding, depth)
    if isinstance(inner, Unknown):
        return inner
    loads = reader.scopes.loads.get((binding.scope, binding.name), [])
    if any(role(reader.scopes, load) == "other" for load in loads):
        return Unknown(f"`{binding.name}` also decides something else in its function")
    return replace(inner, names=inner.names | {binding.name} if is_batch_name(binding.name) else inner.names)
