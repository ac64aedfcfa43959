#!/usr/bin/env bash
# One command that checks and measures everything on a machine with a GPU, from built binaries: no Rust, no network.
#
#   gpu-check.sh [options]
#
#   --bin FOLDER       what gpu-pack.sh made                             [default: this script's folder]
#   --data FOLDER      MNIST's IDX files                                 [default: built-in digits; no peers, no bound]
#   --peers FOLDER     torch_vae.py and jax_vae.py to measure beside     [default: none]
#   --python PROGRAM   the Python that has torch and jax                 [default: python3]
#   --out FOLDER       where results go                                  [default: $OUT, or gpu-check-results]
#   --minutes N        time for everything; what is left then is not run [default: 25]
#   --only STAGES      some of machine,smoke,plan,latency,products,tests,hash,determinism,launches,speed,mnist,bench,sanitizer,
#                      by commas                                         [default: all]
#   --classes LIST     classes of precision whose speed is measured      [default: f32,tf32,bf16]
#   --rounds N         rounds of speed and products, in turn with others [default: 3]
#   --emulated         dry run on the emulated driver, at tiny sizes: shows that the script works and nothing else
#
# Every step is one command under a time limit. A failure is recorded and the next step begins. Results: gpu-check.json,
# gpu-check.md, and records.jsonl and log.txt from which they were made (gpu_report.py joins several runs of parts).
#
# Exit status: 0 all that can run here passed; 1 something failed; 2 wrong usage; 3 nothing failed, but time ran out.
set -u
here=$(cd "$(dirname "$0")" && pwd)
bin=$here data="" peers="" python=python3 out=${OUT:-gpu-check-results} minutes=25 emulated="" rounds=3
every_stage=machine,smoke,plan,latency,products,tests,hash,determinism,launches,speed,mnist,bench,sanitizer
stages=$every_stage
classes=f32,tf32,bf16

usage() { sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0"; }
while (( $# )); do
    case $1 in
        --emulated) emulated=1; shift; continue ;;
        -h|--help) usage; exit 0 ;;
        --bin|--data|--peers|--python|--out|--minutes|--only|--classes|--rounds) ;;
        *) echo "gpu-check.sh: $1 is no option; --help lists them" >&2; exit 2 ;;
    esac
    (( $# >= 2 )) || { echo "gpu-check.sh: $1 needs a value" >&2; exit 2; }
    case $1 in
        --bin) bin=$2 ;; --data) data=$2 ;; --peers) peers=$2 ;; --python) python=$2 ;; --out) out=$2 ;;
        --minutes) minutes=$2 ;; --only) stages=$2 ;; --classes) classes=$2 ;; --rounds) rounds=$2 ;;
    esac
    shift 2
