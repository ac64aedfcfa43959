// ldmatrix and mma.sync: the 32 lanes bring their fragments, one of them computes for all.
//
// The tensor cores multiply exactly and add with truncation. An instruction works through k in steps; in each the sum
// so far and the step's products are shifted to the largest exponent among them, cut off there, added exactly, and the
// sum is cut off to the 24 bits of f32. So 1 + 2⁻²⁵ + 2⁻²⁵ is 1: what is cut off each addend is lost one by one.
//
// How many products a step takes and how many bits an addend keeps differs between GPUs: Fasi, Higham, Mikaitis,
// Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021. Here it is the worst of
// those that the kernels run on, sm_80 to 89: the shortest steps and one bit behind those of f32. Later ones take
// longer steps and keep more. An error is at least as large as the hardware's on average, its bits are not the
// hardware's.
#include "tensor.h"

#include "emu_ptx.cuh"

namespace emu {

namespace {

// Bits of an addend behind the binary point of the largest one.
constexpr int KEPT = 24;

// Cut off to f32. From 2¹²⁸ on there is no finite number with these bits, and the sum is infinite.
float cut_off(double a) {
    if (fabs(a) >= 0x1p128) return static_cast<float>(copysign(HUGE_VAL, a));
    float out = static_cast<float>(a);
    // Rounded away from zero: the neighbour with the next smaller bits. It is not zero, so there is one.
    if (fabs(static_cast<double>(out)) > fabs(a)) out = __uint_as_float(__float_as_uint(out) - 1);
    return out;
}

// 2^e for |e| ≤ 1022, exactly.
double power_of_two(int e) { return bits_of<double>(u64(1023 + e) << 52); }

// The exponent that a number is stored with; below the normal ones it is the least of them. Zero has none.
constexpr int NONE = -1000;

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
        double a[16][16], b[8][16];  // b by columns
        float d[16][8];
        for (int l = 0; l < 32; ++l) {
            const Product& p = *lane(l);
            int group = l / 4, pos = l % 4;
            if (p.type == TF32) {
                for (int r = 0; r < 4; ++r) a[group + 8 * (r & 1)][pos + 4 * (r >> 1)] = tf32(p.a[r]);
                for (int r = 0; r < 2; ++r) b[group][pos + 4 * r] = tf32(p.b[r]);
                continue;
            }
            for (int half = 0; half < 2; ++half) {
                for (int r = 0; r < k / 4; ++r) {
                    a[group + 8 * (r & 1)][2 * pos + half + 8 * (r >> 1)] = p.element(p.a[r], half);
                }
                for (int r = 0; r < k / 8; ++r) b[group][2 * pos + half + 8 * r] = p.element(p.b[r], half);
            }
        }
        int least = lane(0)->type == F16 ? -14 : -126, step = lane(0)->type == TF32 ? 4 : 8;
        int a_exponent[16][16], b_exponent[8][16];
        for (int i = 0; i < k; ++i) {
            for (int row = 0; row < 16; ++row) a_exponent[row][i] = exponent_of(a[row][i], least);
            for (int col = 0; col < 8; ++col) b_exponent[col][i] = exponent_of(b[col][i], least);
        }
        auto each_sum = [&](auto f) {
            for (int l = 0; l < 32; ++l) {
                for (int r = 0; r < 4; ++r) f(lane(l)->d[r], d[l / 4 + 8 * (r >> 1)][2 * (l % 4) + (r & 1)]);
            }
        };
        each_sum([](float& mine, float& sum) { sum = mine; });
        for (int row = 0; row < 16; ++row) {
            for (int col = 0; col < 8; ++col) {
                for (int i = 0; i < k; i += step) {
                    float& sum = d[row][col];
                    sum = add_step(sum, a[row] + i, a_exponent[row] + i, b[col] + i, b_exponent[col] + i, step);
                }
            }
        }
        each_sum([](float& mine, float& sum) { mine = sum; });
    }
};

void whole_warp(const char* what, void* slot, void (*complete)(void* const[32], u32), const char* file, int line) {
    warp_rendezvous({what, FULL_WARP, true, false, complete}, slot, file, line);
}

}  // namespace

int exponent_of(double a, int least) { return a == 0 ? NONE : ilogb(a) < least ? least : ilogb(a); }

float add_step(float d, const double* a, const int* a_exponent, const double* b, const int* b_exponent, int step) {
    int largest = exponent_of(d, -126);
    double plain = d;
    for (int i = 0; i < step; ++i) {
        plain += a[i] * b[i];
        if (a_exponent[i] == NONE || b_exponent[i] == NONE) continue;
        largest = max(largest, a_exponent[i] + b_exponent[i]);
    }
    // Nothing but zeros; or an operand that is infinite or no number, and so is the sum.
    if (largest == NONE || !isfinite(plain)) return static_cast<float>(plain);
    double scale = power_of_two(KEPT - largest);
    long long sum = static_cast<long long>(d * scale);
    for (int i = 0; i < step; ++i) sum += static_cast<long long>(a[i] * b[i] * scale);
    return cut_off(static_cast<double>(sum) * power_of_two(largest - KEPT));
}

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
