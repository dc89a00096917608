// warp on CUDA. A block owns 32 x 32 destination pixels of all planes (256 threads; a thread owns 4 pixels, one below
// the other). One turn per plane:
//   1. where the plane's map is not the last plane's: the window of the source that the tile sees,
//   2. that window goes to shared memory as floats (conversion, table, black level, root and edge repetition happen
//      here, once per source pixel), and every thread finds its pixels' places and weights, which it keeps for the
//      planes of the same map,
//   3. the sums. Where the taps of a thread's pixels lie in the same columns, one row apart, each row of taps is read
//      once for all four pixels: 9 x 6 reads instead of 4 x 6 x 6. A row or column more (weight 0) lets maps that
//      scale or turn a little do the same; others read the taps of each pixel.
// Windows larger than shared memory (a picture shrunk to less than 0.4) are not made: taps come from global memory.
//
// Lanczos-3, per value, picture hardly scaled or turned: 1.5 source pixels read (the halo's part from L2) and 4 bytes
// written, 13.5 reads of shared memory, 42 multiply-adds; places and weights about 110 instructions per pixel and map.
// Counted by hand: about 95 instructions per value where four planes share a map, 170 where each has its own. So the
// bound is arithmetic, not memory. Planes of a mosaic share cache lines: the block that reads the first finds the
// others in L1. 30.8 KB of shared memory.
//
// Places: within the picture and for an affine map a thread's first place is double, the others follow in steps of
// 2^-32 pixels, because cards without fast doubles would take longer for places than for all else; 1e-9 pixels from
// the CPU's. Else they are the CPU's doubles. Weights and sums are the CPU's floats in its order: without contraction
// to fused multiply-adds the same bits wherever places are doubles, 2e-7 from them elsewhere. Deterministic. Next to a
// source pixel that is infinite or NaN one more row and column may be NaN than on the CPU.
#include "launch.cuh"
#include "planes.cuh"
#include "warp.h"

// Loops written out, and not: what a thread keeps stays in registers only where every index is a constant.
#if defined(__CUDA_ARCH__)
#define PYFOCUS_UNROLLED _Pragma("unroll") for
#define PYFOCUS_ROLLED _Pragma("unroll 1") for
#else
#define PYFOCUS_UNROLLED for
#define PYFOCUS_ROLLED for
#endif

