"""What the driver tells of an NVIDIA device, through nvidia-smi."""

import subprocess
import threading
import time


def ask(*arguments):
    """The lines that nvidia-smi prints; none where it is not there or fails."""
    command = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()] if found.returncode == 0 else []


def name():
    """The first device, with its driver."""
    return "; ".join(ask("--query-gpu=name,driver_version")[:1])


def memory(pid):
    """Bytes of device memory that a process has; None where the driver does not tell.

    Both sides keep what they ever had, so after some steps that is their peak. In a container the driver may know a
    process by another number: then what all processes have is no answer.
    """
    for line in ask("--query-compute-apps=pid,used_memory"):
        words = [word.strip() for word in line.split(",")]
        if len(words) == 2 and words[0] == str(pid) and words[1].isdigit():
            return int(words[1]) << 20
    return None


def used():
    """Bytes of the first device's memory that are in use, by whomever."""
    lines = ask("--query-gpu=memory.used")
    return int(lines[0]) << 20 if lines and lines[0].isdigit() else None


class Busy:
    """The share of time in which at least one kernel runs, as the driver samples it while the `with` block runs.

    nvidia-smi prints `utilization.gpu` every 100 ms: the share of its last sampling period (up to a second, by device) in
    which a kernel ran. The first samples belong to what was before. No profiler is needed, and gaps shorter than the
    driver's own samples do not show.
    """

    def __init__(self, skip=0.5):
        self.samples, self.skip = [], skip

    def __enter__(self):
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100", "-i", "0"]
        self.start = time.monotonic()
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.process = None
            return self
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.samples.append((time.monotonic() - self.start, int(line) / 100))

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.start
        if self.process:
            self.process.kill()
            self.process.wait()
            self.reader.join(5)

    def share(self, steps):
        """The share of so many seconds of steps; None without samples. Between steps there may be more, such as
        checkpoints: there no kernel runs."""
        kept = [share for at, share in self.samples if at >= self.skip]
        if not kept or not steps:
            return None
        return min(1.0, sum(kept) / len(kept) * self.seconds / steps)
