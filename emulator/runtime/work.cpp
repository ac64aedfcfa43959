// Pending work, events, captures.
#include "work.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver.h"
#include "memory.h"
#include "schedule.h"

namespace emu {

namespace {

// More pending nodes than this are run: a GPU does not wait for ever either.
constexpr size_t MANY = 256;

Work pending;
uint64_t waited = 0;      // how often the host waited
uint64_t generation = 1;  // counts how often `pending` was emptied
CUresult sticky = CUDA_SUCCESS;
std::vector<Capture*> captures;

CUresult code_of(Outcome outcome) {
    switch (outcome) {
        case Outcome::DONE: return CUDA_SUCCESS;
        case Outcome::INVALID: return CUDA_ERROR_INVALID_VALUE;
        case Outcome::FAILED: return CUDA_ERROR_LAUNCH_FAILED;
        case Outcome::ILLEGAL_ADDRESS: return CUDA_ERROR_ILLEGAL_ADDRESS;
        case Outcome::MISALIGNED: return CUDA_ERROR_MISALIGNED_ADDRESS;
    }
    return CUDA_ERROR_LAUNCH_FAILED;
}

CUresult run_in_order(const Work& work, std::vector<bool> wanted);

// `number` becomes that of the launch, if it is one; `unfinished` are those of launches that may still run when it begins.
CUresult run_node(const Node& node, std::vector<uint32_t> unfinished, uint32_t& number) {
    switch (node.kind) {
        case Node::KERNEL: {
            Launch launch{node.kernel, node.grid, node.block, node.shared_bytes, node.params.data(), node.ahead, {}};
            launch.unfinished = std::move(unfinished);
            return code_of(run(launch, &number));
        }
        case Node::COPY:
            memcpy(node.to, node.staged.empty() ? node.from : node.staged.data(), node.bytes);
            return CUDA_SUCCESS;
        case Node::FILL:
            for (size_t i = 0; i < node.bytes; i += node.width) memcpy(node.to + i, &node.value, node.width);
            return CUDA_SUCCESS;
        case Node::RECORD:
            if (node.event == nullptr) return CUDA_SUCCESS;
            node.event->time = std::chrono::steady_clock::now();
            node.event->finished = true;
            return CUDA_SUCCESS;
        case Node::GRAPH: return run_in_order(*node.graph, std::vector<bool>(node.graph->nodes.size(), true));
    }
    return CUDA_SUCCESS;
}

// Runs the wanted nodes, each when all that it comes after has run; which of several, the schedule says.
CUresult run_in_order(const Work& work, std::vector<bool> wanted) {
    size_t count = work.nodes.size();
    std::vector<bool> done(count);
    std::vector<size_t> ready;
    for (size_t i = 0; i < count; ++i) done[i] = work.nodes[i].done;
    auto can_run = [&](size_t i) {
        const auto& after = work.nodes[i].after;
        return wanted[i] && std::all_of(after.begin(), after.end(), [&](size_t j) { return done[j]; });
    };
    for (size_t i = 0; i < count; ++i) {
        if (done[i]) wanted[i] = false;
    }
    // The numbers of launches, 0 of those that have not run here. One that is set up ahead may begin when all that it comes after
    // have waited; until then only what these came after is over.
    std::vector<uint32_t> numbers(count);
    auto unfinished = [&](const Node& node) {
        std::vector<uint32_t> numbers_of;
        if (!node.ahead) return numbers_of;
        std::vector<size_t> over;
        for (size_t before : node.after) merge(over, work.nodes[before].after);
        std::vector<bool> is_over = work.closure(over);
        for (size_t i = 0; i < count; ++i) {
            if (numbers[i] != 0 && !is_over[i]) numbers_of.push_back(numbers[i]);
        }
        return numbers_of;
    };
    for (;;) {
        ready.clear();
        for (size_t i = 0; i < count; ++i) {
            if (can_run(i)) ready.push_back(i);
        }
        if (ready.empty()) return CUDA_SUCCESS;
        size_t next = ready[schedule().pick(ready.size())];
        CUresult result = run_node(work.nodes[next], unfinished(work.nodes[next]), numbers[next]);
        if (result != CUDA_SUCCESS) return result;
        wanted[next] = false;
        done[next] = true;
    }
}

// Runs what is wanted of the pending work; on a failure the rest is lost, as on a GPU.
CUresult run_pending(std::vector<bool> wanted) {
    if (sticky == CUDA_SUCCESS) sticky = run_in_order(pending, wanted);
    bool all_done = true;
    for (size_t i = 0; i < pending.nodes.size(); ++i) {
        if (wanted[i] || sticky != CUDA_SUCCESS) pending.nodes[i].done = true;
        all_done = all_done && pending.nodes[i].done;
    }
    if (all_done) {
        pending.nodes.clear();
        ++generation;
        for (Stream* stream : streams().live) stream->last.clear();
    }
    return sticky;
}

CUresult progress_all() { return run_pending(std::vector<bool>(pending.nodes.size(), true)); }

// No stream or event belongs to it any more.
void end(Capture* capture) {
    for (Stream* stream : streams().live) {
        if (stream->capture != capture) continue;
        stream->capture = nullptr;
        stream->captured_last.clear();
    }
    for (Event* event : events().live) {
        if (event->capture == capture) event->capture = nullptr;
    }
    captures.erase(std::find(captures.begin(), captures.end(), capture));
    delete capture;
}

CUresult spoil(Capture* capture, CUresult with) {
    capture->invalid = true;
    return with;
}

}  // namespace

size_t Work::add(Node node) {
    nodes.push_back(std::move(node));
    return nodes.size() - 1;
}

std::vector<bool> Work::closure(const std::vector<size_t>& roots) const {
    std::vector<bool> in(nodes.size());
    for (size_t root : roots) in[root] = true;
    for (size_t i = nodes.size(); i-- > 0;) {
        if (!in[i]) continue;
        for (size_t before : nodes[i].after) in[before] = true;
    }
    return in;
}

void merge(std::vector<size_t>& into, const std::vector<size_t>& more) {
    for (size_t node : more) {
        if (std::find(into.begin(), into.end(), node) == into.end()) into.push_back(node);
    }
}

CUresult enqueue(Stream* stream, Node node) {
    if (stream == nullptr) {
        CUresult refused = refuse_implicit();
        if (refused != CUDA_SUCCESS) return refused;
        // It comes after everything that was enqueued before; its own failure shows at the next call.
        CUresult earlier = finish_all();
        if (earlier != CUDA_SUCCESS) return earlier;
        pending.add(std::move(node));
        finish_all();
        return CUDA_SUCCESS;
    }
    if (stream->capture != nullptr) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        node.after = stream->captured_last;
        stream->captured_last = {stream->capture->work.add(std::move(node))};
        return CUDA_SUCCESS;
    }
    node.after = stream->last;
    stream->last = {pending.add(std::move(node))};
    if (pending.nodes.size() > MANY) progress_all();
    return CUDA_SUCCESS;
}

