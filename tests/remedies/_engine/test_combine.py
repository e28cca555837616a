"""Several remedies at once: one edit, one restart, one undo; refused with a reason where they do not go together."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kernel import Kernel
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DeviceFacts, Facts, ModelFacts, ProcessFacts
from tf_mem_magic.core.proposals import Context, Declined, Point, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.units import GIB
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies._engine.combine import changed_context, merge, moved_lines
from tf_mem_magic.remedies._engine.ranking import combine, propose_all
from tf_mem_magic.remedies._engine.registry import all_remedies
from tf_mem_magic.session.restarts.restart import prologue_for

ROOT = Path(__file__).resolve().parents[3]

CELL = """%%tfmem
import keras
model = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(2, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
history = model.fit(x, y, batch_size=64, verbose=0)
"""
BOTH = """%%tfmem
import keras
keras.config.set_dtype_policy("mixed_bfloat16")
model = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(2, activation="softmax", dtype="float32")])
model.compile("adam", "sparse_categorical_crossentropy")
history = model.fit(x, y, batch_size=32, verbose=0)
"""
CARD = DeviceFacts(
    "GPU:0",
    compute_capability=(8, 0),
    growth=False,
    total=24 * GIB,
    others=(ProcessFacts(7, None, 8 * GIB),),
    uuid="GPU-0",
)


def context(source=CELL, line=5, devices=(CARD,), points=(), **known):
    cell = Cell(source)
    facts = Facts(
        "2.21.0",
        keras="3.15.1",
        initialised=True,
        models=(ModelFacts("model", ("Dense",), weight_bytes=100),),
        devices=devices,
        batches=(BatchSeen("fit", 64, "arrays"),),
    )
    frames = (Frame("<cell>", line, "<module>", in_cell=True, is_user=True), Frame("k.py", 9, "fit"))
    recording = Recording(cell, status="oom", facts=facts, errors=(ErrorText("OOM", "OOM", frames),))
    return Context(cell, recording, Diagnosis("GPU:0", line=line, frame=frames[0], **known), points)


def made(key, **changes):
    return replace(Proposal(key, key.title(), "b = 2\n", "a = 1\n", "same results"), **changes)


@pytest.mark.parametrize("keys", [("smaller-batch", "mixed-precision"), ("mixed-precision", "smaller-batch")])
def test_two_edits_are_one_cell_whatever_the_order_of_the_ticks(keys):
    assert BOTH == combine(context(), keys).source


def test_the_combination_starts_from_the_original_and_keeps_what_the_weaker_keeps():
    both = combine(context(), ("mixed-precision", "smaller-batch"))
    assert (CELL, "close numerics", None, (("batch", 32),), "rerun") == (
        both.original,
        both.preserves,
        both.estimate,
        both.expects,
        both.takes_effect,
    )


def test_its_title_and_key_name_both():
    both = combine(context(), ("mixed-precision", "smaller-batch"))
    assert ("smaller-batch+mixed-precision", "Batch 32 + 16-bit compute") == (both.key, both.title)


def test_undo_takes_back_what_either_sets():
    alone = combine(context(), ("mixed-precision",))
    assert alone.undo.strip() == combine(context(), ("mixed-precision", "smaller-batch")).undo.strip()


def test_an_edit_and_a_restart_are_one_restart_of_the_changed_cell():
    both = combine(context(), ("memory-growth", "smaller-batch"))
    assert ("restart", CELL.replace("64", "32"), (("TF_FORCE_GPU_ALLOW_GROWTH", "true"),)) == (
        both.takes_effect,
        both.source,
        both.environment,
    )


def test_two_restarts_are_one():
    both = combine(context(), ("memory-growth", "async-allocator"))
    assert ((CELL, {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_GPU_ALLOCATOR": "cuda_malloc_async"}, True)) == (
        both.source,
        dict(both.environment),
        "set_memory_growth" in both.prologue,
    )


def test_what_excludes_one_another_is_refused_by_name():
    refused = combine(context(), ("memory-growth", "device-limit"))
    assert isinstance(refused, Declined)
    assert (
        "“Restart with 15.0 GiB of GPU:0” and “Restart with memory growth” cannot be applied together" == refused.reason
    )


def test_a_remedy_that_declines_on_the_changed_cell_refuses_the_combination_with_its_reason():
    source = CELL.replace("import keras", "import keras; bs = 128; bs //= 2").replace("batch_size=64", "batch_size=bs")
    refused = combine(context(source), ("mixed-precision", "smaller-batch"))
    assert "after 16-bit compute, Smaller batch cannot be applied" in refused.reason
    assert "is computed when the cell runs" in refused.reason


def test_what_is_reached_under_other_settings_can_be_combined():
    alone = replace(CARD, others=())
    assert "restart" == combine(context(devices=(alone,)), ("memory-growth", "smaller-batch")).takes_effect


def test_one_remedy_is_simply_that_one():
    asked = context()
    assert next(a for a in propose_all(asked) if a.key == "smaller-batch") == combine(asked, ("smaller-batch",))


def test_a_remedy_ticked_twice_counts_once():
    assert CELL.replace("64", "32") == combine(context(), ("smaller-batch", "smaller-batch")).source


def test_no_remedy_and_no_such_remedy_are_refused():
    reasons = [combine(context(), ()).reason, combine(context(), ("smaller-batch", "magic")).reason]
    assert ["no remedy was chosen", "after Batch 32, magic cannot be applied: there is no such remedy"] == reasons


def test_two_values_of_one_variable_are_refused():
    one, other = made("a", environment=(("V", "1"),)), made("b", environment=(("V", "2"),))
    assert "“A” and “B” set V to different values" == merge((one, other), "a+b", "A + B").reason


def test_one_value_given_twice_is_no_conflict():
    one = made("a", environment=(("V", "1"),))
    assert (("V", "1"),) == merge((one, replace(one, key="b")), "a+b", "A + B").environment


def test_a_cell_of_its_own_is_not_combined_with_a_change_of_the_cell():
    changed = Proposal("a", "A", "y", "x", "same results")
    added = Proposal("b", "B", "z", "x", "nothing", new_cell=True)
    assert "“B” is a cell of its own: add it on its own" == merge([changed, added], "a+b", "A + B").reason


def test_a_new_cell_is_shown_as_added_and_the_cell_that_ran_as_kept():
    added = Proposal("b", "B", "one\ntwo", "x", "nothing", new_cell=True)
    assert ["--- nothing", "+++ new cell", "@@ -0,0 +1,2 @@", "+one", "+two"] == added.diff.splitlines()


def test_prologues_run_in_order_and_undo_in_reverse():
    steps = [made(k, prologue=f"{k} = 1", undo=f"del {k}\n") for k in ("a", "b", "c")]
    merged = merge(steps, "k", "t")
    assert ("a = 1\nb = 1\nc = 1\n", "del c\ndel b\ndel a\n") == (merged.prologue, merged.undo)


def test_caveats_are_said_once():
    steps = [made("a", caveats=("one", "two")), made("b", caveats=("two", "three"))]
    assert ("one", "two", "three") == merge(steps, "k", "t").caveats


def lines_of(asked):
    return asked.diagnosis.line, asked.diagnosis.frame.line, asked.recording.errors[0].frames[0].line


def test_the_failing_line_moves_with_the_text():
    proposal = made("a", source="%%tfmem\nimport os\nwith a:\n    import keras\n" + CELL.partition("import keras\n")[2])
    assert (7, 7, 7) == lines_of(changed_context(context(), proposal))


def test_a_frame_outside_the_cell_stays():
    proposal = made("a", source="%%tfmem\n\n\n" + CELL.partition("\n")[2])
    assert 9 == changed_context(context(), proposal).recording.errors[0].frames[1].line


def test_below_two_magics_the_diagnosis_counts_them_and_frames_do_not():
    source = "\n\n%%time\n%%tfmem\nx = 1\ny = 2\n"
    asked = context(source, line=2)
    asked = replace(asked, diagnosis=replace(asked.diagnosis, line=4))
    changed = changed_context(asked, made("a", source=source.replace("x", "w = 0\nx")))
    assert (5, 3, 3) == lines_of(changed)


def test_a_failing_line_that_was_rewritten_beyond_recognition_is_refused():
    proposal = made("a", source=CELL.replace("history = model.fit(x, y, batch_size=64, verbose=0)", "a = 1\nb = 2"))
    assert "A rewrites the line that ran out of memory" == changed_context(context(), proposal)


def test_the_promised_batch_takes_the_place_of_the_one_seen():
    changed = changed_context(context(), made("a", source=CELL, expects=(("batch", 16),)))
    assert (BatchSeen("fit", 16, "arrays"),) == changed.recording.facts.batches


def test_points_measured_on_the_cell_as_it_was_do_not_count_for_the_changed_one():
    changed = changed_context(context(points=(Point(64, 100, False),)), made("a", source=CELL))
    assert () == changed.points


WORDS = st.sampled_from(["a = 1", "b = 2", "# c", "", "d()", "    e", "if f:"])


@example([], ["b = 2", "a = 1"], ["a = 1", "a = 1", "b = 2"], False)
@given(st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=3), st.booleans())
def test_lines_inserted_anywhere_move_the_failing_line_to_itself(before, after, inserted, crlf):
    end = "\r\n" if crlf else "\n"
    old = ["%%tfmem", *before, "model.fit(x)", *after]
    new = ["%%tfmem", *inserted, *before, *inserted, "    model.fit(x)", *inserted, *after]
    source = end.join(old)
    changed = changed_context(context(source, line=len(before) + 2), made("a", source=end.join(new)))
    assert (2 * len(inserted) + len(before) + 2,) * 3 == lines_of(changed)


PROPOSING = {r.KEY: next(e for e in r.EXAMPLES if not e.declined) for r in all_remedies()}


@pytest.mark.parametrize("key", PROPOSING)
@pytest.mark.parametrize("other", PROPOSING)
def test_any_two_remedies_combine_or_refuse_with_a_reason(key, other):
    example = PROPOSING[key]
    both = combine(example.context, (key, other))
    if isinstance(both, Declined):
        assert both.reason
    else:
        readable = hasattr(read_cell(both.source), "tree")
        assert (True, example.context.cell.source) == (readable, both.original)


REAL = """
import json, sys
import numpy as np, keras
x = np.ones((96, 4), "float32"); y = np.zeros(96, "int64")
source, undo = json.load(sys.stdin)
exec(source.partition("\\n")[2])
told = [[keras.config.dtype_policy().name, model.layers[0].compute_dtype, model.layers[1].compute_dtype,
                          int(model.optimizer.iterations), int(model.count_params())]]
