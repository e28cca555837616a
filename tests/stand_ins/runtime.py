"""A notebook run with stand-ins for Keras, TensorFlow and NumPy that know only shapes, and run out above a batch.

What the remedies are told is read from that run by the product's own facts: scalars, functions, who reads what.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import linecache
import types
from dataclasses import dataclass, field
from types import SimpleNamespace

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.facts.functions import find_functions
from tf_mem_magic.facts.scalars import find_scalars
from tf_mem_magic.facts.uses import defined_names, used_by_others, used_names
from tf_mem_magic.notebook.text.cell import read_cell

WHOLE = 6400
"""Samples of the data that a notebook begins with."""


class OutOfMemory(Exception):
    """What the stand-ins raise instead of a real allocation."""


class Arr:
    """An array that knows its shape."""

    def __init__(self, *shape):
        self.shape = tuple(shape)

    def __len__(self):
        return self.shape[0]

    def __iter__(self):
        return (Arr(*self.shape[1:]) for _ in range(self.shape[0]))

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        if index[0] is None:
            return Arr(1, *self.shape)
        first = index[0]
        if isinstance(first, slice):
            return Arr(len(range(*first.indices(self.shape[0]))), *self.shape[1:])
        if isinstance(first, (list, range, Arr)):
            return Arr(len(first), *self.shape[1:])
        return Arr(*self.shape[1:])

    def __setitem__(self, index, value):
        pass

    def _with(self, other):
        theirs = getattr(other, "shape", ())
        if theirs and self.shape and theirs[0] != self.shape[0] and 1 not in (theirs[0], self.shape[0]):
            raise ValueError(f"shapes {self.shape} and {theirs} do not go together")
        return self

    __add__ = __sub__ = __mul__ = __truediv__ = __itruediv__ = __radd__ = __rsub__ = __rmul__ = __pow__ = _with

    def __gt__(self, other):
        return self

    def reshape(self, *shape):
        shape = shape[0] if isinstance(shape[0], (tuple, list)) else shape
        return Arr(*(self.shape[0] if n == -1 else n for n in shape))

    def same(self, *args, **kwargs):
        return self

    astype = numpy = copy = same

    def argmax(self, *args, **kwargs):
        return self

    @property
    def T(self):
        return self


class Anything:
    """Takes every call and every attribute, and counts what is drawn."""

    def __init__(self, calls=None):
        self.calls = [] if calls is None else calls

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(self.calls)

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        if len(args) == 1 and isinstance(args[0], types.FunctionType):
            return args[0]
        return Anything(self.calls)

    def __getitem__(self, index):
        return Anything(self.calls)

    def __iter__(self):
        return iter((Anything(self.calls), Anything(self.calls)))

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None


class Data:
    """A dataset: the sizes of its batches, or how many single samples; ``endless`` where it repeats."""

    def __init__(self, sizes, batched=False, endless=False):
        self.sizes, self.batched, self.endless = list(sizes), batched, endless

    @classmethod
    def from_tensor_slices(cls, data):
        first = data[0] if isinstance(data, tuple) else data
        return cls([1] * len(first))

    def batch(self, batch_size, drop_remainder=False, **_):
        total = sum(self.sizes)
        sizes = [batch_size] * (total // batch_size)
        if total % batch_size and not drop_remainder:
            sizes.append(total % batch_size)
        return Data(sizes, True, self.endless)

    def same(self, *args, **kwargs):
        return Data(self.sizes, self.batched, self.endless)

    padded_batch = rebatch = batch
    map = shuffle = prefetch = cache = with_options = same

    def apply(self, function):
        return self.same()

    def repeat(self, count=None):
        return Data(self.sizes * (count or 1), self.batched, count is None)

    def take(self, count):
        sizes = itertools.islice(
            itertools.cycle(self.sizes) if self.endless else self.sizes, None if count < 0 else count
        )
        return Data(list(sizes), self.batched)

    def skip(self, count):
        return Data(self.sizes[count:], self.batched, self.endless)

    def cardinality(self):
        return -1 if self.endless else len(self.sizes)

    def __len__(self):
        if self.endless:
            raise TypeError("the dataset is endless")
        return len(self.sizes)

    def __iter__(self):
        sizes = itertools.cycle(self.sizes) if self.endless else iter(self.sizes)
        return ((Arr(n, 8), Arr(n, 1)) for n in sizes)


@dataclass
class Notes:
    """What was seen: ``(method, largest batch, samples of one epoch)`` of each call, and steps of loops."""

    limit: float
    calls: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    seen: tuple = ()

    def compute(self, size, method="step"):
        if size > self.limit:
            raise OutOfMemory(f"a batch of {size}")
        if method == "step":
            self.steps.append(size)


class Callback:
    """The base of Keras's callbacks: nothing calls it here."""


