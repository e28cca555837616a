"""The words about a run, on invented outcomes."""

from __future__ import annotations

import dataclasses

import pytest

from tests import gallery
from tf_mem_magic.core.diagnosis import Diagnosis, LayerBytes, Part
from tf_mem_magic.core.outcome import Attempt, Comparison, Outcome
from tf_mem_magic.core.recording import Cell, Dump, Recording, Series
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.report import comparison_words as rerun
from tf_mem_magic.report import measures, sentences


def outcome_of(*series: Series, status="ok", seconds=68.0, **more) -> Outcome:
    return Outcome(Recording(Cell("x = 1"), seconds, series, status), **more)


def counter(peak: int, *values: int, limit: int | None = None, name="allocator:GPU:0") -> Series:
    return Series(name, tuple(float(i) for i in range(len(values))), values, peak, "counter", limit)


def test_a_good_run_says_its_peak_its_limit_and_when():
    outcome = outcome_of(counter(13 * GIB, GIB, 13 * GIB, limit=16 * GIB))
    assert sentences.headline(outcome) == "1:08, peak 13.0 of 16.0 GiB in use on GPU:0 at 1.00 s (81 %)"


def test_a_sampled_peak_is_a_lower_bound():
    series = Series("device:GPU:0", (0.0,), (3 * GIB,), 3 * GIB, "sampled", 4 * GIB, "device-total")
    assert (
        measures.peak_words(series) == "peak ≥ 3.0 of 4.0 GiB device used on GPU:0, all processes at < 0.01 s (≥ 75 %)"
    )


def test_a_counters_peak_that_no_sample_came_near_has_no_time():
    assert measures.peak_words(counter(10 * GIB, GIB, 2 * GIB)) == "peak 10.0 GiB in use on GPU:0"


def test_a_counters_peak_that_a_sample_came_near_has_about_a_time():
    assert measures.peak_moment(counter(100, 10, 95)) == "near 1.00 s"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("allocator:GPU:1", "in use on GPU:1"),
        ("process:GPU:0", "held by this process on GPU:0"),
        ("device:GPU:0", "device used on GPU:0, all processes"),
        ("pool:GPU:0", "pool on GPU:0"),
        ("host:rss", "host memory of this process"),
    ],
)
def test_every_number_says_what_it_measures(kind, expected):
    assert measures.quantity(Series(kind)) == expected


def test_a_size_has_three_digits_at_most():
    assert [measures.amount(v) for v in (512.4 * MIB, 99.94 * MIB, 99.96 * MIB, 1020 * MIB)] == [
        "512 MiB",
        "99.9 MiB",
        "100 MiB",
        "1.0 GiB",
    ]


def test_a_small_part_is_not_shown_as_nothing():
    assert measures.amount(MIB, measures.unit_of(gallery.out_of_memory())) == "< 0.1 GiB"


def test_an_out_of_memory_error_says_where_and_how_far_training_was():
    assert sentences.headline(gallery.out_of_memory()) == (
        "Out of memory on GPU:0 after 12.3 s, in the first step of epoch 1"
    )


def test_the_diagnosis_own_first_sentence_is_the_headline():
    outcome = outcome_of(status="oom", diagnosis=Diagnosis("host", text="Out of host memory after 3.00 s.\nBecause."))
    assert sentences.headline(outcome) == "Out of host memory after 3.00 s"


def test_the_place_is_told_apart_from_the_code_it_quotes():
    assert sentences.place(gallery.other_process()) == (
        "loop.py:88 in train_step, called from line 2 of your cell",
        "train(model, data)",
    )


def test_an_unknown_place_is_left_out():
    outcome = outcome_of(status="oom", diagnosis=Diagnosis("GPU:0", text="Out of memory.\nNo room.", detail="No room."))
    assert sentences.place(outcome) == ("", "")


