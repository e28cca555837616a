"""The options of ``%%tfmem`` and ``%tfmem``: one parser each, from which the help texts come too."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from tf_mem_magic.core.units import parse_size

Keep = Literal["same-results", "effective-batch", "any"]
"""What remedies that are applied without a click must not change."""

DEFAULT_INTERVAL = 0.01
"""Seconds between samples: 10 ms costs nothing measurable and misses little (the peak itself is a counter)."""


DEFAULT_HOST_STOP = 95
"""Percent of the host's memory limit at which a cell is interrupted: near enough that nothing else would have done."""


class OptionError(ValueError):
    """A bad option; its text is one line for the user."""


class HelpRequestedError(Exception):
    """``-h`` was given; the text is the help."""


_UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<option>-\S+)|invalid choice: '(?P<choice>[^']*)' \(choose from (?P<all>.*)\)"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        found = _UNKNOWN.search(message)
        if found:
            known = self._option_string_actions if found["option"] else re.findall(r"[\w-]+", found["all"])
            meant = nearest(found["option"] or found["choice"], known)
            message += f"; did you mean {meant}?" if meant else "."
            raise OptionError(f"{self.prog}: {message} {self.prog} -h lists what it takes.")
        raise OptionError(f"{self.prog}: {message}. {self.prog} -h lists what it takes.")

    def print_help(self, file: object = None) -> None:
        raise HelpRequestedError(self.format_help())


