// Tiles of a plane in shared memory, for the stencils of down, smooth and measure: loaded once with their rim, the
// mirror beyond the border already in it, then summed down the columns and along the rows. Blocks have 256 threads.
#pragma once

#include "launch.cuh"
#include "pyramid_rows.h"
#include "pyramid_taps.h"

namespace pyfocus {

constexpr int kTileThreads = 256;
constexpr int kTileOut = 32;  // down and measure: a block's 32 x 32 pixels of the coarse grid

// One value from the device's memory to shared memory. From sm_80 on without a register in between, so that all of a
// thread's loads are under way at once; they have arrived after wait_for_copies() and a barrier.
PYFOCUS_HD inline void start_copy(float* to, const float* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from))
               : "memory");
#else
  *to = *from;
#endif
}

PYFOCUS_HD inline void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// kRows x kColumns values from row `top`, column `left` on, mirrored where they lie beyond the border. Each warp takes
// every eighth row.
template <int kRows, int kColumns, int kPitch>
PYFOCUS_HD inline void load_tile(const float* plane, int height, int width, int top, int left, int thread,
                                 float* tile) {
  constexpr int kSteps = (kColumns + 31) / 32, kWarps = kTileThreads / 32;
  const int lane = thread % 32, warp = thread / 32;
  float* to = tile + warp * kPitch + lane;
  if (top >= 0 && left >= 0 && top + kRows <= height && left + kColumns <= width) {
    const float* from = plane + static_cast<int64_t>(top + warp) * width + left + lane;
    for (int r = warp; r < kRows; r += kWarps, from += kWarps * static_cast<int64_t>(width), to += kWarps * kPitch)
      for (int k = 0; k < kSteps; ++k)
        if (lane + 32 * k < kColumns) start_copy(to + 32 * k, from + 32 * k);
  } else {
    int column[kSteps];
    for (int k = 0; k < kSteps; ++k) column[k] = mirror_in(left + lane + 32 * k, width);
    for (int r = warp; r < kRows; r += kWarps, to += kWarps * kPitch) {
      const float* row = plane + static_cast<int64_t>(mirror_in(top + r, height)) * width;
      for (int k = 0; k < kSteps; ++k)
        if (lane + 32 * k < kColumns) start_copy(to + 32 * k, row + column[k]);
    }
  }
  wait_for_copies();
}

// kRows binomial sums down every column, `kStep` rows apart. A thread slides down a strip of a column: each value is
// read from shared memory once or twice, not five times.
template <int kRows, int kColumns, int kPitch, int kStep, int kStrips>
PYFOCUS_HD inline void sum_columns(const float* tile, int thread, float* sums) {
  static_assert(kColumns * kStrips <= kTileThreads && kRows % kStrips == 0);
  constexpr int kStrip = kRows / kStrips;
  if (thread >= kColumns * kStrips) return;
  const int x = thread % kColumns, first = thread / kColumns * kStrip;
  const float* from = tile + first * kStep * kPitch + x;
  float v[5];
  for (int j = 0; j < 5 - kStep; ++j) v[j] = from[j * kPitch];
  from += (5 - kStep) * kPitch;
  for (int r = 0; r < kStrip; ++r, from += kStep * kPitch) {
    for (int j = 0; j < kStep; ++j) v[5 - kStep + j] = from[j * kPitch];
    sums[(first + r) * kPitch + x] = binomial_sum(v[0], v[1], v[2], v[3], v[4]);
    for (int j = 0; j < 5 - kStep; ++j) v[j] = v[j + kStep];
  }
}

PYFOCUS_HD inline float sum_row(const float* sums) { return binomial_sum(sums[0], sums[1], sums[2], sums[3], sums[4]); }

}  // namespace pyfocus
