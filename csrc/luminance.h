// luminance: one weighted sum of the planes per block of factor x factor pixels, for registration and previews.
//
//   dst[y, x] = encode( mean over the block of sum_p weight_p value(src[p]) )
//
// encode is the square root of the positive part (which makes shot noise even and lifts shadows), or nothing.
#pragma once

#include "device.h"
#include "planes.h"

namespace pyfocus {

struct LuminanceParams {
  PlaneSource source;
  float weight[kMaxPlanes] = {};
  int64_t factor = 1, row_step = 1;  // of each block's rows every row_step-th counts
  bool square_root = false;
  float* destination = nullptr;  // (height / factor, width / factor), contiguous
  int64_t height = 0, width = 0;
};

// destination (H / factor, W / factor) float32, where (H, W) is the size of one plane; a rest of less than a block is
// left out. row_step 1 to factor: a step of 2 reads half of the source. Deterministic.
void luminance(const PlaneSource& source, const float* weight, int64_t factor, int64_t row_step, bool square_root,
               const Tensor& destination, const Execution& on);

void luminance_cuda(const LuminanceParams& p, int device, void* stream);

}  // namespace pyfocus
