"""The remedy ``smaller-batch`` on cells as people write them: what the edited cell really does when it runs."""

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stand_ins.batch_cells import CASES
from tests.stand_ins.batch_runtime import Runtime, at_mark
from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, NamedValue, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Point, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies.smaller_batch.remedy import propose

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
        values=tuple(NamedValue(n, 25600, "array", shape=(6400, 1)) for n in given.get("arrays", ())),
        models=tuple(ModelFacts(n) for n in given.get("models", ("model",))),
        batches=batches,
        earlier_cells=given.get("cells", ()),
        used=given.get("used", ()),
        read_elsewhere=given.get("used", ()),
    )


def ask(source, facts=None, line=None, points=(), errors=(), **known):
    """Ask about a cell whose failing line is ``line`` (by default its last)."""
    cell = Cell(source)
    line = line or len(source.splitlines())
    recording = Recording(cell, status="oom", facts=facts or Facts(), errors=errors)
    (only,) = propose(Context(cell, recording, Diagnosis("GPU:0", line=line, **known), points))
    return only


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
        ((name, promised),) = proposal.expects
        assert case.batch == promised
        assert name in ("batch", *(f"batch of {method}" for _, method, _, _ in events))


@pytest.mark.parametrize("case", EDITED)
def test_the_changed_cell_runs_with_the_batch_the_title_says(case):
    proposal = answer(case)
    events, _ = at_mark(proposal.source, Runtime(case.given).run(proposal.source))
    title = proposal.title.split()
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
    digits = {str(case.batch), str(answer(case).title.split()[1])}
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


NOISE = st.lists(
    st.sampled_from(
        ["# batch_size = 512", "note = 'batch_size=512'", "%matplotlib inline", "", "ü = 1", "!ls", "other = 64"]
    ),
    max_size=4,
)


