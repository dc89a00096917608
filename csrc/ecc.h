// ecc: what one step of image registration by the enhanced correlation coefficient needs, in one pass over the pixels.
//
// Evangelidis & Psarakis, IEEE PAMI 30(10), 2008. The moving image i is sampled (bilinear) where `matrix` sends the
// pixels of the fixed image t; with g its gradient there and J = g dW/dp the derivative by the parameters, the sums
//
//   [ J^T J | J^T i | J^T t | J^T 1 | 1^T i | 1^T t | i^T i | t^T t | i^T t | n ]
//
// over all n pixels that both images see give zero-mean correlation, normal equations and step without a second pass.
// Parameters: the affine (u, v, 1) x (g_x, g_y) in centred, scaled coordinates; a homography has two more. Translation
// and similarity are linear combinations of the affine's columns, so the caller projects.
#pragma once

#include <cstdint>

#include "device.h"
#include "tensor.h"

namespace pyfocus {

constexpr int kEccChunkRows = 16;

// Number of sums for `parameters` = 6 (affine) or 8 (homography): the upper triangle of J^T J row by row, then the
// rest.
constexpr int ecc_sum_count(int parameters) { return parameters * (parameters + 1) / 2 + 3 * parameters + 6; }

struct EccParams {
  const float* fixed = nullptr;   // (height, width)
  const uint8_t* mask = nullptr;  // (height, width) or null: pixels of the fixed image to use
  const float* moving = nullptr;  // (moving_height, moving_width)
  int64_t height = 0, width = 0, moving_height = 0, moving_width = 0;
  double matrix[9] = {};    // fixed pixel to moving pixel
  double scale = 1;         // u = (x - centre) / scale, of the fixed image for u, v, of the moving one for a homography
  int64_t row_step = 1;     // only rows 0, step, 2 step, ... of the fixed image count
  double* chunk = nullptr;  // one row of sums per chunk of kEccChunkRows rows
};

// fixed (h, w), moving (H, W), both float32 contiguous, at least 2x2; mask (h, w) uint8 or null; matrix (3, 3) float64;
// row_step 1 to 16: a step of 2 halves the work where there are more pixels than are needed;
// workspace (ceil(h / 16), count) and sums (count) float64 with count = ecc_sum_count(parameters). Summed per chunk of
// rows in a fixed order: deterministic for any number of threads.
void ecc(const Tensor& fixed, const Tensor& moving, const Tensor* mask, const Tensor& matrix, int parameters,
         const Tensor& workspace, const Tensor& sums, int64_t row_step, const Execution& on);

}  // namespace pyfocus
