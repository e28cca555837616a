"""A real JupyterLab, driven in a real Chromium: for the tests marked ``browser``.

    with Lab(folder) as lab:
        lab.open("demo.ipynb")
        lab.run(0)

Nothing of the person's own Jupyter set-up is read or written: configuration, data and runtime files go to temporary
folders, and the server takes a free port.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.forked.kernels import options_for_server
from tests.needs import lacking

PROJECT = Path(__file__).resolve().parents[1]

# A slow, loaded machine must not make a test fail.
PATIENCE = float(os.environ.get("TFMEM_TEST_PATIENCE", "90"))

_NOTEBOOK = "window.jupyterapp.shell.currentWidget"


def find_chromium() -> str | None:
    """Find the Chromium to drive: the system's, or the one that TFMEM_CHROMIUM names."""
    named = os.environ.get("TFMEM_CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return named or next((path for name in names if (path := shutil.which(name))), None)


def require_browser() -> None:
    """Skip the calling module where no browser can be driven; with ``CI=true`` that is a failure."""
    missing = None
    if find_chromium() is None:
        missing = "no Chromium found (install the package chromium, or set TFMEM_CHROMIUM)"
    for module in ("jupyterlab", "playwright"):
        try:
            __import__(module)
        except ImportError:
            missing = f"{module} is not installed"
    if missing is None:
        return
    lacking(missing, whole_module=True)


def write_notebook(path: Path, cells: Sequence[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a notebook of code cells; their ids are ``cell-0``, ``cell-1``, …"""
    import nbformat

    made = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)]
    notebook = nbformat.v4.new_notebook(cells=made)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.update(metadata or {})
    nbformat.write(notebook, path)


class Lab:
    """A JupyterLab server with one browser page."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (1200, 1000),
        dark: bool = False,
        app: str = "jupyterlab",
    ) -> None:
        """Serve ``folder``; ``app`` is ``"jupyterlab"`` or ``"notebook"`` (Notebook 7)."""
        self.folder, self._app = folder, app
        self._size, self._dark, self._env = size, dark, dict(env or {})
        self.console: list[tuple[str, str]] = []

    def __enter__(self) -> Lab:
        private = self.folder / ".jupyter"
        settings = private / "lab" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True, exist_ok=True)
        theme = "JupyterLab Dark" if self._dark else "JupyterLab Light"
        (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme, "adaptive-theme": False}))
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
        env = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "IPYTHONDIR": str(private / "ipython"),
            "JUPYTER_CONFIG_DIR": str(private / "config"),
            "JUPYTER_DATA_DIR": str(private / "data"),
            "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(private / "lab"),
            "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
            **self._env,
        }
        self.port = _free_port()
        options = [
            "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0",
            "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={self.folder}",
            "--expose-app-in-browser", *options_for_server(env),
        ]  # fmt: skip
        if self._app == "jupyterlab":
            options += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self._log = (self.folder / "jupyterlab.log").open("w")
        command = [sys.executable, "-m", self._app, *options]
        self._server = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=env, cwd=self.folder)
        try:
            wait_until(self._is_up, "JupyterLab answers")
            self._start_browser()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_browser"):
            self._browser.close()
        if hasattr(self, "_playwright"):
            self._playwright.stop()
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._log.close()

    def _is_up(self) -> bool:
        if self._server.poll() is not None:
            raise RuntimeError("JupyterLab did not start:\n" + (self.folder / "jupyterlab.log").read_text()[-2000:])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=2):
                return True
        except OSError:
            return False

    def _start_browser(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        self._browser = self._playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        self.new_page()

    def new_page(self) -> Any:
        """Open a fresh page (a window of its own), and drive that from now on."""
        width, height = self._size
        context = self._browser.new_context(viewport={"width": width, "height": height})
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", lambda message: self.console.append((message.type, message.text)))
        return self.page

    def address(self, name: str) -> str:
        """Give the address of a notebook."""
        place = "lab/tree" if self._app == "jupyterlab" else "notebooks"
        return f"http://127.0.0.1:{self.port}/{place}/{quote(name)}?reset"

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(self.address(name))
        kernel = f"{_NOTEBOOK}?.sessionContext?.session?.kernel"
        self.page.wait_for_function(f"() => window.jupyterapp && {kernel}?.status === 'idle'")

    def shut_down(self) -> None:
        """Shut every kernel down and close the page."""
        self.page.context.close()
        url = f"http://127.0.0.1:{self.port}/api/kernels"
        for kernel in wait_until(lambda: _kernels(url), "the server lists its kernels")[0]:
            request = urllib.request.Request(f"{url}/{kernel['id']}", method="DELETE")
            urllib.request.urlopen(request, timeout=PATIENCE).close()

    def restart(self) -> None:
        """Restart the kernel, as by the menu after its question was answered."""
        self.page.evaluate(f"() => {_NOTEBOOK}.sessionContext.restartKernel().then(() => null)")

    def execute(self, code: str) -> dict[str, Any]:
        """Run code in the kernel, beside the notebook; give its reply."""
        request = "{code, silent: true, store_history: false}"
        return self.page.evaluate(
            f"(code) => {_NOTEBOOK}.sessionContext.session.kernel.requestExecute({request}).done.then((r) => r.content)",
            code,
        )

    def hide(self, script: str) -> None:
        """Hide something of the page from the panel, once a cell has run.

        ``script`` may call ``hideNotebook()``, ``hideExecution()`` (the kernel of widgets runs no code; the Output
        widget still follows it) and ``hide(object, name)``; ``s`` is the notebook's session.
        """
        self.page.evaluate(
            "async () => { const panel = jupyterapp.shell.currentWidget, mime = 'application/vnd.jupyter.widget-view+json';"
            " const w = await panel.content.rendermime.getFactory(mime).createRenderer({mimeType: mime})._manager.promise;"
            " const hideNotebook = () => { w._context = new Proxy(w.context, {get: (c, n) => n === 'model' ? undefined : c[n]}); };"
            " const hideExecution = () => { const kernel = w.kernel, own = (n) => (n === 'requestExecute' ? undefined : kernel[n]);"
            " const get = (_, n) => { const v = own(n); return typeof v === 'function' ? v.bind(kernel) : v; };"
            " Object.defineProperty(w, 'kernel', {get: () => new Proxy(kernel, {get})}); };"
            f" const s = panel.sessionContext; const hide = (o, n) => Object.defineProperty(o, n, {{get: () => undefined}}); {script} }}"
        )

    def command(self, name: str, args: Mapping[str, Any] | None = None) -> None:
        """Give JupyterLab a command and wait until it is done."""
        script = "([n, a]) => window.jupyterapp.commands.execute(n, a).then(() => null)"
        self.page.evaluate(script, [name, dict(args or {})])

    def start(self, index: int) -> None:
        """Start a cell, without waiting for its end."""
        self.page.evaluate(
            f"(i) => {{ const n = {_NOTEBOOK}.content; n.deselectAll(); n.activeCellIndex = i;"
            " window.jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )

    def run(self, index: int) -> None:
        """Run a cell and wait for its end; not before the kernel is done with others, whose error would drop this one."""
        idle = f"() => {_NOTEBOOK}.sessionContext.session?.kernel?.status === 'idle'"
        wait_until(lambda: self.page.evaluate(idle), "the kernel is idle")
        before = self.count(index)

        def has_run() -> bool:
            return self.count(index) not in (None, before) and not self.is_running(index)

        self.start(index)
        # A kernel drops what reaches it in the moment after an error; whoever sees that runs the cell again.
        dropped = time.monotonic() + 5
        wait_until(lambda: has_run() or time.monotonic() > dropped, f"cell {index} ends")
        if not has_run() and self.count(index) is None and not self.is_running(index):
            self.start(index)
        wait_until(has_run, f"cell {index} ends")

    def cell(self, index: int, expression: str, argument: Any = None) -> Any:
        """Evaluate JavaScript about a cell: ``c`` is its widget, ``m`` its model, ``a`` the argument."""
        script = f"([i, a]) => {{ const c = {_NOTEBOOK}.content.widgets[i], m = c.model; return {expression}; }}"
        return self.page.evaluate(script, [index, argument])

    def count(self, index: int) -> int | None:
        """Give a cell's execution count."""
        return self.cell(index, "m.sharedModel.execution_count")

    def is_running(self, index: int) -> bool:
        """Tell whether a cell's prompt shows that it runs."""
        return "*" in self.cell(index, "c.node.querySelector('.jp-InputPrompt').innerText")

    def source(self, index: int) -> str:
        """Give a cell's source."""
        return self.cell(index, "m.sharedModel.getSource()")

    def set_source(self, index: int, source: str) -> None:
        """Edit a cell as a person would."""
        self.cell(index, "m.sharedModel.setSource(a)", source)

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Give a cell's outputs as the notebook's model holds them."""
        return self.cell(index, "m.outputs.toJSON()")

    def output_text(self, index: int) -> str:
        """Give a cell's outputs as they are read on the page."""
        return self.cell(index, "c.outputArea.node.innerText")

    def save(self, name: str) -> dict[str, Any]:
        """Save the notebook; give what is in the file."""
        self.command("docmanager:save")
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def wait_for_text(self, index: int, text: str) -> None:
        """Wait until a cell's outputs show ``text``; fail with what they show."""
        try:
            wait_until(lambda: text in self.output_text(index), f"cell {index} shows {text!r}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it shows: {self.output_text(index)[:6000]}") from None

    def button(self, text: str) -> Any:
        """Find the button with this text."""
        return self.page.get_by_role("button", name=text).or_(self.page.locator("button", has_text=text)).first

    def click(self, text: str | re.Pattern[str]) -> None:
        """Click the button with this text."""
        self.page.locator("button.jupyter-button", has_text=text).first.click()

    def shot(self, path: Path) -> None:
        """Take a picture of the page."""
        self.page.screenshot(path=str(path))


def _kernels(url: str) -> tuple[list[Any]] | None:
    """List a server's kernels; None where it cannot tell, as while one of them dies."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return (json.load(answer),)
    except urllib.error.HTTPError:
        return None


def wait_until(holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until ``holds()`` is true and give its value; fail with ``what`` was waited for."""
    end = time.monotonic() + patience
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
