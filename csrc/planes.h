// The planes inside somebody's array, read where they lie: interleaved, planar, or every second pixel of a mosaic.
#pragma once

#include <cstdint>

#include "tensor.h"

namespace pyfocus {

constexpr int kMaxPlanes = 4;

// A stored count v of plane p means table[v] * scale[p] + offset[p]. Strides in elements.
struct PlaneSource {
  const void* plane[kMaxPlanes] = {};
  int64_t row_stride = 0, column_stride = 0;
  int64_t height = 0, width = 0;
  int planes = 0;
  Place place;                   // of the planes and the table
  Dtype dtype = Dtype::F32;      // U8, U16 or F32
  const float* table = nullptr;  // 256 or 65536 entries for U8 and U16, or null: the count itself
  float scale[kMaxPlanes] = {1, 1, 1, 1};
  float offset[kMaxPlanes] = {};
};

// `source` is (C, H, W) with any strides, or with `mosaic` (H, W): plane p then starts at row mosaic[p][0], column
// mosaic[p][1] and takes every second pixel. C <= 4. `table`, `scale`, `offset`: null for none.
PlaneSource plane_source(const char* function, const Tensor& source, const int (*mosaic)[2], int mosaic_planes,
                         const Tensor* table, const float* scale, const float* offset);

}  // namespace pyfocus
