// The wavelet on CUDA. One thread per coefficient of the coarse grid; blocks of 32 x 8. What neighbouring threads read
// twice comes from shared memory (along the rows) or from the first-level cache (down the columns).
//
//   measure  low, and energy = mean |b|^2:          per fine pixel of C planes 4 C read (8 C complex), 2 C + 1 written
//   fold     sums <- sums q + w b, weight likewise:  4 C (8 C) + 4 read, 6 C + 1 read and written
//   merge    the way back to 2 x 2 samples:          8 C read, 4 C (8 C) written; planes are blocks of their own
//   pool, spread, valid                              1 1/4 to 5 read, 1 to 4 written
//
// Deterministic; the CPU's sums in the CPU's order, but for products and sums that the compiler contracts.
#include "launch.cuh"
#include "wavelet_rows.h"
#include "wavelet_taps.h"

namespace pyfocus {
namespace {

constexpr int kColumns = 32, kRows = 8;

Grid cells(int64_t height, int64_t width, int planes = 1) {
  return {blocks(width, kColumns), blocks(height, kRows), planes};
}

struct Cell {
  int64_t x, y;
};
PYFOCUS_HD inline Cell cell_of(const At& at) {
  return {int64_t{at.x} * kColumns + at.thread % kColumns, int64_t{at.y} * kRows + at.thread / kColumns};
}

// What the kernels have alike.
struct Plain {
  using Params = WaveletParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = kColumns * kRows, kPhases = 1;
};

// measure and fold go through the planes in turns. First the block's samples down the columns, to shared memory, from
// two to the left of its coefficients to two to the right; then along the rows.
constexpr int kSamples = 2 * kColumns + 4;

struct Columns {
  float low_re[kRows][kSamples], low_im[kRows][kSamples], high_re[kRows][kSamples], high_im[kRows][kSamples];
};

template <bool kComplex>
PYFOCUS_HD inline void split_columns(const WaveletParams& p, const At& at, Columns& out) {
  const float* plane = p.fine + at.turn * p.height * p.width;
  for (int item = at.thread; item < kRows * kSamples; item += kColumns * kRows) {
    const int row = item / kSamples, column = item % kSamples;
    const int64_t y = int64_t{at.y} * kRows + row, x = int64_t{at.x} * (2 * kColumns) + column - 2;
    if (y >= p.coarse_height || x >= 2 * p.coarse_width + 2) continue;
    const float* from = plane + fold_in(x, p.width);
    float v[6];
    for (int j = 0; j < 6; ++j) v[j] = from[fold_in(2 * y + j - 2, p.height) * p.width];
    const Sums s = sums_of(v[0], v[1], v[2], v[3], v[4], v[5]);
    const Sums d = differences_of(v[0], v[1], v[2], v[3], v[4], v[5]);
    Complex low = {real_of(s), imaginary_of(s)}, high = {real_of(d), -imaginary_of(d)};
    if constexpr (kComplex) {
      from += p.planes * p.height * p.width;
      for (int j = 0; j < 6; ++j) v[j] = from[fold_in(2 * y + j - 2, p.height) * p.width];
      low = by_taps(s, sums_of(v[0], v[1], v[2], v[3], v[4], v[5]));
      high = by_conjugate_taps(d, differences_of(v[0], v[1], v[2], v[3], v[4], v[5]));
    }
    out.low_re[row][column] = low.re, out.low_im[row][column] = low.im;
    out.high_re[row][column] = high.re, out.high_im[row][column] = high.im;
  }
}

PYFOCUS_HD inline Complex low_of(const float* re, const float* im) {
  return by_taps(sums_of(re[0], re[1], re[2], re[3], re[4], re[5]), sums_of(im[0], im[1], im[2], im[3], im[4], im[5]));
}
PYFOCUS_HD inline Complex high_of(const float* re, const float* im) {
  return by_conjugate_taps(differences_of(re[0], re[1], re[2], re[3], re[4], re[5]),
                           differences_of(im[0], im[1], im[2], im[3], im[4], im[5]));
}

// low and the three bands at the thread's cell.
struct Coefficients {
  Complex v[4];
};
PYFOCUS_HD inline Coefficients split_row(const Columns& columns, const At& at) {
  const int row = at.thread / kColumns, first = 2 * (at.thread % kColumns);
  const float *lr = columns.low_re[row] + first, *li = columns.low_im[row] + first;
  const float *hr = columns.high_re[row] + first, *hi = columns.high_im[row] + first;
  return {{low_of(lr, li), high_of(lr, li), low_of(hr, hi), high_of(hr, hi)}};
}

template <bool kComplex>
struct MeasureKernel : Plain {
  using Shared = Columns;
  struct Local {
    float sum;
  };
  static constexpr int kPhases = 2;
  PYFOCUS_HD static int turns(const Params& p, const At&) { return p.planes; }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& shared, Local& local) {
    if constexpr (kPhase == 0) {
      split_columns<kComplex>(p, at, shared);
    } else {
      const Cell cell = cell_of(at);
      if (cell.x >= p.coarse_width || cell.y >= p.coarse_height) return;
      const int64_t area = p.coarse_height * p.coarse_width, i = cell.y * p.coarse_width + cell.x;
      const Coefficients found = split_row(shared, at);
      p.low[at.turn * area + i] = found.v[0].re, p.low[(p.planes + at.turn) * area + i] = found.v[0].im;
      float sum = at.turn == 0 ? 0.0f : local.sum;
      for (int band = 1; band < 4; ++band)
        sum += found.v[band].re * found.v[band].re + found.v[band].im * found.v[band].im;
      local.sum = sum;
      if (at.turn == p.planes - 1) p.energy[i] = sum * (1.0f / static_cast<float>(3 * p.planes));
    }
  }
};

template <bool kComplex, int kPower>
struct FoldKernel : Plain {
  using Shared = Columns;
  struct Local {
    float now, keep;
  };
  static constexpr int kPhases = 2;
  PYFOCUS_HD static int turns(const Params& p, const At&) { return p.planes; }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& shared, Local& local) {
    if constexpr (kPhase == 0) {
      split_columns<kComplex>(p, at, shared);
    } else {
      const Cell cell = cell_of(at);
      if (cell.x >= p.coarse_width || cell.y >= p.coarse_height) return;
      const int64_t area = p.coarse_height * p.coarse_width, i = cell.y * p.coarse_width + cell.x;
      if (at.turn == 0) {
        const float scale = inverse_of(p.peak[i]);
        local.now = to_power<kPower>(p.rating[i] * scale), local.keep = to_power<kPower>(p.before[i] * scale);
        p.weight[i] = p.weight[i] * local.keep + local.now;
      }
      const Coefficients found = split_row(shared, at);
      for (int band = 1; band < 4; ++band) {
        float* re = p.sums + ((band - 1) * 2 * p.planes + at.turn) * area + i;
        float* im = re + p.planes * area;
        *re = *re * local.keep + local.now * found.v[band].re;
        *im = *im * local.keep + local.now * found.v[band].im;
      }
    }
  }
};

