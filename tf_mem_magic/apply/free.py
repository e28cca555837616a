"""Let go of what earlier cells left in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any


def free(*names: str, save: Mapping[str, str] | None = None) -> None:
    """Let go of what the notebook's ``names`` hold, and say in a line how much memory came back.

    ``"Out[3]"`` names a result that IPython keeps. A Keras model that something hidden still refers to is emptied: its
    variables and its optimizer's give their memory back, and it cannot be used any more. A model or array that the
    notebook also reaches by a name that is not given stays. Names that are gone already are passed over, so that the
    cell can run again.

    Parameters
    ----------
    *names : str
        What to let go of.
    save : mapping of str to str, optional
        Files to save models in first, by the name that holds each: ``{"model": "model.keras"}``. Where one cannot be
        saved nothing is let go.

    Raises
    ------
    RuntimeError
        If this is no notebook: there the names are variables that ``del`` lets go of.
    """
    from tf_mem_magic.facts.names import own_names
    from tf_mem_magic.release.by_name import free as let_go

    shell = _shell()
    for name, file in (save or {}).items():
        _save(shell.user_ns, name, file)
    known = dict(own_names(shell.user_ns))
    results = {f"Out[{count}]": value for count, value in shell.user_ns.get("Out", {}).items()}
    held = {name: (known | results)[name] for name in names if name in known or name in results}
    used = dict(_used_elsewhere(shell.user_ns, held))
    for name, other in used.items():
        print(f"`{name}` stays: `{other}` holds it too.")
    wanted = tuple(name for name in held if name not in used)
    held.clear()
    known.clear()
    results.clear()
    if wanted:
        print(let_go(shell, wanted))


def _shell() -> Any:
    import sys

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        raise RuntimeError("apply.free lets go of a notebook's names, and this is no notebook: use del")
    return shell


def _save(namespace: Any, name: str, file: str) -> None:
    """Save the model that ``name`` (``nets[0]`` too) holds; one that is gone has been saved before."""
    from tf_mem_magic.facts.names import reachable

    model = dict(reachable(namespace)).get(name)
    if model is not None:
        model.save(file)
        print(f"Saved `{name}` as {file}.")


def _used_elsewhere(namespace: Any, held: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each name whose object another name, list, object or function of the notebook holds, with that other."""
    from tf_mem_magic.facts.names import own_names, reachable

    wanted = {id(value): name for name, value in held.items()}
    for other, value in [*reachable(namespace), *_closures(own_names(namespace))]:
        root = other.partition(".")[0].partition("[")[0]
        if id(value) in wanted and root not in held:
            yield wanted[id(value)], other


def _closures(pairs: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield what the notebook's functions, ``tf.function`` included, hold from where they were made."""
    for name, value in pairs:
        function = value.__func__ if isinstance(value, MethodType) else value
        if not isinstance(function, FunctionType):
            try:
                function = object.__getattribute__(value, "__dict__").get("_python_function")
            except AttributeError:
                continue
        for cell in getattr(function, "__closure__", None) or () if isinstance(function, FunctionType) else ():
            try:
                yield name, cell.cell_contents
            except ValueError:
                continue
