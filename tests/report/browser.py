"""A browser without a screen, driven over the WebDriver protocol with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
)
KEYS = {"Escape": "\ue00c", "Enter": "\ue007", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}


class Browser:
    """One session; `js` runs a function body on the page, `press` types on the real keyboard."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.ask("/url", {"url": url})

    def js(self, body: str) -> Any:
        return self.ask("/execute/sync", {"script": body, "args": []})

    def until(self, body: str, seconds: float = 20.0) -> Any:
        """What `body` returns, once it is true."""
        end = time.monotonic() + seconds
        while not (found := self.js(body)):
            assert time.monotonic() < end, body
            time.sleep(0.05)
        return found

    def press(self, *keys: str) -> None:
        strokes = [{"type": kind, "value": KEYS.get(k, k)} for k in keys for kind in ("keyDown", "keyUp")]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def click(self, selector: str) -> None:
        element = self.ask("/element", {"using": "css selector", "value": selector})
        self.ask(f"/element/{next(iter(element.values()))}/click", {})

    def complaints(self) -> list[str]:
        """What the page wrote to the console since the last call: errors, and breaches of its own policy."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        opened = Browser(f"http://127.0.0.1:{port}")
        try:
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = _first(opened, {"capabilities": {"alwaysMatch": wanted}})
            opened.url += f"/session/{session}"
            yield opened
            urllib.request.urlopen(urllib.request.Request(opened.url, method="DELETE"), timeout=20).close()
        finally:
            driver.terminate()
            driver.wait()


def _first(opened: Browser, wanted: dict[str, Any]) -> str:
    end = time.monotonic() + 30.0
    while True:
        try:
            return str(opened.ask("/session", wanted)["sessionId"])
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert time.monotonic() < end, "the driver does not answer"
            time.sleep(0.1)
