"""What two models take and how good they are, measured side by side: for functions that make models smaller."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tf_mem_magic.apply.deploy._inference import count_samples, count_taken
from tf_mem_magic.core.units import brief_unit, milliseconds, size

_TIMES = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model takes: numbers in its weights, their bytes, seconds and bytes of one predicted batch."""

    numbers: int
    weights: int
    seconds: float
    samples: int
    took: int | None


def measure(models: Sequence[Any], batch: Any) -> tuple[Measured, ...]:
    """Predict one batch with each model: the most bytes, and the median seconds of calls taken in turns.

    In turns, because what else the computer does changes meanwhile.
    """
    for model in models:
        for _ in range(3):
            model.predict_on_batch(batch)
    took = [count_taken(model, partial(model.predict_on_batch, batch))[1] for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(_TIMES):
        for model, mine in zip(models, seconds):
            start = time.perf_counter()
            model.predict_on_batch(batch)
            mine.append(time.perf_counter() - start)
    samples = count_samples(batch)
    return tuple(
        Measured(*_sizes(model), statistics.median(mine), samples, counted)
        for model, mine, counted in zip(models, seconds, took)
    )


def _sizes(model: Any) -> tuple[int, int]:
    """Give how many numbers a model's variables hold, and their bytes."""
    values = [v.value for v in {id(v): v for v in model.variables}.values()]
    counts = [int(value.shape.num_elements()) for value in values]
    return sum(counts), sum(count * int(value.dtype.size) for count, value in zip(counts, values))


def evaluated_data(x: Any, y: Any, fit: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Give what ``evaluate`` takes: the validation data where there are some, and what to call them."""
    given, which = fit.get("validation_data"), "validation"
    steps, batch_size = fit.get("validation_steps"), fit.get("validation_batch_size") or fit.get("batch_size")
    if given is None:
        weights = fit.get("sample_weight")
        given, which = (x,) if y is None else (x, y) if weights is None else (x, y, weights), "training"
        steps, batch_size = fit.get("steps_per_epoch"), fit.get("batch_size")
    parts = given if isinstance(given, (tuple, list)) else (given,)
    data = dict(zip(("x", "y", "sample_weight"), parts))
    return data | {"steps": steps} | ({"batch_size": batch_size} if "y" in data else {}), which


def compare(teacher: Measured, student: Measured, results: list[dict[str, float]], which: str) -> str:
    """Say what was measured, the teacher first."""
    unit = brief_unit([teacher.weights, student.weights])
    share = student.weights / teacher.weights if teacher.weights else 1.0
    lines = [
        "teacher → student",
        f"numbers in the weights: {teacher.numbers:,} → {student.numbers:,}",
        f"bytes of the weights: {unit.text(teacher.weights)} → {size(student.weights, unit)} ({share:.2f} of them)",
        f"one batch of {teacher.samples} predicted: {milliseconds(teacher.seconds)} → {milliseconds(student.seconds)}",
    ]
    if teacher.took is None or student.took is None:
        lines.append("peak of that beside the weights: not counted by TensorFlow on this device")
    else:
        unit = brief_unit([teacher.took, student.took])
        lines.append(f"peak of that beside the weights: {unit.text(teacher.took)} → {size(student.took, unit)}")
    for name, value in results[0].items():
        lines.append(f"{name} on the {which} data: {value:.4g} → {results[1][name]:.4g}")
    return "\n".join(lines)
