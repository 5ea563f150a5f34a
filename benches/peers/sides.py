"""The processes that take turns, and what the machine does meanwhile."""

import json
import os
import subprocess
import tempfile
from pathlib import Path


class Failed(Exception):
    """A row that has no result, with the reason."""


class Side:
    """A process that trains as it is told."""

    alive = set()

    def __init__(self, command, environment=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **(environment or {})},
        )
        Side.alive.add(self)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            Side.alive.discard(self)
            self.log.seek(0)
            raise Failed(f"{Path(self.process.args[0]).name} ended: {self.log.read().strip()[-600:]}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def seconds(self):
        """Of processor time that its threads have spent."""
        spent = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in spent) / 1e9

    def __enter__(self):
        return self

    def __exit__(self, *_):
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
