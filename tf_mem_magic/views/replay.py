"""The page's part in a replay: one anywidget that is shown nowhere, and that every page of the notebook finds.

A page that is loaded again gets its model from the kernel, and with it how far the replay has come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

_SCRIPTS = ("notebook.js", "notice.js", "replay.js", "replay_model.js")

State = Literal["planned", "replaying", "resuming", "stopped", "done", "dropped"]
"""``planned``: nothing has run. ``replaying``: a page runs the cells. ``resuming``: ``%tfmem resume`` does.

``stopped``: a cell failed or cannot be run. ``done``: the cell of the remedy has run. ``dropped``: the plan was given
up.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A cell of a replay: its ``id`` in the notebook, its ``source`` when it was planned, its telling line."""

    id: str
    source: str
    words: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is replayed.

    Attributes
    ----------
    plan : str
        The identity of the plan.
    title, key : str
        Those of the remedy.
    steps : tuple of Step
        The cells in their order, that of the remedy last.
    original, source : str
        The last cell before and after the change.
    driver : str
        The page that runs the cells; empty: none does yet.
    began : str
        When it was asked for, for people.
    """

    plan: str
    title: str
    key: str
    steps: tuple[Step, ...]
    original: str
    source: str
    driver: str = ""
    began: str = ""

    def to_json(self) -> str:
        """Write it as text that the next kernel can read."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read what :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "steps": tuple(Step(**step) for step in fields["steps"])})


@lru_cache(maxsize=1)
def script() -> str:
    """Give the page's script, one module joined from its parts."""
    folder = files("tf_mem_magic.views")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)


@lru_cache(maxsize=1)
def _replay_class() -> Any:
    import anywidget
    import traitlets

    class Replay(anywidget.AnyWidget):
        """How far a replay has come; the kernel writes, pages read and send ``{"op": ...}``."""

        _esm = script()
        plan = traitlets.Unicode().tag(sync=True)
        title = traitlets.Unicode().tag(sync=True)
        key = traitlets.Unicode().tag(sync=True)
        began = traitlets.Unicode().tag(sync=True)
        steps: Any = traitlets.List().tag(sync=True)
        original = traitlets.Unicode().tag(sync=True)
        source = traitlets.Unicode().tag(sync=True)
        driver = traitlets.Unicode().tag(sync=True)
        state = traitlets.Unicode().tag(sync=True)
        running = traitlets.Int(-1).tag(sync=True)
        failed = traitlets.Int(-1).tag(sync=True)
        reason = traitlets.Unicode().tag(sync=True)
        done: Any = traitlets.List().tag(sync=True)
        tried: Any = traitlets.List().tag(sync=True)
        resumed: Any = traitlets.List().tag(sync=True)
        report = traitlets.Dict().tag(sync=True)

    return Replay


def open_replay(order: Order, state: State, on_message: Callable[[Mapping[str, Any]], None]) -> Any:
    """Open the model of a replay; ``on_message`` gets what pages send, in whatever thread the kernel handles it."""
    steps: Sequence[dict[str, str]] = [asdict(step) for step in order.steps]
    model = _replay_class()(
        plan=order.plan,
        title=order.title,
        key=order.key,
        began=order.began,
        steps=steps,
        original=order.original,
        source=order.source,
        driver=order.driver,
        state=state,
    )
    model.on_msg(lambda _widget, content, _buffers: on_message(content))
    return model
