// luminance on CUDA. One thread per destination pixel sums its block, row by row, plane by plane.
// Block (32 x 8 threads) owns 32 x 8 destination pixels. Bytes: the source is read once (factor / row_step of its
// rows), 4 / factor^2 written per source pixel. Deterministic. Sums per pixel, not per row as on the CPU: equal to
// 1e-6.
#include "launch.cuh"
#include "luminance.h"
#include "planes.cuh"

namespace pyfocus {
namespace {

struct LuminanceKernel {
  using Params = LuminanceParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kWidth = 32, kHeight = 8, kThreads = kWidth * kHeight, kPhases = 1;

  template <class T>
  PYFOCUS_HD static float block_sum(const Params& p, int64_t y0, int64_t x0) {
    float total = 0;
    for (int64_t j = 0; j < p.factor; j += p.row_step)
      for (int plane = 0; plane < p.source.planes; ++plane) {
        if (p.weight[plane] == 0) continue;
        float sum = 0;
        for (int64_t k = 0; k < p.factor; ++k) sum += load_value<T>(p.source, plane, y0 + j, x0 + k);
        total += sum * p.weight[plane];
      }
    return total;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t x = int64_t{at.x} * kWidth + at.thread % kWidth, y = int64_t{at.y} * kHeight + at.thread / kWidth;
    if (x >= p.width || y >= p.height) return;
    const Dtype dtype = p.source.dtype;
    const float sum = dtype == Dtype::U8    ? block_sum<uint8_t>(p, y * p.factor, x * p.factor)
                      : dtype == Dtype::U16 ? block_sum<uint16_t>(p, y * p.factor, x * p.factor)
                                            : block_sum<float>(p, y * p.factor, x * p.factor);
    const int64_t rows = (p.factor + p.row_step - 1) / p.row_step;
    const float mean = sum / static_cast<float>(p.factor * rows);
    p.destination[y * p.width + x] = p.square_root ? sqrtf(mean > 0 ? mean : 0.0f) : mean;
  }
};

}  // namespace

void luminance_cuda(const LuminanceParams& p, int device, void* stream) {
  launch<LuminanceKernel>("luminance",
                          {blocks(p.width, LuminanceKernel::kWidth), blocks(p.height, LuminanceKernel::kHeight)}, p,
                          device, stream);
}

}  // namespace pyfocus
