// Ends the process, with a report, when a thread of a kernel runs for a minute without ever waiting or ending: it spins
// on something that cannot come, because nobody else runs meanwhile. ELBO_EMU_TIMEOUT sets other seconds, 0 none.
#pragma once

namespace emu::watchdog {

// Called around a launch, by the thread that runs it.
void start();
void stop();

// Called whenever another thread of the kernel goes on.
extern volatile unsigned long progress;

}  // namespace emu::watchdog
