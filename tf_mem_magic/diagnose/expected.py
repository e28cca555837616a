"""The peak to expect after a change: the step that ran out, simulated as it would be, corrected by the failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from statistics import median

from tf_mem_magic.core.diagnosis import OF_STEP, Diagnosis, PartKind
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Estimate
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.step import OF_GRAPH, Processor, Step, StepFacts
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.diagnose.dump import grown_pool
from tf_mem_magic.memory.forecast import Peak, peak_of, updating_from_sums, zeros_of
from tf_mem_magic.memory.pools.pooled import trained_in_pool
from tf_mem_magic.memory.recompute import recomputed
from tf_mem_magic.memory.roles import DATA, roles
from tf_mem_magic.memory.sizes import at_batch, in_half, validating

BELOW, ABOVE = 0.88, 1.1
"""How far the ends of the range lie from the simulated step on a processor (:func:`_in_pool`). A training runs in many
ways, and its peak is that of the worst."""

ABOVE_ELSEWHERE = 1.25
"""How far the upper end lies from it on other devices, where nothing was measured."""

AGAIN = 1.07
"""How much further it lies where layers compute their activations again: measured peaks were up to 6 % above it."""

USUAL_ROUNDING, MOST_ROUNDING = 0.2, 0.4
"""Share by which chunks were larger than what was asked for where the range holds, and beyond it at most."""

LEAST_SAVED = 0.01
"""Share of the peak below which a change is said to save nothing."""


def expected(recording: Recording, diagnosis: Diagnosis, effect: Effect) -> Estimate | None:
    """Estimate the peak of a rerun on ``diagnosis.device`` after a change.

    Parameters
    ----------
    recording : Recording
        The run that failed, with its step.
    diagnosis : Diagnosis
        What filled the memory.
    effect : Effect
        What the change does.

    Returns
    -------
    Estimate or None
        In bytes. None where the step is not known, XLA compiled it, or what the change does to it cannot be computed.
    """
    step = recording.facts.step
    if step is None or not step.packed or step.compiled or diagnosis.in_use is None or not _is_computable(effect):
        return None
    ratio = 1.0
    wanted = step.batch
    if effect.batch is not None:
        if step.batch is None or effect.batch[0] < 1:
            return None
        ratio = effect.batch[1] / effect.batch[0]
        wanted = max(round(step.batch * ratio), 1)
    dump = grown_pool(recording, diagnosis)
    regions = dump.regions if dump is not None else ()
    now = _peak(step, step.batch, None, None, regions)
    then = _peak(step, wanted, effect.policy, effect.recompute, regions)
    if now is None or then is None or not now.high:
        return None
    parts: dict[PartKind, int] = {part.kind: part.bytes for part in diagnosis.breakdown}
    stays = _stays(diagnosis, effect, recording)
    # What the failing operation asked for was part of the step too: the peak is no less.
    seen = diagnosis.of_step - parts.get("rounding", 0) - parts.get("inputs", 0) + (diagnosis.requested or 0)
    # On a processor it follows from the sources; on other devices it is what the failed run held, at any batch size.
    workspace = parts.get("workspace", 0) if step.processor is None else 0
    # In a validation the training's last batch is held beside its step: what is no tensor of that stays.
    training = parts.get("other", 0) if recording.facts.validating else 0
    # The batch that the step reads is in the simulated step; what else the pipeline holds lies beside it.
    inputs = max(parts.get("inputs", 0) - _drawn(step), 0)
    seen += parts.get("inputs", 0) - inputs
    seen, stays = seen - workspace - training, stays + workspace + training
    lower, upper = (max(seen / max(bound, 1), 1.0) for bound in (now.low, now.high))
    # Where chunks were much larger than what was asked for they may be so again.
    rounding = parts.get("rounding", 0) / max(diagnosis.in_use - parts.get("rounding", 0), 1)
    beyond = 1 + min(max(rounding - USUAL_ROUNDING, 0.0), MOST_ROUNDING) / 2
    low = stays + then.low * lower * BELOW + inputs * min(ratio, 1.0)
    most = then.high * upper * above(step.processor)
    further = 1.0 if effect.recompute is None else AGAIN
    # Of several batches the next one is drawn while a step runs; where the whole was one batch there was none.
    following = _drawn(step) * ratio if step.processor is not None and ratio < 1 else 0
    high = stays + most * beyond * further + inputs * max(ratio, 1.0) + following + _handed_on(step, wanted)
    if ratio >= 1 and effect.policy is None and effect.recompute is None:
        low = max(low, stays + seen + inputs)
    if _same_step(effect):
        # Nothing of the step changes: it comes at least as far as it came.
        change = _beside(parts, recording, diagnosis.device, effect)
        low = max(low, diagnosis.in_use + (diagnosis.requested or 0) + change)
    if effect.slots is not None:
        # What a lighter optimizer computes of the gradients is not known: at the least one value for each weight.
        least = _without_updates(step, wanted, regions)
        low = min(low, stays + least * lower * BELOW + inputs * min(ratio, 1.0))
    if effect.sums:
        one_after_the_other, all_at_once = updating_from_sums(trained_weights(recording))
        low, high = max(low, stays + one_after_the_other), max(high, stays + all_at_once)
    if validates := _validates(recording, effect):
        beside = stays + (inputs + _drawn(step)) * ratio
        held = _validation_peak(step, validates, effect.policy, regions)
        low, high = max(low, beside + held.low * BELOW), max(high, beside + held.high * above(step.processor))
    if effect.released:
        # What is let go of by the cell itself is still there as it begins.
        begins = dict(recording.before).get(f"allocator:{diagnosis.device}", 0)
        begins -= dict(recording.garbage).get(f"allocator:{diagnosis.device}", 0)
        low, high = max(low, begins), max(high, begins)
    low = max(low, 0)
    return Estimate(int(low), int(max(low, high)), _basis(step, wanted, effect))


def _validates(recording: Recording, effect: Effect) -> int:
    """Give the samples in a batch of the validation that the training does not change; 0: there is none."""
    own = None if recording.facts.validating else recording.facts.validation
    return 0 if own is None else effect.validation or (own.batch if effect.batch is None else 0)


def above(processor: Processor | None) -> float:
    """Give how far the upper end lies from the simulated step."""
    return ABOVE_ELSEWHERE if processor is None else ABOVE


def _stays(diagnosis: Diagnosis, effect: Effect, recording: Recording) -> int:
    """Give the bytes in use beside the step: weights, the optimizer's values, what names hold."""
    parts: dict[PartKind, int] = {part.kind: part.bytes for part in diagnosis.breakdown}
    held = sum(size for kind, size in parts.items() if kind not in OF_STEP)
    held += _not_there_yet(parts, recording, diagnosis)
    held += (recording.facts.step.coming or 0) if recording.facts.step is not None else 0
    return held + (_beside(parts, recording, diagnosis.device, effect) if recording.facts.step is not None else 0)


