"""Which names a cell binds, and whose earlier value it reads."""

import pytest

from tf_mem_magic.notebook.read_first import assigned_names, compiled_first, read_first_names, rebuilt_names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a = 1\nb, (c, *d) = x", {"a", "b", "c", "d"}),
        ("for i in range(3):\n    j = i", {"i", "j"}),
        ("with open('f') as f:\n    pass", {"f"}),
        ("def f():\n    inner = 1\nclass C:\n    field = 1", {"f", "C"}),
        ("if (n := len(x)) > 3:\n    pass", {"n"}),
        ("try:\n    a = 1\nexcept ValueError as e:\n    b = 2", {"a", "b", "e"}),
        ("match x:\n    case [a, *b]:\n        pass\n    case P(k=c):\n        pass", {"a", "b", "c"}),
        ("def f():\n    global model\n    model = 1", {"f", "model"}),
        ("import os\nfrom a import b", set()),
        ("a: int = 3\nb: int", {"a"}),
        ("x.y = 1\nx[0] = 2", set()),
        ("[i for i in x]", set()),
        ("%%tfmem\n%time a = 1\n!ls", {"a"}),
        ("a = !ls", {"a"}),
        ("%%bash\na=1", set()),
        ("a = = 1", set()),
    ],
)
def test_the_names_that_a_cell_binds(source, names):
    assert frozenset(names) == assigned_names(source)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("model = build()\nmodel.fit(x)", {"model"}),
        ("x = x / 255", set()),
        ("x += 1", set()),
        ("print(x)\nx = 3", set()),
        ("def step():\n    return model(x)\nmodel = build()", {"step"}),
        ("model = build()\ndef step():\n    return model(x)", {"step", "model"}),
        ("for i in range(3):\n    model = build()\n    model.fit()", {"i", "model"}),
        ("if a:\n    x = 1\nprint(x)", set()),
        ("if a:\n    x = 1\nelse:\n    x = 2\nprint(x)", {"x"}),
        ("try:\n    model\nexcept NameError:\n    model = build()", set()),
        ("if 'model' not in globals():\n    model = build()", {"model"}),
        ("x = 1\ndel x\nprint(x)\nx = 2", set()),
        ("squares = [x for x in y]\nx = 3", {"squares", "x"}),
        ("f = lambda: x\nx = 3", {"f"}),
        ("class A(Base):\n    n = size\nsize = 3", {"A"}),
    ],
)
def test_the_names_whose_earlier_value_a_cell_never_reads(source, names):
    assert frozenset(names) == rebuilt_names(source)


def test_the_names_whose_earlier_value_a_cell_reads():
    assert frozenset({"x", "fit", "model"}) == read_first_names("y = x + 1\nfit(model, y)")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("size = 8\nmodel.compile('adam', 'mse')\nmodel.fit(x, y)", {"model"}),
        ("a.compile('adam')\nb.compile('sgd')", {"a", "b"}),
        ("model.summary()\nmodel.compile('adam')", set()),
        ("model.compile(model.optimizer, 'mse')", set()),
        ("if again:\n    model.compile('adam')", set()),
        ("for rate in rates:\n    model.compile(Adam(rate))\n    model.fit(x)", set()),
        ("def rate():\n    return model.optimizer.learning_rate\nmodel.compile(SGD(rate()))", set()),
        ("done = model.compile('adam')", set()),
        ("self.model.compile('adam')", set()),
        ("not python (", set()),
    ],
)
def test_the_models_that_a_cell_compiles_before_it_reads_them(source, names):
    assert frozenset(names) == compiled_first(source)
