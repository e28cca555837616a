"""Functions of earlier cells, taken over by the cell that calls them where a remedy changes them."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, DeviceFacts, Facts, FunctionFacts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.notebook.bindings import names_back, without_lines
from tf_mem_magic.remedies._engine.combine import moved_context
from tf_mem_magic.remedies._engine.functions import put_back, take_over
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies._engine.ranking import combine, propose_all

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
    holders = (f.name for f in functions if 0 <= inner - f.line < len(f.source.splitlines()))
    name = next(holders, "other")
    frames = (
        Frame(HERE, called - dropped, "<module>", in_cell=True, is_user=True),
        Frame(FILE, inner, name, is_user=True),
    )
    known = Facts(
        tensorflow="2.21.0",
        read_elsewhere=facts.get("used", ()),
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
    assert (proposal.title, proposal.original, proposal.undo) == ("Batch 32", PLAIN, RUN)
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
    assert proposal.undo == f"BATCH = 64\n{STEP}"


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
    model = ModelFacts("model", ("Dense",), jit_compile=True, steps=1)
    both = combine(plain(models=(model,)), ("accumulate-gradients", "xla"))
    assert isinstance(both, Proposal), both
    assert both.source.count("def run(") == 1
    assert "batch_size=32" in both.source
    assert "gradient_accumulation_steps=2" in both.source
    assert "jit_compile=False" in both.source
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
def test_whether_a_function_led_to_the_error_is_known(inner):
    assert not take_over(failed(PLAIN, (function(RUN, 10),), 3, inner)).led
    assert take_over(plain()).led


def test_a_cell_that_reaches_no_function_takes_none_over():
    assert take_over(failed(PLAIN, (), 3, 12)) is None


def test_a_number_that_a_helper_reads_for_something_else_is_written_where_it_is_meant():
    source = "%%tfmem\nr = model.fit(x, y, batch_size=BATCH)\nother()\n"
    other = "def other():\n    return layers.Dense(units=BATCH)"
    facts = {"scalars": (ScalarFact("BATCH", 64),), "models": (ModelFacts("model", ("Dense",), "Adam"),)}
    context = failed(source, (function(other, 10),), 2, 99, used=("BATCH",), **facts)
    frames = tuple(
        replace(f, file="/usr/lib/keras.py", is_user=False) if not f.in_cell else f
        for f in context.recording.errors[0].frames
    )
    context = replace(
        context, recording=replace(context.recording, errors=(replace(context.recording.errors[0], frames=frames),))
    )
    proposal = answer(context, "smaller-batch")
    assert proposal.source == source.replace("batch_size=BATCH", "batch_size=32")
    assert (proposal.taken_over, proposal.undo) == ((), "")
    assert "`BATCH` stays 64: it is also used for something else (in `other`)." in proposal.caveats


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


def with_facts(context, **more):
    """Give the context with other facts."""
    facts = replace(context.recording.facts, **more)
    return replace(context, recording=replace(context.recording, facts=facts))


def test_a_function_that_reads_what_is_set_when_it_is_defined_is_defined_anew():
    run = RUN.replace("def run(model, epochs=2)", "def run(model, batch=BATCH)").replace("64", "batch")
    functions = (function(run.replace("epochs=epochs", "epochs=2"), 10), function(BUILD, 3))
    proposal = answer(failed(PLAIN, functions, 3, 12, scalars=(ScalarFact("BATCH", 64),)), "smaller-batch")
    assert proposal.source.startswith("%%tfmem\nBATCH = 32\ndef run(model, batch=BATCH):")
    assert proposal.undo.startswith("BATCH = 64\ndef run(model, batch=BATCH):")


def test_a_decorator_that_is_put_on_a_function_stays_with_it():
    step = STEP.replace("@tf.function\n", "").replace("return noise", "return net(xb)")
    step = step.replace("    noise", "    with tf.GradientTape() as tape:\n        loss = net(xb)\n    noise")
    functions = (function(TRAIN, 20), function(step, 10))
    context = failed("%%tfmem\ndef main():\n    train(ds)\nmain()\n", functions, 3, 22)
    taken = take_over(context)
    decorated = taken.context.cell.source.replace("def step", "@tf.function\ndef step")
    back = put_back(taken, context, Proposal("a", "A", decorated, "", "nothing"))
    assert back.source == f"%%tfmem\n@tf.function\n{step}\n\ndef main():\n    train(ds)\nmain()\n"
    assert back.undo == step


def test_a_function_that_a_default_holds_takes_its_holder_along():
    holder = "def go(model, run=run):\n    return run(model)"
    functions = (function(holder, 20), function(RUN, 10))
    context = failed("%%tfmem\nr = go(model)\n", functions, 2, 12)
    frames = context.recording.errors[0].frames
    between = replace(frames[1], line=21)
    error = replace(context.recording.errors[0], frames=(frames[0], between, frames[1]))
    context = replace(context, recording=replace(context.recording, errors=(error,)))
    proposal = answer(context, "smaller-batch")
    assert proposal.source == f"%%tfmem\n{RUN.replace('64', '32')}\n\n{holder}\n\nr = go(model)\n"
    assert proposal.undo == f"{RUN}\n{holder}"


@pytest.mark.parametrize("cell", ["FUNCS['run'](model)", "t.run(model)  # run", "go()  # run(model)"])
def test_a_function_that_the_cell_does_not_call_by_name_is_not_taken_over(cell):
    assert take_over(failed(f"%%tfmem\n{cell}\n", (function(RUN, 10),), 2, 12)) is None


def through(context, *entered):
    """Give the context with frames of the earlier cell: each a line and the function's name."""
    error = context.recording.errors[0]
    inner = tuple(Frame(FILE, line, name, is_user=True) for line, name in entered)
    error = replace(error, frames=(error.frames[0], *inner))
    return replace(context, recording=replace(context.recording, errors=(error,)))


