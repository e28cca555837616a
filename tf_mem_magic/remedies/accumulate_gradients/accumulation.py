"""What gradient accumulation must know of a cell: whether it is there already, and what is left over of an epoch."""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterable

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Preserves, RefusedError
from tf_mem_magic.core.units import size
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.follow.behind import has_method, model_names
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.follow.strategies import runs_under_a_strategy
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.guards import Check
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.accumulate_gradients.already import texts_behind
from tf_mem_magic.remedies.accumulate_gradients.bent_losses import read_losses
from tf_mem_magic.remedies.accumulate_gradients.compared import compares_samples, pairs_samples
from tf_mem_magic.remedies.accumulate_gradients.epochs import (
    left_over,
    over_the_end,
    samples_of,
    steps_that_follow,
)
from tf_mem_magic.remedies.smaller_batch.asked import STATEFUL, failing_lines, models_in

MOST_WHILE_ADDED = 2
"""How many times their own bytes the sums took at most while they were added: 0.7 to 1.9 were measured."""

_UPDATES_STATISTICS = ("BatchNormalization", "SpectralNormalization")
_REFUSED: tuple[tuple[str | re.Pattern[str], str], ...] = (
    (r"use_ema\s*=\s*True", "the optimizer keeps a moving average of the weights, which would count every batch"),
    (
        r"\breduction\s*=\s*(?!['\"](?:sum_over_batch_size|auto)['\"]|[\w.]*\bReduction\.(?:AUTO|SUM_OVER_BATCH_SIZE)\b"
        r"|(?:self\.)?_?reduction\b)",
        "the loss may not be a mean over the batch",
    ),
    (
        r"activity_regularizer\s*=\s*(?!None)|ActivityRegularization",
        "an activity regularizer may be no mean over the batch: then the mean of parts is not the whole",
    ),
    (
        r"add_loss\((?![^\n]*mean)[^\n]*(?:reduce_|\b)sum\(",
        "the model adds a sum to its loss, which may be one over the batch: the mean of parts is not the whole",
    ),
    (
        STATEFUL,
        "a stateful layer goes on from the same row of the batch before, and in parts of a batch the rows are others",
    ),
)
"""What the cell or an earlier one may hold that makes the mean of the parts' gradients another one, and the reason."""

_MAGIC = re.compile(r"(?m)^[ \t]*[%!].*$")
_TESTED = (3, 12)
"""The oldest Keras that accumulation was tested with."""

_MASKED = re.compile(r"mask_zero\s*=\s*True|padded_batch|ragged_batch")
_OWN_LOSS = re.compile(r"def \w*[lL]oss\w*\(|lambda y_true|add_loss\(")


def steps_given(found: BatchFound) -> bool:
    """Whether the cell says how many batches an epoch has, so that each update has all its parts."""
    return any(s.name == "steps_per_epoch" and s.value is not None and not s.whole for s in found.steps)


def _why_not(ask: Ask) -> str:
    facts = ask.facts
    if facts.keras is None:
        return "the cell does not use Keras"
    legacy = dict(facts.environment).get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    if legacy or facts.keras.startswith("2."):
        return "the optimizers of Keras 2 (tf_keras) cannot accumulate gradients"
    version = tuple(int(n) for n in re.findall(r"\d+", facts.keras)[:2])
    return f"this is Keras {facts.keras}; accumulation was tested with 3.12 and later" if version < _TESTED else ""


keras_accumulates = Check("keras_accumulates", _why_not)
"""The guard of a Keras whose optimizers can accumulate gradients."""


def check_a_mean(ask: Ask, found: BatchFound) -> bool:
    """Refuse where the mean of a batch's parts is another than that of the whole."""
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    model = _the_only(ask.facts, found)
    own = model is not None and bool(model.own_step)
    if own or (found.call is not None and has_method(reader, model_names(reader, found.call), "train_step")):
        raise RefusedError("the model has its own train_step, and how it uses the optimizer is not known")
    if runs_under_a_strategy(reader, found.call):
        raise RefusedError("under a distribution strategy Keras cannot accumulate gradients")
    texts = [_code_of(text) for text in texts_behind(ask, found)]
    reason = next((reason for pattern, reason in _REFUSED if any(re.search(pattern, t) for t in texts)), "")
    if reason:
        raise RefusedError(reason)
    if any(compares_samples(ask.notebook, text) or pairs_samples(text) for text in texts):
        raise RefusedError(
            "the loss seems to take the samples of a batch together, not each alone: the mean of parts is not the whole"
        )
    losses = read_losses(reader, found.call)
    if losses.bent:
        raise RefusedError(
            f"`{losses.bent}` computes with a mean or a sum over the whole batch: the mean of parts is not the whole"
        )
    if losses.mixed:
        raise RefusedError(
            f"the samples of a batch may meet in `{losses.mixed}`: then the mean of parts is not the whole"
        )
    return losses.is_masked


