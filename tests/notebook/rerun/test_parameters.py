"""What a change sets otherwise, and whether later cells read it."""

from __future__ import annotations

import pytest

from tf_mem_magic.notebook.rerun.parameters import changed_values, reads_any


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("BATCH = 256", "BATCH = 128", ("BATCH", "256", "128")),
        ("BATCH: int = 256", "BATCH: int = 128", ("BATCH", "256", "128")),
        ("BATCH, EPOCHS = 256, 3", "BATCH, EPOCHS = 128, 3", ("BATCH", "256", "128")),
        ("cfg = {'batch': 256, 'lr': 1}", "cfg = {'batch': 128, 'lr': 1}", ("cfg['batch']", "256", "128")),
        ("cfg = dict(batch=256)", "cfg = dict(batch=128)", ("cfg['batch']", "256", "128")),
        (
            "cfg = types.SimpleNamespace(batch=256)",
            "cfg = types.SimpleNamespace(batch=128)",
            ("cfg.batch", "256", "128"),
        ),
        ("cfg.batch = 256", "cfg.batch = 128", ("cfg.batch", "256", "128")),
        ("cfg['batch'] = 256", "cfg['batch'] = 128", ("cfg['batch']", "256", "128")),
        ("if big:\n    BATCH = 256", "if big:\n    BATCH = 128", ("BATCH", "256", "128")),
        ("%%tfmem\nBATCH = 64 * n\nfit(BATCH)", "%%tfmem\nBATCH = 32 * n\nfit(BATCH)", ("BATCH", "64 * n", "32 * n")),
        ("fit(b := 256)", "fit(b := 128)", ("b", "256", "128")),
    ],
)
def test_a_changed_value_is_found_however_it_is_written(before, after, said):
    assert [said] == [(c.name, c.before, c.after) for c in changed_values(before, after)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fit(x, batch_size=256)", "fit(x, batch_size=128)"),
        ("def f():\n    BATCH = 256", "def f():\n    BATCH = 128"),
        ("h = fit(256)", "h = fit(128)"),
        ("BATCH = 256", "BATCH = 256\nfit()"),
        ("(", "BATCH = 1"),
    ],
)
def test_what_no_other_cell_can_read_is_none(before, after):
    assert () == changed_values(before, after)


def test_a_value_that_an_earlier_cell_had_set_is_told_too():
    (changed,) = changed_values("fit(BATCH)", "BATCH = 64\nfit(BATCH)", ("BATCH = 512", "BATCH = 256", "print(1)"))
    assert ("BATCH", "256", "64") == (changed.name, changed.before, changed.after)


def test_a_name_that_is_new_is_nobody_elses():
    assert () == changed_values("fit(256)", "STEPS = 2\nfit(128)", ("x = 1",))


@pytest.mark.parametrize(
    ("later", "reads"),
    [
        (("evaluate(BATCH)",), True),
        (("print('BATCH')",), False),
        (("# BATCH",), False),
        (("BATCH = 8\nfit(BATCH)",), False),
        (("BATCH = 8", "fit(BATCH)"), False),
        (("if x:\n    BATCH = 8\nfit(BATCH)",), True),
        (("def f():\n    return BATCH",), True),
        (("%timeit run(BATCH)",), True),
        (("!python train.py {BATCH}",), True),
        (("score()",), True),
        (("again()",), True),
        (("other()",), False),
        ((), False),
    ],
)
def test_reading_is_told_from_naming(later, reads):
    functions = "def score():\n    return evaluate(BATCH)\ndef again():\n    return score()\ndef other():\n    return 1"
    assert reads is reads_any("BATCH", later, (functions,))


def test_a_record_is_read_by_its_own_name():
    assert "cfg" == changed_values("cfg.batch = 2", "cfg.batch = 1")[0].root
