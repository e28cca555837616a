"""Invented but realistic outcomes: what the renderers are tested with. ``python -m tests.gallery OUT.html`` shows them."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.outcome import Attempt, Change, Comparison, Outcome
from tf_mem_magic.core.proposals import Choice, Declined, Estimate, Proposal
from tf_mem_magic.core.recording import Cell, ChunkGroup, Dump, ErrorText, Frame, MissingSource, Recording, Series
from tf_mem_magic.core.step import Holder, TracedSteps
from tf_mem_magic.core.units import GIB, MIB

CELL = """%%tfmem
import keras

model = build_model(width=128)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")

model.fit(x, y, batch_size=256, epochs=3)
"""


def gib(value: float) -> int:
    return int(value * GIB)


def training(top: float, seconds: float, ramp: float, steps: int = 400) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Give a curve in GiB that climbs for ``ramp`` seconds and then breathes with every step."""
    times, values = [], []
    for i in range(steps + 1):
        t = seconds * i / steps
        height = top * min(1.0, t / ramp) ** 0.7 if t < ramp else top * (0.86 + 0.14 * abs(math.sin(2.2 * (t - ramp))))
        times.append(t)
        values.append(gib(0.1 + height))
    return tuple(times), tuple(values)


def series(name: str, top: float, seconds: float, ramp: float, **more: object) -> Series:
    times, values = training(top, seconds, ramp)
    made = Series(name, times, values, max(values))
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def flat(name: str, start: float, end: float, seconds: float, **more: object) -> Series:
    times = tuple(seconds * i / 100 for i in range(101))
    values = tuple(gib(start + (end - start) * min(1.0, i / 20)) for i in range(101))
    return dataclasses.replace(Series(name, times, values, max(values)), **more)  # type: ignore[arg-type]


def proposals() -> tuple[Proposal, ...]:
    half = CELL.replace("batch_size=256", "batch_size=128")
    mixed = CELL.replace("model = build", 'keras.config.set_dtype_policy("mixed_float16")\nmodel = build')
    return (
        Proposal(
            "smaller-batch",
            "Batch 128",
            half,
            CELL,
            "same model, other gradients",
            Estimate(gib(7.0), gib(8.1), "completed steps at batch 32 and 64"),
            caveats=("BatchNorm sees 128 samples at a time.",),
            why="The activations grow with the batch.",
            expects=(("batch", 128),),
        ),
        Proposal(
            "mixed-precision",
            "16-bit compute",
            mixed,
            CELL,
            "close numerics",
            caveats=("Saves on activations; the weights stay float32.",),
            choices=(Choice("Continue from epoch 2", mixed),),
        ),
        Proposal(
            "memory-growth",
            "Let the card's memory grow on demand",
            CELL,
            CELL,
            "same results",
            takes_effect="restart",
            environment=(("TF_FORCE_GPU_ALLOW_GROWTH", "true"),),
        ),
    )


DECLINED = (
    Declined("rematerialize", "Rematerialization", "the model has dropout, which a second forward pass would resample"),
    Declined("stream-data", "Stream the data", "x and y are small: 0.2 GiB"),
    Declined("other-gpu", "Use another GPU", "there is one GPU"),
)


def went_well() -> Outcome:
    gpu = series("allocator:GPU:0", 13.7, 68, 12, limit=gib(14.7), limit_basis="configured", peak_basis="counter")
    device = flat("device:GPU:0", 14.0, 15.1, 68, limit=gib(15.8), limit_basis="device-total")
    host = flat("host:rss", 4.0, 6.1, 68, peak_basis="counter")
    return Outcome(
        Recording(Cell(CELL), 68.2, (gpu, device, host)),
        leftovers=(("model", 180 * MIB), ("history", 20 * MIB)),
    )


