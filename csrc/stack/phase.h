// Phase correlation of two small pictures (Kuglin & Hines, 1975): how far one lies from the other, in whole pixels.
#pragma once

#include "stack/matrix.h"
#include "stack/memory.h"

namespace pyfocus {

// a and b (h, w) and (H, W) float32 contiguous; b is cut or mirrored to the size of a. The map from a's pixels to b's.
Matrix phase_shift(const Tensor& a, const Tensor& b, Memory& memory);

// The discrete Fourier transform of `count` complex values (pairs of double), in place, by mixed radix: any length.
// `scratch` as long as `values`. Forward: exp(-2 pi i j k / count); backward without the division.
void fourier(double* values, double* scratch, int64_t count, bool backward);

}  // namespace pyfocus
