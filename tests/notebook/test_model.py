import ast

import pytest

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.notebook.text.cell import read_cell


def test_the_same_texts_are_read_once():
    assert read_notebook("a = 1", ("b = 2",)) is read_notebook("a = 1", ("b = 2",))
    assert read_cell("a = 1") is read_cell("a = 1")


def test_a_cell_that_is_no_python_refuses_where_it_is_asked_for():
    with pytest.raises(RefusedError, match="not read as Python"):
        read_notebook("%%bash\nls").cell  # noqa: B018


def test_calls_are_found_by_method_and_object():
    book = read_notebook("a.fit(x)\nb.fit(y)\nfit(z)\na.predict(x)")
    assert ["a.fit(x)"] == [ast.unparse(c) for c in book.calls("fit", on="a")]
    assert 3 == len(book.calls("fit"))


def test_the_calls_on_the_way_to_an_error_are_innermost_first():
    book = read_notebook("print(f(\n  model.predict(x)\n))\nother(1)")
    assert ["predict", "f", "print"] == [ast.unparse(c.func).rpartition(".")[2] for c in book.failing(2)]


@pytest.mark.parametrize(
    ("earlier", "taken"),
    [
        ("def apply(f): return f()", True),
        ("from mylib import apply", True),
        ("import apply.tools", True),
        ("import mylib as apply", True),
        ("from tf_mem_magic import apply", False),
        ("frame.apply(print)", False),
        ("class A:\n    def apply(self): pass", False),
        ("for apply in fs: pass", True),
    ],
)
def test_apply_is_taken_where_a_cell_binds_it(earlier, taken):
    assert taken is read_notebook("model.fit(x)", (earlier,)).takes("apply")


def test_a_free_name_is_in_no_cell():
    assert "gpu_2" == read_notebook("gpu = 1", ("_gpu",)).free_name("gpu", "_gpu", "gpu")


def test_uses_are_found_in_functions_and_methods_of_all_cells():
    book = read_notebook("model.fit(x)", ("class A:\n    def m(self):\n        return model", "model = 1", "other = 2"))
    assert ["reads", "sets", "reads"] == [use.kind for use in book.uses("model")]


def test_a_function_is_the_last_one_that_a_cell_defines():
    book = read_notebook("f()", ("def f(): return 1", "def f(): return 2", "g = 1"))
    assert "return 2" in ast.unparse(book.function("f").node)
    assert book.function("f").is_earlier


@pytest.mark.parametrize("later", ["f = g", "from lib import f", "f: int = 3"])
def test_a_name_that_a_later_cell_sets_is_no_function_any_more(later):
    assert read_notebook("f()", ("def f(): return 1", later)).function("f") is None


def test_definitions_are_one_where_it_is_sure_and_all_where_not():
    book = read_notebook("n = 1\nf(n)\nif a:\n    m = 1\nelse:\n    m = 2\nf(m)")
    first, second = book.calls("f")
    assert [1] == [ast.literal_eval(d.value) for d in book.definitions("n", first)]
    assert 2 == len(book.definitions("m", second))


def test_only_cells_with_the_words_of_a_question_are_parsed(monkeypatch):
    parsed = []
    real = ast.parse
    monkeypatch.setattr(
        ast, "parse", lambda source, *rest, **more: parsed.append(source) or real(source, *rest, **more)
    )
    earlier = tuple(f"value_{n} = {n} * unheard_of" for n in range(50))
    book = read_notebook("total = value_7 + 1", earlier)
    assert 1 == len(book.uses("value_7")) - 1
    assert len(parsed) == 2
