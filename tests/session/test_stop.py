"""What becomes of a Stop around a cell."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest

from tf_mem_magic.session.stop import StopAtStart, interrupt_result


def test_a_cell_that_is_stopped_at_its_start_raises_where_its_code_begins():
    shell = SimpleNamespace(ast_transformers=[])
    transformer = StopAtStart(shell)
    transformer.install()
    module = transformer.visit(ast.parse("# comment\n\nx = 1"))
    with pytest.raises(KeyboardInterrupt) as caught:
        exec(compile(module, "<cell>", "exec"), {})
    assert (3, []) == (caught.traceback[-1].lineno + 1, shell.ast_transformers)


def test_a_cell_that_failed_keeps_its_own_error():
    error = ValueError()
    result = SimpleNamespace(error_before_exec=None, error_in_exec=error)
    interrupt_result(result, None, "why")
    assert error is result.error_in_exec