// One complex plane per block layer; a thread makes 2 x 2 samples from 3 x 3 coefficients of low and the bands.
struct MergeKernel : Plain {
  PYFOCUS_HD static Complex back(const Complex* low, const Complex* high, bool odd) {
    const Complex a = by_conjugate_taps(taps_back(low[0].re, low[1].re, low[2].re, odd),
                                        taps_back(low[0].im, low[1].im, low[2].im, odd));
    const Complex b =
        by_taps(taps_back(high[0].re, high[1].re, high[2].re, odd), taps_back(high[0].im, high[1].im, high[2].im, odd));
    return odd ? Complex{a.re - b.re, a.im - b.im} : Complex{a.re + b.re, a.im + b.im};
  }

  // A coefficient of low or of a band, beyond the border with the sign that the mirror gives it.
  PYFOCUS_HD static Complex value(const Params& p, int plane, int band, int64_t y, int64_t x, float scale, bool above,
                                  bool beside) {
    const int64_t area = p.coarse_height * p.coarse_width, i = y * p.coarse_width + x;
    const float* re = band == 0 ? p.coarse + plane * area : p.sums_in + ((band - 1) * 2 * p.planes + plane) * area;
    const float down = band >= 2 && above ? -1.0f : 1.0f, across = (band & 1) && beside ? -1.0f : 1.0f;
    const float by = (band == 0 ? 1.0f : scale) * (down * across);
    return {re[i] * by, re[p.planes * area + i] * by};
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const Cell cell = cell_of(at);
    const int64_t h = p.coarse_height, w = p.coarse_width;
    if (cell.x >= w || cell.y >= h) return;
    for (int row = 0; row < 2; ++row) {
      if (2 * cell.y + row >= p.height) break;
      Complex low[3], high[3];  // along the row
      for (int i = 0; i < 3; ++i) {
        Complex v[4][3];
        const int64_t x = cell.x + i - 1, column = x < 0 ? 0 : x >= w ? w - 1 : x;
        for (int j = 0; j < 3; ++j) {
          const int64_t y = cell.y + j - 1, line = y < 0 ? 0 : y >= h ? h - 1 : y;
          const float scale = inverse_of(p.weight_in[line * w + column]);
          for (int band = 0; band < 4; ++band)
            v[band][j] = value(p, at.z, band, line, column, scale, line != y, column != x);
        }
        low[i] = back(v[0], v[2], row == 1), high[i] = back(v[1], v[3], row == 1);
      }
      for (int side = 0; side < 2; ++side) {
        if (2 * cell.x + side >= p.width) break;
        const Complex sample = back(low, high, side == 1);
        float* out = p.out + (at.z * p.height + 2 * cell.y + row) * p.width + 2 * cell.x + side;
        out[0] = sample.re;
        if (p.complex) out[p.planes * p.height * p.width] = sample.im;
      }
    }
  }
};

