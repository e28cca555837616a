"""Stand-ins in plain Python for what training cells call; they note the batch sizes really used, and where."""

import contextlib
import copy
import io
import sys
from types import SimpleNamespace

from tf_mem_magic.notebook.text.cell import read_cell

CELL = "<the cell>"


class Arr:
    """An array that knows only its length."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Arr(len(range(*index.indices(self.length))))
        return Arr(len(index))


class Dataset:
    def __init__(self, data=None, batch=None):
        self.data, self.batch_now = data, batch

    def _with(self, batch):
        other = copy.copy(self)
        other.batch_now = batch
        return other

    def batch(self, batch_size, drop_remainder=False):
        return self._with(batch_size)

    padded_batch = ragged_batch = rebatch = batch

    def _same(self, *args, **kwargs):
        return self._with(self.batch_now)

    map = shuffle = prefetch = cache = repeat = apply = _same

    def __iter__(self):
        yield Arr(self.batch_now)
        yield Arr(self.batch_now)


class PyDataset:
    def __init__(self, **kwargs):
        pass


class MyGen(PyDataset):
    def __init__(self, x, batch_size=8):
        self.batch_size = batch_size


class Runtime:
    """A namespace for one run; ``events`` are ``(lines, method, batch, source)``, lines innermost first."""

    def __init__(self, given):
        self.events = []
        x, y = Arr(6400), Arr(6400)
        random = SimpleNamespace(randint=lambda low, high, size: [0] * size, normal=lambda *a: None)
        self.names = {
            "x": x, "y": y, "model": self._model(), "step": lambda data, *_: self._note("step", len(data)),
            "Dataset": Dataset, "PyDataset": PyDataset, "MyGen": MyGen, "Dense": lambda units: units, "LSTM": lambda *a, **k: None, "f": None,
            "np": SimpleNamespace(random=random, zeros=lambda shape: None), "function": lambda f: f,
            "strategy": SimpleNamespace(num_replicas_in_sync=2, scope=contextlib.nullcontext),
            "keras": SimpleNamespace(utils=SimpleNamespace(
                image_dataset_from_directory=_folder, timeseries_dataset_from_array=_series)),
            "image_dataset_from_directory": _folder,
            "datagen": SimpleNamespace(flow=_flow, flow_from_directory=_folder),
        }  # fmt: skip
        for name, value in given.get("scalars", {}).items():
            if "." in name:
                self.names["cfg"] = SimpleNamespace(**{name.split(".")[1]: value})
            elif "[" in name:
                self.names["cfg"] = {name.split("'")[1]: value}
            else:
                self.names[name] = value
        for name, value in given.get("datasets", {}).items():
            self.names[name] = Dataset(batch=value)

    def _model(self):
        def keras(method, position):
            def call(*args, **kwargs):
                names = ("x", "y", "batch_size") if position == 2 else ("x", "batch_size")
                kwargs |= dict(zip(names, args))
                data = kwargs["x"]
                batch = getattr(data, "batch_now", None) or getattr(data, "batch_size", None)
                if hasattr(data, "__next__"):
                    batch = len(next(data)[0])
                source = "tf.data" if isinstance(data, Dataset) else "PyDataset" if batch else "arrays"
                self._note(method, batch or kwargs.get("batch_size") or 32, source)
                checks = kwargs.get("validation_data")
                if isinstance(checks, Dataset):
                    self._note("validation", checks.batch_now)

            return call

        return SimpleNamespace(
            fit=keras("fit", 2), evaluate=keras("evaluate", 2), predict=keras("predict", 1),
            train_on_batch=lambda data, target: self._note("train_on_batch", len(data)),
        )  # fmt: skip

    def _note(self, method, batch, source="arrays"):
        lines, frame = [], sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == CELL:
                lines.append(frame.f_lineno)
            frame = frame.f_back
        self.events.append((tuple(lines), method, batch, source))

    def run(self, source):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(read_cell(source).python, CELL, "exec"), self.names)
        return self.events


def _folder(directory, image_size=None, target_size=None, batch_size=32):
    return Dataset(batch=batch_size)


def _series(data, targets, sequence_length, batch_size=128):
    return Dataset(batch=batch_size)


def _flow(x, y, batch_size=32):
    return Dataset(batch=batch_size)


def at_mark(source, events):
    """Give the events of the statement that carries the mark ``# <-``, and the mark's line."""
    import ast

    lines = source.splitlines()
    mark = next(number for number, line in enumerate(lines, 1) if "# <-" in line)
    tree = read_cell(source).tree
    holding = [s for s in ast.walk(tree) if isinstance(s, ast.stmt) and s.lineno <= mark <= s.end_lineno]
    innermost = max(holding, key=lambda s: (s.lineno, -s.end_lineno))
    return [e for e in events if innermost.lineno <= e[0][0] <= innermost.end_lineno], mark
