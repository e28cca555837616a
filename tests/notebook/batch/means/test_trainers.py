"""Classes of the notebook that train: their data come by a method's argument, or are kept when they are made."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import asked, run
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch

CLASS = """class Trainer:
    def __init__(self, {given}):
        {kept}

    def fit(self, {taken}):
        for epoch in range(2):
            total, n = 0.0, 0
            for x, y in {data}:
                total += step(x, y)
                n += 1
            tell(total / n)

trainer = Trainer({made})
trainer.fit({fitted})"""
KEPT = [
    {"given": "ds", "kept": "self.ds = ds", "data": "self.ds", "made": "train", "fitted": ""},
    {"given": "a, train_ds", "kept": "self.train_ds = train_ds", "data": "self.train_ds", "made": "3, train_ds=train", "fitted": ""},
    {"given": "*, data", "kept": "self.data = data", "data": "self.data", "made": "data=train", "fitted": ""},
    {"given": "rate=0.1", "kept": "self.rate = rate", "taken": "ds", "data": "ds", "made": "", "fitted": "train"},
    {"given": "rate", "kept": "self.rate = rate", "taken": "epochs, ds", "data": "ds", "made": "0.1", "fitted": "2, ds=train"},
]  # fmt: skip
SEVERAL = [
    CLASS + "\nother = Trainer(val)",
    CLASS + "\ntrainer.ds = val\ntrainer.fit()",
    CLASS.replace("        for epoch", "        self.ds = val if self.late else train\n        for epoch"),
]


def lines_of(source):
    numbered = list(enumerate(source.split("\n"), 1))
    return frozenset(n for n, text in numbered if "step(" in text or "trainer.fit(" in text)


@pytest.mark.parametrize("parts", KEPT)
def test_data_of_a_trainer_are_split_where_they_are_handed_over(parts):
    source = CLASS.format(**{"taken": "", **parts})
    found = asked(source, line=min(lines_of(source)))
    assert isinstance(found, BatchFound), found
    after, _ = set_batch(found, 32)
    assert "train.rebatch(32)" in after
    counted = asked(source.replace("total / n", "total / len({data})".format(**parts)), line=min(lines_of(source)))
    assert isinstance(counted, BatchFound) or "would fail" in counted.reason
    batches = {"train": 64, "val": 64}
    before, now = run(source, (), batches), run(after, (), batches)
    assert now[0] == pytest.approx(before[0])
    assert max(now[1]) == 32


@pytest.mark.parametrize("source", SEVERAL)
def test_data_of_which_there_may_be_several_are_not_followed(source):
    source = source.format(**{"taken": "", **KEPT[0]})
    found = asked(source, line=min(lines_of(source)))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
