"""What must hold of every edit of every remedy, on cells in the styles of real notebooks."""

from __future__ import annotations

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notebook_cells import CELLS, NotebookCell
from tests.stand_ins.batch_cells import CASES
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import (
    BatchSeen,
    DatasetFacts,
    DeviceFacts,
    Facts,
    ModelFacts,
    NamedValue,
    ProcessFacts,
)
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython, mask, split_lines
from tf_mem_magic.remedies._engine.registry import all_remedies

BATCH_CELLS = tuple(NotebookCell(f"batch: {case.name}", case.source, False) for case in CASES)


EDITING = (
    *("accumulate-gradients", "close-sessions", "collect-garbage", "distribute", "free-leftovers", "graph-mode"),
    *("lighter-optimizer", "memory-growth", "mixed-precision", "rematerialize", "smaller-batch", "stream-data", "xla"),
)
"""Remedies that must change at least one cell of the gallery, so that these tests are about them."""

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Known:
    """What is known beside the cell, and the keys of the remedies that are asked then (none: all)."""

    device: str = "GPU:0"
    initialised: bool = True
    shared: bool = False
    eager: bool = False
    jit: bool = True
    keys: tuple[str, ...] = ()


KNOWN = (
    Known(),
    Known(initialised=False, jit=False, keys=("memory-growth", "xla")),
    Known(eager=True, shared=True, keys=("graph-mode", "device-limit", "mixed-precision")),
    Known("host", keys=("stream-data", "free-leftovers")),
)
ASKED = (*itertools.product(CELLS, KNOWN), *((one, KNOWN[0]) for one in BATCH_CELLS))
READ = tuple(one for one in ASKED if isinstance(read_cell(one[0].source), PythonCell))


def facts_of(cell: NotebookCell, known: Known) -> Facts:
    others = (ProcessFacts(4121, "alice", 8 * GIB),) if known.shared else ()
    cards = tuple(
        DeviceFacts(f"GPU:{i}", compute_capability=(8, 0), growth=False, total=24 * GIB, others=others, uuid=f"GPU-{i}")
        for i in range(2)
    )
    steps = None if cell.new else 3
    trained = ModelFacts(cell.model, cell.layers, "Adam", jit_compile=known.jit, run_eagerly=known.eager)
    trained = replace(trained, weight_bytes=100 * MIB, optimizer_bytes=200 * MIB, steps=4, steps_before=steps)
    unused = ModelFacts("old_net", ("Dense",), weight_bytes=64 * MIB, steps=9, steps_before=9, device="GPU:0")
    values = (
        *(NamedValue(name, 3 * GIB, "numpy.ndarray", shape=(6400, 8), dtype="float32") for name in "xy"),
        NamedValue("cache", 300 * MIB, "tf.Tensor", "GPU:0"),
    )
    return Facts(
        "2.21.0",
        "3.15.1",
        known.initialised,
        models=(trained, unused),
        datasets=(DatasetFacts("train_ds", batch=64, cardinality=20, samples=1270),),
        devices=(*cards, DeviceFacts("CPU:0", "CPU")),
        values=values,
        batches=(BatchSeen("fit", 64, "arrays"),) if "64" in cell.source and "model.fit" in cell.source else (),
        earlier_cells=("import numpy as np\nimport tensorflow as tf\nimport keras",),
        sessions=("sess",),
    )


def context_of(cell: NotebookCell, known: Known, source: str | None = None) -> Context:
    """Say what is known of ``cell``, or of ``source`` made from it: the failing line is the marked one."""
    source = cell.source if source is None else source
    lines = split_lines(source)
    marked = next(n for n, line in enumerate(lines, 1) if "# <-" in line)
    blank = next(n for n, line in enumerate(lines) if line.strip())
    diagnosis = Diagnosis(known.device, 100 * MIB, line=marked - blank, in_use=500 * MIB, limit=512 * MIB)
    facts = facts_of(cell, known)
    discarded = (("allocator:GPU:0", 80 * MIB),)
    return Context(Cell(source), Recording(Cell(source), status="oom", facts=facts, discarded=discarded), diagnosis)


@functools.cache
def answers(cell: NotebookCell, known: Known, source: str | None = None) -> tuple[Proposal | Declined, ...]:
    """Ask every remedy by itself, so that an error in one is an error here; give what is behind a decline too."""
    context = context_of(cell, known, source)
    asked = [remedy for remedy in all_remedies() if not known.keys or remedy.KEY in known.keys]
    found = [answer for remedy in asked for answer in remedy.propose(context)]
    behind = [answer.settings for answer in found if isinstance(answer, Declined)]
    return (*found, *(one for one in behind if one is not None))


def proposals(cell: NotebookCell, known: Known, source: str | None = None) -> list[Proposal]:
    return [one for one in answers(cell, known, source) if isinstance(one, Proposal)]


def edits(cell: NotebookCell, known: Known, source: str | None = None) -> dict[str, str]:
    """Give every changed cell that is offered in place, by what offers it: the choices beside a proposal too."""
    found = {}
    for one in proposals(cell, known, source):
        if not one.new_cell:
            found |= {one.key: one.source, **{f"{one.key}: {c.label}": c.source for c in one.choices}}
    return found


