// wavelet: the fold of a focus stack over complex Daubechies wavelets, one frame at a time, in memory that does not
// grow.
//
// Filters of 6 taps (Daubechies' second choice of roots, which is symmetric; Lina & Mayrand, ACHA 2, 1995; used for
// extended depth of field by Forster et al., Microsc. Res. Tech. 65, 2004), orthonormal:
//   h = sqrt(2)/64 (-3-ir, 5-ir, 30+2ir, 30+2ir, 5-ir, -3-ir),  r = sqrt(15),   g[n] = (-1)^n conj(h[n])
// A step splits a grid (h, w) into four of (H, W) = (ceil(h/2), ceil(w/2)), along the columns and along the rows:
//   low[k] = sum_n h[n] x[2k + n - 2],  high[k] = sum_n g[n] x[2k + n - 2]
// The grid goes on beyond its borders as a mirror that repeats the edge; an odd one repeats its last row or column
// once. h is symmetric and g antisymmetric about half a sample, so the mirror costs no further coefficients: sums of
// squares stay, and the way back, with conj(h) and conj(g), is exact. Sample k of (H, W) lies at 2k + 1/2 of (h, w).
//
// A frame's levels are low_0 (the frame, real), low_{l+1} = low of low_l (complex); bands b_l are the other three: low
// along the columns and high along the rows, the other way round, and high along both. Per level, on its grid (H, W):
//   measure  low_{l+1}, and the energy e_l = mean over bands and planes of |b_l|^2
//   fold     sums <- sums q + w b_l,  weight <- weight q + w,   one w for the three bands of all planes,
//            w = (R_l / peak'_l)^p,  q = (peak_l / peak'_l)^p   (pyramid.h has R and peak; no overflow, whatever p)
//   merge    low_l = the step back, of low_{l+1} and sums / weight
// fold splits again rather than read what measure found: 6 planes less to write, to read, and to have room for.
//
// All arrays are float32 unless said otherwise, C order, from the caller, on one device. C complex planes are 2C
// planes, the real parts first; three bands of them are (3, 2C, H, W). Every function is deterministic and independent
// of the number of threads. Fewer than 2^30 rows and columns.
#pragma once

#include "device.h"
#include "tensor.h"

namespace pyfocus {

// low (2C, H, W) and energy (H, W) of fine: (C, h, w) real or (2C, h, w) complex.
void wavelet_measure(const Tensor& fine, const Tensor& low, const Tensor& energy, const Execution& on);

// sums (3, 2C, H, W) and weight (H, W) updated with one frame. power: 4 or 8.
void wavelet_fold(const Tensor& fine, const Tensor& rating, const Tensor& before, const Tensor& peak, int power,
                  const Tensor& sums, const Tensor& weight, const Execution& on);

// destination: (C, h, w), the real part, or (2C, h, w); a band is 0 where the weight is.
void wavelet_merge(const Tensor& low, const Tensor& sums, const Tensor& weight, const Tensor& destination,
                   const Execution& on);

// destination (H, W) = gain * source (h, w) under (1 3 3 1)/8 in both directions [+ add, which may be the destination]
void wavelet_pool(const Tensor& source, const Tensor& destination, float gain, const Tensor* add, const Execution& on);

// destination (h, w) = gain * source (H, W) interpolated, (3 1)/4 in both directions [+ add, which may be the
// destination]
void wavelet_spread(const Tensor& source, const Tensor& destination, float gain, const Tensor* add,
                    const Execution& on);

// destination (H, W) uint8: 1 where at least two of the 2x2 pixels of source (h, w) are valid between which a
// coefficient lies. The filters see four more on every side, with a quarter of the weight: were those asked for, too,
// frames that miss a few pixels of a border would be lost far into the picture on coarse levels.
void wavelet_valid(const Tensor& source, const Tensor& destination, const Execution& on);

}  // namespace pyfocus