done
for stage in ${stages//,/ }; do
    [[ ,$every_stage, == *,$stage,* ]] && continue
    echo "gpu-check.sh: --only $stage: the stages are $every_stage" >&2
    exit 2
done
bin=$(cd "$bin" && pwd) || exit 2
[[ -x $bin/elbo && -x $bin/step_speed ]] || { echo "gpu-check.sh: no elbo and step_speed in $bin" >&2; exit 2; }
[[ -z $data ]] || data=$(cd "$data" && pwd) || exit 2
[[ -z $peers ]] || peers=$(cd "$peers" && pwd) || exit 2
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
report="$here/gpu_report.py"
work=$(mktemp -d)
deadline=$(( SECONDS + minutes * 60 ))
: >"$out/records.jsonl"; : >"$out/log.txt"

finish() {
    trap - EXIT
    rm -rf "$work"
    python3 "$report" write "$out" "$out/records.jsonl"
    local status=$?
    [[ -z $unrecorded ]] || { echo "steps that could not be recorded: $unrecorded"; status=1; }
    exit $status
}

# ---- steps ----

seconds_left() { echo $(( deadline - SECONDS )); }

# record NAME STATUS [argument of gpu_report.py …]: a line of records.jsonl. STATUS is an exit status or a word.
unrecorded=""
# How folders are called in the results, which are to be read elsewhere.
names=(--call "$bin" BIN --call "$work" WORK --call "$out" OUT --call "${data:-$work}" DATA --call "${peers:-$work}" PEERS)
record() {
    local name=$1 status=$2; shift 2
    python3 "$report" record "$out" --stage "$stage" --name "$name" --status "$status" "${names[@]}" "$@" ||
        unrecorded+="$stage: $name; "
}

# step NAME SECONDS COMMAND…: runs it and records it; returns its exit status. `needed=no` before it: its failure is not
# ours. The last line of its output that is JSON holds its numbers.
needed=yes
step() {
    local name=$1 limit=$2; shift 2
    local left; left=$(seconds_left)
    if (( left < 5 )); then
        record "$name" "no time" --needed "$needed" -- "$@"
        return 1
    fi
    (( limit < left )) || limit=$left
    printf '%5d s  %-12s %s\n' "$SECONDS" "$stage" "$name"
    local start=$EPOCHREALTIME status
    timeout -k 10 "$limit" "$@" >"$work/log" 2>&1 </dev/null
    status=$?
    record "$name" "$status" --needed "$needed" --start "$start" --end "$EPOCHREALTIME" --limit "$limit" \
        --log "$work/log" -- "$@"
    (( status == 0 )) || { echo "         status $status"; tail -n 5 "$work/log" | sed 's/^/         /'; }
    return "$status"
}

unavailable() { printf '%5d s  %-12s %s: not available: %s\n' "$SECONDS" "$stage" "$1" "$2"; record "$1" "not available" --why "$2"; }

# The program, and how tests are told where to run. A test that finds no GPU must fail, not go elsewhere.
elbo=("$bin/elbo") speed=("$bin/step_speed") ladder=("$bin/gemm_ladder") n=2048 testing=(env RUST_BACKTRACE=0 ELBO_TEST_DEVICE=gpu)
if [[ $emulated ]]; then
    [[ -e $bin/emulated/libcuda.so ]] || { echo "gpu-check.sh: no emulated driver in $bin" >&2; exit 2; }
    elbo=(env "LD_LIBRARY_PATH=$bin/emulated" "$bin/elbo")
    speed=(env "LD_LIBRARY_PATH=$bin/emulated" "$bin/step_speed")
    ladder=(env "LD_LIBRARY_PATH=$bin/emulated" "$bin/gemm_ladder") n=64
    testing=(env RUST_BACKTRACE=0 ELBO_TEST_DEVICE=emulator)
fi

# The model whose steps are timed, and how often.
model=() passes=10
[[ $emulated ]] && model=(--hidden 12 --latent 2) passes=1

# ---- stages, most important first ----

stage_machine() {
    record options noted --why "${emulated:+emulated, }$minutes minutes, stages $stages, data ${data:-built-in digits}"
    needed=no
    if command -v nvidia-smi >/dev/null; then
        step gpu 30 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit --format=csv,noheader
    else
        unavailable gpu "no nvidia-smi"
    fi
    local nvcc; nvcc=$(find_tool nvcc)
    if [[ $nvcc ]]; then step nvcc 30 "$nvcc" --version; else unavailable nvcc "not found"; fi
    step system 30 sh -c 'uname -srm; nproc; grep -m1 "model name" /proc/cpuinfo; ldd --version | head -n 1'
    [[ -e $bin/pack.txt ]] && step pack 10 cat "$bin/pack.txt"
    needed=yes
    step info 60 "${elbo[@]}" info
}

# In one minute: does anything work at all? The ladder at a small size, a step of the training, and a short training.
# If something does not, the other stages would only use up the time for which the GPU is there.
stage_smoke() {
    local works=1
    step "every kernel of the ladder" 15 "${ladder[@]}" $(( n < 256 ? n : 256 )) 1 || works=0
    step "one step" 15 "${elbo[@]}" plan "${model[@]}" --device cuda --time 1 || works=0
    step "a short training" 30 "${elbo[@]}" train --train-size 40 --test-size 10 --hidden 12 --latent 2 --batch 16 \
        --epochs 1 --quiet --device cuda --out "$work/smoke" || works=0
    (( works )) && return
    echo "the smoke stage failed: the other stages are left out; --only names them without it" >&2
    record "other stages" noted --why "the smoke stage failed"
    exit 1
}

# The time of every step of the usual training, in every precision, at the batch sizes whose speed is measured.
stage_plan() {
    local precision batch batches=(128 1024 8192)
    [[ $emulated ]] && batches=(4)
    for batch in "${batches[@]}"; do
        for precision in f32 bf16x3 tf32 bf16; do
            step "steps $precision, batch $batch" 30 "${elbo[@]}" plan "${model[@]}" --device cuda --batch "$batch" \
                --precision $precision --time $passes
        done
    done
}

# What launches, nodes and edges of graphs, and barriers cost.
stage_latency() {
    if [[ $emulated ]]; then
        unavailable latencies "the emulated driver has no runtime API, and runs blocks one after another"
    elif [[ -x $bin/latency ]]; then
        step latencies 60 "$bin/latency"
    else
        unavailable latencies "no program latency in $bin: packed without nvcc"
    fi
}

# Square products in every precision, in turn with those of cuBLAS.
stage_products() {
    local round sizes=(1024 2048 4096 8192) repetitions=9 on=cuda why
    if [[ $emulated ]]; then sizes=(64 136) repetitions=1 on=cpu; fi
    why=$(lacks torch)
    [[ -z $why ]] || unavailable cuBLAS "$why"
    for (( round = 1; round <= rounds; round++ )); do
        step "elbo #$round" 60 "${ladder[@]}" products $repetitions "${sizes[@]}"
        needed=no
        [[ $why ]] || step "cuBLAS #$round" 60 "$python" "$bin/gemm_cublas.py" $repetitions "${sizes[@]}" --device $on
        needed=yes
    done
}

stage_tests() {
    local test filter
    for test in "$bin"/tests/*; do
        filter=()
        if [[ $emulated ]]; then
            # Some tests show that the script works; all of them take minutes there, and `cargo test` runs them.
            case $test in
                */random_graphs|*/device_negative|*/device_turing) continue ;;
                */device) filter=(same_bits on_the_order) ;;
            esac
        fi
        step "$(basename "$test")" 240 "${testing[@]}" "$test" "${filter[@]}"
    done
}

