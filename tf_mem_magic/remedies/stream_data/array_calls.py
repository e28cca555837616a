"""Calls that give whole arrays to Keras (``fit``, ``evaluate``, ``predict``), changed to streams of batches."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.core.units import size
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.text.edits import IMPORT
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_argument, insert_on_top
from tf_mem_magic.remedies.stream_data.streaming import (
    MAPPED_NOTE,
    PACKAGE_NOTE,
    STAYS_NOTE,
    Change,
    Held,
    find_arrays,
    known_bytes,
    map_files,
)

LITTLE = 0.01
"""Share of the limit below which what is copied is not what fills the memory."""

_POSITIONS = {"fit": ("x", "y", "batch_size"), "evaluate": ("x", "y", "batch_size"), "predict": ("x", "batch_size")}
_WHOLE_ONLY = ("steps_per_epoch", "steps")
_WHY = "`{0}` copies whole NumPy arrays into tensors; here only the batches in use are copied."
_COMMENT = re.compile(r"#[^\r\n]*")


def stream_call(reader: Reader, line: int | None, limit: int | None) -> Change:
    """Give Keras batches of the arrays that it gets whole, and map files that the cell loads whole.

    ``line`` is the cell's line that ran out, ``limit`` the bytes that there are; both None where not known.
    """
    call = _find_call(reader, line)
    return _Call(reader, call).change(limit)


def gives_arrays(reader: Reader, line: int | None) -> bool:
    """Whether line ``line``, which ran out, gives known arrays to a Keras model."""
    calls = [call for call in list_calls(reader) if line is not None and _covers(call, line)]
    given = [_arguments(call).get("x") for call in calls]
    return any(node is not None and find_arrays(reader, node, derived=True) is not None for node in given)


def _covers(node: ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def list_calls(reader: Reader) -> list[ast.Call]:
    """List the calls that train or run a known Keras model.

    Those inside f-strings are left out: they have no sure position before Python 3.12.
    """
    texts = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.JoinedStr)]
    inside = {id(n) for text in texts for n in ast.walk(text)}
    calls = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Call) and id(n) not in inside]
    methods = [n for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr in _POSITIONS]
    return [n for n in methods if isinstance(n.func, ast.Attribute) and _is_model(reader, n.func.value)]


def _find_call(reader: Reader, line: int | None) -> ast.Call:
    calls = list_calls(reader)
    if not calls:
        nothing = "no dataset of arrays, cache, large buffer or long queue was found"
        raise RefusedError(f"the cell gives no arrays to a Keras model, and {nothing}")
    if line is not None:
        covering = [call for call in calls if _covers(call, line)]
        if not covering:
            covering = _loaded_for(reader, calls, line)
        if not covering:
            raise RefusedError("it ran out before or after `fit`, not while `fit` was using the data")
        calls = covering
    if len(calls) != 1:
        raise RefusedError("the cell gives data to a model more than once, and which call ran out is not known")
    return calls[0]


def _loaded_for(reader: Reader, calls: list[ast.Call], line: int) -> list[ast.Call]:
    """List the calls that use what line ``line`` was to load, where that can be mapped."""
    found = []
    for call in calls:
        given = _arguments(call)
        for node in (given.get("x"), given.get("y")):
            held = find_arrays(reader, node) if node is not None else None
            loads = [s for s in reader.cell.tree.body if s.lineno <= line <= (s.end_lineno or s.lineno)]
            stored = {n.id for s in loads for n in ast.walk(s) if isinstance(n, ast.Name) and not _is_load(n)}
            if [one for one in held or () if one.name in stored and map_files(reader, [one])]:
                found.append(call)
                break
    return found


def _is_load(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def _is_model(reader: Reader, node: ast.expr) -> bool:
    if isinstance(node, ast.Name) and not isinstance(reader.scopes.home(node), ast.Module):
        found = reader.bindings(node)
        passed = argument_exprs(reader, found[0]) if len(found) == 1 and found[0].kind == "param" else []
        return not isinstance(passed, Unknown) and bool(passed) and all(_is_model(reader, one) for one in passed)
    return reader.facts.model(reader.cell.text(node)) is not None


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Give the arguments by name; refuse where they cannot be told apart."""
    assert isinstance(call.func, ast.Attribute)
    names = _POSITIONS[call.func.attr]
    if len(call.args) > len(names) or any(isinstance(a, ast.Starred) for a in call.args):
        raise RefusedError(f"the arguments of `{call.func.attr}` cannot be told apart")
    given = dict(zip(names, call.args))
    for keyword in call.keywords:
        if keyword.arg is None:
            raise RefusedError(f"some arguments of `{call.func.attr}` are hidden behind **")
        given[keyword.arg] = keyword.value
    return given


