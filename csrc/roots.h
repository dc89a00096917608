// roots: light kept in 16 bits as its root, and 16-bit codes read through a table.
//
//   encode   codes[i]     = round( (clip(sign(v) sqrt|v|, lowest, highest) - lowest) scale ),   v = values[i], half to
//   even lookup   dst[n, p, y, x] = table[ codes_n[p, y, x] ]
//
// On the CPU. Bytes per value: 6 for either, and a table of 256 KB that stays in the cache.
#pragma once

#include <cstdint>

#include "check.h"
#include "tensor.h"

namespace pyfocus {

struct EncodeParams {
  const float* values = nullptr;
  uint16_t* codes = nullptr;
  float lowest = 0, highest = 1, scale = 1;
};

struct LookupParams {
  const uint16_t* codes = nullptr;
  int64_t plane_stride = 0, row_stride = 0;
  const float* table = nullptr;  // of 65536
  float* out = nullptr;          // (planes, height, width)
  int64_t height = 0, width = 0;
};

// values (C, h, w) float32 and codes (C, h, w) uint16, contiguous. The codes of (highest - lowest) scale must fit.
void roots_encode(const Tensor& values, const Tensor& codes, float lowest, float highest, float scale, int threads);

// codes: `count` arrays (C, h, w) uint16 whose rows are contiguous; destination (count, C, h, w) float32.
void roots_lookup(const Tensor* codes, int64_t count, const Tensor& table, const Tensor& destination, int threads);

}  // namespace pyfocus