@given(
    st.sampled_from(
        [c for c in CASES if c.batch is not None and not c.source.startswith("%") and "\r" not in c.source]
    ),
    NOISE,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n%%time\n", "\n\n%%tfmem\n"]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_noise_around_a_cell_changes_neither_the_answer_nor_itself(case, noise, end, tag, final):
    lead = tag + "".join(line + "\n" for line in noise)
    source = (lead + case.source + ("\n" if final else "")).replace("\n", end)
    lines = source.splitlines()
    events, mark = at_mark(source, Runtime(case.given).run(source))
    blank = next(n for n, line in enumerate(lines) if line.strip())
    proposal = ask(source, facts_of(case), (events[0][0][0] if events else mark) - blank)
    assert isinstance(proposal, Proposal), proposal.reason
    used, _ = at_mark(proposal.source, Runtime(case.given).run(proposal.source))
    assert {case.batch} == {batch for _, method, batch, _ in used if method != "validation"}
    assert proposal.source.startswith(lead.replace("\n", end)) or case.given.get("scalars")
    assert source.endswith(end) == proposal.source.endswith(end)
    assert ("\r\n" in source) == ("\r\n" in proposal.source)


@given(st.text(alphabet="model.fit(x,y=batch_size64)\n #%!?'\"[]:;\\\t\r", max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_gets_an_answer(source):
    only = ask(source or " ", line=1)
    assert isinstance(only, (Proposal, Declined))


def test_a_known_number_of_samples_restores_the_cardinality():
    known = DatasetFacts("train_ds", batch=64, cardinality=20, samples=1270)
    proposal = ask("model.fit(train_ds)", Facts(datasets=(known,), earlier_cells=("import tensorflow as tf",)))
    assert "model.fit(train_ds.rebatch(32).apply(tf.data.experimental.assert_cardinality(40)))" == proposal.source


def test_what_restored_the_cardinality_is_halved_again():
    known = DatasetFacts("train_ds", batch=64, cardinality=20, samples=1270)
    earlier = Facts(datasets=(known,), earlier_cells=("import tensorflow as tf",))
    once = ask("model.fit(train_ds, epochs=2)", earlier)
    twice = ask(once.source, earlier)
    expected = "model.fit(train_ds.rebatch(16).apply(tf.data.experimental.assert_cardinality(80)), epochs=2)"
    assert ("Batch 16", expected) == (twice.title, twice.source)


@pytest.mark.parametrize(
    "data",
    [
        "train_ds.apply(mine)",
        "train_ds.rebatch(n).apply(a.assert_cardinality(9))",
        "rebatch(8).apply(assert_cardinality(9))",
    ],
)
def test_another_apply_may_decide_the_batches(data):
    known = DatasetFacts("train_ds", batch=64, cardinality=20, samples=1270)
    answer = ask(f"model.fit({data})", Facts(datasets=(known,)))
    assert "decides the batches" in answer.reason


def test_an_unknown_number_of_samples_leaves_the_cardinality_out_and_says_so():
    proposal = ask("model.fit(train_ds)", Facts(datasets=(DatasetFacts("train_ds", batch=64, cardinality=20),)))
    assert "model.fit(train_ds.rebatch(32))" == proposal.source
    assert any("how many batches" in caveat for caveat in proposal.caveats)


def test_tensorflow_is_imported_where_the_cell_cannot_reach_it():
    known = DatasetFacts("train_ds", batch=64, cardinality=20, samples=1270)
    proposal = ask("from __future__ import annotations\nmodel.fit(train_ds)", Facts(datasets=(known,)))
    assert "import tensorflow as tf" == proposal.source.splitlines()[1]


@pytest.mark.parametrize(
    ("earlier", "line", "name"),
    [
        ("import tensorflow.compat.v2 as tf", None, "tf"),
        ("import tensorflow.compat.v2", None, "tensorflow.compat.v2"),
        ("import tensorflow.compat.v1 as tf", "import tensorflow", "tensorflow"),
        ("tf = pd.read_csv('terms.csv')", "import tensorflow", "tensorflow"),
        ("from setup import *\nx = tf.zeros(3)", "import tensorflow", "tensorflow"),
        ("import keras", "import tensorflow as tf", "tf"),
    ],
)
def test_what_a_notebook_calls_tf_keeps_its_meaning(earlier, line, name):
    known = DatasetFacts("train_ds", batch=64, cardinality=9, samples=560)
    proposal = ask("model.fit(train_ds)", Facts(datasets=(known,), earlier_cells=(earlier,)))
    head = f"{line}\n" if line else ""
    call = f"train_ds.rebatch(32).apply({name}.data.experimental.assert_cardinality(18))"
    assert proposal.source == f"{head}model.fit({call})"


@pytest.mark.parametrize(
    ("steps", "edited"),
    [
        ("100", "200"),
        ("None", "None"),
        ("len(train_ds)", "None"),
        ("total // 64", "total // 32"),
    ],
)
def test_steps_per_epoch_still_cover_the_data(steps, edited):
    facts = Facts(datasets=(DatasetFacts("train_ds", batch=64, cardinality=20),))
    proposal = ask(f"model.fit(train_ds, steps_per_epoch={steps})", facts)
    assert f"model.fit(train_ds.rebatch(32), steps_per_epoch={edited})" == proposal.source


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("from settings import *\nmodel.fit(x, y, batch_size=size)", "`size` comes from `import *` or an earlier cell"),
        (
            "from settings import *\nds = d.batch(size)\nmodel.fit(ds)",
            "`size` comes from `import *` or an earlier cell",
        ),
        (
            "from settings import *\nmodel.fit(x, y, batch_size=cfg.n)",
            "`cfg.n` comes from `import *` or an earlier cell",
        ),
        ("from settings import rate\nmodel.fit(x, y, batch_size=size)", "`size` comes from an earlier cell"),
    ],
)
def test_an_unknown_value_is_not_said_to_come_from_an_earlier_cell_where_a_star_may_bring_it(source, told):
    assert ask(source).reason == f"{told}, and its value is not known"


def test_steps_that_cannot_be_scaled_are_refused():
    refusal = ask("ds = d.batch(64)\nmodel.fit(ds, steps_per_epoch=count())")
    assert "`steps_per_epoch` in line 2 cannot be followed" in refusal.reason


@pytest.mark.parametrize(
    ("file", "where"),
    [("/tmp/ipykernel_7/182.py", "line 9 of an earlier cell"), ("/home/me/loop.py", "/home/me/loop.py:9")],
)
def test_where_the_code_that_failed_is_not_in_the_cell_the_reason_says_where(file, where):
    cell = Cell("run(cfg)")
    diagnosis = Diagnosis("GPU:0", line=1, frame=Frame(file, 9, "run", is_user=True))
    (answer,) = propose(Context(cell, Recording(cell, status="oom"), diagnosis))
    assert answer.reason.endswith(f"the code that failed is {where} in `run`")


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ("def run(cfg, callbacks=[]):\n    cfg.go()", ", whose default `[]` may hold something else by now: it is not"),
        ("def run(cfg, *, seen={}):\n    cfg.go()", ", whose default `{}` may hold something else by now: it is not"),
        ("def run(cfg, log=Log(3)):\n    cfg.go()", ", whose default `Log(3)` may hold something else by now: it is"),
        ("def run(cfg, size=SIZE):\n    cfg.go()", ", whose default `SIZE` may hold something else by now: it is not"),
        ("@timed\ndef run(cfg):\n    cfg.go()", ", which `@timed` has changed: it is not defined anew here"),
        ("@retry(3)\ndef run(cfg, seen={}):\n    cfg.go()", ", which `@retry(3)` has changed: it is not defined"),
        ("@tf.function\n@timed\ndef run(cfg, seen=[]):\n    cfg.go()", ", which `@timed` has changed: it is not"),
        ("@tf.function(jit_compile=True)\ndef run(cfg, seen=[]):\n    cfg.go()", ", whose default `[]` may hold"),
        ("@tf.function\ndef run(cfg):\n    cfg.go()", ""),
        ("def run(cfg, size=3, shape=(3, 4), scale=-1, name=None):\n    cfg.go()", ""),
        ("class run:\n    size = []", ""),
    ],
)
def test_a_decorator_or_a_default_that_may_have_been_changed_is_why_a_function_is_not_defined_anew(definition, told):
    cell = Cell("run(cfg)")
    diagnosis = Diagnosis("GPU:0", line=1, frame=Frame("/tmp/ipykernel_7/182.py", 2, "run", is_user=True))
    recording = Recording(cell, status="oom", facts=Facts(earlier_cells=(definition,)))
    (answer,) = propose(Context(cell, recording, diagnosis))
    assert f"in `run`{told}" in answer.reason
    assert told or answer.reason.endswith("in `run`")


