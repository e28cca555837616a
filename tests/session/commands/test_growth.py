"""What grows from cell to cell, by name, before anything fails."""

from __future__ import annotations

from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.session.commands.growth import Growth, words

MIB = 1 << 20


def facts(**held):
    return Facts(values=tuple(NamedValue(name, size * MIB, "tf.Tensor", "GPU:0") for name, size in held.items()))


def after(*runs, source="step()"):
    growth = Growth()
    for run in runs:
        growth.note(Recording(Cell(source), facts=run))
    return growth


def test_a_name_that_holds_more_after_each_cell_is_told_with_its_levels():
    found = after(facts(cache=12, x=5), facts(cache=24, x=5)).grown(facts(cache=36, x=5))
    assert words(found) == ("cache: 12.0 → 24.0 → 36.0 MiB",)


def test_what_grew_once_or_shrank_between_is_not_said_to_grow():
    assert after(facts(cache=12)).grown(facts(cache=36)) == ()
    assert after(facts(cache=30), facts(cache=12)).grown(facts(cache=36)) == ()
    assert after(facts(cache=12), facts(x=1)).grown(facts(cache=36)) == ()


def test_cells_that_leave_a_name_as_it_is_do_not_break_its_growth():
    found = after(facts(cache=12), facts(cache=24), facts(cache=24)).grown(facts(cache=36))
    assert [name for name, _ in found] == ["cache"]


def test_the_entries_of_a_list_are_one_name():
    def models(count):
        return Facts(models=tuple(ModelFacts(f"models[{i}]", weight_bytes=4 * MIB) for i in range(count)))

    assert words(after(models(1), models(2)).grown(models(3))) == ("models: 4.0 → 8.0 → 12.0 MiB",)


def test_it_is_told_unasked_only_where_it_matters():
    series = (Series("allocator:GPU:0", (0.0,), (MIB,), MIB, "counter", 1000 * MIB),)
    growth = after(facts(cache=100), facts(cache=200))
    told = growth.notice(Recording(Cell("step()"), series=series, facts=facts(cache=300)))
    assert told == ("Grows from cell to cell: cache: 100 → 200 → 300 MiB.",)
    little = after(facts(cache=10), facts(cache=12))
    assert little.notice(Recording(Cell("step()"), series=series, facts=facts(cache=14))) == ()


def test_the_run_before_counts_as_the_previous_one_only_with_the_same_text():
    growth = after(facts(cache=1))
    assert growth.previous(Recording(Cell("step()\n"))) is not None
    assert growth.previous(Recording(Cell("other()"))) is None
    assert Growth().previous(Recording(Cell("step()"))) is None