stage_hash() {
    [[ -x $bin/tests/noise_hash ]] || { unavailable "all inputs" "no tests/noise_hash"; return; }
    local all=1; [[ $emulated ]] && all=0
    step "all inputs" 400 "${testing[@]}" ELBO_HASH_ALL=$all "$bin/tests/noise_hash" --nocapture functions_and_noise
}

# Options of a short training, and of a whole one.
if [[ $data ]]; then
    short=(--data "$data" --epochs 2) whole=(--data "$data" --epochs 10) bound=106.5
else
    short=(--epochs 2) whole=(--epochs 10) bound=none
fi
if [[ $emulated ]]; then
    short=(--train-size 40 --test-size 10 --hidden 12 --latent 2 --batch 16 --epochs 1) whole=("${short[@]}") bound=none
fi

stage_determinism() {
    local options=("${short[@]}" --seed 7 --binarisation dynamic --quiet) run
    for run in first second; do
        step "$run run" 120 "${elbo[@]}" train "${options[@]}" --device cuda --out "$work/$run" || return
    done
    step "equal bytes" 10 python3 "$report" same "$work/first" "$work/second"
    step "CPU run" 240 "${elbo[@]}" train "${options[@]}" --device cpu --out "$work/cpu" || return
    # Equal noise and another order of additions: two instruction sets of one CPU were 0.01 and 0.10 nats apart after two
    # epochs of MNIST with seeds 7 and 8.
    step "CPU and GPU" 10 python3 "$report" near "$work/first" "$work/cpu" --bound 0.3
}

