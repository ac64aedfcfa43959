// What streams and graphs are made of: nodes of work, and which node must come after which.
//
// A graph, captured or made node by node, is a list of nodes with dependencies. So is the work that streams have been given and that has not
// run yet: a call that enqueues work only adds a node, and nothing runs before something waits for it. Then what is
// needed runs, in an order that keeps to the dependencies and is otherwise the schedule's choice. A missing
// dependency, or a host that reads before it has waited, therefore shows.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cuda.h"
#include "launch.h"

namespace emu {

struct Work;

struct Node {
    enum Kind { KERNEL, COPY, FILL, RECORD, GRAPH } kind;
    explicit Node(Kind kind) : kind(kind) {}

    std::vector<size_t> after;  // numbers of earlier nodes of the same list
    bool done = false;
    bool asked = false;         // somebody asked before whether it is done

    // KERNEL: everything is copied when the node is made, the parameters' bytes as well.
    const Kernel* kernel = nullptr;
    dim3 grid, block;
    unsigned shared_bytes = 0;
    std::vector<unsigned char> params;
    int priority = 0;  // no promise: a node of any priority may run first
    bool ahead = false;  // may begin before a node that it comes after is over

    // COPY: `staged` holds the bytes where the source was pageable memory of the host.
    unsigned char* to = nullptr;
    const unsigned char* from = nullptr;
    size_t bytes = 0;
    std::vector<unsigned char> staged;

    // FILL: `bytes` bytes of elements of `width` bytes.
    uint32_t value = 0;
    unsigned width = 1;

    Event* event = nullptr;             // RECORD
    std::shared_ptr<const Work> graph;  // GRAPH
};

struct Work {
    std::deque<Node> nodes;  // nodes of graphs are handles, and stay where they are

    size_t add(Node node);
    // The numbers of `roots` and of everything that they come after.
    std::vector<bool> closure(const std::vector<size_t>& roots) const;
};

struct Capture {
    Work work;
    Stream* origin;
    CUstreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
};

struct Stream {
    bool non_blocking = false;
    int priority = 0;
    std::vector<size_t> last;  // its newest nodes among the pending work
    Capture* capture = nullptr;
    std::vector<size_t> captured_last;  // its newest nodes in the capture
};

struct Event {
    bool timing = true;
    bool recorded = false;  // at all
    bool finished = false;  // the last record has run, at this time:
    std::chrono::steady_clock::time_point time;
    uint64_t generation = 0;    // of the pending work that `after` counts in
    std::vector<size_t> after;  // what it stands for
    bool in_capture = false;    // the last record was in a capture:
    Capture* capture = nullptr; // this one, null when that has ended
};

struct Graph {
    std::shared_ptr<Work> work;
};

struct Exec {
    std::shared_ptr<const Work> work;
};

// Adds a node to the stream's capture or to the pending work. On the null stream it runs at once, after everything.
CUresult enqueue(Stream* stream, Node node);

// Runs pending work until these nodes, or everything, are done, because the host waits for it. Gives back the sticky
// error of the device.
CUresult finish(const std::vector<size_t>& nodes);
CUresult finish_all();
// The same without anybody waiting: the device got that far by itself.
CUresult progress(const std::vector<size_t>& nodes);
// How often the host has waited.
uint64_t waits();
bool is_pending(const std::vector<size_t>& nodes);
// Whether it was asked before if these nodes are done. From here on it was.
bool ask(const std::vector<size_t>& nodes);

// The nodes that an event stands for, none when they have run.
std::vector<size_t> nodes_of(const Event& event);

// The event goes away; pending records of it are without effect.
void forget(const Event* event);

// Merges the numbers of `more` into `into`.
void merge(std::vector<size_t>& into, const std::vector<size_t>& more);

CUresult record(Event* event, Stream* stream);
CUresult wait(Stream* stream, Event* event);
CUresult begin_capture(Stream* stream, CUstreamCaptureMode mode);
CUresult end_capture(Stream* stream, Graph** graph);
// Gives up the stream's capture, if it has one, because the stream goes away.
void abandon_capture(Stream* stream);

// An operation that no capture may contain (allocation, waiting): spoils the captures that forbid it.
CUresult refuse_while_capturing();
CUresult refuse_on_capturing(Stream* stream);
// One that uses the null stream.
CUresult refuse_implicit();

// Once a kernel has failed, every call fails with the same error until the context is reset.
CUresult sticky_error();
void reset_device();

}  // namespace emu