def test_without_sentences_of_its_own_a_diagnosis_is_told_from_its_numbers():
    assert sentences.paragraph(gallery.out_of_memory()) == (
        "The layer conv2d_4 needed 1.5 GiB more ([256,112,112,128] float32); 0.5 of 14.7 GiB were free."
    )


def test_a_level_below_the_limit_is_never_all_that_explains_a_failure():
    diagnosis = Diagnosis("GPU:0", 84 * MIB, in_use=208 * MIB, limit=300 * MIB, text="Out.", detail="")
    said = sentences.paragraph(outcome_of(status="oom", diagnosis=diagnosis))
    assert said == "It needed 84.0 MiB more; 92.0 of 300 MiB were free, probably in smaller pieces."


def test_other_processes_are_named_once():
    outcome = gallery.other_process()
    diagnosis = dataclasses.replace(outcome.diagnosis, cause="too-big")
    assert (sentences.neighbours(outcome), sentences.neighbours(dataclasses.replace(outcome, diagnosis=diagnosis))) == (
        (),
        ("pid 4121 (alice) holds 9.1 GiB of GPU:0", "pid 77 holds an unknown amount of GPU:0"),
    )


def test_another_error_is_said_not_to_be_about_memory():
    assert sentences.headline(gallery.other_error()).startswith("ValueError after 4.10 s, not an out-of-memory error;")


def test_what_filled_the_memory_is_listed_from_the_largest():
    assert [(s.label, s.amount) for s in sentences.breakdown(gallery.out_of_memory())] == [
        ("activations and temporaries", "11.4 GiB"),
        ("optimizer", "1.5 GiB"),
        ("weights", "0.8 GiB"),
        ("earlier cells: old_model", "0.5 GiB"),
    ]


def test_a_list_or_dict_is_named_once_with_how_many_of_its_entries_are_meant():
    names = ("runs[(1, 0.5)]", "runs[(2, 0.5)]", "model", "nets[0]", "Out[3]", "Out[4]")
    filled = Diagnosis("GPU:0", breakdown=(Part("values", MIB, "", names[:4]),))
    (share,) = sentences.breakdown(outcome_of(status="oom", diagnosis=filled))
    assert share.label == "named values: runs (2), model, nets[0]"
    left = outcome_of(leftovers=tuple((name, MIB) for name in names))
    assert sentences.left_behind(left).partition(": ")[2] == "runs (2), model, nets[0], Out[3], Out[4]"


def test_what_is_left_behind_is_named():
    assert sentences.left_behind(gallery.went_well()) == "+200 MiB left behind: model, history"


def test_a_rerun_that_fits_says_so_with_both_numbers_and_the_estimate():
    outcome = gallery.fits_now()
    assert (sentences.headline(outcome), rerun.result(outcome)) == (
        "Batch 128: it fits",
        "Peak 7.6 of 14.7 GiB in use on GPU:0 (52 %); expected 7.0–8.1 GiB. Before: out of memory, peak 14.2 GiB.",
    )


def test_a_rerun_that_still_runs_out_says_so():
    assert sentences.headline(gallery.did_not_help()) == "16-bit compute: still out of memory"


def test_a_change_that_does_not_lower_the_peak_is_said_not_to():
    comparison = Comparison("xla", "Compile with XLA", "ok", "ok", counter(GIB, GIB), counter(2 * GIB, GIB))
    assert rerun.result(outcome_of(comparison=comparison)) == (
        "Peak 2.0 GiB in use on GPU:0. Before: peak 1.0 GiB in use on GPU:0. The change did not lower the peak."
    )


