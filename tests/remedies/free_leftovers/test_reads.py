"""What a cell may use: by its code, in the ways of notebooks; words in comments, texts and paths are none."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.remedies.free_leftovers.reads import hidden_use, used_words


def read(source):
    cell = read_cell(source)
    assert isinstance(cell, PythonCell), cell
    return cell


PLAIN = (
    "model.fit(x, y)  # then eval",
    "# exec, vars and locals are not used here\nmodel.fit(x)",
    "path = 'runs/eval/exec.txt'\nmodel.fit(x)",
    "print('see vars() and globals()')",
    '"""A cell that says eval(text)."""\nmodel.fit(x)',
    "eval_ds = load('eval')\nmodel.evaluate(eval_ds)",
    "net.eval()\nfit(net)",
    "loss.eval(session=s)",
    "vars = model.trainable_variables\nn = len(vars)",
    "for vars in groups:\n    fit(vars)",
    "def exec(job):\n    return job()\nexec(train)",
    "table = frame.eval('a + b')",
    "args = vars(parser.parse_args())['size']",
    "from evaluation import vars as names",
    "number = eval('2 + 3')",
    "!python run.py --eval --store results",
    "writer.locals = {}\nmodel.fit(x)",
    "data = locals_of(frame)",
)

HIDDEN = (
    ("eval(text)", "eval(…)"),
    ("exec(open('setup.py').read())\nmodel.fit(x)", "exec(…)"),
    ("for name in list(globals()):\n    print(name)", "globals()"),
    ("globals()['model_' + kind].fit(x)", "globals()"),
    ("f(**locals())", "locals()"),
    ("print(vars())", "vars()"),
    ("%run training.py", "%run"),
    ("x = 1\n%run -i common.ipynb\nmodel.fit(x)", "%run"),
    ("%store -r cache", "%store"),
    ("get_ipython().user_ns['a']", ".user_ns"),
    ("get_ipython().run_line_magic('run', 'a.py')", ".run_line_magic"),
    ("if flag:\n    exec(code, names)", "exec(…)"),
)


@pytest.mark.parametrize("source", PLAIN)
def test_the_word_alone_hides_nothing(source):
    assert hidden_use(read(source), ()) == ""


@pytest.mark.parametrize(("source", "told"), HIDDEN)
def test_code_that_may_use_any_name_is_told(source, told):
    assert hidden_use(read(source), ()) == told


def test_a_function_of_an_earlier_cell_counts_with_its_code():
    def function(text):
        return FunctionFacts("go", text, "<ipython-input-1-0>", 1)

    assert hidden_use(read("go()"), (function("def go():\n    exec(code)"),)) == "exec(…)"
    assert hidden_use(read("go()"), (function("def go():\n    'exec(code)'"),)) == ""


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("step(old)", True),
        ("x = old.weights", True),
        ("print(f'{old}')", True),
        ("x = 'old'", True),
        ("%time step(old)", True),
        ("!python train.py {old}", True),
        ("def f():\n    return old\nf()", True),
        ("frame.query('a > @old')", True),
        ("old = old + 1", True),
        ("if flag:\n    old = 1\nprint(old)", True),
        ("# old", False),
        ("model.save('models/old/best.keras')", False),
        ('"""The old one is not used."""\nmodel.fit(x)', False),
        ("old = build()\nold.fit(x)", False),
        ("for old in data:\n    fit(old)", False),
        ("old, new = split(x)\nfit(old)", False),
        ("print('the old model')", False),
        ("%matplotlib inline\nold = build()\nold.fit(x)", False),
        ("!pip install -q keras\nold = build()\nold.fit(x)", False),
        ("!du -h {old}\nold = build()\nold.fit(x)", True),
    ],
)
def test_a_name_is_used_where_the_code_reads_what_it_held(source, used):
    assert ("old" in used_words(read(source))) is used
