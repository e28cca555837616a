"""A plan as text: the peak to expect, and the largest batch that fits, in a table."""

from __future__ import annotations

from tf_mem_magic.core.units import Unit, brief_unit, duration, size, size_range
from tf_mem_magic.diagnose.planning.plan import MOST
from tf_mem_magic.diagnose.planning.values import Place, Plan, Row

HEAD = "largest batch that fits"


def headline(plan: Plan) -> str:
    """Say what is expected: the peak, where it is from, and what stands however small the batch is."""
    ahead, row = plan.ahead, plan.rows[0]
    unit = unit_of(plan)
    kept = ahead.weights + ahead.slots
    later = f", {size(kept - ahead.made, unit)} of it not made yet" if kept - ahead.made > kept // 100 else ""
    values = f" and {ahead.optimizer}'s values" if ahead.optimizer else ""
    beside = f"weights{values} {size(kept, unit)}{later}"
    return (
        f"{ahead.model}.fit at batch {plan.batch} ({ahead.batch_from}): a peak of {size_range(row.low, row.high, unit)}"
        f" is expected; {beside}."
    )


def basis(plan: Plan) -> str:
    """Say how the numbers are known."""
    return (
        f"From the operations of its own training step, traced in {duration(plan.seconds)}; nothing was run. "
        "The batches are those for which the upper end fits."
    )


def fits_here(plan: Plan) -> str:
    """Say whether training as it is fits this process's device; empty where its size is not known."""
    place = plan.places[0]
    if not place.here:
        return ""
    row, unit = plan.rows[0], unit_of(plan)
    room = place.limit - place.taken
    beside = f" beside {size(place.taken, unit)} that other things hold" if place.taken > place.limit // 100 else ""
    told = f"{place.name}, {size(place.limit, unit)}{beside}"
    how = "fits" if row.high <= room else "does not fit" if row.low > room else "may not fit"
    # What XLA makes of the step is another program, of which the numbers do not tell.
    return f"{'Without XLA it' if plan.ahead.jit else 'It'} {how} {told}."


def heads(plan: Plan) -> tuple[str, ...]:
    """Give the heads of the table's columns."""
    return ("", f"peak at {plan.batch}", *(_place(place, unit_of(plan)) for place in plan.places))


def cells(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Give the rows of the table as words."""
    unit = unit_of(plan)
    return tuple((row.name, size_range(row.low, row.high, unit), *map(_batch, row.batches)) for row in plan.rows)


def plan_text(plan: Plan) -> str:
    """Give a plan as lines of text with a table of columns."""
    rows = [heads(plan), *cells(plan)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(_set(cell, widths[i], i) for i, cell in enumerate(row)).rstrip() for row in rows]
    over = " " * (sum(widths[:2]) + 4) + HEAD
    return "\n".join([headline(plan), *filter(None, [fits_here(plan)]), "", over, *table, "", basis(plan), *plan.notes])


def unit_of(plan: Plan) -> Unit:
    """Choose the unit in which all of a plan's peaks are told."""
    return brief_unit([row.high for row in plan.rows])


def is_tight(plan: Plan, row: Row) -> bool:
    """Whether a row's upper end is over what this process's device has."""
    place = plan.places[0]
    return place.here and row.high > place.limit - place.taken


def _place(place: Place, unit: Unit) -> str:
    return f"here, {size(place.limit, brief_unit([place.limit]))}" if place.here else place.name


def _batch(batch: int) -> str:
    return "none" if not batch else "any" if batch >= MOST else str(batch)


def _set(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)
