// tile on the CPU. Rows are what is worked on: of tiles for gather, of the destination for the others, so that one
// thread adds all that goes to a pixel, tile after tile. Bytes: gather reads and writes each tile once; scatter reads
// each tile once and its window once per tile, and reads and writes what lies under tiles once per tile.
#include "tile.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, tile_gather_rows, const TileParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, tile_scatter_rows, const TileParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, tile_divide_rows, const TileParams& p, int64_t begin, int64_t end)

namespace PYFOCUS_ISA {
namespace {

inline int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

}  // namespace

// Rows of all tiles: (t, p, y) in C order.
void tile_gather_rows(const TileParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t t = row / (p.planes_count * p.tile_height), plane = row / p.tile_height % p.planes_count;
    const int64_t y = tile_mirror(p.origins[2 * t] + row % p.tile_height, p.height), x0 = p.origins[2 * t + 1];
    const float* from = p.planes + (plane * p.height + y) * p.width;
    float* to = p.tiles + row * p.tile_width;
    const int64_t first = clamp(-x0, 0, p.tile_width), last = clamp(p.width - x0, first, p.tile_width);
    for (int64_t x = 0; x < first; ++x) to[x] = from[tile_mirror(x0 + x, p.width)];
    for (int64_t x = first; x < last; ++x) to[x] = from[x0 + x];
    for (int64_t x = last; x < p.tile_width; ++x) to[x] = from[tile_mirror(x0 + x, p.width)];
  }
}

void tile_scatter_rows(const TileParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t t = 0; t < p.count; ++t) {
      const int64_t y = row - p.origins[2 * t], x0 = p.origins[2 * t + 1];
      if (y < 0 || y >= p.tile_height) continue;
      const int64_t first = clamp(-x0, 0, p.tile_width), last = clamp(p.width - x0, first, p.tile_width);
      if (first == last) continue;
      const float* __restrict window = p.window + y * p.tile_width + first;
      float* __restrict weight = p.weight + row * p.width + x0 + first;
      for (int64_t x = 0; x < last - first; ++x) weight[x] += window[x];
      for (int64_t plane = 0; plane < p.planes_count; ++plane) {
        const float* __restrict from =
            p.tiles + ((t * p.planes_count + plane) * p.tile_height + y) * p.tile_width + first;
        float* __restrict to = p.planes + (plane * p.height + row) * p.width + x0 + first;
        for (int64_t x = 0; x < last - first; ++x) to[x] += window[x] * from[x];
      }
    }
}

void tile_divide_rows(const TileParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t plane = 0; plane < p.planes_count; ++plane) {
      const float* __restrict weight = p.weight + row * p.width;
      float* __restrict to = p.planes + (plane * p.height + row) * p.width;
      for (int64_t x = 0; x < p.width; ++x) {
        const bool seen = weight[x] > 0;
        const float value = to[x] / (seen ? weight[x] : 1.0f);
        to[x] = seen ? value : 0.0f;
      }
    }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
