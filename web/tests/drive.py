#!/usr/bin/env python3
"""Drives the page in a headless Chromium: drive.py PAGE.html NATIVE

Compares every fixture's plan, or the refusal, with what NATIVE (examples/native.rs) says to the same request. Left out are
models of which the page cannot say the same: those that name other files, since it has no folders, and those with sizes above
2^32, which are not known to it.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

from browser import Browser

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "..", "fixtures")
REQUESTS = [
    {"epochs": 7, "batch": 32, "options": {"policy": "linear"}},
    {"epochs": 12, "batch": 100000, "options": {"policy": "linear", "freeze_start": 0.2, "unit": "parameter"}},
    {"epochs": 9, "batch": 3, "slots": 2, "options": {"policy": "geometric", "unit": "block"}},
    {"epochs": 5, "options": {"policy": "budget", "target": 0.7}},
    {"epochs": 8, "batch": 16, "options": {"policy": "cyclic", "order": "random", "batch_norm": "frozen"}},
]
LEFT_OUT = r".*external|odd_size_|odd_attribute_tensor_broken|bad_sparse_overflow|bad_tensor_dims_huge"
OUTCOME = """(() => {
  const text = (id) => document.getElementById(id).textContent;
  const lines = [...document.querySelectorAll("#error p")].map((p) => p.textContent);
  return lines.length ? { error: lines } : /^planned/.test(text("status")) ? { ok: true } : null;
})()"""
FIELDS = "epochs batch steps_per_epoch slots".split()


def outcome(browser):
    return browser.wait(OUTCOME)


def blank(browser):
    browser.value('document.getElementById("status").textContent = ""; document.getElementById("error").replaceChildren()')


def set_fields(browser, request):
    """Puts a request into the fields."""
    values = {name: request.get(name, "") for name in FIELDS} | {"unit": "", "batch_norm": ""} | request["options"]
    browser.value(
        """(async (values) => {
          const fields = document.getElementById("form").elements;
          for (const name of ["policy", ...Object.keys(values)]) {
            fields[name].value = String(values[name]);
            if (fields[name].value !== String(values[name])) throw new Error(name);
            if (name === "policy") fields[name].dispatchEvent(new Event("input", { bubbles: true }));
          }
          await new Promise((done) => setTimeout(done, 200));
        })(%s)"""
        % json.dumps(values)
    )


def save(browser):
    """Returns what the page saves, without a file for each."""
    return browser.value(
        """new Promise((done) => {
          const make = URL.createObjectURL;
          URL.createObjectURL = (blob) => {
            URL.createObjectURL = make;
            done(blob.text());
            return "#";
          };
          document.getElementById("json").click();
        })"""
    )


def session_of(browser, kind):
    """Returns the newest session of a kind of target."""
    attached = [event["params"] for event in browser.events if event["method"] == "Target.attachedToTarget"]
    return [params["sessionId"] for params in attached if params["targetInfo"]["type"] == kind][-1]


def planned(native, path, request):
    """Returns what the native planner says."""
    line = json.dumps({"path": path, "request": request})
    return json.loads(subprocess.run([native], input=line, stdout=subprocess.PIPE, text=True, check=True).stdout)


def compare(browser, native):
    """Compares all fixtures; returns how many were planned and how many refused."""
    cases = []
    for index, path in enumerate(sorted(glob.glob(os.path.join(FIXTURES, "**", "*.onnx"), recursive=True))):
        if re.match(LEFT_OUT, os.path.basename(path)):
            continue
        cases.append((os.path.abspath(path), index % len(REQUESTS)))
    lines = "".join(json.dumps({"path": path, "request": REQUESTS[which]}) + "\n" for path, which in cases)
    replies = subprocess.run([native], input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert len(replies) == len(cases)
    replies = dict(zip(cases, map(json.loads, replies)))
    counts, problems = {"planned": 0, "refused": 0}, []
    for which, request in enumerate(REQUESTS):
        set_fields(browser, request)
        for case in [case for case in cases if case[1] == which]:
            blank(browser)
            browser.choose(case[0])
            found, expected = outcome(browser), replies[case]
            name = os.path.relpath(case[0], FIXTURES)
            if "error" in found:
                told = expected.get("error", {})
                told = [text for text in (told.get("message"), told.get("hint")) if text]
                counts["refused"] += 1
                if found["error"] != told:
                    problems.append(f"{name}: the page says {found['error']}, expected {told or 'a plan'}")
            else:
                counts["planned"] += 1
                if save(browser) != expected.get("ok"):
                    problems.append(f"{name}: another plan, expected {str(expected)[:200]}")
    assert not problems, "\n".join(problems)
    assert counts["planned"] >= 30 and counts["refused"] >= 30, counts
    return counts


def settings(browser):
    """A plan follows its settings; a refusal stands where one looks, and the next plan takes it away."""
    set_fields(browser, REQUESTS[0])
    blank(browser)
    browser.drop(os.path.abspath(os.path.join(FIXTURES, "digits", "model.onnx")))
    assert "ok" in outcome(browser)
    plan = json.loads(save(browser))
    browser.value('document.getElementById("json").click()')
    assert json.loads(browser.saved()) == plan
    assert len(plan["epochs"]) == 7 and plan["assumed"]["batch"] == 32, plan["assumed"]
    blank(browser)
    set_fields(browser, {"epochs": 4, "options": {"policy": "linear", "freeze_start": 0, "freeze_level": 0.5}})
    assert "ok" in outcome(browser)
    plan = json.loads(save(browser))
    assert plan["policy"]["freeze_level"] == 0.5 and len(plan["epochs"]) == 4, plan["policy"]
    blank(browser)
    set_fields(browser, {"epochs": 4, "options": {"policy": "linear", "freeze_start": 1.5}})
    found = outcome(browser)
    assert "freeze_start" in found["error"][0], found
    assert browser.value('document.querySelector("[aria-invalid]").name') == "freeze_start"
    blank(browser)
    set_fields(browser, {"epochs": 4, "options": {"policy": "linear", "freeze_start": "", "keep": "fc*\nconv1"}})
    assert "ok" in outcome(browser)
    assert json.loads(save(browser))["policy"]["keep"] == ["fc*", "conv1"]
    blank(browser)
    set_fields(browser, {"options": {"policy": "linear", "keep": "nothing.like.it"}})
    assert "nothing.like.it" in outcome(browser)["error"][0]
    blank(browser)
    set_fields(browser, {"options": {"policy": "linear", "keep": ""}})
    assert "ok" in outcome(browser)


def sizes(browser, native):
    """A size that the model leaves open beside the batch has a field; with it, costs are counted."""
    set_fields(browser, REQUESTS[0])
    model = os.path.abspath(os.path.join(FIXTURES, "models", "bert.torchscript.onnx"))
    request = REQUESTS[0] | {"shapes": [[name, [32, 12]] for name in ("ids", "mask", "kinds")]}
    blank(browser)
    browser.choose(model)
    assert "ok" in outcome(browser)
    assert browser.value('[...document.querySelectorAll("#sizes input")].map((input) => input.dataset.size).join()') == "length"
    before = json.loads(save(browser))
    browser.value(
        """(async () => {
          document.querySelector("#sizes input").value = "12";
          document.querySelector("#sizes input").dispatchEvent(new Event("input", { bubbles: true }));
          await new Promise((done) => setTimeout(done, 200));
        })()"""
    )
    assert "ok" in outcome(browser)
    plan = save(browser)
    assert plan == planned(native, model, request)["ok"]
    assert json.loads(plan)["summary"]["uncounted_nodes"] < before["summary"]["uncounted_nodes"]


def beside(browser, native):
    """Data in another file are read where they are given; without them there is a plan as well, which says so."""
    set_fields(browser, REQUESTS[0])
    model, data = (os.path.abspath(os.path.join(FIXTURES, "loader", name)) for name in ("external.onnx", "external.bin"))
    expected = planned(native, model, REQUESTS[0])["ok"]
    blank(browser)
    browser.choose(data, model)
    assert "ok" in outcome(browser)
    assert save(browser) == expected
    blank(browser)
    browser.choose(model)
    assert "ok" in outcome(browser)
    plan, expected = json.loads(save(browser)), json.loads(expected)
    notes = plan["summary"]["notes"]
    assert any("external.bin, which was not given" in note for note in notes), notes
    plan["summary"]["notes"] = expected["summary"]["notes"]
    assert plan == expected


def keyboard(browser):
    """The button for files is the first that a keyboard reaches, the settings follow."""
    focused = []
    for _ in range(2):
        for kind in ("keyDown", "keyUp"):
            browser.tell("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        focused.append(browser.value("document.activeElement.id || document.activeElement.name"))
    assert focused == ["file", "epochs"], focused


def frame(browser):
    """The plan stands in a frame that has its height, whose script runs, and that cannot reach the page."""
    browser.wait('document.querySelectorAll("#plan iframe:not(.waits)").length === 1')
    height = browser.value('document.querySelector("#plan iframe").getBoundingClientRect().height')
    assert height > 600, height
    session = session_of(browser, "iframe")
    evaluate = lambda text: browser.call("Runtime.evaluate", session=session, expression=text, returnByValue=True)
    filtered = """(() => {
      const input = document.querySelector(".tools input");
      input.value = "conv1";
      input.dispatchEvent(new Event("input"));
      return document.querySelector(".found").textContent;
    })()"""
    found = evaluate(filtered)["result"]["value"]
    assert " of " in found, found
    assert "exceptionDetails" in evaluate("parent.document.title"), "the plan reaches the page"


def connections(browser):
    """Page, plan and worker asked for nothing, and none of them can."""
    probe = """new Promise((done) => {
      addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective + " " + event.blockedURI));
      fetch("https://example.com/").then(() => done("sent"), () => setTimeout(done, 1000, "failed"));
    })"""
    for kind in ("page", "iframe", "worker"):
        values = {"expression": probe, "returnByValue": True, "awaitPromise": True}
        found = browser.call("Runtime.evaluate", session=session_of(browser, kind), **values)["result"]["value"]
        assert found == "connect-src https://example.com/", f"{kind}: {found}"
    urls = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert len([url for url in urls if url.startswith("file:")]) == 1, urls
    assert all(url.startswith(("file:", "blob:", "data:", "about:")) for url in urls), urls


def silent(browser):
    """No exception, no message, and nothing that the policy had to refuse but the probe."""
    told = []
    for event in browser.events:
        if event["method"] == "Runtime.exceptionThrown":
            told.append(event["params"]["exceptionDetails"])
        if event["method"] == "Log.entryAdded" and "example.com" not in event["params"]["entry"]["text"]:
            told.append(event["params"]["entry"]["text"])
    assert not told, told


def main():
    page, native = sys.argv[1:]
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        sys.exit("there is no chromium; CHROMIUM=PROGRAM names another browser of its kind")
    browser = Browser(program, "file://" + os.path.abspath(page))
    try:
        keyboard(browser)
        settings(browser)
        frame(browser)
        sizes(browser, native)
        beside(browser, native)
        counts = compare(browser, native)
        connections(browser)
        silent(browser)
    finally:
        browser.close()
    print(f"{counts['planned']} fixtures planned and {counts['refused']} refused as by the native planner; nothing was asked for")


if __name__ == "__main__":
    main()