def test_batch_normalization_is_a_caveat():
    facts = Facts(models=(ModelFacts("model", layers=("Dense", "BatchNormalization")),))
    proposal = ask("model.fit(x, y, batch_size=64)", facts)
    assert any("BatchNormalization" in caveat for caveat in proposal.caveats)


def test_a_learning_rate_schedule_is_a_caveat():
    facts = Facts(models=(ModelFacts("model", schedule="CosineDecay"),))
    proposal = ask("model.fit(x, y, batch_size=64)", facts)
    assert any("schedule counts steps" in caveat for caveat in proposal.caveats)


def test_running_out_while_variables_are_made_is_refused():
    frames = (Frame("keras/src/layers/layer.py", 5, "add_weight"),)
    refusal = ask("model.fit(x, y, batch_size=64)", errors=(ErrorText("ResourceExhaustedError", "OOM", frames),))
    assert "weights or optimizer variables" in refusal.reason


def test_code_outside_the_cell_is_named():
    frame = Frame("loop.py", 88, "train_step", is_user=True)
    refusal = ask("lib.train(model, x)", frame=frame)
    assert "loop.py:88 in `train_step`" in refusal.reason


def test_an_earlier_generator_that_cannot_be_set_comes_with_a_patch_to_copy():
    known = DatasetFacts("gen", "PyDataset", 64)
    made = "gen = series.TimeseriesGenerator(x, y, length=9, batch_size=64)"
    refusal = ask("model.fit(gen)", Facts(datasets=(known,), earlier_cells=(made,)))
    assert "+gen = series.TimeseriesGenerator(x, y, length=9, batch_size=32)" in refusal.patch


def test_predicting_with_smaller_batches_keeps_the_numbers_close():
    proposal = ask("model.predict(x, batch_size=64)", Facts(batches=(BatchSeen("predict", 64, "arrays"),)))
    assert ("close numerics", "model.predict(x, batch_size=32)") == (proposal.preserves, proposal.source)


