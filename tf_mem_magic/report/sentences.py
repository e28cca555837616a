"""What a person reads about a run, as plain sentences. Text, HTML, figure and panel all take their words from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Dump, Series
from tf_mem_magic.core.units import Unit, brief_unit
from tf_mem_magic.diagnose.breakdown import deployable
from tf_mem_magic.diagnose.explanation import needed, progress
from tf_mem_magic.report import comparison_words as rerun
from tf_mem_magic.report.comparison_words import MARKS, STATUS_WORDS
from tf_mem_magic.report.measures import amount, capital, focus, limit_of, of_limit, peak_words, took, unit_of
from tf_mem_magic.report.printable import visible

PART_WORDS: dict[str, str] = {
    "weights": "weights",
    "optimizer": "optimizer",
    "values": "named values",
    "arrays": "arrays copied whole",
    "earlier": "earlier cells",
    "garbage": "garbage of this cell",
    "inputs": "input batches",
    "activations": "activations",
    "gradients": "gradients",
    "updates": "optimizer's temporaries",
    "workspace": "kernels' workspace",
    "rounding": "rounding by the allocator",
    "other": "activations and temporaries",
}

_OF_CARDS = ("nvml", "device:", "process:")
_HOST_REST = "the rest of this process: Python, libraries, data"

FIRST_HEADING = "Changes"
"""Heads the changes after a first run; where buttons stand below, they say the same."""

_SMALL = 0.02
"""Share of the bytes in use below which a part of a step, or a layer, is not named by itself."""

SHORT = 0.5
"""Seconds below which a run that went well has no timeline to speak of."""


def mark(outcome: Outcome) -> str:
    """Give the sign of the outcome: ✓, ✗ or ●."""
    if outcome.comparison is not None and not outcome.comparison.trained:
        return MARKS["interrupted"]
    return MARKS[outcome.recording.status]


def is_quiet(outcome: Outcome) -> bool:
    """Tell whether one line says it all: nothing ran out of memory and nothing is compared."""
    return outcome.comparison is None and outcome.recording.status in ("ok", "error", "interrupted")


def has_timeline(outcome: Outcome) -> bool:
    """Tell whether the memory's course is worth drawing; a cell that went well in no time has none to speak of."""
    return not is_quiet(outcome) or outcome.recording.seconds >= SHORT


def headline(outcome: Outcome) -> str:
    """Say in one line what happened."""
    recording, diagnosis = outcome.recording, outcome.diagnosis
    time = took(recording.seconds)
    if outcome.comparison is not None:
        return rerun.headline(outcome)
    if recording.status in ("oom", "killed") and diagnosis is not None and diagnosis.text:
        return diagnosis.text.splitlines()[0].removesuffix(".")
    if recording.status == "oom":
        where = diagnosis.device if diagnosis else None
        place = {None: "", "host": " on the host"}.get(where, f" on {where}")
        return f"Out of memory{place} after {time}{progress(outcome.recording.facts)}"
    if recording.status == "killed":
        return f"The kernel died after {time}{'; it had run out of memory' if diagnosis else ''}"
    if recording.status == "error":
        return f"{rerun.error_name(outcome)} after {time}, not an out-of-memory error; {_peak(outcome)}"
    if recording.status == "interrupted":
        return f"Interrupted after {time}{progress(outcome.recording.facts)}; {_peak(outcome)}"
    return f"{time}, {_peak(outcome)}"


def _peak(outcome: Outcome) -> str:
    main = focus(outcome)
    return peak_words(main, unit_of(outcome), limit_of(outcome)) if main else "memory was not measured"


def place(outcome: Outcome) -> tuple[str, str]:
    """Say where in the user's code it happened, as words and the line of code; both empty where unknown."""
    diagnosis = outcome.diagnosis
    if diagnosis is None:
        return ("", "")
    if diagnosis.text:
        told = diagnosis.text.splitlines()
        between = told[1 : len(told) - len(diagnosis.detail.splitlines())] if diagnosis.detail else told[1:2]
        words, _, code = " ".join(between).partition(": ")
        return (_own_line(words.removesuffix(".")), code)
    if diagnosis.line is None:
        return ("", "")
    lines = outcome.recording.cell.source.splitlines()
    code = lines[diagnosis.line - 1].strip() if 0 < diagnosis.line <= len(lines) else ""
    script = outcome.recording.cell.script
    return (f"Line {diagnosis.line} of {script}" if script else f"Line {diagnosis.line}", code)


def _own_line(words: str) -> str:
    """Say only the line where it stands in the cell below which the report does: that is the cell that is meant."""
    line = words.removesuffix(" of your cell")
    return line if "," not in line and not line.startswith("called") else words


def paragraph(outcome: Outcome) -> str:
    """Say what was needed and why there was no room: the diagnosis' own sentences, else what its numbers say."""
    diagnosis = outcome.diagnosis
    if diagnosis is None:
        return ""
    if diagnosis.detail:
        return " ".join(diagnosis.detail.splitlines())
    return needed(diagnosis)


