// The pyramid's filters, one sample at a time: where a tap falls beyond the border, and every sum in the one order that
// the CPU's rows and the CUDA tiles take it. Internal linkage on purpose: every instruction set keeps its own copy.
#pragma once

#include "sample.h"  // PYFOCUS_HD
#include "upsample.h"

namespace pyfocus {

// What down sees there: a mirror that does not repeat the edge, -1 -> 1, n -> n - 2.
template <class Int>
PYFOCUS_HD static inline Int mirror_in(Int v, Int n) {
  if (n == 1) return 0;
  while (v < 0 || v >= n) v = v < 0 ? -v : 2 * (n - 1) - v;
  return v;
}

// 16 times the 5-tap binomial; down and smooth take it down the columns, then along the row, and divide by 256.
PYFOCUS_HD static inline float binomial_sum(float a, float b, float c, float d, float e) {
  return (a + e) + 4.0f * (b + d) + 6.0f * c;
}
constexpr float kBinomial = 1.0f / 256;

template <int kPower>
PYFOCUS_HD static inline float raise(float v) {
  static_assert(kPower == 1 || kPower == 2 || kPower == 4 || kPower == 6 || kPower == 8);
  const float v2 = v * v, v4 = v2 * v2;
  return kPower == 1 ? v : kPower == 2 ? v2 : kPower == 4 ? v4 : kPower == 6 ? v4 * v2 : v4 * v4;
}

// 1 / peak, or 0 where nobody saw anything. On a device to 1 ulp: the weights of a frame and of all before it share it.
PYFOCUS_HD static inline float scale_of(float peak) {
  const bool seen = peak > 1.1754944e-38f;
#if defined(__CUDA_ARCH__)
  const float scale = __fdividef(1.0f, seen ? peak : 1.0f);
#else
  const float scale = 1.0f / (seen ? peak : 1.0f);
#endif
  return seen ? scale : 0.0f;
}

// The rating of energy `energy` under mean light `light`.
PYFOCUS_HD static inline float rate_one(float energy, float light, float slope, float floor) {
  return energy + (slope * (light > 0 ? light : 0.0f) + floor);
}

// One frame at `place` folded into a pixel of the depth index; both weights to the eighth power.
struct DepthSums {
  float index, weight, total;
  int seen;
};
PYFOCUS_HD static inline DepthSums follow_one(float rating, float peak, float before, float place, DepthSums sums) {
  const float top = peak > 1e-30f ? peak : 1e-30f;
  const float now = raise<8>(rating / top), keep = raise<8>(before / top);
  return {sums.index * keep + place * now, sums.weight * keep + now, sums.total + rating, sums.seen + (rating > 0)};
}

constexpr float kLeast =
    1e-12f;  // added to a rating on the last level, so that some light is there where none was seen

}  // namespace pyfocus
