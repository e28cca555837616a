"""Edited cells of the gallery run by IPython with real Keras: the new batch, policy and optimizer are really used."""

from __future__ import annotations

import pytest

from tests.notebook_cells import CELLS
from tests.remedies.test_edits import KNOWN, edits
from tests.script import found_by

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]

NAMES = (
    *("no argument", "semicolons on one line", "after a text that ends on its line", "a continued call", "tabs"),
    *("form feed on the line", "a model whose name is not ASCII", "a model in a dict", "an f-string", "a decorator"),
    *(
        "an f-string without a batch",
        "brackets and comments",
        "await at the top",
        "%%time",
        "%time in a block",
    ),
    *("shell lines", "a docstring first", "arguments like those of a trainer", "argparse", "a dataclass"),
    *("sequential", "sequential on one line", "compile after a text on its line", "functional", "a loop of one's own"),
    *("a new model for each fold", "a grid, with a magic and a text over lines", "one model after the other"),
)
CHECKED = ("smaller-batch", "accumulate-gradients", "mixed-precision", "lighter-optimizer", "xla", "collect-garbage")
SCRIPT = """
import asyncio, json, sys
import keras, numpy as np, tensorflow as tf
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.ast_node_interactivity = "none"
def ran(source, name):
    keras.utils.set_random_seed(1); keras.config.set_dtype_policy("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"], jit_compile=True); model.jit_compile = False
    names = {"keras": keras, "np": np, "tf": tf, "asyncio": asyncio, "timed": lambda f: f, "model": model}
    names |= {"modèle": model, "models": {"net": model}, "pick": lambda: model}
    names |= {"x": np.ones((256, 8), "float32"), "y": np.ones((256, 1), "float32")}
    shell.reset(new_session=False); shell.user_ns.update(names)
    result = shell.run_cell(source)
    error = result.error_before_exec or result.error_in_exec
    trained = shell.user_ns["model"]
    used = shell.user_ns.get("optimizer") or trained.optimizer
    return {
        "error": None if error is None else repr(error),
        "updates": int(used.iterations),
        "parts": used.gradient_accumulation_steps or 1,
        "optimizer": type(used).__name__,
        "dtype": trained.layers[0].compute_dtype,
        "layers": len(trained.layers),
        "last": trained.layers[-1].compute_dtype,
        "jit": trained.jit_compile,
    }
found = {name: {key: ran(source, name) for key, source in cells.items()} for name, cells in json.load(sys.stdin).items()}
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    chosen = [cell for cell in CELLS if cell.name in NAMES]
    assert len(NAMES) == len(chosen)
    changed = {cell.name: edits(cell, KNOWN[0]) for cell in chosen}
    given = {
        cell.name: {"before": cell.source, **{k: s for k, s in changed[cell.name].items() if k in CHECKED}}
        for cell in chosen
    }
    return found_by(SCRIPT, given)


def of(found, key):
    """Give what each cell that the remedy changes did before and after."""
    pairs = {name: (runs["before"], runs[key]) for name, runs in found.items() if key in runs}
    assert len(pairs) >= 3, key
    return pairs


def test_every_cell_runs_before_and_after(found):
    assert {} == {
        (name, key): run["error"] for name, runs in found.items() for key, run in runs.items() if run["error"]
    }


def test_a_smaller_batch_takes_twice_the_steps(found):
    trained = {name: pair for name, pair in of(found, "smaller-batch").items() if pair[0]["updates"]}
    assert len(trained) >= 15
    assert {} == {name: (a, b) for name, (a, b) in trained.items() if b["updates"] != 2 * a["updates"]}


def test_accumulated_parts_make_as_many_updates(found):
    expected = {name: (a["updates"], 2) for name, (a, _) in of(found, "accumulate-gradients").items()}
    assert expected == {name: (b["updates"], b["parts"]) for name, (_, b) in of(found, "accumulate-gradients").items()}


def test_mixed_precision_computes_in_16_bits_but_for_the_outputs(found):
    changed = of(found, "mixed-precision").items()
    used = {name: (b["dtype"], b["last"]) for name, (_, b) in changed if b["layers"] > 1}
    assert len(used) >= 15
    assert dict.fromkeys(used, ("bfloat16", "float32")) == used


def test_a_lighter_optimizer_trains_the_model(found):
    used = {name: (a["optimizer"], b["optimizer"]) for name, (a, b) in of(found, "lighter-optimizer").items()}
    assert dict.fromkeys(used, ("Adam", "SGD")) == used


def test_xla_is_off(found):
    used = {name: b["jit"] for name, (_, b) in of(found, "xla").items()}
    assert dict.fromkeys(used, False) == used


def test_letting_go_of_earlier_rounds_changes_nothing_else(found):
    assert {} == {name: (a, b) for name, (a, b) in of(found, "collect-garbage").items() if a != b}
