"""Data that loops go through one after another: ``for phase, ds in [("train", train_ds), ("val", val_ds)]``."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.uses import called_name

_LOOPS = (ast.For, ast.AsyncFor)


def in_turn(reader: Reader, source: ast.expr) -> list[ast.expr]:
    """List the data that a loop goes through in turn, where all of them stand in the cell; empty where not."""
    if isinstance(source, ast.Subscript):
        held = _held(reader, source.value)
        picked = isinstance(source.slice, ast.Name) and held is not None
        return _values(held) if picked and isinstance(held, ast.Dict) else []
    found = reader.bindings(source) if isinstance(source, ast.Name) else []
    if len(found) != 1 or found[0].kind != "loop" or not isinstance(source, ast.Name):
        return []
    loop = next((up for up in reader.scopes.up(found[0].node) if isinstance(up, _LOOPS)), found[0].node)
    if not isinstance(loop, _LOOPS):
        return []
    rows = _rows(reader, loop.iter)
    if isinstance(loop.target, ast.Name):
        return rows if loop.target.id == source.id else []
    names = loop.target.elts if isinstance(loop.target, (ast.Tuple, ast.List)) else []
    place = next((n for n, one in enumerate(names) if isinstance(one, ast.Name) and one.id == source.id), None)
    parts = [row.elts for row in rows if isinstance(row, (ast.Tuple, ast.List)) and len(row.elts) == len(names)]
    starred = any(isinstance(one, ast.Starred) for part in (names, *parts) for one in part)
    return [] if place is None or starred or len(parts) < len(rows) else [part[place] for part in parts]


def made_here(found: Setting | Unknown | None) -> Setting | Unknown | None:
    """Refuse what would split data of earlier cells again for the loop alone: what counts their batches would stay."""
    kept = [] if not isinstance(found, Setting) else [s.dataset for s in found.slots if s.dataset or s.before]
    if not kept:
        return found
    named = f"`{kept[0]}`" if kept[0] else "one"
    return Unknown(
        f"the loop goes through several datasets in turn, and {named} was made in an earlier cell: make its batches "
        "smaller there, and run the cells from there on again"
    )


def _rows(reader: Reader, source: ast.expr) -> list[ast.expr]:
    """List what a loop takes from a list, a tuple or a dict of the cell; of ``items()`` each with its key."""
    method = called_name(source) if isinstance(source, ast.Call) and not source.args else ""
    if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and method in ("items", "values"):
        held = _held(reader, source.func.value)
        values = _values(held) if isinstance(held, ast.Dict) else []
        if method == "values":
            return values
        return [ast.Tuple([value, value], ast.Load()) for value in values]
    held = _held(reader, source)
    return list(held.elts) if isinstance(held, (ast.List, ast.Tuple)) else []


def _values(held: ast.Dict) -> list[ast.expr]:
    return list(held.values) if all(isinstance(key, ast.Constant) for key in held.keys) else []


def _held(reader: Reader, expr: ast.expr) -> ast.expr | None:
    """Give the list or dict that an expression is, or that its name surely holds, unchanged."""
    if not isinstance(expr, ast.Name):
        return expr
    chosen = reader.reaching(expr)
    if chosen is None or chosen.kind != "assign" or len(reader.bindings(expr)) != 1:
        return None
    uses = reader.scopes.loads.get((reader.scopes.home(expr), expr.id), [])
    return chosen.value if all(_only_reads(reader, use) for use in uses) else None


def _only_reads(reader: Reader, use: ast.AST) -> bool:
    """Tell whether a use of a list or dict surely leaves in it what it holds."""
    above = reader.scopes.parents.get(use)
    if isinstance(above, ast.Subscript):
        return isinstance(above.ctx, ast.Load)
    if isinstance(above, ast.Attribute):
        return above.attr in ("items", "values", "keys", "get")
    if isinstance(above, ast.Call):
        return called_name(above) in ("len", "list", "enumerate", "tqdm", "print", "sorted", "zip")
    return isinstance(above, (ast.For, ast.AsyncFor, ast.Compare))
