"""Tests of what judges the suite's runs: `python -m unittest` in this folder."""

import json
import math
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

import children
import compare
from tables import tables

sys.path.append(str(Path(__file__).resolve().parent.parent / "peers"))

import gpu


def events(losses, end="done", frozen=True):
    found = [{"event": "step", "step": step, "loss": loss} for step, loss in losses.items()]
    found += [{"event": "proof"}] if frozen else []
    return found + [{"event": "end", "status": end}]


def run(losses, values=None, **options):
    return compare.Run(events(losses, **options), losses, values or {})


class Deviations(unittest.TestCase):
    def test_losses_are_compared_with_a_tenth_of_the_first_at_least(self):
        self.assertEqual(compare.loss_deviation({1: 2.0, 2: 1.0}, {1: 2.0, 2: 1.0}), 0.0)
        self.assertAlmostEqual(compare.loss_deviation({1: 2.0, 2: 1.1}, {1: 2.0, 2: 1.0}), 0.1)
        self.assertAlmostEqual(compare.loss_deviation({1: 2.0, 2: 0.02}, {1: 2.0, 2: 0.0}), 0.1)

    def test_steps_that_are_missing_or_not_finite_are_infinitely_far(self):
        self.assertEqual(compare.loss_deviation({1: 2.0}, {1: 2.0, 2: 1.0}), math.inf)
        self.assertEqual(compare.loss_deviation({1: math.nan}, {1: 2.0}), math.inf)
        self.assertEqual(compare.loss_deviation({}, {}), math.inf)

    def test_parameters_are_compared_with_how_far_they_moved(self):
        start, expected = {"w": np.zeros(4)}, {"w": np.full(4, 2.0)}
        self.assertEqual(compare.parameter_deviation(expected, expected, start), 0.0)
        self.assertAlmostEqual(compare.parameter_deviation({"w": np.full(4, 2.2)}, expected, start), 0.1)
        self.assertAlmostEqual(compare.parameter_deviation(start, expected, start), 1.0)
        self.assertEqual(compare.parameter_deviation({}, expected, start), math.inf)
        self.assertEqual(compare.parameter_deviation({"w": np.full(4, math.nan)}, expected, start), math.inf)
        # What nothing moved tells nothing.
        self.assertEqual(compare.parameter_deviation(start, start, start), math.inf)

    def test_bits(self):
        zero, minus = {"w": np.array([0.0], np.float32)}, {"w": np.array([-0.0], np.float32)}
        self.assertEqual(compare.bits_differ(["w"], zero, dict(zero)), [])
        self.assertEqual(compare.bits_differ(["w"], zero, minus), ["w"])
        self.assertEqual(compare.bits_differ(["v"], zero, zero), ["v"])


