// The part of NCCL that the project calls, for processes that each have an emulated device: libnccl.so.2 beside libcuda.so.
//
// Numbers travel as files in a folder of the group, which the first rank's id names: a message is written under another name and
// renamed, read by whom it is for, and removed. A call does its work at once, after everything on its stream, and so is ordered
// as on a GPU; who forgets to give the stream reads what was there before. A rank that waits for one that has died gives up.
//
// ELBO_EMU_NCCL=duplicate: joining a group fails, as it does on one machine where two ranks have the same GPU.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda.h"

extern "C" {
CUresult cuStreamSynchronize(CUstream);
CUresult cuMemcpyDtoH_v2(void*, CUdeviceptr, size_t);
CUresult cuMemcpyHtoD_v2(CUdeviceptr, const void*, size_t);
}

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Answer { SUCCESS = 0, UNHANDLED_CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

constexpr int FLOAT32 = 7;
constexpr auto PATIENCE = std::chrono::seconds(60);

struct Id {
    char folder[128];
};

struct Message {
    bool send;
    CUdeviceptr at;
    size_t bytes;
    int peer;
    struct Comm* comm;
    CUstream stream;
};

struct Comm {
    std::string folder;
    int rank, ranks;
    unsigned calls = 0;  // the same on all ranks, who call in the same order

    std::string file(unsigned call, int from, int to) const {
        return folder + "/" + std::to_string(call) + "." + std::to_string(from) + "." + std::to_string(to);
    }
};

thread_local bool in_group = false;
thread_local std::vector<Message> pending;

Answer write(const Comm& comm, unsigned call, int to, CUdeviceptr from, size_t bytes) {
    std::vector<char> numbers(bytes);
    if (cuMemcpyDtoH_v2(numbers.data(), from, bytes) != CUDA_SUCCESS) return UNHANDLED_CUDA_ERROR;
    const std::string name = comm.file(call, comm.rank, to), fresh = name + ".new";
    FILE* file = fopen(fresh.c_str(), "wb");
    if (file == nullptr) return SYSTEM_ERROR;
    const bool whole = fwrite(numbers.data(), 1, bytes, file) == bytes;
    return fclose(file) == 0 && whole && rename(fresh.c_str(), name.c_str()) == 0 ? SUCCESS : SYSTEM_ERROR;
}

Answer read(const Comm& comm, unsigned call, int from, CUdeviceptr to, size_t bytes) {
    const std::string name = comm.file(call, from, comm.rank);
    const auto deadline = std::chrono::steady_clock::now() + PATIENCE;
    FILE* file = nullptr;
    while ((file = fopen(name.c_str(), "rb")) == nullptr) {
        if (std::chrono::steady_clock::now() > deadline) return SYSTEM_ERROR;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    std::vector<char> numbers(bytes);
    const bool whole = fread(numbers.data(), 1, bytes, file) == bytes && fgetc(file) == EOF;
    fclose(file);
    remove(name.c_str());
    if (!whole) return INVALID_ARGUMENT;
    return cuMemcpyHtoD_v2(to, numbers.data(), bytes) == CUDA_SUCCESS ? SUCCESS : UNHANDLED_CUDA_ERROR;
}

// All that one rank sends and receives in one group of calls.
Answer deliver(const std::vector<Message>& messages) {
    if (messages.empty()) return SUCCESS;
    Comm& comm = *messages[0].comm;
    const unsigned call = comm.calls++;
    for (const bool send : {true, false}) {
        for (const Message& message : messages) {
            if (message.send != send) continue;
            if (send && cuStreamSynchronize(message.stream) != CUDA_SUCCESS) return UNHANDLED_CUDA_ERROR;
            const Answer answer = send ? write(comm, call, message.peer, message.at, message.bytes)
                                       : read(comm, call, message.peer, message.at, message.bytes);
            if (answer != SUCCESS) return answer;
        }
    }
    return SUCCESS;
}

Answer post(bool send, CUdeviceptr at, size_t count, int type, int peer, Comm* comm, CUstream stream) {
    if (type != FLOAT32 || peer < 0 || peer >= comm->ranks) return INVALID_ARGUMENT;
    if (!in_group) return INVALID_USAGE;  // alone it would wait for a peer that waits for this one
    pending.push_back({send, at, 4 * count, peer, comm, stream});
    return SUCCESS;
}

}  // namespace

API const char* ncclGetErrorString(int answer) {
    switch (answer) {
        case SUCCESS: return "no error";
        case UNHANDLED_CUDA_ERROR: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
        case SYSTEM_ERROR: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
        case INVALID_ARGUMENT: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
        case INVALID_USAGE: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
        default: return "unknown result code";
    }
}

API int ncclGetUniqueId(Id* id) {
    const char* temporary = getenv("TMPDIR");
    memset(id->folder, 0, sizeof id->folder);
    const int length = snprintf(id->folder, sizeof id->folder, "%s/elbo-nccl-XXXXXX", temporary ? temporary : "/tmp");
    if (length >= static_cast<int>(sizeof id->folder)) return SYSTEM_ERROR;
    return mkdtemp(id->folder) == nullptr ? SYSTEM_ERROR : SUCCESS;
}

API int ncclCommInitRank(Comm** comm, int ranks, Id id, int rank) {
    const char* wanted = getenv("ELBO_EMU_NCCL");
    if (wanted != nullptr && strcmp(wanted, "duplicate") == 0) return INVALID_USAGE;
    if (rank < 0 || rank >= ranks) return INVALID_ARGUMENT;
    *comm = new Comm{id.folder, rank, ranks};
    // All wait for each other, as they do on GPUs.
    FILE* here = fopen(((*comm)->folder + "/joined." + std::to_string(rank)).c_str(), "wb");
    if (here == nullptr || fclose(here) != 0) return SYSTEM_ERROR;
    const auto deadline = std::chrono::steady_clock::now() + PATIENCE;
    for (int other = 0; other < ranks; other++) {
        while (access(((*comm)->folder + "/joined." + std::to_string(other)).c_str(), F_OK) != 0) {
            if (std::chrono::steady_clock::now() > deadline) return SYSTEM_ERROR;
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
    }
    return SUCCESS;
}

API int ncclGroupStart() {
    if (in_group) return INVALID_USAGE;
    in_group = true;
    return SUCCESS;
}

API int ncclGroupEnd() {
    if (!in_group) return INVALID_USAGE;
    in_group = false;
    std::vector<Message> messages;
    messages.swap(pending);
    return deliver(messages);
}

API int ncclSend(const void* from, size_t count, int type, int peer, Comm* comm, CUstream stream) {
    return post(true, reinterpret_cast<CUdeviceptr>(from), count, type, peer, comm, stream);
}

API int ncclRecv(void* to, size_t count, int type, int peer, Comm* comm, CUstream stream) {
    return post(false, reinterpret_cast<CUdeviceptr>(to), count, type, peer, comm, stream);
}

API int ncclAllGather(const void* from, void* to, size_t count, int type, Comm* comm, CUstream stream) {
    if (type != FLOAT32) return INVALID_ARGUMENT;
    std::vector<Message> messages;
    for (int rank = 0; rank < comm->ranks; rank++) {
        const auto part = reinterpret_cast<CUdeviceptr>(to) + 4 * count * rank;
        messages.push_back({true, reinterpret_cast<CUdeviceptr>(from), 4 * count, rank, comm, stream});
        messages.push_back({false, part, 4 * count, rank, comm, stream});
    }
    return deliver(messages);
}