@dataclass(frozen=True, slots=True)
class Options:
    """What the ``%%tfmem`` line asks for; see ``%%tfmem -h``."""

    output: str | None = None
    interval: float = DEFAULT_INTERVAL
    on_oom: str = "panel"
    keep_frames: bool = False
    keep_weights: bool = False
    live: bool = True
    quiet: bool = False
    save: str | None = None
    keep: Keep = "effective-batch"
    max_tries: int = 4
    max_minutes: float = 24 * 60.0
    host_stop: int = DEFAULT_HOST_STOP
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What a ``%tfmem`` line asks for: a ``verb`` and its arguments (``size`` in bytes)."""

    verb: str
    names: tuple[str, ...] = ()
    size: int | None = None
    count: int = 1
    everything: bool = False
    forget: bool = False
    skip: bool = False
    batch: int | None = None
    shape: tuple[int, ...] = ()


def nearest(word: str, known: Iterable[str]) -> str:
    """Give what was probably meant by a word that is not among the known ones; empty where nothing is near."""
    return next(iter(difflib.get_close_matches(word, list(known), 1, 0.6)), "")


def asks_for_help(line: str) -> bool:
    """Tell whether the words after ``%%tfmem`` ask for help: then the cell is not run."""
    return bool({"-h", "--help"} & set(line.split()))


def cell_parser() -> argparse.ArgumentParser:
    """Make the parser of the ``%%tfmem`` line."""
    parser = _Parser(
        prog="%%tfmem",
        description="Run the cell as it is, record its memory, and explain it when it runs out.",
        add_help=True,
    )
    parser.add_argument("-o", dest="output", metavar="NAME", type=_identifier, help="store the Report in NAME")
    parser.add_argument(
        "-i", dest="interval", metavar="SECONDS", type=_interval, default=DEFAULT_INTERVAL,
        help="time between samples (default %(default)s; it stretches by itself where sampling would cost too much)",
    )  # fmt: skip
    parser.add_argument(
        "--on-oom", dest="on_oom", choices=("panel", "auto", "raise"), default="panel",
        help="what to do when memory runs out: offer remedies in a panel (default), apply them without a click (auto),"
        " or only report (raise). The variable TFMEM_ON_OOM sets it from outside, other options behind it included",
    )  # fmt: skip
    parser.add_argument(
        "--keep", choices=("same-results", "effective-batch", "any"), default="effective-batch",
        help="what auto must not change: the results, the effective batch (default), or nothing",
    )  # fmt: skip
    parser.add_argument("--max-tries", type=_count, default=4, metavar="N", help="reruns that auto may try (default 4)")
    parser.add_argument(
        "--max-minutes", type=_minutes, default=24 * 60.0, metavar="M", help="time after which auto tries no more"
    )
    parser.add_argument(
        "--keep-frames", action="store_true",
        help="keep the failed run's local variables for %%debug; their memory stays taken",
    )  # fmt: skip
    parser.add_argument(
        "--keep-weights", action="store_true",
        help="keep copies of earlier models' weights in host memory, so that a failed training can start again",
    )  # fmt: skip
    parser.add_argument(
        "--host-stop", dest="host_stop", metavar="PERCENT", type=_percent, default=DEFAULT_HOST_STOP,
        help="interrupt the cell at this share of the host memory it may use (default %(default)s), before the system"
        " kills the kernel; off: never",
    )  # fmt: skip
    parser.add_argument(
        "--trace", action="store_true",
        help="also watch two or three training steps allocation by allocation: an exact timeline by layer. TensorFlow's"
        " profiler runs for that long, which slows these steps",
    )  # fmt: skip
    parser.add_argument("--no-live", dest="live", action="store_false", help="no live view while the cell runs")
    parser.add_argument("-q", "--quiet", action="store_true", help="show nothing when the cell went well")
    parser.add_argument("--save", metavar="PATH", help="save the report to PATH as JSON; tf_mem_magic.load reads it")
    return parser


def line_parser() -> argparse.ArgumentParser:
    """Make the parser of the ``%tfmem`` line."""
    parser = _Parser(prog="%tfmem", description="Memory of this notebook's TensorFlow.", add_help=True)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=_Parser)
    verbs.add_parser("on", help="watch every cell, quietly")
    verbs.add_parser("off", help="watch only cells that start with %%%%tfmem")
    verbs.add_parser("status", help="what holds memory now")
    last = verbs.add_parser("last", help="show the last report again, or the last N")
    last.add_argument("count", nargs="?", type=_count, default=1, metavar="N", help="how many (default 1)")
    last.add_argument(
        "--all", dest="everything", action="store_true", help="unfold every change, and why others are not offered"
    )
    verbs.add_parser("history", help="list the reports so far, a line each")
    apply = verbs.add_parser("apply", help="take one of the last report's numbered changes and run the cell again")
    apply.add_argument("names", nargs=1, metavar="N|KEY", help="its number, or its key such as smaller-batch")
    free = verbs.add_parser(
        "free",
        help="let go of what NAMEs hold (a model's variables too); without one: list what could go",
    )
    free.add_argument("names", nargs="*", metavar="NAME")
    plan = verbs.add_parser(
        "plan",
        help="before anything ran: what MODEL's training needs, and the largest batch that fits this device and others",
        description="Trace one training step of a compiled Keras model, without running it, and tell the peak to"
        " expect, with the largest batch that fits, as it is and with changes whose effect is known. Nothing is run,"
        " and no memory of the device is taken.",
    )
    plan.add_argument("names", nargs="*", metavar="NAME", help="the model, then its data: x, y, or a batched dataset")
    plan.add_argument("--batch", type=_batch, metavar="N", help="samples in a step (else the dataset's, or 32)")
    plan.add_argument(
        "--shape", type=_shape, default=(), metavar="H,W,C", help="shape of one sample, where the model does not tell"
    )
    budget = verbs.add_parser("budget", help="run as if the device had only SIZE, such as 512MiB")
    budget.add_argument("size", metavar="SIZE", type=_size)
    verbs.add_parser("doctor", help="check this environment: versions, sources of numbers, page")
    resume = verbs.add_parser("resume", help="after a restart: go on with the remedy that asked for it")
    resume.add_argument("names", nargs="?", metavar="PLAN", help="which, where it is not surely this notebook's")
    resume.add_argument("--skip", action="store_true", help="go on without the cell that failed")
    resume.add_argument("--forget", action="store_true", help="forget the plan; nothing is run")
    return parser


def parse_cell_line(line: str, outside: str = "") -> Options:
    """Read the options after ``%%tfmem``.

    Parameters
    ----------
    line : str
        What stands behind ``%%tfmem``.
    outside : str
        What ``TFMEM_ON_OOM`` holds, such as ``auto --keep any``; the line itself has the last word.

    Raises
    ------
    OptionError
        With one line for the user.
    HelpRequestedError
        With the help text, where ``-h`` was given.
    """
    words = ["--on-oom", *_split(outside, "TFMEM_ON_OOM")] if outside.strip() else []
    found = cell_parser().parse_args([*words, *_split(line, "%%tfmem")])
    return Options(**vars(found))


def parse_line(line: str) -> Command:
    """Read the words after ``%tfmem``; raises as :func:`parse_cell_line`."""
    words = _split(line, "%tfmem")
    if words[:1] == ["budget"] and len(words) > 1 and not {"-h", "--help"} & set(words):
        words = ["budget", "--", "".join(words[1:])]  # "600 MiB" is one size, and "-5MiB" none rather than an option
    found = line_parser().parse_args(words)
    return Command(
        found.verb,
        _listed(getattr(found, "names", ())),
        getattr(found, "size", None),
        getattr(found, "count", 1),
        getattr(found, "everything", False),
        getattr(found, "forget", False),
        getattr(found, "skip", False),
        getattr(found, "batch", None),
        getattr(found, "shape", ()),
    )


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _split(line: str, prog: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise OptionError(f"{prog}: {error} in {line.strip()!r}") from None


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not a variable name")
    return text


def _interval(text: str) -> float:
    seconds = float(text) if re.fullmatch(r"\d*\.?\d+(e-?\d+)?", text) else 0.0
    if not 0.001 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time between 0.001 and 60 seconds")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 1 and 100")
    return int(text)


def _batch(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 22:
        raise argparse.ArgumentTypeError(f"{text!r} is not a batch size")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,9}([,x]\d{1,9})*,?", text) or "0" in re.split("[,x]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the shape of a sample; write for example 224,224,3")
    return tuple(int(part) for part in re.split("[,x]", text) if part)


def _minutes(text: str) -> float:
    minutes = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if not 0 < minutes <= 7 * 24 * 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes up to a week")
    return minutes


def _percent(text: str) -> int:
    if text == "off":
        return 0
    if not text.isdecimal() or not 10 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage between 10 and 99, or off")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
