"""What a cell does with a name that holds the batch size."""

from __future__ import annotations

import ast

import pytest

from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.uses import role


def role_of_n(source):
    """Say what the one place that reads ``n`` is for."""
    tree = ast.parse(source)
    (read,) = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "n")
    return role(Scopes(tree), read)


@pytest.mark.parametrize("value", ["[7] * n", "n * [7]", "(7,) * n", "n * (7,)", "[0, 1] * n", "np.array([1] * n)"])
def test_a_list_or_tuple_that_is_as_long_as_a_batch_follows_it(value):
    assert role_of_n(f"labels = {value}") == "coupled"


@pytest.mark.parametrize("value", ["7 * n", "n * width", "[n] * 7"])
def test_what_is_computed_of_it_otherwise_may_be_anything(value):
    assert role_of_n(f"labels = {value}") == "other"


@pytest.mark.parametrize("moves", ["progress_bar.update(n)", "pbar.update(n)", "self.bar.update(n)", "progbar.add(n)"])
def test_a_progress_bar_moves_on_by_the_samples_of_a_batch(moves):
    assert role_of_n(f"done = {moves}") == "coupled"


@pytest.mark.parametrize("other", ["settings.update(n)", "sidebar_width.add(n)", "pbar.set(n)", "model.add(n)"])
def test_what_else_is_updated_may_be_anything(other):
    assert role_of_n(f"done = {other}") == "other"
