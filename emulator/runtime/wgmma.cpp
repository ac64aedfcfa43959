// Products of a warpgroup. All 128 threads start one together; each warp then computes its own 16 rows when it waits.
#include <algorithm>
#include <cstring>
#include <vector>

#include "hopper.h"
#include "launch.h"
#include "memory.h"
#include "race.h"
#include "tensor.h"

namespace emu {

namespace hopper {

namespace {

constexpr int K = 16, MOST_COLUMNS = 256, MOST_SUMS = MOST_COLUMNS / 2;

// Accumulators of a warp that products are adding to: NaN in the threads' registers meanwhile.
struct Sums {
    float* of_lane[32];
    int count;  // of a lane
    unsigned products = 0;
    float values[32][MOST_SUMS];
};

struct Product {
    u64 a, b;
    int columns;
    Sums* sums;
    Site site;
};

// Of one warp.
struct Warp {
    bool fenced = false;
    std::vector<Product> products;  // not done, oldest first
    std::vector<unsigned> groups;   // sizes of the committed groups, oldest first
    unsigned uncommitted = 0;
    std::vector<Sums*> sums;
};

Warp warps[MAX_THREADS / 32];

// ---- operands ----

// The layouts of the PTX ISA, "Shared Memory Matrix Layout": where the eight numbers with (row, chunk) of an operand lie
// whose rows of 32, 64 or 128 bytes are swizzled among each other. `row` counts along the stride, `chunk` along the rows.
struct Operand {
    u32 start, leading, stride;
    unsigned bits;  // of the swizzle

    Operand(u64 descriptor, const Site& site, const char* which) {
        auto field = [&](int at) { return static_cast<u32>(descriptor >> at & 0x3fff) << 4; };
        start = field(0), leading = field(16), stride = field(32);
        unsigned mode = descriptor >> 62, offset = descriptor >> 49 & 7;
        bits = 4 - mode;
        constexpr u64 RESERVED = ~(0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 7ull << 49 | 3ull << 62);
        auto refuse = [&](const std::string& why) {
            fault(Outcome::FAILED, site.text() + ": the descriptor of " + which + why);
        };
        if (descriptor & RESERVED) refuse(" has bits set that mean nothing");
        if (mode == 0) refuse(" has no swizzle, which is not emulated");
        if ((start >> 7 & ((1u << bits) - 1)) != offset) {
            refuse(" begins within a pattern of its swizzle: at address " + std::to_string(start) + " of shared memory");
        }
    }

