// Launching a kernel, and turning faults of its threads into reports.
#include "launch.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block.h"
#include "memory.h"
#include "race.h"
#include "schedule.h"
#include "watchdog.h"

namespace emu {

unsigned char* shared_memory;

namespace {

Kernel* first_kernel;
std::string report;
unsigned shared_bytes;
Outcome fault_code;

// The shared memory of every block ends at an inaccessible page, so that the first byte behind it is a fault, and
// begins behind bytes that are checked afterwards.
struct SharedArena {
    unsigned char *begin, *end;
    SharedArena() {
        size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), size = (MAX_SHARED + 2 * page) / page * page;
        void* memory = mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) abort();
        begin = static_cast<unsigned char*>(memory) + page;
        end = begin + size;
        if (mprotect(begin, size, PROT_READ | PROT_WRITE) != 0) abort();
    }
};

SharedArena& arena() {
    static SharedArena instance;
    return instance;
}

constexpr size_t SHARED_GUARD = 1024;

void poison_shared() {
    unsigned room = (shared_bytes + 15) & ~15u;
    shared_memory = arena().end - room;
    memset(shared_memory, POISON, shared_bytes);
    fill_guard(shared_memory + shared_bytes, room - shared_bytes);
    fill_guard(shared_memory - SHARED_GUARD, SHARED_GUARD);
}

bool shared_guards_are_whole() {
    return guard_is_whole(shared_memory - SHARED_GUARD, SHARED_GUARD) &&
           guard_is_whole(shared_memory + shared_bytes, arena().end - (shared_memory + shared_bytes));
}

// ---- faults of the processor ----

struct sigaction old_segv, old_bus, old_fpe;
pthread_t launching;
volatile bool in_launch;

struct {
    int signal;
    const void* address;
    uintptr_t pc;
} caught;

std::string explain_signal() {
    char text_of[64];
    snprintf(text_of, sizeof text_of, "%p", caught.address);
    std::string out;
    fault_code = Outcome::ILLEGAL_ADDRESS;
    auto address = static_cast<const unsigned char*>(caught.address);
    if (caught.signal == SIGFPE) {
        fault_code = Outcome::FAILED;
        out = "integer division by zero or overflow";
    } else if (block().current_stack().overflowed_at(caught.address)) {
        out = "stack overflow of a thread";
    } else if (address >= arena().end && address < arena().end + 4096) {
        out = "access behind the end of shared memory, at byte " + std::to_string(address - shared_memory) + " of " +
              std::to_string(shared_bytes);
    } else {
        out = std::string("access to an address that is no memory of the device: ") + text_of;
    }
    return out + ", in " + place_of(caught.pc) + ", " + where();
}

// Not ours: whoever handled it before.
void pass_on(int signal, siginfo_t* info, void* context) {
    struct sigaction& old = signal == SIGSEGV ? old_segv : signal == SIGBUS ? old_bus : old_fpe;
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
        sigaction(signal, &old, nullptr);  // returning repeats the fault, now with the default action
    } else {
        old.sa_handler(signal);
    }
}

void on_signal(int signal, siginfo_t* info, void* context) {
    if (!in_launch || !pthread_equal(pthread_self(), launching) || !block().is_running()) {
        pass_on(signal, info, context);
        return;
    }
    caught = {signal, info->si_addr, pc_of(context)};
    block().fail_from_signal(explain_signal);
}

void install_handlers() {
    static bool installed = false;
    if (!installed) {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &old_segv);
        sigaction(SIGBUS, &action, &old_bus);
        sigaction(SIGFPE, &action, &old_fpe);
        installed = true;
    }
    // The handler must have a stack of its own: the fault may be that there is none left. Rust gives one to the threads
    // that it starts.
    stack_t now;
    sigaltstack(nullptr, &now);
    if (now.ss_flags & SS_DISABLE) {
        constexpr size_t SIZE = 64 << 10;
        stack_t own = {};
        own.ss_sp = malloc(SIZE);
        own.ss_size = SIZE;
        sigaltstack(&own, nullptr);
    }
}

void fail_launch(const Launch& launch, const std::string& what) {
    char shape[160];
    snprintf(shape, sizeof shape, " <<<(%u,%u,%u), (%u,%u,%u), %u>>> schedule %s: ", launch.grid.x, launch.grid.y,
             launch.grid.z, launch.block.x, launch.block.y, launch.block.z, launch.shared_bytes,
             schedule().name().c_str());
    set_report("kernel " + std::string(launch.kernel->name) + shape + what);
}

