// The sRGB curve of IEC 61966-2-1 as host and device read it: a table of its power law with linear interpolation, error
// below 1e-6. The table is 1024 samples per octave from 2^-9 (below the linear foot at 0.0031308) to 1, so that the
// index is the top bits of the float itself. The compiler computes it: the host and every device get the same numbers.
#pragma once

#include <cstdint>

#include "sample.h"

namespace pyfocus {

constexpr int kCurveOctaves = 9, kCurveSteps = 1024;
constexpr uint32_t kCurveFirstBits = (127 - kCurveOctaves) << 10;

struct SrgbCurve {
  float value[kCurveOctaves * kCurveSteps + 2];
};

// x^(5/12) by Newton's method, from a guess close by.
constexpr double root_five_twelfths(double x, double guess) {
  const double x5 = x * x * x * x * x;
  double y = guess;
  for (int i = 0; i < 4; ++i) {
    const double y3 = y * y * y, y6 = y3 * y3;
    y -= (y6 * y6 - x5) / (12 * y6 * y3 * y * y);
  }
  return y;
}

constexpr SrgbCurve make_srgb_curve() {
  SrgbCurve curve{};
  double octave[kCurveOctaves + 1] = {};  // 2^(5/12 (i - 9))
  const double step = root_five_twelfths(2, 1.335);
  octave[kCurveOctaves] = 1;
  for (int i = kCurveOctaves; i > 0; --i) octave[i - 1] = octave[i] / step;
  double power = 1;
  for (int k = 0; k < kCurveSteps; ++k) {
    power = root_five_twelfths(1 + k / static_cast<double>(kCurveSteps), power);
    for (int i = 0; i <= kCurveOctaves; ++i)
      if (i < kCurveOctaves || k < 2)
        curve.value[i * kCurveSteps + k] = static_cast<float>(1.055 * (octave[i] * power) - 0.055);
  }
  return curve;
}

PYFOCUS_HD static inline float encode_srgb(float x, const float* curve) {
  const float v = x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &v, 4);
  const int32_t place = static_cast<int32_t>(bits >> 13) - static_cast<int32_t>(kCurveFirstBits);
  const int32_t index = place > 0 ? place : 0;
  const float fraction = static_cast<float>(bits & 0x1fff) * (1.0f / 8192);
  const float power = curve[index] + (curve[index + 1] - curve[index]) * fraction;
  return v <= 0.0031308f ? v * 12.92f : power;
}

}  // namespace pyfocus