CUresult progress(const std::vector<size_t>& nodes) { return run_pending(pending.closure(nodes)); }

CUresult finish(const std::vector<size_t>& nodes) {
    ++waited;
    return progress(nodes);
}

CUresult finish_all() {
    ++waited;
    return progress_all();
}

uint64_t waits() { return waited; }

bool is_pending(const std::vector<size_t>& nodes) {
    return std::any_of(nodes.begin(), nodes.end(), [](size_t i) { return !pending.nodes[i].done; });
}

bool ask(const std::vector<size_t>& nodes) {
    bool before = true;
    for (size_t i : nodes) {
        before = before && pending.nodes[i].asked;
        pending.nodes[i].asked = true;
    }
    return before;
}

std::vector<size_t> nodes_of(const Event& event) {
    return event.generation == generation ? event.after : std::vector<size_t>();
}

// ---- events ----

CUresult record(Event* event, Stream* stream) {
    if (stream != nullptr && stream->capture != nullptr) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event->in_capture = true;
        event->capture = stream->capture;
        event->after = stream->captured_last;
        return CUDA_SUCCESS;
    }
    event->in_capture = false;
    event->recorded = true;
    event->finished = false;
    Node node(Node::RECORD);
    node.event = event;
    CUresult result = enqueue(stream, std::move(node));
    event->generation = generation;
    event->after = stream != nullptr ? stream->last : std::vector<size_t>();
    return result;
}

