"""TensorFlow's eager context, looked at without waking it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.sources import Unavailable


@dataclass(frozen=True, slots=True)
class Logical:
    """One logical device of this process: TensorFlow's ``short`` name (``"GPU:0"``), ``full`` name and its card.

    ``physical`` is TensorFlow's own object for the card, None where it cannot be told; ``limit`` the bytes that a
    logical device configuration set; ``pluggable``: the card comes from a plug-in, not from CUDA.
    """

    short: str
    full: str
    physical: Any = None
    configured: bool = False
    limit: int | None = None
    pluggable: bool = False

    @property
    def type(self) -> str:
        """TensorFlow's word for the type of device, such as ``"GPU"``."""
        return self.short.partition(":")[0]


def initialised_context(name: str) -> Any | Unavailable:
    """Give the eager context once the user's own code has initialised it; else why not, for the source ``name``.

    Nothing is imported: an import that runs in another thread would be waited for.
    """
    module = sys.modules.get("tensorflow.python.eager.context")
    if "tensorflow" not in sys.modules or module is None:
        return Unavailable(name, "TensorFlow has not been imported.", later=True)
    context = getattr(module, "_context", None)
    if context is None or not getattr(context, "_initialized", False):
        return Unavailable(name, "TensorFlow has not initialised its devices yet.", later=True)
    return context


def logical_devices(context: Any) -> tuple[Logical, ...]:
    """List the logical devices of this process. The context is initialised.

    The cards behind them are found by counting: TensorFlow makes one logical device of each visible card, or as
    many as were configured, in order. Where the count does not agree, ``physical`` stays None.
    """
    local = [d for d in context.list_logical_devices() if _is_local(d.name, context)]
    found: list[Logical] = []
    for kind in dict.fromkeys(d.device_type for d in local):
        names = [d.name for d in local if d.device_type == kind]
        cards = _cards(context, kind)
        if len(cards) != len(names):
            cards = [(None, None)] * len(names)
        found.extend(_logical(context, name, *card) for name, card in zip(names, cards))
    return tuple(found)


def _is_local(name: str, context: Any) -> bool:
    if name.startswith("/device:"):
        return True
    server = getattr(context, "_server_def", None) or getattr(context, "_collective_ops_server_def", None)
    return server is not None and name.startswith(f"/job:{server.job_name}/replica:0/task:{server.task_index}/")


def _cards(context: Any, kind: str) -> list[tuple[Any, Any]]:
    cards: list[tuple[Any, Any]] = []
    for physical in context.get_visible_devices(kind):
        configurations = context.get_logical_device_configuration(physical) or [None]
        cards.extend((physical, configuration) for configuration in configurations)
    return cards


def _logical(context: Any, name: str, physical: Any, configuration: Any) -> Logical:
    megabytes = getattr(configuration, "memory_limit", None)
    pluggable = physical is not None and physical in (getattr(context, "_pluggable_devices", None) or ())
    return Logical(
        short=name.rpartition("device:")[2],
        full=name,
        physical=physical,
        configured=configuration is not None,
        # A plug-in ignores the limit of a logical device.
        limit=None if megabytes is None or pluggable else int(megabytes) * 2**20,
        pluggable=pluggable,
    )
