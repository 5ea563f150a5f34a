"""This program beside PyTorch, step by step: `run.py [--rows PATTERN ..] [--json FILE]`; `--list` names the rows.

Two processes take turns of a few steps each, so that what slows the machine down slows both, and neither the start nor
the first steps count. A ratio is this program's time over PyTorch's: the median over the rounds of the ratio of the
turns. That of the least times stands beside it, and what other processes took of the processors meanwhile: rounds in
which that is much are repeated while patience lasts. Where others never rest, the ratio of processor times is the one
to look at, with `--threads 1`, where no thread waits busily for another. Before that, three steps on the same batches
must give the same losses.

With `--device cuda` the rows are large models on a CUDA device, beside PyTorch there: in TensorFloat-32 and bfloat16, and
with `--compile` beside torch.compile too. Their turns are told by events of the device on PyTorch's side, so that it need
not wait for each loss as this program does. `--budget` ends it in time, with the table of what there is; `--tiny` puts
small models in place of the large ones, to try it, with `--device cpu` also where there is no device.

The table goes to stdout as Markdown; `--json` also keeps the numbers, and replaces only the rows that were run.

PyTorch is installed into an environment in the cache folder, or `--python` names one that has requirements.txt.
"""

import argparse
import datetime
import fnmatch
import hashlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gpu
from rows import MODELS, rows
from sides import Failed, Side, busy
from table import table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freeze-plan-peers"
# How far losses may differ, relative to PyTorch's.
TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
# Of a whole run.
EPOCHS = 10


