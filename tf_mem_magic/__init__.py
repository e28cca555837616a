"""tf_mem_magic: see a cell's memory, catch its out-of-memory errors, fix the cell by one click.

In a notebook::

    %load_ext tf_mem_magic

    %%tfmem
    model.fit(x, y, batch_size=256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

_PUBLIC = {
    "Report": "tf_mem_magic.api",
    "record": "tf_mem_magic.api",
    "last_report": "tf_mem_magic.api",
    "load": "tf_mem_magic.api",
    "plan": "tf_mem_magic.api",
    "Recording": "tf_mem_magic.core.recording",
    "Diagnosis": "tf_mem_magic.core.diagnosis",
    "Proposal": "tf_mem_magic.core.proposals",
    "Declined": "tf_mem_magic.core.proposals",
}
__all__ = [*_PUBLIC, "apply"]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "apply":
        return importlib.import_module("tf_mem_magic.apply")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tf_mem_magic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(ip: InteractiveShell) -> None:
    """Load the extension into a shell: ``%load_ext tf_mem_magic``. Loading twice is harmless."""
    from tf_mem_magic import magic

    magic.load(ip)


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """Take everything back that loading changed: ``%unload_ext tf_mem_magic``."""
    from tf_mem_magic import magic

    magic.unload(ip)
