"""Which remedies can help where: keys that several situations name."""

from __future__ import annotations

HELD = ("free-leftovers", "collect-garbage", "close-sessions")
"""Remedies that release what earlier code holds."""

ROOM = (*HELD, "memory-growth", "device-limit", "other-gpu", "async-allocator")
"""Remedies that make room without changing what is computed."""

RUNS_MODELS = frozenset(
    "fit evaluate predict train_on_batch test_on_batch predict_on_batch fit_generator evaluate_generator "
    "predict_generator".split()
)
"""Methods by which Keras runs a model."""

CREATES = frozenset({"add_weight", "add_variable", "add_variable_from_reference", "_initialize_with_initializer"})
"""Functions of Keras that make variables."""
