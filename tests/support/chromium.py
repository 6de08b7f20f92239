"""A Chromium for tests, driven through the DevTools protocol: just what the dashboard's tests ask of it.

Owns finding (where root may, installing) Chromium, one browser process on an empty profile, and pages in it. Must not know the dashboard.
The protocol: https://chromedevtools.github.io/devtools-protocol/ (domains Target, Page, Runtime, Log, Network, Emulation, Input).
"""

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
import trio_websocket

from tests.support.tools import chromium

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-GB",
    "--remote-debugging-port=0",
)
MAX_MESSAGE = 64 * 1024 * 1024  # a screenshot comes as one message
LAUNCH_SECONDS = 30.0
WAIT_SECONDS = 15.0


class DevToolsError(Exception):
    """Chromium refused a command, or a page's script threw."""


class Page:
    """One tab. What goes wrong in it is in `problems`; what it loaded, in `loaded`: encoded bytes by URL."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self._loads = trio.Event()
        self._urls: dict[str, str] = {}
        self.problems: list[str] = []
        self.loaded: dict[str, int] = {}

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this page and return its result."""
        return await self._browser.command(method, parameters, self._session)

    async def navigate(self, url: str) -> None:
        """Load `url` and return after its load event."""
        self._loads = trio.Event()
        with trio.fail_after(WAIT_SECONDS):
            answer = await self.command("Page.navigate", url=url)
            if answer.get("errorText"):
                raise DevToolsError(answer["errorText"])
            if "loaderId" in answer:  # none: only the fragment changed, and nothing loads
                await self._loads.wait()

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise DevToolsError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = WAIT_SECONDS) -> Any:
        """Return the value of `expression` once it is truthy. It is looked at whenever the page changes, and every 50 ms."""
        waiting = f"""new Promise((resolve) => {{
            const look = () => {{
                const value = {expression};
                if (!value) return;
                observer.disconnect();
                clearInterval(timer);
                resolve(value);
            }};
            const observer = new MutationObserver(look);
            observer.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
            const timer = setInterval(look, 50);
            look();
        }})"""
        with trio.move_on_after(seconds):
            return await self.evaluate(waiting)
        raise AssertionError(
            f"not within {seconds} s: {expression}\n"
            f"problems: {self.problems}\npage: {await self.evaluate('document.body.innerText')}"
        )

    async def screenshot(self, path: Path) -> None:
        """Write a PNG of what is visible."""
        answer = await self.command("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(answer["data"]))

    async def set_offline(self, offline: bool) -> None:
        """Cut the page's network, or give it back."""
        await self.command(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    async def set_media(self, **features: str) -> None:
        """Emulate CSS media features, e.g. `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.command("Emulation.setEmulatedMedia", features=named)

    async def resize(self, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> None:
        """Set the viewport in CSS pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    async def click(self, selector: str) -> None:
        """Click the middle of the first match with the real mouse."""
        place = await self.wait_for(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)})?.getBoundingClientRect();"
            " return box && box.width && {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def move_mouse(self, x: float, y: float) -> None:
        """Move the real mouse."""
        await self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def press(self, key: str) -> None:
        """Press and release a key, by its DOM name."""
        codes = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "Home": 36, "End": 35}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        fields: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        await self.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **fields)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def type(self, text: str) -> None:
        """Insert text into what has the focus."""
        await self.command("Input.insertText", text=text)

    def on_event(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loads.set()
            case "Runtime.exceptionThrown":
                details = event["exceptionDetails"]
                self.problems.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "assert", "warning"):
                said = " ".join(str(one.get("value", one.get("description"))) for one in event["args"])
                self.problems.append(f"console: {said}")
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                entry = event["entry"]
                self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
            case "Network.responseReceived":
                self._urls[event["requestId"]] = event["response"]["url"]
            case "Network.loadingFinished" if event["requestId"] in self._urls:
                url = self._urls[event["requestId"]]
                self.loaded[url] = self.loaded.get(url, 0) + int(event["encodedDataLength"])


class Browser:
    """A running Chromium."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self._ids = 0
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._contexts: list[str] = []

    async def command(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Send a command and return its result. Raises DevToolsError."""
        self._ids += 1
        number = self._ids
        answered, answer = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = answered
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        await self._socket.send_message(json.dumps(message))
        result = await answer.receive()
        if "error" in result:
            raise DevToolsError(f"{method}: {result['error']['message']}")
        return dict(result["result"])

    async def open_page(self, width: int = 1280, height: int = 800) -> Page:
        """Open an empty tab in a context of its own: no storage is shared with another page."""
        context = (await self.command("Target.createBrowserContext", {}))["browserContextId"]
        target = await self.command("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        attached = await self.command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        self._contexts.append(context)
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.command(f"{domain}.enable")
        await page.resize(width, height)
        return page

    async def close_pages(self) -> None:
        """Close every page opened here, storage and all."""
        while self._contexts:
            await self.command("Target.disposeBrowserContext", {"browserContextId": self._contexts.pop()})

    async def receive(self) -> None:
        """Hand messages on until the connection ends."""
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except trio_websocket.ConnectionClosed:
                return
            if "id" in message:
                waiting = self._waiting.pop(message["id"])
                waiting.send_nowait(message)
            elif page := self._pages.get(message.get("sessionId", "")):
                page.on_event(message["method"], message["params"])


@contextmanager
def running_chromium() -> Iterator[str]:
    """Run a Chromium on a new empty profile, for as many tests as like; yields its DevTools address."""
    path = chromium()
    with tempfile.TemporaryDirectory(prefix="parley-chromium-", ignore_cleanup_errors=True) as profile:
        said = Path(profile, "stderr")
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            yield _devtools_address(process, said)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _devtools_address(process: subprocess.Popen[bytes], said: Path) -> str:
    """Chromium offers no descriptor to wait on but its log, which is a file here so that nobody has to keep emptying a pipe."""
    deadline = time.monotonic() + LAUNCH_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in said.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith("DevTools listening on ") and line.endswith("\n"):
                return line.removeprefix("DevTools listening on ").strip()
        time.sleep(0.02)
    raise DevToolsError(f"Chromium did not start: {said.read_text(errors='replace')[-2000:]}")


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Browser]:
    """Speak to a running Chromium; what was opened is closed at the end."""
    async with trio_websocket.open_websocket_url(address, max_message_size=MAX_MESSAGE) as socket:
        browser = Browser(socket)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(browser.receive)
            try:
                yield browser
            finally:
                with trio.move_on_after(5, shield=True):
                    await browser.close_pages()
                nursery.cancel_scope.cancel()