class PyDataset:
    def __init__(self, **kwargs):
        pass

    def __iter__(self):
        return (self[i] for i in range(len(self)))


class Iterator(PyDataset):
    """One of Keras's own iterators over arrays."""

    def __init__(self, x, y=None, batch_size=32, **_):
        self.n, self.samples, self.batch_size = len(x), len(x), batch_size

    def __len__(self):
        return -(-self.n // self.batch_size)

    def __getitem__(self, index):
        size = min(self.batch_size, self.n - index * self.batch_size)
        return Arr(size, 8), Arr(size, 1)


def _batches(x, batch_size, steps):
    """Yield the batches of one epoch."""
    if isinstance(x, (list, tuple)):
        x = Arr(len(x)) if isinstance(x[0], (int, float, str)) else x[0]
    if isinstance(x, dict):
        x = next(iter(x.values()))
    if isinstance(x, Arr):
        size = batch_size or 32
        yield from itertools.islice(((x[i : i + size],) for i in range(0, len(x), size)), steps)
        return
    if isinstance(x, Data) and not x.batched:
        raise ValueError("the data are not batched")
    yield from itertools.islice(iter(x), steps)


def _models(notes):
    class Model:
        losses = ()
        trainable_variables = trainable_weights = (Arr(8),)

        def __init__(self, *args, **kwargs):
            self.optimizer = Anything()

        def compile(self, *args, **kwargs):
            self.compiled = True

        def add(self, layer):
            pass

        def summary(self):
            pass

        def __call__(self, x, *args, **kwargs):
            x = x[0] if isinstance(x, (list, tuple)) else x
            notes.compute(len(x))
            return self.call(x)

        def call(self, x):
            return Arr(len(x), 1)

        def train_step(self, data):
            return {}

        def _run(self, method, x, batch_size, steps, seen):
            kinds = ((Data, "tf.data"), (PyDataset, "PyDataset"), (types.GeneratorType, "generator"))
            source = next((name for kind, name in kinds if isinstance(x, kind)), "arrays")
            sizes = []
            for batch in _batches(x, batch_size, steps):
                first = batch[0] if isinstance(batch, tuple) else batch
                if not sizes and seen:
                    size = batch_size or 32
                    notes.seen = (method, size if source == "arrays" else len(first), source)
                notes.compute(len(first), method)
                self.call(first)
                if method == "fit":
                    self.train_step(batch)
                sizes.append(len(first))
            notes.calls.append((method, max(sizes, default=0), sum(sizes)))

        def fit(self, x=None, y=None, batch_size=None, epochs=1, validation_data=None, steps_per_epoch=None,
                validation_steps=None, validation_batch_size=None, **_):  # fmt: skip
            self._run("fit", x, batch_size, steps_per_epoch, True)
            if validation_data is not None:
                size = validation_batch_size or batch_size
                self._run("validation", validation_data, size, validation_steps, False)
            return SimpleNamespace(history={})

        def evaluate(self, x=None, y=None, batch_size=None, verbose=0, steps=None, **_):
            self._run("evaluate", x, batch_size, steps, True)
            return [0.0, 0.0]

        def predict(self, x, batch_size=None, verbose=0, steps=None, **_):
            self._run("predict", x, batch_size, steps, True)
            return Arr(WHOLE, 1)

        def fit_generator(self, generator, steps_per_epoch=None, epochs=1, validation_data=None, **_):
            return self.fit(generator, steps_per_epoch=steps_per_epoch, validation_data=validation_data)

        def evaluate_generator(self, generator, steps=None, **_):
            return self.evaluate(generator, steps=steps)

        def predict_generator(self, generator, steps=None, **_):
            return self.predict(generator, steps=steps)

        def predict_on_batch(self, x):
            notes.compute(len(x))
            return Arr(len(x), 1)

        def train_on_batch(self, x, y=None, **_):
            notes.compute(len(x))
            x._with(y)
            return [0.0]

        test_on_batch = train_on_batch

    return Model


def _shaped(*at):
    def make(*args, shape=None, size=None, **_):
        given = shape if shape is not None else size
        found = given if given is not None else next((args[i] for i in at if i < len(args)), ())
        return Arr(*(found if isinstance(found, (tuple, list)) else (found,)))

    return make


def stand_ins(notes):
    """Give the names that a notebook of stand-ins begins with."""
    model = _models(notes)
    layers = Anything()
    keras = SimpleNamespace(
        Model=model, Sequential=model, layers=layers, Input=layers, utils=SimpleNamespace(PyDataset=PyDataset),
        optimizers=layers, losses=layers, metrics=layers, callbacks=Anything(), applications=layers, backend=layers,
    )  # fmt: skip
    keras.models = SimpleNamespace(Model=model, Sequential=model)
    keras.utils.Sequence = PyDataset
    keras.callbacks.Callback = Callback
    drawn = []
    random = SimpleNamespace(
        normal=_shaped(2), uniform=_shaped(2), randint=_shaped(2), randn=lambda *n: Arr(*n), rand=lambda *n: Arr(*n),
        choice=_shaped(1), permutation=lambda n: Arr(n), shuffle=lambda x: None, random=_shaped(0), seed=lambda n: None,
    )  # fmt: skip
    np = SimpleNamespace(
        random=random, zeros=_shaped(0), ones=_shaped(0), newaxis=None, arange=lambda n: Arr(n),
        expand_dims=lambda a, axis: Arr(1, *a.shape) if axis == 0 else a, array=lambda a, *_: Arr(len(a), 8),
        vstack=lambda a: Arr(sum(len(one) for one in a), *a[0].shape[1:]),
        concatenate=lambda a, *_, **__: a[0], argmax=lambda a, *_: a, ceil=lambda n: float(-int(-n // 1)), mean=lambda *_: 0.0,
        stack=lambda a, *_: Arr(len(a), 8), reshape=lambda a, shape: a.reshape(shape),
    )  # fmt: skip
    tf = SimpleNamespace(
        data=SimpleNamespace(Dataset=Data, AUTOTUNE=-1, experimental=SimpleNamespace(
            assert_cardinality=lambda n: None, cardinality=lambda ds: ds.cardinality())),
        random=SimpleNamespace(normal=_shaped(0), uniform=_shaped(0)), zeros=_shaped(0), ones=_shaped(0),
        keras=keras, function=lambda f=None, **_: f if f is not None else (lambda g: g), GradientTape=_tape(notes),
        expand_dims=np.expand_dims, newaxis=None, reduce_mean=lambda a, *_: a, reduce_sum=lambda a, *_: a,
        cast=lambda a, _: a, shape=lambda a: a.shape, concat=lambda a, axis=0: a[0], ones_like=lambda a: a,
        zeros_like=lambda a: a, stack=np.stack, square=lambda a: a, constant=lambda a, *_: Arr(len(a), 8),
        distribute=SimpleNamespace(MirroredStrategy=lambda: SimpleNamespace(
            num_replicas_in_sync=2, scope=contextlib.nullcontext)),
    )  # fmt: skip
    modules = {"numpy": np, "tensorflow": tf, "keras": keras, "matplotlib.pyplot": Anything(drawn)}
    return {
        "__name__": "__main__", "np": np, "tf": tf, "keras": keras, "plt": modules["matplotlib.pyplot"],
        "tqdm": lambda x, **_: x, "layers": layers, "x_train": Arr(WHOLE, 8), "y_train": Arr(WHOLE, 1),
        "x_test": Arr(WHOLE // 4, 8), "y_test": Arr(WHOLE // 4, 1), "img": Arr(32, 32, 3), "Dense": layers,
        "ImageDataGenerator": lambda **_: SimpleNamespace(flow=Iterator), "drawn": drawn,
    }  # fmt: skip


def _tape(notes):
    class Tape:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

        def gradient(self, loss, weights):
            return [loss]

    return Tape


_COUNT = itertools.count(1)


class Notebook:
    """A kernel of stand-ins."""

    def __init__(self, earlier=(), limit=float("inf")):
        self.notes = Notes(limit)
        self.names = stand_ins(self.notes)
        self.earlier = tuple(earlier)
        quiet, self.notes.limit = self.notes.limit, float("inf")
        for source in earlier:
            self._execute(source, f"/tmp/ipykernel_1/{next(_COUNT)}.py")
        self.before = {name: id(value) for name, value in self.names.items()}
        self.notes.limit = quiet
        self.notes.calls.clear()
        self.notes.steps.clear()
        self.names["drawn"].clear()

    def _execute(self, source, file):
        python = read_cell(source).python
        linecache.cache[file] = (len(python), None, python.splitlines(keepends=True), file)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(python, file, "exec"), self.names)

    def run(self, source):
        """Run a cell; give the error where it ran out of memory."""
        self.file = f"/tmp/ipykernel_1/{next(_COUNT)}.py"
        lines = [line for line in source.splitlines() if not line.startswith(("import ", "from tf_mem_magic"))]
        assert lines
        try:
            self._execute(source, self.file)
        except OutOfMemory as error:
            return error
        return None

    def context(self, source, error, **known):
        """Tell what the remedies would be told of the cell that has just failed."""
        frames, trace = [], error.__traceback__
        dropped = dropped_lines(source)
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file.startswith("/tmp/ipykernel_1/"):
                name = trace.tb_frame.f_code.co_name
                here = file == self.file
                frames.append(Frame(file, trace.tb_lineno - (dropped if here else 0), name, here, True))
            trace = trace.tb_next
        inside = [f for f in frames if f.in_cell]
        facts = self._facts(source, known)
        cell = Cell(source)
        errors = (ErrorText("ResourceExhaustedError", "OOM", tuple(frames)),)
        recording = Recording(cell, status="oom", facts=facts, errors=errors)
        line = inside[-1].line + dropped if inside else None
        return Context(cell, recording, Diagnosis("GPU:0", line=line, frame=frames[-1] if frames else None))

    def _facts(self, source, known):
        plain = read_cell(source).python
        own = {n: v for n, v in self.names.items() if n not in ("np", "tf", "keras", "plt", "layers", "drawn")}
        functions = find_functions(plain, self.names)
        whole = "\n\n".join([plain, *(f.source for f in functions)])
        values = [NamedValue(n, 10**9, "numpy.ndarray", shape=v.shape) for n, v in own.items() if isinstance(v, Arr)]
        model = self.names["keras"].Model
        models = [n for n, v in own.items() if isinstance(v, model)]
        seen = self.notes.seen
        return Facts(
            tensorflow="2.21.0",
            keras="3.15.1",
            initialised=True,
            models=tuple(
                ModelFacts(
                    n, ("Dense",), "Adam", weight_bytes=400, steps=3, steps_before=3 if n in self.before else None
                )
                for n in models
            ),
            datasets=tuple(self._datasets(own)),
            values=tuple(values),
            batches=(BatchSeen(*seen),) if seen and known.get("seen", True) else (),
            earlier_cells=("import numpy as np\nimport tensorflow as tf\nimport keras", *self.earlier),
            scalars=find_scalars(whole, self.names),
            used=used_names(plain, self.names),
            functions=functions,
            read_elsewhere=used_by_others(plain, self.names, defined_names(plain)),
            used_besides=used_by_others(whole, self.names, {f.name for f in functions} | defined_names(plain)),
        )

    def _datasets(self, own):
        for name, value in own.items():
            if isinstance(value, Data) and value.batched:
                finite = None if value.endless else len(value.sizes)
                yield DatasetFacts(
                    name, "tf.data", value.sizes[0], finite, samples=None if value.endless else sum(value.sizes)
                )
            elif isinstance(value, PyDataset):
                size = vars(value).get("batch_size")
                yield DatasetFacts(name, "PyDataset", size if type(size) is int else None, len(value))
            elif isinstance(value, types.GeneratorType):
                yield DatasetFacts(name, "generator")