def traced() -> Outcome:
    """A training whose steps were traced: forward it climbs by layers, backward it falls."""
    climb = [0.0, 0.35, 0.7, 1.0, 0.8, 0.45, 0.15] * 3
    shares = {"weights": 0.0, "optimizer": 0.0, "inputs": 0.0, "activations": 9.6, "gradients": 0.9, "workspace": 0.4}
    lying = {"weights": 0.8, "optimizer": 1.6, "inputs": 0.1}
    course = tuple(
        (kind, tuple(gib(lying.get(kind, 0.0) + share * height) for height in climb)) for kind, share in shares.items()
    )
    peak = sum(values[3] for _, values in course)
    steps = TracedSteps(
        "GPU:0", 14.2, 1.05, 3, (0.0, 0.35, 0.7), (gib(2.5),) * 4, (gib(0.1),) * 4, peak, 0.15,
        tuple(sorted(((kind, values[3]) for kind, values in course), key=lambda part: -part[1])),
        (
            Holder("conv2d_4", "activations", gib(3.0), 2, "functional_1/conv2d_4_1/Relu"),
            Holder("conv2d_3", "activations", gib(3.0), 2, "functional_1/conv2d_3_1/Relu"),
            Holder("batch_normalization_4", "activations", gib(1.5), 3, "functional_1/batch_normalization_4_1/add"),
            Holder("conv2d_4", "gradients", gib(0.9), 1, "gradient_tape/functional_1/conv2d_4_1/ReluGrad"),
            Holder("conv2d_4", "workspace", gib(0.4), 1, "gradient_tape/functional_1/conv2d_4_1/Conv2DBackpropFilter"),
        ),
        tuple(0.05 * i for i in range(len(climb))), course, gib(14.7), 5230, 2, 4 * MIB,
    )  # fmt: skip
    outcome = went_well()
    return dataclasses.replace(outcome, recording=dataclasses.replace(outcome.recording, traced=steps))


def out_of_memory() -> Outcome:
    gpu = series("allocator:GPU:0", 14.0, 12.3, 1.9, limit=gib(14.7), limit_basis="configured", peak_basis="counter")
    values = tuple(v if t < 2 else gib(14.2) for t, v in zip(gpu.times, gpu.values))
    gpu = dataclasses.replace(gpu, values=values, peak=max(values))
    pool = flat("pool:GPU:0", 2.0, 14.5, 12.3)
    device = flat("device:GPU:0", 3.0, 15.0, 12.3, limit=gib(15.8), limit_basis="device-total")
    host = flat("host:rss", 4.0, 6.1, 12.3, peak_basis="counter")
    diagnosis = Diagnosis(
        "GPU:0",
        gib(1.5),
        (256, 112, 112, 128),
        "float32",
        "Conv2D",
        "conv2d_4",
        7,
        in_use=gib(14.2),
        limit=gib(14.7),
        cause="too-big",
        breakdown=(
            Part("weights", gib(0.8), "variables"),
            Part("optimizer", gib(1.5), "variables"),
            Part("earlier", gib(0.5), "live values", ("old_model",)),
            Part("other", gib(11.4), "the remainder"),
        ),
    )
    dump = Dump(
        "GPU_0_bfc",
        "structured",
        gib(14.7),
        gib(14.2),
        groups=(ChunkGroup("conv2d_4/Conv2D", gib(5.1), gib(5.0), 12), ChunkGroup("dense/MatMul", gib(2), gib(2), 3)),
    )
    recording = Recording(
        Cell(CELL),
        12.3,
        (gpu, pool, device, host),
        "oom",
        (ErrorText("ResourceExhaustedError", "OOM when allocating tensor"),),
        (dump,),
        "2025 W tensorflow/core/common_runtime/bfc_allocator.cc] Allocator (GPU_0_bfc) ran out of memory\n" * 6,
        Facts(steps_done=0, epochs_done=0),
        (MissingSource("process:GPU:0", "NVML: the driver does not tell processes apart in this container"),),
    )
    return Outcome(
        recording,
        diagnosis,
        proposals(),
        DECLINED,
        changes=(Change("reassigned", "x", "x was divided by 255 again"),),
    )


OTHERS = (
    "It needed 2.0 GiB more; 13.2 GiB were in use.\n"
    "Other processes hold 9.1 GiB of this card (pid 4121, alice): without them the request would have fitted."
)