class Bench:
    def __init__(self, args):
        self.args = args
        self.python = args.python or environment()
        self.driver = args.driver or (None if args.make else driver())
        self.work = Path(tempfile.mkdtemp(prefix="freeze-plan-peers-"))
        self.names = {}
        self.about = {}

    def model(self, row):
        """The name of the model that a row trains."""
        return row.model + ("-tiny" if self.args.tiny and MODELS[row.model].tiny_batch else "")

    def batch(self, row):
        return MODELS[row.model].tiny_batch if self.model(row) != row.model else MODELS[row.model].batch

    def precision(self, row):
        """On the processor, where rows of a device are tried, there is float32 alone."""
        return row.precision if self.args.device != "cpu" else "fp32"

    def place(self, row):
        """The folder with the model and the data of a row, and what makes it where it is not there yet."""
        count = self.batch(row) * self.batches(row)
        text = (HERE / "models.py").read_text() + self.version()
        folder = CACHE / "models" / f"{self.model(row)}-{count}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return folder, [self.python, HERE / "models.py", self.model(row), folder, str(count)]

    def folder(self, row):
        """The folder with the model and the data of a row."""
        folder, _ = self.place(row)
        if not (folder / "done").exists():
            self.make([row])
        if not (folder / "done").exists():
            raise Failed(f"models.py could not make {self.model(row)}")
        return folder

    def make(self, wanted):
        """Makes what rows need, side by side."""
        made = {}
        for row in wanted:
            folder, command = self.place(row)
            if folder not in made and not (folder / "done").exists():
                folder.mkdir(parents=True, exist_ok=True)
                made[folder] = subprocess.Popen([str(part) for part in command])
        for folder, process in made.items():
            if process.wait() == 0:
                (folder / "done").touch()

    def batches(self, row):
        return self.args.epoch_steps if row.kind == "run" else MODELS[row.model].batches

    def version(self):
        if "torch" not in self.about:
            code = "import torch; print(torch.__version__)"
            found = subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True)
            self.about["torch"] = found.stdout.strip()
        return self.about["torch"]

    def frozen(self, model, fraction):
        """The parameters of the first leaves of a model, as PyTorch's side freezes them."""
        if fraction and (model, fraction) not in self.names:
            code = "import json, sys, models; model = models.build(sys.argv[1])\n"
            code += "print(json.dumps(models.frozen_names(model, float(sys.argv[2]))))"
            command = [self.python, "-c", code, model, str(fraction)]
            found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE)
            self.names[model, fraction] = json.loads(found.stdout)
        return self.names.get((model, fraction), [])

    def ours(self, row, frozen=None, bare=False, more=()):
        """This program's side of a row; `frozen` in place of what the row freezes, `more` are keys of the job."""
        frozen = row.frozen if frozen is None else frozen
        folder = self.folder(row)
        names = json.dumps(self.frozen(self.model(row), frozen))
        policy = "linear" if row.kind == "run" else "none"
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in MODELS[row.model].optimizer.items())
        job = self.work / f"{row.name}-{frozen}-{len(list(self.work.iterdir()))}.toml"
        # A run of steps has no end of its own.
        epochs = EPOCHS if row.kind == "run" else 1_000
        # A cache is of samples, so that order is no matter; without one the order is PyTorch's.
        job.write_text(
            f"model = {json.dumps(str(folder / 'model.onnx'))}\n"
            f"optimizer = {{ {options} }}\n"
            'loss = { kind = "cross-entropy" }\n'
            f"data = {{ train = {json.dumps(str(folder / 'data.npz'))}, inputs = {{ x = \"x\" }}, target = \"labels\", "
            f"batch = {self.batch(row)}, shuffle = {json.dumps(row.cached)} }}\n"
            f"freeze = {{ policy = \"{policy}\", freeze = {names}, batch_norm = \"{row.batch_norm}\" }}\n"
            f"run = {{ epochs = {epochs}, dir = {json.dumps(str(job.with_suffix('')))}, threads = {self.args.threads}, "
            f'ceiling_steps = 0, log_every = 1, device = "{self.args.device}", precision = "{self.precision(row)}" }}\n'
        )
        command = [self.driver, job]
        for setting in [*self.args.set, *more, *(self.args.cached if row.cached else [])]:
            command += ["--set", setting]
        if self.args.runtime:
            command += ["--runtime", self.args.runtime]
        return Side([str(part) for part in command + (["--bare"] if bare else [])], limit=self.args.limit)

    def theirs(self, row, compiled=False):
        folder = self.folder(row)
        options = {
            "model": self.model(row), "data": str(folder / "data.npz"), "batch": self.batch(row),
            "optimizer": MODELS[row.model].optimizer, "threads": self.args.threads, "frozen": row.frozen,
            "batch_norm": row.batch_norm, "channels_last": MODELS[row.model].convolutions, "compile": compiled,
            "epochs": EPOCHS, "device": self.args.device, "precision": self.precision(row),
        }
        threads = {"OMP_NUM_THREADS": str(self.args.threads)}
        return Side([str(self.python), str(HERE / "torch_side.py"), json.dumps(options)], threads, self.args.limit)

    def rounds(self, count, once):
        """Calls `once` until the machine was quiet for `count` of the calls, or patience is over: then what there is."""
        start, found = time.perf_counter(), []
        while True:
            clock, before = time.perf_counter(), busy()
            walls, spent = once(len(found))
            after, seconds = busy(), time.perf_counter() - clock
            others = (after[0] - before[0] - after[1] + before[1]) / (seconds * os.cpu_count())
            found.append((max(others, 0.0), walls, spent))
            quiet = [entry for entry in found if entry[0] <= self.args.others]
            if self.args.device != "cpu" and len(found) >= count:
                break
            late = len(found) >= count and time.perf_counter() - start > self.args.patience
            if len(quiet) >= count or late:
                break
        # Of a machine that is never quiet the quietest rounds.
        used = sorted(found, key=lambda entry: entry[0])[: max(count, len(quiet))]
        ours, theirs = zip(*(walls for _, walls, _ in used))
        result = compared(ours, theirs)
        if self.args.device != "cpu":
            return result
        if all(theirs for _, _, (_, theirs) in found):
            result["processor"] = statistics.median(ours / theirs for _, _, (ours, theirs) in found)
        return result | {"others": statistics.median(entry[0] for entry in used), "of": len(found)}

    def turns(self, sides, commands):
        """Compares the steps of two sides."""

        def once(number):
            walls, spent = [None, None], [0.0, 0.0]
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                time.sleep(self.args.pause)
                before = sides[index].seconds()
                walls[index] = sides[index].ask(commands[index])["walls"]
                spent[index] = sides[index].seconds() - before
            return walls, spent

        return self.rounds(self.args.rounds, once)

    def measure(self, row):
        if row.cached and not self.args.cached:
            raise Failed("needs --cached KEY=VALUE, the keys of a job that turn the cache on")
        return getattr(self, f"measure_{row.kind}")(row)

    def measure_step(self, row):
        command = f"steps {self.args.steps}"
        compiles = self.args.compile and row.compiled
        with self.theirs(row) as theirs:
            with self.ours(row) as ours:
                self.note(ours, theirs)
                result = {}
                if not row.cached:
                    allowed = TOLERANCE[self.precision(row)]
                    result["difference"] = agree(ours.ask("steps 3")["losses"], theirs.ask("steps 3")["losses"], allowed)
                # A cache is full after an epoch.
                warm = MODELS[row.model].batches + 1 if row.cached else self.args.warm
                ours.ask(f"steps {warm}")
                theirs.ask(f"steps {self.args.warm}")
                result |= self.turns([ours, theirs], [command, command])
                if self.args.device != "cpu":
                    result |= self.of_device(ours, theirs, result["ours"])
            if compiles:
                try:
                    with self.theirs(row, True) as compiled:
                        compiled.ask(f"steps {3 + self.args.warm}")
                        found = self.turns([compiled, theirs], [command, command])
                        result["compiled"] = found["ratio"]
                except Failed as failed:
                    result["compile_failed"] = str(failed)[-200:]
        return result

    def of_device(self, ours, theirs, seconds):
        """What the device does meanwhile: memory of both sides, and how busy this program keeps it."""
        result = {"memory": [ours.device_bytes(), theirs.ask("memory")["bytes"]]}
        with gpu.Busy() as busy:
            walls = ours.ask(f"steps {min(500, math.ceil(4.0 / max(seconds, 1e-3)))}")["walls"]
        return result | {"busy": busy.share(sum(walls))}

    def measure_run(self, row):
        def once(_):
            walls, spent = [], []
            for side in (self.ours, self.theirs):
                with side(row) as process:
                    self.about["ours" if side == self.ours else "theirs"] = process.about["engine"]
                    before = process.seconds()
                    walls.append([process.ask("run")["seconds"]])
                    spent.append(process.seconds() - before)
            return walls, spent

        return self.rounds(self.args.runs, once)

    def measure_saving(self, row):
        with self.ours(row) as frozen, self.ours(row, 0.0) as whole:
            self.note(frozen, None)
            predicted = frozen.about["predicted"]
            command = f"steps {self.args.steps}"
            for side in (frozen, whole):
                side.ask(f"steps {3 + self.args.warm}")
            result = self.turns([frozen, whole], [command, command])
        measured = result["ratio"]
        return result | {"predicted": predicted, "measured": measured, "ratio": (1 - measured) / (1 - predicted)}

    def measure_memory(self, row):
        peaks = []
        for side in (self.ours, self.theirs):
            with side(row) as process:
                # More than an epoch, so that the end of one is in it.
                process.ask(f"steps {MODELS[row.model].batches + 4}")
                peaks.append(process.peak_bytes())
        imported = process.about["imported"]
        beyond = peaks[0] / (peaks[1] - imported)
        return {"ours": peaks[0], "theirs": peaks[1], "ratio": peaks[0] / peaks[1], "imported": imported,
                "beyond": beyond}

    def measure_overhead(self, row):
        with self.ours(row, bare=True) as ours:
            self.note(ours, None)
            ours.ask(f"steps {3 + self.args.warm}")
            return self.turns([ours, ours], [f"steps {self.args.steps}", f"bare {self.args.steps}"])

    def note(self, ours, theirs):
        self.about["ours"] = ours.about["engine"]
        if not self.about["ours"].startswith("onnxruntime"):
            raise Failed(f"trains on {self.about['ours']}, expected ONNX Runtime")
        if theirs:
            self.about["theirs"] = theirs.about["engine"]


