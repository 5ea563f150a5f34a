#!/usr/bin/env python3
"""Puts the page into one file: assemble.py PLANNER.wasm PAGE.html

Its Content-Security-Policy forbids every connection, and every script but those of the page and of the page of a plan, which
it names by digest.
"""

import base64
import gzip
import hashlib
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
REPORT = HERE.parent / "src" / "report" / "plan_html"


def digest(script):
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def main():
    wasm, page = map(pathlib.Path, sys.argv[1:])
    read = lambda path: path.read_text(encoding="utf-8")
    script, frame = read(HERE / "page.js"), read(HERE / "frame.js")
    scripts = " ".join(map(digest, (script, frame, read(REPORT / "page.js"))))
    parts = {
        "policy": f"default-src 'none'; connect-src 'none'; script-src {scripts} 'wasm-unsafe-eval'; worker-src blob:; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        "style": read(REPORT / "page.css") + read(HERE / "page.css"),
        "wasm": base64.b64encode(gzip.compress(wasm.read_bytes(), 9, mtime=0)).decode(),
        "worker": read(HERE / "worker.js"),
        "frame": frame,
        "script": script,
    }
    for name in ("worker", "frame", "script"):
        if re.search("</script|<!--", parts[name], re.I):
            sys.exit(f"{name}: it cannot stand inside a script element")
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found.group(1)], read(HERE / "page.html"))
    page.write_text(text, encoding="utf-8", newline="\n")
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {wasm.stat().st_size / 1e6:.1f} MB of it as code before packing")


if __name__ == "__main__":
    main()
