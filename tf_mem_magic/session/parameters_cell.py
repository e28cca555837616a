"""Cells of parameters, which papermill's users mark by a tag: what is given from outside is never edited unattended.

JupyterLab sends a cell's tags with the request that runs it; nbclient sends the source only, and papermill and
nbconvert run cells through nbclient. There the tags are read from the notebook's file: one that the command line of a
process above the kernel names, or that lies in or one folder below the folder of one of them. A cell is found by its
source, so another notebook's cell can only be taken for it where both say the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tf_mem_magic.notebook.rerun.parameters import changed_values, reads_any
from tf_mem_magic.views.slots import parent_tags

_PARAMETERS = frozenset({"parameters", "injected-parameters"})

_MOST_FILES = 200
"""Notebooks that are looked at, at most; those that a command line names come first."""

_MOST_ENTRIES = 1000

_MOST_BYTES = 64 * 2**20
"""A larger notebook is passed over."""


def is_parameters_cell(source: str, shell: Any) -> bool:
    """Tell whether papermill wrote the running cell, or its author tagged it for papermill.

    Parameters
    ----------
    source
        The whole cell as it was run, with its magics.
    shell
        IPython's shell, whose kernel holds the request that runs the cell.
    """
    return begins_as_parameters(source) or bool(_PARAMETERS & (parent_tags(shell) | tags_in_files(source)))


def begins_as_parameters(source: str) -> bool:
    """Tell whether the first line is the comment that papermill writes above what it injects."""
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.startswith("%%")]
    return bool(lines) and lines[0].lower() in ("# parameters", "# injected-parameters", "# injected parameters")


def tags_in_files(source: str) -> frozenset[str]:
    """Give the tags of the cells with this source in the notebooks that may be the one that runs."""
    wanted = _plain(source)
    found = (_tags_in(path, wanted) for path in islice(notebook_files(), _MOST_FILES))
    return frozenset().union(*found)


def notebook_files() -> Iterator[Path]:
    """Give the notebooks that may be the one that runs, each once, the likeliest first."""
    seen = set()
    for path in _candidates():
        try:
            resolved = path.resolve()
            known = resolved in seen or not resolved.is_file()
        except OSError:
            continue
        if not known:
            seen.add(resolved)
            yield resolved


def named_notebooks() -> tuple[Path, ...]:
    """Give the notebooks that the command line of a process above this one names and that are there."""
    found = (path.resolve() for path in _named(list(_processes_above())) if path.is_file())
    return tuple(dict.fromkeys(found))


def _named(above: list[tuple[list[Path], list[str]]]) -> Iterator[Path]:
    folders = list(dict.fromkeys(folder for folders, _ in above for folder in folders))
    for _, arguments in above:
        # papermill moves to the folder of its --cwd, so an argument may be relative to the folder it was started in.
        yield from (folder / argument for argument in arguments if argument.endswith(".ipynb") for folder in folders)


def _candidates() -> Iterator[Path]:
    above = list(_processes_above())
    folders = list(dict.fromkeys(folder for folders, _ in above for folder in folders))
    yield from _named(above)
    for folder in dict.fromkeys((Path.cwd(), *folders)):
        entries = _entries(folder)
        yield from (path for path in entries if path.suffix == ".ipynb")
        for below in entries:
            if not below.name.startswith(".") and below.is_dir():
                yield from (path for path in _entries(below) if path.suffix == ".ipynb")


def _entries(folder: Path) -> list[Path]:
    """List what a folder holds, sorted; of one with very much in it, only as much as is quick to look at."""
    try:
        with os.scandir(folder) as found:
            return sorted(Path(entry.path) for entry in islice(found, _MOST_ENTRIES))
    except OSError:
        return []


def _processes_above() -> Iterator[tuple[list[Path], list[str]]]:
    """Give the folders (where it is and where it was started) and the command line of each process above this one.

    Only those that speak of Python or Jupyter count: a terminal or the system's first process may run in ``/``.
    """
    import psutil

    try:
        parents = psutil.Process().parents()
    except psutil.Error:
        return
    for parent in parents:
        try:
            arguments, folders = parent.cmdline(), [Path(parent.cwd())]
            folders += [Path(started) for started in [parent.environ().get("PWD")] if started]
        except (psutil.Error, OSError):
            continue
        if any(word in argument for argument in arguments[:2] for word in ("python", "jupyter", "papermill")):
            yield folders, arguments


def _tags_in(path: Path, wanted: str) -> frozenset[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return frozenset()
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        same = [cell for cell in cells if _plain(cell.get("source", "")) == wanted]
        return frozenset(str(tag) for cell in same for tag in cell.get("metadata", {}).get("tags", ()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return frozenset()  # not a notebook as the format describes it


def _plain(source: str | list[str]) -> str:
    text = source if isinstance(source, str) else "".join(source)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def changed_parameters(original: str, source: str, earlier: Sequence[str] = ()) -> tuple[str, ...]:
    """Say which numbers and texts a changed cell sets otherwise, where cells after it read them or may do so.

    The notebook keeps the old cell, and what it calls a batch size is no more what the later cells get. ``earlier`` are
    the sources of the cells that ran before it.
    """
    changed = changed_values(original, source, earlier)
    later = later_cells(original) if changed else None
    said = []
    for one in changed:
        value = f"`{one.name}` was {one.before} and is {one.after} now"
        if later is None:
            said.append(f"{value}, also for cells after this one.")
        elif reads_any(one.root, later, (*earlier, source)):
            said.append(f"{value}, and cells after this one read it.")
    return tuple(said)


def later_cells(source: str) -> tuple[str, ...] | None:
    """Give the code cells after the one with this source in the notebook that may be the one that runs; None: none."""
    wanted = _plain(source)
    for path in islice(notebook_files(), _MOST_FILES):
        cells = _code_cells(path)
        place = next((i for i, cell in enumerate(cells) if _plain(cell) == wanted), None)
        if place is not None:
            return tuple(cells[place + 1 :])
    return None


def _code_cells(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return []
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        return ["".join(one) if isinstance(one, list) else str(one) for one in sources]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
