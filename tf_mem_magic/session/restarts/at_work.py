"""The replay that goes on in a shell, found without what carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mem_magic.session.restarts.replaying import Replaying

ATTRIBUTE = "_tf_mem_magic_replaying"
"""The shell keeps it, which is there before the extension."""


def replaying_of(shell: Any, plan: str = "") -> Replaying | None:
    """Give the replay of this kernel; with ``plan``, only where it is that plan's."""
    found: Replaying | None = getattr(shell, ATTRIBUTE, None)
    return found if found is not None and plan in ("", found.plan) else None
