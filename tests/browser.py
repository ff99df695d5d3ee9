"""A headless browser that is operated over a pipe: open, type, click, look; without a package for it."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe --hide-scrollbars"
).split()
WAIT_S = 120


class Browser:
    """One page of a browser without a profile of its own; the test is skipped where there is no browser.

    Args:
        folder: for the profile.
        width, height: of the window in pixels.
    """

    def __init__(self, folder: Path, width: int, height: int):
        names = ("chromium", "chromium-browser", "google-chrome")
        program = next((path for name in names if (path := shutil.which(name))), None)
        if program is None:
            pytest.skip("no chromium on this machine to look at the app with")
        their_input, self.output = os.pipe()
        self.input, their_output = os.pipe()
        # the program reads commands from descriptor 3 and writes replies to 4
        shell = f'exec "$@" 3<&{their_input} 4>&{their_output}'
        command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "browser", *command], pass_fds=(their_input, their_output), stderr=subprocess.DEVNULL
        )
        os.close(their_input)
        os.close(their_output)
        self.buffer, self.number, self.session = b"", 0, None
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in pages if one["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.input)
        os.close(self.output)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its reply."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                part = os.read(self.input, 1 << 16)
                assert part, "the browser has ended"
                self.buffer += part
            line, _, self.buffer = self.buffer.partition(b"\0")
            reply = json.loads(line)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply
                return reply["result"]

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.enable")
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + WAIT_S
        while not self.evaluate(f"!!({script})"):
            assert time.monotonic() < end, f"not seen: {script}"
            time.sleep(0.1)

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file in the first input that fits."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def type(self, selector: str, texts: list[str]) -> None:
        """Fill the visible text boxes that fit, in order."""
        script = """((selector, texts) => {
            const boxes = [...document.querySelectorAll(selector)].filter((box) => box.offsetHeight);
            const property = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value');
            texts.forEach((text, place) => {
              property.set.call(boxes[place], text);
              boxes[place].dispatchEvent(new Event('input', {bubbles: true}));
            });
        })"""
        self.evaluate(f"{script}({json.dumps(selector)}, {json.dumps(texts)})")

    def click(self, selector: str) -> None:
        """Press the first visible element that fits."""
        self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].find((one) => one.offsetHeight).click()"
        )

    def screenshot(self, path: Path) -> None:
        """Write what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
