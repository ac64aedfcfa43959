// An OS thread that looks every now and then whether the running kernel's threads still take turns.
#include "watchdog.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "block.h"
#include "launch.h"

namespace emu::watchdog {

volatile unsigned long progress;

namespace {

// Ignored by default, so a late one does no harm.
constexpr int ASK = SIGURG;

std::atomic<bool> running;
pthread_t runner;
std::atomic<uintptr_t> stuck_at;

void on_ask(int, siginfo_t*, void* context) { stuck_at = pc_of(context); }

[[noreturn]] void end_process(unsigned seconds) {
    stuck_at = 0;
    pthread_kill(runner, ASK);
    for (int i = 0; i < 100 && stuck_at == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    fprintf(stderr, "elbo-emulator: %s has run for %u s without waiting: an endless loop, in %s\n", where().c_str(),
            seconds, place_of(stuck_at).c_str());
    abort();
}

void watch(unsigned seconds) {
    unsigned long last = 0;
    unsigned quiet = 0;
    for (;;) {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        bool moved = !running || progress != last;
        quiet = moved ? 0 : quiet + 1;
        last = progress;
        if (quiet >= seconds) end_process(seconds);
    }
}

}  // namespace

void start() {
    static bool started = false;
    if (!started) {
        started = true;
        const char* text = getenv("ELBO_EMU_TIMEOUT");
        unsigned seconds = text != nullptr ? static_cast<unsigned>(atoi(text)) : 60;
        struct sigaction action = {};
        action.sa_sigaction = on_ask;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        sigaction(ASK, &action, nullptr);
        if (seconds > 0) std::thread(watch, seconds).detach();
    }
    runner = pthread_self();
    progress = progress + 1;
    running = true;
}

void stop() { running = false; }

}  // namespace emu::watchdog
