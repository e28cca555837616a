"""Where a cell makes its next model, and what it can let go of first."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.collect_garbage.rounds import find_rounds

LOOP = "for fold in folds:\n    model = build()\n    model.fit(x, y)\n"


def found(source, *lines, models=("model",), local=False, **facts):
    """Give the places as (line, names to forget), or the reason."""
    known = tuple(ModelFacts(name, local=local) for name in models)
    answer = find_rounds(read_cell(source), Facts(models=known, **facts), lines)
    return answer if isinstance(answer, str) else [(one.statement.lineno, one.forget) for one in answer.places]


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        (LOOP, 3, [(2, ("model",))]),
        ("while more():\n    clear()\n    model = build()\n    model.fit(x, y)", 4, [(3, ("model",))]),
        (
            "for u in units:\n    for r in rates:\n        model = build(u, r)\n        model.fit(x)",
            4,
            [(3, ("model",))],
        ),
        ("for f in folds:\n    model = build()\n    h = model.fit(x)\n    print(h)", 3, [(2, ("h", "model"))]),
        (
            "for f in folds:\n    model = build()\n    opt = keras.optimizers.Adam()\n    go()",
            4,
            [(2, ("model", "opt"))],
        ),
        ("for f in folds:\n    a, model = pair()\n    model.fit(x)", 3, [(2, ("model",))]),
        ("for f in folds:\n    with scope():\n        model = build()\n    model.fit(x)", 4, [(2, ("model",))]),
        ("for f in folds:\n    model = trained()", 2, [(2, ("model",))]),
        (
            "for f in folds:\n    model = build()\n    try:\n        model.fit(x)\n    finally:\n        done()",
            4,
            [(2, ("model",))],
        ),
        (
            "model = one()\nmodel.fit(x)\nmodel = two()\nmodel.fit(x)\nmodel = three()",
            4,
            [(3, ("model",)), (5, ("model",))],
        ),
    ],
)
def test_the_last_model_goes_before_the_next_is_made(source, line, expected):
    assert expected == found(source, line)


def test_a_model_made_of_others_begins_with_the_first_of_them():
    source = "for f in folds:\n    inner = build()\n    model = wrap(inner)\n    h = model.fit(x)"
    assert found(source, 4, models=("model", "inner")) == [(2, ("h", "inner", "model"))]
    assert "no second model" in found(source.replace("for f in folds", "if go"), 4, models=("model", "inner"))


def test_a_model_that_is_compiled_again_has_a_second_optimizer():
    once = "model.compile()\nmodel.fit(x)\n"
    assert found(once + once, 4) == [(3, ())]
    assert found(f"model = build()\n{once}model = build()\n{once}", 6) == [(4, ("model",))]
    assert found(f"for r in rates:\n    {once.replace(chr(10), chr(10) + '    ')}", 3) == [(2, ())]


def test_the_second_of_two_models_is_one_that_follows_another():
    assert found("model = one()\nmodel.fit(x)\nmodel = two()\nmodel.fit(x)", 4) == [(3, ("model",))]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def again():\n    return model\nfor f in folds:\n    model = build(again())\n    model.fit(x)", 5),
        ("w = (model.w for _ in folds)\nfor f in folds:\n    model = build(next(w))\n    model.fit(x)", 4),
        ("for f in folds:\n    model = build(globals()['model'])\n    model.fit(x)", 3),
        ("for f in folds:\n    model = build()\n    !ls {model}\n    model.fit(x)", 4),
    ],
)
def test_a_model_that_making_the_next_one_may_read_stays(source, line):
    answer = found(source, line)
    assert answer == [(answer[0][0], ())]


@pytest.mark.parametrize(
    ("around", "line"),
    [
        ("for f in folds:\n    try:\n        {}\n        {}\n    except ValueError:\n        continue", 4),
        ("try:\n    for f in folds:\n        {}\n        {}\nfinally:\n    print(model)", 4),
        ("for f in folds:\n    with suppress(ValueError):\n        {}\n        {}", 4),
        ("for f in folds:\n    with suppress(ValueError):\n        {}\n    {}", 4),
    ],
)
def test_where_an_exception_may_be_caught_no_name_is_left_without_a_value(around, line):
    ((_, forget),) = found(around.format("model = build(f)", "h = model.fit(x)"), line)
    assert forget == ()


def test_a_model_that_a_function_of_an_earlier_cell_reads_stays():
    earlier = ("def build():\n    return clone(model)",)
    assert found(LOOP, 3, earlier_cells=earlier, read_elsewhere=("model",)) == [(2, ())]


def test_a_step_that_is_made_anew_goes_with_its_model_and_optimizer():
    source = (
        "for rate in rates:\n    model = build()\n    opt = keras.optimizers.SGD(rate)\n    @tf.function\n"
        "    def step(a):\n        opt.apply(model(a))\n    for a in data:\n        step(a)"
    )
    assert found(source, 8, 6, read_elsewhere=("model", "opt")) == [(2, ("model", "opt", "step"))]


def test_what_a_round_may_leave_before_it_is_bound_stays():
    source = "for f in folds:\n    model = build()\n    if bad(f):\n        continue\n    h = model.fit(x)"
    assert found(source, 5) == [(2, ("model",))]


def test_in_a_function_that_is_called_again_and_again_nothing_has_to_be_forgotten():
    source = "def fold(i):\n    model = build()\n    model.fit(x)\nscores = [fold(i) for i in range(5)]"
    assert found(source, 4, 3, local=True) == [(2, ())]
    assert "no second model" in found(source.replace("[fold(i) for i in range(5)]", "fold(1)"), 4, 3, local=True)
    # A library may call it many times, too: a search for hyperparameters.
    assert found(source.replace("[fold(i) for i in range(5)]", "search(fold)"), 4, 3, local=True) == [(2, ())]


def test_a_loop_in_a_function_lets_go_of_its_own_names():
    source = "def cv():\n    for f in folds:\n        model = build()\n        model.fit(x)\ncv()"
    assert found(source, 5, 4, local=True) == [(3, ("model",))]
    assert "not found" in found(source, 5, 4)


def test_a_method_that_makes_its_model_does_so_each_time():
    method = "class Run:\n    def go(self):\n        self.model = build()\n        self.model.fit(x)\n"
    source = method + "run = Run()\nfor f in folds:\n    run.go()"
    assert found(source, 7, 4, models=("run.model",)) == [(3, ())]


def test_a_model_that_only_a_function_elsewhere_holds_goes_before_the_call():
    calls = "for f in folds:\n    scores.append(run_fold(f))"
    assert found(calls, 2, local=True) == [(2, ())]
    assert found("run_fold(1)\nrun_fold(2)", 2, local=True) == [(2, ())]
    assert "is not repeated" in found("run_fold(1)", 1, local=True)
    assert "is not repeated" in found("[run_fold(f) for f in folds]", 1, local=True)
    assert "is not repeated" in found("while run_fold(n) > 1:\n    n += 1", 1, local=True)


def test_a_step_is_not_a_round():
    dqn = (
        "model = build()\nfor step in steps:\n    if step % 100 == 0:\n        target = build()\n"
        "        target.set(model)\n    model.fit(x)"
    )
    assert "no second model" in found(dqn, 6, models=("model", "target"))
    assert "not found" in found("for a in data:\n    model, loss = step(model, a)", 2)
    kept = (
        "model = build()\nkept = {'m': model}\ndef step(a):\n    model = kept['m']\n    model.fit(a)\nfor a in data:\n"
    )
    assert "no second model" in found(f"{kept}    step(a)", 7, 5)
    assert "is not repeated" in found(f"{kept}    step(a)", 5, local=True)


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("model = build()\nfor epoch in epochs:\n    step(model)", 3, "no second model"),
        ("model = build()\nmodel.fit(x)", 2, "no second model"),
        ("for model in models:\n    model.fit(x)", 2, "was not found"),
        ("for f in folds: model = build(); model.fit(x)", 1, "other code stands before"),
        ("net.fit(x)", 1, "was not found"),
        ("net.fit(x)", 7, "was not found"),
    ],
)
def test_where_no_model_follows_another_nothing_is_collected(source, line, reason):
    assert reason in found(source, line)