def test_several_fits_without_a_known_line_are_refused():
    cell = Cell("model.fit(x, y, batch_size=64)\nmodel.fit(x, y, batch_size=16)")
    (refusal,) = propose(Context(cell, Recording(cell, status="oom")))
    assert "does not say which call" in refusal.reason


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("t = d.batch(64)\nv = e.batch(64)\nmodel.fit(t, validation_data=v, validation_steps=5)", "10"),
        ("t = d.batch(64)\nv = e.batch(128)\nmodel.fit(t, validation_data=v, validation_steps=5)", "20"),
        ("t = d.batch(64)\nv = e.batch(16)\nmodel.fit(t, validation_data=v, validation_steps=5)", "5"),
        ("t = d.batch(64)\nmodel.fit(t, validation_data=load(), validation_steps=5)", "5"),
        ("t = d.batch(64)\nmodel.fit(t, validation_data=(a, b), validation_steps=5)", "5"),
        ("model.fit(x, y, batch_size=64, validation_data=(a, b), validation_steps=5)", "10"),
        ("model.fit(x, y, batch_size=64, validation_data=(a, b), validation_batch_size=16, validation_steps=5)", "5"),
    ],
)
def test_validation_steps_follow_the_validation_batches_only(source, edited):
    assert f"validation_steps={edited})" in ask(source).source


def test_two_measured_runs_choose_the_largest_batch_expected_to_fit():
    points = (Point(8, 2_000, True), Point(16, 3_000, True), Point(256, 40_000, False))
    proposal = ask("model.fit(x, y, batch_size=256)", points=points, limit=20_000)
    batch = int(proposal.title.split()[-1])
    assert (True, True) == (proposal.estimate is not None, proposal.estimate.high <= 20_000)
    assert (batch & (batch - 1), f"model.fit(x, y, batch_size={batch})") == (0, proposal.source)


def test_a_batch_that_ran_out_before_is_not_offered_again():
    proposal = ask("model.fit(x, y, batch_size=256)", points=(Point(256, 9, False), Point(128, 9, False)), limit=8)
    assert "Batch 64" == proposal.title


def test_where_one_sample_ran_out_nothing_smaller_is_offered():
    assert "a batch of 1" in ask("model.fit(x, y, batch_size=2)", points=(Point(1, 9, False),), limit=8).reason


def test_without_measured_points_there_is_no_estimate():
    assert None is ask("model.fit(x, y, batch_size=256)", limit=20_000).estimate


def known_model(*batches):
    return Facts(tensorflow="2.21.0", models=(ModelFacts("model"),), batches=batches)


def test_a_model_under_a_second_name_is_edited_where_keras_was_seen_to_train_it():
    proposal = ask("net.fit(x, y, batch_size=64)", known_model(BatchSeen("fit", 64, "arrays")))
    assert "net.fit(x, y, batch_size=32)" == proposal.source


def test_no_argument_is_added_to_a_call_that_may_not_be_keras_own():
    refusal = ask("pipeline.fit(x, y)", known_model(BatchSeen("fit", 32, "arrays")))
    assert "whether `pipeline` is a Keras model is not known" == refusal.reason


def updating(other, op="adam_3/AssignAddVariableOp_5"):
    known = {"op": op, "in_use": 240 << 20, "limit": 256 << 20}
    parts = (Part("optimizer", (240 << 20) - other, "measured"), Part("other", other, "what remains"))
    return ask("%%tfmem\nmodel.fit(x, y, batch_size=64)", line=2, breakdown=parts, **known)


def test_a_smaller_batch_is_refused_where_weights_fill_the_device_and_an_update_ran_out():
    expected = "it ran out while weights were updated, and only 3.0 of 240 MiB in use may depend on the batch"
    assert expected == updating(3 << 20).reason


@pytest.mark.parametrize("found", [updating(100 << 20), updating(3 << 20, "dense_1/Relu")])
def test_a_smaller_batch_is_offered_where_activations_take_room_or_ran_out(found):
    assert isinstance(found, Proposal)


def test_a_default_inside_an_f_string_is_written_inside_it():
    edited = ask('print(f"loss {model.evaluate(x, y)[0]:.3f} of {len(x)}")').source
    assert 'print(f"loss {model.evaluate(x, y, batch_size=16)[0]:.3f} of {len(x)}")' == edited


def test_an_earlier_constant_is_set_outside_a_text_that_ends_on_the_line():
    facts = Facts(scalars=(ScalarFact("BATCH", 64),))
    source = 'note = """a\nb"""; model.fit(x, y, batch_size=BATCH)'
    assert f"BATCH = 32\n{source}" == ask(source, facts).source


