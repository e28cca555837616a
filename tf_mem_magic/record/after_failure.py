"""What is read and tried of TensorFlow's graphs after a run that ran out of memory, before anything is let go of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_mem_magic.core.recording import Recording
from tf_mem_magic.release.gradient_registry import tie_gradients_to_graphs
from tf_mem_magic.trace.observe import with_step
from tf_mem_magic.trace.policy_trial import with_policy_tried


def with_traces(recording: Recording, error: BaseException | None, namespace: Mapping[str, Any]) -> Recording:
    """Add the step that was running, and what became of 16-bit compute when it was tried."""
    recording = with_policy_tried(with_step(recording, error, namespace), error, namespace)
    if any(model.trial is not None for model in recording.facts.models):
        tie_gradients_to_graphs()  # TensorFlow would keep the graph of the trial for its custom gradients
    return recording
