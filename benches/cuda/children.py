"""Programs that are run with a time limit, so that none of them can stop the others."""

import os
import signal
import subprocess
import threading
import time


class Ended(Exception):
    """A program that did not do what it was asked for."""


def reason(code, limit, log):
    """Why a program ended, with the end of what it wrote."""
    if code == "late":
        text = f"took longer than {limit:.0f} s"
    elif code < 0:
        text = f"was killed by {signal.Signals(-code).name}"
    else:
        text = f"ended with {code}"
    lines = [line for line in log.splitlines() if line.strip()]
    wrong = [line for line in lines if line.lower().lstrip().startswith(("error", "thread"))]
    said = (wrong or lines)[-1:] if code != "late" else lines[-1:]
    return f"{text}: {said[0].strip()[-300:]}" if said else text


def end(process):
    """Ends a program and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(command, limit, log, watch=None, codes=(0,), environment=None):
    """Runs a program to its end and returns what it printed. `watch` is called with each line and the process.

    Everything goes into the file `log`. Raises `Ended` where its exit code is not of `codes` or takes longer than `limit` seconds.
    """
    with open(log, "w", errors="replace") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        out = subprocess.PIPE
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=file, text=True, errors="replace",
            start_new_session=True, env={**os.environ, **(environment or {})},
        )
        late = threading.Event()

        def stop():
            late.set()
            end(process)

        timer = threading.Timer(limit, stop)
        timer.start()
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if watch:
                    watch(line, process)
            code = process.wait()
        finally:
            timer.cancel()
            end(process)
            process.stdout.close()
            file.writelines(lines)
    if late.is_set() or code not in codes:
        with open(log, errors="replace") as file:
            raise Ended(reason("late" if late.is_set() else code, limit, "".join(file.readlines()[1:])))
    return "".join(lines)


class Budget:
    """The seconds that are left."""

    def __init__(self, seconds):
        self.until = time.monotonic() + seconds

    def left(self):
        return self.until - time.monotonic()
