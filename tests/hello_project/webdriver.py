"""A real browser: Chromium, by chromedriver's WebDriver protocol (W3C), over plain HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from hello_project import children
from tests import servers

ANSWER_SECONDS: Final = 60
ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the protocol gives an element's id."""


class WebDriverError(Exception):
    pass


class Browser:
    """One window of a browser. Elements are found by XPath."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._session = ""

    def is_ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except ConnectionError:
            return False

    def open_window(self, binary: str) -> None:
        options = {
            "binary": binary,
            # Without a sandbox, since tests may run as root.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"],
        }
        asked = {"goog:chromeOptions": options}
        asked["goog:loggingPrefs"] = {"browser": "ALL", "performance": "ALL"}
        opened = self._call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        self._session = f"/session/{opened['sessionId']}"

    def close_window(self) -> None:
        self._call("DELETE", self._session)

    def visit(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def text(self, xpath: str) -> str:
        return str(self._ask("GET", f"/element/{self._find(xpath)}/text"))

    def click(self, xpath: str) -> None:
        self._ask("POST", f"/element/{self._find(xpath)}/click", {})

    def type(self, xpath: str, text: str) -> None:
        self._ask("POST", f"/element/{self._find(xpath)}/value", {"text": text})

    def run(self, script: str) -> Any:
        """What the script returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """What the console said since the last time."""
        return [entry["message"] for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """The URLs asked for since the last time."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._ask("POST", "/se/log", {"type": kind})
        return entries

    def _find(self, xpath: str) -> str:
        """Waited for."""
        query = {"using": "xpath", "value": xpath}
        servers.wait_for(lambda: bool(self._ask("POST", "/elements", query)))
        return str(self._ask("POST", "/element", query)[ELEMENT])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, self._session + path, body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            value = json.loads(answer.read())["value"]
        finally:
            connection.close()
        if answer.status != 200:
            raise WebDriverError(f"{method} {path}: {value['error']}: {value['message']}")
        return value


@contextmanager
def browser() -> Iterator[Browser]:
    """A new one, with nothing kept of any before. Skips the test where there is no Chromium."""
    chromium = servers.need("chromium", "chromium")
    driver = servers.need("chromedriver", "chromium-driver")
    port = servers.free_port()
    process = children.start([driver, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        window = Browser(port)
        servers.wait_for(window.is_ready)
        window.open_window(chromium)
        try:
            yield window
        finally:
            window.close_window()
    finally:
        children.stop(process, 10)
