"""Losses of Keras: which of them take the mean over the batch."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.model import Notebook

_LOSSES = "keras.losses."


def makes_a_mean(notebook: Notebook, made: ast.expr | None) -> bool:
    """Tell whether an expression makes a loss of Keras with its usual reduction, which is the mean over the batch."""
    if not isinstance(made, ast.Call):
        return False
    origin = notebook.origin(made.func)
    is_class = origin.startswith(_LOSSES) and origin[len(_LOSSES) :][:1].isupper()
    return is_class and not any(k.arg in ("reduction", None) for k in made.keywords)
