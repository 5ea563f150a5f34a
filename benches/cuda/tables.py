"""The results of run.py as Markdown."""

COLUMNS = {
    "parity": ["losses", "parameters", "allowed", "processor"],
    "resume": ["losses", "bits", "at", "frozen"],
    "cache": ["losses", "bits", "prefix"],
    "operators": ["outputs", "worst"],
    "speed": ["ms", "memory", "busy"],
}
HEADS = {
    "losses": "losses apart", "parameters": "parameters apart", "allowed": "allowed", "processor": "on the processor",
    "bits": "same bits", "at": "stopped at", "frozen": "frozen tensors", "prefix": "prefix nodes",
    "outputs": "outputs compared", "worst": "apart, of what is allowed", "ms": "ms a step", "memory": "GPU memory",
    "busy": "busy",
}


def cell(column, value):
    if value is None:
        return ""
    if column in ("losses", "parameters"):
        return f"{value:.1e}"
    if column == "allowed":
        return ", ".join(f"{limit:g}" for limit in value)
    if column == "bits":
        return "yes" if value else "no"
    if column == "ms":
        return f"{value:.2f}"
    if column == "memory":
        return f"{value / 1e9:.2f} GB"
    if column in ("busy", "worst"):
        return f"{100 * value:.0f} %"
    return str(value)


def tables(results):
    """A table for each section, and what failed."""
    lines = []
    for section, columns in COLUMNS.items():
        rows = {name: row for name, row in results.items() if name.startswith(f"{section}/")}
        if not rows:
            continue
        lines += ["", f"| {section} | {' | '.join(HEADS[column] for column in columns)} | verdict |"]
        lines += ["|---|" + "--:|" * len(columns) + "---|"]
        for name, row in rows.items():
            cells = " | ".join(cell(column, row.get(column)) for column in columns)
            said = row["verdict"].replace("|", "/").replace("\n", " ")
            lines.append(f"| {name.removeprefix(section + '/')} | {cells} | {said} |")
    good = sum(row["verdict"] == "ok" for row in results.values())
    left = sum(row["verdict"].startswith("not run") for row in results.values())
    lines += ["", f"{good} of {len(results)} ok, {len(results) - good - left} not, {left} not run."]
    return "\n".join(lines)