def _handed_on(step: StepFacts, batch: int | None) -> int:
    """Give the bytes of the gradients that a first step hands to an update outside of it.

    A loop's names hold them until the next step has others.
    """
    resized = step_at(step, batch) if step.coming is not None else None
    if resized is None:
        return 0
    weights = sum(size for part, whose, size in step.variables if part == "weights" and whose != OF_GRAPH)
    results = sum(resized.nodes[at].outputs[output].bytes or 0 for at, output in resized.results)
    return min(results, weights)


def _not_there_yet(parts: Mapping[PartKind, int], recording: Recording, diagnosis: Diagnosis) -> int:
    """Give the bytes of the step's variables that were not in memory when it failed.

    What a loop's own optimizer keeps of two weights of one shape begins as one and the same array of zeros; each gets
    its own buffer when it is first written to.
    """
    variables = used_variables(recording, diagnosis.device)
    whole, nameless = (sum(v[2] for v in variables if only is None or v[1] == only) for only in (None, OF_GRAPH))
    unnamed = find_leftovers(recording, diagnosis.device).unnamed or 0
    return min(max(whole - parts.get("weights", 0) - parts.get("optimizer", 0) - unnamed, 0), nameless)


def used_variables(recording: Recording, device: str) -> tuple[tuple[str, str, int], ...]:
    """List the variables of the step's models but those of leftovers, which are a part of their own."""
    step = recording.facts.step
    left = find_leftovers(recording, device).names
    return tuple(one for one in step.variables if one[1] not in left) if step is not None else ()


def trained_weights(recording: Recording) -> list[int]:
    """List the bytes of the weights that training changes; all of them where it is not known which."""
    step = recording.facts.step
    models = [model for model in recording.facts.models if model.optimizer]
    models = [model for model in models if model.steps > (model.steps_before or 0)] or models
    names = {model.name for model in models}
    weights = [(whose, size) for part, whose, size in step.variables if part == "weights"] if step else []
    own = sorted((size for whose, size in weights if whose in names), reverse=True)
    others = sorted((size for whose, size in weights if whose not in names), reverse=True)
    most = max((model.trainable_bytes or 0 for model in models), default=0)
    if not most:
        return own or others
    # A model inside another one, with a name of its own (`base`), holds most weights of the one that trains.
    sizes = [*own, *others]
    kept: list[int] = []
    for one in sizes:
        if sum(kept) + one <= most:
            kept.append(one)
    return kept


def _same_step(effect: Effect) -> bool:
    return effect.batch is None and effect.policy is None and effect.recompute is None