def neighbours(outcome: Outcome) -> tuple[str, ...]:
    """Name the other processes on the device that ran out, where the paragraph has not done so."""
    diagnosis = outcome.diagnosis
    device = outcome.recording.facts.device(diagnosis.device) if diagnosis else None
    told = diagnosis is not None and diagnosis.detail and diagnosis.cause == "other-process"
    if device is None or not device.others or told:
        return ()
    known = [other.bytes for other in device.others if other.bytes is not None]
    unit = brief_unit(known)
    return tuple(
        f"pid {other.pid}{f' ({other.user})' if other.user else ''} holds "
        f"{amount(other.bytes, unit) if other.bytes is not None else 'an unknown amount'} of {device.name}"
        for other in device.others
    )


@dataclass(frozen=True, slots=True)
class Share:
    """One part of the breakdown in words: ``fraction`` is 0–1 of what was in use."""

    kind: str
    label: str
    amount: str
    basis: str
    fraction: float


def breakdown_heading(outcome: Outcome) -> str:
    """Head the breakdown: ``"What filled the 14.2 GiB in use on GPU:0"``."""
    diagnosis = outcome.diagnosis
    total = sum(part.bytes for part in diagnosis.breakdown) if diagnosis else 0
    where = diagnosis.device if diagnosis else ""
    return f"What filled the {amount(total, unit_of(outcome))} in use on {'the host' if where == 'host' else where}"


def breakdown(outcome: Outcome) -> tuple[Share, ...]:
    """Give what filled the memory, largest first; empty without a diagnosis."""
    parts = outcome.diagnosis.breakdown if outcome.diagnosis else ()
    total = sum(part.bytes for part in parts)
    if total <= 0:
        return ()
    on_host = outcome.diagnosis is not None and outcome.diagnosis.device == "host"
    unit = unit_of(outcome)
    ranked = sorted((part for part in parts if part.bytes > 0), key=lambda part: -part.bytes)
    is_known = any(part.kind in ("activations", "gradients", "updates") for part in parts)
    small = [part for part in ranked if is_known and part.bytes < _SMALL * total]
    shown = ranked if len(small) < 2 else [part for part in ranked if part not in small]
    shares = [
        Share(part.kind, _part_label(part, on_host, is_known), amount(part.bytes, unit), part.basis, part.bytes / total)
        for part in shown
    ]
    if len(shown) < len(ranked):
        rest = sum(part.bytes for part in small)
        names = ", ".join(PART_WORDS.get(part.kind, part.kind) for part in small)
        shares.append(Share("other", "small parts", amount(rest, unit), names, rest / total))
    return tuple(shares)


def largest_layers(outcome: Outcome) -> str:
    """Name the three layers that the step held most for; empty where that is not known or they are trifles."""
    diagnosis = outcome.diagnosis
    if diagnosis is None or not diagnosis.layers or not diagnosis.in_use:
        return ""
    by_layer: dict[str, int] = {}
    for row in diagnosis.layers:
        if row.layer:
            by_layer[row.layer] = by_layer.get(row.layer, 0) + row.bytes
    ranked = sorted(by_layer.items(), key=lambda entry: -entry[1])[:3]
    worth = [f"`{name}` {amount(held, unit_of(outcome))}" for name, held in ranked if held >= _SMALL * diagnosis.in_use]
    return f"Largest layers: {', '.join(worth)}." if worth else ""


def _part_label(part: Part, on_host: bool, is_known: bool) -> str:
    if on_host and part.kind == "other":
        return _HOST_REST
    if part.kind == "other" and is_known:
        return "not explained"
    label = PART_WORDS.get(part.kind, part.kind)
    if not part.names or (len(part.names) == 1 and part.kind in ("weights", "optimizer")):
        return label
    names = _grouped(part.names)
    return f"{label}: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _grouped(names: Sequence[str]) -> list[str]:
    """Name a list or dict once where several of its entries are meant: ``results (4)``."""
    roots = [name.partition("[")[0] if "[" in name and not name.startswith("Out[") else name for name in names]
    found: dict[str, str] = {}
    for root, name in zip(roots, names):
        count = roots.count(root)
        found.setdefault(root, name if count == 1 else f"{root} ({count})")
    return list(found.values())


def left_behind(outcome: Outcome) -> str:
    """Say what the run left in memory: ``"+0.2 GiB left behind: model, history"``; empty where nothing."""
    leftovers = [(name, held) for name, held in outcome.leftovers if held > 0]
    if not leftovers:
        return ""
    names = _grouped([name for name, _ in leftovers])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"+{amount(sum(held for _, held in leftovers))} left behind: {', '.join(names[:5])}{more}"


