"""What running a cell does outside its names: files, packages, drives, questions, training; read from its source.

Nothing is run or looked up: a call counts by how it is written. Bodies of functions count only where the function
is called.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tf_mem_magic.notebook.text.cell import parse
from tf_mem_magic.notebook.text.mask import Masked, mask, split_lines

Kind = Literal["writes", "deletes", "installs", "mounts", "asks", "trains", "shell", "exits"]


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect: its ``kind``, what it names (a file as written in the source; may be empty), and the line."""

    kind: Kind
    name: str
    line: int


def effects_of(source: str, functions: Mapping[str, tuple[Effect, ...]] | None = None) -> tuple[Effect, ...]:
    """List the effects of running a cell, in the order of its lines.

    Parameters
    ----------
    source : str
        The cell.
    functions : mapping of str to tuple of Effect, optional
        Effects of functions that earlier cells define, by name (:func:`function_effects`).
    """
    masked = mask(source)
    lines = split_lines(source)
    if not isinstance(masked, Masked):
        return tuple(_of_foreign_cell(lines))
    found = [effect for number in masked.hidden for effect in _of_line(lines[number - 1], number)]
    tree = parse(source)
    if tree is not None:
        known = {**(functions or {}), **_functions(tree, functions or {})}
        found += _of_nodes(tree.body, known)
    return tuple(sorted(dict.fromkeys(found), key=lambda e: e.line))


def function_effects(
    source: str, functions: Mapping[str, tuple[Effect, ...]] | None = None
) -> dict[str, tuple[Effect, ...]]:
    """List what the functions that a cell defines do when they are called, by name."""
    tree = parse(source)
    return {} if tree is None else _functions(tree, functions or {})


def only_defines(source: str) -> bool:
    """Whether the cell has nothing but imports, definitions, constants and comments."""
    masked = mask(source)
    if not isinstance(masked, Masked):
        return False
    lines = split_lines(source)
    if any(not lines[n - 1].startswith("%%") and lines[n - 1].strip() for n in masked.hidden):
        return False
    tree = parse(source)
    return tree is not None and all(_defines(statement) for statement in tree.body)


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return True
    value = getattr(statement, "value", None)
    plain = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Expr, ast.Pass))
    return plain and (value is None or not any(isinstance(n, (ast.Call, ast.Await)) for n in ast.walk(value)))


def _functions(tree: ast.Module, earlier: Mapping[str, tuple[Effect, ...]]) -> dict[str, tuple[Effect, ...]]:
    defined = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    known: dict[str, tuple[Effect, ...]] = dict(earlier)
    for _ in range(2):  # twice, so that a function may call one that stands below it
        for function in defined:
            # One effect of a kind on a file is enough: the line will be that of the call.
            found = {(e.kind, e.name): e for e in reversed(_of_nodes(function.body, known))}
            known[function.name] = tuple(sorted(found.values(), key=lambda e: e.line))
    return {function.name: known[function.name] for function in defined}


def _of_nodes(body: list[ast.stmt], functions: Mapping[str, tuple[Effect, ...]]) -> list[Effect]:
    found: list[Effect] = []
    for statement in body:
        for call in _calls(statement):
            found += _of_call(call)
            if isinstance(call.func, ast.Name):
                found += [replace(effect, line=call.lineno) for effect in functions.get(call.func.id, ())]
    return found


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that running ``node`` makes: those in the bodies of functions it defines are left out."""
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if isinstance(one, ast.Call):
            yield one
        left_out = isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        values = [value for name, value in ast.iter_fields(one) if not (left_out and name == "body")]
        inside = [child for value in values for child in (value if isinstance(value, list) else [value])]
        ahead += [child for child in reversed(inside) if isinstance(child, ast.AST)]


def dotted(node: ast.AST) -> str:
    """Give ``np.save`` for such an expression; a part that is no name becomes ``?``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


_PATH_FIRST = {"np.save", "np.savez", "np.savez_compressed", "np.savetxt", "numpy.save", "numpy.savez", "numpy.savetxt"}
_PATH_FIRST |= {"tf.io.write_file", "tf.io.TFRecordWriter", "tf.summary.create_file_writer", "numpy.savez_compressed"}
_PATH_SECOND = {"joblib.dump", "torch.save", "tf.saved_model.save", "urllib.request.urlretrieve", "urlretrieve"}
_PATH_SECOND |= {"shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move"}
_PATH_SECOND |= {"os.rename", "os.replace"}
_WRITERS = {"save", "save_weights", "save_model", "export", "savefig", "write_text", "write_bytes", "write_image"}
_WRITERS |= {"to_csv", "to_parquet", "to_pickle", "to_json", "to_excel", "to_hdf", "to_feather", "export_saved_model"}
_CALLBACKS = {"ModelCheckpoint": "filepath", "CSVLogger": "filename", "TensorBoard": "log_dir"}
_CALLBACKS |= {"BackupAndRestore": "backup_dir"}
_PATH_WORDS = ("filepath", "path", "path_or_buf", "fname", "filename", "file", "fp", "export_dir", "excel_writer")
_DELETERS = {"os.remove", "os.unlink", "os.rmdir", "os.removedirs", "shutil.rmtree", "tf.io.gfile.rmtree"}
_DELETERS |= {"tf.io.gfile.remove", "rmtree"}
_EXITS = {"exit", "quit", "sys.exit", "os._exit", "os.abort", "os.kill", "os.execv"}
_TRAINERS = {"fit", "fit_generator", "train_on_batch"}


