// The wavelet's loops on the CPU: a row of coefficients at a time, in blocks of columns that stay in the first-level
// cache; down the columns first, then along the row. Bytes per fine pixel of C planes of a level: measure 4C read (8C
// of a complex level), 2C written; fold 4C (8C) read, 6C read and written.
#include "wavelet_rows.h"
#include "wavelet_taps.h"

namespace pyfocus::PYFOCUS_ISA {
namespace {

constexpr int64_t kBlock = 128;            // coefficients of a row at a time
constexpr int64_t kWide = 2 * kBlock + 4;  // samples under them

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// low and high down the columns, at the samples under a block.
struct Columns {
  float low_re[kWide], low_im[kWide], high_re[kWide], high_im[kWide];
};

// The coefficients of one plane's block, real and imaginary parts.
struct Coefficients {
  float re[4][kBlock], im[4][kBlock];  // low, and the three bands
};

template <bool kComplex>
inline void split_column(const float* const* re, const float* const* im, int64_t from, int64_t to, Columns& out) {
  const Sums s = sums_of(re[0][from], re[1][from], re[2][from], re[3][from], re[4][from], re[5][from]);
  const Sums d = differences_of(re[0][from], re[1][from], re[2][from], re[3][from], re[4][from], re[5][from]);
  if constexpr (kComplex) {
    const Sums si = sums_of(im[0][from], im[1][from], im[2][from], im[3][from], im[4][from], im[5][from]);
    const Sums di = differences_of(im[0][from], im[1][from], im[2][from], im[3][from], im[4][from], im[5][from]);
    const Complex low = by_taps(s, si), high = by_conjugate_taps(d, di);
    out.low_re[to] = low.re, out.low_im[to] = low.im, out.high_re[to] = high.re, out.high_im[to] = high.im;
  } else {
    out.low_re[to] = real_of(s), out.low_im[to] = imaginary_of(s);
    out.high_re[to] = real_of(d), out.high_im[to] = -imaginary_of(d);
  }
}

// Row y of coefficients, down the columns: samples 2 x0 - 2 .. 2 x0 + 2 count + 1.
template <bool kComplex>
inline void split_columns(const WaveletParams& p, int plane, int64_t y, int64_t x0, int64_t count, Columns& out) {
  const float *re[6], *im[6];
  for (int j = 0; j < 6; ++j) {
    const int64_t row = fold_in(2 * y + j - 2, p.height);
    re[j] = p.fine + (plane * p.height + row) * p.width;
    im[j] = kComplex ? p.fine + ((p.planes + plane) * p.height + row) * p.width : nullptr;
  }
  const int64_t first = 2 * x0 - 2, n = 2 * count + 4;
  const int64_t left = first < 0 ? -first : 0, right = smaller(n, p.width - first);
  for (int64_t x = left; x < right; ++x) split_column<kComplex>(re, im, first + x, x, out);
  for (int64_t x = 0; x < left; ++x) split_column<kComplex>(re, im, fold_in(first + x, p.width), x, out);
  for (int64_t x = right < left ? left : right; x < n; ++x)
    split_column<kComplex>(re, im, fold_in(first + x, p.width), x, out);
}

// Along the row: low and high of columns that are complex.
inline void split_row(const float* re, const float* im, int64_t count, float* low_re, float* low_im, float* high_re,
                      float* high_im) {
  for (int64_t k = 0; k < count; ++k) {
    const float *r = re + 2 * k, *i = im + 2 * k;
    const Complex low =
        by_taps(sums_of(r[0], r[1], r[2], r[3], r[4], r[5]), sums_of(i[0], i[1], i[2], i[3], i[4], i[5]));
    const Complex high = by_conjugate_taps(differences_of(r[0], r[1], r[2], r[3], r[4], r[5]),
                                           differences_of(i[0], i[1], i[2], i[3], i[4], i[5]));
    low_re[k] = low.re, low_im[k] = low.im, high_re[k] = high.re, high_im[k] = high.im;
  }
}

template <bool kComplex>
inline void split_block(const WaveletParams& p, int plane, int64_t y, int64_t x0, int64_t count, Coefficients& out) {
  Columns columns;
  split_columns<kComplex>(p, plane, y, x0, count, columns);
  split_row(columns.low_re, columns.low_im, count, out.re[0], out.im[0], out.re[1], out.im[1]);
  split_row(columns.high_re, columns.high_im, count, out.re[2], out.im[2], out.re[3], out.im[3]);
}

template <bool kComplex>
void measure_all(const WaveletParams& p, int64_t begin, int64_t end) {
  const int64_t area = p.coarse_height * p.coarse_width;
  const float mean = 1.0f / static_cast<float>(3 * p.planes);
  Coefficients found;
  float sum[kBlock];
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < p.coarse_width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x0), at = y * p.coarse_width + x0;
      for (int64_t k = 0; k < count; ++k) sum[k] = 0;
      for (int plane = 0; plane < p.planes; ++plane) {
        split_block<kComplex>(p, plane, y, x0, count, found);
        float *re = p.low + plane * area + at, *im = re + p.planes * area;
        for (int64_t k = 0; k < count; ++k) re[k] = found.re[0][k];
        for (int64_t k = 0; k < count; ++k) im[k] = found.im[0][k];
        for (int band = 1; band < 4; ++band) {
          const float *a = found.re[band], *b = found.im[band];
          for (int64_t k = 0; k < count; ++k) sum[k] += a[k] * a[k] + b[k] * b[k];
        }
      }
      for (int64_t k = 0; k < count; ++k) p.energy[at + k] = sum[k] * mean;
    }
}