    const unsigned char* chunk(u32 row, u32 chunk) const {
        u32 wide = 1u << bits;  // chunks of a row
        u32 at = start + row % 8 * wide * 16 + row / 8 * stride + chunk % wide * 16 + chunk / wide * leading;
        return at_shared_address(swizzled(at, bits));
    }
};

void check(const unsigned char* p, const Site& site, const char* which) {
    if (!in_shared(p, 16)) fault(Outcome::ILLEGAL_ADDRESS, site.text() + ": " + which + " lies outside of shared memory");
    if (const Site* copy = copy_into({p, p + 16})) {
        fault(Outcome::FAILED, site.text() + ": " + which + " is still on its way, by " + copy->text());
    }
    if (memcmp(p, aside(p), 16) != 0) {
        fault(Outcome::FAILED, site.text() + ": " + which + " was written by threads at " + byte_of(p) +
                                   " and no fence_proxy_async() followed");
    }
}

// a[rows, 16], rows along k, from `row0` on; b [columns, 16], whose rows run along the columns. `f` gets the place of eight
// numbers, their row, the first k, and the steps from one to the next in both.
template <class F>
void each_chunk_of_a(const Operand& a, u32 row0, F f) {
    for (u32 row = 0; row < 16; ++row) {
        for (u32 k = 0; k < K; k += 8) f(a.chunk(row0 + row, k / 8), row, k);
    }
}
template <class F>
void each_chunk_of_b(const Operand& b, int columns, F f) {
    for (u32 k = 0; k < K; ++k) {
        for (u32 column = 0; column < static_cast<u32>(columns); column += 8) f(b.chunk(k, column / 8), column, k);
    }
}

float number(const unsigned char* p, int i) {
    u16 bits;
    memcpy(&bits, p + 2 * i, 2);
    return bf16_to_float(bits);
}

// ---- what a warp does at its wait ----

void execute(const Product& product, unsigned number_of_warp) {
    static double a[16][K], b[MOST_COLUMNS][K];
    static int a_exponent[16][K], b_exponent[MOST_COLUMNS][K];
    block().current().site = product.site;
    race::Aside reader(number_of_warp * 32);
    each_chunk_of_a(Operand(product.a, product.site, "A"), number_of_warp % 4 * 16,
                    [&](const unsigned char* p, u32 row, u32 k) {
                        check(p, product.site, "A");
                        race::access(p, 16, false, 0);
                        for (int i = 0; i < 8; ++i) a[row][k + i] = number(p, i);
                    });
    each_chunk_of_b(Operand(product.b, product.site, "B"), product.columns, [&](const unsigned char* p, u32 column, u32 k) {
        check(p, product.site, "B");
        race::access(p, 16, false, 0);
        for (int i = 0; i < 8; ++i) b[column + i][k] = number(p, i);
    });
    for (int k = 0; k < K; ++k) {
        for (int row = 0; row < 16; ++row) a_exponent[row][k] = exponent_of(a[row][k], -126);
        for (int column = 0; column < product.columns; ++column) b_exponent[column][k] = exponent_of(b[column][k], -126);
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < product.sums->count; ++i) {
            int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float& sum = product.sums->values[lane][i];
            for (int k = 0; k < K; k += 8) {
                sum = add_step(sum, a[row] + k, a_exponent[row] + k, b[column] + k, b_exponent[column] + k, 8);
            }
        }
    }
}

void give_back(Warp& warp, Sums* sums, const Site& site) {
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < sums->count; ++i) {
            if (__float_as_uint(sums->of_lane[lane][i]) == 0xffffffff) continue;
            fault(Outcome::FAILED, site.text() + ": accumulator " + std::to_string(i) + " of lane " + std::to_string(lane) +
                                       " was written to before the wait");
        }
        memcpy(sums->of_lane[lane], sums->values[lane], sizeof(float) * static_cast<size_t>(sums->count));
    }
    warp.sums.erase(std::find(warp.sums.begin(), warp.sums.end(), sums));
    delete sums;
}

void wait(unsigned number_of_warp, unsigned pending_groups) {
    Warp& warp = warps[number_of_warp];
    while (warp.groups.size() > pending_groups) {
        unsigned count = warp.groups.front();
        warp.groups.erase(warp.groups.begin());
        for (; count > 0; --count) {
            Product product = warp.products.front();
            execute(product, number_of_warp);
            warp.products.erase(warp.products.begin());
            if (--product.sums->products == 0) give_back(warp, product.sums, product.site);
        }
    }
    warp.fenced = false;
}

// ---- what the 128 threads do at the start ----

struct Start {
    float* d;
    int columns;
    u64 a, b;
    Site site;
};

