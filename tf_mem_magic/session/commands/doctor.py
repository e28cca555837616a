"""``%tfmem doctor``: what this environment can measure and do, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from tf_mem_magic.core import troubles

if TYPE_CHECKING:
    from tf_mem_magic.session.session import Session

PACKAGES = (
    "tf_mem_magic tensorflow tensorflow-cpu keras IPython ipykernel ipywidgets anywidget matplotlib "
    "nvidia-ml-py psutil jupyterlab notebook"
).split()


def doctor_text(session: Session) -> str:
    """Give versions, sources, the page's abilities and the cache folder, a line each."""
    from tf_mem_magic.facts.gather import ENVIRONMENT
    from tf_mem_magic.views.slots import can_show, is_attended

    lines = [f"✓ Python {platform.python_version()} on {platform.system()}"]
    lines += [f"✓ {name} {version}" for name in PACKAGES if (version := _version(name))]
    if not any(_version(name) for name in ("tensorflow", "tensorflow-cpu")) and "tensorflow" not in sys.modules:
        lines.append("✗ TensorFlow is not installed: cells are recorded, but only host memory and NVML's figures")
    session.pool.refresh(at_once=True)
    sources, missing = session.pool.sources, session.pool.missing()
    lines += [f"✓ {source.source.name}: {', '.join(source.read()) or 'no values yet'}" for source in sources]
    lines += [f"✗ {entry.name}: {entry.reason}" for entry in missing]
    lines.append(_recordings())
    if not can_show(session.shell):
        lines.append("✗ no page: reports are printed as text, remedies run by last_report().rerun(KEY)")
    elif not is_attended(session.shell):
        lines.append("✗ nobody can click here (the notebook is executed unattended): reports are static")
    else:
        lines.append("✓ a page is attached: panels with buttons appear")
    lines += [f"  {name}={os.environ[name]}" for name in ENVIRONMENT if name in os.environ]
    if found := troubles.since():
        lines += ["what went wrong in tf_mem_magic so far:", *(f"  {sentence}" for sentence in found)]
    return "\n".join(lines)


def _recordings() -> str:
    from tf_mem_magic.record.store.folder import candidate_folders, make_private

    for folder in candidate_folders():
        try:
            make_private(folder)
        except OSError:
            continue
        return f"✓ recordings are kept in {folder}"
    return "✗ no folder for recordings can be written: nothing is left of a kernel that dies"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