template <bool kComplex, int kPower>
void fold_all(const WaveletParams& p, int64_t begin, int64_t end) {
  const int64_t area = p.coarse_height * p.coarse_width;
  Coefficients found;
  float now[kBlock], keep[kBlock];
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < p.coarse_width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x0), at = y * p.coarse_width + x0;
      for (int64_t k = 0; k < count; ++k) {
        const float scale = inverse_of(p.peak[at + k]);
        now[k] = to_power<kPower>(p.rating[at + k] * scale);
        keep[k] = to_power<kPower>(p.before[at + k] * scale);
        p.weight[at + k] = p.weight[at + k] * keep[k] + now[k];
      }
      for (int plane = 0; plane < p.planes; ++plane) {
        split_block<kComplex>(p, plane, y, x0, count, found);
        for (int band = 1; band < 4; ++band) {
          float *re = p.sums + ((band - 1) * 2 * p.planes + plane) * area + at, *im = re + p.planes * area;
          const float *a = found.re[band], *b = found.im[band];
          for (int64_t k = 0; k < count; ++k) re[k] = re[k] * keep[k] + now[k] * a[k];
          for (int64_t k = 0; k < count; ++k) im[k] = im[k] * keep[k] + now[k] * b[k];
        }
      }
    }
}

// Three rows of coefficients around a block and one column more on either side, in which the mirror is done already.
struct Around {
  float re[4][3][kBlock + 2], im[4][3][kBlock + 2];  // low and the bands; rows i - 1, i, i + 1
};

// `scale` (3 rows): what the coefficients are multiplied with; down and across: -1 where high beyond a border changes
// its sign, for bands that are high down the columns and along the rows.
inline void load_row(const float* row, int64_t width, int64_t x0, int64_t count, const float* scale, float down,
                     float across, float* out) {
  const int64_t left = x0 == 0, right = smaller(count + 2, width - x0 + 1);
  for (int64_t k = left; k < right; ++k) out[k] = row[x0 - 1 + k] * (scale[k] * down);
  if (left) out[0] = row[0] * (scale[0] * (down * across));
  for (int64_t k = right; k < count + 2; ++k) out[k] = row[width - 1] * (scale[k] * (down * across));
}

inline void load_around(const WaveletParams& p, int plane, int64_t y, int64_t x0, int64_t count,
                        const float (*scale)[kBlock + 2], const float* one, Around& out) {
  const int64_t h = p.coarse_height, w = p.coarse_width, area = h * w;
  for (int j = 0; j < 3; ++j) {
    const int64_t row = y + j - 1, inside = row < 0 ? 0 : row >= h ? h - 1 : row;
    const float turned = row == inside ? 1.0f : -1.0f;
    for (int band = 0; band < 4; ++band) {
      const float* re = band == 0 ? p.coarse + plane * area : p.sums_in + ((band - 1) * 2 * p.planes + plane) * area;
      const float down = band >= 2 ? turned : 1.0f, across = band & 1 ? -1.0f : 1.0f;
      const float* by = band == 0 ? one : scale[j];
      load_row(re + inside * w, w, x0, count, by, down, across, out.re[band][j]);
      load_row(re + p.planes * area + inside * w, w, x0, count, by, down, across, out.im[band][j]);
    }
  }
}

