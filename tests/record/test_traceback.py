"""Live exceptions as text: the chain, the user's own frames, and that nothing is kept alive."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import ErrorText
from tf_mem_magic.diagnose.oom import find_oom
from tf_mem_magic.facts.frames import is_user_file
from tf_mem_magic.record.traceback import to_error_texts

PROJECT = Path(__file__).resolve().parents[2]
CELL = "/tmp/ipykernel_7/1.py"
EARLIER = "/tmp/ipykernel_7/2.py"


def run(source, file=CELL, namespace=None):
    """Run ``source`` as a cell and give the exception."""
    try:
        exec(compile(source, file, "exec"), {} if namespace is None else namespace)
    except BaseException as error:
        return error
    raise AssertionError("the cell raised nothing")


def texts(source, **kwargs):
    return to_error_texts(run(source, **kwargs), {CELL})


def user_frames(error):
    return [(f.file, f.line, f.function, f.in_cell) for f in error.frames if f.is_user]


def test_frames_begin_at_the_cell():
    (error,) = texts("def f():\n    1 / 0\nf()")
    assert [(CELL, 3, "<module>", True), (CELL, 2, "f", True)] == user_frames(error)


def test_what_ran_the_cell_is_left_out():
    (error,) = texts("1 / 0")
    assert [CELL] == [f.file for f in error.frames]


def test_an_earlier_cells_function_is_the_users_but_not_in_this_cell():
    namespace = {}
    exec(compile("def f():\n    1 / 0", EARLIER, "exec"), namespace)
    (error,) = texts("\nf()", namespace=namespace)
    assert [(CELL, 2, "<module>", True), (EARLIER, 2, "f", False)] == user_frames(error)


def test_an_imported_module_of_the_user_is_the_users(tmp_path):
    (tmp_path / "loop.py").write_text("def step():\n    1 / 0\n")
    source = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\ntry:\n    import loop\nfinally:\n    del sys.path[0]\nloop.step()"
    (error,) = texts(source)
    sys.modules.pop("loop")
    assert [(CELL, 7, "<module>", True), (str(tmp_path / "loop.py"), 2, "step", False)] == user_frames(error)


def test_the_standard_library_is_not_the_users():
    (error,) = texts("import json\njson.loads('{')")
    assert [(CELL, 2, "<module>", True)] == user_frames(error)


@pytest.mark.parametrize(
    "file",
    [
        json.__file__,
        pytest.__file__,
        str(PROJECT / "tf_mem_magic" / "core" / "oom.py"),
        "<frozen importlib._bootstrap>",
        "<string>",
        "/tmp/__autograph_generated_fileab12.py",
        "/usr/lib/python3/dist-packages/numpy/core.py",
    ],
)
def test_code_of_others_is_not_the_users(file):
    assert not is_user_file(file)


@pytest.mark.parametrize(
    "file", [CELL, "<ipython-input-3-0a1b2c>", "C:\\Users\\me\\Temp\\ipykernel_12\\345.py", "/home/me/project/train.py"]
)
def test_cells_and_files_of_projects_are_the_users(file):
    assert is_user_file(file)


def test_an_exception_raised_below_the_cell_is_placed_by_its_callers():
    def callback():
        try:
            {}["x"]
        except KeyError as error:
            found.extend(to_error_texts(error, {CELL}))

    found = []
    exec(compile("\n\ncallback()", CELL, "exec"), {"callback": callback})
    assert (CELL, 3, "<module>", True) == user_frames(found[0])[0]


# Chains


def types(source):
    return [error.type for error in texts(source)]


def test_a_cause_follows_the_raised_exception():
    source = "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError('x') from e"
    assert ["KeyError", "ZeroDivisionError"] == types(source)


def test_an_error_in_a_handler_is_followed_by_the_one_it_handled():
    assert ["KeyError", "ZeroDivisionError"] == types("try:\n    1 / 0\nexcept Exception:\n    {}['x']")


def test_an_exception_that_the_user_replaced_is_left_out():
    assert ["KeyError"] == types("try:\n    1 / 0\nexcept Exception:\n    raise KeyError('x') from None")


def test_the_exception_that_keras_replaced_by_its_own_is_kept():
    text = "Exception encountered when calling Wide.call()."
    source = f"try:\n    1 / 0\nexcept Exception:\n    raise RuntimeError({text!r}) from None"
    assert ["RuntimeError", "ZeroDivisionError"] == types(source)


def test_a_chain_that_bites_its_tail_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert ["a", "b"] == [error.message for error in to_error_texts(first)]


def test_a_very_long_chain_is_cut():
    error = None
    for _ in range(100):
        outer = ValueError()
        outer.__cause__, error = error, outer
    assert 32 == len(to_error_texts(error))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_the_members_of_an_exception_group_follow_it_in_order():
    source = "raise ExceptionGroup('both', [MemoryError('one'), ExceptionGroup('inner', [KeyError('two')])])"
    assert ["ExceptionGroup", "MemoryError", "ExceptionGroup", "KeyError"] == types(source)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_notes_follow_the_message():
    (error,) = texts("e = ValueError('first')\ne.add_note('second')\nraise e")
    assert "first\nsecond" == error.message


def test_an_exception_that_cannot_be_written_has_no_message():
    source = "class Bad(Exception):\n    def __str__(self):\n        raise ValueError\nraise Bad"
    assert ("Bad", "") == (texts(source)[0].type, texts(source)[0].message)


def test_bases_are_qualified_names():
    source = "class Mine(MemoryError):\n    pass\nraise Mine"
    (error,) = texts(source, namespace={"__name__": "place"})
    assert ("place.Mine", "builtins.MemoryError", "builtins.Exception", "builtins.BaseException") == error.bases


def test_neither_the_exception_nor_what_its_frames_hold_is_kept_alive():
    class Held:
        pass

    def raising():
        held = Held()
        references.append(weakref.ref(held))
        raise ValueError("x")

    references = []
    result = to_error_texts(run("raising()", namespace={"raising": raising}), {CELL})
    gc.collect()
    assert (None, "ValueError") == (references[0](), result[0].type)


# Frames that only the text tells


def told(message, source="raise ValueError(message)", namespace=None):
    return user_frames(texts(source, namespace={"message": message, **(namespace or {})})[0])


def stack(*frames):
    lines = "\n\n".join(f'  File "{file}", line {line}, in {function}' for file, line, function in frames)
    return f"Graph execution error:\n\nDetected at node mul defined at (most recent call last):\n{lines}\n\nOOM"


def test_a_function_that_a_graph_runs_is_added_from_the_text():
    message = stack((CELL, 1, "<module>"), ("/v/site-packages/keras/x.py", 5, "fit"), (CELL, 12, "train_step"))
    assert [(CELL, 1, "<module>", True), (CELL, 12, "train_step", True)] == told(message)


def test_the_call_that_traced_a_graph_earlier_does_not_replace_this_runs_call():
    message = stack((EARLIER, 7, "<module>"), ("/v/site-packages/keras/x.py", 5, "fit"))
    assert [(CELL, 1, "<module>", True)] == told(message)


def test_a_function_on_the_live_traceback_is_not_repeated_from_the_text():
    message = stack((CELL, 9, "<cell line: 9>"), (CELL, 2, "f"), (CELL, 5, "step"))
    source = "def f():\n    raise ValueError(message)\nf()"
    expected = [(CELL, 3, "<module>", True), (CELL, 2, "f", True), (CELL, 5, "step", True)]
    assert expected == told(message, source)


def test_a_second_detected_nodes_stack_is_not_read():
    message = stack((CELL, 1, "<module>"), (CELL, 12, "first")) + "\n" + stack((CELL, 1, "<module>"), (CELL, 20, "two"))
    assert (CELL, 12, "first", True) == told(message)[-1]


# The real thing. The function comes first: the pool that the others leave has no piece as large as it needs.

LIVE = ("function", "eager", "fit", "run_eagerly", "data_map", "py_function", "numpy_in_layer", "absurd_shape", "jit")
PLACES = {
    "eager": [3],
    "function": [10, 9, 5],
    "fit": [11],
    "run_eagerly": [11],
    "data_map": [4],
    "py_function": [5, 4],
    "numpy_in_layer": [6, 5],
    "absurd_shape": [2],
    "jit": [11],
}
RUNNER = """
import gc, sys
sys.path[:0] = sys.argv[1:3]
import capture_errors
for name in sys.argv[3:]:
    print("@@@" + name, flush=True)
    capture_errors.run_case(capture_errors.CASES[name])
    sys.stdout.flush()
    gc.collect()
