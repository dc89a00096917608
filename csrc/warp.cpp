// warp on the CPU. The destination is cut into tiles; per tile
//   1. the window of the source that the tile sees is copied to floats on the stack (conversion, table, black level
//      and edge repetition happen here, once per source pixel), so that
//   2. the interpolation loop has no border tests: pixels whose taps lie side by side go eight at a time.
// Planes that share a map share positions and weights.
// Bytes per output value: 4 written, about 1.2 x the source's read. Ties and order of sums are fixed: same bits always.
#include "warp.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

constexpr int kTileWidth = 192, kTileHeight = 32;
constexpr int kWindow = 48 * 240;  // floats per plane; a tile that sees more of the source is halved until it fits
constexpr int kGroup = 8;          // pixels interpolated at a time
constexpr uint32_t kThree = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0x00ffffffu : 0xffffff00u;  // first 3 bytes

PYFOCUS_KERNEL(void, warp_rows, const WarpParams& p, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {
namespace {

struct Window {
  int64_t y0, x0;  // source position of the first element
  int64_t height, width;
};

struct Tile {
  int64_t y, x, height, width;
};

inline int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

inline double clamp(double v, double low, double high) { return v > low ? (v < high ? v : high) : low; }

// floor for values of any size and NaN, limited so that the result and its taps stay in range.
inline int64_t floor_within(double v, double low, double high) {
  const double limited = clamp(v, low, high);
  const int64_t whole = static_cast<int64_t>(limited);
  return whole - (static_cast<double>(whole) > limited);
}

inline void map(const double* m, double x, double y, double* sx, double* sy) {
  const double w = m[6] * x + m[7] * y + m[8];
  *sx = (m[0] * x + m[1] * y + m[2]) / w;
  *sy = (m[3] * x + m[4] * y + m[5]) / w;
}

// The part of the source that a tile's taps reach. A projective map keeps the tile convex, so its corners bound it.
template <class Taps>
Window window_of(const WarpParams& p, const double* m, const Tile& t) {
  double low_x = 1e300, high_x = -1e300, low_y = 1e300, high_y = -1e300;
  for (int corner = 0; corner < 4; ++corner) {
    double sx, sy;
    map(m, static_cast<double>(t.x + (corner & 1 ? t.width - 1 : 0)),
        static_cast<double>(t.y + (corner & 2 ? t.height - 1 : 0)), &sx, &sy);
    low_x = sx < low_x ? sx : low_x, high_x = sx > high_x ? sx : high_x;
    low_y = sy < low_y ? sy : low_y, high_y = sy > high_y ? sy : high_y;
  }
  const double right = static_cast<double>(p.source.width), bottom = static_cast<double>(p.source.height);
  Window w;
  w.x0 = floor_within(low_x, -2, right + 1) + Taps::kFirst;
  w.y0 = floor_within(low_y, -2, bottom + 1) + Taps::kFirst;
  w.width = floor_within(high_x, -2, right + 1) + Taps::kFirst + Taps::kCount - w.x0 + 1;
  w.height = floor_within(high_y, -2, bottom + 1) + Taps::kFirst + Taps::kCount - w.y0 + 1;
  return w;
}

template <class T>
void load_row(const T* row, int64_t stride, int64_t source_width, const Window& w, const float* table, float scale,
              float offset, float* out) {
  const int64_t left = clamp(-w.x0, 0, w.width), right = clamp(source_width - w.x0, left, w.width);
  const T* from = row + w.x0 * stride;
  if (sizeof(T) <= 2 && table)
    for (int64_t x = left; x < right; ++x) out[x] = table[static_cast<uint32_t>(from[x * stride])] * scale + offset;
  else if (stride == 1)
    for (int64_t x = left; x < right; ++x) out[x] = static_cast<float>(from[x]) * scale + offset;
  else
    for (int64_t x = left; x < right; ++x) out[x] = static_cast<float>(from[x * stride]) * scale + offset;
  const auto edge = [&](int64_t x) {
    const T v = row[x * stride];
    return (sizeof(T) <= 2 && table ? table[static_cast<uint32_t>(v)] : static_cast<float>(v)) * scale + offset;
  };
  if (left > 0) {
    const float first = edge(0);
    for (int64_t x = 0; x < left; ++x) out[x] = first;
  }
  if (right < w.width) {
    const float last = edge(source_width - 1);
    for (int64_t x = right; x < w.width; ++x) out[x] = last;
  }
}

template <class T>
void load_window(const PlaneSource& s, int plane, const Window& w, float* out) {
  const T* base = static_cast<const T*>(s.plane[plane]);
  for (int64_t y = 0; y < w.height; ++y) {
    const T* row = base + clamp(w.y0 + y, 0, s.height - 1) * s.row_stride;
    load_row(row, s.column_stride, s.width, w, s.table, s.scale[plane], s.offset[plane], out + y * w.width);
  }
}

// One destination row: for each pixel the first element of its taps in the window, and their weights, tap by tap.
template <class Taps>
struct Row {
  int32_t first[kTileWidth];
  uint8_t breaks[kTileWidth + kGroup];  // 1 where the next pixel's taps do not lie one further than this one's
  float wx[Taps::kCount][kTileWidth], wy[Taps::kCount][kTileWidth];
  uint8_t seen[kTileWidth];
};

template <class Taps>
void weigh(const float* fraction, int32_t count, float (*weights)[kTileWidth]) {
  for (int32_t x = 0; x < count; ++x) {
    float w[Taps::kCount];
    Taps::weights(fraction[x], w);
    for (int k = 0; k < Taps::kCount; ++k) weights[k][x] = w[k];
  }
}

template <class Taps>
void locate(const WarpParams& p, const double* m, const Window& w, int64_t x0, int64_t y, int64_t count, Row<Taps>* r) {
  const double dy = static_cast<double>(y), right = static_cast<double>(p.source.width) - 1,
               bottom = static_cast<double>(p.source.height) - 1;
  const double bx = m[1] * dy + m[2], by = m[4] * dy + m[5], bw = m[7] * dy + m[8];
  const double origin_x = static_cast<double>(w.x0 - Taps::kFirst), origin_y = static_cast<double>(w.y0 - Taps::kFirst);
  constexpr double kEdge = 1e-6;  // rounding of a position is not leaving the image
  const int32_t stride = static_cast<int32_t>(w.width);
  double sx[kTileWidth], sy[kTileWidth];
  float fx[kTileWidth], fy[kTileWidth], margin[kTileWidth];
  const int32_t first = static_cast<int32_t>(x0), n = static_cast<int32_t>(count);
  for (int32_t x = 0; x < n; ++x) {
    const double dx = static_cast<double>(first + x);
    sx[x] = m[0] * dx + bx, sy[x] = m[3] * dx + by;
  }
  if (m[6] != 0 || m[7] != 0 || m[8] != 1)
    for (int32_t x = 0; x < n; ++x) {
      const double scale = 1 / (m[6] * static_cast<double>(first + x) + bw);
      sx[x] *= scale, sy[x] *= scale;
    }
  for (int32_t x = 0; x < n; ++x) {  // how far inside the source the position lies
    const double a = sx[x] < right - sx[x] ? sx[x] : right - sx[x], b = sy[x] < bottom - sy[x] ? sy[x] : bottom - sy[x];
    margin[x] = static_cast<float>((a < b ? a : b) + kEdge);
  }
  for (int32_t x = 0; x < n; ++x) r->seen[x] = margin[x] >= 0;
  for (int32_t x = 0; x < n; ++x) {
    // Beyond the edge the picture repeats, so the position may stop there: the window was cut at the same places.
    const double px = clamp(sx[x], -2.0, right + 2) - origin_x, py = clamp(sy[x], -2.0, bottom + 2) - origin_y;
    const int32_t ix = static_cast<int32_t>(px), iy = static_cast<int32_t>(py);
    r->first[x] = iy * stride + ix;
    fx[x] = static_cast<float>(px - ix), fy[x] = static_cast<float>(py - iy);
  }
  weigh<Taps>(fx, n, r->wx);
  weigh<Taps>(fy, n, r->wy);
  for (int32_t x = 0; x < n - 1; ++x) r->breaks[x] = r->first[x + 1] - r->first[x] != 1;
  for (int32_t x = n - 1; x < n + kGroup; ++x) r->breaks[x] = 1;
}

// How many pixels from x on, 1, 4 or 8, have their taps side by side.
template <class Taps>
inline int together(const Row<Taps>& r, int64_t x) {
  uint32_t near, far;  // four flags each
  __builtin_memcpy(&near, r.breaks + x, 4);
  __builtin_memcpy(&far, r.breaks + x + 3, 4);
  return (near | far) == 0 ? kGroup : (near & kThree) == 0 ? kGroup / 2 : 1;
}

// kLanes pixels whose taps begin side by side: one vector of the compiler's own per tap (two registers where the
// machine's are shorter). Every pixel's sums are taken in the same order whatever the number of lanes.
template <class Taps, int kLanes>
inline void interpolate_run(const float* taps, int64_t stride, const Row<Taps>& r, int64_t x, float* out) {
  typedef float Vector __attribute__((vector_size(kLanes * 4)));
  Vector tap, weight, row = {}, sum = {};
  for (int j = 0; j < Taps::kCount; ++j) {
    for (int k = 0; k < Taps::kCount; ++k) {
      __builtin_memcpy(&tap, taps + j * stride + k, sizeof tap);
      __builtin_memcpy(&weight, r.wx[k] + x, sizeof weight);
      row = k == 0 ? tap * weight : row + tap * weight;
    }
    __builtin_memcpy(&weight, r.wy[j] + x, sizeof weight);
    sum = j == 0 ? row * weight : sum + row * weight;
  }
  __builtin_memcpy(out + x, &sum, sizeof sum);
}

// The picture is hardly scaled or turned, so most neighbours in the destination are neighbours in the source.
template <class Taps>
void interpolate(const float* window, int64_t stride, const Row<Taps>& r, int64_t count, float* out) {
  int64_t x = 0;
  while (x < count) {
    const float* taps = window + r.first[x];
    const int count_together = together(r, x);
    if (count_together == kGroup)
      interpolate_run<Taps, kGroup>(taps, stride, r, x, out);
    else if (count_together == kGroup / 2)
      interpolate_run<Taps, kGroup / 2>(taps, stride, r, x, out);
    else
      interpolate_run<Taps, 1>(taps, stride, r, x, out);
    x += count_together;
  }
}

void load(const PlaneSource& s, int plane, const Window& w, bool root, float* out) {
  if (s.dtype == Dtype::U8)
    load_window<uint8_t>(s, plane, w, out);
  else if (s.dtype == Dtype::U16)
    load_window<uint16_t>(s, plane, w, out);
  else
    load_window<float>(s, plane, w, out);
  if (!root) return;
  for (int64_t i = 0; i < w.width * w.height; ++i) {
    const float v = out[i], r = __builtin_sqrtf(v < 0 ? -v : v);
    out[i] = v < 0 ? -r : r;
  }
}

// Planes [first, last) share one map.
template <class Taps>
void warp_tile(const WarpParams& p, int first, int last, const Tile& t) {
  const double* m = p.matrix[first];
  const Window w = window_of<Taps>(p, m, t);
  if (w.width * w.height > kWindow) {
    Tile half = t;
    const bool tall = t.height > t.width;
    (tall ? half.height : half.width) = tall ? t.height / 2 : t.width / 2;
    warp_tile<Taps>(p, first, last, half);
    (tall ? half.y : half.x) += tall ? half.height : half.width;
    (tall ? half.height : half.width) = tall ? t.height - half.height : t.width - half.width;
    warp_tile<Taps>(p, first, last, half);
    return;
  }
  float window[kMaxPlanes][kWindow];
  for (int plane = first; plane < last; ++plane) load(p.source, plane, w, p.root, window[plane]);
  Row<Taps> row;
  for (int64_t y = t.y; y < t.y + t.height; ++y) {
    locate<Taps>(p, m, w, t.x, y, t.width, &row);
    for (int plane = first; plane < last; ++plane) {
      float* out = p.destination + (plane * p.height + y) * p.width + t.x;
      interpolate<Taps>(window[plane], w.width, row, t.width, out);
      if (p.square)
        for (int64_t x = 0; x < t.width; ++x) out[x] *= out[x] < 0 ? -out[x] : out[x];
    }
    if (!p.valid) continue;
    uint8_t* valid = p.valid + y * p.width + t.x;
    if (first == 0 && !p.narrow)
      __builtin_memcpy(valid, row.seen, static_cast<size_t>(t.width));
    else
      for (int64_t x = 0; x < t.width; ++x) valid[x] &= row.seen[x];
  }
}

inline bool same_map(const WarpParams& p, int a, int b) {
  return __builtin_memcmp(p.matrix[a], p.matrix[b], sizeof p.matrix[a]) == 0;
}

template <class Taps>
void warp_band(const WarpParams& p, int64_t row_begin, int64_t row_end) {
  for (int64_t y = row_begin; y < row_end; y += kTileHeight)
    for (int64_t x = 0; x < p.width; x += kTileWidth) {
      const Tile tile{y, x, row_end - y < kTileHeight ? row_end - y : kTileHeight,
                      p.width - x < kTileWidth ? p.width - x : kTileWidth};
      for (int first = 0, last = 1; first < p.source.planes; first = last++) {
        while (last < p.source.planes && same_map(p, first, last)) ++last;
        warp_tile<Taps>(p, first, last, tile);
      }
    }
}

}  // namespace

void warp_rows(const WarpParams& p, int64_t row_begin, int64_t row_end) {
  switch (p.interpolation) {
    case Interpolation::Bilinear:
      return warp_band<Bilinear>(p, row_begin, row_end);
    case Interpolation::Bicubic:
      return warp_band<Bicubic>(p, row_begin, row_end);
    case Interpolation::Lanczos3:
      return warp_band<Lanczos3>(p, row_begin, row_end);
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void warp(const PlaneSource& source, const Tensor& matrices, const Tensor& destination, const Tensor* valid,
          Interpolation interpolation, bool root, bool square, bool narrow, const Execution& on) {
  check_on_cpu("warp", "matrices", matrices);
  check_tensor("warp", "matrices", matrices, Dtype::F64, 3);
  check_contiguous("warp", "matrices", matrices);
  check_shape("warp", "matrices", matrices, 0, source.planes);
  check_shape("warp", "matrices", matrices, 1, 3);
  check_shape("warp", "matrices", matrices, 2, 3);
  check_place("warp", "destination", &destination, source.place);
  check_output("warp", "destination", destination, Dtype::F32, 3);
  check_shape("warp", "destination", destination, 0, source.planes);
  WarpParams p;
  p.source = source;
  for (int i = 0; i < source.planes * 9; ++i) {
    const double v = matrices.as<const double>()[i];
    PYFOCUS_CHECK(v - v == 0, "warp: matrices must be finite, got %g", v);
    p.matrix[i / 9][i % 9] = v;
  }
  p.destination = destination.as<float>();
  p.height = destination.shape[1], p.width = destination.shape[2];
  p.interpolation = interpolation;
  p.root = root, p.square = square, p.narrow = narrow;
  for (int i = 0; i < source.planes * 4; ++i) {  // a horizon inside the picture has no bounded window
    const double* m = p.matrix[i / 4];
    const double x = i & 1 ? static_cast<double>(p.width - 1) : 0, y = i & 2 ? static_cast<double>(p.height - 1) : 0;
    PYFOCUS_CHECK(m[6] * x + m[7] * y + m[8] > 1e-9,
                  "warp: matrices must keep m20 x + m21 y + m22 positive over the destination, got %g at (%g, %g)",
                  m[6] * x + m[7] * y + m[8], x, y);
  }
  if (valid) {
    check_place("warp", "valid", valid, source.place);
    check_output("warp", "valid", *valid, Dtype::U8, 2);
    check_shape("warp", "valid", *valid, 0, p.height);
    check_shape("warp", "valid", *valid, 1, p.width);
    p.valid = valid->as<uint8_t>();
  }
  if (source.place.device == Device::Cuda) PYFOCUS_ON_CUDA("warp", warp_cuda(p, source.place.index, on.stream));
  parallel_for(p.height, kTileHeight, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(warp_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
