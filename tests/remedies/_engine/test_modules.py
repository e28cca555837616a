"""Training in an imported module: it is never written, and what would help there can be copied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kernel import Kernel, bfc
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts, ModuleFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies._engine.modules import in_modules
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.report.choices import not_offered

FILE = "/home/me/training.py"
MODULE = """import keras
from keras import layers

BATCH = 16384


def build():
    stack = [keras.Input((64,))] + [layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(1)]
    model = keras.Sequential(stack)
    model.compile("adam", "mse", jit_compile=False)
    return model


def train(model, x, y):
    # the usual
    return model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
"""
CELL = "%%tfmem\nh = training.train(model, x, y)"
CHANGED = ["-BATCH = 16384", "+BATCH = 8192"]


def failed(module=MODULE, line=16, **facts):
    frames = (
        Frame("/tmp/ipykernel_7/2.py", 2, "<module>", in_cell=True, is_user=True),
        Frame(FILE, line, "train", is_user=True),
    )
    known = Facts("2.21.0", "3.15.1", True, modules=(ModuleFacts(FILE, module),), **facts)
    diagnosis = Diagnosis("GPU:0", line=2, frame=frames[-1], limit=1000, requested=10)
    errors = (ErrorText("ResourceExhaustedError", "", frames),)
    return Context(Cell(CELL), Recording(Cell(CELL), errors=errors, status="oom", facts=known), diagnosis)


def changes(answer):
    return [line for line in answer.patch.splitlines()[2:] if line[0] in "+-"]


def batch_of(context):
    return next(a for a in propose_all(context) if a.key == "smaller-batch")


def test_the_change_to_the_module_is_shown_and_nothing_is_offered():
    answer = batch_of(failed(models=(ModelFacts("model", local=True),)))
    assert isinstance(answer, Declined)
    assert changes(answer) == CHANGED
    assert answer.patch.startswith("--- training.py\n+++ training.py, changed\n")
    assert answer.reason == (
        "the code that failed is /home/me/training.py:16 in `train`, which is not written here; “Batch 8192” "
        "would be this change to it, and importing it anew takes a restart"
    )
    assert not_offered((answer,)) == "1 not offered, 1 with a change elsewhere to copy"


def test_names_of_the_notebook_do_not_speak_for_the_module():
    known = {"scalars": (ScalarFact("BATCH", 7),), "models": (ModelFacts("model", local=True), ModelFacts("other"))}
    assert changes(batch_of(failed(**known))) == CHANGED
    inside = next(context for _, context in in_modules(failed(**known)))
    assert [m.name for m in inside.recording.facts.models] == ["model"]


@pytest.mark.parametrize(
    "context",
    [
        failed(module="def train(:"),
        failed(module="import other\n\ndef train(m):\n    return other.go(m)", line=4),
        replace(failed(), diagnosis=None),
        failed(line=99),  # the file has changed since it was imported
        failed(line=10),
    ],
)
def test_a_module_without_a_sure_change_gets_no_patch(context):
    assert all(not answer.patch for answer in propose_all(context) if isinstance(answer, Declined))


@pytest.mark.kernel
@pytest.mark.tf
def test_the_real_module_is_read_and_left_as_it_was(tmp_path):
    path = tmp_path / "training.py"
    path.write_text(MODULE)
    with Kernel(bfc(150)) as kernel:
        kernel.run(f"%load_ext tf_mem_magic\nimport sys; sys.path.insert(0, {str(tmp_path)!r})")
        kernel.run("import numpy as np, training\nx = np.zeros((16384, 64), 'float32'); y = np.zeros((16384, 1))")
        got = kernel.run("%%tfmem -o rep\nh = training.train(training.build(), x, y)")
        assert got.status == "error"
        patches = "{d.key: d.patch for d in rep.outcome.declined if d.patch}"
        assert {"smaller-batch", "accumulate-gradients"} <= set(kernel.value(patches))
        parts = kernel.value("[(p.kind, p.names) for p in rep.diagnosis.breakdown]")
        assert ("weights", ("model",)) in parts
        assert "with a change elsewhere to copy" in got.report_text
        whole = kernel.run("%tfmem last --all")
        shown = [line.strip() for line in (whole.out + whole.report_text).splitlines()]
        assert {"-BATCH = 16384", "+BATCH = 8192"} <= set(shown)
    assert path.read_text() == MODULE


@pytest.mark.parametrize("blank", [1, 3, 4])
def test_blank_lines_above_a_module_count(blank):
    other = "\n\n\ndef other(model, x, y):\n    return model.fit(x, y, batch_size=16)\n"
    answer = batch_of(failed("\n" * blank + MODULE + other, 16 + blank, models=(ModelFacts("model", local=True),)))
    assert changes(answer) == CHANGED
    first = 2 + blank
    assert f"@@ -{first},5 +{first},5 @@" in answer.patch
