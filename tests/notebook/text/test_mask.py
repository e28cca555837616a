import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mem_magic.notebook.text.mask import Masked, NotPython, mask, split_lines


def python_of(source):
    masked = mask(source)
    assert isinstance(masked, Masked), masked
    return masked.python


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("%matplotlib inline", "pass"),
        ("!pip install x", "pass"),
        ("!!ls", "pass"),
        ("files = !ls {d}", "files = None"),
        ("a, b = %magic c", "a, b = None"),
        ("model.fit?", "pass"),
        ("model??", "pass"),
        ("?model", "pass"),
        ("    !ls", "    pass"),
        ("%time model.fit(x)", "if 1: model.fit(x)"),
        ("x = 5 % 3", "x = 5 % 3"),
        ("x = y != z", "x = y != z"),
        ("f(a=1, b='%')", "f(a=1, b='%')"),
        ("plt.show();", "plt.show();"),
        ("x = 1  # really?", "x = 1  # really?"),
        ("s = 'what?'", "s = 'what?'"),
        ('f"{x!r} {y:%d}"', 'f"{x!r} {y:%d}"'),
        ("await task", "await task"),
        ("# !ls", "# !ls"),
    ],
)
def test_a_line_becomes_python_of_one_line(line, python):
    lead = "if 1:\n" if line.startswith(" ") else ""
    assert f"{lead}{python}\n" == python_of(lead + line)


@pytest.mark.parametrize(
    "source",
    [
        's = """\n%not a magic\n!nor this\n"""',
        "x = (1\n% 2)",
        "x = 1 \\\n% 2",
        "s = '''a\n?\n'''\n",
        "s = 'a\\\n!b'",
    ],
)
def test_lines_inside_strings_brackets_and_continuations_stay(source):
    assert source.rstrip("\n") == python_of(source).rstrip("\n")


def test_a_continued_magic_is_hidden_with_all_its_lines():
    masked = mask("!pip install \\\n  a \\\n  b\nx = 1")
    assert ("pass\n\n\nx = 1\n", frozenset({1, 2, 3})) == (masked.python, masked.hidden)


@pytest.mark.parametrize("source", ["%%tfmem\nx", "%%time\n%%tfmem -q\nx", "\n\n%%tfmem\nx", "%%capture out\nx"])
def test_cell_magics_that_run_python_are_hidden(source):
    assert ["x"] == python_of(source).split()


@pytest.mark.parametrize("name", ["bash", "html", "writefile a.py", "javascript", "sql", "R", "python3", "unknown"])
def test_the_body_of_another_language_is_not_python(name):
    answer = mask(f"%%tfmem\n%%{name}\nmodel.fit(x)")
    assert f"%%{name.split()[0]}" in answer.reason


@pytest.mark.parametrize("source", ["", "\n", "   \n\t\n"])
def test_an_empty_cell_says_so(source):
    assert NotPython("the cell is empty") == mask(source)


def test_blank_lines_at_the_top_are_counted():
    assert 2 == mask("\n  \n%%tfmem\nx").skipped


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_keeps_the_line_count(end):
    assert "a = 1\npass\nb = 2\n" == python_of(end.join(["a = 1", "%ls", "b = 2"]))


LINES = st.sampled_from(
    [
        "%ls",
        "!ls -l 'it",
        "x = !ls",
        "y?",
        "a = 1",
        "s = 'ü日本%!?'",
        "f(x,",
        "  y)",
        '"""',
        "# c ?",
        "\tq = 2",
        "z = \\",
        "%",
    ]
)


@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_lines_that_are_not_hidden_stay_in_place_with_their_columns(lines, end, final):
    source = end.join(lines) + (end if final else "")
    masked = mask(source)
    if isinstance(masked, NotPython):
        return
    before = [line.rstrip("\r\n") for line in split_lines(source)]
    after = masked.python.split("\n")[:-1]
    assert len(before) == len(after)
    assert [] == [n for n, (a, b) in enumerate(zip(before, after), 1) if a != b and n not in masked.hidden]


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_masked_or_refused_and_never_fails(text):
    answer = mask(text)
    assert isinstance(answer, NotPython) or answer.python.count("\n") == len(split_lines(text))


def test_a_typical_cell_parses():
    source = (
        "%load_ext x\n!nvidia-smi\nfor f in fs:\n    !echo {f}\n    print(f)\nout = !ls\nawait g()\nmodel.summary?\n"
    )
    assert 6 == len(ast.parse(python_of(source)).body)


@pytest.mark.parametrize(
    "source",
    [
        "%ls\nx = 1",
        "!ls -l",
        "x = !ls",
        "a.b = %pwd",
        "x = 5 %3",
        "y = x != 2",
        "print?",
        "s = 'a?'",
        "# what?\nx = 1",
        's = """\n%ls\n"""',
        "if 1:\n    !ls\n    %pwd",
        "f(x,\n  '%d' % 3)",
        "%time x = 1",
        "!ls \\\n  -l\nx = 1",
        "/f 1 2",
        ",f a b",
        ";f a b",
        "x = 1; y = 2;",
        "d = {'a': !ls}",
        "f'{x!r}?'",
    ],
)
def test_what_is_masked_is_what_ipython_changes(source):
    from IPython.core.inputtransformer2 import TransformerManager

    masked = mask(source)
    magic = "get_ipython()" in TransformerManager().transform_cell(source) or source[0] in "/,;"
    changed = masked.python.rstrip("\n") != source.rstrip("\n")
    assert magic == changed
