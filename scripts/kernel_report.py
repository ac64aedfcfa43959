#!/usr/bin/env python3
"""What the compiler makes of the kernels, beside the limits in kernels/table.json.

    scripts/kernel_report.py                      compiles kernels/ for sm_80 and sm_90 and checks; status 1 if a limit is broken
    scripts/kernel_report.py --arch 80,86         for other architectures; without entries in the table, for local memory alone
    scripts/kernel_report.py --only gemm          the kernels of some files
    scripts/kernel_report.py --write              makes the table of what is found
    scripts/kernel_report.py --self-test          kernels that are bad on purpose: each must be refused, for its reason

An error is, in every kernel: a stack frame, a spilled register, a load from or store to local memory in the machine code. By
the table, for each kernel and architecture: more registers than allowed, fewer blocks on a multiprocessor than demanded, fewer
multiply-adds (FFMA) or products on tensor cores (HMMA; HGMMA, those of a warpgroup) in the main loop than demanded, which happens
when a loop is no longer unrolled. And what ptxas says when it makes the products of a warpgroup wait for each other (C7510 to
C7519). The limits are what one nvcc makes; the table names its version.

`dynamic_shared` in the table is what the host asks for at the launch: it goes into the number of blocks. It is written by
hand and stays when the table is rewritten; tests in src/engine/steps/gemm/cuda.rs and rungs.rs compare it with what these say. A
kernel whose host asks for more or less from launch to launch has 0 there, and its blocks are those that registers allow; the
products of planes have there what they ask for without column sums.

nvcc is that of ELBO_NVCC, of an active Python environment, of target/nvcc or of PATH. The disassembler is that of
ELBO_NVDISASM, of nvcc's folder, of the same environments or of PATH; as a Python package it is nvidia-cuda-nvdisasm, which
begins with 13.2 and reads what 13.0 compiles. Python's standard library is all else that is needed.
"""
import argparse
import collections
import concurrent.futures
import glob
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "kernels" / "table.json"

# Of the instruction counts, those that a line of the report has.
COUNTED = ("FFMA", "HMMA", "HGMMA", "LDS", "LDG", "LDGSTS")


# ---- what a multiprocessor holds ----

# By architecture: warps, blocks, KiB of shared memory, bytes of it that a block costs besides its own (CUDA C++ Programming
# Guide, "Compute Capabilities"). All have 65536 registers in four partitions, given out 256 at a time to a warp.
LIMITS = {
    "sm_75": (32, 16, 64, 0),
    "sm_80": (64, 32, 164, 1024),
    "sm_86": (48, 16, 100, 1024),
    "sm_89": (48, 24, 100, 1024),
    "sm_90": (64, 32, 228, 1024),
}


