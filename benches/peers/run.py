"""This program beside PyTorch, step by step: `run.py [--rows PATTERN ..] [--json FILE]`; `--list` names the rows.

Two processes take turns of a few steps each, so that what slows the machine down slows both, and neither the start nor
the first steps count. A ratio is this program's time over PyTorch's: the median over the rounds of the ratio of the
turns; that of the least times stands beside it, and what other processes took of the processors meanwhile. Before
that, three steps on the same batches must give the same losses. The table goes to stdout as Markdown; `--json` also
keeps the numbers, and replaces only the rows that were run.

PyTorch is installed into an environment in the cache folder, or `--python` names one that has requirements.txt.
"""

import argparse
import datetime
import fnmatch
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freeze-plan-peers"
SGD = {"kind": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"kind": "adamw", "lr": 1e-4}
# How far losses may differ, relative to PyTorch's.
TOLERANCE = 1e-3
# Of a whole run.
EPOCHS = 10


@dataclass(frozen=True)
class Model:
    about: str
    batch: int
    optimizer: dict
    convolutions: bool
    batches: int = 16


MODELS = {
    "resnet56": Model("ResNet-56, 32x32, batch 64, SGD", 64, SGD, True),
    "resnet8": Model("ResNet-8, 32x32, batch 16, SGD", 16, SGD, True),
    "bert-mini": Model("BERT-mini, 4 layers, 256 wide, sequence 128, batch 16, AdamW", 16, ADAMW, False, 64),
    "vit-tiny": Model("ViT-tiny, 12 layers, 192 wide, 64x64, patch 8, batch 32, AdamW", 32, ADAMW, False),
    "mobilenet": Model("MobileNetV2, 64x64, batch 32, SGD", 32, SGD, True),
    "resnet18": Model("ResNet-18, 112x112, batch 16, SGD", 16, SGD, True),
}


@dataclass(frozen=True)
class Row:
    name: str
    model: str
    about: str
    goal: float
    kind: str = "step"
    frozen: float = 0.0
    batch_norm: str = "train"
    cached: bool = False


def rows():
    found = [Row("resnet56", "resnet56", "nothing frozen", 0.85)]
    for percent in (25, 50, 75, 90):
        about = f"first {percent} % of leaves frozen"
        found.append(Row(f"resnet56-{percent}", "resnet56", about, 0.8, frozen=percent / 100))
    for percent in (25, 50, 75, 90):
        about = f"first {percent} % frozen, BatchNorm too"
        row = Row(f"resnet56-{percent}-frozen", "resnet56", about, 0.65, frozen=percent / 100, batch_norm="frozen")
        found.append(row)
    found += [
        Row("resnet56-75-cached", "resnet56", "first 75 % frozen, BatchNorm too, prefix cached", 0.4,
            frozen=0.75, batch_norm="frozen", cached=True),
        Row("resnet56-run", "resnet56", "10 epochs, Composer's defaults", 0.8, "run"),
        Row("resnet56-run-cached", "resnet56", "10 epochs, Composer's defaults, BatchNorm frozen, prefix cached", 0.6,
            "run", batch_norm="frozen", cached=True),
        Row("bert-mini", "bert-mini", "nothing frozen", 0.85),
        Row("vit-tiny", "vit-tiny", "nothing frozen", 0.85),
        Row("mobilenet", "mobilenet", "nothing frozen", 0.9),
        Row("resnet18", "resnet18", "nothing frozen", 0.9),
    ]
    for percent in (25, 50, 75, 90):
        about = f"share of the predicted saving, first {percent} % of leaves frozen"
        found.append(Row(f"saving-{percent}", "resnet56", about, 0.95, "saving", frozen=percent / 100))
    found += [
        Row("memory-resnet56", "resnet56", "peak resident memory", 0.8, "memory"),
        Row("memory-bert-mini", "bert-mini", "peak resident memory", 0.8, "memory"),
        Row("overhead", "resnet56", "step over its bare sessions", 1.02, "overhead"),
        # To try the harness: a row takes seconds.
        Row("try", "resnet8", "nothing frozen", 1.0),
        Row("try-50", "resnet8", "first 50 % of leaves frozen", 1.0, frozen=0.5),
        Row("try-50-frozen", "resnet8", "first 50 % frozen, BatchNorm too", 1.0, frozen=0.5, batch_norm="frozen"),
        Row("try-run", "resnet8", "10 epochs, Composer's defaults", 1.0, "run"),
        Row("try-saving", "resnet8", "share of the predicted saving, first 50 % of leaves frozen", 1.0, "saving",
            frozen=0.5),
        Row("try-memory", "resnet8", "peak resident memory", 1.0, "memory"),
        Row("try-overhead", "resnet8", "step over its bare sessions", 1.0, "overhead"),
    ]
    return found


