"""What a trace sets in Python is put back."""

import functools
import random
import sys
import threading
from collections import OrderedDict, deque
from typing import ClassVar
from weakref import WeakKeyDictionary

import pytest

from tf_mem_magic.trace.untouched import TooManyError, untouched


class Thing:
    """Of a class as a notebook defines it."""

    __module__ = "__main__"


def test_attributes_lists_dicts_and_sets_are_as_they_were():
    thing, inner = Thing(), Thing()
    thing.inner, thing.list, thing.dict, thing.set = inner, [1, [2]], {"a": {"b": 1}}, {1}
    before = (thing.list, thing.dict, thing.set)
    with untouched(thing):
        thing.new, inner.built = 1, True
        thing.list[1].append(3)
        thing.list += [4]
        thing.dict["a"]["b"] = 2
        thing.set.add(5)
        del thing.inner
    assert vars(thing).keys() == {"inner", "list", "dict", "set"}
    assert (thing.list, thing.dict, thing.set) == ([1, [2]], {"a": {"b": 1}}, {1})
    assert all(one is other for one, other in zip(before, (thing.list, thing.dict, thing.set)))
    assert vars(inner) == {}


def test_they_are_after_an_error_too():
    thing = Thing()

    def fail():
        with untouched(thing):
            thing.new = 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert vars(thing) == {}


class Stops:
    """Is stopped at while it is put back, once."""

    is_armed = False

    def __hash__(self):
        if Stops.is_armed:
            Stops.is_armed = False
            raise KeyboardInterrupt
        return 1


def test_a_stop_on_the_way_back_leaves_nothing_half_done():
    thing, inner = Thing(), Thing()
    thing.inner, thing.set = inner, {Stops()}

    def stop():
        with untouched(thing):
            thing.new = inner.new = 1
            Stops.is_armed = True

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert (vars(thing).keys(), vars(inner), Stops.is_armed) == ({"inner", "set"}, {}, False)


def test_the_order_of_entries_is_put_back():
    thing = Thing()
    thing.names = {"a": 1, "b": 2}
    with untouched(thing):
        thing.names["a"] = thing.names.pop("a")
    assert list(thing.names) == ["a", "b"]


def test_random_numbers_go_on_as_if_nothing_was_drawn():
    random.seed(3)
    with untouched():
        drawn = random.random()
    assert random.random() == drawn


def test_lists_that_hold_themselves_end():
    thing = Thing()
    thing.loop = [thing]
    thing.loop.append(thing.loop)
    with untouched(thing):
        thing.loop.clear()
    assert len(thing.loop) == 2


class Tracked(list):
    """Keeps its entries twice, as TensorFlow's lists do."""

    def __init__(self, entries):
        super().__init__(entries)
        self.storage = list(entries)

    def append(self, entry):
        super().append(entry)
        self.storage.append(entry)


def test_a_list_that_keeps_its_entries_twice_is_put_back_whole():
    thing = Thing()
    thing.variables = Tracked([1])
    with untouched(thing):
        thing.variables.append(2)
    assert (list(thing.variables), thing.variables.storage) == ([1], [1])


def test_ordered_dicts_and_queues_are_as_they_were():
    thing = Thing()
    thing.cache, thing.recent = OrderedDict(a=1, b=2), deque([1, 2], maxlen=2)
    with untouched(thing):
        thing.cache.move_to_end("a")
        thing.cache["c"] = 3
        thing.recent.append(3)
    assert list(thing.cache.items()) == [("a", 1), ("b", 2)]
    assert (list(reversed(thing.cache)), thing.recent) == (["b", "a"], deque([1, 2], maxlen=2))


class Function:
    """Keeps what its first call made, and a copy of itself for each object that it is a method of."""

    __module__ = "tensorflow.python.eager.polymorphic_function.polymorphic_function"

    def __init__(self):
        self.created, self.cache = None, WeakKeyDictionary()

    def __get__(self, instance, owner=None):
        return self if instance is None else self.cache.setdefault(instance, Function())


class Decorated(Thing):
    __module__ = "__main__"
    step = Function()


def test_a_method_under_tf_function_forgets_that_its_first_call_was_traced():
    fresh, used = Decorated(), Decorated()
    known = used.step
    for one in (fresh, used):
        with untouched(one):
            one.step.created = ["a variable"]
    assert (used.step is known, used.step.created, fresh.step.created) == (True, None, None)


def test_a_model_that_holds_its_data_entry_by_entry_is_not_walked_through(monkeypatch):
    monkeypatch.setattr("tf_mem_magic.trace.untouched.MOST_ENTRIES", 100)
    thing = Thing()
    thing.data = list(range(200))
    with pytest.raises(TooManyError), untouched(thing):
        pass


SEEN: list[int] = []
COUNT = 0


def remember(x):
    global COUNT, FRESH
    COUNT, FRESH = COUNT + 1, 1
    SEEN.append(x)
    return x


class Counts(Thing):
    """Calls functions of the notebook's, and keeps something at its class and in a default."""

    __module__ = "__main__"
    calls: ClassVar[list[int]] = []
    total = 0

    def call(self, x, cache={}):  # noqa: B006
        Counts.total += 1
        Counts.new = True
        self.calls.append(x)
        cache[x] = x
        return remember(x)

    @staticmethod
    def helper(x):
        SEEN.insert(0, x)

    @property
    def size(self):
        SEEN.append("size")
        return 1


def test_globals_that_a_models_functions_change_are_as_they_were():
    thing = Counts()
    with untouched(thing):
        thing.call(1)
        thing.helper(2)
        _ = thing.size
        assert (len(SEEN), COUNT, Counts.total) == (3, 1, 1)
    assert (SEEN, COUNT, "FRESH" in globals()) == ([], 0, False)
    assert (Counts.calls, Counts.total, hasattr(Counts, "new"), Counts.call.__defaults__) == ([], 0, False, ({},))


def test_variables_of_enclosing_functions_are_as_they_were():
    count, seen = 0, []

    def loss(x):
        nonlocal count
        count += 1
        seen.append(x)

    thing = Thing()
    thing.loss = functools.partial(lambda f, x: f(x), loss)
    with untouched(thing):
        thing.loss(1)
    assert (count, seen) == (0, [])


def test_a_bound_method_is_looked_into_too():
    holder, thing = Counts(), Thing()
    thing.loss = holder.call
    with untouched(thing):
        thing.loss(4)
        holder.mark = 1
    assert (SEEN, vars(holder)) == ([], {})


def test_an_attribute_is_never_missing_while_it_is_put_back():
    """Another thread may read it, and its dict is in another order afterwards."""
    thing = Thing()
    vars(thing).update({f"a{i}": i for i in range(2000)})
    done, missing = threading.Event(), []

    def read():
        while not done.is_set():
            if not hasattr(thing, "a1000") or not hasattr(thing, "a1"):
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            with untouched(thing):
                vars(thing)["a0"] = vars(thing).pop("a0")
                thing.new = 1
    finally:
        sys.setswitchinterval(before)
        done.set()
        reader.join()
    assert (missing, list(vars(thing))[:2], len(vars(thing))) == ([], ["a0", "a1"], 2000)