def _of_call(call: ast.Call) -> Iterator[Effect]:
    name, line = dotted(call.func), call.lineno
    last = name.rpartition(".")[2]
    is_method = isinstance(call.func, ast.Attribute)
    path = _written_path(call, name, last, is_method)
    if path is not None:
        yield Effect("writes", path, line)
    if name in _DELETERS or (is_method and last in ("unlink", "rmdir")):
        yield Effect("deletes", _text(call.args[0]) if call.args else "", line)
    if name in ("input", "getpass", "getpass.getpass") or last == "raw_input":
        yield Effect("asks", "", line)
    if name == "drive.mount" or (last == "mount" and "drive" in name):
        yield Effect("mounts", "", line)
    if is_method and last in _TRAINERS:
        yield Effect("trains", "", line)
    if name in _EXITS or last in ("do_shutdown", "exit_now"):
        yield Effect("exits", "", line)
    if name in ("os.system", "os.popen") or name.startswith("subprocess."):
        yield Effect("shell", "", line)
        words = " ".join(n.value for n in ast.walk(call) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        yield from (replace(effect, line=line) for effect in _of_command(words, line) if effect.kind != "shell")


def _written_path(call: ast.Call, name: str, last: str, is_method: bool) -> str | None:
    if last == "open" or name == "tf.io.gfile.GFile":
        position = 0 if is_method and name not in ("io.open", "gzip.open", "tf.io.gfile.GFile") else 1
        mode = _argument(call, position, ("mode",))
        written = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) & set("wax+")
        if not written:
            return None
        if position == 0 and isinstance(call.func, ast.Attribute):
            return _text(call.func.value)
        return _text(call.args[0]) if call.args else ""
    if name in _PATH_FIRST:
        return _text(call.args[0]) if call.args else ""
    if name in _PATH_SECOND or last == "save_model":
        target = _argument(call, 1, _PATH_WORDS)
        return _text(target) if target is not None else None
    if last in _CALLBACKS:
        target = _argument(call, 0, (_CALLBACKS[last],))
        return _text(target) if target is not None else "logs" if last == "TensorBoard" else None
    if is_method and last in ("write_text", "write_bytes") and isinstance(call.func, ast.Attribute):
        return _text(call.func.value)
    if is_method and last in _WRITERS:
        target = _argument(call, 0, _PATH_WORDS)
        return None if target is None or _is_none(target) else _text(target)
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _argument(call: ast.Call, position: int, words: tuple[str, ...]) -> ast.expr | None:
    named = next((k.value for k in call.keywords if k.arg in words), None)
    if named is not None:
        return named
    return call.args[position] if len(call.args) > position else None


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    path = isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "Path" and len(node.args) == 1
    if path and isinstance(node, ast.Call):
        return _text(node.args[0])
    return ast.unparse(node)


_SCRIPTS = {"bash", "sh", "script", "cmd", "system", "sx", "perl", "ruby", "!"}


def _of_foreign_cell(lines: list[str]) -> Iterator[Effect]:
    start = next((i for i, line in enumerate(lines) if line.startswith("%%") and not line.startswith("%%tfmem")), None)
    if start is None:
        return
    words = lines[start][2:].split()
    if words[:1] and words[0] in ("writefile", "file"):
        target = next((w for w in words[1:] if not w.startswith("-")), "")
        yield Effect("writes", target, start + 1)
    elif words[:1] and words[0] in _SCRIPTS:
        yield Effect("shell", "", start + 1)
        for number, line in enumerate(lines[start + 1 :], start + 2):
            yield from (e for e in _of_command(line, number) if e.kind != "shell")


def _of_line(line: str, number: int) -> Iterator[Effect]:
    """Read a line that only IPython understands: ``!command``, ``%magic``, ``x = !command``."""
    text = line.strip()
    assigned = re.match(r"[\w\s,.\[\]'\"]+=\s*([!%].*)", text)
    text = assigned[1] if assigned else text
    if text.startswith("!"):
        yield from _of_command(text.lstrip("!"), number)
    elif text.startswith("%") and not text.startswith("%%"):
        word, _, rest = text[1:].strip().partition(" ")
        if word in ("pip", "conda", "mamba", "micromamba", "uv"):
            yield from (e for e in _of_command(f"{word} {rest}", number) if e.kind != "shell")
        elif word in ("sx", "system", "rm", "mv", "cp", "rmdir"):
            yield from _of_command(rest if word in ("sx", "system") else f"{word} {rest}", number)
        elif word == "save":
            yield Effect("writes", rest.split(" ")[0], number)


_INSTALL = re.compile(r"\b(?:pip3?|conda|mamba|micromamba|apt|apt-get|npm|uv)\b[^|;&]*?\b(?:install|add)\b")
_DELETE = re.compile(r"(?:^|[|;&]\s*)(?:sudo\s+)?(?:rm|rmdir|del|shred)\s+(?:-\S+\s+)*(\S+)")
_MOUNT = re.compile(r"(?:^|[|;&]\s*)(?:sudo\s+)?(?:mount|gcsfuse|rclone\s+mount)\b")
_WRITE = re.compile(r"(?<![0-9&>])>{1,2}\s*([^\s&>|;]+)")
_FETCH = re.compile(r"(?:^|[|;&]\s*)(?:sudo\s+)?(wget|curl|cp|mv|unzip|tar|touch|tee|git\s+clone|kaggle|gdown)\b")


def _of_command(command: str, number: int) -> Iterator[Effect]:
    text = command.strip()
    yield Effect("shell", text.split(" ")[0], number)
    if _INSTALL.search(text):
        yield Effect("installs", "", number)
    if _MOUNT.search(text):
        yield Effect("mounts", "", number)
    for found in _DELETE.finditer(text):
        yield Effect("deletes", found[1], number)
    for found in _WRITE.finditer(text):
        if found[1] != "/dev/null":
            yield Effect("writes", found[1], number)
    fetched = _FETCH.search(text)
    if fetched:
        yield Effect("writes", f"the files of `{fetched[1]}`", number)
