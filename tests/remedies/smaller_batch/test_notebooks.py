"""Notebooks that run out of memory, with stand-ins: the changed cell uses the smaller batch and sees every sample."""

from __future__ import annotations

import ast
import functools
from collections import Counter

import pytest

from tests.stand_ins.batch_notebooks import CASES, Case
from tests.stand_ins.runtime import Notebook, OutOfMemory
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.remedies._engine.ranking import propose_all

EDITED = [pytest.param(c, id=f"{c.kind}: {c.name}") for c in CASES if c.batch is not None]
REFUSED = [pytest.param(c, id=f"{c.kind}: {c.name}") for c in CASES if c.batch is None]


@functools.cache
def answers(case):
    """Let the notebook run out of memory, and ask every remedy."""
    limit = case.limit if case.limit is not None else case.before - 1
    notebook = Notebook(case.earlier, limit)
    error = notebook.run(case.cell)
    assert isinstance(error, OutOfMemory), "the notebook must run out of memory"
    return {a.key: a for a in propose_all(notebook.context(case.cell, error))}


def ran(case, source, limit=float("inf")):
    """Run the notebook with another last cell; give what was seen of it."""
    notebook = Notebook(case.earlier, limit)
    assert notebook.run(source) is None
    return notebook.notes


@pytest.mark.parametrize("case", EDITED)
def test_the_changed_cell_uses_the_smaller_batch_and_sees_every_sample(case):
    answer = answers(case)["smaller-batch"]
    assert isinstance(answer, Proposal), answer.reason
    assert case.has in answer.source
    before, after = ran(case, case.cell), ran(case, answer.source, case.batch)
    assert [(m, n) for m, _, n in before.calls] == [(m, n) for m, _, n in after.calls]
    assert case.batch == max([*(largest for m, largest, _ in after.calls if m != "validation"), *after.steps])
    assert any(str(n) in answer.title for n in (case.batch, 2 * case.batch))


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_changed_for_sure_is_refused_with_its_reason(case):
    answer = answers(case)["smaller-batch"]
    assert isinstance(answer, Declined), answer.diff
    assert case.reason in answer.reason


@pytest.mark.parametrize("case", [c for c in EDITED if c.values[0].kind == "inference"])
def test_what_only_infers_is_told_as_inference(case):
    answer = answers(case)["smaller-batch"]
    assert ("close numerics", []) == (answer.preserves, [c for c in answer.caveats if "epoch" in c or "rate" in c])


@pytest.mark.parametrize("case", [c for c in EDITED if c.values[0].kind == "drawn"])
def test_what_is_drawn_stays_or_is_told(case):
    answer = answers(case)["smaller-batch"]
    names, told = Notebook(case.earlier), any("draws" in c for c in answer.caveats)
    changed = Notebook(case.earlier)
    names.run(case.cell)
    changed.run(answer.source)
    assert told or names.names["drawn"] == changed.names["drawn"]


@pytest.mark.parametrize(
    ("set_", "fit"),
    [
        ("BATCH = 64", "h = model.fit(x_train, y_train, batch_size=BATCH)  # <-\nplt.plot(h)"),
        ("BATCH = 64", "h = model.fit(x_train, y_train, BATCH)  # <-\nr = h\nplt.subplots(r)"),
        ("def train(n=64):\n    return model.fit(x_train, y_train, batch_size=n)", "h = train()  # <-\nplt.plot(h)"),
        (
            "B = 64",
            "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(B)\nplt.show()\nmodel.fit(ds)  # <-",
        ),
        (
            "BATCH = 64\nclass Net:\n    def go(self, x, y, size):\n        return model.fit(x, y, batch_size=size)",
            "net = Net()\nh = net.go(x_train, y_train, BATCH)  # <-\nplt.plot(h)",
        ),
        (
            "BATCH = 64\nclass Net:\n    def fit_model(self, x, y, size):\n        return model.fit(x, y, batch_size=size)",
            "net = Net()\nh = net.fit_model(x_train, y_train, BATCH)  # <-\nplt.plot(h)",
        ),
        (
            "BATCH = 64\ndef run(x, y, n):\n    return model.fit(x, y, batch_size=n)",
            "h = run(x_train, y_train, BATCH)  # <-\nplt.plot(h)",
        ),
    ],
)
@pytest.mark.parametrize("in_cell", [True, False])
def test_what_only_trains_with_the_name_is_not_said_to_draw(set_, fit, in_cell):
    model = next(c for c in CASES if c.name == "an earlier name that draws").earlier[1]
    earlier, cell = ((model,), f"{set_}\n{fit}") if in_cell else ((model, set_), fit)
    answer = answers(Case("drawn", "a history", cell, earlier, 32))["smaller-batch"]
    assert [c for c in answer.caveats if "drawn" in c] == []


def test_validation_that_is_smaller_already_is_left_alone():
    case = next(c for c in CASES if c.name == "a validation that is smaller already")
    answer = answers(case)["smaller-batch"]
    assert ("val_gen.batch_size" not in answer.source, [c for c in answer.caveats if "val_gen" in c]) == (True, [])


def test_a_loop_that_goes_on_taking_as_many_steps_is_told():
    case = next(c for c in CASES if c.name == "a loop of steps over random batches")
    told = "The loop in line 1 takes as many steps as before, each with fewer samples."
    assert told in answers(case)["smaller-batch"].caveats


@pytest.mark.parametrize("name", ["a loop of steps over random batches", "a loop with random samples"])
def test_a_loop_of_as_many_steps_takes_no_more_of_them(name):
    caveats = answers(next(c for c in CASES if c.name == name))["smaller-batch"].caveats
    assert [c for c in caveats if "more steps" in c or "moves on faster" in c] == []


@pytest.mark.parametrize("case", [c for c in [*EDITED, *REFUSED] if c.values[0].accumulates is not None])
def test_accumulation_keeps_the_effective_batch_or_says_why_not(case):
    answer, right = answers(case)["accumulate-gradients"], case.accumulates
    if right is not True:
        assert isinstance(answer, Declined), answer.diff
        assert right in answer.reason
        return
    assert isinstance(answer, Proposal), answer.reason
    plain = ast.unparse(_Plain().visit(ast.parse(answer.source)))
    before, after = ran(case, case.cell), ran(case, plain, case.batch)
    assert [(m, n) for m, _, n in before.calls] == [(m, n) for m, _, n in after.calls]


class _Plain(ast.NodeTransformer):
    """Leaves our own calls out: the stand-ins have no optimizer."""

    def visit_ImportFrom(self, node):
        return None if node.module == "tf_mem_magic" else node

    def visit_Expr(self, node):
        return ast.Pass() if ast.unparse(node).startswith("apply.") else node


@pytest.mark.parametrize("case", EDITED)
def test_undo_is_said_for_what_stays_in_the_notebook(case):
    answer = answers(case)["smaller-batch"]
    notebook = Notebook(case.earlier)
    before = {n: v for n, v in notebook.names.items() if type(v) in (int, float, str)}
    notebook.run(answer.source)
    notebook.run(answer.undo or "pass")
    own = {n.id for n in ast.walk(ast.parse(case.cell)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert before == {n: notebook.names[n] for n in before} or own & before.keys()


def test_the_gallery_has_many_notebooks_of_each_kind():
    count = Counter(case.kind for case in CASES)
    assert sum(count.values()) >= 120
    assert min(count.values()) >= 5