def compared(ours, theirs):
    """Medians in seconds, the median over the rounds of the ratio with its quartiles, and the ratio of the least times."""
    ratios = sorted(statistics.median(a) / statistics.median(b) for a, b in zip(ours, theirs))
    least = [min(wall for turn in side for wall in turn) for side in (ours, theirs)]
    middle = [statistics.median(wall for turn in side for wall in turn) for side in (ours, theirs)]
    return {
        "ours": middle[0], "theirs": middle[1], "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4], "high": ratios[(3 * len(ratios)) // 4], "rounds": len(ratios),
        "least": least[0] / least[1],
    }


def agree(ours, theirs, allowed):
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
    if not worst <= allowed:
        raise Failed(f"the losses differ by {worst:.2g} of PyTorch's")
    return worst


def environment():
    """The Python of an environment with the peers; it is made at first."""
    folder = CACHE / "venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = (HERE / "requirements.txt").read_text()
    done = folder / "requirements.txt"
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
        done.write_text(wanted)
    return python


def driver():
    """The program of steps.rs."""
    command = ["cargo", "build", "--release", "--no-default-features", "--features", "cli", "--example", "steps"]
    subprocess.run(command, check=True, cwd=ROOT)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return target / "release" / "examples" / ("steps.exe" if os.name == "nt" else "steps")


