#!/usr/bin/env bash
# Builds what gpu-check.sh needs and collects it in a folder that can be carried to a machine with a GPU, where neither
# Rust nor a network is needed: the program, step_speed, gemm_ladder, latency (benches/latency.cu), the device tests
# (those that say `mod common;`), the scripts, and, for a dry run, the emulated driver.
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
# With the features of the whole workspace: what was built for its tests is there already.
cargo build --release --workspace --locked --bin elbo --example step_speed --example gemm_ladder --message-format=json-render-diagnostics >"$messages"
# shellcheck disable=SC2046  # one word per test
cargo test --release --workspace --locked --no-run --message-format=json-render-diagnostics \
    $(grep -l '^mod common;' tests/*.rs | sed 's,^tests/\(.*\)\.rs$,--test \1,') >>"$messages"

# Copies what cargo says it has built.
python3 - "$messages" "$folder" <<'PY'
import json, os, shutil, subprocess, sys

messages, folder = sys.argv[1:]
wanted, nvcc = {}, None
for line in open(messages):
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message.get("executable"):
        name, kinds = message["target"]["name"], message["target"]["kind"]
        if message["profile"]["test"]:
            wanted[f"tests/{name}"] = message["executable"]
        elif name in ("elbo", "step_speed", "gemm_ladder") and kinds in (["bin"], ["example"]):
            wanted[name] = message["executable"]
    elif message["reason"] == "build-script-executed":
        said = dict(message["env"])
        if "ELBO_EMU_LIBRARY" in said:
            wanted["emulated/libcuda.so"] = said["ELBO_EMU_LIBRARY"]
        if "ELBO_NVCC_CALL" in said:
            nvcc = said["ELBO_NVCC_CALL"].split("\t")
for name, source in wanted.items():
    target = os.path.join(folder, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-debug", target], check=True)
if nvcc:
    # A program of CUDA's runtime. In NVIDIA's Python packages that lies in lib, where their nvcc does not look.
    runtime = os.path.join(os.path.dirname(os.path.dirname(nvcc[0])), "lib")
    latency = os.path.join(folder, "latency")
    subprocess.run([*nvcc, "-O3", "-std=c++17", "-L", runtime, "-o", latency, "benches/latency.cu"], check=True)
PY
cp "$here/gpu-check.sh" "$here/gpu_report.py" benches/peers/gemm_cublas.py "$folder/"

{
    echo "commit   $(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)"
    echo "packed   $(date -u +%FT%TZ)"
    (cd "$folder" && find . -type f ! -name pack.txt | sort | xargs sha256sum)
} >"$folder/pack.txt"

size=$(du -sm "$folder" | cut -f1)
echo "$size MiB in $folder"
(( size <= 64 )) || echo "that is more than 64 MiB: ELBO_CUDA_ARCH=90 (say) builds for one architecture alone"