def resident_blocks(arch, threads, registers, shared):
    """Blocks that a multiprocessor holds at a time."""
    most_warps, most_blocks, kib, reserved = LIMITS[arch]
    warps = -(-threads // 32)
    for_a_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // 4 // for_a_warp * 4 // warps
    for_a_block = -(-(shared + reserved) // 128) * 128
    by_shared = kib * 1024 // for_a_block if for_a_block else most_blocks
    return min(most_warps // warps, most_blocks, by_registers, by_shared)


# ---- tools ----

def environments():
    """Folders in which Python packages put programs: of the active environment, and of target/."""
    for environment in (os.environ.get("VIRTUAL_ENV"), ROOT / "target" / "nvcc", ROOT / "target" / "nvdisasm"):
        if environment:
            yield from glob.glob(f"{environment}/lib/python*/site-packages/nvidia/cu*/bin")


def find(program, variable, remedy, beside=()):
    named = os.environ.get(variable)
    candidates = [named] if named else [f"{folder}/{program}" for folder in (*beside, *environments())]
    candidates += [] if named else [shutil.which(program) or ""]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    sys.exit(f"no {program} is to be had{f': {variable}={named} is none' if named else ''}. {remedy}")


class Tools:
    def __init__(self):
        self.nvcc = find("nvcc", "ELBO_NVCC", "build.rs says where to get it: ELBO_REQUIRE_NVCC=1 cargo build")
        self.nvdisasm = find("nvdisasm", "ELBO_NVDISASM", "As a Python package: pip install 'nvidia-cuda-nvdisasm>=13.2,<14'",
                             [os.path.dirname(self.nvcc)])
        said = run([self.nvcc, "--version"])
        self.version = re.search(r"release [\d.]+, V(\S+)", said).group(1)


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}{done.stdout}")
    return done.stdout + done.stderr


def flags():
    """What build.rs asks of nvcc, but for one architecture's machine code instead of an image of several."""
    text = (ROOT / "build" / "nvcc.rs").read_text()
    listed = re.search(r"pub const FLAGS: [^=]*=\s*\[(.*?)\];", text, re.DOTALL).group(1)
    words = re.findall(r'"([^"]*)"', listed)
    image = words.index("-Xfatbin")
    return ["-cubin" if word == "-fatbin" else word for word in words[:image] + words[image + 2:]]


# ---- machine code ----

Instruction = collections.namedtuple("Instruction", "address guarded opcode text")


def disassembled(text):
    """The instructions of every kernel in what `nvdisasm -c` prints, and where the labels are."""
    kernels, labels, at = {}, {}, None
    for line in text.splitlines():
        if found := re.match(r"\.text\.(\S+):", line):
            at = kernels.setdefault(found.group(1), [])
            here = labels.setdefault(found.group(1), {})
        elif found := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)(.*)", line):
            at.append(Instruction(int(found.group(1), 16), found.group(2) is not None, found.group(3), found.group(4)))
        elif (found := re.match(r"(\.L_x_\d+|\$\S+):", line)) and at is not None:
            here[found.group(1)] = at[-1].address + 16 if at else 0
    return {name: (code, labels[name]) for name, code in kernels.items()}


def counts(code):
    """How many of every instruction, without what follows the first point: LDG.E.128 is LDG."""
    return collections.Counter(instruction.opcode.split(".")[0] for instruction in code)


def successors(code, labels):
    """For every instruction, by its place in the list, which may come next. A call comes back."""
    place = {instruction.address: i for i, instruction in enumerate(code)}
    converge = {}  # where the threads of a barrier come together: BSSY B0, `(label)
    for instruction in code:
        if instruction.opcode == "BSSY" or instruction.opcode.startswith("BSSY."):
            barrier, label = re.search(r"(B\d+), `\((.*?)\)", instruction.text).groups()
            converge.setdefault(barrier, []).append(place.get(labels.get(label), -1))
    after = []
    for i, instruction in enumerate(code):
        opcode, to = instruction.opcode.split(".")[0], []
        falls_through = True
        if opcode in ("BRA", "JMP", "BRX", "JMX"):
            listed = re.findall(r"\.L_x_\d+", instruction.text)
            to = [place[labels[label]] for label in listed if labels.get(label) in place]
            # A branch may have its condition as an operand: BRA !P0, `(.L_x_1), BRA.DIV UR4, `(.L_x_2).
            falls_through = instruction.guarded or bool(re.match(r"\s+!?U?[PR]", instruction.text)) and opcode == "BRA"
        elif opcode in ("EXIT", "RET"):
            falls_through = instruction.guarded
        elif opcode == "BSYNC":
            barrier = re.search(r"B\d+", instruction.text).group(0)
            to = sorted(p for p in converge.get(barrier, []) if p > i)[:1]
        after.append(to + [i + 1] if falls_through and i + 1 < len(code) else to)
    return after


def loops(code, labels):
    """The loops of a kernel, each as the set of its instructions' places: natural loops, that is, the header dominates where
    control comes back from. Loops of one header are one."""
    after = successors(code, labels)
    starts = sorted({0, *(s for i, next_ in enumerate(after) if next_ != [i + 1] for s in (*next_, i + 1) if s < len(code))})
    block_of, blocks = {}, []
    for b, start in enumerate(starts):
        end = starts[b + 1] if b + 1 < len(starts) else len(code)
        blocks.append(range(start, end))
        block_of.update((i, b) for i in blocks[-1])
    next_blocks = [[block_of[s] for s in after[block[-1]]] for block in blocks]
    before = [[] for _ in blocks]
    for b, to in enumerate(next_blocks):
        for s in to:
            before[s].append(b)

    # Dominators after Cooper, Harvey and Kennedy: "A Simple, Fast Dominance Algorithm" (2001).
    order, seen, stack = [], {0}, [(0, iter(next_blocks[0]))]
    while stack:
        b, rest = stack[-1]
        s = next((s for s in rest if s not in seen), None)
        if s is None:
            order.append(b)
            stack.pop()
        else:
            seen.add(s)
            stack.append((s, iter(next_blocks[s])))
    rank = {b: i for i, b in enumerate(order)}
    dominator = {0: 0}
    changed = True
    while changed:
        changed = False
        for b in reversed(order[:-1]):
            new = None
            for other in (p for p in before[b] if p in dominator):
                a = other
                while new is not None and a != new:
                    while rank[a] < rank[new]:
                        a = dominator[a]
                    while rank[new] < rank[a]:
                        new = dominator[new]
                new = a
            if dominator.get(b) != new:
                dominator[b], changed = new, True

    def dominates(a, b):
        while b != a and b != 0:
            b = dominator[b]
        return a == b

    found = {}
    for b in order:
        for header in next_blocks[b]:
            if not dominates(header, b):
                continue
            body, work = found.setdefault(header, {header}), [b]
            while work:
                at = work.pop()
                if at not in body:
                    body.add(at)
                    work.extend(p for p in before[at] if p in rank)
    return [frozenset(i for b in body for i in blocks[b]) for body in found.values()]


def main_loop(code, labels):
    """Counts of the loop that does a product's work, or None: the instructions of a loop that no loop inside it has.

    That with most HGMMA, or HMMA where there is none, or FFMA; if loops copy asynchronously, one of those or of the loops inside them.
    So an interpreter, a loop with divisions and therefore FFMA, is not taken for the product. Before sm_80 nothing tells them
    apart."""
    all_loops = loops(code, labels)
    copying = [loop for loop in all_loops if any(code[i].opcode.startswith("LDGSTS") for i in loop)]
    if copying:
        all_loops = [loop for loop in all_loops if any(loop <= other for other in copying)]
    own = [counts(code[i] for i in loop.difference(*(other for other in all_loops if other < loop))) for loop in all_loops]
    return max(own, key=lambda of: (of["HGMMA"], of["HMMA"], of["FFMA"]), default=None)


def threads_of(cubin):
    """Threads per block by kernel, from __launch_bounds__: attribute EIATTR_MAX_THREADS in the section .nv.info.KERNEL."""
    data = cubin.read_bytes()
    table, = struct.unpack_from("<Q", data, 40)
    size, number, names = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(number)]
    strings = sections[names][4]
    threads = {}
    for name, _, _, _, offset, length in sections:
        title = data[strings + name:data.index(b"\0", strings + name)].decode()
        if not title.startswith(".nv.info."):
            continue
        at = offset
        while at < offset + length:
            form, attribute, value = struct.unpack_from("<BBH", data, at)
            at += 4
            if form == 4:  # `value` bytes follow
                if attribute == 5:
                    x, y, z = struct.unpack_from("<III", data, at)
                    threads[title.removeprefix(".nv.info.")] = x * y * z
                at += value
    return threads


