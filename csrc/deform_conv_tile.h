// What the loops of deform_conv work with: where a tile's taps lie, and the product of small matrices.
#pragma once

#include "deform_conv_half.h"
#include "sample.h"

namespace pyfocus::PYFOCUS_ISA {
namespace {

// --- where the taps lie --------------------------------------------------

template <class Real>
struct Pixels {  // of one tile
  int64_t first, count, padded;
  Real y[kDeformTile], x[kDeformTile];  // of tap (0, 0) without its offset
};

template <class Real>
inline void find_pixels(const DeformConvParams& p, int64_t tile, Pixels<Real>* out) {
  out->first = tile * p.tile;
  out->count = smaller(p.tile, p.pixels() - out->first);
  out->padded = ceil_div(out->count, kDeformPanel<Real>) * kDeformPanel<Real>;
  int64_t y = out->first / p.out_width, x = out->first % p.out_width;
  for (int64_t q = 0; q < out->count; ++q) {
    out->y[q] = static_cast<Real>(y * p.steps.stride[0] - p.steps.pad[0]);
    out->x[q] = static_cast<Real>(x * p.steps.stride[1] - p.steps.pad[1]);
    if (++x == p.out_width) x = 0, ++y;
  }
}

// Cells in a bordered plane, two rows of zeros above the image and one around it: a cell outside is the one at 0.
template <class Real>
struct Places {
  int32_t at[kDeformTile];
  Real fy[kDeformTile], fx[kDeformTile], scale[kDeformTile];  // scale: the mask
  Real weight[4][kDeformTile];                                // of the corners, times the mask
};

template <class Real>
inline void find_places(const DeformConvParams& p, const Pixels<Real>& pixels, int64_t group, int64_t tap, bool edge,
                        Places<Real>* __restrict out) {
  const int64_t plane = (p.image * p.steps.offset_groups + group) * p.taps() + tap, area = p.pixels();
  const Real* __restrict dy = static_cast<const Real*>(p.offset) + 2 * plane * area + pixels.first;
  const Real* __restrict dx = dy + area;
  const Real* __restrict mask = p.mask ? static_cast<const Real*>(p.mask) + plane * area + pixels.first : nullptr;
  const Real ty = static_cast<Real>(tap / p.kernel[1] * p.steps.dilation[0]),
             tx = static_cast<Real>(tap % p.kernel[1] * p.steps.dilation[1]), height = static_cast<Real>(p.height),
             width = static_cast<Real>(p.width);
  const int32_t stride = static_cast<int32_t>(p.width) + 2;
  for (int64_t q = 0; q < pixels.count; ++q) out->scale[q] = mask ? mask[q] : Real(1);
  for (int64_t q = 0; q < pixels.count; ++q) {
    const Real y = (pixels.y[q] + ty) + dy[q], x = (pixels.x[q] + tx) + dx[q];
    const bool inside = deform_inside(y, x, height, width, edge);
    const Real sy = inside ? y : Real(-2), sx = inside ? x : Real(-1);
    const int32_t iy = deform_floor(sy), ix = deform_floor(sx);
    out->at[q] = (iy + 2) * stride + (ix + 1);
    out->fy[q] = sy - static_cast<Real>(iy), out->fx[q] = sx - static_cast<Real>(ix);
  }
  for (int64_t q = pixels.count; q < pixels.padded; ++q) out->at[q] = 0, out->fy[q] = out->fx[q] = out->scale[q] = 0;
  for (int64_t q = 0; q < pixels.padded; ++q) {
    Real w[4];
    deform_weights(out->fy[q], out->fx[q], w);
    for (int i = 0; i < 4; ++i) out->weight[i][q] = out->scale[q] * w[i];
  }
}

// --- the product ---------------------------------------------------------

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kBlock = 8;  // 16 of 32 registers hold sums
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kBlock = 4;  // 8 of 16
#else
constexpr int kVectorBytes = 16, kBlock = 4;
#endif

template <class Real>
struct Wide {
  typedef Real Vector __attribute__((vector_size(kVectorBytes)));
  typedef Real Loose __attribute__((vector_size(kVectorBytes), aligned(sizeof(Real)), may_alias));
  static constexpr int64_t kCount = kVectorBytes / static_cast<int64_t>(sizeof(Real));
};

// c[r, j] = sum over s of a[r kRowStep + s step] b[s, j], added to c if `add`; b and c in panels. Terms are added in
// the order of s whatever the blocks, so every instruction set gives the same sum.
template <int64_t kRowStep, int kRows, class Real>
inline void multiply_block(const Real* a, int64_t step, const Real* b, int64_t steps, int64_t used, bool add, Real* c) {
  using Vector = typename Wide<Real>::Vector;
  using Loose = typename Wide<Real>::Loose;
  constexpr int64_t kCount = Wide<Real>::kCount, kPanel = kDeformPanel<Real>;
  for (int64_t j = 0; j < used; j += 2 * kCount) {
    Vector sum[kRows][2] = {};
    const Real* left = a;
    for (int64_t s = 0; s < steps; ++s, left += step) {
      const Vector b0 = *reinterpret_cast<const Loose*>(b + s * kPanel + j),
                   b1 = *reinterpret_cast<const Loose*>(b + s * kPanel + j + kCount);
      for (int r = 0; r < kRows; ++r) {
        const Real scale = left[r * kRowStep];
        sum[r][0] += scale * b0, sum[r][1] += scale * b1;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      Loose* to = reinterpret_cast<Loose*>(c + r * kPanel + j);
      if (add) sum[r][0] += to[0], sum[r][1] += to[1];
      to[0] = sum[r][0], to[1] = sum[r][1];
    }
  }
}

template <int64_t kRowStep, class Real>
inline void multiply(const Real* a, int64_t step, const Real* b, int64_t steps, int64_t rows, int64_t used, bool add,
                     Real* c) {
  int64_t r = 0;
  for (; r + kBlock <= rows; r += kBlock)
    multiply_block<kRowStep, kBlock>(a + r * kRowStep, step, b, steps, used, add, c + r * kDeformPanel<Real>);
  for (; r < rows; ++r)
    multiply_block<kRowStep, 1>(a + r * kRowStep, step, b, steps, used, add, c + r * kDeformPanel<Real>);
}

}  // namespace
}  // namespace pyfocus::PYFOCUS_ISA
