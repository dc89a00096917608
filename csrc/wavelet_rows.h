// The wavelet's parameter block, the row loops of the CPU (wavelet.cpp) and the launchers of CUDA (wavelet*.cu).
// wavelet_launch.cpp holds the checks and chooses between them.
#pragma once

#include <cstdint>

#include "isa.h"

namespace pyfocus {

struct WaveletParams {
  int planes = 1;                               // complex ones
  bool complex = false;                         // whether the fine grid is
  int64_t height = 0, width = 0;                // of the fine grid
  int64_t coarse_height = 0, coarse_width = 0;  // of the grid below it
  const float* fine = nullptr;
  const float* coarse = nullptr;
  const float* addend = nullptr;  // for pool and spread; may be `out`
  const float* rating = nullptr;
  const float* before = nullptr;
  const float* peak = nullptr;
  const float* sums_in = nullptr;
  const float* weight_in = nullptr;
  float* out = nullptr;
  float* low = nullptr;
  float* energy = nullptr;
  float* sums = nullptr;
  float* weight = nullptr;
  const uint8_t* valid = nullptr;
  uint8_t* valid_out = nullptr;
  float gain = 1;
  int power = 8;
};

// Rows of the fine grid for spread, of the coarse one for all others.
PYFOCUS_KERNEL(void, wavelet_measure_rows, const WaveletParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, wavelet_fold_rows, const WaveletParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, wavelet_merge_rows, const WaveletParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, wavelet_pool_rows, const WaveletParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, wavelet_spread_rows, const WaveletParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, wavelet_valid_rows, const WaveletParams& p, int64_t begin, int64_t end)

void wavelet_measure_cuda(const WaveletParams& p, int device, void* stream);
void wavelet_fold_cuda(const WaveletParams& p, int device, void* stream);
void wavelet_merge_cuda(const WaveletParams& p, int device, void* stream);
void wavelet_pool_cuda(const WaveletParams& p, int device, void* stream);
void wavelet_spread_cuda(const WaveletParams& p, int device, void* stream);
void wavelet_valid_cuda(const WaveletParams& p, int device, void* stream);

}  // namespace pyfocus
