"""The widget that stays open while panels come and go."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel

CELL = "%%tfmem\nimport numpy\nnumpy.zeros(1 << 50)"
CLOSED_BY_THE_USER = "import ipywidgets\nipywidgets.Widget.close_all()"


@pytest.mark.kernel
@pytest.mark.oldest
def test_from_the_first_panel_on_some_widget_is_always_open():
    """JupyterLab deletes its way to the kernel with the last one, and may use it for the next all the same."""
    with Kernel(allow_stdin=True) as kernel:
        kernel.run("%load_ext tf_mem_magic")
        ran = [kernel.run(cell, cell_id="again") for cell in (CELL, CELL, CLOSED_BY_THE_USER, CELL, CELL)]
    is_open, left = set(), []
    for kind, content in (message for one in ran for message in one.messages):
        if kind == "comm_open":
            is_open.add(content["comm_id"])
        elif kind == "comm_close":
            is_open.discard(content["comm_id"])
            left.append(len(is_open))
    assert len(left) > 50
    assert 1 == left.count(0)