def resources(said):
    """Registers, stack, spills and static shared memory by kernel, from what `ptxas -v` says. A function that was not inlined
    counts for the kernel before it."""
    found, of = {}, None
    for line in said.splitlines():
        if name := re.search(r"Compiling entry function '(\S+)' for", line):
            of = found.setdefault(name.group(1), collections.Counter())
        if of is None:
            continue
        for bytes_, what in re.findall(r"(\d+) bytes (stack frame|spill stores|spill loads|smem)", line):
            of[what] += int(bytes_)
        if registers := re.search(r"Used (\d+) registers", line):
            of["registers"] = int(registers.group(1))
    return found


def compiled(tools, source, arch, folder, defines=()):
    """What there is to know of the kernels of a file on one architecture."""
    number = arch.removeprefix("sm_")
    hopper = source.stem.endswith("_sm90a")
    if hopper and arch != "sm_90":
        return []
    real = "90a" if hopper else number
    cubin = pathlib.Path(folder) / f"{source.stem}.{arch}.cubin"
    options = [f"-gencode=arch=compute_{real},code=sm_{real}", "-I", ROOT / "kernels", "-o", cubin]
    if os.environ.get("NVCC_CCBIN"):
        options.append(f"-ccbin={os.environ['NVCC_CCBIN']}")
    said = run([tools.nvcc, *flags(), *options, source], cwd=ROOT)
    used, threads = resources(said), threads_of(cubin)
    code = disassembled(run([tools.nvdisasm, "-c", cubin]))
    kernels = []
    for name in sorted(used):
        instructions, labels = code[name]
        whole = counts(instructions)
        product = "gemm" in source.stem or source.stem == "roofline" or source.stem == "self_test"
        loop = main_loop(instructions, labels) if product and int(number) >= 80 else None
        kernels.append({
            "kernel": name, "architecture": arch, "threads": threads.get(name, 1024), "registers": used[name]["registers"],
            "static_shared": used[name]["smem"], "stack": used[name]["stack frame"],
            "spills": used[name]["spill stores"] + used[name]["spill loads"],
            "local": whole["LDL"] + whole["STL"], "whole": whole, "loop": loop,
            "serialized": sum(f"'{name}'" in line for line in said.splitlines() if re.search(r"\bC751\d\b", line)),
        })
    return kernels


