// unpack: planes of linear light to the array a file or a person wants: interleaved or mosaic, uint8 or uint16.
//
//   dst = round( clamp(encode(src[p]) * scale_p + offset_p, 0, largest) )
//
// encode is the sRGB curve of IEC 61966-2-1 (a table with linear interpolation, error below 1e-6), or nothing.
#pragma once

#include "device.h"
#include "planes.h"

namespace pyfocus {

struct UnpackParams {
  const float* source = nullptr;  // (planes, height, width), contiguous along its rows
  int64_t source_plane = 0, source_row = 0;
  int planes = 0;
  int64_t height = 0, width = 0;
  void* destination[kMaxPlanes] = {};  // first element of each plane
  int64_t row_stride = 0, column_stride = 0;
  Dtype dtype = Dtype::U16;
  const float* curve = nullptr;  // sRGB table on the host, or null for none
  float scale[kMaxPlanes] = {}, offset[kMaxPlanes] = {};
};

// source (C, h, w) float32, rows may lie apart (a crop); destination (C, h, w) view with any strides, or with `mosaic`
// (2h, 2w). Deterministic.
void unpack(const Tensor& source, const Tensor& destination, const int (*mosaic)[2], bool srgb, const float* scale,
            const float* offset, const Execution& on);

void unpack_cuda(const UnpackParams& p, int device, void* stream);

}  // namespace pyfocus
