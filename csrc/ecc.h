// ecc: image registration by the enhanced correlation coefficient; the sums of one step, or all steps.
//
// Evangelidis & Psarakis, IEEE PAMI 30(10), 2008. The moving image i is sampled (bilinear) where `matrix` sends the
// pixels of the fixed image t; with g its gradient there and J = g dW/dp the derivative by the parameters, the sums
//
//   [ J^T J | J^T i | J^T t | J^T 1 | 1^T i | 1^T t | i^T i | t^T t | i^T t | n ]
//
// over all n pixels that both images see give zero-mean correlation, normal equations and step without a second pass.
// Parameters: the affine (u, v, 1) x (g_x, g_y) in centred, scaled coordinates; a homography has two more. Translation
// and similarity are linear combinations of the affine's columns.
#pragma once

#include <cstdint>

#include "device.h"
#include "sample.h"
#include "tensor.h"

namespace pyfocus {

constexpr int kEccChunkRows = 16;

// Number of sums for `parameters` = 6 (affine) or 8 (homography): the upper triangle of J^T J row by row, then the
// rest.
PYFOCUS_HD constexpr int ecc_sum_count(int parameters) {
  return parameters * (parameters + 1) / 2 + 3 * parameters + 6;
}

// Rows of the workspace per pair of images, for a fixed image (height, width): on the CPU one per kEccChunkRows rows,
// on CUDA (`device`) one per block.
int64_t ecc_chunk_count(int64_t height, int64_t width, int64_t row_step, bool device);

struct EccParams {
  const float* fixed = nullptr;    // (height, width) per pair
  const uint8_t* mask = nullptr;   // (height, width) per pair, or null: pixels of the fixed image to use
  const float* moving = nullptr;   // (moving_height, moving_width) per pair
  const double* matrix = nullptr;  // fixed pixel to moving pixel
  int64_t fixed_stride = 0, mask_stride = 0, moving_stride = 0, matrix_stride = 0;  // elements from pair to pair
  int64_t pairs = 1, height = 0, width = 0, moving_height = 0, moving_width = 0;
  double scale = 1;         // u = (x - centre) / scale, of the fixed image for u, v, of the moving one for a homography
  int64_t row_step = 1;     // only rows 0, step, 2 step, ... of the fixed image count
  double* chunk = nullptr;  // one row of sums per chunk and pair
  int64_t chunks = 0;       // per pair
  double* sums = nullptr;   // per pair; null within ecc_maximise
  double* state = nullptr;  // of ecc_maximise; null for ecc
  int parameters = 6, motion = 0;
  int64_t begin = 0, most = 0;  // of ecc_maximise: steps already made, and steps to make
};

// matrix (3, 3) float64, or (B, 3, 3) for B pairs of images; fixed (h, w) and moving (H, W) float32, at least 2x2; mask
// (h, w) uint8 or null; with a leading B, or without: then they are the same for all pairs. All contiguous, all on one
// device. row_step 1 to 16: a step of 2 halves the work where there are more pixels than are needed.
// workspace (chunks, count), or (B, chunks, count), and sums (count), or (B, count), float64 with chunks =
// ecc_chunk_count(...) and count = ecc_sum_count(parameters). Summed per chunk in a fixed order: deterministic, for any
// number of threads. The CPU refuses a matrix that is not finite, or not affine with 6 parameters; CUDA, which must not
// wait for it, counts no pixels in the one case and ignores the last row in the other.
void ecc(const Tensor& fixed, const Tensor& moving, const Tensor* mask, const Tensor& matrix, int parameters,
         const Tensor& workspace, const Tensor& sums, int64_t row_step, const Execution& on);

// --- all steps ------------------------------------------------------------
// The Gauss-Newton loop. `state` (32), or (B, 32), float64 holds per pair
enum EccState {
  kEccMatrix = 0,       // [9] in: where to start; out: the best matrix, its last element 1
  kEccCorrelation = 9,  // out: of the best matrix (of the step before it where it converged)
  kEccIterations = 10,  // out: steps made up to the best matrix
  kEccConverged = 11,   // out: 1 where the last step moved no corner by as much as 0.004 px
  kEccFailed = 12,      // out: 1 where there is no best matrix: too little is shared, flat, not finite, or singular
  kEccDone = 13,        // out: 1 where no step is left to make
  kEccCurrent = 14,     // [9] the running matrix between centred, scaled coordinates
  kEccRunning = 23,     // [9] the same between pixels, for the sums of the next step
  kEccStateSize = 32,
};

// Fixed, moving, mask, workspace, row_step as for ecc; motion 0 translation, 1 similarity, 2 affine, 3 homography
// (count is that of 8 parameters for a homography, else of 6). Makes steps begin .. begin + most - 1, and fewer for
// pairs that are done: a caller may look at the state now and then and go on. Deterministic. On CUDA nothing waits: all
// steps are enqueued, and those of pairs that are done return at once.
void ecc_maximise(const Tensor& fixed, const Tensor& moving, const Tensor* mask, int motion, int64_t most,
                  int64_t begin, int64_t row_step, const Tensor& workspace, const Tensor& state, const Execution& on);

// A block of the CUDA kernel owns kEccTileColumns columns and so many of the rows that count: few where the image is
// small, so that all multiprocessors have work, more where adding up the blocks would take long.
constexpr int kEccTileColumns = 64, kEccTileLines = 4;

inline int64_t ecc_tile_rows(int64_t height, int64_t width, int64_t row_step) {
  constexpr int64_t kFew = 4 * kEccTileLines, kBlocks = 512, kMost = 8;
  const int64_t rows = (height + row_step - 1) / row_step, columns = (width + kEccTileColumns - 1) / kEccTileColumns;
  const int64_t times = ((rows + kFew - 1) / kFew * columns + kBlocks - 1) / kBlocks;
  return kFew * (times < 1 ? 1 : times > kMost ? kMost : times);
}

void ecc_cuda(const EccParams& p, int device, void* stream);
void ecc_maximise_cuda(const EccParams& p, int device, void* stream);

}  // namespace pyfocus
