"""A plan in words: the headline, whether it fits, the table as text and as HTML."""

import dataclasses
import re
from html.parser import HTMLParser

from tests.diagnose.planning.test_plan import AHEAD, WEIGHTS, here
from tf_mem_magic.diagnose.planning.plan import make_plan
from tf_mem_magic.report.html.plan import plan_html
from tf_mem_magic.report.plan import fits_here, headline, plan_text

MIB = 1 << 20
PLAN = make_plan(AHEAD, [here(40 * MIB, 4 * MIB)])


def test_the_headline_tells_the_range_and_what_is_not_made_yet():
    told = headline(PLAN)
    assert "a peak of" in told
    assert f"Adam's values {3 * WEIGHTS / MIB:.2g}" in told.replace(".0 MiB", " MiB").replace("2.2 ", "2.2")
    assert "not made yet" in told


def test_it_says_whether_it_fits_and_beside_what():
    assert fits_here(PLAN) == "It fits GPU:0, 40.0 MiB beside 4.0 MiB that other things hold."
    assert fits_here(make_plan(AHEAD, [here(WEIGHTS)])).startswith("It does not fit")
    assert fits_here(make_plan(AHEAD, [])) == ""
    low, high = PLAN.rows[0].low, PLAN.rows[0].high
    assert fits_here(make_plan(AHEAD, [here((low + high) // 2)])).startswith("It may not fit")


def test_of_a_step_that_xla_compiles_it_is_not_claimed_that_it_fits():
    compiled = make_plan(dataclasses.replace(AHEAD, jit=True), [here(40 * MIB)])
    assert fits_here(compiled) == "Without XLA it fits GPU:0, 40.0 MiB."


def test_the_table_has_a_line_for_each_way_with_its_columns_in_line():
    lines = plan_text(PLAN).splitlines()
    start = next(i for i, line in enumerate(lines) if "largest batch that fits" in line)
    head, rows = lines[start + 1], lines[start + 2 : start + 2 + len(PLAN.rows)]
    assert [row.split("  ")[0] for row in rows] == [row.name for row in PLAN.rows]
    assert head.split()[-2:] == ["80", "GB"]
    assert len({len(line) for line in (head, *rows)}) == 1


class Table(HTMLParser):
    def __init__(self):
        super().__init__()
        self.scopes, self.cells = [], 0

    def handle_starttag(self, tag, attrs):
        if tag == "th":
            self.scopes.append(dict(attrs)["scope"])
        self.cells += tag == "td"


def test_the_html_table_names_its_columns_and_rows_for_those_who_hear_it():
    table = Table()
    table.feed(plan_html(PLAN))
    assert table.scopes.count("col") == 2 + len(PLAN.places)
    assert table.scopes.count("row") == len(PLAN.rows)
    assert "colgroup" in table.scopes


def test_a_table_that_is_scrolled_is_reached_by_the_keyboard_and_has_a_name():
    assert re.search(r'overflow-x:auto" tabindex="0" role="region" aria-label="Ways to train', plan_html(PLAN))


def test_the_bars_are_no_words_and_the_longest_is_the_highest_peak():
    html = plan_html(PLAN)
    widths = [
        int(low) + int(high)
        for low, high in re.findall(r"width:(\d+)%;background[^>]*></span><span[^>]*width:(\d+)%", html)
    ]
    assert len(widths) == len(PLAN.rows) == html.count('aria-hidden="true"')
    assert max(widths) == widths[0] == 100


def test_a_name_that_looks_like_html_stays_text():
    plan = dataclasses.replace(PLAN, ahead=dataclasses.replace(AHEAD, model="models['<b>']"))
    assert "<b>']" not in plan_html(plan)


def test_where_the_batch_does_not_matter_any_fits():
    assert " any " in plan_text(make_plan(dataclasses.replace(AHEAD, steps=(AHEAD.steps[0],) * 2, data=0), [])) + " "
