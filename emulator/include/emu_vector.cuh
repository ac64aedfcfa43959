// CUDA's built-in vector types, with CUDA's alignments: a float4 must lie at a multiple of 16 bytes, and the emulator
// reports one that does not.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EMU_VECTOR2(T, name, bytes) \
    struct alignas(bytes) name {    \
        T x, y;                     \
    };                              \
    inline name make_##name(T x, T y) { return name{x, y}; }
#define EMU_VECTOR3(T, name) \
    struct name {            \
        T x, y, z;           \
    };                       \
    inline name make_##name(T x, T y, T z) { return name{x, y, z}; }
#define EMU_VECTOR4(T, name, bytes) \
    struct alignas(bytes) name {    \
        T x, y, z, w;               \
    };                              \
    inline name make_##name(T x, T y, T z, T w) { return name{x, y, z, w}; }

EMU_VECTOR2(signed char, char2, 2)
EMU_VECTOR4(signed char, char4, 4)
EMU_VECTOR2(u8, uchar2, 2)
EMU_VECTOR4(u8, uchar4, 4)
EMU_VECTOR2(short, short2, 4)
EMU_VECTOR4(short, short4, 8)
EMU_VECTOR2(u16, ushort2, 4)
EMU_VECTOR4(u16, ushort4, 8)
EMU_VECTOR2(int, int2, 8)
EMU_VECTOR3(int, int3)
EMU_VECTOR4(int, int4, 16)
EMU_VECTOR2(u32, uint2, 8)
EMU_VECTOR3(u32, uint3)
EMU_VECTOR4(u32, uint4, 16)
EMU_VECTOR2(long long, longlong2, 16)
EMU_VECTOR2(u64, ulonglong2, 16)
EMU_VECTOR2(float, float2, 8)
EMU_VECTOR3(float, float3)
EMU_VECTOR4(float, float4, 16)
EMU_VECTOR2(double, double2, 16)

#undef EMU_VECTOR2
#undef EMU_VECTOR3
#undef EMU_VECTOR4

struct dim3 {
    u32 x, y, z;
    dim3(u32 x = 1, u32 y = 1, u32 z = 1) : x(x), y(y), z(z) {}
};
