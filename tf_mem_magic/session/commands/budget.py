"""``%tfmem budget SIZE``: run as if the device had only that much memory."""

from __future__ import annotations

import os
import sys
from typing import Any

from tf_mem_magic.core.units import MIB, size

CPU_BUDGET = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
"""TensorFlow reads these once, when it is imported: its CPU then allocates like a GPU. With oneDNN's kernels an
out-of-memory would end the process instead of raising."""

LIMIT = "TF_CPU_BFC_MEM_LIMIT_IN_MB"


def set_budget(budget: int) -> str:
    """Limit the memory of GPU 0, or of the CPU on a machine without one, to ``budget`` bytes; give one sentence.

    Raises
    ------
    ValueError
        With a sentence for the user, where it cannot be done in this process any more, or the size is too small.
    """
    if budget < 16 * MIB:
        raise ValueError(f"a budget of {size(budget)} is too small for TensorFlow to start: give 16 MiB or more")
    if sys.modules.get("tensorflow") is None and not _has_nvidia_gpu():
        return _limit_cpu(budget)
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if not gpus:
        raise ValueError(_restart_text(budget, "TensorFlow is already imported, and reads its CPU's limit only then"))
    return _limit_gpu(tensorflow, gpus[0], budget)


def _limit_cpu(budget: int) -> str:
    os.environ.update(CPU_BUDGET)
    os.environ[LIMIT] = str(budget // MIB)
    return f"TensorFlow will run on the CPU as if it had {size(budget // MIB * MIB)}. Import it and go on."


def _limit_gpu(tensorflow: Any, gpu: Any, budget: int) -> str:
    limit = tensorflow.config.LogicalDeviceConfiguration(memory_limit=budget // MIB)
    try:
        tensorflow.config.set_logical_device_configuration(gpu, [limit])
    except RuntimeError:
        raise ValueError(_restart_text(budget, "TensorFlow has already initialised its GPUs")) from None
    except ValueError as error:
        raise ValueError(f"TensorFlow refused the limit: {error}") from None
    return f"GPU:0 will behave as if it had {size(budget // MIB * MIB)}."


def _restart_text(budget: int, reason: str) -> str:
    return (
        f"{reason}. Restart the kernel, then run %load_ext tf_mem_magic and %tfmem budget {budget // MIB}MiB "
        "before anything else."
    )


def _has_nvidia_gpu() -> bool:
    from tf_mem_magic.sources import Unavailable, nvml

    source = nvml.open()
    if isinstance(source, Unavailable):
        return False
    source.close()
    return True