def other_process() -> Outcome:
    device = flat("device:GPU:0", 9.1, 23.6, 12.0, limit=gib(24), limit_basis="device-total")
    gpu = flat("allocator:GPU:0", 0.1, 13.2, 12.0, peak_basis="counter")
    idle = flat("allocator:GPU:1", 0.0, 0.1, 12.0, peak_basis="counter", limit=gib(22), limit_basis="configured")
    frame = Frame("/home/me/project/loop.py", 88, "train_step", is_user=True)
    diagnosis = Diagnosis(
        "GPU:0",
        gib(2),
        line=2,
        frame=frame,
        file=frame.file,
        in_use=gib(13.2),
        cause="other-process",
        text="Out of memory on GPU:0 after 12.0 s.\n"
        "loop.py:88 in train_step, called from line 2 of your cell: train(model, data)\n" + OTHERS,
        detail=OTHERS,
    )
    facts = Facts(
        devices=(DeviceFacts("GPU:0", total=gib(24), others=(ProcessFacts(4121, "alice", gib(9.1)), ProcessFacts(77))),)
    )
    recording = Recording(Cell("%%tfmem\ntrain(model, data)\n"), 12.0, (gpu, device, idle), "oom", facts=facts)
    return Outcome(recording, diagnosis, proposals()[2:], DECLINED[:1])


def fits_now() -> Outcome:
    before = out_of_memory().recording.series[0]
    after = series("allocator:GPU:0", 7.5, 68, 4, limit=gib(14.7), limit_basis="configured", peak_basis="counter")
    comparison = Comparison(
        "smaller-batch",
        "Batch 128",
        "oom",
        "ok",
        before,
        after,
        gib(14.7),
        "7.0–8.1 GiB",
        (("batch", 128, 128),),
        original=CELL,
    )
    recording = Recording(Cell(proposals()[0].source), 68.2, (after, flat("host:rss", 5, 6.1, 68)), "ok")
    return Outcome(
        recording,
        comparison=comparison,
        history=(Attempt("256", "oom", gib(14.2), 12.3), Attempt("128", "ok", gib(7.6), 68.2)),
    )


def did_not_help() -> Outcome:
    base = out_of_memory()
    comparison = Comparison(
        "mixed-precision", "16-bit compute", "oom", "oom", base.recording.series[0],
        base.recording.series[0], gib(14.7),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        comparison=comparison,
        offered=proposals()[:1],
        history=(Attempt("float32", "oom", gib(14.2)), Attempt("float16", "oom", gib(14.2))),
    )


def other_error() -> Outcome:
    gpu = series("allocator:GPU:0", 3.0, 4.1, 2, limit=gib(14.7), limit_basis="configured", peak_basis="counter")
    return Outcome(Recording(Cell(CELL), 4.1, (gpu,), "error", (ErrorText("ValueError", "Shapes are incompatible"),)))


def interrupted() -> Outcome:
    cpu = series("allocator:CPU:0", 0.38, 42, 5, limit=512 * MIB, limit_basis="configured", peak=500 * MIB)
    cpu = dataclasses.replace(cpu, peak_basis="counter")
    host = flat("host:rss", 1.2, 2.3, 42, limit=gib(24), limit_basis="configured", peak_basis="counter")
    recording = Recording(
        Cell(CELL), 42.0, (cpu, host), "interrupted", missing=(MissingSource("device:GPU:0", "NVML: no driver found"),)
    )
    return Outcome(recording)


def killed() -> Outcome:
    host = flat("host:rss", 2.0, 31.2, 361, limit=gib(32), limit_basis="configured", peak_basis="counter")
    diagnosis = Diagnosis("host", in_use=gib(31.2), limit=gib(32), cause="host", line=7)
    return Outcome(Recording(Cell(CELL), 361, (host,), "killed"), diagnosis, notices=("Restored from its recording.",))


def tiny() -> Outcome:
    cpu = Series("allocator:CPU:0", (), (), 12 * MIB, "counter")
    return Outcome(Recording(Cell("%%tfmem\nx = 1"), 0.001, (cpu,)))


