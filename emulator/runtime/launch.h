// Launching a kernel: argument checks, shared memory, the loop over blocks, and what went wrong.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "emu_runtime.cuh"

namespace emu {

// The kernel of this name, or null.
const Kernel* find_kernel(const char* name);
std::vector<const Kernel*> all_kernels();

// What an H100 allows a block to have.
constexpr unsigned MAX_SHARED = 227 << 10;

struct Launch {
    const Kernel* kernel;
    dim3 grid, block;
    unsigned shared_bytes;
    const void* params;
    bool ahead = false;  // by an edge of the kind that lets it begin before what it comes after is over
    std::vector<uint32_t> unfinished;  // the numbers of the launches that may then still run
};

// Are grid, block and shared memory within the limits of the device and of the kernel?
bool can_launch(const Launch& launch);

enum class Outcome { DONE, INVALID, FAILED, ILLEGAL_ADDRESS, MISALIGNED };

// Runs it to its end. INVALID: not launched, the arguments make no sense. The later ones: it failed while running; the
// report has been printed and is kept for last_report. `number`, if there is one, becomes the launch's.
Outcome run(const Launch& launch, uint32_t* number = nullptr);

// Shared memory of the running block, [begin, begin + size).
unsigned shared_size();
bool in_shared(const void* p, size_t bytes);

// The text of the last failure, empty if none.
const std::string& last_report();
void set_report(const std::string& text);
void clear_report();

// Where a signal found its thread; `context` is the third argument of the handler.
uintptr_t pc_of(void* context);

// file:line of an address in this library, as far as the debug information goes.
std::string place_of(uintptr_t pc);

// The running thread did something with a code of its own.
[[noreturn]] void fault(Outcome outcome, const std::string& what);

}  // namespace emu
