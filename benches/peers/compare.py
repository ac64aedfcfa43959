#!/usr/bin/env python3
"""Runs commands in turn, A B C A B C ..., and prints the median of each one's `steps_per_s` and the ratios with their range.

    compare.py ROUNDS NAME=COMMAND NAME=COMMAND ...

Each command prints one line of JSON with `steps_per_s` and `loss_check` as its last line, measured after `update` (or
`check_steps`) updates, the same for all: a step may get slower as a run goes on. Machines are noisy: only figures of one
call may be compared, and the ratio is the median of the ratios of each round.
"""
import json
import shlex
import statistics
import subprocess
import sys


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    rounds = int(sys.argv[1])
    commands = [arg.split("=", 1) for arg in sys.argv[2:]]
    rates = {name: [] for name, _ in commands}
    checks, moments = {}, {}
    for _ in range(rounds):
        for name, command in commands:
            out = subprocess.run(shlex.split(command), capture_output=True, text=True)
            if out.returncode != 0:
                sys.exit(f"{name} failed:\n{out.stderr[-2000:]}")
            record = json.loads(out.stdout.strip().splitlines()[-1])
            rates[name].append(record["steps_per_s"])
            checks[name] = record["loss_check"]
            moments[name] = record.get("update", record.get("check_steps"))
        if len(set(moments.values())) > 1:
            sys.exit(f"measured after different numbers of updates: {moments}")
    first = commands[0][0]
    for name, _ in commands:
        r = rates[name]
        ratios = [a / b for a, b in zip(rates[first], r)]
        print(f"{name:<14} median {statistics.median(r):8.1f} steps/s  min {min(r):8.1f}  max {max(r):8.1f}  "
              f"{first}/{name} {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})  "
              f"loss check {checks[name]}")


main()
