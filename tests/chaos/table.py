"""The table by fault."""


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))] if values else None


def seconds(ms):
    return "-" if ms is None else f"{ms / 1000:.2f}"


def table(rows, peers=()):
    """Seeds with several faults count for their first; recovery is told of those with one only. peers: bullmq.py's lines."""
    groups = {}
    for r in rows:
        name = r["faults"][0]
        groups.setdefault("fail-points" if name.startswith("fail-point: ") else name, []).append(r)
    head = ("fault", "seeds", "jobs", "lost", "doubled", "leaked", "run again", "p50 s", "p99 s", "max s")
    lines = [head]
    for name, group in groups.items():
        times = [t for r in group if len(r["faults"]) == 1 for t in r["recovery_ms"]]
        lines.append((name, len(group), *(sum(r[k] for r in group) for k in ("jobs", "lost", "doubled", "leaked", "rerun")),
                      *(seconds(quantile(times, q)) for q in (0.5, 0.99, 1.0))))
    lines.append(("all", len(rows), *(sum(r[k] for r in rows) for k in ("jobs", "lost", "doubled", "leaked", "rerun")), "", "", ""))
    for p in peers:
        lines.append((f"{p['system']}: {p['fault']}", 1, p["jobs"], p["lost"], p["doubled"], "-", "-",
                      *(seconds(quantile(p["recovery_ms"], q)) for q in (0.5, 0.99, 1.0))))
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    return "\n" + "\n".join("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
                            for line in lines)
