// The emulated driver: streams, events, capture, graphs.
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace emu {

namespace {

// Has what these nodes stand for run? The first answer is "not ready", as it may be on a GPU, and nothing has run then.
// Asking again makes it run, so that a loop that polls comes to an end.
CUresult query(const std::vector<size_t>& nodes) {
    if (!is_pending(nodes)) return sticky_error();
    return ask(nodes) ? progress(nodes) : CUDA_ERROR_NOT_READY;
}

// The node's number, or how many there are if it is none of them.
size_t number_of(const Node* node, const Work& work) {
    size_t number = 0;
    while (number < work.nodes.size() && &work.nodes[number] != node) ++number;
    return number;
}

CUgraphNodeType type_of(const Node& node) {
    return node.kind == Node::KERNEL ? NODE_KERNEL : node.kind == Node::COPY ? NODE_MEMCPY : NODE_MEMSET;
}

}  // namespace

}  // namespace emu

using namespace emu;

// ---- streams ----

API cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
    return with_context([&] {
        if (flags > STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
        *stream = streams().make();
        (*stream)->non_blocking = flags & STREAM_NON_BLOCKING;
        (*stream)->priority = priority;
        return CUDA_SUCCESS;
    });
}
API cuStreamCreate(CUstream* stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

// The stream's pending work is not lost.
API cuStreamDestroy_v2(CUstream stream) {
    return with_driver([&] {
        if (!streams().has(stream)) return CUDA_ERROR_INVALID_HANDLE;
        abandon_capture(stream);
        streams().drop(stream);
        return CUDA_SUCCESS;
    });
}

API cuStreamSynchronize(CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        CUresult refused = refuse_on_capturing(stream_or_null(stream));
        if (refused != CUDA_SUCCESS) return refused;
        return is_null_stream(stream) ? finish_all() : finish(stream->last);
    });
}

API cuStreamQuery(CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        CUresult refused = refuse_on_capturing(stream_or_null(stream));
        if (refused != CUDA_SUCCESS) return refused;
        return is_null_stream(stream) ? finish_all() : query(stream->last);
    });
}

API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    return with_context([&] {
        if (!is_stream(stream) || !events().has(event)) return CUDA_ERROR_INVALID_HANDLE;
        return flags == 0 ? wait(stream_or_null(stream), event) : CUDA_ERROR_NOT_SUPPORTED;
    });
}

// ---- events ----

API cuEventCreate(CUevent* event, unsigned flags) {
    return with_context([&] {
        *event = events().make();
        (*event)->timing = (flags & EVENT_DISABLE_TIMING) == 0;
        return CUDA_SUCCESS;
    });
}

API cuEventDestroy_v2(CUevent event) {
    return with_driver([&] {
        if (!events().has(event)) return CUDA_ERROR_INVALID_HANDLE;
        forget(event);
        events().drop(event);
        return CUDA_SUCCESS;
    });
}

API cuEventRecord(CUevent event, CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream) || !events().has(event)) return CUDA_ERROR_INVALID_HANDLE;
        return record(event, stream_or_null(stream));
    });
}

API cuEventSynchronize(CUevent event) {
    return with_context([&] {
        if (!events().has(event)) return CUDA_ERROR_INVALID_HANDLE;
        if (event->in_capture) return CUDA_ERROR_CAPTURED_EVENT;
        return finish(nodes_of(*event));
    });
}

API cuEventQuery(CUevent event) {
    return with_context([&] {
        if (!events().has(event)) return CUDA_ERROR_INVALID_HANDLE;
        if (event->in_capture) return CUDA_ERROR_CAPTURED_EVENT;
        return query(nodes_of(*event));
    });
}

