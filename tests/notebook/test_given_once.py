"""Values that go through what they hold once."""

from __future__ import annotations

import ast

import pytest

from tf_mem_magic.notebook.given_once import given_once
from tf_mem_magic.notebook.model import read_notebook


def once(source, expr):
    """Name what an expression behind a cell reads that gives its values once."""
    notebook = read_notebook(f"{source}\nfound = {expr}")
    last = notebook.cell.tree.body[-1]
    assert isinstance(last, ast.Assign)
    return given_once(notebook, notebook.cell, last.value)


@pytest.mark.parametrize(
    ("source", "expr", "told"),
    [
        ("f = open(p)", "f", "f"),
        ("", "open(p)", "open(...)"),
        ("", "(a for a in b)", "(... for ...)"),
        ("", "Path(p).rglob('*')", "Path(p).rglob(...)"),
        ("", "root.glob('*')", "root.glob(...)"),
        ("import os", "os.scandir(p)", "os.scandir(...)"),
        ("", "{'a': iter(x)}", "iter(...)"),
        ("", "data.as_numpy_iterator()", "data.as_numpy_iterator(...)"),
        ("pool = ThreadPoolExecutor(4)", "pool.map(load, names)", "pool.map(...)"),
        ("with futures.ProcessPoolExecutor() as ex:\n    rows = ex.map(load, names)", "rows", "rows"),
        ("import concurrent.futures as cf", "cf.as_completed(jobs)", "cf.as_completed(...)"),
        ("", "np.nditer(x)", "np.nditer(...)"),
        ("ds = tf.data.Dataset.range(9)", "ds.map(load)", ""),
        ("pool = Pool(4)", "pool.map(load, names)", ""),
        ("a = iter(x)\nb = a\nc = b", "c", "c"),
        ("a = b\nb = a", "a", ""),
        ("", "list(iter(x))", ""),
        ("", "tqdm(names)", ""),
        ("", "lambda: open(p)", ""),
        ("import glob as g", "g.glob('*')", ""),
        ("from os import listdir", "listdir(p)", ""),
        ("def rows():\n    return [1]", "rows()", ""),
        ("class Zip:\n    pass\nzip = Zip", "names", ""),
    ],
)
def test_what_gives_its_values_once_is_named(source, expr, told):
    assert once(source, expr) == told
