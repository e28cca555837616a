"""Where the batch size of a call of Keras is set: at the call, in its dict of arguments, or where its data are made."""

from __future__ import annotations

import ast
from typing import Literal

from tf_mem_magic.notebook.batch.consumers import is_unlisted
from tf_mem_magic.notebook.batch.datasets import Arrays, Traced, makes_batches, trace
from tf_mem_magic.notebook.batch.earlier_data import repeats
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.batch.steps import STEPS, argument, first_argument, follows
from tf_mem_magic.notebook.follow.entries import dict_of_an_earlier_cell, dict_value, key_of
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.follow.resolve import default_argument, resolve
from tf_mem_magic.notebook.sizes_by_use import filled_by
from tf_mem_magic.notebook.uses import called_name

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

KERAS_DEFAULT = 32
"""The batch size of Keras's fit, evaluate and predict on arrays where none is given (keras Trainer documentation)."""

_NO_BATCHES = Unknown("how the data of `fit_generator` are batched cannot be told from the cell")

_IN_THE_WAY = frozenset({"x", "y", "steps", "validation_data", "validation_batch_size", *STEPS})
"""Arguments that must be seen in the cell where the batch size is to be set."""

_OF_VALIDATION = frozenset({"validation_data", "validation_batch_size"})
"""Those of them that matter only where the validation failed."""


def setting_of_an_earlier_dict(reader: Reader, call: ast.Call, method: str) -> Setting | Literal["elsewhere"] | None:
    """Read the batch size from the dict of an earlier cell behind ``**``, where Keras was seen to use it.

    ``"elsewhere"``: the dict does not say it. None: it cannot be followed.
    """
    known = dict_of_an_earlier_cell(reader, call)
    in_the_way = _IN_THE_WAY if reader.facts.validating else _IN_THE_WAY - _OF_VALIDATION
    if known is None or any(dict_value(known[1], key) is not None for key in in_the_way):
        return None
    name, made = known
    size = dict_value(made, "batch_size")
    seen = next((b for b in reader.facts.batches if b.method == method), None)
    if size is None or seen is None:
        return None if seen is None else "elsewhere"
    if seen.source != "arrays" or (isinstance(size, ast.Constant) and seen.batch != size.value):
        return None
    start, end = reader.cell.start(name), reader.cell.end(name)
    before = f'{{**{reader.written(name)}, "batch_size": '
    return Setting(seen.batch, (Slot(seen.batch, start, end, before, "}"),))


def setting_of_data(
    reader: Reader, call: ast.Call, method: str, extra: ast.expr | None, given: ast.expr | None, seen: int | None
) -> Setting | Unknown:
    """Find where the batch size of a call is set: by its argument ``given``, by its data, or by Keras's default."""
    data = first_argument(call, extra)
    older = called_name(call) != method
    target = None if method == "predict" or older else argument(call, extra, "y", 1)
    if isinstance(target, ast.Constant) and target.value is None:
        target = None
    if data is None:
        return Unknown(f"`{method}` in {reader.cell.told(call)} does not plainly say its data")
    sources = {b.source for b in reader.facts.batches if b.method == method}
    seen_whole = sources == {"arrays"} and not makes_batches(reader, data)
    traced: Traced = Arrays() if target is not None or seen_whole else trace(reader, data)
    if isinstance(traced, Setting):
        return traced
    if older:
        return traced if isinstance(traced, Unknown) else _NO_BATCHES
    if isinstance(traced, Unknown) and count_samples(reader, data) is not None:
        traced = Arrays()
    if isinstance(traced, Unknown) and (given is None or not _surely_no_dataset(reader, data, sources)):
        again = sources == {"tf.data"} and seen is not None and (given is None or _is_none(given))
        return _split_again(reader, data, seen, traced) if again and seen is not None else traced
    if given is not None and not _is_none(given):
        found = resolve(reader, given)
        if not isinstance(found, Setting):
            return _as_seen(reader, given, seen, found)
        of_data = (bool(found.names) and follows(reader, data, found)) or _is_filled_with(reader, data, given, found)
        return _at_the_call(reader, given, found) if of_data and not found.per_replica else found
    receiver = call.func.value  # type: ignore[attr-defined]
    known = isinstance(receiver, ast.Name) and reader.facts.model(receiver.id) is not None
    if reader.facts.tensorflow is not None and not known and (not sources or is_unlisted(reader, receiver)):
        return Unknown(f"whether `{ast.unparse(receiver)}` is a Keras model is not known")
    default = KERAS_DEFAULT
    asked = argument(call, extra, "steps_per_epoch" if method == "fit" else "steps", None)
    if target is not None and asked is not None and not _is_none(asked):
        # Keras cuts arrays into as many batches as steps are asked for (keras ArrayDataAdapter).
        if seen is None:
            return Unknown("Keras makes as many batches of the data as steps are asked for: how large was not seen")
        default = seen
    if given is not None:
        return Setting(default, (reader.slot(given, default),))
    return default_argument(reader, call, default)