struct PoolKernel : Plain {
  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const Cell cell = cell_of(at);
    if (cell.x >= p.coarse_width || cell.y >= p.coarse_height) return;
    float column[4];
    for (int i = 0; i < 4; ++i) {
      const float* from = p.fine + fold_in(2 * cell.x + i - 1, p.width);
      float v[4];
      for (int j = 0; j < 4; ++j) v[j] = from[fold_in(2 * cell.y + j - 1, p.height) * p.width];
      column[i] = pooled(v[0], v[1], v[2], v[3]);
    }
    const int64_t i = cell.y * p.coarse_width + cell.x;
    const float value = p.gain * kPooled * pooled(column[0], column[1], column[2], column[3]);
    p.out[i] = p.addend ? p.addend[i] + value : value;
  }
};

// One thread per fine pixel.
struct SpreadKernel : Plain {
  PYFOCUS_HD static int64_t beside(int64_t v, int64_t n) {
    const int64_t i = v >> 1;
    return v & 1 ? (i + 1 < n ? i + 1 : i) : (i > 0 ? i - 1 : i);
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const Cell cell = cell_of(at);
    if (cell.x >= p.width || cell.y >= p.height) return;
    const float* near = p.coarse + (cell.y >> 1) * p.coarse_width;
    const float* far = p.coarse + beside(cell.y, p.coarse_height) * p.coarse_width;
    const int64_t x = cell.x >> 1, other = beside(cell.x, p.coarse_width), i = cell.y * p.width + cell.x;
    const float value = p.gain * kSpread * spread_one(spread_one(near[x], far[x]), spread_one(near[other], far[other]));
    p.out[i] = p.addend ? p.addend[i] + value : value;
  }
};

struct ValidKernel : Plain {
  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const Cell cell = cell_of(at);
    if (cell.x >= p.coarse_width || cell.y >= p.coarse_height) return;
    const uint8_t* top = p.valid + 2 * cell.y * p.width;
    const uint8_t* bottom = p.valid + fold_in(2 * cell.y + 1, p.height) * p.width;
    const int64_t left = 2 * cell.x, right = fold_in(2 * cell.x + 1, p.width);
    p.valid_out[cell.y * p.coarse_width + cell.x] = most_of(top[left], top[right], bottom[left], bottom[right]);
  }
};

}  // namespace

void wavelet_measure_cuda(const WaveletParams& p, int device, void* stream) {
  const Grid grid = cells(p.coarse_height, p.coarse_width);
  if (p.complex) return launch<MeasureKernel<true>>("wavelet_measure", grid, p, device, stream);
  launch<MeasureKernel<false>>("wavelet_measure", grid, p, device, stream);
}

void wavelet_fold_cuda(const WaveletParams& p, int device, void* stream) {
  const Grid grid = cells(p.coarse_height, p.coarse_width);
  if (p.complex && p.power == 4) return launch<FoldKernel<true, 4>>("wavelet_fold", grid, p, device, stream);
  if (p.complex) return launch<FoldKernel<true, 8>>("wavelet_fold", grid, p, device, stream);
  if (p.power == 4) return launch<FoldKernel<false, 4>>("wavelet_fold", grid, p, device, stream);
  launch<FoldKernel<false, 8>>("wavelet_fold", grid, p, device, stream);
}

void wavelet_merge_cuda(const WaveletParams& p, int device, void* stream) {
  launch<MergeKernel>("wavelet_merge", cells(p.coarse_height, p.coarse_width, p.planes), p, device, stream);
}

void wavelet_pool_cuda(const WaveletParams& p, int device, void* stream) {
  launch<PoolKernel>("wavelet_pool", cells(p.coarse_height, p.coarse_width), p, device, stream);
}

void wavelet_spread_cuda(const WaveletParams& p, int device, void* stream) {
  launch<SpreadKernel>("wavelet_spread", cells(p.height, p.width), p, device, stream);
}

void wavelet_valid_cuda(const WaveletParams& p, int device, void* stream) {
  launch<ValidKernel>("wavelet_valid", cells(p.coarse_height, p.coarse_width), p, device, stream);
}

}  // namespace pyfocus