def saves_nothing(recording: Recording, diagnosis: Diagnosis, effect: Effect) -> str:
    """Say that a change does not lower the peak, with the numbers; empty where it does, or that is not known."""
    now, then = expected(recording, diagnosis, Effect()), expected(recording, diagnosis, effect)
    if now is None or then is None:
        return ""
    before, after = (now.low + now.high) / 2, (then.low + then.high) / 2
    if before - after >= LEAST_SAVED * before:
        return ""
    return f"the peak would not fall: about {size(int(after))} after it, about {size(int(before))} without"


def _is_computable(effect: Effect) -> bool:
    return not effect.staged and not effect.jit and effect.recompute != ()


def _beside(parts: Mapping[PartKind, int], recording: Recording, device: str, effect: Effect) -> int:
    """Give the bytes by which a change moves what lies beside the step."""
    moved = -effect.released - effect.to_host
    weights = sum(size for part, _, size in used_variables(recording, device) if part == "weights")
    if effect.slots is not None:
        moved += effect.slots * weights - parts.get("optimizer", 0)
    if effect.accumulates:
        sums = trained_weights(recording)
        moved += sum(sums) + (zeros_of(sums) if effect.sums else 0)
    return moved


@lru_cache(maxsize=64)
def _drawn(step: StepFacts) -> int:
    """Give the bytes of the batch that the step reads."""
    drawn = (node for one in step.steps[:1] for node in one.nodes if node.kind in DATA - {"Placeholder"})
    return sum(tensor.bytes or 0 for node in drawn for tensor in node.outputs)


@lru_cache(maxsize=256)
def _peak(
    step: StepFacts,
    batch: int | None,
    policy: str | None,
    recompute: tuple[tuple[str, ...], ...] | None,
    regions: tuple[int, ...],
) -> Peak | None:
    resized = step_at(step, batch)
    if resized is None:
        return None
    if recompute:
        resized = recomputed(resized, recompute, step.layers)
    return _under(policy, step, resized, regions)


@lru_cache(maxsize=16)
def _validation_peak(step: StepFacts, batch: int, policy: str | None, regions: tuple[int, ...]) -> Peak:
    """Give the peak of a validation beside what is in memory anyway; its own batch counts."""
    resized = step_at(step, batch)
    forward = validating(resized) if resized is not None else None
    return Peak(0, 0) if forward is None else _under(policy, step, forward, regions)


@lru_cache(maxsize=64)
def _without_updates(step: StepFacts, batch: int | None, regions: tuple[int, ...]) -> int:
    """Give the least peak of a step beside its variables where its optimizer computes next to nothing."""
    resized = step_at(step, batch)
    if resized is None:
        return 0
    kinds = roles(resized)
    nodes = tuple(
        replace(node, outputs=tuple(replace(t, shape=()) for t in node.outputs)) if kinds[at] == "updates" else node
        for at, node in enumerate(resized.nodes)
    )
    return _in_pool(step, replace(resized, nodes=nodes), regions).low


def _under(policy: str | None, step: StepFacts, resized: Step, regions: tuple[int, ...]) -> Peak:
    """Give the peak of a step beside its variables under a dtype policy."""
    if policy is not None and policy.startswith("mixed_"):
        resized = in_half(resized, policy.removeprefix("mixed_"), step.layers)
    return _in_pool(step, resized, regions)


def _in_pool(step: StepFacts, resized: Step, regions: tuple[int, ...]) -> Peak:
    """Give the peak of a step beside its variables.

    On a processor it is run in a pool that begins anew and in one with the ``regions`` that the failed run has left:
    in which it will run nobody knows, and chunks are larger than what is asked for in each by other bytes. ``low`` lies
    between what is asked for in the worst of the ways in which it may run, and what is in use in the middle of them;
    ``high`` is the most in use, with another kernel beside it where one could run.
    """
    if step.processor is None:
        return peak_of(resized)
    slots, others = (
        [size for part, _, size in step.variables if size and (part == "optimizer") is kept] for kept in (True, False)
    )
    pools = [(), regions] if regions else [()]
    ran = trained_in_pool(resized, step.processor, others, slots, pools)
    beside = sum(slots) + sum(others)
    asked, peak = max(one.asked for one in ran), int(median(one.peak for one in ran)) - beside
    return Peak((asked + peak) // 2, max(one.most for one in ran) - beside)


@lru_cache(maxsize=16)
def step_at(step: StepFacts, batch: int | None) -> Step | None:
    """Give the step at a batch size, the one that ran where ``batch`` is None; None where there is no step."""
    steps = step.steps
    if not steps or batch is None or step.batch is None:
        return steps[0] if steps else None
    return at_batch(steps, step.batch, step.other, batch, _sizes_of(step))


def _sizes_of(step: StepFacts) -> frozenset[int]:
    return frozenset(size for _, _, size in step.variables if size > 64)


def _basis(step: StepFacts, batch: int | None, effect: Effect) -> str:
    at = f" at batch {batch}" if effect.batch is not None else ""
    return f"the step's own operations{at}, corrected by what the failed run held"