namespace pyfocus {
namespace {

constexpr int kTile = 32, kRows = 4, kWarps = kTile / kRows;
constexpr int kWindow = 7680;         // floats: two blocks fit on every card
constexpr double kRounding = 1e-8;    // of a place, in pixels
constexpr double kLargest = 1 << 24;  // beyond, the sums of a place are less exact than that

struct WarpCudaParams {
  WarpParams warp;
  bool fresh[kMaxPlanes];                          // the map is not the last plane's
  bool steady[kMaxPlanes];                         // affine, and small enough for steps
  int64_t step_x[kMaxPlanes], step_y[kMaxPlanes];  // of a place to the next row's, in 2^-32 pixels
};

struct Window {
  int x0, y0, width, height;  // source pixel of the first element; size
  bool fits;                  // in shared memory
  bool whole;                 // within the source: no edges to repeat
  bool inside;                // all places of the tile are within the source
};

PYFOCUS_HD inline int limit(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

PYFOCUS_HD inline double limit(double v, double low, double high) { return v > low ? (v < high ? v : high) : low; }

// floor of a place, which stops just outside the source, also when it is NaN.
PYFOCUS_HD inline int floor_within(double v, int64_t size) {
  const double limited = limit(v, -2.0, static_cast<double>(size) + 1);
  const int whole = static_cast<int>(limited);
  return whole - (static_cast<double>(whole) > limited);
}

// The same operations in the same order as the CPU's.
PYFOCUS_HD inline void place(const double* m, double x, double y, double* sx, double* sy) {
  *sx = m[0] * x + (m[1] * y + m[2]), *sy = m[3] * x + (m[4] * y + m[5]);
  if (m[6] == 0 && m[7] == 0 && m[8] == 1) return;
  const double scale = 1 / (m[6] * x + (m[7] * y + m[8]));
  *sx *= scale, *sy *= scale;
}

PYFOCUS_HD inline bool is_seen(double sx, double sy, const PlaneSource& s) {
  const double right = static_cast<double>(s.width) - 1, bottom = static_cast<double>(s.height) - 1;
  const double a = sx < right - sx ? sx : right - sx, b = sy < bottom - sy ? sy : bottom - sy;
  return static_cast<float>((a < b ? a : b) + 1e-6) >= 0;  // rounding of a position is not leaving the image
}

PYFOCUS_HD inline float signed_root(float v) {
  const float r = sqrtf(v < 0 ? -v : v);
  return v < 0 ? -r : r;
}

template <class T>
PYFOCUS_HD inline float read(const WarpParams& p, int plane, int64_t y, int64_t x) {
  const float v = load_value<T>(p.source, plane, y, x);
  return p.root ? signed_root(v) : v;
}

template <class Taps>
struct WarpKernel {
  using Params = WarpCudaParams;
  struct Shared {
    float value[kWindow];
    Window window;
    bool slack[kWarps], wild[kWarps];  // what the warp's threads need, see locate()
  };
  static constexpr int kTaps = Taps::kCount, kWide = kTaps + 1;
  struct Local {
    float wx[kRows][kWide], wy[kRows][kWide];
    int first[kRows];  // first tap in the window
    unsigned seen;     // a bit per row, of all planes so far
  };
  static constexpr int kThreads = kTile * kWarps, kPhases = 3, kBlocksPerSm = 2;

  PYFOCUS_HD static int turns(const Params& p, const At&) { return p.warp.source.planes; }

  // A projective map keeps the tile convex, so its corners bound it.
  PYFOCUS_HD static Window window_of(const WarpParams& p, int plane, const At& at) {
    const int64_t left = int64_t{at.x} * kTile, top = int64_t{at.y} * kTile;
    const int64_t right = left + kTile < p.width ? left + kTile : p.width,
                  bottom = top + kTile < p.height ? top + kTile : p.height;
    double low_x = 1e300, high_x = -1e300, low_y = 1e300, high_y = -1e300;
    bool finite = true;
    PYFOCUS_ROLLED(int corner = 0; corner < 4; ++corner) {
      double sx, sy;
      place(p.matrix[plane], static_cast<double>(corner & 1 ? right - 1 : left),
            static_cast<double>(corner & 2 ? bottom - 1 : top), &sx, &sy);
      finite = finite && sx - sx == 0 && sy - sy == 0;
      low_x = sx < low_x ? sx : low_x, high_x = sx > high_x ? sx : high_x;
      low_y = sy < low_y ? sy : low_y, high_y = sy > high_y ? sy : high_y;
    }
    const PlaneSource& s = p.source;
    Window w;
    // One column more on the right, one row more above and below: see locate(). A thread whose last rows lie beyond
    // the destination reads on below.
    w.x0 = floor_within(low_x - kRounding, s.width) + Taps::kFirst;
    w.y0 = floor_within(low_y - kRounding, s.height) + Taps::kFirst - 1;
    w.width = floor_within(high_x + kRounding, s.width) + Taps::kFirst + kWide - w.x0;
    w.height = floor_within(high_y + kRounding, s.height) + Taps::kFirst + kWide - w.y0;
    if ((bottom - top) % kRows != 0) w.height += kRows - 1;
    w.fits = finite && int64_t{w.width} * w.height <= kWindow;
    w.whole = w.x0 >= 0 && w.y0 >= 0 && w.x0 + w.width <= s.width && w.y0 + w.height <= s.height;
    w.inside = low_x >= 0 && low_y >= 0 && high_x <= static_cast<double>(s.width - 1) &&
               high_y <= static_cast<double>(s.height - 1);
    return w;
  }

  // A warp takes 32 columns of a row, or the last 16 or 8 of 2 or 4 rows.
  template <class T, bool kWhole>
  PYFOCUS_HD static void fill(const WarpParams& p, int plane, int thread, Shared& shared) {
    const Window w = shared.window;
    const int lane = thread % 32, warp = thread / 32;
    const int right = static_cast<int>(p.source.width) - 1, bottom = static_cast<int>(p.source.height) - 1;
    for (int x0 = 0; x0 < w.width; x0 += 32) {
      const int rest = w.width - x0, wide = rest > 16 ? 5 : rest > 8 ? 4 : 3, rows = 32 >> wide;
      const int x = x0 + (lane & ((1 << wide) - 1));
      if (x >= w.width) continue;
      const int column = kWhole ? w.x0 + x : limit(w.x0 + x, 0, right);
      for (int y = warp * rows + (lane >> wide); y < w.height; y += kWarps * rows)
        shared.value[y * w.width + x] = read<T>(p, plane, kWhole ? w.y0 + y : limit(w.y0 + y, 0, bottom), column);
    }
  }

  template <bool kWhole>
  PYFOCUS_HD static void fill_from(const WarpParams& p, int plane, int thread, Shared& shared) {
    if (p.source.dtype == Dtype::U8)
      fill<uint8_t, kWhole>(p, plane, thread, shared);
    else if (p.source.dtype == Dtype::U16)
      fill<uint16_t, kWhole>(p, plane, thread, shared);
    else
      fill<float, kWhole>(p, plane, thread, shared);
  }

  // Columns and rows, in the window, of each pixel's first tap; the rest of the place becomes weights.
  PYFOCUS_HD static void places_in_steps(const Params& p, int plane, const Window& w, int64_t x, int64_t y, int* column,
                                         int* row, Local& l) {
    constexpr double kUnit = 4294967296.0;
    double sx, sy;
    place(p.warp.matrix[plane], static_cast<double>(x), static_cast<double>(y), &sx, &sy);
    int64_t px = static_cast<int64_t>((sx - (w.x0 - Taps::kFirst)) * kUnit),
            py = static_cast<int64_t>((sy - (w.y0 - Taps::kFirst)) * kUnit);
    PYFOCUS_UNROLLED(int i = 0; i < kRows; ++i, px += p.step_x[plane], py += p.step_y[plane]) {
      column[i] = static_cast<int>(px >> 32), row[i] = static_cast<int>(py >> 32);
      Taps::weights(static_cast<float>(static_cast<uint32_t>(px)) * static_cast<float>(1 / kUnit), l.wx[i]);
      Taps::weights(static_cast<float>(static_cast<uint32_t>(py)) * static_cast<float>(1 / kUnit), l.wy[i]);
    }
  }

  PYFOCUS_HD static void places_in_doubles(const WarpParams& p, int plane, const Window& w, int64_t x, int64_t y,
                                           int* column, int* row, Local& l) {
    const double right = static_cast<double>(p.source.width) + 1, bottom = static_cast<double>(p.source.height) + 1;
    PYFOCUS_UNROLLED(int i = 0; i < kRows; ++i) {
      double sx, sy;
      place(p.matrix[plane], static_cast<double>(x), static_cast<double>(y + i < p.height ? y + i : y), &sx, &sy);
      if (!is_seen(sx, sy, p.source)) l.seen &= ~(1u << i);
      // Beyond the edge the picture repeats, so the place may stop there: the window was cut at the same places.
      const double px = limit(sx, -2.0, right) - (w.x0 - Taps::kFirst),
                   py = limit(sy, -2.0, bottom) - (w.y0 - Taps::kFirst);
      const int ix = static_cast<int>(px), iy = static_cast<int>(py);
      Taps::weights(static_cast<float>(px - ix), l.wx[i]);
      Taps::weights(static_cast<float>(py - iy), l.wy[i]);
      column[i] = limit(ix, 0, w.width - kWide), row[i] = limit(iy, 1, w.height - kWide);
    }
  }

  // Weights one tap later, for a pixel whose taps begin one column or row after the thread's others.
  PYFOCUS_HD static void shift(float* w) {
    PYFOCUS_UNROLLED(int k = kTaps; k > 0; --k) w[k] = w[k - 1];
    w[0] = 0;
  }

  // Where the taps of pixel i begin in column c or c + 1 and in row r + i or r + i + 1, all begin in column c and row
  // r + i, with weights of 0 where they need none: `slack` if any pixel needs that. Else the thread is `wild`.
  PYFOCUS_HD static void locate(const Params& p, int plane, int64_t x, int64_t y, int warp, Shared& shared, Local& l) {
    const Window w = shared.window;
    int column[kRows], row[kRows];
    if (w.inside && p.steady[plane])
      places_in_steps(p, plane, w, x, y, column, row, l);
    else
      places_in_doubles(p.warp, plane, w, x, y, column, row, l);
    if (y + kRows > p.warp.height) {  // rows beyond the destination read along
      PYFOCUS_UNROLLED(int i = 1; i < kRows; ++i) {
        if (y + i >= p.warp.height) column[i] = column[0], row[i] = row[0] + i;
      }
    }
    int c = column[0], last_c = column[0], r = row[0], last_r = row[0];
    PYFOCUS_UNROLLED(int i = 1; i < kRows; ++i) {
      c = column[i] < c ? column[i] : c, last_c = column[i] > last_c ? column[i] : last_c;
      r = row[i] - i < r ? row[i] - i : r, last_r = row[i] - i > last_r ? row[i] - i : last_r;
    }
    const bool wild = last_c - c > 1 || last_r - r > 1;
    PYFOCUS_UNROLLED(int i = 0; i < kRows; ++i) {
      l.wx[i][kTaps] = 0, l.wy[i][kTaps] = 0;
      l.first[i] = wild ? row[i] * w.width + column[i] : (r + i) * w.width + c;
    }
    if (wild) {
      shared.wild[warp] = true;
    } else if (last_c != c || last_r != r) {
      shared.slack[warp] = true;
      PYFOCUS_UNROLLED(int i = 0; i < kRows; ++i) {
        if (column[i] != c) shift(l.wx[i]);
        if (row[i] - i != r) shift(l.wy[i]);
      }
    }
  }

  // Pixels kFirst .. kFirst + kCount - 1 of the thread, whose taps begin one row apart: a row of taps is read once.
  template <int kUsed, int kFirst, int kCount>
  PYFOCUS_HD static void sum_taps(const Shared& shared, const Local& l, float* out) {
    const float* taps = shared.value + l.first[kFirst];
    const int stride = shared.window.width;
    PYFOCUS_UNROLLED(int j = 0; j < kUsed + kCount - 1; ++j) {
      float tap[kUsed];
      PYFOCUS_UNROLLED(int k = 0; k < kUsed; ++k) tap[k] = taps[j * stride + k];
      PYFOCUS_UNROLLED(int i = 0; i < kCount; ++i) {
        if (j - i < 0 || j - i >= kUsed) continue;
        float row = tap[0] * l.wx[kFirst + i][0];
        PYFOCUS_UNROLLED(int k = 1; k < kUsed; ++k) row += tap[k] * l.wx[kFirst + i][k];
        const float weighted = row * l.wy[kFirst + i][j - i];
        out[kFirst + i] = j == i ? weighted : out[kFirst + i] + weighted;
      }
    }
  }

  // A pixel without a window. Nothing is kept there, so what is kept elsewhere makes room for its weights.
  template <class T>
  PYFOCUS_HD static float sample(const WarpParams& p, int plane, int64_t x, int64_t y, Local& l, bool* seen) {
    const PlaneSource& s = p.source;
    double sx, sy;
    place(p.matrix[plane], static_cast<double>(x), static_cast<double>(y), &sx, &sy);
    *seen = is_seen(sx, sy, s);
    const int ix = floor_within(sx, s.width), iy = floor_within(sy, s.height);
    float *wx = l.wx[0], *wy = l.wy[0], sum = 0;
    Taps::weights(static_cast<float>(limit(sx, -2.0, static_cast<double>(s.width) + 1) - ix), wx);
    Taps::weights(static_cast<float>(limit(sy, -2.0, static_cast<double>(s.height) + 1) - iy), wy);
    PYFOCUS_ROLLED(int j = 0; j < kTaps; ++j) {
      const int row = limit(iy + Taps::kFirst + j, 0, static_cast<int>(s.height) - 1);
      float in_row = 0, weight = wy[0];
      PYFOCUS_UNROLLED(int k = 1; k < kTaps; ++k) weight = k == j ? wy[k] : weight;
      PYFOCUS_UNROLLED(int k = 0; k < kTaps; ++k) {
        const int column = limit(ix + Taps::kFirst + k, 0, static_cast<int>(s.width) - 1);
        const float part = read<T>(p, plane, row, column) * wx[k];
        in_row = k == 0 ? part : in_row + part;
      }
      sum = j == 0 ? in_row * weight : sum + in_row * weight;
    }
    return sum;
  }

  PYFOCUS_HD static void store(const WarpParams& p, int plane, int64_t x, int64_t y, float v, unsigned seen) {
    p.destination[(plane * p.height + y) * p.width + x] = p.square ? v * (v < 0 ? -v : v) : v;
    if (!p.valid || plane + 1 < p.source.planes) return;
    uint8_t* valid = p.valid + y * p.width + x;
    if (!p.narrow || !(seen & 1u)) *valid = static_cast<uint8_t>(seen & 1u);
  }

  PYFOCUS_HD static void sample_each(const WarpParams& p, int plane, int64_t x, int64_t y, Local& l) {
    for (int i = 0; i < kRows && y + i < p.height; ++i) {
      bool seen;
      const float v = p.source.dtype == Dtype::U8    ? sample<uint8_t>(p, plane, x, y + i, l, &seen)
                      : p.source.dtype == Dtype::U16 ? sample<uint16_t>(p, plane, x, y + i, l, &seen)
                                                     : sample<float>(p, plane, x, y + i, l, &seen);
      if (!seen) l.seen &= ~(1u << i);
      store(p, plane, x, y + i, v, l.seen >> i);
    }
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& shared, Local& l) {
    const int plane = at.turn, warp = at.thread / 32;
    if (kPhase == 0) {
      if (!p.fresh[plane]) return;
      if (at.thread == 0) shared.window = window_of(p.warp, plane, at);
      if (at.thread < kWarps) shared.slack[at.thread] = false, shared.wild[at.thread] = false;
      return;
    }
    const int64_t x = int64_t{at.x} * kTile + at.thread % 32, y = int64_t{at.y} * kTile + warp * kRows;
    const bool mine = x < p.warp.width && y < p.warp.height;
    if (kPhase == 1) {
      if (plane == 0) l.seen = ~0u;
      if (!shared.window.fits) return;
      if (shared.window.whole)
        fill_from<true>(p.warp, plane, at.thread, shared);
      else
        fill_from<false>(p.warp, plane, at.thread, shared);
      if (mine && p.fresh[plane]) locate(p, plane, x, y, warp, shared, l);
      return;
    }
    if (!mine) return;
    if (!shared.window.fits) return sample_each(p.warp, plane, x, y, l);
    float out[kRows];
    if (shared.wild[warp]) {
      sum_taps<kWide, 0, 1>(shared, l, out), sum_taps<kWide, 1, 1>(shared, l, out);
      sum_taps<kWide, 2, 1>(shared, l, out), sum_taps<kWide, 3, 1>(shared, l, out);
    } else if (shared.slack[warp]) {
      sum_taps<kWide, 0, kRows>(shared, l, out);
    } else {
      sum_taps<kTaps, 0, kRows>(shared, l, out);
    }
    PYFOCUS_UNROLLED(int i = 0; i < kRows; ++i) {
      if (y + i < p.warp.height) store(p.warp, plane, x, y + i, out[i], l.seen >> i);
    }
  }
};

double magnitude(double v) { return v < 0 ? -v : v; }

// Steps in 2^-32 pixels, rounded to the nearest.
int64_t steps_of(double v) { return static_cast<int64_t>(v * 4294967296.0 + (v < 0 ? -0.5 : 0.5)); }

WarpCudaParams with_steps(const WarpParams& warp) {
  WarpCudaParams p{};
  p.warp = warp;
  for (int plane = 0; plane < warp.source.planes; ++plane) {
    const double* m = warp.matrix[plane];
    bool same = plane > 0, small = m[6] == 0 && m[7] == 0 && m[8] == 1;
    for (int i = 0; i < 9 && same; ++i) same = m[i] == warp.matrix[plane - 1][i];
    const double width = static_cast<double>(warp.width), height = static_cast<double>(warp.height);
    for (int i = 0; i < 6; i += 3)
      small = small && magnitude(m[i]) * width < kLargest && magnitude(m[i + 1]) * height < kLargest &&
              magnitude(m[i + 2]) < kLargest;
    p.fresh[plane] = !same, p.steady[plane] = small;
    if (small) p.step_x[plane] = steps_of(m[1]), p.step_y[plane] = steps_of(m[4]);
  }
  return p;
}

}  // namespace

void warp_cuda(const WarpParams& p, int device, void* stream) {
  const WarpCudaParams with = with_steps(p);
  const Grid grid{blocks(p.width, kTile), blocks(p.height, kTile)};
  switch (p.interpolation) {
    case Interpolation::Bilinear:
      return launch<WarpKernel<Bilinear>>("warp", grid, with, device, stream);
    case Interpolation::Bicubic:
      return launch<WarpKernel<Bicubic>>("warp", grid, with, device, stream);
    case Interpolation::Lanczos3:
      return launch<WarpKernel<Lanczos3>>("warp", grid, with, device, stream);
  }
}

}  // namespace pyfocus
