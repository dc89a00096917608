// agree on CUDA. A thread makes four pixels: of a residual, a block apart, so that neighbouring threads read
// neighbours; of a mask, next to each other in a row. Bytes per pixel: 12 for a residual, 1 + 4 / factor^2 for a mask.
// Deterministic.
#include "agree.h"
#include "launch.cuh"

namespace pyfocus {
namespace {

constexpr int kEach = 4;

struct ResidualKernel {
  using Params = AgreeParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t first = int64_t{at.x} * (kThreads * kEach) + at.thread, count = p.height * p.width;
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = first + k * kThreads;
      if (i < count) p.residual[i] = fabsf(p.warped[i] * p.gain + p.offset - p.fixed[i]);
    }
  }
};

struct MaskKernel {
  using Params = AgreeParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kWidth = 32, kHeight = 8, kThreads = kWidth * kHeight, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t x0 = (int64_t{at.x} * kWidth + at.thread % kWidth) * kEach,
                  y = int64_t{at.y} * kHeight + at.thread / kWidth;
    if (y >= p.height) return;
    const int shift = p.factor == 2 ? 1 : 0;
    const float* from = p.difference + (y >> shift) * p.coarse_width;
    for (int64_t x = x0; x < x0 + kEach && x < p.width; ++x)
      p.mask[y * p.width + x] = from[x >> shift] <= p.threshold ? 1 : 0;
  }
};

}  // namespace

void agree_residual_cuda(const AgreeParams& p, int device, void* stream) {
  launch<ResidualKernel>("agree_residual", {blocks(p.height * p.width, ResidualKernel::kThreads * kEach)}, p, device,
                         stream);
}

void agree_mask_cuda(const AgreeParams& p, int device, void* stream) {
  launch<MaskKernel>("agree_mask", {blocks(p.width, MaskKernel::kWidth * kEach), blocks(p.height, MaskKernel::kHeight)},
                     p, device, stream);
}

}  // namespace pyfocus
