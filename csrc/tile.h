// tile: overlapping tiles out of planes, and back in under a window, for networks that run tile by tile.
//
// Tile t has its first pixel at origins[t] = (oy, ox), which may be negative or past the border. P planes, T tiles:
//
//   gather   destination[t, p, y, x] = source[p, mirror(oy + y, H), mirror(ox + x, W)]
//   scatter  destination[p, oy + y, ox + x] += window[y, x] tiles[t, p, y, x]    where that lies inside
//            weight[oy + y, ox + x]         += window[y, x]
//   divide   destination[p, y, x] = weight[y, x] > 0 ? destination[p, y, x] / weight[y, x] : 0
//
// mirror is about the outermost pixels, which are not repeated: -1 is 1, and H is H - 2; again and again if need be.
// Shapes: planes (C, H, W), or (N, C, H, W) with P = N C; tiles (T, P, h, w), which is the memory of (T, N, C, h, w);
// origins (T, 2) int32, any values; window (h, w); weight (H, W). All else is float32, all in C order on one device,
// the origins, too: no launcher reads them, so none waits.
// Law: gather, scatter into zeros with a window that is positive everywhere, divide: the source, to rounding, wherever
// a tile lies. Deterministic: a pixel adds its tiles in order of their number.
#pragma once

#include "device.h"
#include "sample.h"
#include "tensor.h"

namespace pyfocus {

struct TileParams {
  float* planes = nullptr;  // (planes_count, height, width); gather only reads it
  float* tiles = nullptr;   // (count, planes_count, tile_height, tile_width); scatter only reads it
  const int32_t* origins = nullptr;
  const float* window = nullptr;
  float* weight = nullptr;
  int64_t count = 0, planes_count = 0, height = 0, width = 0, tile_height = 0, tile_width = 0;
};

// The pixel that stands at i of a row of `size`.
PYFOCUS_HD static inline int64_t tile_mirror(int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (size == 1) return 0;
  const int64_t period = 2 * size - 2;
  i %= period;
  if (i < 0) i += period;
  return i < size ? i : period - i;
}

void tile_gather(const Tensor& source, const Tensor& origins, const Tensor& destination, const Execution& on);
void tile_scatter(const Tensor& tiles, const Tensor& origins, const Tensor& window, const Tensor& destination,
                  const Tensor& weight, const Execution& on);
void tile_divide(const Tensor& destination, const Tensor& weight, const Execution& on);

void tile_gather_cuda(const TileParams& p, int device, void* stream);
void tile_scatter_cuda(const TileParams& p, int device, void* stream);
void tile_divide_cuda(const TileParams& p, int device, void* stream);

}  // namespace pyfocus
