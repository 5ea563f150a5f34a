"""A headless Chromium, driven over the pipe of its DevTools protocol."""

import json
import os
import select
import subprocess
import tempfile
import time


KEPT = {"Network.requestWillBeSent", "Network.loadingFailed", "Runtime.exceptionThrown", "Log.entryAdded", "Target.attachedToTarget"}


class Browser:
    def __init__(self, program, url):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.downloads = os.path.join(self.folder.name, "downloads")
        read, self.commands = os.pipe()
        self.pipe, write = os.pipe()

        def pipes():
            # Past the numbers that they get, so that neither is overwritten.
            one, two = os.dup2(read, 13), os.dup2(write, 14)
            os.dup2(one, 3), os.dup2(two, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--window-size=1280,2400"]
        options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={self.folder.name}/profile"]
        self.process = subprocess.Popen(
            [program, *options, "about:blank"], preexec_fn=pipes, close_fds=False, stderr=subprocess.DEVNULL
        )
        os.close(read), os.close(write)
        self.buffer, self.number, self.events, self.files, self.replies = b"", 0, [], [], {}
        self.call("Browser.setDownloadBehavior", behavior="allowAndName", downloadPath=self.downloads, eventsEnabled=True)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.page = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.watch(self.page)
        self.tell("Page.enable")
        self.tell("DOM.enable")
        self.tell("Page.navigate", url=url)
        self.wait("'ready' in (document.documentElement?.dataset ?? {})")

    def watch(self, session):
        """Listens to the requests and messages of a page, frame or worker, which may be gone, and to those that it starts."""
        for method in ("Network.enable", "Runtime.enable", "Log.enable"):
            self.send(method, session)
        self.send("Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    def receive(self):
        while b"\0" not in self.buffer:
            if not select.select([self.pipe], [], [], 60)[0]:
                raise RuntimeError("the browser has said nothing for 60 s")
            piece = os.read(self.pipe, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(message)
        if "id" in message:
            self.replies[message["id"]] = message
        elif message["method"] in KEPT:
            self.events.append(message)
        elif message["method"] == "Browser.downloadProgress" and message["params"]["state"] == "completed":
            self.files.append(message["params"]["guid"])
        if message.get("method") == "Target.attachedToTarget" and message["params"]["targetInfo"]["type"] != "page":
            self.watch(message["params"]["sessionId"])

    def send(self, method, session=None, **values):
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self.number

    def call(self, method, session=None, **values):
        number = self.send(method, session, **values)
        while number not in self.replies:
            self.receive()
        reply = self.replies.pop(number)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def tell(self, method, **values):
        return self.call(method, session=self.page, **values)

    def value(self, expression):
        reply = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def wait(self, expression, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.02)
        raise RuntimeError(f"waited {seconds} s for {expression}")

    def choose(self, *paths):
        """Gives files to the button."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=list(paths))

    def drop(self, *paths):
        """Drops files onto the page."""
        data = {"items": [], "files": list(paths), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.tell("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def saved(self):
        """Returns the text of the file that is saved next."""
        while not self.files:
            self.receive()
        with open(os.path.join(self.downloads, self.files.pop(0)), encoding="utf-8") as file:
            return file.read()

    def close(self):
        self.call("Browser.close")
        self.process.wait(10)
        self.folder.cleanup()
