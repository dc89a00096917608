// tile on CUDA.
// gather, divide: one thread per pixel of a tile or of the planes and per 8 planes, so that 8 loads are on their way at
// once. Bytes: gather 8 per element (and what overlaps comes from the cache), divide 8 per element and 1/2 of weight.
// scatter: a block of 256 threads owns 32 x 32 pixels of 4 planes, a thread a column of 4 of them, and keeps their sums
// in registers. In turns of 256 tiles, each thread finds out whether one of them touches the block (phase 0); all then
// add those that do, in order (phase 1). Bytes: each tile once, 8 per element of the planes and of the weight, the
// window from the cache. Tiles that do not touch a block cost it 1/4 of a shared load each.
// Deterministic: sums in the order of the tiles, no atomics.
#include "launch.cuh"
#include "tile.h"

namespace pyfocus {
namespace {

constexpr int kPlanes = 8;  // per thread

struct TileGatherKernel {
  using Params = TileParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t i = int64_t{at.x} * kThreads + at.thread, area = p.tile_height * p.tile_width, t = at.z;
    if (i >= area) return;
    const int64_t y = tile_mirror(p.origins[2 * t] + i / p.tile_width, p.height),
                  x = tile_mirror(p.origins[2 * t + 1] + i % p.tile_width, p.width), plane = int64_t{at.y} * kPlanes;
    const float* from = p.planes + (plane * p.height + y) * p.width + x;
    float* to = p.tiles + (t * p.planes_count + plane) * area + i;
    const int64_t left = p.planes_count - plane, step = p.height * p.width;
    float value[kPlanes];
    for (int k = 0; k < kPlanes; ++k) value[k] = k < left ? from[k * step] : 0;
    for (int k = 0; k < kPlanes; ++k)
      if (k < left) to[k * area] = value[k];
  }
};

struct TileDivideKernel {
  using Params = TileParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t i = int64_t{at.x} * kThreads + at.thread, area = p.height * p.width, plane = int64_t{at.y} * kPlanes;
    if (i >= area) return;
    const float weight = p.weight[i];
    float* to = p.planes + plane * area + i;
    const int64_t left = p.planes_count - plane;
    float value[kPlanes];
    for (int k = 0; k < kPlanes; ++k) value[k] = k < left ? to[k * area] : 0;
    for (int k = 0; k < kPlanes; ++k)
      if (k < left) to[k * area] = weight > 0 ? value[k] / weight : 0.0f;
  }
};

struct TileScatterKernel {
  using Params = TileParams;
  static constexpr int kSize = 32, kRows = 4, kThreads = kSize * kSize / kRows, kPhases = 2, kPlanesHere = 4,
                       kBlocksPerSm = 3;
  struct Shared {
    uint32_t hit[kThreads / 4];  // a byte per tile
    int32_t y[kThreads], x[kThreads];
  };
  struct Local {
    float sum[kPlanesHere][kRows], weight[kRows];
  };

  PYFOCUS_HD static int turns(const Params& p, const At&) {
    return static_cast<int>((p.count + kThreads - 1) / kThreads);
  }

  // Whether an edge of `size` from `origin` on meets the block's pixels from `first` on.
  PYFOCUS_HD static bool meets(int64_t origin, int64_t size, int64_t first) {
    return origin < first + kSize && origin + size > first;
  }

  PYFOCUS_HD static int64_t row(const At& at, int r) {
    return int64_t{at.y} * kSize + at.thread / kSize + r * (kSize / kRows);
  }

  PYFOCUS_HD static void find(const Params& p, const At& at, Shared& s) {
    const int64_t t = int64_t{at.turn} * kThreads + at.thread;
    bool hit = false;
    if (t < p.count) {
      const int32_t y = p.origins[2 * t], x = p.origins[2 * t + 1];
      hit = meets(y, p.tile_height, int64_t{at.y} * kSize) && meets(x, p.tile_width, int64_t{at.x} * kSize);
      s.y[at.thread] = y, s.x[at.thread] = x;
    }
    reinterpret_cast<unsigned char*>(s.hit)[at.thread] = hit;
  }

  PYFOCUS_HD static void add(const Params& p, const At& at, const Shared& s, int k, Local& l) {
    const int64_t t = int64_t{at.turn} * kThreads + k, plane = int64_t{at.z} * kPlanesHere,
                  area = p.tile_height * p.tile_width;
    const int64_t x = int64_t{at.x} * kSize + at.thread % kSize - s.x[k];
    if (x < 0 || x >= p.tile_width) return;
    const float* tile = p.tiles + (t * p.planes_count + plane) * area + x;
    for (int r = 0; r < kRows; ++r) {
      const int64_t y = row(at, r) - s.y[k];
      if (y < 0 || y >= p.tile_height) continue;
      const float window = p.window[y * p.tile_width + x];
      l.weight[r] += window;
      for (int c = 0; c < kPlanesHere; ++c)
        if (plane + c < p.planes_count) l.sum[c][r] += window * tile[c * area + y * p.tile_width];
    }
  }

  // Sums come in before the first turn and go out after the last.
  template <bool kLoad>
  PYFOCUS_HD static void move(const Params& p, const At& at, Local& l) {
    const int64_t x = int64_t{at.x} * kSize + at.thread % kSize, plane = int64_t{at.z} * kPlanesHere;
    for (int r = 0; r < kRows; ++r) {
      const int64_t y = row(at, r), i = y * p.width + x;
      const bool inside = x < p.width && y < p.height;
      if (kLoad) l.weight[r] = inside && at.z == 0 ? p.weight[i] : 0;  // the first block of planes keeps it
      if (!kLoad && inside && at.z == 0) p.weight[i] = l.weight[r];
      for (int c = 0; c < kPlanesHere; ++c) {
        float* value = p.planes + (plane + c) * p.height * p.width + i;
        const bool ours = inside && plane + c < p.planes_count;
        if (kLoad) l.sum[c][r] = ours ? *value : 0;
        if (!kLoad && ours) *value = l.sum[c][r];
      }
    }
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local& l) {
    if constexpr (kPhase == 0) {
      if (at.turn == 0) move<true>(p, at, l);
      find(p, at, s);
    } else {
      for (int i = 0; i < kThreads / 4; ++i)
        for (uint32_t hits = s.hit[i], k = 4 * i; hits; hits >>= 8, ++k)
          if (hits & 1) add(p, at, s, static_cast<int>(k), l);
      if (at.turn + 1 == turns(p, at)) move<false>(p, at, l);
    }
  }
};

}  // namespace

void tile_gather_cuda(const TileParams& p, int device, void* stream) {
  launch<TileGatherKernel>(
      "tile_gather",
      {blocks(p.tile_height * p.tile_width, TileGatherKernel::kThreads), blocks(p.planes_count, kPlanes), p.count}, p,
      device, stream);
}

void tile_scatter_cuda(const TileParams& p, int device, void* stream) {
  using Kernel = TileScatterKernel;
  // With no planes there is still the weight to add to.
  const int64_t chunks = p.planes_count == 0 ? 1 : blocks(p.planes_count, Kernel::kPlanesHere);
  launch<Kernel>("tile_scatter", {blocks(p.width, Kernel::kSize), blocks(p.height, Kernel::kSize), chunks}, p, device,
                 stream);
}

void tile_divide_cuda(const TileParams& p, int device, void* stream) {
  launch<TileDivideKernel>("tile_divide",
                           {blocks(p.height * p.width, TileDivideKernel::kThreads), blocks(p.planes_count, kPlanes)}, p,
                           device, stream);
}

}  // namespace pyfocus
