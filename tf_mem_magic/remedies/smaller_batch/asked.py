"""What is asked of a run before its batches are made smaller: whether that may help, and which batch failed."""

from __future__ import annotations

import re

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.situation_keys import CREATES
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.follow.reader import Unknown
from tf_mem_magic.remedies._engine.guards import Check
from tf_mem_magic.remedies._engine.in_code import in_code
from tf_mem_magic.remedies._engine.question import Ask

_UPDATE = re.compile(r"(?:^|/)(?:Assign(?:Add|Sub)?VariableOp|Resource(?:Sparse)?Apply\w+?)(?:_\d+)?$")
"""Operations that update a weight or an optimizer's state; a new value takes as much memory as the old one."""

STATEFUL = in_code(r"\bstateful\s*=\s*True|['\"]stateful['\"]\s*:\s*True")
"""What makes a layer go on from the same row of the batch before."""

_LITTLE = 0.05
"""Share of the limit below which making activations smaller frees nothing that matters."""


def failing_lines(ask: Ask) -> frozenset[int]:
    """Return the lines of the tree that led to the error; empty where they are unknown."""
    return frozenset(line for line in (*ask.lines, ask.line or 0) if 1 <= line <= len(ask.cell.starts))


def found_batch(ask: Ask) -> BatchFound | Unknown:
    """Find the batch size behind the failing lines."""
    shape = None if ask.diagnosis is None else ask.diagnosis.shape
    return find_batch(ask.cell, ask.facts, failing_lines(ask), shape)


def models_in(facts: Facts, found: BatchFound) -> tuple[ModelFacts, ...]:
    """List the models that may take the batches: the one whose method was called, or the only one that trained here.

    A function's own name for a model is not looked up among the notebook's names. All models where none of that tells.
    """
    one = facts.model(found.receiver or "")
    if one is not None:
        return (one,)
    stepped = tuple(m for m in facts.models if m.steps > (m.steps_before or 0))
    return stepped if len(stepped) == 1 else facts.models


def _why_not(ask: Ask) -> str:
    diagnosis = ask.diagnosis
    if diagnosis is None:
        return ""
    if ask.host_ran_out:
        return "the computer's own memory ran out, not the memory that training steps use"
    created = any(f.function in CREATES for e in ask.recording.errors for f in e.frames)
    if created or diagnosis.op in ("VarHandleOp", "VariableV2"):
        return "it ran out while weights or optimizer variables were made, and those do not shrink with the batch"
    if diagnosis.op in ("SaveV2", "RestoreV2", "CacheDatasetV2", "TensorDataset"):
        return f"it ran out in {diagnosis.op}, which does not depend on the batch"
    return _held_by_weights(diagnosis)


def _held_by_weights(diagnosis: Diagnosis) -> str:
    """Say why no batch is small enough, where weights or values fill the device and a weight's update ran out."""
    rest = diagnosis.of_step
    known = diagnosis.in_use and diagnosis.limit and _UPDATE.search(diagnosis.op or "")
    if not known or rest >= _LITTLE * (diagnosis.limit or 0):
        return ""
    unit = brief_unit([diagnosis.in_use or 0])
    held = f"{unit.text(rest)} of {size(diagnosis.in_use or 0, unit)} in use"
    return f"it ran out while weights were updated, and only {held} may depend on the batch"


fewer_samples_may_help = Check("fewer_samples_may_help", _why_not)
"""The guard of what makes batches smaller: memory that ran out may shrink with them."""
