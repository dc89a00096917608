// What ecc computes for one pixel: where it falls in the moving image, the sample there and its gradient. Host and
// device compile these very lines; internal linkage on purpose: every instruction set keeps its own copy.
//
// Positions are counted from an anchor, the first pixel of a row or tile. With s the position of the anchor (double, by
// its whole and its broken part), D the denominator there and d the way from the anchor, the position is
//
//   s + ((m - s m_w) d) / (D + m_w d) = s + d + (((m - s m_w) - D) d - (m_w d) d) / (D + m_w d)
//
// whose last term is small for maps near the identity: float is then as good as double to 1e-6 px.
#pragma once

#include <cstdint>

#include "sample.h"

namespace pyfocus {

struct EccAnchor {
  int32_t x, y;          // whole part of where the anchor falls
  float fx, fy;          // what is beyond it
  float x_by_x, x_by_y;  // how the position goes on with the way (x, y) from the anchor, less the way itself
  float y_by_x, y_by_y;
  float w, w_by_x, w_by_y;  // the denominator, of a homography
};

struct EccPlace {
  int32_t x, y;  // top left sample; 0, 0 outside
  float fx, fy;  // 0 to 1
  float w;       // 1 / denominator
  bool inside;
};

// floor of a double as (whole, rest); what is not within 1e9 of 0, or not a number, becomes -1e9: far outside.
PYFOCUS_HD static inline int32_t ecc_split(double v, float* rest) {
  const bool sane = v > -1e9 && v < 1e9;
  const double kept = sane ? v : -1e9;
  int32_t whole = static_cast<int32_t>(kept);
  whole -= static_cast<double>(whole) > kept ? 1 : 0;
  *rest = static_cast<float>(kept - static_cast<double>(whole));
  return whole;
}

// `m`: fixed to moving pixels, of which an affine uses six; (x, y) the anchor's pixel in the fixed image.
template <bool kPerspective>
PYFOCUS_HD static inline EccAnchor ecc_anchor(const double* m, double x, double y) {
  const double w = kPerspective ? m[6] * x + (m[7] * y + m[8]) : 1.0;
  const double sx = (m[0] * x + (m[1] * y + m[2])) / w, sy = (m[3] * x + (m[4] * y + m[5])) / w;
  const double wx = kPerspective ? m[6] : 0.0, wy = kPerspective ? m[7] : 0.0;
  EccAnchor a;
  a.x = ecc_split(sx, &a.fx), a.y = ecc_split(sy, &a.fy);
  a.x_by_x = static_cast<float>(m[0] - sx * wx - w), a.x_by_y = static_cast<float>(m[1] - sx * wy);
  a.y_by_x = static_cast<float>(m[3] - sy * wx), a.y_by_y = static_cast<float>(m[4] - sy * wy - w);
  a.w = static_cast<float>(w), a.w_by_x = static_cast<float>(wx), a.w_by_y = static_cast<float>(wy);
  return a;
}

// The pixel (dx, dy) >= 0 beyond the anchor's, in a moving image of (bottom + 1, right + 1).
template <bool kPerspective>
PYFOCUS_HD static inline EccPlace ecc_place(const EccAnchor& a, int32_t dx, int32_t dy, int32_t right, int32_t bottom) {
  const float x = static_cast<float>(dx), y = static_cast<float>(dy);
  float along_x = a.x_by_x * x + a.x_by_y * y, along_y = a.y_by_x * x + a.y_by_y * y;
  EccPlace at;
  at.w = 1.0f;
  if (kPerspective) {
    const float grown = a.w_by_x * x + a.w_by_y * y;
    at.w = 1.0f / (a.w + grown);
    along_x = (along_x - grown * x) * at.w, along_y = (along_y - grown * y) * at.w;
  }
  along_x += a.fx, along_y += a.fy;
  const bool sane = (along_x > -1e9f) & (along_x < 1e9f) & (along_y > -1e9f) & (along_y < 1e9f);
  along_x = sane ? along_x : -1e9f, along_y = sane ? along_y : -1e9f;
  int32_t whole_x = static_cast<int32_t>(along_x), whole_y = static_cast<int32_t>(along_y);
  whole_x -= static_cast<float>(whole_x) > along_x ? 1 : 0, whole_y -= static_cast<float>(whole_y) > along_y ? 1 : 0;
  at.fx = along_x - static_cast<float>(whole_x), at.fy = along_y - static_cast<float>(whole_y);
  at.x = a.x + dx + whole_x, at.y = a.y + dy + whole_y;
  // At the very last pixel the cell before it is used, by its far side.
  const bool last_x = (at.x == right) & (at.fx == 0), last_y = (at.y == bottom) & (at.fy == 0);
  at.x -= last_x ? 1 : 0, at.y -= last_y ? 1 : 0;
  at.fx = last_x ? 1.0f : at.fx, at.fy = last_y ? 1.0f : at.fy;
  at.inside = (at.x >= 0) & (at.x < right) & (at.y >= 0) & (at.y < bottom);
  at.x = at.inside ? at.x : 0, at.y = at.inside ? at.y : 0;
  return at;
}

struct EccSample {
  float value, gx, gy;  // the bilinear sample and its derivatives by x and y
};

PYFOCUS_HD static inline EccSample ecc_sample(float top_left, float top_right, float low_left, float low_right,
                                              const EccPlace& at) {
  const float top = top_right - top_left, low = low_right - low_left, down = low_left - top_left;
  EccSample s;
  s.gx = top + at.fy * (low - top);
  s.gy = down + at.fx * ((low_right - top_right) - down);
  s.value = (top_left + at.fy * down) + at.fx * s.gx;
  return s;
}

// What a homography's two further parameters multiply: -(g . W), W the position from the moving image's centre.
PYFOCUS_HD static inline float ecc_along(float gx, float gy, const EccPlace& at, float centre_x, float centre_y) {
  return -(gx * ((static_cast<float>(at.x) - centre_x) + at.fx) + gy * ((static_cast<float>(at.y) - centre_y) + at.fy));
}

}  // namespace pyfocus