def sources():
    return sorted((*(ROOT / "kernels").glob("*.cu"), *(ROOT / "kernels" / "dev").glob("*.cu")))


def measure(tools, files, architectures):
    with tempfile.TemporaryDirectory() as folder:
        # The longest first, so that none is left over at the end.
        work = sorted(((f, a) for f in files for a in architectures), key=lambda w: ("tensor" not in w[0].stem, w[0].name))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda w: compiled(tools, *w, folder), work)
            return sorted((k for kernels in found for k in kernels), key=lambda k: (k["kernel"], k["architecture"]))


# ---- the table ----

def entry_of(kernel, dynamic_shared):
    """A line of the table."""
    shared = kernel["static_shared"] + dynamic_shared
    entry = {key: kernel[key] for key in ("kernel", "architecture", "threads")}
    entry["dynamic_shared"] = dynamic_shared
    entry["registers"] = kernel["registers"]
    entry["blocks"] = resident_blocks(kernel["architecture"], kernel["threads"], kernel["registers"], shared)
    if kernel["loop"]:
        entry.update((key.lower(), kernel["loop"][key]) for key in ("FFMA", "HMMA", "HGMMA") if kernel["loop"][key])
    return entry


REWRITE = "if this is as it should be, scripts/kernel_report.py --write"

# Figure, whether `found` keeps to `allowed`, the words for it, the remedy.
FIGURES = (
    ("registers", lambda found, allowed: found <= allowed, "at most", "keep fewer values at a time"),
    ("blocks", lambda found, allowed: found >= allowed, "at least", "use fewer registers or less shared memory"),
    ("ffma", lambda found, allowed: found >= allowed, "at least", "look whether the main loop is still unrolled"),
    ("hmma", lambda found, allowed: found >= allowed, "at least", "look whether the main loop is still unrolled"),
    ("hgmma", lambda found, allowed: found >= allowed, "at least", "look whether the main loop is still unrolled"),
    ("threads", lambda found, allowed: found == allowed, "exactly", "the launch bounds have changed"),
)

LOCAL = (
    ("stack", "bytes of stack", "an array with an index known at run time only, or a copied parameter struct"),
    ("spills", "bytes of spilled registers", "too few registers: keep fewer values at a time, or let fewer blocks be resident"),
    ("local", "loads and stores of local memory", "local memory lies in the GPU's memory: see stack and spills"),
    ("serialized", "warnings that products of a warpgroup wait for each other", "touch no accumulator before the wait"),
)


def local_memory(kernel):
    for key, what, remedy in LOCAL:
        if kernel[key]:
            yield f"{kernel['kernel']} on {kernel['architecture']}: {what}: found {kernel[key]}, allowed 0; {remedy}"


def broken(kernels, entries, whole=True):
    """What is wrong, a line each. `whole`: nothing was left out, so that an entry without a kernel is wrong too."""
    limits = {(e["kernel"], e["architecture"]): e for e in entries}
    listed = {e["architecture"] for e in entries}
    for kernel in kernels:
        yield from local_memory(kernel)
        name, arch = kernel["kernel"], kernel["architecture"]
        if arch not in listed:
            continue
        limit = limits.pop((name, arch), None)
        if limit is None:
            yield f"{name} on {arch}: is not in the table; scripts/kernel_report.py --write"
            continue
        found = entry_of(kernel, limit["dynamic_shared"])
        for figure, keeps, words, remedy in FIGURES:
            if figure in limit and not keeps(found.get(figure, 0), limit[figure]):
                yield (f"{name} on {arch}: {figure}: found {found.get(figure, 0)}, allowed {words} {limit[figure]}; {remedy}; "
                       f"{REWRITE}")
    if whole:
        compiled_for = {k["architecture"] for k in kernels}
        for name, arch in (key for key in limits if key[1] in compiled_for):
            yield f"{name} on {arch}: is in the table, but no such kernel is compiled; scripts/kernel_report.py --write"


