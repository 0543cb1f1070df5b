"""A headless Chromium, driven over the DevTools protocol.

One page at a time; whatever it says on its console and whatever it would load is kept.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_SECONDS: Final = 60.0

_KEYS: Final = {" ": ("Space", 32), "Enter": ("Enter", 13), "Tab": ("Tab", 9)}


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self.size(1400, 1000)

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file, and return when its program has run."""
        self.events.clear()
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=f"{path.as_uri()}#{fragment}")
        self.until("document.body?.dataset.ready === 'yes' && location.protocol === 'file:'")

    def size(self, width: int, height: int) -> None:
        """Make the window so large."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """Have the reader prefer `light` or `dark`."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def js(self, expression: str) -> Any:
        """Return what an expression comes to; a promise is awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Return when an expression is true, which is looked at with every picture that is drawn."""
        waiting = (
            "new Promise((resolve, reject) => { const end = performance.now() + 30000; const look = () => "
            f"({expression}) ? resolve(true) : performance.now() > end ? reject(new Error('never true')) "
            ": setTimeout(look, 15); look(); })"
        )
        assert self.js(waiting) is True

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        code, number = _KEYS.get(key, (key, 0))
        text = {"Enter": "\r", "Tab": ""}.get(key, key if len(key) == 1 else "")
        more: dict[str, Any] = {"text": text} if text else {}
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self._call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **more)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def complaints(self) -> list[str]:
        """Return what was said on the console, and what went wrong."""
        kinds = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def loaded(self) -> list[str]:
        """Return the addresses that were asked for."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Run a browser with a profile in `folder`, and end it."""
    assert CHROMIUM is not None
    words = [CHROMIUM, "--headless", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    words += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")
    with subprocess.Popen([*words, "about:blank"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = (line.partition("DevTools listening on ")[2].strip() for line in process.stderr)
            address = next((address for address in said if address), "")
            assert address, "the browser ended at once"
            with connect(address, max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