"""


@pytest.fixture(scope="module")
def live():
    """Raise each case for real, all in one process that ends with the one under XLA."""
    data = PROJECT / "tests" / "data"
    sys.path.insert(0, str(data))
    try:
        import capture_errors
    finally:
        sys.path.remove(str(data))
    command = [sys.executable, "-c", RUNNER, str(PROJECT), str(data), *LIVE]
    done = subprocess.run(
        command, env={**os.environ, **capture_errors.ALLOCATOR}, capture_output=True, text=True, timeout=900
    )
    blocks = done.stdout.split("@@@")[1:]
    saved = zip((name.strip() for name in blocks[::2]), map(json.loads, blocks[1::2]))
    return {name: decode(json.dumps(one["errors"]).encode(), tuple[ErrorText, ...]) for name, one in saved}


@pytest.mark.tf
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("case", LIVE)
def test_a_live_error_is_judged_and_placed(live, case):
    found = find_oom(live[case], Facts(), ())
    # Python before 3.12 gives a comprehension a frame of its own.
    lines = [f.line for f in live[case][0].frames if f.in_cell and f.function != "<listcomp>"]
    assert (case != "absurd_shape", PLACES[case]) == (found is not None, lines)


@pytest.mark.parametrize("raised", ["SystemExit", "GeneratorExit", "RuntimeError", "type('Odd', (BaseException,), {})"])
def test_an_error_that_raises_when_it_is_asked_has_no_message(raised):
    (text,) = texts(f"class Mute(Exception):\n    def __str__(self): raise {raised}\nraise Mute()")
    assert ("Mute", "") == (text.type, text.message)


@pytest.mark.parametrize("field", ["exceptions", "__notes__"])
@pytest.mark.parametrize("raised", ["SystemExit", "ValueError"])
def test_a_part_of_an_error_that_raises_when_it_is_asked_for_is_left_out(field, raised):
    made = f"class Odd(Exception):\n    @property\n    def {field}(self): raise {raised}\nraise Odd('told')"
    (text,) = texts(made)
    assert ("Odd", "told") == (text.type, text.message)


def test_a_stop_while_an_error_is_asked_goes_through():
    error = run("class Slow(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise Slow()")
    with pytest.raises(KeyboardInterrupt):
        to_error_texts(error)
