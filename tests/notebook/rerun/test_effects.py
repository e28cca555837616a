"""What a cell does outside its names."""

import pytest

from tf_mem_magic.notebook.rerun.effects import Effect, effects_of, function_effects, only_defines


def kinds(source, functions=None):
    return sorted({e.kind for e in effects_of(source, functions)})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from google.colab import drive\ndrive.mount('/content/drive')", ["mounts"]),
        ("!mount -t nfs a b", ["mounts", "shell"]),
        ("%pip install keras", ["installs"]),
        ("!pip install -q keras", ["installs", "shell"]),
        ("!apt-get -y install gcc", ["installs", "shell"]),
        ("subprocess.run([sys.executable, '-m', 'pip', 'install', 'keras'])", ["installs", "shell"]),
        ("os.system('rm -rf data')", ["deletes", "shell"]),
        ("shutil.rmtree('data')", ["deletes"]),
        ("Path('a').unlink()", ["deletes"]),
        ("name = input('who?')", ["asks"]),
        ("import getpass\nkey = getpass.getpass()", ["asks"]),
        ("model.fit(x, y)", ["trains"]),
        ("get_ipython().kernel.do_shutdown(True)", ["exits"]),
        ("os._exit(0)", ["exits"]),
        ("files = !ls", ["shell"]),
        ("%%bash\nrm -r data\npip install keras", ["deletes", "installs", "shell"]),
        ("%%time\nmodel.fit(x)", ["trains"]),
        ("%timeit x + 1", []),
        ("df.drop('a')", []),
        ("scaler.transform(x)", []),
        ("def go():\n    model.fit(x)", []),
        ("run = lambda: model.fit(x)", []),
        ("this is no python", []),
    ],
)
def test_the_effects_of_a_cell(source, expected):
    assert expected == kinds(source)


def test_a_function_of_the_cell_counts_where_it_is_called():
    assert (Effect("trains", "", 3),) == effects_of("def go():\n    model.fit(x)\ngo()")


def test_a_function_of_an_earlier_cell_counts_where_it_is_called():
    assert ["trains"] == kinds("train()", function_effects("def train():\n    model.fit(x)"))


def test_a_function_that_calls_another_one_has_its_effects():
    source = "def outer():\n    inner()\ndef inner():\n    model.fit(x)\n"
    assert ["trains"] == kinds("outer()", function_effects(source))


@pytest.mark.parametrize("source", ["import os\n\ndef f():\n    input()\n\nN = 3\n", "%%tfmem\nimport os", "# nothing"])
def test_a_cell_of_imports_and_definitions_only_defines(source):
    assert only_defines(source)


@pytest.mark.parametrize("source", ["x = f()", "import os\n!ls", "for i in x:\n    pass", "a = = 1", "%%bash\nls"])
def test_a_cell_that_does_something_does_not_only_define(source):
    assert not only_defines(source)