@pytest.mark.parametrize(
    ("status", "seen", "expected"),
    [
        ("ok", 128, "✓ batch seen: 128"),
        ("ok", 256, "✗ batch seen: 256, expected: 128"),
        ("ok", None, "● batch: 128 expected, not seen: only Keras's own methods show it"),
        ("error", None, "● batch: 128 expected, not seen in the rerun"),
    ],
)
def test_a_promise_of_the_edit_is_checked_in_words(status, seen, expected):
    comparison = Comparison("smaller-batch", "", "oom", status, None, None, checks=(("batch", 128, seen),))
    outcome = outcome_of(comparison=comparison)
    outcome = dataclasses.replace(outcome, recording=dataclasses.replace(outcome.recording, status=status))
    assert rerun.checks(outcome) == (expected,)


def test_the_runs_so_far_are_one_line():
    runs = (Attempt("256", "oom"), Attempt("128", "interrupted"), Attempt("64", "ok"))
    assert rerun.history(outcome_of(history=runs)) == "256 ✗ → 128 ● → 64 ✓"


def test_a_dump_is_summed_up_in_one_line():
    dump = Dump("GPU_0_bfc", "structured", 16 * GIB, 14 * GIB, pool=15 * GIB, largest_free=GIB // 2, fragmentation=0.5)
    assert sentences.dump_summary(dump) == (
        "GPU_0_bfc: 14.0 of 16.0 GiB in use, pool 15.0 GiB, largest free chunk 0.5 GiB, fragmentation 50 %"
    )


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_one_line_is_one_line(name):
    assert len(sentences.one_line(gallery.OUTCOMES[name]()).splitlines()) == 1


def test_one_line_tells_a_good_run_whole():
    assert sentences.one_line(gallery.went_well()) == (
        "✓ 1:08, peak 13.8 of 14.7 GiB in use on GPU:0 at 17.0 s (94 %)   +200 MiB left behind: model, history"
    )


def test_one_line_steers_no_terminal():
    assert "\x1b" not in sentences.one_line(gallery.hostile())


def test_the_picture_is_described_for_those_who_cannot_see_it():
    assert sentences.describe(gallery.other_error()) == (
        "Timeline over 4.10 s. Peak 3.1 of 14.7 GiB in use on GPU:0 at 2.72 s (21 %), from 0.1 GiB to 3.1 GiB."
    )


def test_a_run_without_any_measurement_is_described_too():
    assert sentences.describe(outcome_of(seconds=0.001)) == (
        "No timeline: memory was not measured in the < 0.01 s of the run."
    )


def test_what_remains_on_the_host_is_not_called_activations():
    found = Diagnosis("host", in_use=GIB, breakdown=(Part("other", GIB, "what remains of the bytes in use"),))
    labels = [share.label for share in sentences.breakdown(outcome_of(status="oom", diagnosis=found))]
    assert ["the rest of this process: Python, libraries, data"] == labels


def by_layer():
    """A failure whose bytes are known by layer."""
    outcome = gallery.out_of_memory()
    whole = outcome.diagnosis.in_use
    parts = (
        Part("activations", whole - whole // 4 - 3 * (whole // 100), "found"),
        Part("weights", whole // 4, "counted"),
        *(Part(kind, whole // 100, "found") for kind in ("inputs", "updates", "rounding")),
    )
    layers = tuple(
        LayerBytes(name, "activations", whole // n)
        for name, n in (("conv2d", 4), ("dense", 8), ("bn", 16), ("last", 500))
    )
    diagnosis = dataclasses.replace(outcome.diagnosis, breakdown=parts, layers=layers)
    return dataclasses.replace(outcome, diagnosis=diagnosis)


def test_parts_too_small_to_see_are_one_and_the_shares_still_make_a_whole():
    shares = sentences.breakdown(by_layer())
    assert [share.label for share in shares][-1] == "small parts"
    assert "optimizer's temporaries" in shares[-1].basis
    assert round(sum(share.fraction for share in shares), 6) == 1


def test_the_three_largest_layers_are_named_and_trifles_are_not():
    told = sentences.largest_layers(by_layer())
    assert [name for name in ("conv2d", "dense", "bn", "last") if f"`{name}`" in told] == ["conv2d", "dense", "bn"]
