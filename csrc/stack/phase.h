// Phase correlation of two small pictures (Kuglin & Hines, 1975): how far one lies from the other, in whole pixels.
#pragma once

#include "stack/matrix.h"
#include "stack/memory.h"

namespace pyfocus {

// a and b (h, w) and (H, W) float32 contiguous; b is cut or mirrored to the size of a. The map from a's pixels to b's.
Matrix phase_shift(const Tensor& a, const Tensor& b, Memory& memory);

}  // namespace pyfocus
