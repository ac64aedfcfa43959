// Matrices as planes of bf16, and how a strip of one lies in shared memory.
//
// A plane is a whole matrix in bf16, row-major as the matrix in f32 is stored, each row filled up with zeros to whole chunks of 8 numbers
// (16 bytes), so that a chunk is inside a matrix or outside and any sizes will do. planes.cu makes them, and so do epilogues (gemm_finish.cuh).
//
// ---- Banks ----
//
// ldmatrix reads a matrix of 8 × 8 numbers as 8 rows of 16 bytes: 128 bytes, which are one cycle's worth if each of the
// 32 banks has 4 of them. A row of 32 numbers has 64 bytes, so that every second row begins at bank 0 again: eight
// rows at one chunk would fall into two groups of four banks, and take four cycles. Therefore a row's chunks change
// places, by an exclusive or with the row's number. It costs no memory, where idle numbers after each row would. Which group of
// banks (group g is banks 4g … 4g + 3) a chunk of a row of four chunks then lies in:
//
//                as in memory: 0  1  2  3        swizzled: 0  1  2  3   ← chunk
//        row 0                 0  1  2  3                  0  1  2  3
//        row 1                 4  5  6  7                  4  5  6  7
//        row 2                 0  1  2  3                  1  0  3  2
//        row 3                 4  5  6  7                  5  4  7  6
//        row 4                 0  1  2  3                  2  3  0  1
//        row 5                 4  5  6  7                  6  7  4  5
//        row 6                 0  1  2  3                  3  2  1  0
//        row 7                 4  5  6  7                  7  6  5  4
//
// Each column, which is what one matrix is read from, has all eight on the right, and twice four times the same on the
// left. A row of 128 numbers, 16 chunks, begins at bank 0 each time; the same function exchanges
// its chunks within groups of eight.
#pragma once
#include "params.cuh"

// Where chunk `chunk` of row `row` lies, counted in chunks, if a row has CHUNKS of them. In the 128 bytes of all banks
// there are eight chunks: several short rows or a part of a long one.
template <int CHUNKS>
__host__ __device__ constexpr int swizzle(int row, int chunk) {
    constexpr int EXCHANGED = CHUNKS < 8 ? CHUNKS : 8;
    return row * CHUNKS + (chunk ^ row / (8 / EXCHANGED) % EXCHANGED);
}

// Whether eight rows at one chunk always lie in eight groups of banks, and no two chunks of a row in one place. The pattern
// repeats every eight rows.
template <int CHUNKS>
__host__ __device__ constexpr bool is_free_of_conflicts() {
    for (int row = 0; row < 64; row += 8) {
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            u32 groups = 0;
            for (int i = 0; i < 8; ++i) groups |= 1u << swizzle<CHUNKS>(row + i, chunk) % 8;
            if (groups != 255) return false;
        }
        for (int i = row; i < row + 8; ++i) {
            u64 places = 0;
            for (int chunk = 0; chunk < CHUNKS; ++chunk) places |= 1ull << (swizzle<CHUNKS>(i, chunk) - i * CHUNKS);
            if (places != (1ull << CHUNKS) - 1) return false;
        }
    }
    return true;
}
static_assert(is_free_of_conflicts<4>() && is_free_of_conflicts<16>() && is_free_of_conflicts<32>(), "two rows at one bank");
