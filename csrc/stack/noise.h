// The noise of a frame, from what its finest detail is where there is none.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor.h"

namespace pyfocus {

// Noise variance slope * light + floor, both 0 or more; of linear light, squared.
struct NoiseLine {
  double slope = 0, floor = 0;
};

// Of energy (h, w), the pooled squared detail of level 0, light (C, h, w) times `share`, and where it was seen, (h, w)
// uint8 or null; every step-th row and column of them. In every range of brightness most places hold detail; the
// quietest fifth is taken for bare noise. Zeros when there are too few to tell.
NoiseLine noise_of(const Tensor& energy, const Tensor& light, float share, const Tensor* seen, int64_t step);

int64_t noise_step(int64_t height, int64_t width);

// The middle of every step-th value of (C, h, w), times `share`.
double middle_of(const Tensor& light, float share, int64_t step);

}  // namespace pyfocus
