"""Functions of earlier cells, taken over by the cell that calls them where a remedy changes them."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.cells.assigned import names_back
from tf_mem_magic.cells.take_over import put_back, take_over
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, Facts, FunctionFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.remedies import combine, propose_all

FILE = "/tmp/ipykernel_7/1.py"
HERE = "/tmp/ipykernel_7/2.py"
BUILD = """def build():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8)])
    model.compile("adam", "mse")
    return model"""
RUN = """def run(model, epochs=2):
    # long
    h = model.fit(x, y, batch_size=64, epochs=epochs)
    return h.history"""
STEP = """@tf.function
def step(xb):
    noise = tf.random.normal([BATCH, 8])
    return noise"""
TRAIN = """def train(data):
    for xb in data:
        step(xb)"""
PLAIN = "%%tfmem\nmodel = build()\nresult = run(model)\n"


def function(source, line, staged=False):
    return FunctionFacts(source.partition("def ")[2].partition("(")[0], source, FILE, line, staged)


def failed(source, functions, called, inner, *, dropped=0, **facts):
    """Give the context of a cell that failed in line ``inner`` of the earlier cell, called from line ``called``."""
    frames = (
        Frame(HERE, called - dropped, "<module>", in_cell=True, is_user=True),
        Frame(FILE, inner, "f", is_user=True),
    )
    known = Facts(
        tensorflow="2.21.0",
        keras="3.15.1",
        initialised=True,
        earlier_cells=("import keras",),
        functions=functions,
        **facts,
    )
    errors = (ErrorText("ResourceExhaustedError", "", frames),)
    diagnosis = Diagnosis("GPU:0", line=called, frame=frames[-1], limit=1000, requested=10)
    return Context(Cell(source), Recording(Cell(source), errors=errors, status="oom", facts=known), diagnosis)


def plain(source=PLAIN, **more):
    lines = source.splitlines()
    called = next(i for i, line in enumerate(lines, 1) if "run(model)" in line)
    dropped = dropped_lines(source)
    return failed(source, (function(RUN, 10), function(BUILD, 3)), called, 12, dropped=dropped, **more)


def answer(context, key):
    return next(a for a in propose_all(context) if a.key == key)


def test_a_number_in_an_earlier_function_is_changed_in_a_copy_of_it():
    proposal = answer(plain(), "smaller-batch")
    copy = RUN.replace("64", "32")
    assert proposal.source == f"%%tfmem\n{copy}\n\nmodel = build()\nresult = run(model)\n"
    assert (proposal.title, proposal.original, proposal.undo) == ("Batch 64 → 32", PLAIN, RUN)
    assert "`run` of an earlier cell is defined anew in this cell; Undo sets it back." in proposal.caveats


def test_the_diff_shows_what_changes_in_the_copy_and_not_the_copy():
    changed = [line for line in answer(plain(), "smaller-batch").diff.splitlines()[2:] if line[0] in "+-"]
    assert changed == [
        "-    h = model.fit(x, y, batch_size=64, epochs=epochs)",
        "+    h = model.fit(x, y, batch_size=32, epochs=epochs)",
    ]


def test_a_name_that_an_earlier_function_reads_is_set_in_the_cell_and_set_back():
    functions = (function(RUN.replace("64", "BATCH"), 10), function(BUILD, 3))
    context = failed(PLAIN, functions, 3, 12, scalars=(ScalarFact("BATCH", 64),))
    proposal = answer(context, "smaller-batch")
    assert proposal.source == PLAIN.replace("model = build()", "BATCH = 32\nmodel = build()")
    assert (proposal.undo, proposal.taken_over) == ("BATCH = 64", ())


def test_what_tf_function_has_traced_with_an_old_name_is_traced_anew():
    functions = (function(TRAIN, 20), function(STEP, 10, staged=True))
    source = "%%tfmem\ntrain(ds)\n"
    facts = {"scalars": (ScalarFact("BATCH", 64),), "datasets": (DatasetFacts("ds", batch=64),)}
    proposal = answer(failed(source, functions, 2, 22, used=("BATCH", "step"), **facts), "smaller-batch")
    assert proposal.source == f"%%tfmem\nBATCH = 32\n{STEP}\n\ntrain(ds.rebatch(32))\n"
    assert proposal.undo == f"{STEP}\nBATCH = 64"


def test_a_name_that_other_code_uses_too_is_left_alone():
    functions = (function(TRAIN, 20), function(STEP, 10, staged=True))
    facts = {"scalars": (ScalarFact("BATCH", 64),), "datasets": (DatasetFacts("ds", batch=64),)}
    facts |= {"used_besides": ("BATCH",)}
    other = "class Other:\n    def size(self):\n        return BATCH"
    context = failed("%%tfmem\ntrain(ds)\n", functions, 2, 22, **facts)
    known = replace(context.recording.facts, earlier_cells=(other,))
    context = replace(context, recording=replace(context.recording, facts=known))
    assert isinstance(answer(context, "smaller-batch"), Declined)


def test_two_remedies_change_the_same_copy():
    both = combine(plain(), ("accumulate-gradients", "mixed-precision"))
    assert isinstance(both, Proposal), both
    assert both.source.count("def run(") == 1
    assert "batch_size=32" in both.source
    assert "gradient_accumulation_steps=2" in both.source
    assert "set_dtype_policy" in both.source
    assert RUN in both.undo
    assert BUILD in both.undo
    ast.parse(both.source.replace("%%tfmem", ""))


@pytest.mark.parametrize(
    "source",
    [
        "%%time\n%%tfmem\n\n# train\nmodel = build()\nresult = run(model)",
        "%%tfmem\r\nmodel = build()\r\nresult = run(model)\r\n",
        '%%tfmem\n"""Train."""\nfrom __future__ import annotations\nmodel = build()\nresult = run(model)',
        "%%tfmem\n!ls\n%matplotlib inline\nmodel = build()\nresult = run(model)  # here\n",
        "model = build(); result = run(model)",
        "%%tfmem\ntry:\n    result = run(model)\nfinally:\n    pass",
    ],
)
def test_the_rest_of_the_cell_stays_as_it_was_and_lines_are_found_again(source):
    context = plain(source)
    taken = take_over(context)
    lines = taken.context.cell.source.splitlines()
    assert "run(model)" in lines[context.diagnosis.line - 1 + len(lines) - len(source.splitlines())]
    assert "model.fit" in lines[taken.context.diagnosis.line - 1]
    proposal = answer(context, "smaller-batch")
    newline = "\r\n" if "\r\n" in source else "\n"
    copy = RUN.replace("64", "32").replace("\n", newline) + newline * 2
    assert proposal.source.count(copy) == 1
    assert proposal.source.replace(copy, "") == source


def test_an_edit_that_changes_no_function_takes_none_over():
    taken = take_over(plain())
    changed = taken.context.cell.source.replace("result =", "found =")
    proposal = Proposal("a", "A", changed, taken.context.cell.source, "nothing")
    back = put_back(taken, plain(), proposal)
    assert (back.source, back.taken_over, back.undo) == (PLAIN.replace("result =", "found ="), (), "")


@pytest.mark.parametrize(
    "source", ["%%tfmem\nrun = pick()\nresult = run(model)", "%%tfmem\ndef run(m):\n    pass\nresult = run(model)"]
)
def test_a_name_that_the_cell_binds_itself_is_not_taken_over(source):
    taken = take_over(plain(source))
    assert "batch_size=64" not in taken.context.cell.source


@pytest.mark.parametrize("inner", [2, 9, 14])
def test_where_no_function_led_to_the_error_nothing_is_taken_over(inner):
    assert take_over(failed(PLAIN, (function(RUN, 10),), 3, inner)) is None


NAMES = st.sampled_from(["a", "b", "c"])


@given(st.lists(NAMES, unique=True, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_taking_over_and_putting_back_is_the_identity(names, newline, blank):
    functions = tuple(function(f"def {n}():\n    return fit()", 10 * i) for i, n in enumerate(names, 1))
    source = newline.join(["%%tfmem", *([""] if blank else []), *(f"{n}()" for n in names), ""])
    context = failed(source, functions, 2 + blank, 10)
    taken = take_over(context)
    assert all(f.name in taken.context.cell.source for f in functions)
    back = put_back(taken, context, Proposal("a", "A", taken.context.cell.source, "", "nothing"))
    assert back.source == source


@pytest.mark.parametrize(
    ("original", "source", "expected"),
    [
        ("fit(B)", "B = 32\nfit(B)", "B = 64"),
        ("B = 64\nfit(B)", "B = 32\nfit(B)", ""),
        ("fit(cfg.b)", "cfg.b = 32\nfit(cfg.b)", "cfg.b = 8"),
        ("fit(C)", "C = 32\nfit(C)", ""),
        ("fit(name)", "name = 'x'\nfit(name)", "name = 'old'"),
        ("fit()", "not python (", ""),
    ],
)
def test_names_are_set_back_where_only_the_changed_cell_sets_them(original, source, expected):
    facts = Facts(scalars=(ScalarFact("B", 64), ScalarFact("cfg.b", 8), ScalarFact("name", "old")))
    assert names_back(original, source, facts) == expected
