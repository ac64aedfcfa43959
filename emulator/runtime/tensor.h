// The arithmetic of a tensor core, which tensor.cpp explains: for mma.sync there, for wgmma in wgmma.cpp.
#pragma once

namespace emu {

// The exponent that a number is stored with, at least `least`.
int exponent_of(double a, int least);

// d + Σ a[i]·b[i] over the products of one step.
float add_step(float d, const double* a, const int* a_exponent, const double* b, const int* b_exponent, int step);

}  // namespace emu