def all_edits() -> Iterator[tuple[NotebookCell, str, str]]:
    """Yield each cell of the gallery with every changed cell that is offered for it, and what offers that."""
    for cell, known in READ:
        for key, source in edits(cell, known).items():
            yield cell, key, source


def read(source: str) -> PythonCell:
    cell = read_cell(source)
    assert isinstance(cell, PythonCell), cell
    return cell


def why_not_compiled(source: str) -> str:
    """Compile what Python sees of a cell, as IPython does; give the error, empty where there is none."""
    masked = mask(source)
    if isinstance(masked, NotPython):
        return masked.reason
    try:
        compile(masked.python, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg} in {error.text!r}"
    return ""


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(read(source).python).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def hidden_lines(source: str) -> list[str]:
    """List the lines that only IPython understands, as they stand."""
    cell, lines = read(source), split_lines(source)
    return [lines[number - 1] for number in sorted(cell.hidden)]


def texts(source: str) -> set[str]:
    nodes = ast.walk(read(source).tree)
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def missing_lines(before: str, after: str) -> list[str]:
    """List the lines of ``before`` that are not in ``after`` in the same order, byte for byte."""
    missing, rest = [], split_lines(after)
    for line in split_lines(before):
        if line in rest:
            rest = rest[rest.index(line) + 1 :]
        else:
            missing.append(line)
    return missing


def too_early(before: str, after: str) -> list[str]:
    """List the lines added to a cell that read a name above every line of the cell that sets it."""
    tree, lines = read(after).tree, split_lines(after)
    names = [n for s in tree.body if not isinstance(s, SCOPES) for n in ast.walk(s) if isinstance(n, ast.Name)]
    stored: dict[str, int] = {}
    for name in names:
        if not isinstance(name.ctx, ast.Load):
            stored[name.id] = min(stored.get(name.id, name.lineno), name.lineno)
    early = {n.lineno for n in names if isinstance(n.ctx, ast.Load) and stored.get(n.id, 0) > n.lineno}
    return [lines[number - 1] for number in early if lines[number - 1] in missing_lines(after, before)]


def test_every_remedy_is_asked_and_most_change_some_cell_of_the_gallery():
    changing = {key.partition(":")[0] for _, key, _ in all_edits()}
    keys = {one.key for one in answers(*ASKED[0])}
    assert {remedy.KEY for remedy in all_remedies()} == keys
    assert set(EDITING) <= changing


def test_an_edited_cell_compiles_where_the_original_did():
    found = [(c.name, key, s) for c, key, s in all_edits() if why_not_compiled(s) and not why_not_compiled(c.source)]
    assert [] == found


def test_comments_stay_as_they_are():
    assert [] == [(c.name, key, s) for c, key, s in all_edits() if comments(c.source) != comments(s)]


def test_magics_and_shell_lines_stay_as_they_are():
    assert [] == [(c.name, key, s) for c, key, s in all_edits() if hidden_lines(c.source) != hidden_lines(s)]


def test_every_text_stays_but_the_one_that_names_the_optimizer():
    lost = [(c.name, key, text) for c, key, s in all_edits() for text in texts(c.source) - texts(s)]
    names = [one for one in lost if one[1].startswith(("lighter", "accumulate")) and one[2] in ("adam", "rmsprop")]
    assert names == lost


def test_few_lines_change_and_all_others_are_the_same_bytes():
    counted = [(c.name, key, missing_lines(c.source, s)) for c, key, s in all_edits() if key != "distribute"]
    assert [] == [one for one in counted if len(one[2]) > 4]


def test_what_is_put_under_a_scope_is_only_indented():
    for cell, key, source in all_edits():
        if key == "distribute":
            stripped = ["".join(line.lstrip(" ") for line in split_lines(one)) for one in (cell.source, source)]
            assert [] == missing_lines(*stripped), cell.name


def test_no_new_line_reads_a_name_that_the_cell_sets_only_later():
    assert [] == [(c.name, key, early) for c, key, s in all_edits() if (early := too_early(c.source, s))]


def test_a_cell_with_windows_line_ends_keeps_them_and_gets_the_same_edit():
    for cell, known in READ:
        plain = cell.source.replace("\r\n", "\n")
        plain += "" if "\n" in plain else "\n"
        expected = {key: source.replace("\n", "\r\n") for key, source in edits(cell, known, plain).items()}
        assert expected == edits(cell, known, plain.replace("\n", "\r\n")), cell.name


@pytest.mark.parametrize("head", ["if True:\n    ", "with tf.device('GPU:0'):\n\t", "async def go():\n  "])
def test_in_a_block_the_same_holds(head):
    lead, _, indent = head.partition("\n")
    for cell, known in itertools.product(CELLS, KNOWN[:2]):
        lines = split_lines(cell.source)
        if lines[0].startswith("%%") or "__future__" in cell.source or "\\\n" in cell.source:
            continue
        source = f"{lead}\n" + "".join(f"{indent}{line}" for line in lines)
        if why_not_compiled(source):
            continue
        for key, changed in edits(cell, known, source).items():
            assert "" == why_not_compiled(changed), (cell.name, key)
            assert comments(source) == comments(changed), (cell.name, key)
            assert texts(source) - texts(changed) <= {"adam", "rmsprop"}, (cell.name, key)
            assert [] == too_early(source, changed), (cell.name, key)


