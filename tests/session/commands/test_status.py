"""``%tfmem status``: what no name holds, what grew from cell to cell, what was traced again and again."""

from __future__ import annotations

from types import SimpleNamespace

from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.session.commands.growth import Growth
from tf_mem_magic.session.commands.status import growing, table, traced_often, unnamed

MIB = 1 << 20


def facts(cache=0):
    values = (NamedValue("cache", cache * MIB, "tf.Tensor", "GPU:0"), NamedValue("x", 90 * MIB, "numpy.ndarray"))
    models = (ModelFacts("model", weight_bytes=20 * MIB, optimizer_bytes=40 * MIB, device="GPU:0"),)
    return Facts(values=values, models=models)


def test_what_is_in_use_on_a_device_beyond_all_names_is_a_line():
    assert unnamed(facts(30), {"GPU:0": 100 * MIB, "GPU:1": 0}) == [
        "no name holds 10.0 MiB of GPU:0: %tfmem free collects what nothing needs."
    ]
    assert unnamed(facts(40), {"GPU:0": 100 * MIB}) == []


def test_what_grew_from_cell_to_cell_is_listed_by_name_with_its_levels():
    session = SimpleNamespace(growth=Growth())
    assert growing(session, facts(30)) == []
    for cache in (10, 20):
        session.growth.note(Recording(Cell("step()"), facts=facts(cache)))
    assert growing(session, facts(30)) == ["grew from cell to cell:", "  cache: 10.0 → 20.0 → 30.0 MiB"]


def test_names_and_sizes_stand_in_columns():
    lines = table([("cache", 30 * MIB, "tf.Tensor"), ("a_longer_name", 5, "numpy.ndarray"), ("x", 1023 * MIB, "list")])
    assert lines == [
        "  cache            30.0 MiB  tf.Tensor",
        "  a_longer_name         5 B  numpy.ndarray",
        "  x                 1.0 GiB  list",
    ]


def test_without_tensorflow_nothing_was_traced():
    assert traced_often({"f": len, "x": [1]}) == []
