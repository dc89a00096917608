// The wavelet's filters, one sample at a time: where a tap falls beyond the border, and every sum in the one order that
// the CPU's rows and the CUDA threads take it. Internal linkage on purpose: every instruction set keeps its own copy.
#pragma once

#include "sample.h"  // PYFOCUS_HD

namespace pyfocus {

// A sample of a grid of n that goes on as a mirror with its edge repeated, odd ones after their last sample once more.
template <class Int>
PYFOCUS_HD static inline Int fold_in(Int v, Int n) {
  const Int even = n + (n & 1);
  v = v < 0 ? -1 - v : v >= even ? 2 * even - 1 - v : v;
  return v < n ? v : n - 1;
}

constexpr float kTap = 0.022097086912079608f;          // sqrt(2) / 64
constexpr float kImaginaryTap = 0.08558164961018219f;  // sqrt(30) / 64

// sum_n of the real and of the imaginary part of h[n], n = 0, 1, 2, with v.
PYFOCUS_HD static inline float real_part(float a, float b, float c) {
  return kTap * ((5.0f * b - 3.0f * a) + 30.0f * c);
}
PYFOCUS_HD static inline float imaginary_part(float a, float b, float c) {
  return kImaginaryTap * (2.0f * c - (a + b));
}

struct Complex {
  float re, im;
};

// low and high of the six samples from v on, `step` apart: h is symmetric, so pairs are added or taken apart first.
struct Sums {
  float a, b, c;
};
PYFOCUS_HD static inline Sums sums_of(float a, float b, float c, float d, float e, float f) {
  return {a + f, b + e, c + d};
}
PYFOCUS_HD static inline Sums differences_of(float a, float b, float c, float d, float e, float f) {
  return {a - f, e - b, c - d};  // with the signs of g
}

PYFOCUS_HD static inline float real_of(const Sums& s) { return real_part(s.a, s.b, s.c); }
PYFOCUS_HD static inline float imaginary_of(const Sums& s) { return imaginary_part(s.a, s.b, s.c); }

// h s and conj(h) s of complex sums.
PYFOCUS_HD static inline Complex by_taps(const Sums& re, const Sums& im) {
  return {real_of(re) - imaginary_of(im), real_of(im) + imaginary_of(re)};
}
PYFOCUS_HD static inline Complex by_conjugate_taps(const Sums& re, const Sums& im) {
  return {real_of(re) + imaginary_of(im), real_of(im) - imaginary_of(re)};
}

// The way back: samples 2i (odd = false) and 2i + 1 of coefficients i - 1, i, i + 1.
PYFOCUS_HD static inline Sums taps_back(float before, float here, float after, bool odd) {
  return odd ? Sums{before, after, here} : Sums{after, before, here};
}

template <int kPower>
PYFOCUS_HD static inline float to_power(float v) {
  static_assert(kPower == 4 || kPower == 8);
  const float v2 = v * v, v4 = v2 * v2;
  return kPower == 4 ? v4 : v4 * v4;
}

// 1 / v, or 0 where there is nothing.
PYFOCUS_HD static inline float inverse_of(float v) { return v > 1.1754944e-38f ? 1.0f / v : 0.0f; }

// (1 3 3 1) and (3 1), which pool divides by 64 and spread by 16.
PYFOCUS_HD static inline float pooled(float a, float b, float c, float d) { return (a + d) + 3.0f * (b + c); }
PYFOCUS_HD static inline float spread_one(float near, float far) { return 3.0f * near + far; }

// Whether at least two of four are valid.
PYFOCUS_HD static inline bool most_of(int a, int b, int c, int d) {
  return (a != 0) + (b != 0) + (c != 0) + (d != 0) >= 2;
}

constexpr float kPooled = 1.0f / 64, kSpread = 1.0f / 16;

}  // namespace pyfocus