# What launches cost: set up ahead of what they wait for or not, in turn, and eight models in one launch or one after the
# other. The bytes must be equal.
stage_launches() {
    local steps=1024 check=469 on=cuda round
    [[ $emulated ]] && { steps=1 check=2 on=cpu; }
    for round in 1 2 3; do
        step "ahead #$round" 60 "${speed[@]}" digits v1 128 0 $steps 5 $check --device $on
        step "not ahead #$round" 60 env ELBO_AHEAD=off "${speed[@]}" digits v1 128 0 $steps 5 $check --device $on
        [[ $emulated ]] && break
    done
    local options=("${short[@]}" --seed 1 --quiet --device cuda)
    step "run ahead" 120 "${elbo[@]}" train "${options[@]}" --out "$work/ahead" || return
    step "run not ahead" 120 env ELBO_AHEAD=off "${elbo[@]}" train "${options[@]}" --out "$work/not-ahead" || return
    step "equal bytes" 10 python3 "$report" same "$work/ahead" "$work/not-ahead"
    local replicas=8; [[ $emulated ]] && replicas=3
    step "$replicas models together" 240 "${elbo[@]}" train "${options[@]}" --replicas $replicas --out "$work/together" || return
    step "$replicas models in turn" 400 "${elbo[@]}" train "${options[@]}" --replicas $replicas --jobs 1 --out "$work/in-turn" || return
    step "equal bytes of models" 10 python3 "$report" same "$work/together/seed2" "$work/in-turn/seed2"
}

stage_mnist() {
    local precision
    for precision in f32 bf16x3 tf32 bf16; do
        step "train $precision" 180 "${elbo[@]}" train "${whole[@]}" --quiet --device cuda --precision $precision \
            --out "$work/mnist-$precision" || continue
        step "result $precision" 10 python3 "$report" result "$work/mnist-$precision" --bound $bound
    done
}

# Elbo beside its peers, in turn. Round 1 runs every mode of a peer in f32 and the promising ones in the other classes;
# later rounds its fastest. A class is compared with the same class: factors of the products as exact on both sides.
stage_speed() {
    # What comes after this stage needs a third of the time at most.
    local reserve=$(( minutes * 20 )) class round work_batch work_batches=("v1 128" "v1 8192" "v2 20" "v1 1024")
    [[ $emulated ]] && work_batches=("v1 2" "v2 2")
    [[ ,$stages, == *,mnist,* || ,$stages, == *,sanitizer,* ]] || reserve=0
    find_peers
    for class in ${classes//,/ }; do
        for (( round = 1; round <= rounds; round++ )); do
            for work_batch in "${work_batches[@]}"; do
                (( $(seconds_left) > reserve )) || { record "$class round $round $work_batch" "no time"; continue; }
                # shellcheck disable=SC2086  # two words
                speed_cell "$class" "$round" $work_batch
            done
        done
    done
}

speed_cell() {
    local class=$1 round=$2 workload=$3 batch=$4 precision peer mode steps=1024 repetitions=7 check=469
    (( batch >= 1024 )) && steps=256
    local where=digits on=cuda
    [[ $data ]] && where=$data
    if [[ $emulated ]]; then steps=1 repetitions=1 check=2 on=cpu; fi
    for precision in $(of_class "$class"); do
        step "elbo $precision $workload $batch #$round" 90 "${speed[@]}" "$where" "$workload" "$batch" 0 $steps \
            $repetitions $check --device cuda --precision "$precision"
    done
    needed=no
    for peer in $found_peers; do
        for mode in $(modes "$peer" "$class" "$round" "$workload" "$batch"); do
            step "$peer $mode $class $workload $batch #$round" 120 "$python" "$peers/${peer}_vae.py" --device $on \
                --data "$data" --workload "$workload" --batch "$batch" --mode "$mode" --precision "$class" \
                --steps $steps --reps $repetitions --check-steps $check
        done
    done
    needed=yes
}

# Elbo's precisions that are compared with a class of the peers. bf16x3 is far more exact than TF32 and must be compared
# with something.
of_class() { case $1 in tf32) echo tf32 bf16x3 ;; *) echo "$1" ;; esac; }

