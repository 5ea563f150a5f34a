"""The processes that take turns, and what the machine does meanwhile."""

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path

import gpu


class Failed(Exception):
    """A row that has no result, with the reason."""


class Side:
    """A process that trains as it is told."""

    alive = set()

    def __init__(self, command, environment=None, limit=None):
        self.limit, self.said = limit, None
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **(environment or {})},
        )
        Side.alive.add(self)

    @property
    def about(self):
        """What it says of itself when it is ready."""
        if self.said is None:
            self.said = self.answer()
        return self.said

    def answer(self):
        late = threading.Timer(self.limit, self.process.kill) if self.limit else None
        if late:
            late.start()
        line = self.process.stdout.readline()
        if late:
            late.cancel()
        if not line:
            self.process.wait()
            Side.alive.discard(self)
            self.log.seek(0)
            said = self.log.read().strip()[-600:]
            how = f"ended with {self.process.returncode}" if self.process.returncode >= 0 else "was killed or crashed"
            raise Failed(f"{Path(self.process.args[0]).name} {how}: {said}")
        return json.loads(line)

    def ask(self, command):
        assert self.about
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def device_bytes(self):
        """What it has of a device's memory, as the driver tells; None where it does not."""
        return gpu.memory(self.process.pid)

    def seconds(self):
        """Of processor time that its threads have spent."""
        spent = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in spent) / 1e9

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        Side.alive.discard(self)
        self.log.close()


def busy():
    """Seconds of processor time that the machine has spent, and this program with its sides."""
    own = os.times()
    try:
        with open("/proc/stat") as file:
            spent = [int(word) for word in file.readline().split()[1:9]]
        sides = sum(side.seconds() for side in Side.alive)
    except OSError:
        return 0.0, 0.0
    # Without idle and waiting, which come after user, nice and system.
    total = (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
    return total, sides + own.user + own.system + own.children_user + own.children_system
