"""The examples of ``smaller-batch``, which are its tests."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, NamedValue, ScalarFact
from tf_mem_magic.core.proposals import Context, Example
from tf_mem_magic.core.recording import Cell, Recording


def _context(source: str, facts: Facts | None = None, line: int | None = None, **known: object) -> Context:
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", line=line, **known)  # type: ignore[arg-type]
    return Context(cell, Recording(cell, status="oom", facts=facts or Facts()), diagnosis)


EXAMPLES = (
    Example(
        "a number in the call",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=256, epochs=3)", line=2),
        "%%tfmem\nmodel.fit(x, y, batch_size=128, epochs=3)",
    ),
    Example(
        "a constant of the cell",
        _context("%%tfmem\nBATCH_SIZE = 2**7\nmodel.fit(x, y, batch_size=BATCH_SIZE)", line=3),
        "%%tfmem\nBATCH_SIZE = 64\nmodel.fit(x, y, batch_size=BATCH_SIZE)",
    ),
    Example(
        "Keras's default of 32",
        _context("%%tfmem\nmodel.fit(x, y)", line=2),
        "%%tfmem\nmodel.fit(x, y, batch_size=16)",
    ),
    Example(
        "a constant of an earlier cell",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=BATCH)", Facts(scalars=(ScalarFact("BATCH", 64),)), 2),
        "%%tfmem\nBATCH = 32\nmodel.fit(x, y, batch_size=BATCH)",
    ),
    Example(
        "a dataset of an earlier cell",
        _context("%%tfmem\nmodel.fit(train_ds)", Facts(datasets=(DatasetFacts("train_ds", batch=64),)), 2),
        "%%tfmem\nmodel.fit(train_ds.rebatch(32))",
    ),
    Example(
        "a custom training loop",
        _context("%%tfmem\nds = ds.batch(64)\nfor x, y in ds:\n    step(x, y)", line=4),
        "%%tfmem\nds = ds.batch(32)\nfor x, y in ds:\n    step(x, y)",
    ),
    Example(
        "a validation that has a batch of its own",
        _context(
            "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w), validation_batch_size=4096)",
            Facts(batches=(BatchSeen("fit", 64, "arrays"),), validating=True),
            2,
        ),
        "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w), validation_batch_size=2048)",
    ),
    Example(
        "a validation in batches of the training's size",
        _context(
            "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w))",
            Facts(batches=(BatchSeen("fit", 64, "arrays"),), validating=True),
            2,
        ),
        "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w), validation_batch_size=32)",
    ),
    Example(
        "a model called on all samples",
        _context(
            "%%tfmem\nfeatures = model(images)",
            Facts(
                models=(ModelFacts("model", form="functional", rowwise=True),),
                values=(NamedValue("images", 10**6, "ndarray", shape=(1000, 8)),),
            ),
            2,
        ),
        "%%tfmem\nfrom tf_mem_magic import apply\nfeatures = apply.in_batches(model, images, 64)",
    ),
    Example(
        "computed when the cell runs",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=pick(x))", line=2),
        "computed when the cell runs",
        declined=True,
    ),
    Example(
        "already one sample",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=1)", line=2),
        "already 1",
        declined=True,
    ),
    Example(
        "not what Keras was seen to use",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=64)", Facts(batches=(BatchSeen("fit", 32, "arrays"),)), 2),
        "Keras used batches of 32",
        declined=True,
    ),
    Example(
        "the host's memory",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=64)", line=2, cause="host"),
        "the computer's own memory",
        declined=True,
    ),
)
