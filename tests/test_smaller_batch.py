"""The remedy ``smaller-batch`` on cells as people write them: what the edited cell really does when it runs."""

import difflib

import pytest
from batch_cells import CASES
from batch_runtime import Runtime, at_mark

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, NamedValue, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies.smaller_batch import propose

EDITED = [pytest.param(c, id=c.name) for c in CASES if c.batch is not None]
REFUSED = [pytest.param(c, id=c.name) for c in CASES if c.batch is None]
KERAS = ("fit", "evaluate", "predict")


def facts_of(case, batches=()):
    given = case.given
    return Facts(
        tensorflow="2.21.0",
        scalars=tuple(ScalarFact(n, v) for n, v in given.get("scalars", {}).items()),
        datasets=(
            *(DatasetFacts(n, batch=v) for n, v in given.get("datasets", {}).items()),
            *(DatasetFacts(n, "PyDataset", v) for n, v in given.get("generators", {}).items()),
        ),
        values=tuple(NamedValue(n, 100, "array", shape=(25, 1)) for n in given.get("arrays", ())),
        models=tuple(ModelFacts(n) for n in given.get("models", ("model",))),
        batches=batches,
        earlier_cells=given.get("cells", ()),
    )


def answer(case, knows="line"):
    """Ask the remedy, knowing the failing line only, the whole stack, or also what Keras was seen to use."""
    events, mark = [], next(n for n, line in enumerate(case.source.splitlines(), 1) if "# <-" in line)
    if case.batch is not None:
        events, mark = at_mark(case.source, Runtime(case.given).run(case.source))
    lines = events[0][0] if events else (mark,)
    frames = tuple(Frame("cell", line, "f", in_cell=True, is_user=True) for line in reversed(lines))
    errors = (ErrorText("ResourceExhaustedError", "OOM", frames),) if knows != "line" else ()
    seen = tuple(BatchSeen(method, batch, source) for _, method, batch, source in events[:1] if method in KERAS)
    facts = facts_of(case, seen if knows == "seen" else ())
    cell = Cell(case.source)
    # A frame's line does not count magics above the code; the diagnosis's does.
    dropped = sum(line.startswith("%%") for line in case.source.splitlines())
    frames = tuple(Frame(f.file, f.line - dropped, f.function, True, True) for f in frames)
    errors = tuple(ErrorText(e.type, e.message, frames) for e in errors)
    recording = Recording(cell, status="oom", facts=facts, errors=errors)
    (only,) = propose(Context(cell, recording, Diagnosis("GPU:0", line=lines[0])))
    return only


@pytest.mark.parametrize("knows", ["line", "stack", "seen"])
@pytest.mark.parametrize("case", EDITED)
def test_the_edited_cell_really_runs_with_the_promised_batch(case, knows):
    proposal = answer(case, knows)
    assert isinstance(proposal, Proposal), proposal.reason
    events, _ = at_mark(proposal.source, Runtime(case.given).run(proposal.source))
    used = [batch for _, method, batch, _ in events if method != "validation"]
    assert {case.batch} == set(used), proposal.source
    if proposal.expects:
        assert (("batch", case.batch),) == proposal.expects


@pytest.mark.parametrize("case", EDITED)
def test_the_original_cell_runs_with_the_batch_the_title_says(case):
    events, _ = at_mark(case.source, Runtime(case.given).run(case.source))
    title = answer(case).title.split()
    factor = 2 if "replica" in title else 1
    assert int(title[1]) * factor == events[0][2]


@pytest.mark.parametrize("case", EDITED)
def test_validation_never_uses_more_than_training(case):
    proposal = answer(case)
    events = Runtime(case.given).run(proposal.source)
    checked = [batch for _, method, batch, _ in events if method == "validation"]
    assert [] == [batch for batch in checked if batch > case.batch]


@pytest.mark.parametrize("case", EDITED)
def test_only_lines_that_set_the_batch_change(case):
    proposal = answer(case)
    before, after = case.source.splitlines(keepends=True), proposal.source.splitlines(keepends=True)
    changes = [o for o in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if o[0] != "equal"]
    touched = "".join("".join(before[i:j]) + "".join(after[k:m]) for _, i, j, k, m in changes)
    digits = {str(case.batch), str(answer(case).title.split()[3])}
    assert any(number in touched for number in digits)
    assert len(changes) <= 3
    assert [] == [o for o in changes if o[0] == "delete"]


@pytest.mark.parametrize("knows", ["line", "stack"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_cell_that_cannot_be_edited_surely_is_refused_with_its_reason(case, knows):
    refusal = answer(case, knows)
    assert isinstance(refusal, Declined), refusal.diff
    assert case.reason in refusal.reason


def test_there_are_at_least_sixty_cell_styles():
    assert len(EDITED) >= 60
