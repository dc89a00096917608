// ecc: align one image to another by maximising their enhanced correlation coefficient.
//
//   rho(M) = <t - mean t, w - mean w> / (|t - mean t| |w - mean w|),   w(x, y) = moving(M (x, y, 1))
//
// t is the fixed image. rho is invariant to gain and offset of either image. Gauss-Newton, forward additive
// (Evangelidis & Psarakis, IEEE TPAMI 30(10), 2008). One pass over the fixed image per iteration; moving is sampled
// bilinearly, its gradient is that of the bilinear surface.
// Bytes per pixel and iteration: 4 of fixed, 4 of moving (from cache: 16 gathered).
#pragma once

#include <cstdint>

#include "tensor.h"

namespace pyfocus {

enum class Motion { Translation = 0, Similarity = 1, Affine = 2, Homography = 3 };

constexpr int motion_size(Motion motion) {
  constexpr int kSizes[] = {2, 4, 6, 8};
  return kSizes[static_cast<int>(motion)];
}

// What one row of the fixed image adds up to. Its vectors are a_k and a_k X for the 2 (3) gradient components a, then
// moving, fixed and 1, where X is the normalised column; the sums are their Gram matrix, lower triangle.
constexpr int kEccVectors = 9;
constexpr int kEccPairs = kEccVectors * (kEccVectors + 1) / 2;
constexpr int kEccSums = 3 * kEccPairs;  // the Gram matrices weighted with 1, Y and Y^2, Y the normalised row
constexpr int64_t kEccGrain = 16;        // rows per partial sum

struct EccParams {
  const float* fixed = nullptr;           // (height, width)
  const float* moving = nullptr;          // (moving_height, moving_width)
  const uint8_t* fixed_mask = nullptr;    // (height, width), 0 = leave out; or null
  const uint8_t* moving_mask = nullptr;   // (moving_height, moving_width), or null
  int64_t height = 0, width = 0, moving_height = 0, moving_width = 0;
  int64_t fixed_stride = 0, moving_stride = 0, fixed_mask_stride = 0, moving_mask_stride = 0;  // between rows
  double matrix[9] = {};                  // destination (fixed) pixel to source (moving) pixel
  double centre_x = 0, centre_y = 0, moving_x = 0, moving_y = 0, scale = 1;  // of the normalised coordinates
  float fixed_level = 0, moving_level = 0;  // subtracted, so that float sums keep their digits
  bool projective = false;
  double* sums = nullptr;                 // (chunks, kEccSums)
};

struct EccResult {
  double correlation = 0;  // at the returned matrix; NaN when it could not be computed
  double overlap = 0;      // share of the fixed image's pixels that were used
  int iterations = 0;      // passes over the image
  bool converged = false;  // the last update moved no corner by more than epsilon_px
};

// float64 elements of `workspace` for a fixed image of this height.
int64_t ecc_workspace(int64_t height);

// matrix (3, 3) float64: first guess in, best estimate out (kept when nothing could be computed). fixed (h, w) and
// moving (H, W) float32, rows contiguous; masks uint8 or null. Data that cannot be aligned (flat, no overlap, not
// finite) is a result with converged = false, never an error. Same bits for any number of threads.
EccResult ecc(const Tensor& fixed, const Tensor& moving, const Tensor& matrix, Motion motion, int max_iterations,
              double epsilon_px, const Tensor* fixed_mask, const Tensor* moving_mask, const Tensor& workspace,
              int threads);

// One pass: normal (n + 4, n + 4) float64 receives the Gram matrix of [J_1..J_n, moving, fixed, 1, 0] about the levels
// it subtracts, then in the last row [moving level, fixed level, correlation, count, 0..]. For tests.
void ecc_normal(const Tensor& fixed, const Tensor& moving, const Tensor& matrix, Motion motion,
                const Tensor* fixed_mask, const Tensor* moving_mask, const Tensor& workspace, const Tensor& normal,
                int threads);

}  // namespace pyfocus
