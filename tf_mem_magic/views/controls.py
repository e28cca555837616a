"""The panel's widgets: made here, with ipywidgets imported at first use. They hold no logic."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from tf_mem_magic.core import units
from tf_mem_magic.notebook.rerun.replay import telling_line
from tf_mem_magic.views.actions import ReplayCell

Press = Callable[[], None]


def text(html: str, name: str = "") -> Any:
    """Show HTML."""
    import ipywidgets

    widget = ipywidgets.HTML(html)
    if name:
        widget.add_class(name)
    return widget


def button(label: str, tip: str, press: Press, *, accent: bool = False) -> Any:
    """Make a button that calls ``press``."""
    import ipywidgets

    widget = ipywidgets.Button(description=label, tooltip=tip, button_style="primary" if accent else "")
    widget.on_click(lambda _: press())
    return widget


def checkbox(label: str, tip: str, change: Press, *, ticked: bool = False) -> Any:
    """Make a box that calls ``change`` when it is ticked or cleared."""
    import ipywidgets

    widget = ipywidgets.Checkbox(value=ticked, description=_label(label), tooltip=tip, indent=False)
    widget.add_class("tfmem-tick")
    widget.observe(lambda _: change(), "value")
    return widget


def column(*children: Any, name: str = "") -> Any:
    """Stack widgets."""
    import ipywidgets

    widget = ipywidgets.VBox(children)
    if name:
        widget.add_class(name)
    return widget


def row(*children: Any, name: str = "tfmem-row") -> Any:
    """Put widgets side by side; they wrap where the page is narrow."""
    import ipywidgets

    widget = ipywidgets.HBox(children)
    widget.add_class(name)
    return widget


def side_by_side(*children: Any) -> Any:
    """Put folds beside one another; an open one takes the whole width."""
    return row(*children, name="tfmem-folds")


def folded(label: str, *children: Any, tip: str, bare: bool = False) -> Any:
    """Put widgets behind a toggle that the page itself opens, also while the kernel is busy.

    ``bare``: give the toggle and what it opens as two widgets, for a row that has a place for each.
    """
    import ipywidgets

    toggle = ipywidgets.ToggleButton(value=False, description=_label(label), tooltip=tip)
    toggle.add_class("tfmem-toggle")
    inside = column(*children, name="tfmem-folded")
    return (toggle, inside) if bare else column(toggle, inside)


def code_to_copy(source: str) -> Any:
    """Show code in a field from which it can be copied by hand."""
    import ipywidgets

    return ipywidgets.Textarea(source, layout={"width": "100%", "height": "140px"})


def output_area() -> Any:
    """Make the area for a run that cannot go to the cell."""
    import ipywidgets

    return ipywidgets.Output()


class Checklist:
    """The cells that a restart would replay, each with its tick, and the button that restarts."""

    def __init__(self, cells: tuple[ReplayCell, ...], restart: Press, cancel: Press) -> None:
        import ipywidgets

        self._cells = cells
        self._boxes: list[Any] = []
        self._go = button("", "Restart the kernel, run the ticked cells, then this one", restart, accent=True)
        rows = []
        for cell in cells:
            words = _label(telling_line(cell.source)[:100])
            box = ipywidgets.Checkbox(value=cell.ticked, description=words, indent=False)
            box.observe(lambda _: self._count(), "value")
            self._boxes.append(box)
            rows.append(row(box, text(_about(cell), "tfmem-beside")))
        self._count()
        words = "The notebook is saved and the kernel restarts: everything in its memory is lost. "
        words += "The ticked cells run first, then this one:" if cells else "Then this cell runs."
        foot = row(self._go, button("Cancel", "Do not restart", cancel))
        self.widget = column(text(words, "tfmem-head"), *rows, foot, name="tfmem-checklist")

    @property
    def ticked(self) -> tuple[str, ...]:
        """The ids of the ticked cells, in order."""
        return tuple(cell.cell_id for cell, box in zip(self._cells, self._boxes) if box.value)

    def _count(self) -> None:
        total = len(self.ticked) + 1
        self._go.description = f"Restart and run {'this cell' if total == 1 else f'these {total} cells'}"


def _about(cell: ReplayCell) -> str:
    took = "not timed" if cell.seconds is None else units.duration(cell.seconds)
    flags = "".join(f" <b>⚠ {escape(flag)}</b>" for flag in cell.flags)
    return f'<span class="tfmem-dim tfmem-took">{took}</span>{flags}'


def _label(words: str) -> str:
    """Give words for a label that older ipywidgets would read as HTML."""
    import ipywidgets

    return escape(words) if int(ipywidgets.__version__.split(".")[0]) < 8 else words


def fill(place: Any, *children: Any) -> None:
    """Put widgets into a column, and close those that it held."""
    old, place.children = place.children, children
    for widget in old:
        close_tree(widget)


def close_tree(widget: Any) -> None:
    """Close a widget with all that it holds, so that no comm stays open."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in ("layout", "style"):
        held: Any = getattr(widget, part, None)
        if hasattr(held, "close"):
            held.close()
    widget.close()
