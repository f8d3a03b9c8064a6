"""A real headless Chromium, driven over the DevTools protocol on loopback."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_PATIENCE = 60.0


def find_chromium() -> str:
    """The browser's path. Skips the test if there is no browser, and fails it if CI is true."""
    asked = os.environ.get("KEYSYNC_CHROMIUM")
    names = [asked] if asked else ["chromium", "chromium-browser", "google-chrome"]
    for name in names:
        if path := shutil.which(name):
            return path
    message = "no Chromium: set KEYSYNC_CHROMIUM, or install one"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Tab:
    """One page of the browser; `events` has all its messages, as (method, parameters)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._news = asyncio.Condition()
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def listen(self) -> None:
        """Receives the browser's messages until it closes."""
        async for message in self._socket:
            reply = json.loads(message.data)
            if "id" in reply:
                self._answers.pop(reply["id"]).set_result(reply)
            else:
                async with self._news:
                    self.events.append((reply["method"], reply.get("params", {})))
                    self._news.notify_all()

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result; a browser error fails the test."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        reply = await asyncio.wait_for(answer, _PATIENCE)
        assert "error" not in reply, f"{method}: {reply['error']}"
        result: dict[str, Any] = reply["result"]
        return result

    async def seen(self, method: str, since: int = 0) -> None:
        """Waits for an event after the first `since`."""
        async with asyncio.timeout(_PATIENCE), self._news:
            await self._news.wait_for(lambda: any(name == method for name, _ in self.events[since:]))

    async def open(self, url: str) -> None:
        """Navigates to `url` and waits until it is loaded."""
        since = len(self.events)
        reply = await self.send("Page.navigate", url=url)
        assert "errorText" not in reply, reply
        await self.seen("Page.loadEventFired", since)

    async def js(self, expression: str) -> Any:
        """The value of an expression; a promise is awaited."""
        reply = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    async def key(self, key: str) -> None:
        """Presses a key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Sets the size of the window in CSS pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    async def prefer(self, **features: str) -> None:
        """Sets media features, such as ``prefers_color_scheme="dark"``."""
        reply = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=reply)

    def complaints(self) -> list[str]:
        """The errors about the page from the console, the network and the content policy."""
        errors = [json.dumps(said) for name, said in self.events if name == "Runtime.exceptionThrown"]
        for name, said in self.events:
            if name == "Log.entryAdded" and said["entry"]["level"] in {"warning", "error"}:
                errors.append(said["entry"]["text"])
            if name == "Runtime.consoleAPICalled" and said["type"] in {"warning", "error"}:
                errors.append(json.dumps(said["args"]))
            if name == "Audits.issueAdded":
                errors.append(json.dumps(said["issue"]))
        return errors


@asynccontextmanager
async def chromium_tab() -> AsyncIterator[Tab]:
    """A tab of a new browser with a new profile; both are removed at the end of the block."""
    binary = find_chromium()
    with tempfile.TemporaryDirectory(prefix="keysync-chromium-", ignore_cleanup_errors=True) as profile:
        async with _process(binary, Path(profile)), aiohttp.ClientSession() as session:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as reply:
                address = (await reply.json(content_type=None))["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                listener = asyncio.create_task(tab.listen(), name="chromium")
                try:
                    for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "Audits", "DOM"):
                        await tab.send(f"{domain}.enable")
                    yield tab
                finally:
                    await socket.close()
                    await listener


@asynccontextmanager
async def _process(binary: str, profile: Path) -> AsyncIterator[None]:
    # Root cannot use Chromium's sandbox; the pages are our own.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        binary,
        "--headless=new",
        "--remote-debugging-port=0",
        "--remote-debugging-address=127.0.0.1",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--no-proxy-server",
        *root,
        "about:blank",
        env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # All processes of the browser are in its own session, so this ends exactly these.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(_PATIENCE):
        while True:
            port = _written(file)
            if port is not None:
                return port
            await asyncio.sleep(0.05)  # only the file shows that the browser listens


def _written(file: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(file.read_text().splitlines()[0])
    return None
