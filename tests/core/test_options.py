from __future__ import annotations

import pytest

from tf_mem_magic.core.options import (
    Command,
    HelpRequestedError,
    OptionError,
    Options,
    line_parser,
    parse_cell_line,
    parse_line,
)


def test_an_empty_line_gives_the_defaults():
    assert parse_cell_line("") == Options()


def test_every_option_is_read():
    line = "-o rep -i 0.05 --on-oom raise --keep-frames --keep-weights --no-live -q --save 'my report.json' --trace"
    expected = Options("rep", 0.05, "raise", True, True, False, True, "my report.json", trace=True)
    assert parse_cell_line(line) == expected


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
        ("-o 2x", "'2x' is not a variable name"),
        ("-i 0", "'0' is not a time between 0.001 and 60 seconds"),
        ("-i soon", "'soon' is not a time"),
        ("--on-oom maybe", "invalid choice"),
        ("-o", "expected one argument"),
        ("--save 'x", "No closing quotation"),
        ("--keep everything", "invalid choice"),
        ("--max-tries 0", "'0' is not a number between 1 and 100"),
        ("--max-minutes -3", "'-3' is not a number of minutes"),
        ("--max-minutes soon", "'soon' is not a number of minutes"),
    ],
)
def test_a_bad_option_is_one_clear_line(line, part):
    with pytest.raises(OptionError) as caught:
        parse_cell_line(line)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_speaks_first_and_the_line_last():
    assert parse_cell_line("-q", "auto --keep any --max-tries 2").max_tries == 2
    assert parse_cell_line("--on-oom raise", "auto --keep any").on_oom == "raise"
    assert parse_cell_line("", "  ") == Options()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("on", Command("on")),
        ("off", Command("off")),
        ("status", Command("status")),
        ("last", Command("last")),
        ("free a b", Command("free", ("a", "b"))),
        ("free", Command("free")),
        ("last 3 --all", Command("last", count=3, everything=True)),
        ("history", Command("history")),
        ("apply 1", Command("apply", ("1",))),
        ("apply smaller-batch", Command("apply", ("smaller-batch",))),
        ("budget 512MiB", Command("budget", (), 512 * 2**20)),
        ("budget 512 MiB", Command("budget", (), 512 * 2**20)),
        ("doctor", Command("doctor")),
        ("resume", Command("resume")),
    ],
)
def test_every_command_of_the_line_magic_is_read(line, expected):
    assert parse_line(line) == expected


@pytest.mark.parametrize("line", ["", "fly", "apply", "last x", "budget", "budget lots", "budget -5", "on off"])
def test_a_bad_command_is_one_clear_line(line):
    with pytest.raises(OptionError) as caught:
        parse_line(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "line", "meant"),
    [
        (parse_line, "statsu", "status"),
        (parse_line, "histroy", "history"),
        (parse_cell_line, "--on-omm auto", "--on-oom"),
        (parse_cell_line, "--on-oom atuo", "auto"),
        (parse_cell_line, "--kep-frames", "--keep-frames"),
    ],
)
def test_a_misspelled_word_gets_the_nearest_suggestion(parse, line, meant):
    with pytest.raises(OptionError, match=f"did you mean {meant}\\?"):
        parse(line)


def test_a_word_that_is_near_to_none_gets_no_suggestion():
    with pytest.raises(OptionError) as caught:
        parse_line("xyzzy")
    assert "did you mean" not in str(caught.value)


def test_help_lists_only_what_works():
    with pytest.raises(HelpRequestedError) as caught:
        parse_cell_line("-h")
    text = str(caught.value)
    assert "--on-oom {panel,auto,raise}" in text
    assert "--trace" in text
    assert "%debug" in text
    with pytest.raises(HelpRequestedError) as caught:
        parse_line("-h")
    assert "%%tfmem" in str(caught.value)
    assert "before anything ran" in str(caught.value)


def test_every_command_that_is_listed_is_carried_out():
    from tf_mem_magic.session.commands.dispatch import _COMMANDS

    verbs = next(action for action in line_parser()._actions if action.choices)
    assert set(verbs.choices) == set(_COMMANDS)


def test_a_budget_below_nothing_is_named_as_what_it_is():
    with pytest.raises(OptionError, match="'-5MiB' is not a usable size"):
        parse_line("budget -5MiB")
