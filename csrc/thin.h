// thin: every step-th pixel of every step-th row, to bring a small sample of an array to where it is looked at.
//
//   dst[p, y, x] = src[p, step_y y, step_x x]
#pragma once

#include "device.h"
#include "tensor.h"

namespace pyfocus {

struct ThinParams {
  const void* source = nullptr;
  int64_t plane_stride = 0, row_stride = 0, column_stride = 0;  // of the destination's steps, in the source
  void* destination = nullptr;                                  // (planes, height, width), contiguous
  int64_t planes = 0, height = 0, width = 0;
  Dtype dtype = Dtype::F32;  // U8 or F32
};

// source (H, W) or (C, H, W) uint8 or float32, any strides; destination of the same dtype, (ceil(H / step_y),
// ceil(W / step_x)), with C in front where the source has it. Deterministic.
void thin(const Tensor& source, int64_t step_y, int64_t step_x, const Tensor& destination, const Execution& on);

void thin_cuda(const ThinParams& p, int device, void* stream);

}  // namespace pyfocus