class Verdicts(unittest.TestCase):
    def test_parity(self):
        start, values = {"w": np.zeros(4)}, {"w": np.ones(4)}
        good = run({1: 2.0, 2: 1.0}, values)
        self.assertEqual(compare.parity(good, good, start, "fp32")["verdict"], "ok")
        off = run({1: 2.0, 2: 1.01}, values)
        self.assertIn("losses differ by 1.0e-02", compare.parity(off, good, start, "fp32")["verdict"])
        self.assertEqual(compare.parity(off, good, start, "bf16")["verdict"], "ok")
        far = run({1: 2.0, 2: 1.0}, {"w": np.full(4, 1.5)})
        self.assertIn("parameters differ by 5.0e-01", compare.parity(far, good, start, "bf16")["verdict"])
        thawed = run({1: 2.0, 2: 1.0}, values, frozen=False)
        self.assertIn("nothing was proved", compare.parity(thawed, good, start, "fp32")["verdict"])
        placed = run({1: 2.0, 2: 1.0}, values)
        placed.events.append({"event": "warning", "message": '1 nodes run on the processor and not on cuda: "a" (Trilu)'})
        self.assertIn("Trilu", compare.parity(placed, good, start, "fp32")["verdict"])

    def test_runs_that_do_not_end_or_are_not_finite(self):
        good = run({1: 2.0})
        self.assertIn("ended: failed", compare.alike(run({1: 2.0}, end="failed"), good)["verdict"])
        self.assertIn("not finite", compare.alike(run({1: math.nan}), run({1: math.nan}))["verdict"])
        self.assertIn("has no steps", compare.alike(run({}), good)["verdict"])
        self.assertIn("the other run has no steps", compare.alike(good, run({}))["verdict"])
        self.assertEqual(compare.alike(good, good)["verdict"], "ok")
        self.assertTrue(compare.alike(good, good)["bits"])
        self.assertIn("losses differ", compare.alike(run({1: 2.1}), good)["verdict"])

    def test_what_a_test_prints(self):
        log = "skipped on CUDA: no driver\n"
        self.assertEqual(compare.of_test(log)["verdict"], "not run: no driver")
        log = "ReluGrad F16 on CUDA: output 0 is 2.5e-01 of what is allowed\nReluGrad F32 on CUDA: output 0 is 0 of what is allowed\n"
        self.assertEqual(compare.of_test(log), {"outputs": 2, "worst": 0.25, "verdict": "ok"})

    def test_the_table_has_every_row(self):
        rows = {"parity/a/fp32-own": {"verdict": "was killed by SIGSEGV: a | b\nc"}, "cache/a/disk": {"verdict": "ok", "losses": 0.0}}
        rows["resume/a/fp32"] = {"verdict": "not run: out of time"}
        text = tables(rows)
        self.assertIn("| a/fp32-own |  |  |  |  | was killed by SIGSEGV: a / b c |", text)
        self.assertIn("| a/disk | 0.0e+00 |  |  | ok |", text)
        self.assertTrue(text.endswith("1 of 3 ok, 1 not, 1 not run."))


class Files(unittest.TestCase):
    def test_a_line_that_is_cut_off_is_left_out(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.jsonl"
            path.write_text('{"event":"step","step":1,"loss":null}\n{"event":"st')
            self.assertEqual(len(compare.read_events(path)), 1)
            self.assertTrue(math.isnan(compare.losses(compare.read_events(path))[1]))
            self.assertEqual(compare.Run.read(folder).problems()[0], "did not end")

    def test_safetensors(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.safetensors"
            head = json.dumps({"__metadata__": {}, "w": {"dtype": "BF16", "shape": [2], "data_offsets": [1, 5]}}).encode()
            path.write_bytes(len(head).to_bytes(8, "little") + head + bytes([9, 1, 2, 3, 4]))
            self.assertEqual(compare.safetensors(path)["w"].tolist(), [1, 2, 3, 4])


class Samples(unittest.TestCase):
    def test_the_busy_share_is_of_steps_alone(self):
        busy = gpu.Busy(skip=0.5)
        busy.samples, busy.seconds = [(0.1, 0.0), (0.6, 0.8), (0.8, 0.6)], 10.0
        self.assertAlmostEqual(busy.share(10.0), 0.7)
        self.assertAlmostEqual(busy.share(8.0), 0.875)
        self.assertEqual(busy.share(5.0), 1.0)
        self.assertIsNone(busy.share(0.0))
        busy.samples = []
        self.assertIsNone(busy.share(8.0))


class Children(unittest.TestCase):
    def python(self, code, limit=20.0, **options):
        with tempfile.TemporaryDirectory() as folder:
            return children.run([sys.executable, "-c", code], limit, Path(folder) / "log", **options)

    def test_what_a_program_prints_and_how_it_ends(self):
        self.assertEqual(self.python("print('a'); print('b')"), "a\nb\n")
        self.assertEqual(self.python("import sys; sys.exit(130)", codes=(130,)), "")
        cases = [
            ("import sys; sys.exit('error: no device')", "ended with 1: error: no device"),
            ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ]
        for code, expected in cases:
            with self.assertRaises(children.Ended) as caught:
                self.python(code)
            self.assertEqual(str(caught.exception), expected)

    def test_a_program_that_hangs_is_ended(self):
        with self.assertRaises(children.Ended) as caught:
            self.python("import time; print('on', flush=True); time.sleep(60)", limit=2.0)
        self.assertIn("took longer than 2 s", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