modes() {
    local peer=$1 class=$2 round=$3
    if (( round > 1 )); then
        python3 "$report" fastest "$out/records.jsonl" "$@"
    elif [[ $emulated ]]; then
        case $peer in torch) echo eager ;; jax) echo step ;; esac
    else
        case $peer-$class in
            torch-f32) echo graph compile-graph compile eager ;;
            torch-*) echo graph compile-graph ;;
            jax-f32) echo scan step ;;
            jax-*) echo scan ;;
        esac
    fi
}

# Why torch or jax cannot be used, or nothing if it can.
lacks() {
    local test
    case $1 in
        torch) test='import torch; assert torch.cuda.is_available(), "torch sees no GPU"' ;;
        jax) test='import jax; assert jax.devices()[0].platform == "gpu", "jax sees no GPU"' ;;
    esac
    [[ $emulated ]] && test="import $1"
    timeout 120 "$python" -c "$test" >"$work/peer" 2>&1 || { tail -n 1 "$work/peer" | grep . || echo "no answer"; }
}

find_peers() {
    local peer why
    found_peers=""
    for peer in torch jax; do
        if [[ -z $peers || -z $data ]]; then
            unavailable $peer "needs --peers and --data"
        elif [[ ! -e $peers/${peer}_vae.py ]]; then
            unavailable $peer "no ${peer}_vae.py in $peers"
        else
            why=$(lacks $peer)
            if [[ $why ]]; then unavailable $peer "$why"; else found_peers+=" $peer"; fi
        fi
    done
}

stage_sanitizer() {
    local sanitizer tool test
    sanitizer=$(find_tool compute-sanitizer)
    [[ $emulated ]] && sanitizer=""
    for tool in memcheck racecheck initcheck synccheck; do
        [[ $sanitizer ]] || { unavailable $tool "no compute-sanitizer, or no GPU"; continue; }
        for test in "$bin"/tests/*; do
            # These run for many steps, and use no shared memory that others do not.
            case $test in */noise_hash|*/random_graphs|*/bounds|*/evidence) continue ;; esac
            # That the driver has no such kernel in this module is a question that the program asks, not an error.
            step "$tool $(basename "$test")" 150 "${testing[@]}" "$sanitizer" --tool $tool --error-exitcode 9 \
                --report-api-errors no "$test" --test-threads=1 --skip two_hundred_steps
        done
    done
}

stage_bench() {
    local times=20; [[ $emulated ]] && times=1
    step "ladder of matrix products" 60 "${ladder[@]}" $n $times
    local quick=(); [[ $emulated ]] && quick=(--quick --repetitions 1 --only adam)
    if "${elbo[@]}" bench --help >/dev/null 2>&1; then
        # The JSON is stdout's; what is said meanwhile goes to the log.
        step bench 400 bash -c 'exec "${@:2}" >"$1"' bench "$out/bench.json" \
            "${elbo[@]}" bench --device cuda --json --svg "$out/bench.svg" "${quick[@]}"
    else
        unavailable bench "this program has no command bench"
    fi
}

# The path of a tool of the CUDA toolkit, or nothing.
find_tool() {
    local toolkit folder
    command -v "$1" && return
    for toolkit in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-* /opt/cuda; do
        for folder in "$toolkit/bin" "$toolkit/compute-sanitizer"; do
            [[ -x $folder/$1 ]] && { echo "$folder/$1"; return; }
        done
    done
}

trap finish EXIT
trap 'exit 130' INT TERM
for stage in ${every_stage//,/ }; do
    [[ ,$stages, == *,$stage,* ]] && "stage_$stage"
done
