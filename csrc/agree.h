// agree: which pixels of a registered picture agree with the other one, for a fit by those alone.
//
//   residual:  dst[y, x] = | gain * warped[y, x] + offset - fixed[y, x] |
//   mask:      dst[y, x] = difference[min(y / f, h - 1), min(x / f, w - 1)] <= threshold,   f = 1 or 2
#pragma once

#include <cstdint>

#include "device.h"
#include "tensor.h"

namespace pyfocus {

struct AgreeParams {
  const float* warped = nullptr;
  const float* fixed = nullptr;
  float gain = 1, offset = 0;
  float* residual = nullptr;
  const float* difference = nullptr;  // (coarse_height, coarse_width)
  float threshold = 0;
  uint8_t* mask = nullptr;  // (height, width)
  int64_t height = 0, width = 0, coarse_height = 0, coarse_width = 0, factor = 1;
};

// warped, fixed and destination (h, w) float32, contiguous; destination may be warped. Deterministic.
void agree_residual(const Tensor& warped, const Tensor& fixed, float gain, float offset, const Tensor& destination,
                    const Execution& on);

// difference (h, w) float32; destination (H, W) uint8: the same size, or one of which (h, w) is the half rounded up.
// NaN agrees with nothing. Deterministic.
void agree_mask(const Tensor& difference, double threshold, const Tensor& destination, const Execution& on);

void agree_residual_cuda(const AgreeParams& p, int device, void* stream);
void agree_mask_cuda(const AgreeParams& p, int device, void* stream);

}  // namespace pyfocus
