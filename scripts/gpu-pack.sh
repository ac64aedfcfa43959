#!/usr/bin/env bash
# Builds what gpu-check.sh needs and collects it in a folder that can be carried to a machine with a GPU, where neither
# Rust nor a network is needed: the program, step_speed, gemm_ladder, the device tests (those that say `mod common;`), the two
# scripts, and, for a dry run, the emulated driver.
#
#   scripts/gpu-pack.sh FOLDER [--without-nvcc]
#
# --without-nvcc: no kernels for GPUs inside; enough for `gpu-check.sh --emulated`. Otherwise a missing nvcc is an error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: gpu-pack.sh FOLDER [--without-nvcc]}
case ${2:-} in
    --without-nvcc) export ELBO_CUDA=off ;;
    "") export ELBO_REQUIRE_NVCC=1 ;;
    *) echo "gpu-pack.sh: $2 is no option" >&2; exit 2 ;;
esac
mkdir -p "$folder/tests"
folder=$(cd "$folder" && pwd)
cd "$here/.."

messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
cargo build --release --locked --bin elbo --example step_speed --example gemm_ladder --message-format=json-render-diagnostics >"$messages"
# shellcheck disable=SC2046  # one word per test
cargo test --release --locked --no-run --message-format=json-render-diagnostics \
    $(grep -l '^mod common;' tests/*.rs | sed 's,^tests/\(.*\)\.rs$,--test \1,') >>"$messages"

# Copies what cargo says it has built.
python3 - "$messages" "$folder" <<'PY'
import json, os, shutil, subprocess, sys

messages, folder = sys.argv[1:]
wanted = {}
for line in open(messages):
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message.get("executable"):
        name, kinds = message["target"]["name"], message["target"]["kind"]
        if message["profile"]["test"]:
            wanted[f"tests/{name}"] = message["executable"]
        elif name in ("elbo", "step_speed", "gemm_ladder") and kinds in (["bin"], ["example"]):
            wanted[name] = message["executable"]
    elif message["reason"] == "build-script-executed":
        library = dict(message["env"]).get("ELBO_EMU_LIBRARY")
        if library:
            wanted["emulated/libcuda.so"] = library
for name, source in wanted.items():
    target = os.path.join(folder, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-debug", target], check=True)
PY
cp "$here/gpu-check.sh" "$here/gpu_report.py" "$folder/"

{
    echo "commit   $(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)"
    echo "packed   $(date -u +%FT%TZ)"
    (cd "$folder" && find . -type f ! -name pack.txt | sort | xargs sha256sum)
} >"$folder/pack.txt"

size=$(du -sm "$folder" | cut -f1)
echo "$size MiB in $folder"
(( size <= 64 )) || echo "that is more than 64 MiB: ELBO_CUDA_ARCH=90 (say) builds for one architecture alone"