// Wall-clock time of the emulation; it says nothing about a GPU.
API cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    return with_context([&] {
        if (!events().has(start) || !events().has(end)) return CUDA_ERROR_INVALID_HANDLE;
        for (CUevent event : {start, end}) {
            if (!event->timing || !event->recorded) return CUDA_ERROR_INVALID_HANDLE;
            if (!event->finished) return CUDA_ERROR_NOT_READY;
        }
        *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
        return CUDA_SUCCESS;
    });
}
API cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// ---- capture ----

API cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    return with_context([&] {
        return is_stream(stream) ? begin_capture(stream_or_null(stream), mode) : CUDA_ERROR_INVALID_HANDLE;
    });
}

API cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    return with_context([&] {
        *graph = nullptr;
        return is_stream(stream) ? end_capture(stream_or_null(stream), graph) : CUDA_ERROR_INVALID_HANDLE;
    });
}

API cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        Capture* capture = is_null_stream(stream) ? nullptr : stream->capture;
        *status = capture == nullptr ? CAPTURE_NONE : capture->invalid ? CAPTURE_INVALIDATED : CAPTURE_ACTIVE;
        return CUDA_SUCCESS;
    });
}

// ---- graphs ----

API cuGraphCreate(CUgraph* graph, unsigned flags) {
    return with_context([&] {
        if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
        *graph = graphs().make();
        (*graph)->work = std::make_shared<Work>();
        return CUDA_SUCCESS;
    });
}

API cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                            const CUDA_KERNEL_NODE_PARAMS* params) {
    return with_context([&] {
        if (!graphs().has(graph) || !functions().has(params->function)) return CUDA_ERROR_INVALID_HANDLE;
        if (params->kernel != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
        Node made(Node::KERNEL);
        CUresult result = kernel_node(made, params->function, dim3(params->grid_x, params->grid_y, params->grid_z),
                                      dim3(params->block_x, params->block_y, params->block_z), params->shared_bytes,
                                      params->params, params->extra);
        if (result != CUDA_SUCCESS) return result;
        for (size_t i = 0; i < count; ++i) {
            size_t number = number_of(after[i], *graph->work);
            // A node of another graph, or one named twice.
            if (number == graph->work->nodes.size()) return CUDA_ERROR_INVALID_VALUE;
            if (std::count(made.after.begin(), made.after.end(), number) != 0) return CUDA_ERROR_INVALID_VALUE;
            made.after.push_back(number);
        }
        *node = &graph->work->nodes[graph->work->add(std::move(made))];
        return CUDA_SUCCESS;
    });
}

// An edge of which a kernel need not be over for the next to begin: that waits itself (begin_launch in kernels/ptx.cuh).
API cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode* from, const CUgraphNode* to, const CUgraphEdgeData* edges,
                              size_t count) {
    return with_context([&] {
        const char* ahead_allowed = getenv("ELBO_EMU_AHEAD");
        if (ahead_allowed != nullptr && strcmp(ahead_allowed, "refuse") == 0) return CUDA_ERROR_NOT_SUPPORTED;
        if (!graphs().has(graph)) return CUDA_ERROR_INVALID_HANDLE;
        Work& work = *graph->work;
        for (size_t i = 0; i < count; ++i) {
            size_t before = number_of(from[i], work), after = number_of(to[i], work);
            if (before >= after || after == work.nodes.size()) return CUDA_ERROR_INVALID_VALUE;
            Node& node = work.nodes[after];
            if (std::count(node.after.begin(), node.after.end(), before) != 0) return CUDA_ERROR_INVALID_VALUE;
            CUgraphEdgeData edge = edges == nullptr ? CUgraphEdgeData{} : edges[i];
            bool ahead = edge.type == DEPENDENCY_PROGRAMMATIC;
            bool kernels = work.nodes[before].kind == Node::KERNEL && node.kind == Node::KERNEL;
            // The other ports are of an edge that does not wait for memory.
            if (ahead ? edge.from_port != PORT_PROGRAMMATIC || !kernels : edge.type != 0 || edge.from_port != 0) {
                return CUDA_ERROR_INVALID_VALUE;
            }
            if (ahead && compute_capability() < 90) return CUDA_ERROR_NOT_SUPPORTED;
            node.after.push_back(before);
            node.ahead = node.ahead || ahead;
        }
        return CUDA_SUCCESS;
    });
}