def _is_constant(node: ast.expr | None, values: tuple[object, ...]) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is v or node.value == v for v in values)


class _Call:
    """One call with its arguments, and the edits that make its arrays streams."""

    def __init__(self, reader: Reader, call: ast.Call) -> None:
        assert isinstance(call.func, ast.Attribute)
        self.reader, self.cell, self.call, self.method = reader, reader.cell, call, call.func.attr
        self.given = _arguments(call)
        self.keywords = {id(k.value): k for k in call.keywords}

    def change(self, limit: int | None) -> Change:
        given = self.given
        if reason := self._comes_in_batches():
            raise RefusedError(reason)
        if (self.reader.facts.keras or "").startswith("2."):
            raise RefusedError(f"`{self.method}` of Keras 2 (tf_keras) takes no data of Keras 3, which this makes")
        if "x" not in given:
            raise RefusedError(f"`{self.method}` is given no data by name")
        if count_samples(self.reader, given["x"]) == 1:
            raise RefusedError(f"`{self.method}` gets one sample: there is nothing to cut into batches")
        words = self._words()
        split = self._split()
        # What is written twice must not be computed twice.
        found = [find_arrays(self.reader, given[word], derived=not split) for word in words]
        held = [one for part in found for one in part or ()]
        if None in found:
            raise RefusedError(f"`{self.method}` is not given NumPy arrays by their names")
        whole = [word for word in _WHOLE_ONLY if word in given and not _is_constant(given[word], (None,))]
        if whole:
            raise RefusedError(f"`{whole[0]}` works only with whole arrays")
        if _is_constant(given.get("batch_size"), (None,)):
            raise RefusedError("the batch size is left to Keras")
        shuffled = self._shuffled()
        renamed = self._validates_unknown()
        edits, more = ([self._validation_batch()], []) if renamed else self._validation(split)
        copied = known_bytes([*held, *more])
        if limit and copied is not None and 2 * copied < LITTLE * limit:
            raise RefusedError(f"the arrays given to `{self.method}` hold only {size(copied)}")
        kept = f", but_last={split}" if split else ""
        order = "" if shuffled else ", shuffle=False"
        streamed = f"apply.stream({self._data()}, batch_size={self._batch()}{order}{kept})"
        maps = map_files(self.reader, [*held, *more])
        gone = [given[word] for word in words[1:]]
        if "batch_size" in given and not (renamed and id(given["batch_size"]) in self.keywords):
            gone.append(given["batch_size"])
        edits += [
            insert_on_top(self.cell, (IMPORT,)),
            CellEdit(self.cell.start(given["x"]), self.cell.end(given["x"]), streamed),
            *self._removed(gone),
            *maps,
        ]
        said = "Samples are shuffled by NumPy, so in another order than before." if shuffled else ""
        return Change(
            "Stream the arrays in batches",
            tuple(dict.fromkeys(edits)),
            "same effective batch" if shuffled else "same results",
            _WHY.format(self.method),
            tuple(filter(None, (said, MAPPED_NOTE if maps else STAYS_NOTE, PACKAGE_NOTE))),
        )

    def _comes_in_batches(self) -> str:
        """Say that the data are a dataset or generator, of which Keras never holds more than some batches."""
        node = self.given.get("x")
        text = self.cell.text(node) if node is not None else ""
        root = next((n.id for n in ast.walk(node) if isinstance(n, ast.Name)), "") if node is not None else ""
        data = self.reader.facts.dataset(text) or self.reader.facts.dataset(root)
        seen = next((b.source for b in self.reader.facts.batches if b.method == self.method), "")
        if data is None and (not seen or seen == "arrays"):
            return ""
        name = f"`{text}`" if text.isidentifier() else "what it is given"
        return f"{name} already comes in batches, and nothing of it was found that holds many of them"

    def _words(self) -> list[str]:
        given = {word for word, node in self.given.items() if not _is_constant(node, (None,))}
        return [word for word in ("x", "y", "sample_weight") if word in given]

    def _data(self) -> str:
        words = self._words()
        texts = [self.cell.text(self.given[word]) for word in words]
        return ", ".join(f"{word}={text}" if word == "sample_weight" else text for word, text in zip(words, texts))

    def _batch(self) -> str:
        return self.cell.text(self.given["batch_size"]) if "batch_size" in self.given else "32"

    def _shuffled(self) -> bool:
        node = self.given.get("shuffle")
        if self.method != "fit":
            return False
        if node is None:
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return node.value
        raise RefusedError("how `fit` is to shuffle is computed when the cell runs")

    def _split(self) -> str:
        """Give the text of the fraction that ``fit`` holds back for validation; empty where it does not."""
        node = self.given.get("validation_split")
        if self.method != "fit" or node is None or _is_constant(node, (None, 0, 0.0)):
            return ""
        if "validation_data" in self.given:
            raise RefusedError("`fit` is given validation data and a split, and which it uses is not sure")
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(node, ast.Name) and isinstance(self.reader.scopes.home(node), ast.Module):
            value = self.reader.facts.scalar(node.id)
        if not isinstance(value, float) or not 0 < value < 1:
            raise RefusedError("the fraction that `fit` splits off is computed when the cell runs")
        return self.cell.text(node)

    def _validation(self, split: str) -> tuple[list[CellEdit], list[Held]]:
        """Stream the validation data too, where they are arrays."""
        own = self.given.get("validation_batch_size")
        batch = self._batch() if own is None or _is_constant(own, (None,)) else self.cell.text(own)
        if split:
            streamed = f"apply.stream({self._data()}, batch_size={batch}, shuffle=False, last={split})"
            keyword = self.keywords[id(self.given["validation_split"])]
            edit = CellEdit(self._place(keyword.value), self.cell.end(keyword.value), f"validation_data={streamed}")
            return [edit], []
        node = self.given.get("validation_data")
        held = self._validation_arrays()
        if node is None or held is None:
            return [], []
        texts = (
            [self.cell.text(one) for one in node.elts] if isinstance(node, ast.Tuple) else [f"*{self.cell.text(node)}"]
        )
        streamed = f"apply.stream({', '.join(texts)}, batch_size={batch}, shuffle=False)"
        return [CellEdit(self.cell.start(node), self.cell.end(node), streamed)], held

    def _validation_arrays(self) -> list[Held] | None:
        node = self.given.get("validation_data")
        if isinstance(node, ast.Tuple) and 1 <= len(node.elts) <= 3:
            return find_arrays(self.reader, node, derived=True)
        tuples = [v.name for v in self.reader.facts.values if v.kind == "tuple of numpy.ndarray"]
        return find_arrays(self.reader, node) if isinstance(node, ast.Name) and node.id in tuples else None

    def _validates_unknown(self) -> bool:
        """Whether there are validation data that stay as they are and may take their batch size from ``fit``."""
        node, own = self.given.get("validation_data"), self.given.get("validation_batch_size")
        if node is None or "batch_size" not in self.given or _is_constant(node, (None,)):
            return False
        dataset = isinstance(node, ast.Name) and self.reader.facts.dataset(node.id) is not None
        given = own is not None and not _is_constant(own, (None,))
        return not given and not dataset and self._validation_arrays() is None

    def _validation_batch(self) -> CellEdit:
        """Hand ``fit``'s batch size to its validation data."""
        node = self.given["batch_size"]
        if id(node) in self.keywords:
            return CellEdit(self._place(node), self.cell.start(node), "validation_batch_size=")
        return insert_argument(self.cell, self.call, f"validation_batch_size={self._batch()}")

    def _place(self, node: ast.expr) -> int:
        """Give where an argument starts, its keyword included."""
        keyword = self.keywords.get(id(node))
        return self.cell.start(node) if keyword is None else self.cell.offset(keyword.lineno, keyword.col_offset)

    def _removed(self, gone: list[ast.expr]) -> list[CellEdit]:
        """Take out arguments, each with the comma before it, or, where a comment stands there, with the one after."""
        places = sorted([*self.call.args, *(k.value for k in self.call.keywords)], key=self.cell.start)
        gone = sorted(gone, key=self.cell.start)
        leads = [self._lead(places, node) for node in gone]
        source = self.cell.source
        edits = []
        for node, lead in zip(gone, leads):
            start, end = self._place(node), self.cell.end(node)
            if node is places[0] or any("#" in one for one in leads):
                after = re.match(r"[ \t]*,[ \t]*(?:\r?\n[ \t]*)?", source[end:])
                edits.append(CellEdit(start, end + (after.end() if after else 0), ""))
            else:
                edits.append(CellEdit(start - len(lead), end, ""))
        return edits

    def _lead(self, places: list[ast.expr], node: ast.expr) -> str:
        """Give the text between an argument and the one before it; refuse where a bracket stands there."""
        index = places.index(node)
        start = self._place(node)
        lead = self.cell.source[self.cell.end(places[index - 1]) : start] if index else ""
        name = self.cell.source[start : self.cell.start(node)]
        keyword = self.keywords.get(id(node))
        name = name if keyword is None else name.replace(str(keyword.arg), "", 1)
        if _COMMENT.sub("", lead).strip(" \t\r\n,\\") or name.strip(" \t="):
            raise RefusedError(f"a bracket stands between the arguments of `{self.method}`")
        return lead
