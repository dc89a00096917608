// warp: resample planes through a homography (or affine) that maps destination pixels to source pixels.
//
//   dst[p, y, x] = interpolate(value(src[p]), M_p (x, y, 1)),   value(v) = table[v] * scale_p + offset_p
//
// With `root` values are interpolated as signed square roots, with `square` the result is squared again, sign kept:
// in that encoding the lobes of a sharp kernel do not carry a bright light's ringing into its dark neighbours.
//
// Pixel centres at integers. Outside the source the edge pixel is repeated; `valid` says where the source was seen:
// 1 where every plane's position lies within [0, width-1] x [0, height-1], else 0.
#pragma once

#include <cstdint>

#include "device.h"
#include "planes.h"
#include "sample.h"

namespace pyfocus {

struct WarpParams {
  PlaneSource source;
  double matrix[kMaxPlanes][9];  // row-major, destination (x, y, 1) to source, per plane
  float* destination = nullptr;  // (planes, height, width), contiguous
  uint8_t* valid = nullptr;      // (height, width) or null
  int64_t height = 0, width = 0;
  Interpolation interpolation = Interpolation::Bicubic;
  bool root = false, square = false;
  bool narrow = false;  // valid stays 1 only where it was
};

// matrices (C, 3, 3) float64 in CPU memory, read before warp returns; destination (C, h, w) float32; valid (h, w) uint8
// or null; with `narrow` it is only cleared, never set, so that several calls leave what all of them saw.
// Deterministic.
void warp(const PlaneSource& source, const Tensor& matrices, const Tensor& destination, const Tensor* valid,
          Interpolation interpolation, bool root, bool square, bool narrow, const Execution& on);

void warp_cuda(const WarpParams& p, int device, void* stream);

}  // namespace pyfocus
