"""Which models may take the batches: a function's own name for one is not looked up among the notebook's names."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.remedies.smaller_batch.asked import models_in

STEPPED = ModelFacts("classifier", ("Embedding",), steps=4, steps_before=None)
CONTINUED = ModelFacts("tagger", ("LSTM",), steps=9, steps_before=6)
EARLIER = ModelFacts("net", ("BatchNormalization",), steps=6, steps_before=6)


@pytest.mark.parametrize(
    ("models", "shadowed", "receiver", "right"),
    [
        ((STEPPED, EARLIER), (), "net", ["net"]),
        ((STEPPED, EARLIER), ("net",), "net", ["classifier"]),
        ((CONTINUED, EARLIER), (), "m", ["tagger"]),
        ((CONTINUED, EARLIER), (), None, ["tagger"]),
        ((STEPPED, CONTINUED), (), "m", ["classifier", "tagger"]),
        ((EARLIER,), (), "m", ["net"]),
    ],
)
def test_the_model_is_the_one_that_is_named_or_the_only_one_that_trained(models, shadowed, receiver, right):
    cell = read_cell("run(model)")
    assert isinstance(cell, PythonCell)
    found = BatchFound(cell, 32, (), "fit", receiver)
    assert [m.name for m in models_in(Facts(models=models, shadowed=shadowed), found)] == right
