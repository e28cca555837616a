"""Executes a notebook as a person's "run all" does, in a kernel of this Python, and goes on after errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "notebooks"


def run_notebook(notebook: NotebookNode, folder: Path, env: Mapping[str, str]) -> NotebookNode:
    """Execute ``notebook`` in ``folder``, with ``env`` added to the environment; its outputs are then in it."""
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    private = {"IPYTHONDIR": str(folder / "ipython"), "TFMEM_CACHE": str(folder / "cache")}
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **private, **env}
    client = NotebookClient(
        notebook, km=manager, timeout=600, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=everything, cleanup_kc=True)
    return notebook


def read_notebook(name: str) -> NotebookNode:
    """Read a notebook of the project."""
    return nbformat.read(NOTEBOOKS / name, as_version=4)


def errors_of(notebook: NotebookNode) -> dict[int, str]:
    """Give the last error that each cell shows, by the cell's place."""
    found = {}
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                found[place] = f"{output.ename}: {output.evalue}"
    return found


def run_acceptance(folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Run the acceptance notebook; give its ``rows`` by name, and the ``notebook`` with its outputs."""
    notebook = run_notebook(read_notebook("gpu_acceptance.ipynb"), folder, env)
    saved = json.loads((folder / "gpu_acceptance.json").read_text(encoding="utf-8"))
    return {"rows": {row["check"]: row for row in saved["rows"]}, "notebook": notebook}


def names(rows: Mapping[str, Mapping[str, str]], verdict: str) -> set[str]:
    """Give the names of the rows with that verdict."""
    return {name for name, row in rows.items() if row["verdict"] == verdict}


def failures(rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Give what was seen where a check failed."""
    return {name: rows[name]["seen"] for name in sorted(names(rows, "fail"))}