API cuGraphKernelNodeSetAttribute(CUgraphNode node, int attribute, const CUlaunchAttributeValue* value) {
    return with_context([&] {
        if (attribute != ATTRIBUTE_PRIORITY) return CUDA_ERROR_NOT_SUPPORTED;
        if (value->priority > LEAST_PRIORITY || value->priority < GREATEST_PRIORITY) return CUDA_ERROR_INVALID_VALUE;
        for (CUgraph graph : graphs().live) {
            size_t number = number_of(node, *graph->work);
            if (number == graph->work->nodes.size()) continue;
            graph->work->nodes[number].priority = value->priority;
            return CUDA_SUCCESS;
        }
        return CUDA_ERROR_INVALID_HANDLE;
    });
}

API cuGraphDestroy(CUgraph graph) {
    return with_driver([&] {
        if (!graphs().has(graph)) return CUDA_ERROR_INVALID_HANDLE;
        graphs().drop(graph);
        return CUDA_SUCCESS;
    });
}

API cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
    return with_context([&] {
        if (!graphs().has(graph)) return CUDA_ERROR_INVALID_HANDLE;
        auto& all = graph->work->nodes;
        if (nodes == nullptr) {
            *count = all.size();
            return CUDA_SUCCESS;
        }
        for (size_t i = 0; i < *count; ++i) nodes[i] = i < all.size() ? &all[i] : nullptr;
        *count = std::min(*count, all.size());
        return CUDA_SUCCESS;
    });
}

API cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
    return with_context([&] {
        for (CUgraph graph : graphs().live) {
            for (auto& other : graph->work->nodes) {
                if (&other != node) continue;
                *type = type_of(other);
                return CUDA_SUCCESS;
            }
        }
        return CUDA_ERROR_INVALID_HANDLE;
    });
}

API cuGraphGetEdges(CUgraph graph, CUgraphNode* from, CUgraphNode* to, size_t* count) {
    return with_context([&] {
        if (!graphs().has(graph)) return CUDA_ERROR_INVALID_HANDLE;
        auto& all = graph->work->nodes;
        size_t edges = 0;
        for (auto& node : all) {
            for (size_t before : node.after) {
                if (from != nullptr && to != nullptr && edges < *count) {
                    from[edges] = &all[before];
                    to[edges] = &node;
                }
                ++edges;
            }
        }
        *count = from == nullptr || to == nullptr ? edges : std::min(*count, edges);
        return CUDA_SUCCESS;
    });
}

API cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long) {
    return with_context([&] {
        if (!graphs().has(graph)) return CUDA_ERROR_INVALID_HANDLE;
        *exec = execs().make();
        // What is added to the graph later is not in it.
        (*exec)->work = std::make_shared<Work>(*graph->work);
        return CUDA_SUCCESS;
    });
}

API cuGraphExecDestroy(CUgraphExec exec) {
    return with_driver([&] {
        if (!execs().has(exec)) return CUDA_ERROR_INVALID_HANDLE;
        execs().drop(exec);
        return CUDA_SUCCESS;
    });
}

API cuGraphUpload(CUgraphExec exec, CUstream stream) {
    return with_context([&] {
        if (!execs().has(exec) || !is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        return refuse_on_capturing(stream_or_null(stream));
    });
}

API cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    return with_context([&] {
        if (!execs().has(exec) || !is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        // A graph inside a captured graph: not something that this project does.
        CUresult refused = refuse_on_capturing(stream_or_null(stream));
        if (refused != CUDA_SUCCESS) return refused;
        Node node(Node::GRAPH);
        node.graph = exec->work;
        return enqueue(stream_or_null(stream), std::move(node));
    });
}
