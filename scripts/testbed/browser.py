"""A headless Chromium, driven by its DevTools protocol over a pipe: no driver and no further package is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE = 30.0
"""Seconds within which a page must show what a test waits for."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


def find_chromium() -> str | None:
    """The path of the program, ``None`` where it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class ProtocolError(AssertionError):
    """The browser refused a command, for example because the page it was for has gone."""


class Browser:
    """One process. A context manager.

    :param program: see :func:`find_chromium`.
    :param profile: the folder of its settings and caches.
    """

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, results = os.pipe()
        options = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
            *("--no-proxy-server", "--hide-scrollbars", "--force-color-profile=srgb"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}"),
        )
        # The protocol's own file descriptors are 3 and 4.
        script = f'exec "$0" "$@" 3<&{commands} 4>&{results} 2>/dev/null'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *options, "about:blank"], pass_fds=(commands, results)
        )
        os.close(commands)
        os.close(results)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        """What the pages have reported: requests, console messages, exceptions."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command of the protocol; its result."""
        self._number += 1
        number = self._number
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + DEADLINE
        while True:
            message = self._next(until)
            if message.get("id") == number:
                if "error" in message:
                    raise ProtocolError(method, message["error"])
                result: dict[str, Any] = message["result"]
                return result

    def poll(self) -> None:
        """Take in what the pages have reported until now."""
        while select.select([self._read], [], [], 0)[0] or b"\0" in self._buffer:
            self._next(time.monotonic() + DEADLINE)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not respond in time"
            received = os.read(self._read, 1 << 20)
            assert received, "the browser ended"
            self._buffer += received
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def targets(self) -> list[dict[str, Any]]:
        """The open tabs."""
        return [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]

    def close(self, target: str) -> None:
        """Close a tab, unless it has closed itself."""
        with contextlib.suppress(ProtocolError):
            self.call("Target.closeTarget", targetId=target)

    def tab(self, *, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True) -> Tab:
        """A new tab, in front."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        if not scripts:
            tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.call("Page.bringToFront")
        return tab


class Tab:
    """A tab of the browser."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser = browser
        self._session = session
        self.target = target

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def open(self, url: str) -> None:
        """Load a page to its end."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert failed is None, failed
        self.until("location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of an expression in the page. The protocol evaluates it, so no policy of the page forbids it."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until a page is loaded to its end and an expression is true in it; its value."""

        # In a page that has arrived in part the expression may hold, and what the test reads next be missing.
        loaded = f"document.readyState === 'complete' && ({expression})"

        def value() -> Any:
            with contextlib.suppress(ProtocolError):  # another page is just taking the place of this one
                return self.value(f"(() => {{ try {{ return {loaded} }} catch {{}} }})()")

        return self.wait(value, expression)

    def act(self, expression: str) -> None:
        """Run what may lead to another page, which then has no value."""
        with contextlib.suppress(ProtocolError):
            self.value(expression)

    def wait(self, true: Callable[[], Any], what: str) -> Any:
        until = time.monotonic() + DEADLINE
        while not (value := true()):
            assert time.monotonic() < until, f"not in time: {what}"
            time.sleep(0.02)
        return value

    def press(self, key: str) -> None:
        """Press a key, as a person does."""
        code, text = _KEYS.get(key, (0, key))
        pressed = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def click(self, x: float, y: float) -> None:
        """Click with the mouse. A frame of another process takes clicks some time after it is loaded."""
        # A page takes no clicks before it was drawn.
        self.call("Page.captureScreenshot", format="jpeg", quality=1, optimizeForSpeed=True)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def center(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        return float(box[0]), float(box[1])

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """The URLs that the tab and its frames have requested, without those that a policy has blocked."""
        self.browser.poll()
        mine = [event for event in self.browser.events if event.get("sessionId") == self._session]
        blocked = {
            event["params"]["requestId"]
            for event in mine
            if event["method"] == "Network.loadingFailed" and event["params"].get("blockedReason")
        }
        return [
            event["params"]["request"]["url"]
            for event in mine
            if event["method"] == "Network.requestWillBeSent" and event["params"]["requestId"] not in blocked
        ]

    def violations(self) -> list[str]:
        """What the browser has reported as an error: exceptions, blocked scripts, missing files."""
        self.browser.poll()
        found = []
        for event in self.browser.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found