Outcome run_blocks(const Launch& launch, const void* params) {
    uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    for (uint64_t i = 0; i < blocks; ++i) {
        uint64_t number = schedule().nth(i, blocks);
        blockIdx = uint3{static_cast<u32>(number % launch.grid.x),
                         static_cast<u32>(number / launch.grid.x % launch.grid.y),
                         static_cast<u32>(number / launch.grid.x / launch.grid.y)};
        poison_shared();
        if (!block().run(*launch.kernel, params, launch.block, launch.ahead)) {
            fail_launch(launch, block().failure());
            return fault_code;
        }
        if (!shared_guards_are_whole()) {
            fail_launch(launch, "block " + text(blockIdx) + " wrote outside its shared memory of " +
                                    std::to_string(shared_bytes) + " bytes");
            return Outcome::FAILED;
        }
    }
    return Outcome::DONE;
}

}  // namespace

uintptr_t pc_of(void* context) {
    auto user = static_cast<ucontext_t*>(context);
#if defined(__x86_64__)
    return static_cast<uintptr_t>(user->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
    return user->uc_mcontext.pc;
#else
    (void)user;
    return 0;
#endif
}

Kernel::Kernel(const char* name, void (*run)(const void*), unsigned params_size, unsigned max_threads, const char* file)
    : name(name), run(run), params_size(params_size), max_threads(max_threads), file(file), next(first_kernel) {
    if (const Kernel* other = find_kernel(name)) {
        fprintf(stderr, "elbo-emulator: two kernels are called %s: in %s and in %s\n", name, other->file, file);
        abort();
    }
    first_kernel = this;
}

const Kernel* find_kernel(const char* name) {
    for (const Kernel* kernel = first_kernel; kernel != nullptr; kernel = kernel->next) {
        if (strcmp(kernel->name, name) == 0) return kernel;
    }
    return nullptr;
}

std::vector<const Kernel*> all_kernels() {
    std::vector<const Kernel*> out;
    for (const Kernel* kernel = first_kernel; kernel != nullptr; kernel = kernel->next) out.push_back(kernel);
    return out;
}

const std::string& last_report() { return report; }

void set_report(const std::string& text) {
    report = text;
    fprintf(stderr, "elbo-emulator: %s\n", text.c_str());
}

void clear_report() { report.clear(); }

unsigned shared_size() { return shared_bytes; }

bool in_shared(const void* p, size_t bytes) {
    auto at = static_cast<const unsigned char*>(p);
    return at >= shared_memory && at + bytes <= shared_memory + shared_bytes;
}

void fault(Outcome outcome, const std::string& what) {
    fault_code = outcome;
    block().fail(what + ", " + where());
}

bool can_launch(const Launch& launch) {
    const dim3 &grid = launch.grid, &block = launch.block;
    auto within = [](u32 value, u32 most) { return value > 0 && value <= most; };
    if (!within(grid.x, 0x7fffffff) || !within(grid.y, 65535) || !within(grid.z, 65535)) return false;
    if (!within(block.x, 1024) || !within(block.y, 1024) || !within(block.z, 64)) return false;
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    return threads <= std::min(launch.kernel->max_threads, MAX_THREADS) && launch.shared_bytes <= MAX_SHARED;
}

Outcome run(const Launch& launch, uint32_t* number) {
    const Kernel& kernel = *launch.kernel;
    if (!can_launch(launch)) return Outcome::INVALID;
    install_handlers();
    // Aligned as the most demanding parameter, a TensorMap.
    std::vector<u64> params((kernel.params_size + 63) / 8 + 1);
    auto aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(params.data()) + 63) & ~uintptr_t(63));
    memcpy(aligned, launch.params, kernel.params_size);
    gridDim = launch.grid;
    blockDim = launch.block;
    shared_bytes = launch.shared_bytes;
    fault_code = Outcome::FAILED;
    schedule().begin_launch();
    uint32_t own = race::begin_launch(launch.unfinished);
    if (number != nullptr) *number = own;
    launching = pthread_self();
    in_launch = true;
    watchdog::start();
    Outcome outcome = run_blocks(launch, aligned);
    watchdog::stop();
    in_launch = false;
    if (outcome != Outcome::DONE) return outcome;
    std::string damage = check_allocations();
    if (damage.empty()) return Outcome::DONE;
    fail_launch(launch, damage);
    return Outcome::ILLEGAL_ADDRESS;
}

std::string place_of(uintptr_t pc) {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(pc), &info) == 0 || info.dli_fname == nullptr) return "(unknown place)";
    char offset[32];
    snprintf(offset, sizeof offset, "0x%zx", static_cast<size_t>(pc - reinterpret_cast<uintptr_t>(info.dli_fbase)));
    std::string unknown = std::string(info.dli_fname) + "+" + offset;
    std::string quoted;
    for (const char* c = info.dli_fname; *c != 0; ++c) quoted += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
    FILE* pipe = popen(("addr2line -s -e '" + quoted + "' " + offset + " 2>/dev/null").c_str(), "r");
    if (pipe == nullptr) return unknown;
    char line[512] = "";
    bool read = fgets(line, sizeof line, pipe) != nullptr;
    pclose(pipe);
    line[strcspn(line, "\n")] = 0;
    return read && line[0] != 0 && line[0] != '?' ? line : unknown;
}

}  // namespace emu
