// ecc on the CPU. A row is walked in blocks of 256 pixels: positions and four taps of the moving image give value and
// gradient in small arrays on the stack; then the Gram matrix of those arrays is added to 16 float lanes per pair. After
// a row the lanes go to double. Row sums of y-weighted terms need no further arrays: y is constant in a row.
// Affine, similarity and translation share one pass (their Jacobians are linear in each other); homography has a third
// gradient component. The lanes are the same for every instruction set, and chunks of 16 rows are added in order.
#include "ecc.h"

#include "isa.h"
#include "parallel.h"

#if defined(PYFOCUS_LAUNCHER)
#include <cmath>
#include <cstring>
#endif

namespace pyfocus {

PYFOCUS_KERNEL(void, ecc_rows, const EccParams& p, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {
namespace {

constexpr int kBlock = 256, kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(kLanes * sizeof(float))));

struct Block {
  alignas(64) float vector[kEccVectors][kBlock];
};

// Clamped to [low, high]; NaN becomes low.
inline float clamp(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

inline int64_t floor_within(double v, int64_t high) {
  if (!(v > 0)) return 0;
  return v < static_cast<double>(high) ? static_cast<int64_t>(v) : high;
}

// Value and gradient of the moving image at the positions of `count` pixels from (x0, y). Positions are kept relative
// to the pixel (base_x, base_y) under the block's start: floats then resolve 1/65536 px at any image size.
template <bool kProjective>
void sample(const EccParams& p, int64_t x0, int64_t y, int count, Block* block) {
  constexpr int kComponents = kProjective ? 3 : 2;
  const double* m = p.matrix;
  const double x = static_cast<double>(x0), row = static_cast<double>(y);
  const double n0 = m[0] * x + m[1] * row + m[2], n1 = m[3] * x + m[4] * row + m[5];
  const double d = kProjective ? m[6] * x + m[7] * row + m[8] : 1.0;
  const int64_t base_x = floor_within(n0 / d, p.moving_width - 2), base_y = floor_within(n1 / d, p.moving_height - 2);
  const double bx = static_cast<double>(base_x), by = static_cast<double>(base_y);
  const float u0 = static_cast<float>(n0 - bx * d), v0 = static_cast<float>(n1 - by * d);
  const float u1 = static_cast<float>(m[0] - (kProjective ? bx * m[6] : 0.0));
  const float v1 = static_cast<float>(m[3] - (kProjective ? by * m[6] : 0.0));
  const float d0 = static_cast<float>(d), d1 = static_cast<float>(m[6]);
  const float left = static_cast<float>(-base_x), top = static_cast<float>(-base_y);
  const float right = static_cast<float>(p.moving_width - 1 - base_x);
  const float bottom = static_cast<float>(p.moving_height - 1 - base_y);
  const float last_x = right - 1.0f, last_y = bottom - 1.0f;
  const float* fixed = p.fixed + y * p.fixed_stride + x0;
  const uint8_t* fixed_mask = p.fixed_mask ? p.fixed_mask + y * p.fixed_mask_stride + x0 : nullptr;
  const int stride = static_cast<int>(p.moving_stride);
  const float* moving = p.moving + base_y * p.moving_stride + base_x;
  alignas(64) float fx[kBlock], fy[kBlock], inverse[kBlock], valid[kBlock];
  alignas(64) int32_t tap[kBlock];
  for (int i = 0; i < count; ++i) {
    const float k = static_cast<float>(i);
    float u = u0 + u1 * k, v = v0 + v1 * k, w = 1.0f;
    if (kProjective) {
      const float depth = d0 + d1 * k;
      w = depth > 1e-6f ? 1.0f / depth : 0.0f;
      u *= w, v *= w;
    }
    const bool inside = (u >= left) & (u <= right) & (v >= top) & (v <= bottom) & (!kProjective | (w > 0.0f));
    u = clamp(u, left, right), v = clamp(v, top, bottom);
    const float cell_x = clamp(__builtin_floorf(u), left, last_x), cell_y = clamp(__builtin_floorf(v), top, last_y);
    fx[i] = u - cell_x, fy[i] = v - cell_y;
    tap[i] = static_cast<int32_t>(cell_y) * stride + static_cast<int32_t>(cell_x);
    valid[i] = inside ? 1.0f : 0.0f;
    if (kProjective) inverse[i] = w;
  }
  if (fixed_mask)
    for (int i = 0; i < count; ++i) valid[i] = fixed_mask[i] ? valid[i] : 0.0f;
  if (p.moving_mask) {
    const int mask_stride = static_cast<int>(p.moving_mask_stride);
    const uint8_t* mask = p.moving_mask + base_y * p.moving_mask_stride + base_x;
    for (int i = 0; i < count; ++i) {  // rare: no need to be fast
      const int line = tap[i] >= 0 ? (tap[i] / stride) : -((-tap[i] + stride - 1) / stride);
      const uint8_t* cell = mask + line * mask_stride + (tap[i] - line * stride);
      valid[i] = cell[0] && cell[1] && cell[mask_stride] && cell[mask_stride + 1] ? valid[i] : 0.0f;
    }
  }
  float(*out)[kBlock] = block->vector;
  const float scale = static_cast<float>(p.scale), unit = static_cast<float>(1.0 / p.scale);
  const float centre = static_cast<float>((x - p.centre_x) / p.scale);
  const float qx = static_cast<float>((bx - p.moving_x) / p.scale), qy = static_cast<float>((by - p.moving_y) / p.scale);
  const float moving_level = p.moving_level, fixed_level = p.fixed_level;
  for (int i = 0; i < count; ++i) {
    const float* at = moving + tap[i];
    const float a = at[0], b = at[1], c = at[stride], e = at[stride + 1];
    const float ab = b - a, ce = e - c, above = a + fx[i] * ab, below = c + fx[i] * ce;
    const bool use = valid[i] > 0.0f;
    float gx = use ? (ab + fy[i] * (ce - ab)) * scale : 0.0f;
    float gy = use ? (below - above) * scale : 0.0f;
    const float column = centre + static_cast<float>(i) * unit;
    if (kProjective) {
      gx *= inverse[i], gy *= inverse[i];
      const float px = qx + (fx[i] + static_cast<float>(0)) * unit, py = qy + fy[i] * unit;
      out[4][i] = px, out[5][i] = py;  // completed below, where the tap's cell is known
    }
    out[0][i] = gx, out[1][i] = gx * column;
    out[2][i] = gy, out[3][i] = gy * column;
    out[2 * kComponents][i] = use ? above + fy[i] * (below - above) - moving_level : 0.0f;
    out[2 * kComponents + 1][i] = use ? fixed[i] - fixed_level : 0.0f;
    out[2 * kComponents + 2][i] = valid[i];
  }
  for (int k = 0; k < 2 * kComponents + 3; ++k)
    for (int i = count; i < kBlock && (i & (kLanes - 1)); ++i) out[k][i] = 0.0f;
}

}  // namespace
}  // namespace PYFOCUS_ISA
}  // namespace pyfocus