// A row of samples, 2i or 2i + 1, from low and high down the columns.
inline void merge_columns(const Around& from, int low, int high, int64_t count, bool odd, float* re, float* im) {
  const float (*lr)[kBlock + 2] = from.re[low], (*li)[kBlock + 2] = from.im[low];
  const float (*hr)[kBlock + 2] = from.re[high], (*hi)[kBlock + 2] = from.im[high];
  const float sign = odd ? -1.0f : 1.0f;
  const int first = odd ? 0 : 2, second = 2 - first;
  for (int64_t k = 0; k < count; ++k) {
    const Complex a =
        by_conjugate_taps({lr[first][k], lr[second][k], lr[1][k]}, {li[first][k], li[second][k], li[1][k]});
    const Complex b = by_taps({hr[first][k], hr[second][k], hr[1][k]}, {hi[first][k], hi[second][k], hi[1][k]});
    re[k] = a.re + sign * b.re, im[k] = a.im + sign * b.im;
  }
}

// A block of samples along the row, 2 count of them, from low and high.
inline void merge_row(const float* lr, const float* li, const float* hr, const float* hi, int64_t count, float* re,
                      float* im) {
  for (int64_t k = 0; k < count; ++k) {
    const Complex a = by_conjugate_taps({lr[k + 2], lr[k], lr[k + 1]}, {li[k + 2], li[k], li[k + 1]});
    const Complex b = by_taps({hr[k + 2], hr[k], hr[k + 1]}, {hi[k + 2], hi[k], hi[k + 1]});
    const Complex c = by_conjugate_taps({lr[k], lr[k + 2], lr[k + 1]}, {li[k], li[k + 2], li[k + 1]});
    const Complex d = by_taps({hr[k], hr[k + 2], hr[k + 1]}, {hi[k], hi[k + 2], hi[k + 1]});
    re[2 * k] = a.re + b.re, im[2 * k] = a.im + b.im;
    re[2 * k + 1] = c.re - d.re, im[2 * k + 1] = c.im - d.im;
  }
}

void merge_block(const WaveletParams& p, int plane, int64_t y, int64_t x0, int64_t count,
                 const float (*scale)[kBlock + 2], const float* one) {
  Around around;
  load_around(p, plane, y, x0, count, scale, one, around);
  float low_re[kBlock + 2], low_im[kBlock + 2], high_re[kBlock + 2], high_im[kBlock + 2], re[2 * kBlock],
      im[2 * kBlock];
  const int64_t samples = smaller(2 * count, p.width - 2 * x0);
  for (int64_t row = 2 * y; row < smaller(2 * y + 2, p.height); ++row) {
    merge_columns(around, 0, 2, count + 2, row & 1, low_re, low_im);
    merge_columns(around, 1, 3, count + 2, row & 1, high_re, high_im);
    merge_row(low_re, low_im, high_re, high_im, count, re, im);
    float* out = p.out + (plane * p.height + row) * p.width + 2 * x0;
    for (int64_t x = 0; x < samples; ++x) out[x] = re[x];
    if (!p.complex) continue;
    out += p.planes * p.height * p.width;
    for (int64_t x = 0; x < samples; ++x) out[x] = im[x];
  }
}

}  // namespace

void wavelet_measure_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  if (p.complex)
    measure_all<true>(p, begin, end);
  else
    measure_all<false>(p, begin, end);
}

void wavelet_fold_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  if (p.complex)
    p.power == 4 ? fold_all<true, 4>(p, begin, end) : fold_all<true, 8>(p, begin, end);
  else
    p.power == 4 ? fold_all<false, 4>(p, begin, end) : fold_all<false, 8>(p, begin, end);
}

