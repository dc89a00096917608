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

  // L(x) = sin(pi x) sin(pi x / 3) / (pi^2 x^2 / 3) at x = f - k, divided by the sum over the six taps. Taps k and 5 -
  // k mirror each other about f = 1/2, so with t = f - 1/2 and u = t^2 each pair is E(u) +- t O(u). E and O are
  // Chebyshev fits of degree 4, 2.9e-7 from the formula at worst; at a pixel the weights are exactly 0 and 1.
  PYFOCUS_HD static inline void weights(float f, float* w) {
    const float t = f - 0.5f, u = t * t;
    const float e0 =
        0.0244565457f + u * (-0.0881257355f + u * (-0.0568575114f + u * (0.0780691206f - u * 0.0233906079f)));
    const float o0 =
        t * (-0.0639243722f + u * (0.3099885285f + u * (-0.2417352498f + u * (0.1112831980f - u * 0.0520105846f))));
    const float e1 =
        -0.1358695179f + u * (0.5707617402f + u * (-0.1140247583f + u * (0.0284151901f - u * 0.0354274027f)));
    const float o1 =
        t * (0.1811592579f + u * (-0.8415095806f + u * (0.5253496766f + u * (-0.2636215687f + u * 0.1287727654f))));
    const float e2 =
        0.6114130020f + u * (-0.4826360047f + u * (0.1708822697f + u * (-0.1064843088f + u * 0.0588180088f)));
    const float o2 =
        t * (-1.3366712332f + u * (1.5452775955f + u * (-0.9094993472f + u * (0.5232220888f - u * 0.2508858442f))));
    const bool left = f < 1e-6f, right = f > 1.0f - 1e-6f, whole = left || right;
    w[0] = whole ? 0.0f : e0 + o0;
    w[1] = whole ? 0.0f : e1 + o1;
    w[2] = whole ? (left ? 1.0f : 0.0f) : e2 + o2;
    w[3] = whole ? (right ? 1.0f : 0.0f) : e2 - o2;
    w[4] = whole ? 0.0f : e1 - o1;
    w[5] = whole ? 0.0f : e0 - o0;
  }
};

// --- deformable sampling: bilinear, zero outside ------------------------
// A sample at (y, x) of an image (height, width) mixes the corners of the cell it falls in, in the order (0, 0), (0,
// 1), (1, 0), (1, 1) of (row, column); corners outside the image are 0. Functions are templates over float and double.

// Whether anything is sampled: false for NaN, and wherever y <= -1, y >= height, x <= -1 or x >= width. With `edge` the
// lines y = -1 and x = -1 belong to it, too: the value there is 0, its derivative (from the right, as everywhere) is
// not.
template <class Real>
PYFOCUS_HD static inline bool deform_inside(Real y, Real x, Real height, Real width, bool edge) {
  return ((y > -1) | (edge & (y == -1))) & ((x > -1) | (edge & (x == -1))) & (y < height) & (x < width);
}

// floor of what is known to fit an int.
template <class Real>
PYFOCUS_HD static inline int deform_floor(Real v) {
  const int whole = static_cast<int>(v);
  return whole - (v < static_cast<Real>(whole));
}

// Weights of the corners, which are also the derivatives of the sample by the corners; fy, fx = what is beyond floor.
template <class Real>
PYFOCUS_HD static inline void deform_weights(Real fy, Real fx, Real* w) {
  const Real gy = 1 - fy, gx = 1 - fx;
  w[0] = gy * gx, w[1] = gy * fx, w[2] = fy * gx, w[3] = fy * fx;
}

// The sample, from the weights and the corners.
template <class Real>
PYFOCUS_HD static inline Real deform_sample(const Real* w, const Real* corner) {
  return (w[0] * corner[0] + w[1] * corner[1]) + (w[2] * corner[2] + w[3] * corner[3]);
}

// Derivatives of the sample by y and by x. Samples are linear in the corners: with sums over channels of gradient times
// corner in place of `corner`, these three give the gradients of mask and offset at once.
template <class Real>
PYFOCUS_HD static inline Real deform_by_y(Real fx, const Real* corner) {
  return (1 - fx) * (corner[2] - corner[0]) + fx * (corner[3] - corner[1]);
}

template <class Real>
PYFOCUS_HD static inline Real deform_by_x(Real fy, const Real* corner) {
  return (1 - fy) * (corner[1] - corner[0]) + fy * (corner[3] - corner[2]);
}

}  // namespace pyfocus