def read_table():
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"nvcc": None, "kernels": []}


def write_table(tools, kernels, old):
    """Entries of what was not compiled this time stay."""
    shared = {(e["kernel"], e["architecture"]): e["dynamic_shared"] for e in old["kernels"]}
    new = {(k["kernel"], k["architecture"]): k for k in kernels}
    entries = [e for e in old["kernels"] if (e["kernel"], e["architecture"]) not in new]
    entries += [entry_of(kernel, shared.get(key, 0)) for key, kernel in new.items()]
    entries.sort(key=lambda e: (e["kernel"], e["architecture"]))
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    TABLE.write_text(f'{{"nvcc": "{tools.version}", "kernels": [\n{lines}\n]}}\n')


def report(kernels, entries):
    """The figures as lines of text; of the instructions, those of the main loop where there is one, or else of the kernel."""
    shared = {(e["kernel"], e["architecture"]): e["dynamic_shared"] for e in entries}
    print(f"{'kernel':24} {'arch':6} {'threads':>7} {'regs':>4} {'shared':>6} {'blocks':>6} {'code':>6} {'SEL':>5}",
          *(f"{name:>6}" for name in COUNTED), " of")
    for kernel in kernels:
        entry = entry_of(kernel, shared.get((kernel["kernel"], kernel["architecture"]), 0))
        of = kernel["loop"] or kernel["whole"]
        selects = kernel["whole"]["SEL"] + kernel["whole"]["FSEL"]
        print(f"{kernel['kernel']:24} {kernel['architecture']:6} {entry['threads']:7} {entry['registers']:4} "
              f"{entry['dynamic_shared'] + kernel['static_shared']:6} {entry['blocks']:6} {sum(kernel['whole'].values()):6} "
              f"{selects:5}", *(f"{of[name]:6}" for name in COUNTED), " loop" if kernel["loop"] else " kernel")


# ---- kernels that are bad on purpose ----

BAD = """
#include "params.cuh"

// Good: a product's loop of 64 multiply-adds.
ELBO_KERNEL(good, 256, RooflineParams) {
    float s[16] = {};
#pragma unroll 1
    for (int turn = 0; turn < p.turns; turn++) {
        const float x = p.from[turn];
#pragma unroll
        for (int i = 0; i < 64; i++) s[i % 16] = fmaf(s[i % 16], x, p.y);
    }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 16; i++) sum += s[i];
    p.to[threadIdx.x] = sum;
}

// An array with an index that only the run knows.
ELBO_KERNEL(local_array, 256, RooflineParams) {
    float s[16];
    for (int i = 0; i < 16; i++) s[i] = p.from[i];
    s[p.turns & 15] = p.x;
    float sum = 0.f;
    for (int i = 0; i < 16; i++) sum += s[(i * p.turns) & 15];
    p.to[threadIdx.x] = sum;
}

// 96 sums where 32 registers are to be had.
ELBO_KERNEL_RESIDENT(spills, 1024, 2, RooflineParams) {
    float s[96];
#pragma unroll
    for (int i = 0; i < 96; i++) s[i] = p.from[i * 1024 + threadIdx.x];
#pragma unroll 1
    for (int turn = 0; turn < p.turns; turn++) {
#pragma unroll
        for (int i = 0; i < 96; i++) s[i] = fmaf(s[i], s[(i + 1) % 96], p.y);
    }
#pragma unroll
    for (int i = 0; i < 96; i++) p.to[i * 1024 + threadIdx.x] = s[i];
}
"""

