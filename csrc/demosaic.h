// demosaic: a Bayer mosaic to full-size R, G, B in square-root encoding, fast enough to run on every frame.
//
//   s = sign(v) sqrt|v|, v = count * scale_p + offset_p         (white-balanced, so that differences are small)
//   green at red and blue sites: g_h = (s[x-1] + s[x+1]) / 2 + (2 s[x] - s[x-2] - s[x+2]) / 4, g_v alike, blended with
//   weights 1 / (activity^2 + 1e-8), activity_h = box3x3( |s[x+1] - s[x-1]| + |2 s[x] - s[x-2] - s[x+2]| ) / 9
//   red = green + bilinear(red - green), blue alike
//
// Green after Hamilton & Adams (US 5629734, expired), with a soft choice of direction: where both are equally good they
// are averaged, which costs less noise and gives no mazes. The root makes shot noise even and shadows count.
#pragma once

#include "device.h"
#include "tensor.h"

namespace pyfocus {

struct DemosaicParams {
  const uint16_t* source = nullptr;
  int64_t row_stride = 0, column_stride = 0;
  int64_t height = 0, width = 0;
  int red_y = 0, red_x = 0;             // where red lies in the 2x2 block
  float scale[4] = {}, offset[4] = {};  // by position in the 2x2 block, row by row
  float* destination = nullptr;         // (3, height, width), contiguous
};

// source (H, W) uint16, H and W even; scale and offset by position in the block; destination (3, H, W) float32.
// Mirrored at the borders. Deterministic.
void demosaic(const Tensor& source, int red_y, int red_x, const float* scale, const float* offset,
              const Tensor& destination, const Execution& on);

void demosaic_cuda(const DemosaicParams& p, int device, void* stream);

}  // namespace pyfocus