void forget(const Event* event) {
    for (Node& node : pending.nodes) {
        if (node.event == event) node.event = nullptr;
    }
}

CUresult wait(Stream* stream, Event* event) {
    Capture* of_stream = stream != nullptr ? stream->capture : nullptr;
    if (event->in_capture) {
        if (event->capture == nullptr || stream == nullptr) return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        if (event->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        if (of_stream != nullptr && of_stream != event->capture) {
            spoil(of_stream, CUDA_SUCCESS);
            return spoil(event->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
        }
        stream->capture = event->capture;
        merge(stream->captured_last, event->after);
        return CUDA_SUCCESS;
    }
    if (of_stream != nullptr) {
        return event->recorded ? spoil(of_stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION) : CUDA_SUCCESS;
    }
    if (stream != nullptr) merge(stream->last, nodes_of(*event));
    return CUDA_SUCCESS;
}

// ---- capture ----

CUresult begin_capture(Stream* stream, CUstreamCaptureMode mode) {
    if (stream == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    auto capture = new Capture;
    capture->origin = stream;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    stream->capture = capture;
    stream->captured_last.clear();
    captures.push_back(capture);
    return CUDA_SUCCESS;
}

CUresult end_capture(Stream* stream, Graph** graph) {
    *graph = nullptr;
    Capture* capture = stream != nullptr ? stream->capture : nullptr;
    if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->origin != stream) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    if (capture->mode != CAPTURE_RELAXED && capture->thread != std::this_thread::get_id()) {
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    // Everything must lead to the stream that the capture began in.
    std::vector<bool> joined = capture->work.closure(stream->captured_last);
    bool all = std::all_of(joined.begin(), joined.end(), [](bool is) { return is; });
    CUresult result = capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                      : !all           ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                                       : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        *graph = graphs().make();
        (*graph)->work = std::make_shared<Work>(std::move(capture->work));
    }
    end(capture);
    return result;
}

void abandon_capture(Stream* stream) {
    if (stream->capture == nullptr) return;
    stream->capture->invalid = true;
    if (stream->capture->origin == stream) end(stream->capture);
}

CUresult refuse_while_capturing() {
    CUresult result = CUDA_SUCCESS;
    for (Capture* capture : captures) {
        bool mine = capture->thread == std::this_thread::get_id();
        if (capture->mode == CAPTURE_GLOBAL || (capture->mode == CAPTURE_THREAD_LOCAL && mine)) {
            result = spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    }
    return result;
}

CUresult refuse_on_capturing(Stream* stream) {
    if (stream == nullptr) return refuse_implicit();
    if (stream->capture == nullptr) return CUDA_SUCCESS;
    return spoil(stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

CUresult refuse_implicit() {
    CUresult result = CUDA_SUCCESS;
    for (Capture* capture : captures) {
        if (!capture->origin->non_blocking) result = spoil(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    return result;
}

// ---- the device ----

CUresult sticky_error() { return sticky; }

void reset_device() {
    pending.nodes.clear();
    ++generation;
    for (Stream* stream : streams().live) stream->last.clear();
    sticky = CUDA_SUCCESS;
}

}  // namespace emu