exec(undo)
print("FOUND" + json.dumps([*told, keras.config.dtype_policy().name]))
"""


@pytest.mark.tf
def test_the_combined_cell_really_trains_with_both_and_undo_takes_the_policy_back():
    both = combine(context(), ("mixed-precision", "smaller-batch"))
    told = found_by(REAL, [both.source, both.undo])
    # 96 samples in batches of 32 are three steps.
    assert [["mixed_bfloat16", "bfloat16", "float32", 3, 4 * 8 + 8 + 8 * 2 + 2], "float32"] == told


@pytest.mark.tf
@pytest.mark.kernel
def test_one_restart_really_sets_both(tmp_path):
    try:
        gpu = ramgpu_env(tmp_path / "gpu", mib=64)
    except CannotBuildError as reason:
        lacking(reason)
    both = combine(context(), ("memory-growth", "async-allocator"))
    with Kernel({**gpu, "IPYTHONDIR": str(tmp_path)}) as kernel:
        assert [] == kernel.run(prologue_for(both, "a-rerun")).errors
        kernel.run("import os\nimport tensorflow as tf\ngpu = tf.config.list_physical_devices('GPU')[0]")
        told = kernel.value("[tf.config.experimental.get_memory_growth(gpu), os.environ['TF_GPU_ALLOCATOR']]")
    assert [True, "cuda_malloc_async"] == told


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        # Lines are put before the one that changes: it stands for itself, not the first of those in its place.
        ("model.fit(x, y, batch_size=64)", "import z\nmodel.fit(s(x, y, batch_size=64))", {1: 2}),
        ("a = 1\nh = m.fit(x, y, 64)\nb", "a = 1\nimport z\nk = 2\nh = m.fit(z.s(x, y, 64))\nb", {1: 1, 2: 4, 3: 5}),
        ("for e in data:\n    step(e)", "n = 8\nfor e in data.rebatch(8):\n    step(e)", {1: 2, 2: 3}),
        # What is like nothing has no place.
        ("train()", "import keras\nkeras.utils.clear_session()", {}),
    ],
)
def test_a_line_that_changes_beside_new_ones_is_found_again(old, new, moved):
    assert moved_lines(old.split("\n"), new.split("\n")) == moved
