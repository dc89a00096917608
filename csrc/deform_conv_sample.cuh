// Where the taps of deform_conv lie on CUDA, and what is sampled there.
#pragma once

#include "deform_conv.cuh"

namespace pyfocus {

// One tap of one pixel: the cell of its first corner, how far beyond it, and the mask.
template <class Real>
struct Spot {
  int cell, y, x;  // y, x: its row and column
  Real fy, fx, scale;

  PYFOCUS_HD void weights(Real* w) const {  // of the corners, times the mask
    deform_weights(fy, fx, w);
    for (int i = 0; i < 4; ++i) w[i] *= scale;
  }
};

// As find_places of the CPU: the cell of what samples nothing is 0, under zeros. With `edge`, where derivatives count.
template <class Real>
PYFOCUS_HD static inline Spot<Real> find_spot(const DeformDevice& p, int image, int offset_group, int tap, int y, int x,
                                              bool edge) {
  const int64_t area = p.pixels(), at = y * static_cast<int64_t>(p.out_width) + x,
                plane = (static_cast<int64_t>(image) * p.offset_groups + offset_group) * p.taps + tap;
  const Real* offset = static_cast<const Real*>(p.offset) + 2 * plane * area + at;
  const int i = tap / p.kernel_width, j = tap - i * p.kernel_width;
  const Real py = (static_cast<Real>(y * p.stride[0] - p.pad[0]) + static_cast<Real>(i * p.dilation[0])) + offset[0],
             px = (static_cast<Real>(x * p.stride[1] - p.pad[1]) + static_cast<Real>(j * p.dilation[1])) + offset[area];
  const bool inside = deform_inside(py, px, static_cast<Real>(p.height), static_cast<Real>(p.width), edge);
  const Real sy = inside ? py : Real(-2), sx = inside ? px : Real(-1);
  const int iy = deform_floor(sy), ix = deform_floor(sx);
  Spot<Real> out;
  out.y = iy + 2, out.x = ix + 1;
  out.cell = out.y * (p.width + 2) + out.x;
  out.fy = sy - static_cast<Real>(iy), out.fx = sx - static_cast<Real>(ix);
  out.scale = p.mask ? static_cast<const Real*>(p.mask)[plane * area + at] : Real(1);
  return out;
}

// The four corners of `cell` in a pack, first element of which is `plane`.
template <class T>
struct Corners {
  Pack<T> of[4];

  PYFOCUS_HD Corners(const DeformDevice& p, const T* plane, int cell) {
    const Pack<T>* from = reinterpret_cast<const Pack<T>*>(plane) + cell;
    of[0] = from[0], of[1] = from[1], of[2] = from[p.width + 2], of[3] = from[p.width + 3];
  }
};

template <class T>
PYFOCUS_HD static inline const T* packed_plane(const DeformDevice& p, int image, int segment, int pack) {
  const int packs = DeformShape<T>::packs(p);
  const int64_t plane = (static_cast<int64_t>(image) * (p.channels / p.segment) + segment) * packs + pack;
  return static_cast<const T*>(p.packed) + plane * p.cells * Pack<T>::kCount;
}

// Columns of one pixel: units first, first + step, ... of the `count` from `begin` on, of a group, each as the rows of
// its pack, `row_step` apart. Zeros where nothing is seen and past the last unit.
template <class T>
PYFOCUS_HD static inline void sample_units(const DeformDevice& p, int image, int group, int y, int x, int begin,
                                           int count, int first, int step, int row_step, T* to) {
  using Real = RealOf<T>;
  constexpr int kPack = Pack<T>::kCount;
  const int packs = DeformShape<T>::packs(p), units = DeformShape<T>::units(p);
  const bool seen = y < p.out_height && x < p.out_width;
  Spot<Real> spot;
  Real w[4];
  int found = -1;
#if defined(__CUDA_ARCH__)
#pragma unroll(kIsHalf<T> ? 1 : 2)
#endif
  for (int k = first; k < count; k += step) {
    const int place = (begin + k) / packs, pack = begin + k - place * packs, tap = place % p.taps;
    T* rows = to + k * kPack * row_step;
    if (!seen || begin + k >= units) {
      for (int i = 0; i < kPack; ++i) rows[i * row_step] = T{};
      continue;
    }
    const int segment = group * p.group_segments() + place / p.taps;
    if (place != found) {
      found = place;
      spot = find_spot<Real>(p, p.image + image, segment * p.segment / p.offset_channels(), tap, y, x, false);
      spot.weights(w);
    }
    const Corners<T> corners(p, packed_plane<T>(p, image, segment, pack), spot.cell);
    for (int i = 0; i < kPack; ++i) {
      const Real corner[4] = {widened(corners.of[0].v[i]), widened(corners.of[1].v[i]), widened(corners.of[2].v[i]),
                              widened(corners.of[3].v[i])};
      rows[i * row_step] = Narrow<T>::of(deform_sample(w, corner));
    }
  }
}

}  // namespace pyfocus