def new_cell_heading(outcome: Outcome) -> str:
    """Head the proposals that are cells of their own; empty where there are none."""
    if not outcome.new_cells:
        return ""
    if outcome.recording.status != "ok":
        return "Or run another cell: this one stays as it is"
    models = deployable(outcome.recording)
    return f"Make {f'`{models[0].name}`' if len(models) == 1 else 'a model'} smaller for deployment"


def changes_heading(outcome: Outcome) -> str:
    """Head the changes to the cell that are offered after a run that did not end well."""
    if any(proposal.instead_of for proposal in outcome.edits):
        return "Try another change in its place"
    return "Try the next" if outcome.comparison is not None else FIRST_HEADING


def further_heading(outcome: Outcome) -> str:
    """Head what else could be changed after a rerun that fitted; empty where there is nothing."""
    count = len(outcome.further)
    return f"More room, or another change: {count} {'choice' if count == 1 else 'choices'}" if count else ""


def further_groups(outcome: Outcome) -> tuple[tuple[str, tuple[Proposal, ...]], ...]:
    """Give what else could be changed, with a heading each: on top of the remedy that fitted, and in its place."""
    on_top = tuple(p for p in outcome.further if not p.instead_of)
    instead = tuple(p for p in outcome.further if p.instead_of)
    groups = (("On top of this change, for more room", on_top), ("In place of this change", instead))
    return tuple(group for group in groups if group[1])


def other_peaks(outcome: Outcome) -> tuple[str, ...]:
    """Say the peaks of the series that the headline does not speak about."""
    main = focus(outcome)
    return tuple(
        peak_words(series)
        for series in outcome.recording.series
        if series.peak is not None and (main is None or series.name != main.name)
    )


def notes(outcome: Outcome) -> tuple[str, ...]:
    """Give the remarks that belong nowhere else: notices, then sources of numbers that were missing.

    A machine without a card misses nothing: its driver's numbers are then no remark.
    """
    recording = outcome.recording
    has_card = any((series.device or "").startswith("GPU") for series in recording.series)
    missing = (m for m in recording.missing if has_card or not m.name.lower().startswith(_OF_CARDS))
    return (*outcome.notices, *(f"{source.name}: {source.reason}" for source in missing))


def dump_summary(dump: Dump) -> str:
    """Say what an allocator's dump tells as a whole."""
    sizes = [value for value in (dump.in_use, dump.limit, dump.pool, dump.largest_free) if value is not None]
    unit = brief_unit(sizes)
    parts = [
        f"{of_limit(dump.in_use, dump.limit, unit)} in use" if dump.in_use is not None else "",
        f"pool {amount(dump.pool, unit)}" if dump.pool is not None else "",
        f"largest free chunk {amount(dump.largest_free, unit)}" if dump.largest_free is not None else "",
        f"fragmentation {100 * dump.fragmentation:.0f} %" if dump.fragmentation is not None else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f"{dump.allocator}: {said}" if said else dump.allocator


def one_line(outcome: Outcome) -> str:
    """Give the whole outcome in one line, as the always-on mode shows it."""
    parts = [f"{mark(outcome)} {headline(outcome)}", rerun.result(outcome)]
    if outcome.comparison is None and not is_quiet(outcome) and focus(outcome) is not None:
        parts.append(_peak(outcome))
    parts.append(left_behind(outcome))
    return "   ".join(" ".join(visible(part).split()) for part in parts if part)


def describe(outcome: Outcome) -> str:
    """Describe the timeline in words, for those who cannot see the picture."""
    comparison, unit = outcome.comparison, unit_of(outcome)
    if comparison is not None and comparison.before is not None and comparison.after is not None:
        limit = limit_of(outcome)
        return (
            f"Timelines before and after {comparison.title or 'the change'}. "
            f"Before ({STATUS_WORDS[comparison.status_before]}): {_course(comparison.before, unit, limit)}. "
            f"After ({STATUS_WORDS[comparison.status_after]}): {_course(comparison.after, unit, limit)}."
        )
    recording, main = outcome.recording, focus(outcome)
    if main is None:
        return f"No timeline: memory was not measured in the {took(recording.seconds)} of the run."
    lines = [f"Timeline over {took(recording.seconds)}", _course(main, unit, limit_of(outcome))]
    lines += [_course(series, None, None) for series in recording.series if series.name != main.name]
    diagnosis = outcome.diagnosis
    if diagnosis is not None and diagnosis.requested is not None:
        lines.append(f"a request for {amount(diagnosis.requested, unit)} more failed at the end")
    return ". ".join(map(capital, lines)) + "."


def _course(series: Series, unit: Unit | None, limit: int | None) -> str:
    words = peak_words(series, unit, limit)
    if not series.values:
        return f"{words}, no samples"
    unit = unit or brief_unit([series.peak or 0, series.limit or 0])
    return f"{words}, from {amount(series.values[0], unit)} to {amount(series.values[-1], unit)}"
