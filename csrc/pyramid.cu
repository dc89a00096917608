// The pyramid on CUDA: rate, base, depth and mean here; pyramid_measure.cu, pyramid_stencil.cu and pyramid_fold.cu hold
// the others. A frame cannot be folded in one pass: its ratings need the energy of coarser levels. So per level
//   measure  reads G_l once, writes G_{l+1} and e_l;  smooth, down and up of the ratings run on the grid below
//   rate     from the energy; one writes the running maximum beside the old one, so that fold sees both
//   fold     reads G_l, G_{l+1}, rating, before and peak once, reads and writes the accumulators once
//
// Bytes of a frame of N pixels and C = 3 planes, each array once, on level 0:
//   measure 12 N + 3 N + N   fold 12 N + 3 N + 3 N + 2 (12 + 4) N   rate 5 1/4 N + 2 N   smooth 2 N   down of e 1 1/2 N
// which is 77 N, and 103 N for all levels with the up of the energies (3/4 N); depth adds 2 3/4 N, a mask 2 N. 24 MP:
// 2.5 GB, or 0.76 ms at the 3.35 TB/s of an H100 and 1.27 ms at 60 % of it. What no order of work can do without is the
// frame twice and the accumulators, 56 N on level 0, 75 N for all: 1.8 GB.
//
// rate: a thread owns 4 x 2 pixels of the coarse grid (pyramid_patch.cuh, one grid further down), the rest one pixel.
// Deterministic; the CPU's sums in the CPU's order.
#include "pyramid_patch.cuh"

namespace pyfocus {
namespace {

struct RateKernel {
  using Params = PatchParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPatchThreads, kPhases = 1, kBlocksPerSm = 3;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& params, const At& at, Shared&, Local&) {
    const PyramidParams& p = params.p;
    const Patch patch = patch_of(at, p.coarse_height, p.coarse_width);
    if (!patch.inside()) return;
    if (params.wide)
      rate<true>(p, patch);
    else
      rate<false>(p, patch);
  }

  template <bool kWide>
  PYFOCUS_HD static void rate(const PyramidParams& p, const Patch& patch) {
    const float mean = 1.0f / static_cast<float>(p.planes);
    const int64_t area = p.coarse_height * p.coarse_width;
    const int rows = patch.rows();
    Four lower[2] = {};
    if (p.coarser) expand(p.coarser, cell_of(patch, p.coarser_height, p.coarser_width), lower);
    for (int j = 0; j < 2; ++j) {
      if (j >= rows) break;
      const int64_t at = patch.at(j);
      Four light = load_four<kWide>(p.coarse + at, patch);
      for (int plane = 1; plane < p.planes; ++plane) {
        const Four more = load_four<kWide>(p.coarse + plane * area + at, patch);
        for (int k = 0; k < 4; ++k) light.v[k] += more.v[k];
      }
      Four rating = load_four<kWide>(p.energy + at, patch), peak = load_four<kWide>(p.before + at, patch);
      for (int k = 0; k < 4; ++k) {
        if (p.coarser) rating.v[k] += p.gain * lower[j].v[k];
        rating.v[k] = rate_one(rating.v[k], light.v[k] * mean, p.slope, p.floor);
        if (p.valid && patch.x + k < patch.width && !p.valid[at + k]) rating.v[k] = 0;
        peak.v[k] = rating.v[k] > peak.v[k] ? rating.v[k] : peak.v[k];
      }
      store_four<kWide>(p.rating_out + at, patch, rating);
      store_four<kWide>(p.peak_out + at, patch, peak);
    }
  }
};

// One thread per pixel of the coarse grid.
constexpr int kPixels = 256;

struct BaseKernel {
  using Params = PyramidParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPixels, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t area = p.coarse_height * p.coarse_width, i = int64_t{at.x} * kPixels + at.thread;
    if (i >= area) return;
    const float weight = p.rating[i] + kLeast;
    p.denominator[i] += weight;
    for (int plane = 0; plane < p.planes; ++plane) p.numerator[plane * area + i] += p.coarse[plane * area + i] * weight;
  }
};

struct DepthKernel {
  using Params = PyramidParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPixels, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t i = int64_t{at.x} * kPixels + at.thread;
    if (i >= p.coarse_height * p.coarse_width) return;
    const DepthSums sums = follow_one(p.rating[i], p.peak[i], p.before[i], p.place,
                                      {p.index[i], p.index_weight[i], p.total[i], p.seen[i]});
    p.index[i] = sums.index, p.index_weight[i] = sums.weight, p.total[i] = sums.total, p.seen[i] = sums.seen;
  }
};

struct MeanKernel {
  using Params = PyramidParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPixels, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t area = p.coarse_height * p.coarse_width, i = int64_t{at.x} * kPixels + at.thread;
    if (i < area) p.out[at.y * area + i] = p.numerator_in[at.y * area + i] / p.denominator_in[i];
  }
};

Grid pixel_grid(const PyramidParams& p, int planes) {
  return {blocks(p.coarse_height * p.coarse_width, kPixels), planes};
}

}  // namespace

void pyramid_rate_cuda(const PyramidParams& p, int device, void* stream) {
  const void* arrays[] = {p.energy, p.coarse, p.before, p.rating_out, p.peak_out};
  launch<RateKernel>("pyramid_rate", patch_grid(p.coarse_height, p.coarse_width, 1),
                     {p, is_wide(p.coarse_width, arrays, 5)}, device, stream);
}

void pyramid_base_cuda(const PyramidParams& p, int device, void* stream) {
  launch<BaseKernel>("pyramid_base", pixel_grid(p, 1), p, device, stream);
}

void pyramid_depth_cuda(const PyramidParams& p, int device, void* stream) {
  launch<DepthKernel>("pyramid_depth", pixel_grid(p, 1), p, device, stream);
}

void pyramid_mean_cuda(const PyramidParams& p, int device, void* stream) {
  launch<MeanKernel>("pyramid_mean", pixel_grid(p, p.planes), p, device, stream);
}

}  // namespace pyfocus
