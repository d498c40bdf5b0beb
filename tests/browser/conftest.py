"""JupyterLab on a free loopback port and a headless Chromium; both are needed where CI is set, elsewhere optional."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import driver
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("ZF_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--no-first-run"]  # fmt: skip
SETTINGS = {  # no news, no dialogs, and every cell in the page whether it is in sight or not
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


def _need(present: bool, what: str) -> None:
    """Skip on a machine without a browser, but never where nobody would see the skip."""
    if not present:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the browser tests need {what}")


@pytest.fixture(scope="session")
def chromium():
    _need(bool(CHROMIUM), "Chromium (apt-get install chromium), or its path in ZF_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _need(False, "playwright (pip install playwright)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Lab:
    """A running JupyterLab: notebooks put into its `folder` open at `address(name)`."""

    def __init__(self, folder: Path, port: int, token: str):
        self.folder, self._server, self._token = folder, f"http://127.0.0.1:{port}", token

    def address(self, name: str) -> str:
        return f"{self._server}/lab/tree/{name}?reset&token={self._token}"

    def stop(self, name: str) -> None:
        """Shut the kernel of a notebook down; each one holds about 1 GB."""
        for session in json.loads(self.ask("api/sessions")):
            if session["path"] == name:
                self.ask(f"api/sessions/{session['id']}", method="DELETE")

    def ask(self, path: str, *, method: str = "GET") -> bytes:
        """What the server answers; OSError while it does not."""
        headers = {"Authorization": f"token {self._token}"}
        request = urllib.request.Request(f"{self._server}/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def lab(tmp_path_factory, chromium):
    folder, config = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("config")
    for name, text in SETTINGS.items():
        path = config / "user" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(16), config / "log"
    with open(log, "w") as out:
        server = subprocess.Popen(_command(port, token, folder), env=_environment(config), stdout=out, stderr=out)
        try:
            running = Lab(folder, port, token)
            _wait_for(running, server, log)
            yield running
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="session")
def ran(lab, chromium):
    """ran(notebook, name): a page in which the notebook has run; when left, page and kernel are gone."""

    @contextmanager
    def ran(notebook, name: str):
        driver.put(notebook, lab.folder / name)
        page = chromium.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(120_000)
        try:
            driver.run_all(page, lab.address(name))
            yield page
        finally:
            page.close()
            lab.stop(name)

    return ran


def _command(port: int, token: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
            f"--ServerApp.root_dir={folder}"]  # fmt: skip


def _environment(config: Path) -> dict[str, str]:
    settings = {"JUPYTER_CONFIG_DIR": config, "JUPYTERLAB_SETTINGS_DIR": config / "user",
                "JUPYTERLAB_WORKSPACES_DIR": config / "workspaces", "PYTHONPATH": ROOT}  # fmt: skip
    return dict(os.environ, **{name: str(value) for name, value in settings.items()})


def _wait_for(lab: Lab, server: subprocess.Popen, log: Path, *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            lab.ask("api")
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
