#!/usr/bin/env python3
"""The records of gpu-check.sh: written one by one, read back, and turned into a JSON and a Markdown file.

  gpu_report.py record OUT --stage S --name N --status X …   adds a line to OUT/records.jsonl, and the log to OUT/log.txt
  gpu_report.py write OUT RECORDS…                           makes OUT/gpu-check.json and .md of one or several runs
  gpu_report.py fastest RECORDS PEER CLASS ROUND WORKLOAD BATCH   the mode in which a peer was fastest
  gpu_report.py same RUN RUN        are checkpoints and metrics of two run folders equal, byte by byte?
  gpu_report.py near RUN RUN --bound NATS                    is the final test −ELBO of two runs that close?
  gpu_report.py result RUN --bound NATS                      is the final test −ELBO of a run at most that?

Python's standard library is all it needs.
"""
import argparse
import datetime
import json
import os
import re
import shlex
import statistics
import sys

TIMED_OUT = (124, 137)  # of timeout(1)


# ---- recording ----

def record(args):
    """One step. `--status` is an exit status, or a word if nothing was run."""
    log = ""
    if args.log:
        with open(args.log, errors="replace") as f:
            log = renamed(f.read(), args.call)
    ran = args.status.lstrip("-").isdigit()
    status = args.status
    if ran:
        code = int(args.status)
        status = "passed" if code == 0 else "timed out" if code in TIMED_OUT else "failed"
    entry = {"stage": args.stage, "name": args.name, "status": status, "needed": args.needed == "yes",
             "command": renamed(shlex.join(args.command), args.call) if args.command else None,
             "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    if ran:
        values = numbers(log)
        if status == "passed" and values and values.get("tests_passed") == 0:
            status = entry["status"] = "failed"
            args.why = "no test ran"
        entry.update(rc=code, seconds=round(args.end - args.start, 2), limit=args.limit, values=values,
                     output=tail(log, 12 if status == "passed" else 60))
    if args.why:
        entry["why"] = renamed(args.why, args.call)
    with open(os.path.join(args.out, "records.jsonl"), "a") as f:
        f.write(json.dumps(entry) + "\n")
    with open(os.path.join(args.out, "log.txt"), "a") as f:
        f.write(f"==== {args.stage}: {args.name}: {status}\n$ {entry['command']}\n{log}\n")


def renamed(text, calls):
    """Folders by what they hold instead of where they are; the innermost first."""
    for folder, name in sorted(calls, key=lambda call: -len(call[0])):
        text = text.replace(folder, name)
    return text


def numbers(log):
    """The last line that is a JSON object; of the test harness, its counts."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                pass
    counts = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", log)
    if counts:
        return dict(zip(("tests_passed", "tests_failed", "tests_ignored"), map(int, counts[-1])))
    return None


def tail(text, lines):
    return "\n".join(line[:400] for line in text.splitlines()[-lines:])


def read(paths):
    records = []
    for run, path in enumerate(paths):
        with open(path) as f:
            records += [{"run": run, **json.loads(line)} for line in f]
    return records


# ---- steps of their own ----

def metrics(run):
    with open(os.path.join(run, "metrics.jsonl")) as f:
        return [json.loads(line) for line in f]


def seconds_per_epoch(run):
    with open(os.path.join(run, "timing.jsonl")) as f:
        return [json.loads(line)["train_seconds"] for line in f]


def same(args):
    differ = []
    for name in ("checkpoint.safetensors", "metrics.jsonl"):
        with open(os.path.join(args.first, name), "rb") as a, open(os.path.join(args.second, name), "rb") as b:
            if a.read() != b.read():
                differ.append(name)
    print(json.dumps({"equal": not differ, "differ": differ}))
    return 1 if differ else 0


def near(args):
    first, second = (metrics(run)[-1]["test_neg_elbo"] for run in (args.first, args.second))
    print(json.dumps({"first": first, "second": second, "apart": abs(first - second), "bound": float(args.bound)}))
    return 0 if abs(first - second) <= float(args.bound) else 1


def result(args):
    curve = [epoch["test_neg_elbo"] for epoch in metrics(args.run)]
    bound = None if args.bound == "none" else float(args.bound)
    print(json.dumps({"test_neg_elbo": curve[-1], "bound": bound, "curve": curve,
                      "seconds_per_epoch": statistics.median(seconds_per_epoch(args.run))}))
    return 0 if bound is None or curve[-1] <= bound else 1


# ---- speed ----

# The class of precision with which each of Elbo's is compared.
CLASS = {"f32": "f32", "tf32": "tf32", "bf16x3": "tf32", "bf16": "bf16"}


def speeds(records):
    """{(workload, batch, class): {label: {round: values}}}, where a label is ("elbo", precision) or (peer, mode)."""
    table = {}
    for entry in records:
        values = entry.get("values") or {}
        if entry["stage"] != "speed" or entry["status"] != "passed" or "steps_per_s" not in values:
            continue
        ours = values["peer"] == "elbo"
        key = (values["workload"], values["batch"], CLASS[values["precision"]] if ours else values["precision"])
        label = (values["peer"], values["precision"] if ours else values["mode"])
        # The step's name ends in the round's number. Of runs that are joined, rounds of one number are different rounds.
        rounds = table.setdefault(key, {}).setdefault(label, {})
        rounds[(entry["run"], entry["name"].rpartition("#")[2])] = values
    return table


def rate(rounds):
    return statistics.median(values["steps_per_s"] for values in rounds.values())


def first(rounds):
    return next(iter(rounds.values()))


def fastest_mode(cell, peer):
    modes = {label: rate(rounds) for label, rounds in cell.items() if label[0] == peer}
    return max(modes, key=modes.get) if modes else None


def fastest(args):
    cell = speeds(read([args.records])).get((args.workload, int(args.batch), args.cls), {})
    label = fastest_mode(cell, args.peer)
    if label:
        print(label[1])


def comparisons(records):
    """One row per workload, batch and precision of ours, with the ratio to every peer's fastest mode.

    A ratio is of values of the same round; the median over the rounds is reported, with the extremes."""
    rows = []
    for (workload, batch, cls), cell in speeds(records).items():
        for label, rounds in cell.items():
            if label[0] != "elbo":
                continue
            row = {"workload": workload, "batch": batch, "class": cls, "precision": label[1], "rounds": len(rounds),
                   "steps_per_s": rate(rounds), "us_per_step": round(1e6 / rate(rounds), 2),
                   "loss_check": first(rounds)["loss_check"],
                   "peers": {f"{peer} {mode}": {"steps_per_s": rate(values), "rounds": len(values),
                                                "loss_check": first(values)["loss_check"]}
                             for (peer, mode), values in cell.items() if peer != "elbo"}}
            for peer in sorted({other[0] for other in cell} - {"elbo"}):
                best = fastest_mode(cell, peer)
                both = rounds.keys() & cell[best].keys()
                ratios = [rounds[r]["steps_per_s"] / cell[best][r]["steps_per_s"] for r in both]
                if not ratios:
                    continue
                row[f"vs {peer}"] = {"mode": best[1], "ratio": round(statistics.median(ratios), 3),
                                     "least": round(min(ratios), 3), "most": round(max(ratios), 3)}
            rows.append(row)
    return rows


# ---- products and latencies ----

def products(records):
    """One row per size and precision of elbo's products, beside cuBLAS in the same class of precision.

    Times are medians over the rounds; a ratio is of values of the same round."""
    ours, theirs, programs = {}, {}, set()
    for entry in records:
        values = entry.get("values") or {}
        if entry["stage"] != "products" or entry["status"] != "passed" or "products" not in values:
            continue
        elbo = values["program"] == "elbo"
        if not elbo:
            programs.add(values["program"])
        for product in values["products"]:
            rounds = (ours if elbo else theirs).setdefault((product["n"], product["precision"]), {})
            rounds[(entry["run"], entry["name"].rpartition("#")[2])] = product
    rows = []
    for (n, precision), rounds in ours.items():
        cls = CLASS[precision]
        others = theirs.get((n, cls), {})
        median = statistics.median(product["median_s"] for product in rounds.values())
        one = first(rounds)
        row = {"n": n, "precision": precision, "class": cls, "kernel": one["kernel"], "splits": one["splits"],
               "error": one["error"], "rounds": len(rounds), "seconds": median, "tflops": 2e-12 * n**3 / median}
        ratios = [others[r]["median_s"] / rounds[r]["median_s"] for r in rounds.keys() & others.keys()]
        if ratios:
            seconds = statistics.median(product["median_s"] for product in others.values())
            row["cublas"] = {"program": ", ".join(sorted(programs)), "error": first(others)["error"],
                             "seconds": seconds, "tflops": 2e-12 * n**3 / seconds,
                             "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        rows.append(row)
    return sorted(rows, key=lambda row: row["n"])


def latencies(records):
    """{name: microseconds}, the median over the runs that measured it."""
    found = {}
    for entry in records:
        if entry["stage"] == "latency" and entry["status"] == "passed":
            for name, us in ((entry.get("values") or {}).get("latencies_us") or {}).items():
                found.setdefault(name, []).append(us)
    return {name: statistics.median(us) for name, us in found.items()}


# ---- the report ----

def outcome(records):
    """(word, exit status). A step that could not run does not count; one that time did not reach does."""
    bad = [r for r in records if r["needed"] and r["status"] in ("failed", "timed out")]
    if not any(r["status"] == "passed" for r in records):
        return "nothing ran", 1
    if bad:
        return f"{len(bad)} steps failed", 1
    if any(r["status"] == "no time" for r in records):
        return "nothing failed, and not everything was reached in time", 3
    return "everything that could run passed", 0


def write(args):
    records = read(args.records)
    word, code = outcome(records)
    whole = {"outcome": word, "exit_status": code, "latencies_us": latencies(records), "products": products(records),
             "speed": comparisons(records), "steps": records}
    with open(os.path.join(args.out, "gpu-check.json"), "w") as f:
        json.dump(whole, f, indent=1, ensure_ascii=False)
        f.write("\n")
    text = markdown(whole)
    with open(os.path.join(args.out, "gpu-check.md"), "w") as f:
        f.write(text)
    print(f"\n{word}; results in {args.out}")
    return code


def markdown(whole):
    steps = whole["steps"]
    dry = any(r["name"] == "options" and r["why"].startswith("emulated") for r in steps)
    title = "Dry run of the GPU check on the emulated driver" if dry else "GPU check"
    parts = [f"# {title}: {whole['outcome']}\n", machine(steps)]
    rows = [["stage", "step", "result", "s", "figures"]]
    for r in steps:
        if r["stage"] in ("machine", "speed") and r["status"] == "passed":
            continue
        ours = "" if r["needed"] else " (a peer's)" if r["stage"] == "speed" else " (not needed)"
        result = f"**failed**{ours}, status {r['rc']}" if r["status"] == "failed" else f"{r['status']}{ours}"
        rows.append([r["stage"], r["name"], result, r.get("seconds", ""), r.get("why") or figures(r)])
    parts += ["## Steps\n", table(rows)]
    if whole["latencies_us"]:
        rows = [["latency", "µs"]] + [[name, f"{us:.3f}"] for name, us in whole["latencies_us"].items()]
        parts += ["## Latencies\n", LATENCY_NOTE, table(rows)]
    if whole["products"]:
        parts += ["## Matrix products\n", PRODUCTS_NOTE, products_table(whole["products"])]
    if whole["speed"]:
        parts += ["## Steps per second\n", SPEED_NOTE, speed_table(whole["speed"])]
    failed = [r for r in steps if r["status"] in ("failed", "timed out")]
    if failed:
        parts.append("## What failed\n")
        parts += [f"### {r['stage']}: {r['name']}\n\n```\n$ {r['command']}\n{r['output']}\n```\n" for r in failed]
    return "\n".join(parts)


def machine(steps):
    about = {r["name"]: r for r in steps if r["stage"] == "machine"}
    lines = [f"- {steps[0]['at'] if steps else ''}"]
    for name in ("gpu", "nvcc", "system", "pack", "info"):
        if about.get(name, {}).get("output"):
            # Of the list of checksums, the commit and the date.
            text = about[name]["output"].splitlines()
            text = [line for line in text if not re.match(r"[0-9a-f]{64} ", line)]
            lines.append(f"- {name}:\n\n" + "\n".join(f"      {line}" for line in text) + "\n")
    return "\n".join(lines) + "\n"


def figures(r):
    v = r.get("values") or {}
    if "tests_passed" in v:
        return f"{v['tests_passed']} passed, {v['tests_failed']} failed"
    if "test_neg_elbo" in v:
        bound = "" if v["bound"] is None else f", bound {v['bound']}"
        return f"test −ELBO {v['test_neg_elbo']:.2f}{bound}; {v['seconds_per_epoch']:.3f} s an epoch"
    if "apart" in v:
        return f"test −ELBO {v['first']:.3f} and {v['second']:.3f}: {v['apart']:.3g} apart, bound {v['bound']}"
    if "equal" in v:
        return "equal" if v["equal"] else f"differ: {', '.join(v['differ'])}"
    return ""


LATENCY_NOTE = """\
Medians. What each is: benches/latency.cu.
"""

PRODUCTS_NOTE = """\
C = A·B of [n, n] matrices of normal numbers. Times are medians over the rounds, in which elbo and cuBLAS (through
PyTorch) took turns. A ratio above 1 means that elbo is faster than cuBLAS in the same class of precision; it is the
median of the rounds' ratios, with the extremes. bf16x3 is far more exact than TF32, beside which it stands. In bf16,
cuBLAS reads and writes half as many bytes: its matrices are bf16, elbo's f32.
"""


def products_table(rows):
    out = [["n", "elbo", "kernel", "splits", "error", "ms", "TFLOP/s", "cuBLAS", "error", "ms", "TFLOP/s",
            "elbo / cuBLAS", "rounds"]]
    for r in rows:
        row = [r["n"], r["precision"], r["kernel"], r["splits"], f"{r['error']:.1e}", f"{1e3 * r['seconds']:.4f}",
               f"{r['tflops']:.2f}"]
        c = r.get("cublas")
        if c:
            row += [r["class"], f"{c['error']:.1e}", f"{1e3 * c['seconds']:.4f}", f"{c['tflops']:.2f}",
                    f"**{c['ratio']:.2f}** ({c['least']:.2f}–{c['most']:.2f})"]
        else:
            row += ["–"] * 5
        out.append(row + [r["rounds"]])
    return table(out)


SPEED_NOTE = """\
Medians over the rounds, in which the programs took turns. A ratio above 1 means that elbo is faster; it is the median of
the rounds' ratios to the peer's fastest mode, with the extremes. V2's peers minimise the importance-weighted bound with
one sample, which costs them a few operations that the ELBO does not have. `loss` must agree between programs up to the
noise of other random streams.
"""


def speed_table(rows):
    out = [["work", "batch", "class", "elbo", "steps/s", "µs a step", "loss", "torch", "jax", "elbo / torch", "elbo / jax",
            "rounds"]]
    for r in rows:
        def of(peer):
            return "; ".join(f"{name.split()[1]} {p['steps_per_s']:.0f} (loss {p['loss_check']})"
                             for name, p in r["peers"].items() if name.startswith(peer)) or "–"

        def ratio(peer):
            v = r.get(f"vs {peer}")
            return f"**{v['ratio']:.2f}** ({v['least']:.2f}–{v['most']:.2f}, {v['mode']})" if v else "–"
        out.append([r["workload"], r["batch"], r["class"], r["precision"], f"{r['steps_per_s']:.0f}", r["us_per_step"],
                    r["loss_check"], of("torch"), of("jax"), ratio("torch"), ratio("jax"), r["rounds"]])
    return table(out)


def table(rows):
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command_name", required=True)
    p = commands.add_parser("record")
    p.add_argument("out")
    for name in ("stage", "name", "status"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--needed", default="yes")
    p.add_argument("--why")
    p.add_argument("--call", nargs=2, action="append", default=[], metavar=("FOLDER", "NAME"))
    p.add_argument("--log")
    for name in ("start", "end", "limit"):
        p.add_argument(f"--{name}", type=float)
    p = commands.add_parser("write")
    p.add_argument("out")
    p.add_argument("records", nargs="+")
    p = commands.add_parser("fastest")
    p.add_argument("records")
    for name in ("peer", "cls", "round", "workload", "batch"):
        p.add_argument(name)
    for name in ("same", "near"):
        p = commands.add_parser(name)
        p.add_argument("first")
        p.add_argument("second")
        if name == "near":
            p.add_argument("--bound", required=True)
    p = commands.add_parser("result")
    p.add_argument("run")
    p.add_argument("--bound", required=True)
    # What comes after "--" is the command of a step, whatever it contains.
    own, command = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1:]
    args = parser.parse_args(own)
    args.command = command
    steps = {"record": record, "write": write, "fastest": fastest, "same": same, "near": near, "result": result}
    return steps[args.command_name](args)


if __name__ == "__main__":
    sys.exit(main())
