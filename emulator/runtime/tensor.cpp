// ldmatrix and mma.sync: the 32 lanes bring their fragments, one of them computes for all.
//
// The tensor cores multiply exactly and add with truncation. The sum is formed here in f64 and then rounded toward
// zero, once per instruction: an error of the same kind and direction as the hardware's, not the same bits.
#include "emu_ptx.cuh"

namespace emu {

namespace {

float toward_zero(double a) {
    float out = static_cast<float>(a);
    // Rounded away from zero: the neighbour with the next smaller bits. It is not zero, so there is one.
    if (fabs(static_cast<double>(out)) > fabs(a)) out = __uint_as_float(__float_as_uint(out) - 1);
    return out;
}

float f16_to_float(u16 a) {
    u32 sign = u32(a & 0x8000) << 16, exponent = a >> 10 & 31, mantissa = a & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float small = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -small : small;
}

struct Matrices {
    u32* r;
    int count;
    bool transposed;
    const u16* row;

    static void complete(void* const lanes[32], u32) {
        auto lane = [&](int i) { return static_cast<Matrices*>(lanes[i]); };
        int count = lane(0)->count;
        bool transposed = lane(0)->transposed;
        for (int tile = 0; tile < count; ++tile) {
            u16 m[8][8];
            for (int row = 0; row < 8; ++row) memcpy(m[row], lane(8 * tile + row)->row, sizeof m[row]);
            for (int l = 0; l < 32; ++l) {
                int i = l / 4, j = 2 * (l % 4);
                u16 low = transposed ? m[j][i] : m[i][j], high = transposed ? m[j + 1][i] : m[i][j + 1];
                lane(l)->r[tile] = low | u32(high) << 16;
            }
        }
    }
};

// Fragments of one product. Register numbers and positions: PTX ISA, "Matrix Fragments for mma.m16n8k16" and so on.
struct Product {
    float* d;
    const u32 *a, *b;
    int k;
    enum { BF16, F16, TF32 } type;

    float element(u32 word, int half) const {
        u16 bits = static_cast<u16>(word >> 16 * half);
        return type == BF16 ? bf16_to_float(bits) : f16_to_float(bits);
    }

    static float tf32(u32 word) { return __uint_as_float(word & 0xffffe000); }

    static void complete(void* const lanes[32], u32) {
        auto lane = [&](int i) { return static_cast<Product*>(lanes[i]); };
        int k = lane(0)->k;
        double a[16][16], b[16][8], d[16][8];
        for (int l = 0; l < 32; ++l) {
            const Product& p = *lane(l);
            int group = l / 4, pos = l % 4;
            if (p.type == TF32) {
                for (int r = 0; r < 4; ++r) a[group + 8 * (r & 1)][pos + 4 * (r >> 1)] = tf32(p.a[r]);
                for (int r = 0; r < 2; ++r) b[pos + 4 * r][group] = tf32(p.b[r]);
                continue;
            }
            for (int half = 0; half < 2; ++half) {
                for (int r = 0; r < k / 4; ++r) {
                    a[group + 8 * (r & 1)][2 * pos + half + 8 * (r >> 1)] = p.element(p.a[r], half);
                }
                for (int r = 0; r < k / 8; ++r) b[2 * pos + half + 8 * r][group] = p.element(p.b[r], half);
            }
        }
        auto each_sum = [&](auto f) {
            for (int l = 0; l < 32; ++l) {
                for (int r = 0; r < 4; ++r) f(lane(l)->d[r], d[l / 4 + 8 * (r >> 1)][2 * (l % 4) + (r & 1)]);
            }
        };
        each_sum([](float& mine, double& sum) { sum = mine; });
        for (int row = 0; row < 16; ++row) {
            for (int i = 0; i < k; ++i) {
                for (int col = 0; col < 8; ++col) d[row][col] += a[row][i] * b[i][col];
            }
        }
        each_sum([](float& mine, double& sum) { mine = toward_zero(sum); });
    }
};

void whole_warp(const char* what, void* slot, void (*complete)(void* const[32], u32), const char* file, int line) {
    warp_rendezvous({what, FULL_WARP, true, false, complete}, slot, file, line);
}

}  // namespace

void load_matrices(u32* r, int count, bool transposed, const void* row, const char* what, const char* file, int line) {
    if (lane() < 8 * count) check_shared_read(row, 16, 16, what, file, line);
    Matrices slot{r, count, transposed, static_cast<const u16*>(row)};
    whole_warp(what, &slot, Matrices::complete, file, line);
}

void mma_16bit(float* d, const u32* a, const u32* b, int k, bool bf16, const char* what, const char* file, int line) {
    Product slot{d, a, b, k, bf16 ? Product::BF16 : Product::F16};
    whole_warp(what, &slot, Product::complete, file, line);
}

void mma_tf32(float* d, const u32* a, const u32* b, const char* what, const char* file, int line) {
    Product slot{d, a, b, 8, Product::TF32};
    whole_warp(what, &slot, Product::complete, file, line);
}

}  // namespace emu