class Failed(Exception):
    """A row that has no result, with the reason."""


class Side:
    """A process that trains as it is told."""

    def __init__(self, command, environment=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **(environment or {})},
        )
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
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

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.log.close()


class Bench:
    def __init__(self, args):
        self.args = args
        self.python = args.python or environment()
        self.driver = args.driver or driver()
        self.work = Path(tempfile.mkdtemp(prefix="freeze-plan-peers-"))
        self.names = {}
        self.about = {}

    def folder(self, row):
        """The folder with the model and the data of a row."""
        count = MODELS[row.model].batch * self.batches(row)
        text = (HERE / "models.py").read_text() + self.version()
        folder = CACHE / "models" / f"{row.model}-{count}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if not (folder / "done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([self.python, HERE / "models.py", row.model, folder, str(count)], check=True)
            (folder / "done").touch()
        return folder

    def batches(self, row):
        return self.args.epoch_steps if row.kind == "run" else MODELS[row.model].batches

    def version(self):
        if "torch" not in self.about:
            code = "import torch; print(torch.__version__)"
            found = subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True)
            self.about["torch"] = found.stdout.strip()
        return self.about["torch"]

    def frozen(self, model, fraction):
        """The parameters of the first leaves, as PyTorch's side freezes them."""
        if fraction and (model, fraction) not in self.names:
            code = "import json, sys, models; model = models.build(sys.argv[1])\n"
            code += "print(json.dumps(models.frozen_names(model, float(sys.argv[2]))))"
            command = [self.python, "-c", code, model, str(fraction)]
            found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE)
            self.names[model, fraction] = json.loads(found.stdout)
        return self.names.get((model, fraction), [])

    def ours(self, row, frozen=None, bare=False):
        """This program's side of a row; `frozen` in place of what the row freezes."""
        frozen = row.frozen if frozen is None else frozen
        folder = self.folder(row)
        names = json.dumps(self.frozen(row.model, frozen))
        policy = "linear" if row.kind == "run" else "none"
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in MODELS[row.model].optimizer.items())
        job = self.work / f"{row.name}-{frozen}.toml"
        # A run of steps has no end of its own.
        epochs = EPOCHS if row.kind == "run" else 1_000
        # A cache is of samples, so that order is no matter; without one the order is PyTorch's.
        job.write_text(
            f"model = {json.dumps(str(folder / 'model.onnx'))}\n"
            f"optimizer = {{ {options} }}\n"
            'loss = { kind = "cross-entropy" }\n'
            f"data = {{ train = {json.dumps(str(folder / 'data.npz'))}, inputs = {{ x = \"x\" }}, target = \"labels\", "
            f"batch = {MODELS[row.model].batch}, shuffle = {json.dumps(row.cached)} }}\n"
            f"freeze = {{ policy = \"{policy}\", freeze = {names}, batch_norm = \"{row.batch_norm}\" }}\n"
            f"run = {{ epochs = {epochs}, dir = {json.dumps(str(job.with_suffix('')))}, threads = {self.args.threads}, "
            "ceiling_steps = 0, log_every = 1 }\n"
        )
        command = [self.driver, job]
        for setting in [*self.args.set, *(self.args.cached if row.cached else [])]:
            command += ["--set", setting]
        return Side([str(part) for part in command + (["--bare"] if bare else [])])

    def theirs(self, row, compiled=False):
        folder = self.folder(row)
        options = {
            "model": row.model, "data": str(folder / "data.npz"), "batch": MODELS[row.model].batch,
            "optimizer": MODELS[row.model].optimizer, "threads": self.args.threads, "frozen": row.frozen,
            "batch_norm": row.batch_norm, "channels_last": MODELS[row.model].convolutions, "compile": compiled,
            "epochs": EPOCHS,
        }
        threads = {"OMP_NUM_THREADS": str(self.args.threads)}
        return Side([str(self.python), str(HERE / "torch_side.py"), json.dumps(options)], threads)

    def turns(self, sides, commands):
        """Seconds of the steps of each side by round."""
        taken = [[] for _ in sides]
        for turn in range(self.args.rounds):
            order = list(range(len(sides)))
            for index in order if turn % 2 == 0 else reversed(order):
                time.sleep(self.args.pause)
                taken[index].append(sides[index].ask(commands[index])["walls"])
        return taken

    def measure(self, row):
        if row.cached and not self.args.cached:
            raise Failed("needs --cached KEY=VALUE, the keys of a job that turn the cache on")
        return getattr(self, f"measure_{row.kind}")(row)

    def measure_step(self, row):
        with self.ours(row) as ours, self.theirs(row) as theirs:
            self.note(ours, theirs)
            result = {}
            if not row.cached:
                result["difference"] = agree(ours.ask("steps 3")["losses"], theirs.ask("steps 3")["losses"])
            # A cache is full after an epoch.
            warm = MODELS[row.model].batches + 1 if row.cached else self.args.warm
            ours.ask(f"steps {warm}")
            theirs.ask(f"steps {self.args.warm}")
            command = f"steps {self.args.steps}"
            result |= compared(*self.turns([ours, theirs], [command, command]))
        if self.args.compile:
            with self.theirs(row, True) as compiled, self.theirs(row) as theirs:
                compiled.ask("steps 5")
                theirs.ask("steps 5")
                found = compared(*self.turns([compiled, theirs], [command, command]))
                result["compiled"] = found["ratio"]
        return result

    def measure_run(self, row):
        taken = [[], []]
        for _ in range(self.args.runs):
            for index, side in enumerate((self.ours, self.theirs)):
                with side(row) as process:
                    taken[index].append([process.ask("run")["seconds"]])
        return compared(*taken)

    def measure_saving(self, row):
        with self.ours(row) as frozen, self.ours(row, 0.0) as whole:
            self.note(frozen, None)
            predicted = frozen.about["predicted"]
            command = f"steps {self.args.steps}"
            for side in (frozen, whole):
                side.ask(f"steps {3 + self.args.warm}")
            result = compared(*self.turns([frozen, whole], [command, command]))
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
            return compared(*self.turns([ours, ours], [f"steps {self.args.steps}", f"bare {self.args.steps}"]))

    def note(self, ours, theirs):
        self.about["ours"] = ours.about["engine"]
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