namespace {

using Long = long long;

constexpr int64_t kLongest = int64_t{1} << 31;  // of a side, in pixels

// Planes (C, H, W) or (N, C, H, W).
void take_planes(const char* function, const char* name, const Tensor& t, TileParams* p) {
  PYFOCUS_CHECK(t.ndim == 3 || t.ndim == 4, "%s: %s must have 3 or 4 dimensions, got %d", function, name, t.ndim);
  check_tensor(function, name, t, Dtype::F32, t.ndim);
  check_contiguous(function, name, t);
  p->planes = t.as<float>();
  p->planes_count = t.ndim == 4 ? t.shape[0] * t.shape[1] : t.shape[0];
  p->height = t.shape[t.ndim - 2], p->width = t.shape[t.ndim - 1];
  PYFOCUS_CHECK(p->height < kLongest && p->width < kLongest, "%s: %s must have fewer than 2^31 rows and columns",
                function, name);
}

void take_tiles(const char* function, const char* name, const Tensor& t, const Tensor& origins, TileParams* p) {
  check_tensor(function, name, t, Dtype::F32, 4);
  check_contiguous(function, name, t);
  check_tensor(function, "origins", origins, Dtype::I32, 2);
  check_contiguous(function, "origins", origins);
  check_shape(function, "origins", origins, 1, 2);
  check_shape(function, name, t, 0, origins.shape[0]);
  check_shape(function, name, t, 1, p->planes_count);
  p->tiles = t.as<float>(), p->origins = origins.as<const int32_t>();
  p->count = origins.shape[0], p->tile_height = t.shape[2], p->tile_width = t.shape[3];
  PYFOCUS_CHECK(p->tile_height < kLongest && p->tile_width < kLongest,
                "%s: %s must have fewer than 2^31 rows and columns", function, name);
}

void take_weight(const char* function, const Tensor& weight, bool written, TileParams* p) {
  if (written) check_output(function, "weight", weight, Dtype::F32, 2);
  check_tensor(function, "weight", weight, Dtype::F32, 2);
  check_contiguous(function, "weight", weight);
  check_shape(function, "weight", weight, 0, p->height);
  check_shape(function, "weight", weight, 1, p->width);
  p->weight = weight.as<float>();
}

}  // namespace

void tile_gather(const Tensor& source, const Tensor& origins, const Tensor& destination, const Execution& on) {
  TileParams p;
  take_planes("tile_gather", "source", source, &p);
  PYFOCUS_CHECK(p.height > 0 && p.width > 0, "tile_gather: source must have a row and a column, got %lld x %lld",
                Long{p.height}, Long{p.width});
  check_output("tile_gather", "destination", destination, Dtype::F32, 4);
  take_tiles("tile_gather", "destination", destination, origins, &p);
  check_place("tile_gather", "origins", &origins, source.place());
  check_place("tile_gather", "destination", &destination, source.place());
  if (destination.count() == 0) return;
  if (source.device == Device::Cuda)
    PYFOCUS_ON_CUDA("tile_gather", tile_gather_cuda(p, source.device_index, on.stream));
  parallel_for(p.count * p.planes_count * p.tile_height, 16, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(tile_gather_rows)(p, begin, end); });
}

void tile_scatter(const Tensor& tiles, const Tensor& origins, const Tensor& window, const Tensor& destination,
                  const Tensor& weight, const Execution& on) {
  TileParams p;
  check_output("tile_scatter", "destination", destination, Dtype::F32, destination.ndim);
  take_planes("tile_scatter", "destination", destination, &p);
  take_tiles("tile_scatter", "tiles", tiles, origins, &p);
  check_tensor("tile_scatter", "window", window, Dtype::F32, 2);
  check_contiguous("tile_scatter", "window", window);
  check_shape("tile_scatter", "window", window, 0, p.tile_height);
  check_shape("tile_scatter", "window", window, 1, p.tile_width);
  take_weight("tile_scatter", weight, true, &p);
  check_place("tile_scatter", "origins", &origins, tiles.place());
  check_place("tile_scatter", "window", &window, tiles.place());
  check_place("tile_scatter", "destination", &destination, tiles.place());
  check_place("tile_scatter", "weight", &weight, tiles.place());
  p.window = window.as<const float>();
  if (window.count() == 0 || weight.count() == 0 || p.count == 0) return;
  if (tiles.device == Device::Cuda)
    PYFOCUS_ON_CUDA("tile_scatter", tile_scatter_cuda(p, tiles.device_index, on.stream));
  parallel_for(p.height, 8, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(tile_scatter_rows)(p, begin, end); });
}

void tile_divide(const Tensor& destination, const Tensor& weight, const Execution& on) {
  TileParams p;
  check_output("tile_divide", "destination", destination, Dtype::F32, destination.ndim);
  take_planes("tile_divide", "destination", destination, &p);
  take_weight("tile_divide", weight, false, &p);
  check_place("tile_divide", "weight", &weight, destination.place());
  if (destination.count() == 0) return;
  if (destination.device == Device::Cuda)
    PYFOCUS_ON_CUDA("tile_divide", tile_divide_cuda(p, destination.device_index, on.stream));
  parallel_for(p.height, 16, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(tile_divide_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
