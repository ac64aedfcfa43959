// Steps that move elements: copies between views, transposition, broadcasting along inner axes, rows and elements by index.
// Twin of src/engine/steps/layout.rs.
//
// Launch:
//   threads = 256
//   copy, pad, broadcast, gather, pick, place: grid = max(⌈out.rows · ⌈out.cols / 4⌉ / 256⌉, 1), shared = 0; a thread per
//   quad of out
//   transpose: grid = max(⌈out.rows / 32⌉ · ⌈out.cols / 32⌉, 1), shared = 32 · 33 · 4 bytes; a block per tile of out
//   scatter:   grid = max(out.rows, 1) · max(⌈out.cols / 256⌉, 1), shared = 32 bytes; a block per 256 columns of a row
#include "params.cuh"
#include "ptx.cuh"
#include "quad.cuh"

// The number in index[r] if it is one of `n` rows or columns, and otherwise −1 and a sign to the host.
__device__ __forceinline__ int index_at(const MoveParams& p, int r, int n) {
    const float value = p.index[r];
    const bool good = value >= 0.0f && value < static_cast<float>(n) && truncf(value) == value;
    if (!good && atomicCAS(&p.ctl->bad_lookup, 0u, p.lookup) == 0u) {
        p.ctl->bad_row = static_cast<u32>(r);
        p.ctl->bad_index = value;
    }
    return good ? static_cast<int>(value) : -1;
}

// Columns col … col + n − 1 of x behind p.start columns of zeros, with zeros to the right.
__device__ __forceinline__ float4 padded(const MoveParams& p, int row, int col, int n) {
    const float* x = element(p.x.ptr, p.x.stride, row, 0);
    const int from = col - p.start;
    if (from >= 0 && from + n <= p.x.cols) return load_quad(x + from, n);
    const auto at = [&](int c) { return c >= 0 && c < p.x.cols ? x[c] : 0.0f; };
    return make_float4(at(from), at(from + 1), at(from + 2), at(from + 3));
}

// The row is the flat index of all axes but the last; x is contiguous, and its stride along the last axis 1 or 0.
__device__ __forceinline__ float4 broadcast(const MoveParams& p, int row, int col, int n) {
    long long base = 0;
#pragma unroll
    for (int axis = MAX_RANK - 2; axis >= 0; axis--) {
        if (axis >= p.rank - 1) continue;
        base += static_cast<long long>(row % p.to[axis]) * p.strides[axis];
        row /= p.to[axis];
    }
    const bool repeated = p.rank == 0 || p.strides[p.rank - 1] == 0;
    return repeated ? splat(p.x.ptr[base]) : load_quad(p.x.ptr + base + col, n);
}

__device__ __forceinline__ float4 gathered(const MoveParams& p, int row, int col, int n) {
    const int i = index_at(p, row, p.x.rows);
    return i < 0 ? splat(0.0f) : load_quad(element(p.x.ptr, p.x.stride, i, col), n);
}

// One element of the row; out is a column.
__device__ __forceinline__ float4 picked(const MoveParams& p, int row) {
    const int i = index_at(p, row, p.x.cols);
    return splat(i < 0 ? 0.0f : *element(p.x.ptr, p.x.stride, row, i));
}

// Zeros but for the row's number; x is a column. An index of −1 is none of the quad's.
__device__ __forceinline__ float4 placed(const MoveParams& p, int row, int col) {
    const int i = index_at(p, row, p.out.cols) - col;
    const float v = *element(p.x.ptr, p.x.stride, row, 0);
    return make_float4(i == 0 ? v : 0.0f, i == 1 ? v : 0.0f, i == 2 ? v : 0.0f, i == 3 ? v : 0.0f);
}

__device__ __forceinline__ void move_quad(const MoveParams& p) {
    const u32 across = (static_cast<u32>(p.out.cols) + 3) / 4;
    const u64 quad = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (quad >= static_cast<u64>(p.out.rows) * across) return;
    const int row = static_cast<int>(quad / across), col = static_cast<int>(quad % across) * 4;
    const int n = lanes_from(col, p.out.cols);
    float4 v;
    switch (p.kind) {
        case MOVE_COPY: v = load_quad(element(p.x.ptr, p.x.stride, row, col), n); break;
        case MOVE_PAD: v = padded(p, row, col, n); break;
        case MOVE_BROADCAST: v = broadcast(p, row, col, n); break;
        case MOVE_PICK: v = picked(p, row); break;
        case MOVE_PLACE: v = placed(p, row, col); break;
        default: v = gathered(p, row, col, n); break;
    }
    store_quad(element(p.out.ptr, p.out.stride, row, col), v, n);
}

// Through a tile in shared memory, so that reads and writes both run along rows. 33 columns put the elements of a
// tile's column into different banks.
__device__ __forceinline__ void transpose(const MoveParams& p, float* tile) {
    const int across = (p.out.cols + 31) / 32;
    if (across == 0) return;
    const int row = blockIdx.x / across * 32, col = blockIdx.x % across * 32;  // of out
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32;
    for (int k = first; k < 32; k += 8) {
        if (col + k < p.out.cols && row + lane < p.out.rows) {
            tile[k * 33 + lane] = *element(p.x.ptr, p.x.stride, col + k, row + lane);
        }
    }
    __syncthreads();
    for (int k = first; k < 32; k += 8) {
        if (row + k < p.out.rows && col + lane < p.out.cols) {
            *element(p.out.ptr, p.out.stride, row + k, col + lane) = tile[lane * 33 + k];
        }
    }
}

// out[i, :] = Σ x[r, :] over the rows r with index[r] = i, in the order of r. The block looks through 256 indices at a
// time, leaves a bit for each that names its row, and every thread adds those rows in its column.
__device__ __forceinline__ void scatter(const MoveParams& p, u32* found) {
    const u32 chunks = p.out.cols > 256 ? (p.out.cols + 255) / 256 : 1;
    const int row = static_cast<int>(blockIdx.x / chunks);
    const int col = static_cast<int>(blockIdx.x % chunks * 256 + threadIdx.x);
    const bool inside = row < p.out.rows && col < p.out.cols;
    float sum = 0.0f;
    for (int first = 0; first < p.x.rows; first += 256) {
        const int r = first + static_cast<int>(threadIdx.x);
        const bool mine = r < p.x.rows && index_at(p, r, p.out.rows) == row;
        const u32 votes = __ballot_sync(~0u, mine);
        __syncthreads();  // the last round's bits have been read
        if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = votes;
        __syncthreads();
        if (!inside) continue;
        for (int warp = 0; warp < 8; warp++) {
            for (u32 left = found[warp]; left != 0; left &= left - 1) {
                const int source = first + warp * 32 + __ffs(static_cast<int>(left)) - 1;
                sum += *element(p.x.ptr, p.x.stride, source, col);
            }
        }
    }
    if (inside) *element(p.out.ptr, p.out.stride, row, col) = sum;
}

ELBO_KERNEL(move_elements, 256, MoveParams) {
    ELBO_SHARED(float, shared);
    begin_launch();
    switch (p.kind) {
        case MOVE_TRANSPOSE: transpose(p, shared); break;
        case MOVE_SCATTER: scatter(p, reinterpret_cast<u32*>(shared)); break;
        default: move_quad(p); break;
    }
}
