// The pyramid's parameter block, the row loops of the CPU (pyramid.cpp) and the launchers of CUDA (pyramid*.cu).
// pyramid_launch.cpp holds the checks and chooses between them.
#pragma once

#include <cstdint>

#include "isa.h"

namespace pyfocus {

struct PyramidParams {
  int planes = 1;
  int64_t height = 0, width = 0;                  // of the fine grid
  int64_t coarse_height = 0, coarse_width = 0;    // of the grid below it
  int64_t coarser_height = 0, coarser_width = 0;  // of the grid below that, for rate
  const float* fine = nullptr;
  const float* coarse = nullptr;
  const float* coarser = nullptr;
  const float* addend = nullptr;  // for down and up; may be `out`
  const float* energy = nullptr;
  const float* rating = nullptr;
  const float* before = nullptr;
  const float* peak = nullptr;
  const float* numerator_in = nullptr;
  const float* denominator_in = nullptr;
  float* out = nullptr;
  float* coarse_out = nullptr;
  float* numerator = nullptr;
  float* denominator = nullptr;
  float* rating_out = nullptr;
  float* peak_out = nullptr;
  float* index = nullptr;
  float* index_weight = nullptr;
  float* total = nullptr;
  int32_t* seen = nullptr;
  const uint8_t* valid = nullptr;
  uint8_t* valid_out = nullptr;
  float gain = 1, slope = 0, floor = 0, place = 0;
  int power = 4;
};

// Rows of the coarse grid for down, energy, rate, valid, base, depth and mean; of the fine grid for the others.
PYFOCUS_KERNEL(void, down_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, up_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, smooth_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, energy_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, rate_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, fold_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, collapse_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, valid_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, base_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, depth_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, mean_rows, const PyramidParams& p, int plane, int64_t begin, int64_t end)

void pyramid_down_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_up_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_smooth_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_energy_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_measure_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_rate_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_fold_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_collapse_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_valid_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_base_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_depth_cuda(const PyramidParams& p, int device, void* stream);
void pyramid_mean_cuda(const PyramidParams& p, int device, void* stream);

}  // namespace pyfocus