_STRATEGIES = ("experimental_distribute_dataset", "distribute_datasets_from_function")


def _split_again(reader: Reader, data: ast.expr, seen: int, refused: Unknown) -> Setting | Unknown:
    """Split a dataset again at the call that iterates over it, where Keras was seen to get batches of ``seen``.

    However it was made, its batches come in the same order; one that a strategy has distributed cannot be split.
    """
    plain = isinstance(data, (ast.Name, ast.Attribute, ast.Subscript, ast.Call))
    if not plain or reader.notebook.mentions(*_STRATEGIES):
        return refused
    written = reader.written(data)
    end = reader.cell.end(data)
    uncounted = not repeats(data)
    return Setting(seen, (Slot(seen, end, end, ".rebatch(", ")", dataset=written, uncounted=uncounted),))


def _as_seen(reader: Reader, given: ast.expr, seen: int | None, refused: Unknown) -> Setting | Unknown:
    """Write a number at the call where its batch size is computed there, and Keras was seen to use a number."""
    computed = given
    if isinstance(given, ast.Name):
        chosen = reader.reaching(given)
        if chosen is None or chosen.kind != "assign" or chosen.value is None:
            return refused
        computed = chosen.value
    kept = isinstance(computed, ast.Subscript) and not isinstance(getattr(computed.slice, "value", None), int)
    plain = isinstance(computed, (ast.Call, ast.BinOp, ast.Subscript, ast.IfExp)) and not kept
    if seen is None or not (plain or _is_of_a_parameter(reader, computed)):
        return refused
    return Setting(seen, (reader.slot(given, seen),))


def _is_of_a_parameter(reader: Reader, expr: ast.expr) -> bool:
    """Tell whether a value is an entry of an object that a function was handed: ``params.batch_size``."""
    its = key_of(expr)
    owner = its[0] if its is not None else None
    chosen = reader.reaching(owner) if isinstance(owner, ast.Name) else None
    return chosen is not None and chosen.kind == "param"


def _at_the_call(reader: Reader, given: ast.expr, found: Setting) -> Setting:
    """Write the number at the call where the name that says it also decides how many samples there are."""
    note = f"`{reader.written(given)}` stays {found.value}: it also decides how many samples there are."
    kept = found.names | {reader.written(given)}
    return Setting(found.value, (reader.slot(given, found.value),), notes=(note,), kept=kept)


def _is_filled_with(reader: Reader, data: ast.expr, given: ast.expr, found: Setting) -> bool:
    """Tell whether code beside the call fills its data with what it has drawn by the batch size."""
    home = next((one for one in reader.scopes.up(given) if isinstance(one, _FUNCTIONS)), reader.cell.tree)
    return filled_by(reader.scopes, home, data, given, found.names | {reader.written(given)})


def is_another(reader: Reader, seen: int | None, setting: Setting, data: ast.expr | None) -> bool:
    """Tell whether Keras used another batch size than the cell sets, though there were samples enough for that."""
    if seen is None or seen == setting.value:
        return False
    if setting.per_replica:
        return seen % setting.value != 0
    return data is None or count_samples(reader, data) != seen


def _is_none(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value is None


def _surely_no_dataset(reader: Reader, data: ast.expr, sources: set[str]) -> bool:
    if sources or not isinstance(data, ast.Name) or reader.facts.tensorflow is None:
        return False
    return reader.facts.dataset(data.id) is None and any(v.name == data.id for v in reader.facts.values)