@pytest.mark.parametrize(
    ("requested", "title", "words"),
    [(100, "Batch 32", ""), (600, "Batch 16", " Half would not do: 600 MiB were asked for at once.")],
)
def test_less_than_half_is_explained(requested, title, words):
    known = {"requested": requested << 20, "shape": (64, 9), "in_use": 100 << 20, "limit": 256 << 20}
    found = ask("%%tfmem\nmodel.fit(x, y, batch_size=64)", line=2, **known)
    assert (title, f"Activations shrink with it, weights do not.{words}") == (
        found.title,
        found.why,
    )


@pytest.mark.parametrize(
    "call",
    [
        "fake = net.predict(\n        np.random.normal(\n            size=[640, 9]))",
        "fake = net.predict(np.random.normal(size=[640, 9]),\n                       verbose=0)",
        "fake = np.concatenate([\n        net.predict(\n            np.zeros((640, 9)),\n            batch_size=64)])",
    ],
)
def test_an_inference_over_several_lines_of_a_loop_that_trains_is_told_as_inference(call):
    source = f"for i in range(99):\n    {call}\n    net.train_on_batch(fake, ones)"
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "predict" in text)
    facts = Facts(models=(ModelFacts("net", layers=("Dense", "BatchNormalization")),))
    proposal = ask(source, facts, line)
    assert isinstance(proposal, Proposal), proposal.reason
    assert (proposal.preserves, proposal.caveats) == ("close numerics", ())


@pytest.mark.parametrize(("size", "smaller"), [(64, 32), (12, 6), (2, None)])
def test_a_batch_of_which_a_half_is_taken_too_stays_even(size, smaller):
    source = f"""def sample_batch(n_samples):
    return x[randint(0, len(x), n_samples)], ones((n_samples, 1))
n_batch = {size}
half_batch = n_batch // 2
for i in range(len(x) // n_batch):
    a, b = sample_batch(half_batch)
    model.train_on_batch(a, b)
    c, d = sample_batch(n_batch)
    gan.train_on_batch(c, d)"""
    cell = Cell(source)
    answer = propose(Context(cell, Recording(cell, status="oom"), Diagnosis("GPU:0", line=9)))[0]
    if smaller is None:
        assert answer.reason.startswith("the cell divides its batch of 2 by 2 too: one of fewer"), answer.reason
    else:
        assert answer.source == source.replace(f"n_batch = {size}", f"n_batch = {smaller}")


TOLD_OF_TRAINING = ("Each epoch takes more steps.", "A smaller learning rate may suit it better.")
READS = """batch_size = 32
for start in range(0, 96, batch_size):
    rows = x[start : start + batch_size]
    with tf.GradientTape() as tape:
        tape.watch(rows)
        seen = model(rows)[:, 3]
    maps.append(tape.gradient(seen, rows))
"""
UPDATES = READS.replace("tape.watch(rows)\n        seen", "seen").replace(
    "    maps.append(tape.gradient(seen, rows))\n", "    {}\n"
)


@pytest.mark.parametrize(
    ("cell", "earlier", "trains"),
    [
        (READS, (), False),
        (READS, ("model.fit(x, y)",), False),
        (READS.replace("seen = model(rows)[:, 3]", "seen = tf.reduce_max(model(rows), -1)"), (), False),
        (UPDATES.format("opt.apply_gradients(zip(tape.gradient(seen, w), w))"), (), True),
        (UPDATES.format("w[0].assign_sub(0.1 * tape.gradient(seen, w[0]))"), (), True),
        (UPDATES.format("total += tape.gradient(seen, w[0])"), (), True),
        (UPDATES.format("learn(tape.gradient(seen, w))"), ("def learn(g):\n    opt.apply_gradients(zip(g, w))",), True),
    ],
)
def test_a_loop_that_updates_nothing_is_told_nothing_of_training(cell, earlier, trains):
    offered = ask(cell, Facts(tensorflow="2.21.0", models=(ModelFacts("model"),), earlier_cells=earlier), line=6)
    assert isinstance(offered, Proposal), offered
    assert [told for told in TOLD_OF_TRAINING if told in offered.caveats] == ([*TOLD_OF_TRAINING] if trains else [])