@functools.lru_cache(maxsize=256)
def _code_of(text: str) -> str:
    """Give a text without comments and sentences in strings; without comment lines where it cannot be parsed alone."""
    try:
        tree = ast.parse(textwrap.dedent(_MAGIC.sub("pass", text)))
    except (SyntaxError, ValueError, RecursionError):
        return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            node.value = ""
    return ast.unparse(tree)


def exactness(
    facts: Facts,
    cell: PythonCell,
    found: BatchFound,
    total: int,
    batch: int,
    is_masked: bool,
    failing: Iterable[int] = (),
) -> tuple[Preserves, tuple[str, ...]]:
    """Say whether each update is that of the original batch, and why not."""
    notebook = read_notebook(cell.source, facts.earlier_cells, cell.titles)
    layers = {layer for m in models_in(facts, found) for layer in m.layers}
    caveats = [
        f"{name} sees the smaller batches one by one: for it, it is not the same effective batch."
        for name in _UPDATES_STATISTICS
        if name in layers or (not layers and notebook.has(name))
    ]
    if is_masked or "Masking" in layers or notebook.matches(_MASKED, "mask_zero", "padded_batch", "ragged_batch"):
        caveats.append(
            "Padding and masks differ between the smaller batches, so their means weigh a little differently."
        )
    reader = Reader(cell, facts, frozenset(failing))
    samples = None if steps_given(found) else samples_of(reader, found.call)
    rest = "" if steps_given(found) else left_over(samples, total * batch, total)
    by_steps = steps_that_follow(reader, found)
    if by_steps is not None:
        samples, rest = by_steps[1], over_the_end(*by_steps, batch, total)
    changes = bool(caveats) or bool(rest)
    preserves: Preserves = "same model, other gradients" if changes else "same effective batch"
    return preserves, (*caveats, *((rest,) if rest else ()))


def _the_only(facts: Facts, found: BatchFound) -> ModelFacts | None:
    models = models_in(facts, found)
    return models[0] if len(models) == 1 else None


_LATER = "their batches want to be made smaller as well."


def costs(facts: Facts, found: BatchFound, cell: PythonCell) -> tuple[str, ...]:
    """Say what accumulating costs, and what else it touches."""
    sums = sums_of(facts, found)
    model = _the_only(facts, found)
    caveats = [f"It keeps a sum of gradients for each weight{f', {size(sums)} in all' if sums else ''}."]
    if model is not None and any("Dropout" in layer for layer in model.layers):
        caveats.append("Dropout draws its masks for each smaller batch: as random as before, not the same numbers.")
    if model is not None and "Embedding" in model.layers and model.optimizer != "SGD":
        caveats.append(
            f"Keras gives {model.optimizer or 'the optimizer'} an id that occurs several times in a batch as several "
            "gradients of an `Embedding`; accumulated they are one, so its weights train differently."
        )
    if read_notebook(cell.source, facts.earlier_cells, cell.titles).matches(_OWN_LOSS, "loss", "Loss", "lambda y_true"):
        caveats.append("A loss of your own must be a mean over samples: parts of another would not average to it.")
    if "callbacks" in cell.source:
        caveats.append("Callbacks that count batches see more of them.")
    caveats.append(f"Later cells that train with this optimizer accumulate too: {_LATER}")
    return tuple(caveats)


def sums_of(facts: Facts, found: BatchFound) -> int:
    """Give the bytes of the sums to keep: one for each weight that is trained, at most one for each."""
    trained = (m.weight_bytes if m.trainable_bytes is None else m.trainable_bytes for m in models_in(facts, found))
    return max(trained, default=0)


def weigh(diagnosis: Diagnosis | None, sums: int, batch: int, small: int) -> tuple[str, ...]:
    """Weigh the sums of gradients against what batches of ``small`` save of the activations.

    All that is in use beside weights, optimizer and named values grows with the batch but the gradients, which take
    as much as their sums. Measured on dense networks and ResNet50: where the sums took more than what that leaves to
    save, the peak rose, and where they took as much it stayed.

    Returns
    -------
    tuple of str
        The caveats.

    Raises
    ------
    RefusedError
        If it cannot help.
    """
    if diagnosis is None or not diagnosis.breakdown or not sums:
        return ()
    held = diagnosis.of_step + (diagnosis.requested or 0)
    saved = max(held - sums, 0) * (batch - small) // batch
    about = f"about {size(saved)}" if saved else "nothing that is seen"
    both = f"sums of gradients would take {size(sums)}, and batches of {small} save {about}"
    if sums >= saved:
        raise RefusedError(f"{both}: the peak would not fall")
    if MOST_WHILE_ADDED * sums < saved:
        return ()
    return (f"The {both}: while the sums are added they can take twice that, so the peak may not fall.",)
