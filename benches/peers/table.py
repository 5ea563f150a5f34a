"""The results of run.py as Markdown."""

from rows import MODELS, rows

# Above this share of the processors for others, times tell little.
NOISY = 0.25
PEERS = {"saving": "nothing frozen", "overhead": "bare sessions"}


def amount(row, value):
    if row.kind == "memory":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.1f} s" if row.kind == "run" else f"{value * 1e3:.1f} ms"


def table(results):
    """The results as Markdown."""
    lines = [
        "| model | what | ours | beside | its time | ratio (quartiles) | of least | of processor time | goal | | threads, others, device |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows():
        result = results["rows"].get(row.name)
        if result is None:
            continue
        layout = "PyTorch channels-last" if MODELS[row.model].convolutions else "PyTorch eager"
        if row.device != "cpu":
            layout += ", autocast" if row.precision == "bf16" else ", TF32"
        peer = PEERS.get(row.kind, layout)
        sign = "≥" if row.kind == "saving" else "≤"
        goal = f"{sign} {row.goal}"
        tiny = ", a small one in its place" if result.get("tiny") else ""
        start = f"| {MODELS[row.model].about}{tiny} | {row.about} |"
        if "failed" in result:
            lines.append(f"{start} | {peer} | | {result['failed']} | | | {goal} | | |")
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
        elif "compile_failed" in result:
            ratio += ", torch.compile fails"
        met = result["ratio"] >= row.goal if row.kind == "saving" else result["ratio"] <= row.goal
        ours, theirs = amount(row, result["ours"]), amount(row, result["theirs"])
        least, processor = (f"{result[key]:.3f}" if key in result else "" for key in ("least", "processor"))
        others = f"{result['threads']}" + (f", {100 * result['others']:.0f} %" if "others" in result else "")
        if "memory" in result:
            sizes = [f"{size / 1e9:.1f}" if size else "?" for size in result["memory"]]
            others += f", {sizes[0]} GB beside {sizes[1]} GB"
        if result.get("busy") is not None:
            others += f", busy {100 * result['busy']:.0f} %"
        noisy = result.get("others", 0.0) > NOISY
        verdict = f"{'too noisy' if noisy else 'met' if met else 'not met'} | {others}"
        lines.append(f"{start} {ours} | {peer} | {theirs} | {ratio} | {least} | {processor} | {goal} | {verdict} |")
    made = results["made"]
    vectors = ", ".join(made.get("vectors", []))
    processor = f"{made.get('processor', '')} ({made['cores']} cores, {vectors})"
    if "device" in made:
        processor = f"{made['device']}; {processor}"
    sides = "; ".join(made[side].partition(",")[0] for side in ("ours", "theirs") if side in made)
    commits = ", ".join(dict.fromkeys(result["commit"] for result in results["rows"].values()))
    return "\n".join(lines + ["", f"{processor}; {sides}; commit {commits}, {made['date']}.", ""])