# Accumulators that are touched between two products of a warpgroup, without a wait.
BAD_FOR_HOPPER = """
#include "hopper.cuh"

struct Params {
    float* to;
    u64 a, b;
};

ELBO_KERNEL(touched, 128, Params) {
    float s[64] = {};
    wgmma_fence(s);
    wgmma_m64n128k16_bf16(s, p.a, p.b);
    wgmma_commit();
    s[3] *= 2.f;
    wgmma_m64n128k16_bf16(s, p.a, p.b);
    wgmma_commit();
    wgmma_wait<0>(s);
#pragma unroll
    for (int i = 0; i < 64; i++) p.to[i * 128 + threadIdx.x] = s[i];
}
"""


def self_test(tools):
    # Occupancy, against NVIDIA's calculator: registers, shared memory, warps and blocks as the limit.
    for arguments, blocks in (
        (("sm_80", 256, 128, 0), 2), (("sm_80", 256, 129, 0), 1), (("sm_80", 128, 168, 49152), 3), (("sm_90", 128, 128, 49152), 4),
        (("sm_80", 128, 128, 49152), 3), (("sm_90", 256, 32, 0), 8), (("sm_90", 32, 16, 0), 32), (("sm_86", 1024, 40, 0), 1),
        (("sm_75", 256, 64, 33792), 1),
    ):
        assert resident_blocks(*arguments) == blocks, (arguments, resident_blocks(*arguments), blocks)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "self_test.cu"
        source.write_text(BAD)
        kernels = compiled(tools, source, "sm_80", folder)
        hopper = pathlib.Path(folder) / "self_test_sm90a.cu"
        hopper.write_text(BAD_FOR_HOPPER)
        touched = compiled(tools, hopper, "sm_90", folder)
    entries = [entry_of(kernel, 0) for kernel in kernels]
    good = next(e for e in entries if e["kernel"] == "good")
    only_good = [k for k in kernels if k["kernel"] == "good"]

    def refused(because, limits, among=only_good):
        said = list(broken(among, limits))
        assert said and any(re.search(because, line) for line in said), f"{because!r} is not in {said}"
        print(f"refused: {said[0]}")

    assert not list(broken(only_good, [good])), list(broken(only_good, [good]))
    assert good["ffma"] == 64, f"the loop of `good` has 64 multiply-adds, not {good['ffma']}"
    for name, because in (("local_array", "bytes of stack"), ("spills", "bytes of spilled registers")):
        among = [k for k in kernels if k["kernel"] == name]
        refused(f"{name} on sm_80: {because}", entries[:0], among)
        assert any("loads and stores of local" in line for line in local_memory(among[0])), name
    refused("touched on sm_90: warnings that products of a warpgroup wait", entries[:0], touched)
    refused(f"registers: found {good['registers']}, allowed at most {good['registers'] - 1}",
            [{**good, "registers": good["registers"] - 1}])
    refused("blocks: found", [{**good, "blocks": good["blocks"] + 1}])
    refused("blocks: found 3", [{**good, "dynamic_shared": 50000}])
    refused("ffma: found 64, allowed at least 65", [{**good, "ffma": 65}])
    refused("threads: found 256", [{**good, "threads": 128}])
    refused("good on sm_80: is not in the table", [{**good, "kernel": "another"}])
    refused("another on sm_80: is in the table", [good, {**good, "kernel": "another"}])
    print("the gate refuses what it must")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="80,90", help="compute capabilities times ten, with commas between")
    parser.add_argument("--only", help="of files whose name begins so")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    tools = Tools()
    if args.self_test:
        return self_test(tools)
    architectures = [f"sm_{number}" for number in args.arch.split(",")]
    if unknown := [arch for arch in architectures if arch not in LIMITS]:
        sys.exit(f"{', '.join(unknown)}: known are {', '.join(LIMITS)}")
    files = [source for source in sources() if not args.only or source.name.startswith(args.only)]
    kernels = measure(tools, files, architectures)
    table = read_table()
    if args.write:
        if not (problems := [line for kernel in kernels for line in local_memory(kernel)]):
            write_table(tools, kernels, table)
            table = read_table()
    else:
        problems = list(broken(kernels, table["kernels"], whole=not args.only))
    report(kernels, table["kernels"])
    if problems:
        of = "" if table["nvcc"] == tools.version else f" (its limits are what nvcc {table['nvcc']} makes; this is {tools.version})"
        print(f"\nDifferences from kernels/table.json{of}:", *problems, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