def test_a_function_that_something_else_holds_is_not_taken_over():
    loss = "def loss(a, b):\n    return a"
    context = failed("%%tfmem\nrun(model)\nloss(1, 2)\n", (function(loss, 20), function(RUN, 10)), 2, 12)
    taken = take_over(through(context, (12, "run"), (21, "loss")))
    assert [f.name for f, _ in taken.blocks] == ["run"]  # Keras calls the loss that it was given
    assert [f.name for f, _ in take_over(through(context, (12, "run"))).blocks] == ["run", "loss"]


SPECTRUM = (
    "import keras\nfrom keras import layers, ops\nclass Spectrum(layers.Layer):\n"
    "    def call(self, x):\n        return ops.real(ops.fft2((x, ops.zeros_like(x)))[0])"
)


@pytest.mark.parametrize("cell", ["h = run(net)", "run(model=net, epochs=1)", "for _ in [1]:\n    run(net)"])
def test_why_the_model_cannot_is_told_also_where_a_function_calls_it_a_parameter(cell):
    model = ModelFacts("net", ("Dense", "Spectrum"), form="functional", halving=2, own_layers=("Spectrum",))
    called = next(i for i, line in enumerate(cell.splitlines(), 2) if "run(" in line)
    context = failed(f"%%tfmem\n{cell}\n", (function(RUN, 10),), called, 12, models=(model,))
    facts = replace(context.recording.facts, earlier_cells=(SPECTRUM, RUN))
    refused = answer(replace(context, recording=replace(context.recording, facts=facts)), "mixed-precision")
    assert refused.reason == "`Spectrum` computes `ops.fft2(…)`, which TensorFlow cannot do in 16 bits"


def test_a_comprehension_or_a_function_inside_is_part_of_the_function():
    run = RUN.replace("model.fit(", "[model.fit(").replace("epochs=epochs)", "epochs=epochs) for _ in x]")
    context = failed("%%tfmem\nrun(model)\n", (function(run, 10),), 2, 12)
    taken = take_over(through(context, (12, "run"), (12, "<listcomp>"), (12, "inner")))
    assert [f.name for f, _ in taken.blocks] == ["run"]


def test_what_unseen_code_reads_is_not_set():
    functions = (function(TRAIN, 20), function(STEP, 10, staged=True))
    facts = {"scalars": (ScalarFact("BATCH", 64),), "datasets": (DatasetFacts("ds", batch=64),)}
    context = failed("%%tfmem\ntrain(ds)\n", functions, 2, 22, used=("BATCH", "step"), **facts)
    assert isinstance(answer(context, "smaller-batch"), Proposal)
    assert isinstance(answer(with_facts(context, used_besides=("BATCH",)), "smaller-batch"), Declined)


