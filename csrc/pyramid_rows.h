// The row loops of the pyramid, one parameter block per step. pyramid.cpp holds the loops, pyramid_launch.cpp the
// checks and the launches.
#pragma once

#include <cstdint>

#include "isa.h"

namespace pyfocus {

struct PyramidParams {
  int planes = 1;
  int64_t height = 0, width = 0;                // of the fine grid
  int64_t coarse_height = 0, coarse_width = 0;  // of the grid below it
  const float* fine = nullptr;
  const float* coarse = nullptr;
  const float* rating = nullptr;
  const float* before = nullptr;
  const float* peak = nullptr;
  const float* numerator_in = nullptr;
  const float* denominator_in = nullptr;
  float* out = nullptr;
  float* numerator = nullptr;
  float* denominator = nullptr;
  float* rating_out = nullptr;
  float* peak_out = nullptr;
  float* before_out = nullptr;
  const uint8_t* valid = nullptr;
  uint8_t* valid_out = nullptr;
  float gain = 1, slope = 0, floor = 0;
  bool add = false;
  int power = 4;
};

// Rows of the coarse grid for down, energy, rate and valid; of the fine grid for the others.
PYFOCUS_KERNEL(void, down_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, up_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, smooth_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, energy_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, rate_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, fold_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, collapse_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, valid_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)

}  // namespace pyfocus
