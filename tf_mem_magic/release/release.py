"""Letting go of what a failed run made, before its cell runs again."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_mem_magic.facts.kinds import is_a
from tf_mem_magic.notebook.read_first import assigned_names, compiled_first, rebuilt_names
from tf_mem_magic.release.counted import bytes_in_use, collect, gained, listed, words
from tf_mem_magic.release.errors import forget_error
from tf_mem_magic.release.optimizers import begin_anew, built_for_what_goes

if TYPE_CHECKING:
    from tf_mem_magic.facts.before import Before

SMALL = (types.ModuleType, type, int, float, complex, bool, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Released:
    """What was let go: the ``names``, and the bytes that came back by series name (allocators that count).

    ``anew``: the optimizers of earlier cells that begin anew.
    """

    names: tuple[str, ...] = ()
    bytes: tuple[tuple[str, int], ...] = ()
    anew: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say it to the user; nothing where nothing worth saying happened."""
        back = words(self.bytes)
        said = []
        if self.names and back:
            said.append(f"Released before this run: {listed(self.names)} of the run before it ({back}).")
        if self.anew:
            begin, it = ("begins", "it") if len(self.anew) == 1 else ("begin", "them")
            said.append(
                f"{listed(self.anew)} {begin} anew: the run before had built {it} for a model that is made anew."
            )
        return tuple(said)


def release_run(
    shell: Any, before: Before, source: str, results: list[Any] | None = None, changed: str = ""
) -> Released:
    """Let go of what a run of ``source`` made, so that running the cell again starts from where that run started.

    A name is let go where the run bound it to something new and the next run does not need it: it was unbound
    before the run, or the cell binds it anew before reading it. What another name, list, function or module holds
    lives on; what existed before the run is never touched, but for optimizers that it built for models which go.

    Parameters
    ----------
    shell : InteractiveShell
        The shell whose names are meant.
    before : Before
        What the names held when that run began (:func:`tf_mem_magic.facts.before.snapshot`).
    source : str
        The cell as it ran.
    results : list, optional
        What reruns of the cell gave that IPython does not keep under the cell's own number; emptied here.
    changed : str
        The cell that runs next: models that it compiles anew first let go of the optimizer that they have.
    """
    counted = bytes_in_use()
    forget_error(shell)
    namespace = shell.user_ns
    anew = rebuilt_names(source)
    names = tuple(
        name
        for name in sorted(assigned_names(source))
        if name in namespace
        and (name not in before.names or name in anew)
        and not is_a(namespace[name], SMALL)
        and not before.held(name, namespace[name])
    )
    values = [namespace[name] for name in names]
    optimizers = built_for_what_goes(namespace, before, names)
    for name in names:
        del namespace[name]
    values += _results_of(shell, before, source)
    forget_results(shell, [*values, *(results or ())])
    values.clear()
    if results:
        results.clear()
    _forget_validation(namespace)
    forget_optimizers(namespace, changed)
    begun = begin_anew(optimizers)
    optimizers.clear()
    collect()
    return Released(names, gained(counted, bytes_in_use()), begun)


def _forget_validation(namespace: Mapping[str, Any]) -> None:
    """Drop the validation data that a ``fit`` which failed left on its model.

    Keras removes them only where ``fit`` ends well; the next ``fit`` would use them again, in their old batches.
    """
    from tf_mem_magic.facts.models import find_models
    from tf_mem_magic.facts.names import reachable

    for _, model in find_models(reachable(namespace)):
        try:
            if getattr(model, "_eval_epoch_iterator", None) is not None:
                model._eval_epoch_iterator = None
        except Exception:  # a model class with attributes of its own making
            continue


def forget_optimizers(namespace: Mapping[str, Any], source: str) -> None:
    """Let models that ``source`` compiles before anything else reads them go of their optimizer and training graph.

    ``compile`` would do that too, but both live in circles of references: until Python's collector runs, what the old
    optimizer keeps for each weight would lie beside what the new one keeps.
    """
    from tf_mem_magic.facts.models import find_models
    from tf_mem_magic.facts.names import reachable

    names = compiled_first(source)
    called = [value for value in namespace.values() if isinstance(value, types.FunctionType)] if names else []
    names -= {name for function in called for name in function.__code__.co_names}
    for name, model in find_models(reachable({name: namespace[name] for name in names if name in namespace})):
        if name not in names or getattr(model, "optimizer", None) is None:
            continue
        try:
            del model.optimizer  # Keras's own record of what to save goes with the attribute
            model.optimizer = None
            model.train_function = None
            model._compile_config = None
            model.compiled = False
        except Exception:  # a model class with attributes of its own making
            continue


def _results_of(shell: Any, before: Before, source: str) -> list[Any]:
    """List the results in ``Out`` that runs of this very cell gave since ``before``."""
    raw = shell.history_manager.input_hist_raw
    return [
        value
        for count, value in list(shell.user_ns.get("Out", {}).items())
        if f"Out[{count}]" not in before.names
        and isinstance(count, int)
        and count < len(raw)
        and raw[count].rstrip() == source.rstrip()
    ]


def forget_results(shell: Any, values: list[Any]) -> None:
    """Take ``values`` out of IPython's memory of results: ``Out``, ``_``, ``__``, ``___``, ``_3``."""
    ids = {id(value) for value in values if not is_a(value, SMALL)}
    results = shell.user_ns.get("Out", {})
    for count in [c for c, value in results.items() if id(value) in ids]:
        del results[count]
    for names in (shell.user_ns, shell.user_ns_hidden):
        for name in [n for n, value in names.items() if id(value) in ids and _is_result_name(n)]:
            del names[name]
    hook = shell.displayhook
    for name in ("_", "__", "___"):
        if id(getattr(hook, name, None)) in ids:
            setattr(hook, name, "")
            shell.user_ns[name] = ""
    last = getattr(shell, "last_execution_result", None)
    if last is not None and id(last.result) in ids:
        last.result = None


def _is_result_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_\d+|_{1,3}", name) is not None