def machine():
    """The processor and the device, as far as they are told."""
    found = {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine()}
    if device := gpu.name():
        found["device"] = device
    try:
        lines = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        found["processor"] = lines.get("model name", "")
        flags = set(lines.get("flags", "").split())
        found["vectors"] = [name for name in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
    except OSError:
        pass
    return found | {"date": datetime.date.today().isoformat()}


def commit():
    """The commit, with a plus where files differ from it."""
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return ""
    return found.stdout.strip()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--rows", nargs="+", metavar="PATTERN", help="rows by name; by default all of the device but try*")
    option("--device", default="cpu", help="\"cpu\" or \"cuda\"")
    option("--tiny", action="store_true", help="small models in place of the large ones, to try the harness")
    option("--budget", type=float, default=math.inf, help="seconds after which no row begins")
    option("--limit", type=float, help="seconds that a side may take for an answer; 300 on a device, else no limit")
    option("--make", action="store_true", help="make the models of the rows and run nothing")
    option("--runtime", type=Path, help="the library of ONNX Runtime")
    option("--list", action="store_true", help="print the names of the rows")
    option("--rounds", type=int, default=9, help="turns of each side")
    option("--steps", type=int, default=3, help="steps in a turn")
    option("--warm", type=int, help="steps that do not count, beside those that compare losses; 2, or 10 on a device")
    option("--runs", type=int, default=2, help="whole runs of each side")
    option("--epoch-steps", type=int, default=12, help="steps in an epoch of a whole run")
    option("--quick", action="store_true", help="3 rounds of 2 steps, 1 run")
    option("--pause", type=float, default=0.03, help="seconds between turns")
    option("--others", type=float, default=0.1, help="share of the processors that others may take in a round")
    option("--patience", type=float, default=45, help="seconds to wait for rounds in which they take less")
    option("--threads", type=int, default=2, help="threads of each side")
    option("--compile", action="store_true", help="time torch.compile against PyTorch too")
    option("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of every job of ours")
    option("--cached", action="append", default=[], metavar="KEY=VALUE", help="a key of the jobs that cache a prefix")
    option("--json", type=Path, help="a file that keeps results; rows that are not run stay")
    option("--table", action="store_true", help="run nothing, print the table of --json")
    option("--python", type=Path, help="a Python that has requirements.txt")
    option("--driver", type=Path, help="the built example `steps`")
    args = parser.parse_args()
    if not args.rows:
        there = lambda row: row.device == ("cpu" if args.device == "cpu" and not args.tiny else "cuda")
        args.rows = [row.name for row in rows() if there(row) and not row.name.startswith("try")]
    on_device = args.device != "cpu"
    args.limit = args.limit or (300 if on_device else None)
    if args.warm is None:
        args.warm = 10 if on_device else 2
    if args.quick:
        args.rounds, args.steps, args.runs = 3, 2, 1
    return args


def main():
    args = arguments()
    if args.list:
        return print("\n".join(f"{row.name:22} {MODELS[row.model].about}: {row.about}" for row in rows()))
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {"rows": {}}
    if args.table:
        return print(table(results))
    bench = Bench(args)
    wanted = [row for row in rows() if any(fnmatch.fnmatch(row.name, pattern) for pattern in args.rows)]
    if args.make:
        return bench.make(wanted)
    until = time.monotonic() + args.budget
    try:
        if any(row.device != "cpu" for row in wanted):
            bench.make(wanted)
        for row in wanted:
            start = time.perf_counter()
            try:
                if time.monotonic() > until:
                    raise Failed("there was no time left")
                bench.folder(row)
                result = bench.measure(row)
            except (Failed, BrokenPipeError) as failed:
                result = {"failed": str(failed)}
            if bench.model(row) != row.model:
                result["tiny"] = True
            result |= {"threads": args.threads, "commit": commit(), "seconds": round(time.perf_counter() - start, 1)}
            print(f"{row.name}: {json.dumps(result)}", file=sys.stderr, flush=True)
            results["rows"][row.name] = result
            results["made"] = results.get("made", {}) | machine() | bench.about
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    print(table(results))
    return any("failed" in results["rows"].get(row.name, {}) for row in wanted)


if __name__ == "__main__":
    sys.exit(main())
