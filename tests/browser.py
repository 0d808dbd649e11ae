"""A headless Chromium for tests: pages, input and screenshots by its DevTools protocol.

    python -m tests.browser page.html#lon=30 picture.jpg

takes a screenshot of a page that make_video.py wrote.

The protocol runs over two pipes, so that nothing else is needed: each message is JSON and a zero
byte (https://chromedevtools.github.io/devtools-protocol). `make browser` installs a Chromium.
"""

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSTALLED = Path(__file__).resolve().parents[1] / ".browser/chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless", "--no-sandbox", "--remote-debugging-pipe", "--use-angle=swiftshader",
           "--enable-unsafe-swiftshader", "--hide-scrollbars", "--no-first-run",
           "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage")  # fmt: skip
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Escape": 27,
        "End": 35, "Home": 36, "Enter": 13}  # fmt: skip


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome, None where there is none."""
    found = (shutil.which(name) for name in NAMES)
    return str(INSTALLED) if INSTALLED.exists() else next(filter(None, found), None)


class Browser:
    """One running browser with one page. Use it in a with block."""

    def __init__(self, path: str):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        reads, self.to = os.pipe()
        self.back, writes = os.pipe()
        # The browser reads descriptor 3 and writes 4.
        start = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", path, *OPTIONS]
        libraries = Path(path).parent / "lib"  # of the npm package, for systems without them
        environment = {"LD_LIBRARY_PATH": str(libraries)} if libraries.exists() else {}
        self.process = subprocess.Popen(
            [*start, f"--user-data-dir={self.folder.name}", "about:blank"],
            pass_fds=(reads, writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=os.environ | environment,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self.buffer, self.count, self.session = b"", 0, None
        self.errors, self.requests = [], []  # console messages and exceptions; addresses
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(960, 640)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.folder.cleanup()

    def send(self, method: str, **parameters) -> dict:
        """Send a command and return its result; what happens meanwhile is noted."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(30)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self, seconds: float) -> dict:
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self.back, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"])
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.errors.append(given["args"])
        elif event.get("method") == "Log.entryAdded":
            self.errors.append(given["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])

    def open(self, url: str) -> None:
        self.errors.clear()
        self.requests.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url[:40])}) && "
                  "document.readyState === 'complete'")  # fmt: skip

    def run(self, expression: str):
        """Return the value of an expression in the page; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True, userGesture=True)  # fmt: skip
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + seconds
        while not self.run(f"!!({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}: not within {seconds} s")
            time.sleep(0.02)

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def prefer(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.send("Emulation.setEmulatedMedia", features=named)

    def screenshot(self, kind: str = "png") -> bytes:
        taken = self.send("Page.captureScreenshot", format=kind)
        return base64.b64decode(taken["data"])

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        for kind, (x, y) in (("Pressed", start), ("Moved", end), ("Released", end)):
            self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left",
                      buttons=int(kind != "Released"), clickCount=1)  # fmt: skip

    def touch(self, *steps: list[tuple[int, int]]) -> None:
        """Put fingers down at the first places, move them along the others, and lift them."""
        for kind, places in zip(["Start", *["Move"] * (len(steps) - 1)], steps):
            points = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(places)]
            self.send("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {} if key in KEYS else {"text": key}
            code = {"windowsVirtualKeyCode": KEYS.get(key, ord(key[0]))}
            for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, **code,
                          **(text if kind == "keyDown" else {}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes a screenshot of a page of make_video.py.")
    parser.add_argument("page", help="file, with #t=…&lon=…&lat=… of a link where wished")
    parser.add_argument("picture", type=Path, help="PNG or JPEG to write")
    parser.add_argument("--size", default="1280x800", help="of the window (default: 1280x800)")
    parser.add_argument("--scheme", choices=["dark", "light"], default="dark", help="of colours")
    parser.add_argument("--run", default="0", metavar="CODE", help="JavaScript that is run before")
    args = parser.parse_args()
    if not (path := find_browser()):
        sys.exit("no Chromium or Chrome here; `make browser` installs one")
    file, _, fragment = args.page.partition("#")
    with Browser(path) as browser:
        browser.resize(*map(int, args.size.split("x")))
        browser.prefer(prefers_color_scheme=args.scheme)
        browser.open(f"{Path(file).resolve().as_uri()}#{fragment}")
        browser.wait("facts.still ? source.naturalWidth : source.readyState > 2 && !source.seeking")
        browser.run(args.run)
        browser.wait("!source.seeking && drawing === 0")
        picture = browser.screenshot("png" if args.picture.suffix == ".png" else "jpeg")
    args.picture.write_bytes(picture)


if __name__ == "__main__":
    main()
