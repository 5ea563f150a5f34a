"""The checks of training on a CUDA device, as one table: `run.py --program FILE [--tests FILE] [--checks PATTERN ..]`.

- operators: the unit tests that need a device, each in a process of its own: every operator beside its twin.
- parity: small models of the fixtures train 50 steps on the processor and on the device, half of the units freezing on
  the way: how far losses and final parameters are apart, in every precision, with operators of ours and the standard
  ones, with CUDA graphs and without.
- resume: a run that is stopped and goes on beside one that is not; what is frozen stays bit for bit.
- cache: a frozen prefix whose outputs are kept, in every place, beside one that is computed anew.
- speed (only with --driver): the large models, time of a step, memory and how busy the device is.

Every check runs programs with a time limit, so a crash of one is a row of the table. Each row is printed when it is
there, `--json` keeps all, also those of earlier calls that are not run again, and the table comes last, with what there was no time for. Needs numpy and onnx.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import children
import compare
from cases import CASES, STEPS, ways
from tables import tables

# Unit tests that use a device, by path.
TESTS = r"^runner::(cuda|onnxruntime|cache|precision)::|cuda"
# Where the outputs of a prefix are kept.
PLACES = ("memory", "disk", "device")


class Suite:
    def __init__(self, args):
        self.args = args
        self.work = Path(args.work or tempfile.mkdtemp(prefix="freeze-plan-cuda-")).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.budget = children.Budget(args.budget)
        self.lock = threading.Lock()
        self.made = {}

    def once(self, name, make):
        """What `make` gives, made once however many threads ask for it."""
        with self.lock:
            future = self.made.get(name)
            mine = future is None
            if mine:
                future = self.made[name] = concurrent.futures.Future()
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def runtime(self):
        return ["--runtime", self.args.runtime] if self.args.runtime else []

    def folder(self, name):
        folder = self.work / name.replace("/", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def train(self, folder, text, more=(), **options):
        """Runs a job in a folder and returns the folder of its run."""
        (folder / "job.toml").write_text(text)
        command = [self.args.program, "train", folder / "job.toml", "--quiet", *self.runtime(), *more]
        limit = max(1.0, min(self.args.limit, self.budget.left()))
        children.run(command, limit, folder / f"log{len(list(folder.glob('log*')))}", **options)
        return folder / "run"

    def trained(self, name, case, **options):
        """A run of a case, once."""

        def make():
            return compare.Run.read(self.train(self.folder(name), case.job(self.work, **options)))

        return self.once(name, make)

    def device(self):
        return self.args.device

    def parity(self, case, way):
        reference = self.trained(f"cpu-{case.name}-{way.operators}", case, device="cpu", operators=way.operators)
        start = self.once(f"start-{case.name}", lambda: compare.parameters(case.path()))
        run = compare.Run.read(self.train(
            self.folder(f"parity-{case.name}-{way.name}"),
            case.job(self.work, device=self.device(), precision=way.precision, operators=way.operators, graphs=way.graphs),
        ))
        return compare.parity(run, reference, start, way.precision)

    def resume(self, case, precision):
        options = {"steps": self.args.resume_steps, "device": self.device(), "precision": precision}
        text = case.job(self.work, **options, more="[checkpoint]\nkeep = 100\n")
        whole = compare.Run.read(self.train(self.folder(f"whole-{case.name}-{precision}"), text))
        after = int(0.55 * max(whole.losses, default=0))
        folder = self.folder(f"resume-{case.name}-{precision}")
        asked = []

        def watch(line, process):
            found = re.search(r'"event":"step".*"step":(\d+)', line)
            if found and int(found[1]) >= after and not asked:
                asked.append(int(found[1]))
                process.send_signal(signal.SIGINT)

        self.train(folder, text, ["--json"], watch=watch, codes=(130, 0))
        stopped = compare.latest_checkpoint(folder / "run")
        run = compare.Run.read(self.train(folder, text, ["--resume"]))
        at = [event["step"] for event in run.of("resume")]
        row = compare.alike(run, whole) | {"at": at[-1] if at else None}
        frozen = compare.frozen_at_end(folder / "run" / "plan.json")
        moved = compare.bits_differ(frozen, stopped, compare.latest_checkpoint(folder / "run"))
        row["frozen"] = len(frozen)
        if not at:
            row["verdict"] = "was not stopped in time"
        elif not frozen or moved:
            row["verdict"] = f"moved while frozen: {', '.join(moved[:3])}" if moved else "nothing is frozen"
        return row

    def cache(self, case, place):
        freeze = "[{ epoch = 1, frozen = 0.5 }]"

        def run(mode):
            more = f'[cache]\nmode = "{mode}"\n'
            options = {"freeze": freeze, "batch_norm": "frozen", "more": more, "device": self.device()}
            return self.trained(f"cache-{case.name}-{mode}", case, steps=4 * STEPS, **options)

        reference, run = run("off"), run(place)
        row = compare.alike(run, reference)
        used = run.of("cache")
        row["prefix"] = max((event.get("prefix_nodes", 0) for event in run.of("phase")), default=0)
        if row["verdict"] == "ok" and not any(event["used"] for event in used):
            row["verdict"] = f"not used: {used[-1].get('reason') if used else 'there is no prefix'}"
        return row

    def operators(self, test):
        folder = self.folder(f"test-{test.replace('::', '-')}")
        command = [self.args.tests, "--exact", test, "--nocapture", "--test-threads", "1"]
        environment = {"ORT_DYLIB_PATH": str(self.args.runtime)} if self.args.runtime else {}
        limit = max(1.0, min(self.args.limit, self.budget.left()))
        printed = children.run(command, limit, folder / "log", environment=environment)
        return compare.of_test(printed + (folder / "log").read_text(errors="replace"))

    def checks(self):
        """Every check: its name, and what gives its row."""
        found = []
        if self.args.tests:
            listed = children.run([self.args.tests, "--list", "--format", "terse"], 60, self.work / "tests.log")
            names = [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]
            names = [name for name in names if re.search(self.args.tests_that or TESTS, name)]
            found += [(f"operators/{name}", lambda name=name: self.operators(name)) for name in names]
        turns = [(case, ways(case)) for case in CASES]
        for number in range(max(len(all_ways) for _, all_ways in turns)):
            for case, all_ways in turns:
                for way in all_ways[number : number + 1]:
                    found.append((f"parity/{case.name}/{way.name}", lambda c=case, w=way: self.parity(c, w)))
        whole = [case for case in CASES if case.whole]
        for case in whole:
            for precision in ("fp32", "bf16"):
                found.append((f"resume/{case.name}/{precision}", lambda c=case, p=precision: self.resume(c, p)))
        for case in (case for case in whole if case.name != "mlp"):
            for place in PLACES:
                found.append((f"cache/{case.name}/{place}", lambda c=case, p=place: self.cache(c, p)))
        return found

    def speeds(self):
        if not self.args.driver:
            return []
        import speed

        return speed.checks(self)


def row_of(suite, check):
    """Runs a check; whatever goes wrong is its verdict."""
    if suite.budget.left() < suite.args.least:
        return {"verdict": "not run: out of time"}
    start = time.monotonic()
    try:
        row = check()
    except children.Ended as ended:
        row = {"verdict": str(ended)}
    except Exception as error:
        row = {"verdict": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.monotonic() - start, 1)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--program", type=Path, help="the program `freeze-plan`")
    option("--runtime", type=Path, help="the library of ONNX Runtime for CUDA; looked for without")
    option("--tests", type=Path, help="the program of the unit tests; no operators without")
    option("--tests-that", metavar="REGEX", help=f"which unit tests, by path; {TESTS} by default")
    option("--driver", type=Path, help="the example `steps`; no speed without")
    option("--checks", nargs="+", default=["*"], metavar="PATTERN", help="checks by name, such as parity/digits/*")
    option("--table", action="store_true", help="run nothing, print the tables of --json")
    option("--list", action="store_true", help="print the names of the checks")
    option("--device", default="cuda", help="\"cuda\", \"cuda:N\", or \"cpu\" to try the suite")
    option("--limit", type=float, default=120, help="seconds that a program may take")
    option("--budget", type=float, default=3600, help="seconds for everything")
    option("--least", type=float, default=5, help="seconds that must be left to begin a check")
    option("--jobs", type=int, default=min(6, os.cpu_count() or 1), help="checks at a time; of speed one")
    option("--resume-steps", type=int, default=400, help="steps of the runs that are stopped")
    option("--tiny", action="store_true", help="small models in place of the large ones, to try the suite")
    option("--json", type=Path, help="a file for all results")
    option("--work", type=Path, help="a folder for the runs and their logs, which is kept")
    args = parser.parse_args()
    if not args.program and not args.table:
        parser.error("--program is missing")
    for name in ("program", "runtime", "tests", "driver"):
        path = getattr(args, name)
        if path:
            setattr(args, name, path.resolve())
    return args


def main():
    args = arguments()
    if args.table:
        return print(tables(json.loads(args.json.read_text())))
    suite = Suite(args)
    wanted = lambda name: any(fnmatch.fnmatch(name, pattern) for pattern in args.checks)
    checks = [check for check in suite.checks() if wanted(check[0])]
    speeds = [check for check in suite.speeds() if wanted(check[0])]
    if args.list:
        return print("\n".join(name for name, _ in checks + speeds))
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    results |= {name: {"verdict": "not run: the suite was ended"} for name, _ in checks + speeds}
    lock = threading.Lock()

    def one(name, check):
        row = row_of(suite, check)
        with lock:
            results[name] = row
            print(f"{name}: {json.dumps(row)}", file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")

    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda check: one(*check), checks))
        for check in speeds:
            one(*check)
    except KeyboardInterrupt:
        pass
    print(tables(results), flush=True)
    if not args.work:
        shutil.rmtree(suite.work, ignore_errors=True)
    return any(row["verdict"] != "ok" for row in results.values())


if __name__ == "__main__":
    sys.exit(main())