def test_what_undo_could_not_reach_is_declined():
    model = ModelFacts("model", ("Dense",), "Adam", local=True, steps_before=0, steps=1, jit_compile=True)
    own = "%%tfmem\ndef main():\n    model = build()\n    h = model.fit(x, y, batch_size=64)\nmain()"
    context = with_facts(failed(own, (), 4, 99), models=(model,))
    reason = "only a function holds `model`, so what it sets there could not be taken back"
    assert next(a for a in propose_all(context) if a.key == "xla").reason == reason
    assert isinstance(answer(context, "smaller-batch"), Proposal)
    taken = with_facts(plain(), models=(replace(model, jit_compile=None),))
    assert "model" in answer(taken, "smaller-batch").undo


@pytest.mark.parametrize(
    "own",
    [
        "def main():\n    model = build()\n    h = model.fit(x, y, batch_size=64)\nmain()",
        "def main(model):\n    model.compile('adam', 'mse')\n    model.fit(x, y)\nmain(build())",
        "def main():\n    model = build()\n    model.summary()\n    return model.fit(x, y)\nhistory = main()",
    ],
)
def test_what_a_function_made_and_alone_held_is_gone_and_need_not_be_taken_back(own):
    model = ModelFacts("model", ("Dense",), "Adam", local=True, steps=1, jit_compile=True)
    line = 1 + next(n for n, text in enumerate(own.split("\n"), 1) if ".fit(" in text)
    context = with_facts(failed(f"%%tfmem\n{own}", (), line, 99), models=(model,))
    offered = next(a for a in propose_all(context) if a.key == "xla")
    assert isinstance(offered, Proposal), offered.reason
    assert "    model.jit_compile = False" in offered.source or "jit_compile=False" in offered.source
    assert "model" not in offered.undo


def test_lines_are_left_out_of_plain_code_with_what_they_go_on_in():
    code = "import a\ndef f(model):\n    return model\nmodel.x = (\n    1,\n)\nother.x = 2"
    assert without_lines(code, {"model"}) == "import a\ndef f(model):\n    return model\nother.x = 2"
    assert without_lines(code, {"nothing"}) == code
    assert without_lines("model = = 1", {"model"}) == "model = = 1"


def test_a_model_that_only_a_function_holds_is_not_named_in_the_cell():
    local = ModelFacts("net", ("Dense",), "Adam", local=True, steps=1, device="GPU:0")
    gpu = DeviceFacts("GPU:0", compute_capability=(8, 0))
    context = with_facts(plain("%%tfmem\nresult = run(model)"), models=(local,), devices=(gpu,))
    for proposal in propose_all(context):
        assert isinstance(proposal, Declined) or "net" not in proposal.source


def test_sentences_call_lines_by_the_cell_and_by_the_functions_that_stand_in_front():
    taken = take_over(plain())
    above = taken.context.cell.source.split("\n")
    assert len(taken.context.titles) == len(above)
    for line, title in zip(above, taken.context.titles):
        if isinstance(title, int):
            assert plain().cell.source.split("\n")[title - 1] == line
        else:
            assert title in {function.name for function, _ in taken.blocks}
    cell = Ask(taken.context).cell
    last = len(plain().cell.source.rstrip("\n").split("\n"))
    places = [above.index(line) + 1 for line in (above[0], plain().cell.source.rstrip("\n").split("\n")[-1])]
    assert cell.told(*places) == f"lines 1, {last}"
    inside = [n for n, title in enumerate(taken.context.titles, 1) if isinstance(title, str)]
    name = taken.context.titles[inside[0] - 1]
    assert cell.told(1, *inside).startswith("line 1 and `")
    assert cell.told(*inside[:2]) == f"`{name}`"


def test_a_line_that_an_edit_puts_in_goes_by_the_line_above_it():
    context = plain("%%tfmem\na = 1\nb = run(model)\n")
    moved = moved_context(context, "%%tfmem\nimport c\na = 1\nb = run(model)\n", {1: 1, 2: 3, 3: 4, 4: 5})
    assert moved.titles == (1, 1, 2, 3, 4)
    again = moved_context(moved, "%%tfmem\nimport c\na = 1\nd = 3\nb = run(model)\n", {1: 1, 2: 2, 3: 3, 4: 5, 5: 6})
    assert again.titles == (1, 1, 2, 2, 3, 4)


@pytest.mark.parametrize("text", ['cfg["bs"]', "cfg['bs']"])
def test_entries_are_set_back_in_whichever_quotes(text):
    facts = Facts(scalars=(ScalarFact(text, 64),))
    assert names_back("fit(cfg['bs'])", "cfg['bs'] = 32\nfit(cfg['bs'])", facts) == "cfg['bs'] = 64"