def test_the_original_is_kept_so_undo_puts_every_byte_back():
    made = [(cell.source, one) for cell, known in READ for one in proposals(cell, known)]
    assert [] == [one for source, one in made if one.original != source]


def test_what_undo_and_a_restart_run_compiles():
    made = [one for cell, known in READ for one in proposals(cell, known)]
    codes = {code for one in made for code in (one.undo, one.prologue)}
    assert [] == [code for code in codes if why_not_compiled(f"{code}\npass")]


def test_asked_again_about_its_own_edit_a_remedy_adds_no_line_a_second_time():
    for cell, known in READ:
        for key, source in edits(cell, known).items():
            added = [line for line in missing_lines(source, cell.source) if line.strip()]
            only = replace(known, keys=(key.partition(":")[0],))
            again = edits(cell, only, source).get(key, source)
            assert [] == [line for line in missing_lines(again, source) if line in added], (cell.name, key, again)


def test_a_decline_is_a_part_of_a_sentence():
    made = (one for cell, known in ASKED for one in answers(cell, known))
    reasons = {one.reason for one in made if isinstance(one, Declined)}
    assert [] == [text for text in reasons if len(text.split()) < 3 or not text.isprintable() or text.endswith(".")]
    assert [] == [text for text in reasons if re.search(r"Traceback|\bNone\b|object at 0x|break the cell", text)]


NOISE = (
    "# model.fit(a, b, batch_size=512)  # model = build() _n_\n",
    "%matplotlib inline _n_\n",
    "!pip install -q thing==1.0 _n_ \\\n    other # _n_\n",
    "note_n_ = 'model.fit(a, batch_size=512)' # _n_\n",
    'text_n_ = """_n_ model.compile("adam")\n_n_ from __future__ import annotations\n_n_"""; pass # _n_\n',
    "def ünused_n_(a, *, b=512):  # _n_\n    def inner(batch_size=512):  # _n_\n        return f'{a!r:>{b}} _n_'\n    return inner #_n_\n",
    "print_n_ = [  # _n_\n    512, # _n_\n] # _n_\n",
    "s_n_ = 'a' \\\n    'b_n_' ; t_n_ = 512\n",
    "\x0c# a form feed _n_\n",
)


@given(
    st.sampled_from([one for one in READ if not why_not_compiled(one[0].source)]),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(NOISE)), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_code_that_has_nothing_to_do_with_it_changes_no_edit(asked, noise, end, final):
    cell, known = asked
    base = cell.source.replace("\r\n", "\n") + ("" if cell.source.endswith("\n") or not final else "\n")
    cell = replace(cell, source=base)
    noisy = with_noise(base, noise).replace("\n", end)
    assert "" == why_not_compiled(noisy)
    plain = edits(cell, known)
    found = edits(cell, known, noisy)
    extra = [line for line in split_lines(noisy) if "_n_" in line]
    for key, source in found.items():
        kept = [line for line in split_lines(source) if "_n_" in line]
        if key.startswith("distribute"):
            kept, extra_here = [line.strip() for line in kept], [line.strip() for line in extra]
            assert extra_here == kept
        else:
            assert extra == kept, key
            assert plain[key] == "".join(line for line in split_lines(source) if "_n_" not in line).replace(
                end, "\n"
            ), key
    missed = plain.keys() - found.keys()
    assert missed <= {"distribute"}, answers(cell, known, noisy)


def places_between(cell: PythonCell) -> list[int]:
    """List where in the text other code can stand: at the start of a line, between two statements of the cell."""
    leading = [s.lineno for s in cell.tree.body[:1] if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    leading += [s.lineno for s in cell.tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    tops = {min([s.lineno, *(d.lineno for d in getattr(s, "decorator_list", []))]) for s in cell.tree.body}
    starts = [cell.starts[line - 1] for line in sorted(tops) if line > max([0, *leading])]
    ends = [(cell.source[:at], cell.source[at:]) for at in starts if not cell.source[:at].endswith("\\\n")]
    parted = [len(one) for one, two in ends if not why_not_compiled(one + "\npass") + why_not_compiled(two)]
    return [*parted, *([len(cell.source)] if cell.source.endswith("\n") else [])]


def with_noise(source: str, noise: list[tuple[int, str]]) -> str:
    """Put lines that have nothing to do with the training between the cell's statements; each has a ``_n_``."""
    cell = read(source)
    places = places_between(cell)
    noise = noise if places else []
    chosen = sorted(((places[at % len(places)], text) for at, text in noise), reverse=True)
    for number, (at, text) in enumerate(chosen):
        source = source[:at] + text.replace("_n_", f"_n_{number}") + source[at:]
    return source
