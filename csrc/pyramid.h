// pyramid: the fold of a focus stack over Laplacian pyramids, one frame at a time, in memory that does not grow.
//
// A frame's Gaussian levels are G_0 (the frame), G_{l+1} = down(G_l); its detail is L_l = G_l - up(G_{l+1}).
// down: 5-tap binomial (1 4 6 4 1)/16 in both directions, every second sample (Burt & Adelson, IEEE T-COM 31, 1983).
// Grid l+1 carries one rating R_l per pixel for all planes; frames are averaged with weights w = up(R_l)^p:
//
//   energy    e_l  = down( mean_c L_l,c^2 )                      what the level shows, pooled to the next grid
//   rate      R_l  = (S_l + v_l) [valid],  v_l = a max(mean_c G_{l+1}, 0) + b,  peak'_l = max(peak_l, R_l)
//   fold      num_l <- num_l q + w L_l,  den_l <- den_l q + w,
//             w = (up R_l / up peak'_l)^p,  q = (up peak_l / up peak'_l)^p      (no overflow, whatever p)
//   base      sum <- sum + (R + 1e-12) G,  weight <- weight + R + 1e-12         below the last level
//   collapse  O_l  = num_l / den_l + up(O_{l+1})
//
// Detail is taken from where it is strong; where frames are alike within the noise v they are averaged. All arrays are
// float32 unless said otherwise, C order, from the caller, on one device. Every function is deterministic and
// independent of the number of threads. Fewer than 2^30 rows and columns.
#pragma once

#include "device.h"
#include "tensor.h"

namespace pyfocus {

// destination (C, ceil(h/2), ceil(w/2)) = down(source) [+ add, which may be the destination itself]
void pyramid_down(const Tensor& source, const Tensor& destination, const Tensor* add, const Execution& on);

// destination (C, h, w) = gain * up(source (C, ceil(h/2), ceil(w/2))) [+ add, which may be the destination itself]
void pyramid_up(const Tensor& source, const Tensor& destination, float gain, const Tensor* add, const Execution& on);

// destination (h, w) = source smoothed by the 5-tap binomial in both directions
void pyramid_smooth(const Tensor& source, const Tensor& destination, const Execution& on);

// energy (H, W) on the coarse grid from fine (C, h, w) and coarse (C, H, W)
void pyramid_energy(const Tensor& fine, const Tensor& coarse, const Tensor& energy, const Execution& on);

// coarse (C, H, W) = down(fine), and the energy (H, W) of fine above it: down and energy (on the CPU the same bits), in
// one reading on a device
void pyramid_measure(const Tensor& fine, const Tensor& coarse, const Tensor& energy, const Execution& on);

// rating and peak (H, W) from energy (H, W) [+ gain up(coarser (ceil(H/2), ceil(W/2)))], coarse (C, H, W) = G_{l+1},
// valid (H, W) uint8 or null, and the maximum before (H, W). rating may be the energy itself, peak not before.
void pyramid_rate(const Tensor& energy, const Tensor& coarse, const Tensor* valid, float slope, float floor,
                  const Tensor& before, const Tensor& rating, const Tensor& peak, const Tensor* coarser, float gain,
                  const Execution& on);

// numerator (C, h, w) and denominator (h, w) updated with one frame. power: 1, 2, 4, 6 or 8.
void pyramid_fold(const Tensor& fine, const Tensor& coarse, const Tensor& rating, const Tensor& before,
                  const Tensor& peak, int power, const Tensor& numerator, const Tensor& denominator,
                  const Execution& on);

// destination (C, h, w), which may be the numerator itself
void pyramid_collapse(const Tensor& numerator, const Tensor& denominator, const Tensor& coarse,
                      const Tensor& destination, const Execution& on);

// destination (ceil(h/2), ceil(w/2)) uint8: 1 where all 5x5 pixels below are valid
void pyramid_valid(const Tensor& source, const Tensor& destination, const Execution& on);

// base (C, H, W) += coarse (C, H, W) * (rating (H, W) + 1e-12), weight (H, W) += rating + 1e-12
void pyramid_base(const Tensor& coarse, const Tensor& rating, const Tensor& base, const Tensor& weight,
                  const Execution& on);

// The place of the sharpest frame, all (H, W): with n = (rating / peak)^8 and q = (before / peak)^8,
// index <- index q + place n, index_weight <- index_weight q + n, total += rating, seen (int32) += rating > 0
void pyramid_depth(const Tensor& rating, const Tensor& peak, const Tensor& before, float place, const Tensor& index,
                   const Tensor& index_weight, const Tensor& total, const Tensor& seen, const Execution& on);

// destination (C, H, W) = sum (C, H, W) / weight (H, W); destination may be the sum itself
void pyramid_mean(const Tensor& sum, const Tensor& weight, const Tensor& destination, const Execution& on);

}  // namespace pyfocus
