// thin on CUDA. A block owns 32 x 8 pixels of the destination, of one plane; a thread one of them.
// Bytes per value: a sector of 32 read (fewer where the step is short), 1 or 4 written. Deterministic.
#include "launch.cuh"
#include "thin.h"

namespace pyfocus {
namespace {

struct ThinKernel {
  using Params = ThinParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kWidth = 32, kHeight = 8, kThreads = kWidth * kHeight, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t x = int64_t{at.x} * kWidth + at.thread % kWidth, y = int64_t{at.y} * kHeight + at.thread / kWidth;
    if (x >= p.width || y >= p.height) return;
    const int64_t from = at.z * p.plane_stride + y * p.row_stride + x * p.column_stride;
    const int64_t to = (at.z * p.height + y) * p.width + x;
    if (p.dtype == Dtype::U8)
      static_cast<uint8_t*>(p.destination)[to] = static_cast<const uint8_t*>(p.source)[from];
    else
      static_cast<float*>(p.destination)[to] = static_cast<const float*>(p.source)[from];
  }
};

}  // namespace

void thin_cuda(const ThinParams& p, int device, void* stream) {
  launch<ThinKernel>("thin", {blocks(p.width, ThinKernel::kWidth), blocks(p.height, ThinKernel::kHeight), p.planes}, p,
                     device, stream);
}

}  // namespace pyfocus