void start(void* const slots[128], unsigned first_warp) {
    auto of = [&](unsigned i) -> const Start& { return *static_cast<const Start*>(slots[i]); };
    const Start& first = of(0);
    for (unsigned i = 1; i < 128; ++i) {
        if (of(i).a == first.a && of(i).b == first.b) continue;
        fault(Outcome::FAILED, first.site.text() + ": threads 0 and " + std::to_string(i) + " of the warpgroup name "
                                   "different operands");
    }
    for (unsigned w = 0; w < 4; ++w) {
        Warp& warp = warps[first_warp + w];
        float* d = of(32 * w).d;
        auto found = std::find_if(warp.sums.begin(), warp.sums.end(), [&](Sums* sums) { return sums->of_lane[0] == d; });
        Sums* sums = found == warp.sums.end() ? nullptr : *found;
        if (sums == nullptr) {
            if (!warp.fenced) fault(Outcome::FAILED, first.site.text() + ": there was no wgmma_fence() before");
            sums = new Sums;
            sums->count = first.columns / 2;
            for (unsigned lane = 0; lane < 32; ++lane) {
                float* of_lane = sums->of_lane[lane] = of(32 * w + lane).d;
                memcpy(sums->values[lane], of_lane, sizeof(float) * static_cast<size_t>(sums->count));
                memset(of_lane, POISON, sizeof(float) * static_cast<size_t>(sums->count));
            }
            warp.sums.push_back(sums);
        }
        ++sums->products;
        ++warp.uncommitted;
        warp.products.push_back({first.a, first.b, first.columns, sums, first.site});
    }
    Operand a(first.a, first.site, "A"), b(first.b, first.site, "B");
    auto check_a = [&](const unsigned char* p, u32, u32) { check(p, first.site, "A"); };
    for (u32 w = 0; w < 4; ++w) each_chunk_of_a(a, 16 * w, check_a);
    each_chunk_of_b(b, first.columns, [&](const unsigned char* p, u32, u32) { check(p, first.site, "B"); });
}

// The four warps pass one after another, so this needs no lanes: one of the warp does it for all.
template <void (*DO)(unsigned warp)>
void for_warp(void* const[32], u32) {
    DO(block().current().linear / 32);
}
void set_fenced(unsigned warp) { warps[warp].fenced = true; }
void close_group(unsigned warp) {
    warps[warp].groups.push_back(warps[warp].uncommitted);
    warps[warp].uncommitted = 0;
}
template <unsigned N>
void wait_for(unsigned warp) {
    wait(warp, N);
}

}  // namespace

const Site* product_of(const Range& range) {
    const Site* found = nullptr;
    for (unsigned w = 0; w < MAX_THREADS / 32; ++w) {
        for (const Product& product : warps[w].products) {
            auto look = [&](const unsigned char* p, u32, u32) {
                if (range.meets({p, p + 16})) found = &product.site;
            };
            each_chunk_of_a(Operand(product.a, product.site, "A"), w % 4 * 16, look);
            each_chunk_of_b(Operand(product.b, product.site, "B"), product.columns, look);
        }
    }
    return found;
}

void begin_products() {
    for (Warp& warp : warps) {
        for (Sums* sums : warp.sums) delete sums;
        warp = Warp();
    }
}

std::string unfinished_product() {
    for (const Warp& warp : warps) {
        if (!warp.products.empty()) return warp.products.front().site.text() + ": nobody has waited for the product";
    }
    return "";
}

}  // namespace hopper

using namespace hopper;

void warpgroup_fence(const char* file, int line) {
    warp_rendezvous({"wgmma_fence", FULL_WARP, true, false, for_warp<set_fenced>}, nullptr, file, line);
}

void warpgroup_commit(const char* file, int line) {
    warp_rendezvous({"wgmma_commit", FULL_WARP, true, false, for_warp<close_group>}, nullptr, file, line);
}

void warpgroup_wait(unsigned pending_groups, const char* file, int line) {
    static constexpr void (*WAITS[8])(void* const[32], u32) = {
        for_warp<wait_for<0>>, for_warp<wait_for<1>>, for_warp<wait_for<2>>, for_warp<wait_for<3>>,
        for_warp<wait_for<4>>, for_warp<wait_for<5>>, for_warp<wait_for<6>>, for_warp<wait_for<7>>};
    if (pending_groups > 7) fault(Outcome::FAILED, Site{"wgmma_wait", file, line}.text() + ": at most 7 groups can be left");
    warp_rendezvous({"wgmma_wait", FULL_WARP, true, false, WAITS[pending_groups]}, nullptr, file, line);
}

void warpgroup_product(float* d, int columns, u64 a, u64 b, const char* what, const char* file, int line) {
    Start mine{d, columns, a, b, Site{what, file, line}};
    block().warpgroup_rendezvous(mine.site, &mine, start);
}

}  // namespace emu