def long_run() -> Outcome:
    n = 40000
    times = tuple(36000 * i / n for i in range(n))
    values = tuple(gib(6 + 2 * math.sin(i / 9) + (5 if i == 31234 else 0)) for i in range(n))
    gpus = tuple(
        Series(f"allocator:GPU:{k}", times, values, max(values), "counter", gib(80), "configured") for k in range(4)
    )
    return Outcome(Recording(Cell(CELL), 36000, gpus))


HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e$\\frac{1}{0}$</pre><img src=x onerror=alert(2)>"


def hostile() -> Outcome:
    """Give an outcome whose every text tries to break out of where it stands."""
    base = out_of_memory()
    assert base.diagnosis is not None
    changed = Proposal(
        HOSTILE, HOSTILE, f"%%tfmem\n{HOSTILE}2", f"%%tfmem\n{HOSTILE}", "nothing", Estimate(1, 2, HOSTILE),
        caveats=(HOSTILE,), why=HOSTILE, environment=((HOSTILE, HOSTILE),),
    )  # fmt: skip
    shown = dataclasses.replace(base.recording.series[0], name=f"allocator:{HOSTILE}")
    recording = dataclasses.replace(
        base.recording,
        cell=Cell(f"%%tfmem\n{HOSTILE}"),
        series=(shown,),
        stderr=HOSTILE,
        errors=(ErrorText(HOSTILE, HOSTILE),),
        dumps=(Dump(HOSTILE, "text", groups=(ChunkGroup(HOSTILE, 1, 1, 1),)),),
        missing=(MissingSource(HOSTILE, HOSTILE),),
        facts=Facts(devices=(DeviceFacts(HOSTILE, others=(ProcessFacts(1, HOSTILE, 5),)),)),
    )
    diagnosis = dataclasses.replace(
        base.diagnosis, device=HOSTILE, layer=HOSTILE, dtype=HOSTILE, line=2, frame=Frame(HOSTILE, 1, HOSTILE),
        breakdown=(Part("values", gib(14.2), HOSTILE, (HOSTILE,)),),
    )  # fmt: skip
    comparison = Comparison(
        HOSTILE, HOSTILE, "oom", "oom", shown, shown, 5, HOSTILE, ((HOSTILE, 1, 2),), HOSTILE, HOSTILE
    )
    return Outcome(
        recording,
        diagnosis,
        (changed,),
        (Declined(HOSTILE, HOSTILE, HOSTILE, HOSTILE, changed),),
        comparison,
        (Attempt(HOSTILE, "oom"), Attempt(HOSTILE, HOSTILE)),
        (Change("file", HOSTILE, HOSTILE),),
        ((HOSTILE, 5),),
        (HOSTILE,),
    )


OUTCOMES = {
    "went well": went_well,
    "traced steps": traced,
    "out of memory": out_of_memory,
    "another process": other_process,
    "fits after the rerun": fits_now,
    "did not help": did_not_help,
    "another error": other_error,
    "interrupted": interrupted,
    "killed": killed,
    "1 ms": tiny,
    "ten hours": long_run,
}


def page(dark: bool = False, opened: bool = False) -> str:
    """Give all outcomes on one page, with the colours of JupyterLab's light or dark theme."""
    from tf_mem_magic.report.html.page import render_html
    from tf_mem_magic.report.text import render_text

    colours = (
        "--jp-error-color1:#f44336;--jp-warn-color1:#ff9800;--jp-success-color1:#4caf50;background:#111;color:#fff"
        if dark
        else "--jp-error-color1:#d32f2f;--jp-warn-color1:#f57c00;--jp-success-color1:#388e3c;background:#fff;"
        "color:rgba(0,0,0,.87)"
    )
    body = []
    for name, make in OUTCOMES.items():
        outcome = make()
        report = render_html(outcome)
        report = report.replace("<details", "<details open") if opened else report
        plain = render_text(outcome).replace("&", "&amp;").replace("<", "&lt;")
        body.append(f"<h4>{name}</h4>{report}<details><summary>as text</summary><pre>{plain}</pre></details>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    style = f"margin:0;padding:12px;font-family:system-ui,sans-serif;font-size:14px;{colours}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body style="{style}">{"".join(body)}</body></html>'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page("--dark" in sys.argv, "--open" in sys.argv), encoding="utf-8")
