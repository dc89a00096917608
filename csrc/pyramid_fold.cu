// up, fold and collapse on CUDA: what reads a level's fine grid beside its coarse one. A thread owns 4 x 2 fine pixels
// (pyramid_patch.cuh) and the coarse values under them. Bytes per fine pixel of C planes:
//
//   fold      num <- num q + w (G_l - up(G_{l+1})),  den <- den q + w,  w and q as in pyramid.h
//             4 C + 4 (C + 1) read and 4 (C + 1) written; of the coarse grid C + 3 read
//   collapse  4 (2 C) + C read, 4 C written: each plane reads the denominator
//   up        C read, 4 C written, and 4 C read with an addend
//
// Deterministic; the CPU's sums in the CPU's order, but for products and sums that the compiler contracts, and 1 ulp of
// fold's reciprocal.
#include "pyramid_patch.cuh"

namespace pyfocus {
namespace {

template <int kPower>
struct FoldKernel {
  using Params = PatchParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPatchThreads, kPhases = 1, kBlocksPerSm = 3;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& params, const At& at, Shared&, Local&) {
    const PyramidParams& p = params.p;
    const Patch patch = patch_of(at, p.height, p.width);
    if (!patch.inside()) return;
    if (params.wide)
      fold<true>(p, patch);
    else
      fold<false>(p, patch);
  }

  template <bool kWide>
  PYFOCUS_HD static void fold(const PyramidParams& p, const Patch& patch) {
    const Cell cell = cell_of(patch, p.coarse_height, p.coarse_width);
    const int64_t area = p.height * p.width, coarse_area = p.coarse_height * p.coarse_width;
    // The last row of an odd height has no second one under it: that is read as the first again, and not written.
    const int64_t row[2] = {patch.at(0), patch.at(patch.rows() - 1)};
    Four sum[2] = {load_four<kWide>(p.denominator + row[0], patch), load_four<kWide>(p.denominator + row[1], patch)};
    Four peak[2], weight[2], keep[2];
    expand(p.peak, cell, peak);
    expand(p.rating, cell, weight);
    expand(p.before, cell, keep);
    for (int j = 0; j < 2; ++j)
      for (int k = 0; k < 4; ++k) {
        const float scale = scale_of(peak[j].v[k]);
        weight[j].v[k] = raise<kPower>(weight[j].v[k] * scale);
        keep[j].v[k] = raise<kPower>(keep[j].v[k] * scale);
        sum[j].v[k] = sum[j].v[k] * keep[j].v[k] + weight[j].v[k];
      }
    store_four<kWide>(p.denominator + row[0], patch, sum[0]);
    if (patch.rows() == 2) store_four<kWide>(p.denominator + row[1], patch, sum[1]);
    for (int plane = 0; plane < p.planes; ++plane) {
      const float* from = p.fine + plane * area;
      float* to = p.numerator + plane * area;
      Four fine[2], low[2];
      for (int j = 0; j < 2; ++j) {
        fine[j] = load_four<kWide>(from + row[j], patch);
        sum[j] = load_four<kWide>(to + row[j], patch);
      }
      expand(p.coarse + plane * coarse_area, cell, low);
      for (int j = 0; j < 2; ++j)
        for (int k = 0; k < 4; ++k)
          sum[j].v[k] = sum[j].v[k] * keep[j].v[k] + weight[j].v[k] * (fine[j].v[k] - low[j].v[k]);
      store_four<kWide>(to + row[0], patch, sum[0]);
      if (patch.rows() == 2) store_four<kWide>(to + row[1], patch, sum[1]);
    }
  }
};

// The planes of collapse and up are blocks of their own: grid z.
struct CollapseKernel {
  using Params = PatchParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPatchThreads, kPhases = 1, kBlocksPerSm = 4;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& params, const At& at, Shared&, Local&) {
    const PyramidParams& p = params.p;
    const Patch patch = patch_of(at, p.height, p.width);
    if (!patch.inside()) return;
    if (params.wide)
      collapse<true>(p, patch, at.z);
    else
      collapse<false>(p, patch, at.z);
  }

