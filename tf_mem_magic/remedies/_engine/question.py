"""What a remedy is asked with, each part computed once; and how its answer, or its refusal, becomes answers."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from functools import cached_property

from tf_mem_magic.core.diagnosis import Diagnosis, SituationKind
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Answer, Context, Declined, Point, Proposal, RefusedError
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.model import Notebook, read_notebook
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import Scopes, arguments
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.notebook.training import TrainingPlace, find_training
from tf_mem_magic.notebook.uses import called_name, is_tape

INFERENCE = frozenset({"predict", "evaluate", "predict_on_batch", "test_on_batch"})
TRAINING = frozenset({"fit", "fit_generator", "train_on_batch"})


class Ask:
    """One question to the remedies: what is known of a run, and the notebook as text.

    Every part is computed where it is asked for the first time, and shared by all remedies. A part that cannot be had
    (the cell is no Python, no training is found) raises :class:`RefusedError` with the reason, each time.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def recording(self) -> Recording:
        """The run."""
        return self.context.recording

    @property
    def facts(self) -> Facts:
        """What was read from the live objects."""
        return self.context.recording.facts

    @property
    def diagnosis(self) -> Diagnosis | None:
        """Why memory ran out; None where that is not known, or the run went well."""
        return self.context.diagnosis

    @property
    def situation(self) -> SituationKind | None:
        """What was being made when memory ran out; None where nothing tells."""
        found = self.diagnosis.situation if self.diagnosis is not None else None
        return None if found is None else found.kind

    @property
    def points(self) -> tuple[Point, ...]:
        """Measured runs of this cell with other batch sizes."""
        return self.context.points

    @property
    def picked(self) -> tuple[str, ...] | None:
        """The names that a person has ticked; None: nobody was asked."""
        return self.context.picked

    @property
    def source(self) -> str:
        """The cell as it ran: the ``original`` of every proposal."""
        return self.context.cell.source

    @cached_property
    def notebook(self) -> Notebook:
        """The cell and the cells before it."""
        return read_notebook(self.source, self.facts.earlier_cells, self.context.titles)

    @property
    def cell(self) -> PythonCell:
        """The cell as Python; refused where it is none."""
        return self.notebook.cell

    @property
    def names(self) -> KerasNames:
        """Names resolved to Keras's own."""
        return self.notebook.names

    @property
    def scopes(self) -> Scopes:
        """The cell's scopes, bindings and reads."""
        return self.notebook.scopes

    @property
    def texts(self) -> tuple[str, ...]:
        """The sources of all cells, this one's first."""
        return self.notebook.texts

    @cached_property
    def reader(self) -> Reader:
        """What follows values through the cell; refused where the cell is no Python."""
        return Reader(self.cell, self.facts)

    @property
    def line(self) -> int | None:
        """The line of the tree that ran out of memory; None where that is not known."""
        return None if self.diagnosis is None else self.cell.line_of(self.diagnosis.line)

    @property
    def failing_statement(self) -> ast.stmt | None:
        """The cell's own statement in which memory ran out; None where the line is not known, or several share it."""
        return self.notebook.statement_in(self.line)

    @property
    def lines(self) -> tuple[int, ...]:
        """The lines of the tree that led to the error, outermost first; the diagnosed one where no frame tells."""
        above = dropped_lines(self.source)
        frames = [frame for error in self.recording.errors[:1] for frame in error.frames if frame.in_cell]
        if not frames and self.line is not None:
            return (self.line,)
        return tuple(line for frame in frames if (line := self.cell.line_of(frame.line + above)) is not None)

    @cached_property
    def failing(self) -> tuple[ast.Call, ...]:
        """The calls of the cell on the way to the error, innermost first; none where the line is not known."""
        return self.notebook.failing(self.line)

    @cached_property
    def _place(self) -> TrainingPlace | str:
        return find_training(self.cell, self.names, self.facts, self.diagnosis)

    @property
    def place(self) -> TrainingPlace:
        """Where the cell trains, and which model; refused where that is not found."""
        if isinstance(self._place, str):
            raise RefusedError(self._place)
        return self._place

    def model_of(self, expr: ast.expr) -> ModelFacts:
        """Give the facts of the Keras model that an expression of the failing line holds, on which a method was called.

        A name of a function's own is believed to be that model only where the error shows that Keras was called.
        """
        text = self.cell.text(expr)
        found = self.facts.model(text)
        if found is None:
            raise RefusedError(self.why_unknown(text))
        if not self.is_shared(expr) and not self._keras_was_called:
            raise RefusedError(f"`{text}` is a name of a function there, and what it holds is not known")
        return found

    def value_of(self, expr: ast.expr) -> NamedValue | None:
        """Give the facts of the array or tensor that the failing line reads as ``expr``; None where not known.

        A name, or a part of what a name holds (``data["x"]``).
        """
        text = ast.unparse(expr)
        read = next((one for one in self.facts.inputs if one.name == text), None)
        return self.facts.value(text) or read if self.is_shared(expr) else read

    def is_shared(self, expr: ast.expr) -> bool:
        """Whether all names in an expression of the cell are the notebook's, not those of a function of its own."""
        names = (n for n in ast.walk(expr) if isinstance(n, ast.Name))
        return all(self.scopes.home(name) is self.cell.tree for name in names)

    @property
    def _keras_was_called(self) -> bool:
        """Whether the code of the cell that ran out last called Keras itself, not something in between."""
        frames = self.recording.errors[0].frames if self.recording.errors else ()
        last = max((n for n, frame in enumerate(frames) if frame.in_cell), default=None)
        after = frames[last + 1 : last + 2] if last is not None else ()
        return any(_KERAS_FILE.search(frame.file) is not None for frame in after)

    def statement(self, node: ast.AST) -> ast.stmt:
        """Give the cell's own statement that holds ``node``."""
        return self.scopes.top_statement(node)

    @property
    def model(self) -> ModelFacts:
        """The facts of the model that the cell trains; refused where it is not known."""
        place = self.place
        if place.facts is None:
            raise RefusedError(self.why_unknown(place.model))
        return place.facts

    def why_unknown(self, model: str) -> str:
        """Say why nothing is known of what the text calls ``model``: a parameter, or no model of Keras."""
        if not model:
            return _NO_MODEL
        for function in (node for node in self.cell.nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            inside = function.lineno <= (self.line or 0) <= (function.end_lineno or function.lineno)
            if inside and any(argument.arg == model for argument in arguments(function.args)):
                return f"`{model}` is a parameter of `{function.name}`, and which model it is given is not followed"
        return f"`{model}` is not known to be a Keras model"

    @property
    def host_ran_out(self) -> bool:
        """Whether it was the computer's own memory that ran out."""
        return self.diagnosis is not None and "host" in (self.diagnosis.device, self.diagnosis.cause)

    @cached_property
    def inference(self) -> str:
        """The method of Keras's inference that ran out of memory (``predict``); empty where it was not that.

        The validation in ``fit`` belongs to the training.
        """
        ran = {frame.function for error in self.recording.errors for frame in error.frames} & (TRAINING | INFERENCE)
        if not ran:  # where the frames tell it, another call in the same line tells nothing
            ran = {called_name(call) for call in self.failing}
        return "" if ran & TRAINING else min(ran & INFERENCE, default="")

    @cached_property
    def gradients(self) -> str:
        """The call whose gradients ran out of memory (``fit``, ``GradientTape``); empty where it was not that."""
        ran = {frame.function for error in self.recording.errors for frame in error.frames} & (TRAINING | INFERENCE)
        ran = ran or {called_name(call) for call in self.failing} & (TRAINING | INFERENCE)
        if ran:
            return min(ran & TRAINING, default="")
        taken = {called_name(call) for call in self.failing} & _TAKES_GRADIENTS
        return "GradientTape" if taken or (self.line and under_tape(self.cell, self.line)) else ""

    def edit(self) -> Editor:
        """Give an editor of the cell."""
        return self.notebook.edit()


_KERAS_FILE = re.compile(r"[\\/]keras[\\/]src[\\/]")
_NO_MODEL = "no model is known"
_TAKES_GRADIENTS = frozenset({"GradientTape", "gradient", "apply_gradients"})


def under_tape(cell: PythonCell, line: int) -> bool:
    """Whether ``line`` stands in a ``with`` that records on a tape."""
    blocks = (n for n in cell.nodes if isinstance(n, ast.With) and n.lineno <= line <= (n.end_lineno or n.lineno))
    return any(map(is_tape, blocks))


Body = Callable[[Ask], "Proposal | Declined | Iterable[Proposal | Declined]"]
Guard = Callable[[Ask], None]


class Answering:
    """A remedy's ``propose``: its guards first, then its body; whatever refuses is its decline."""

    def __init__(self, key: str, title: str, guards: tuple[Guard, ...], body: Body) -> None:
        self.key, self.title, self.guards, self.body = key, title, guards, body
        self.__doc__ = body.__doc__

    def __call__(self, context: Context) -> Answer:
        """Answer about a context."""
        return self.answer(Ask(context))

    def answer(self, ask: Ask) -> Answer:
        """Answer a question whose parts other remedies may have computed already."""
        try:
            for guard in self.guards:
                guard(ask)
            given = self.body(ask)
        except RefusedError as refused:
            return (refused.declined(self.key, self.title),)
        return (given,) if isinstance(given, (Proposal, Declined)) else tuple(given)


def remedy(key: str, title: str, guards: tuple[Guard, ...] = ()) -> Callable[[Body], Answering]:
    """Make a function that answers an :class:`Ask` a remedy's ``propose``.

    The function gives a proposal, a decline, or several of them, and refuses by :class:`RefusedError` wherever it is.
    ``guards`` are asked before it, in their order (:mod:`tf_mem_magic.remedies._engine.guards`).
    """
    return lambda body: Answering(key, title, guards, body)
