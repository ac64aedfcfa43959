#!/usr/bin/env bash
# What training by several processes costs on this machine: images per second of `elbo train` on one rank with one and with two
# threads, and on two ranks with one thread each (docs/book/src/scale.md). Medians over the epochs but the first; run it where nothing
# else runs. Needs a program built with --features mpi, an mpirun and Python.
set -euo pipefail
cd "$(dirname "$0")/.."
program="${ELBO_PROGRAM:-target/release/elbo}"
rounds="${ROUNDS:-3}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

measure() { # NAME LAUNCHER… -- OPTIONS…
    local name=$1 launcher=()
    shift
    while [ "$1" != -- ]; do launcher+=("$1"); shift; done
    shift
    "${launcher[@]}" "$program" train --quiet --train-size 12800 --test-size 100 "$@" --out "$out/$name" >/dev/null
    python3 - "$name" "$out/$name/timing.jsonl" <<'PY'
import json, statistics, sys
rates = [json.loads(line)["images_per_second"] for line in open(sys.argv[2])][1:]
print(f"{sys.argv[1]:<40} {statistics.median(rates):>9.0f} images/s", flush=True)
PY
}

for round in $(seq "$rounds"); do
    for case in "v1-128 --epochs 4 --batch 128" "v1-1024 --epochs 4 --batch 1024" \
        "iwae50-128 --epochs 2 --batch 128 --bound iwae --kl monte_carlo --samples 50"; do
        read -r name options <<<"$case"
        # shellcheck disable=SC2086
        {
            measure "$name-1-rank-1-thread-$round" -- $options --threads 1
            measure "$name-1-rank-2-threads-$round" -- $options --threads 2
            measure "$name-2-ranks-1-thread-$round" mpirun -n 2 --oversubscribe -- $options --threads 1
        }
    done
done
