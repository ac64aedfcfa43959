// Many models in one launch: gridDim.z counts models whose memory has the same layout, MODEL_STRIDE bytes apart.
//
// What a launch points to belongs to the first of the models; a PerModel is such an address, and as a pointer it is that of
// the model whose block asks. So no kernel knows how many models there are, and a launch for one is a launch for
// many with gridDim.z = 1: every model has the bits that it has alone. How memory comes to lie so:
// src/engine/device/cuda/ensemble.rs.
#pragma once
#include "ptx.cuh"

constexpr u64 MODEL_STRIDE = 1ull << 26;

enum { MAX_MODELS = 16 };

template <class T>
struct PerModel {
    T* first;

    __device__ __forceinline__ operator T*() const {
        return reinterpret_cast<T*>(reinterpret_cast<u64>(first) + number_of_model() * MODEL_STRIDE);
    }
    __device__ __forceinline__ T* operator->() const { return *this; }

    // Whether there is anything: null is null for every model.
    __device__ __forceinline__ bool there() const { return first != nullptr; }
};