def new_model(**more):
    return ModelFacts("model", ("Dense",), "Adam", weight_bytes=1, **more)


def test_a_compile_is_not_changed_where_the_failing_model_came_from_an_earlier_call():
    source = "%%tfmem\nresult = run(model)\nother = build()\n"
    context = with_facts(plain(source), models=(new_model(steps_before=0),))
    for key in ("accumulate-gradients", "lighter-optimizer"):
        found = answer(context, key)
        assert isinstance(found, Declined) or "def build" not in found.source


def test_a_compile_that_makes_two_models_is_not_changed_for_one():
    source = "%%tfmem\nteacher = build()\nmodel = build()\nresult = run(model)\n"
    known = (new_model(), replace(new_model(), name="teacher"))
    assert "gradient_accumulation_steps" not in getattr(
        answer(with_facts(plain(source), models=known), "accumulate-gradients"), "source", ""
    )
    once = with_facts(plain(), models=(new_model(),))
    assert "gradient_accumulation_steps=2" in answer(once, "accumulate-gradients").source


def test_functions_follow_those_that_their_defaults_name():
    first = "def first(model):\n    return model.fit(x, y, batch_size=64)"
    second = "def second(model, step=first):\n    return first(model)"
    functions = (function(second, 20), function(first, 10))
    assert [f.name for f, _ in take_over(failed("%%tfmem\nsecond(m)\n", functions, 2, 21)).blocks] == [
        "first",
        "second",
    ]
    other = take_over(failed("%%tfmem\nsecond(m)\n", functions[::-1], 2, 21))
    assert [f.name for f, _ in other.blocks] == ["first", "second"]


def test_a_helper_that_has_returned_may_change_the_batch_only():
    helper = "def make_ds():\n    return tf.data.Dataset.from_tensor_slices(x).batch(64)"
    source = "%%tfmem\nmodel.fit(make_ds())\n"
    context = failed(source, (function(helper, 10),), 2, 99, models=(new_model(),))
    library = replace(context.recording.errors[0].frames[1], file="/usr/lib/keras.py", is_user=False)
    error = replace(context.recording.errors[0], frames=(context.recording.errors[0].frames[0], library))
    context = replace(context, recording=replace(context.recording, errors=(error,)))
    assert answer(context, "smaller-batch").source == f"%%tfmem\n{helper.replace('64', '32')}\n\n{source[8:]}"
    changed = [a for a in propose_all(context) if isinstance(a, Proposal) and "def make_ds" in a.source]
    assert [a.key for a in changed] == ["smaller-batch"]


def test_a_batch_that_a_model_of_an_earlier_call_is_built_for_stays():
    helper = "def make_ds():\n    return tf.data.Dataset.from_tensor_slices(x).batch(BATCH)"
    fixed = "def build():\n    return keras.Model(keras.Input(batch_shape=(BATCH, 8)))"
    source = "%%tfmem\nmodel.fit(make_ds())\nfresh = build()\n"
    facts = {"scalars": (ScalarFact("BATCH", 64),), "models": (new_model(steps_before=0),)}
    context = failed(source, (function(helper, 10), function(fixed, 20)), 2, 99, **facts)
    assert isinstance(answer(context, "smaller-batch"), Declined)


def test_an_inference_whose_batch_is_also_that_of_the_training_says_so():
    source = "%%tfmem\nBATCH = 64\nmodel.fit(x, y, batch_size=BATCH)\nmodel.evaluate(x, y, batch_size=BATCH)\n"
    both = answer(failed(source, (), 4, 99, models=(new_model(),)), "smaller-batch")
    assert (both.preserves, "Each epoch takes more steps." in both.caveats) == ("same model, other gradients", True)
    own = source.replace("evaluate(x, y, batch_size=BATCH)", "evaluate(x, y, batch_size=32)")
    assert answer(failed(own, (), 4, 99, models=(new_model(),)), "smaller-batch").preserves == "close numerics"


def test_a_policy_is_not_set_after_the_model_that_failed_was_built():
    source = "%%tfmem\nmodels[name].fit(x, y)\nsmall = keras.Sequential([keras.layers.Dense(2)])\n"
    assert isinstance(answer(failed(source, (), 2, 99), "mixed-precision"), Declined)


def test_a_model_whose_name_means_another_in_a_function_is_not_asked_by_that_name():
    facts = Facts(models=(ModelFacts("model"), ModelFacts("m['a']")), shadowed=("model",))
    assert (facts.model("model"), facts.model('m["a"]').name) == (None, "m['a']")