def agree(ours, theirs):
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
    if not worst <= TOLERANCE:
        raise Failed(f"the losses differ by {worst:.2g}: {ours} and {theirs}")
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


def busy():
    """Seconds of processor time that the machine has spent, and this program with what it ran and waited for."""
    own = os.times()
    try:
        spent = [int(word) for word in open("/proc/stat").readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    # User, nice, system, then idle and waiting, then interrupts and what the host took.
    total = (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
    return total, own.user + own.system + own.children_user + own.children_system


def machine():
    """The processor, as far as it is told."""
    found = {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine()}
    try:
        lines = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        found["processor"] = lines.get("model name", "")
        flags = set(lines.get("flags", "").split())
        found["vectors"] = [name for name in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
    except OSError:
        pass
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return found | {"commit": commit.stdout.strip(), "date": datetime.date.today().isoformat()}


def amount(row, value):
    if row.kind == "memory":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.1f} s" if row.kind == "run" else f"{value * 1e3:.1f} ms"


PEERS = {"saving": "nothing frozen", "overhead": "bare sessions"}


def table(results):
    """The results as Markdown."""
    lines = [
        "| model | what | ours | beside | its time | ratio (quartiles) | of least | goal | | others |",
        "|---|---|--:|---|--:|--:|--:|--:|---|--:|",
    ]
    for row in rows():
        result = results["rows"].get(row.name)
        if result is None:
            continue
        layout = "PyTorch channels-last" if MODELS[row.model].convolutions else "PyTorch eager"
        peer = PEERS.get(row.kind, layout)
        sign = "≥" if row.kind == "saving" else "≤"
        goal = f"{sign} {row.goal}"
        start = f"| {MODELS[row.model].about} | {row.about} |"
        if "failed" in result:
            lines.append(f"{start} | {peer} | | {result['failed']} | | {goal} | | |")
            continue
        ratio = f"{result['ratio']:.3f}"
        if row.kind == "saving":
            ratio += f" ({result['measured']:.3f}, predicted {result['predicted']:.3f})"
        elif "low" in result:
            ratio += f" ({result['low']:.3f}–{result['high']:.3f})"
        if "beyond" in result:
            ratio += f" ({result['beyond']:.3f} of what it has beyond importing itself)"
        if "compiled" in result:
            ratio += f", torch.compile {result['compiled']:.2f}"
        met = result["ratio"] >= row.goal if row.kind == "saving" else result["ratio"] <= row.goal
        ours, theirs = amount(row, result["ours"]), amount(row, result["theirs"])
        least = f"{result['least']:.3f}" if "least" in result else ""
        verdict = f"{'met' if met else 'not met'} | {100 * result['others']:.0f} %"
        lines.append(f"{start} {ours} | {peer} | {theirs} | {ratio} | {least} | {goal} | {verdict} |")
    made = results["made"]
    vectors = ", ".join(made.get("vectors", []))
    processor = f"{made.get('processor', '')} ({made['cores']} cores, {vectors})"
    sides = "; ".join(made[side] for side in ("ours", "theirs") if side in made)
    return "\n".join(lines + ["", f"{processor}; {sides}; commit {made['commit']}, {made['date']}.", ""])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--rows", nargs="+", metavar="PATTERN", help="rows by name; all but try* by default")
    option("--list", action="store_true", help="print the names of the rows")
    option("--rounds", type=int, default=9, help="turns of each side")
    option("--steps", type=int, default=3, help="steps in a turn")
    option("--warm", type=int, default=2, help="steps that do not count, beside those that compare losses")
    option("--runs", type=int, default=2, help="whole runs of each side")
    option("--epoch-steps", type=int, default=12, help="steps in an epoch of a whole run")
    option("--quick", action="store_true", help="3 rounds of 2 steps, 1 run")
    option("--pause", type=float, default=0.03, help="seconds between turns")
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
        args.rows = [row.name for row in rows() if not row.name.startswith("try")]
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
    try:
        for row in rows():
            if not any(fnmatch.fnmatch(row.name, pattern) for pattern in args.rows):
                continue
            bench.folder(row)
            start, before = time.perf_counter(), busy()
            try:
                result = bench.measure(row)
            except Failed as failed:
                result = {"failed": str(failed)}
            seconds, after = time.perf_counter() - start, busy()
            others = (after[0] - before[0] - after[1] + before[1]) / (seconds * os.cpu_count())
            result |= {"threads": args.threads, "others": round(max(others, 0.0), 3), "seconds": round(seconds, 1)}
            print(f"{row.name}: {json.dumps(result)}", file=sys.stderr, flush=True)
            results["rows"][row.name] = result
            results["made"] = results.get("made", {}) | machine() | bench.about
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    print(table(results))
    return any("failed" in result for result in results["rows"].values())


if __name__ == "__main__":
    sys.exit(main())