void wavelet_merge_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  const int64_t h = p.coarse_height, w = p.coarse_width;
  float scale[3][kBlock + 2], one[kBlock + 2];
  for (int64_t k = 0; k < kBlock + 2; ++k) one[k] = 1.0f;
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < w; x0 += kBlock) {
      const int64_t count = smaller(kBlock, w - x0);
      for (int j = 0; j < 3; ++j) {
        const int64_t row = y + j - 1, inside = row < 0 ? 0 : row >= h ? h - 1 : row;
        load_row(p.weight_in + inside * w, w, x0, count, one, 1.0f, 1.0f, scale[j]);
        for (int64_t k = 0; k < count + 2; ++k) scale[j][k] = inverse_of(scale[j][k]);
      }
      for (int plane = 0; plane < p.planes; ++plane) merge_block(p, plane, y, x0, count, scale, one);
    }
}

void wavelet_pool_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  float column[2 * kBlock + 2];
  for (int64_t y = begin; y < end; ++y) {
    const float* row[4];
    for (int j = 0; j < 4; ++j) row[j] = p.fine + fold_in(2 * y + j - 1, p.height) * p.width;
    for (int64_t x0 = 0; x0 < p.coarse_width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x0), first = 2 * x0 - 1, n = 2 * count + 2;
      const int64_t left = first < 0, right = smaller(n, p.width - first);
      const auto sum_at = [&](int64_t x) { return pooled(row[0][x], row[1][x], row[2][x], row[3][x]); };
      for (int64_t x = left; x < right; ++x) column[x] = sum_at(first + x);
      if (left) column[0] = sum_at(0);
      for (int64_t x = right; x < n; ++x) column[x] = sum_at(fold_in(first + x, p.width));
      const float gain = p.gain * kPooled;
      float* out = p.out + y * p.coarse_width + x0;
      const float* addend = p.addend ? p.addend + (out - p.out) : nullptr;
      for (int64_t k = 0; k < count; ++k) {
        const float* c = column + 2 * k;
        const float value = gain * pooled(c[0], c[1], c[2], c[3]);
        out[k] = addend ? addend[k] + value : value;
      }
    }
  }
}

void wavelet_spread_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  const int64_t h = p.coarse_height, w = p.coarse_width;
  float column[kBlock + 2];
  const float gain = p.gain * kSpread;
  for (int64_t y = begin; y < end; ++y) {
    const int64_t i = y >> 1, beside = y & 1 ? (i + 1 < h ? i + 1 : i) : (i > 0 ? i - 1 : i);
    const float *near = p.coarse + i * w, *far = p.coarse + beside * w;
    for (int64_t x0 = 0; x0 < w; x0 += kBlock) {
      const int64_t count = smaller(kBlock, w - x0), left = x0 == 0, right = smaller(count + 2, w - x0 + 1);
      for (int64_t k = left; k < right; ++k) column[k] = spread_one(near[x0 - 1 + k], far[x0 - 1 + k]);
      if (left) column[0] = column[1];
      if (right < count + 2) column[count + 1] = column[count];
      float* out = p.out + y * p.width + 2 * x0;
      const float* addend = p.addend ? p.addend + (out - p.out) : nullptr;
      const int64_t samples = smaller(2 * count, p.width - 2 * x0);
      for (int64_t k = 0; k < count; ++k) {
        const float even = gain * spread_one(column[k + 1], column[k]);
        const float odd = gain * spread_one(column[k + 1], column[k + 2]);
        out[2 * k] = addend ? addend[2 * k] + even : even;
        if (2 * k + 1 < samples) out[2 * k + 1] = addend ? addend[2 * k + 1] + odd : odd;
      }
    }
  }
}

void wavelet_valid_rows(const WaveletParams& p, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const uint8_t* top = p.valid + 2 * y * p.width;
    const uint8_t* bottom = p.valid + fold_in(2 * y + 1, p.height) * p.width;
    uint8_t* out = p.valid_out + y * p.coarse_width;
    for (int64_t x = 0; x < p.width / 2; ++x)
      out[x] = most_of(top[2 * x], top[2 * x + 1], bottom[2 * x], bottom[2 * x + 1]);
    const int64_t last = p.width - 1;
    if (p.width & 1) out[last / 2] = most_of(top[last], top[last], bottom[last], bottom[last]);
  }
}

}  // namespace pyfocus::PYFOCUS_ISA