  template <bool kWide>
  PYFOCUS_HD static void collapse(const PyramidParams& p, const Patch& patch, int plane) {
    const int rows = patch.rows();
    Four low[2];
    expand(p.coarse + plane * p.coarse_height * p.coarse_width, cell_of(patch, p.coarse_height, p.coarse_width), low);
    for (int j = 0; j < 2; ++j) {
      if (j >= rows) break;
      const int64_t at = plane * p.height * p.width + patch.at(j);
      const Four weight = load_four<kWide>(p.denominator_in + patch.at(j), patch);
      const Four sum = load_four<kWide>(p.numerator_in + at, patch);
      for (int k = 0; k < 4; ++k) low[j].v[k] += weight.v[k] > 0 ? sum.v[k] / weight.v[k] : 0.0f;
      store_four<kWide>(p.out + at, patch, low[j]);
    }
  }
};

struct UpKernel {
  using Params = PatchParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kPatchThreads, kPhases = 1, kBlocksPerSm = 4;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& params, const At& at, Shared&, Local&) {
    const PyramidParams& p = params.p;
    const Patch patch = patch_of(at, p.height, p.width);
    if (!patch.inside()) return;
    if (params.wide)
      up<true>(p, patch, at.z);
    else
      up<false>(p, patch, at.z);
  }

  template <bool kWide>
  PYFOCUS_HD static void up(const PyramidParams& p, const Patch& patch, int plane) {
    const int rows = patch.rows();
    Four low[2];
    expand(p.coarse + plane * p.coarse_height * p.coarse_width, cell_of(patch, p.coarse_height, p.coarse_width), low);
    for (int j = 0; j < 2; ++j) {
      if (j >= rows) break;
      const int64_t at = plane * p.height * p.width + patch.at(j);
      const Four addend = p.addend ? load_four<kWide>(p.addend + at, patch) : Four{};
      for (int k = 0; k < 4; ++k) {
        const float value = p.gain * low[j].v[k];
        low[j].v[k] = p.addend ? addend.v[k] + value : value;
      }
      store_four<kWide>(p.out + at, patch, low[j]);
    }
  }
};

}  // namespace

void pyramid_up_cuda(const PyramidParams& p, int device, void* stream) {
  const void* arrays[] = {p.out, p.addend};  // a null addend is as aligned as can be
  launch<UpKernel>("pyramid_up", patch_grid(p.height, p.width, p.planes), {p, is_wide(p.width, arrays, 2)}, device,
                   stream);
}

void pyramid_fold_cuda(const PyramidParams& p, int device, void* stream) {
  const void* arrays[] = {p.fine, p.numerator, p.denominator};
  const PatchParams params{p, is_wide(p.width, arrays, 3)};
  const Grid grid = patch_grid(p.height, p.width, 1);
  switch (p.power) {
    case 1:
      return launch<FoldKernel<1>>("pyramid_fold", grid, params, device, stream);
    case 2:
      return launch<FoldKernel<2>>("pyramid_fold", grid, params, device, stream);
    case 4:
      return launch<FoldKernel<4>>("pyramid_fold", grid, params, device, stream);
    case 6:
      return launch<FoldKernel<6>>("pyramid_fold", grid, params, device, stream);
    default:
      return launch<FoldKernel<8>>("pyramid_fold", grid, params, device, stream);
  }
}

void pyramid_collapse_cuda(const PyramidParams& p, int device, void* stream) {
  const void* arrays[] = {p.numerator_in, p.denominator_in, p.out};
  launch<CollapseKernel>("pyramid_collapse", patch_grid(p.height, p.width, p.planes), {p, is_wide(p.width, arrays, 3)},
                         device, stream);
}

}  // namespace pyfocus
