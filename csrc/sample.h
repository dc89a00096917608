// Interpolation: the taps of each kernel and their weights. Host and device compile these very lines.
// A sample at continuous position p uses taps floor(p) + first .. floor(p) + first + count - 1; f = p - floor(p).
// Sources: bilinear and bicubic (a = -1/2) from Keys, IEEE ASSP 29(6), 1981; Lanczos-3 from Duchon, J. Appl. Met. 18,
// 1979. Internal linkage on purpose: every instruction set keeps its own copy.
#pragma once

#if defined(__CUDACC__)
#define PYFOCUS_HD __host__ __device__
#else
#define PYFOCUS_HD
#endif

namespace pyfocus {

enum class Interpolation { Bilinear = 0, Bicubic = 1, Lanczos3 = 2 };

struct Bilinear {
  static constexpr int kFirst = 0, kCount = 2;
  PYFOCUS_HD static inline void weights(float f, float* w) {
    w[0] = 1.0f - f;
    w[1] = f;
  }
};

struct Bicubic {
  static constexpr int kFirst = -1, kCount = 4;
  PYFOCUS_HD static inline void weights(float f, float* w) {
    const float g = 1.0f - f;
    w[0] = -0.5f * f * g * g;
    w[1] = 1.0f + f * f * (1.5f * f - 2.5f);
    w[2] = 1.0f + g * g * (1.5f * g - 2.5f);
    w[3] = -0.5f * g * f * f;
  }
};

struct Lanczos3 {
  static constexpr int kFirst = -2, kCount = 6;

  // sin(pi t) / pi for t in [0, 1/2], to 2e-8: the series up to t^13.
  PYFOCUS_HD static inline float sin_pi(float t) {
    const float u = t * t * 9.8696044010893586f;
    return t *
           (1.0f - u * (1.0f / 6 - u * (1.0f / 120 - u * (1.0f / 5040 - u * (1.0f / 362880 - u * (1.0f / 39916800))))));
  }
  // L(x) = sin(pi x) sin(pi x / 3) / (pi^2 x^2 / 3). With x = f - k the first sine is +-sin(pi f), and the second has
  // a period of three taps, so three sines per position are enough for six weights. Then they are normalised.
  PYFOCUS_HD static inline void weights(float f, float* w) {
    const float s1 = sin_pi(f < 0.5f ? f : 1.0f - f);
    const float a = sin_pi(f * (1.0f / 3)),
                b = sin_pi((1.0f - f) * (1.0f / 3));  // sin(pi f/3), sin(pi (1-f)/3), over pi
    const float c = a + b;                            // sin(pi (f+1)/3) = sin(pi f/3) + sin(pi (1-f)/3)
    const bool left = f < 1e-6f, right = f > 1.0f - 1e-6f;
    const float d0 = f + 2.0f, d1 = f + 1.0f, d2 = left ? 1.0f : f, d3 = right ? 1.0f : 1.0f - f, d4 = 2.0f - f,
                d5 = 3.0f - f;
    w[0] = s1 * b / (d0 * d0);
    w[1] = -s1 * c / (d1 * d1);
    w[2] = s1 * a / (d2 * d2);
    w[3] = s1 * b / (d3 * d3);
    w[4] = -s1 * c / (d4 * d4);
    w[5] = s1 * a / (d5 * d5);
    const float sum = ((w[0] + w[1]) + (w[2] + w[3])) + (w[4] + w[5]);
    const bool whole = left || right;  // at a pixel: its own weight is 1, and nothing may be divided by 0
    const float scale = whole ? 0.0f : 1.0f / (whole ? 1.0f : sum);
    w[0] *= scale, w[1] *= scale, w[4] *= scale, w[5] *= scale;
    w[2] = left ? 1.0f : w[2] * scale;
    w[3] = right ? 1.0f : w[3] * scale;
  }
};

}  // namespace pyfocus
