// The pyramid's loops on the CPU: separable stencils by rows, in blocks that stay in the first-level cache.
// Bytes per fine pixel of a level with C planes: energy 4C read; fold 4C read, 8(C+1) read and written; the grids
// below add a quarter of a plane each.
#include "pyramid_rows.h"
#include "pyramid_taps.h"

namespace pyfocus::PYFOCUS_ISA {
namespace {

constexpr int64_t kBlock = 256;  // columns handled at a time
constexpr int64_t kEnergyRows = 16, kEnergyColumns = 128;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline float binomial(const float* t) { return binomial_sum(t[0], t[1], t[2], t[3], t[4]); }

// Vertical binomial of five rows at columns [x0, x0 + count), mirrored at both ends.
inline void column_sums(const float* const* row, int64_t width, int64_t x0, int64_t count, float* out) {
  const int64_t left = smaller(x0 < 0 ? -x0 : 0, count), right = smaller(count, width - x0);
  const float *a = row[0] + x0, *b = row[1] + x0, *c = row[2] + x0, *d = row[3] + x0, *e = row[4] + x0;
  for (int64_t x = left; x < right; ++x) out[x] = binomial_sum(a[x], b[x], c[x], d[x], e[x]);
  const auto edge = [&](int64_t x) {
    const int64_t m = mirror_in(x0 + x, width);
    out[x] = binomial_sum(row[0][m], row[1][m], row[2][m], row[3][m], row[4][m]);
  };
  for (int64_t x = 0; x < left; ++x) edge(x);
  for (int64_t x = right < left ? left : right; x < count; ++x) edge(x);
}

// Fine row y at columns [x0, x0 + count) of up(coarse); x0 is even. Weights (1 6 1)/8 and (4 4)/8 per direction.
inline void expand_row(const float* coarse, int64_t height, int64_t width, int64_t y, int64_t x0, int64_t count,
                       float* out) {
  float column[kBlock / 2 + 3];
  const int64_t i = y >> 1, first = (x0 >> 1) - 1, n = (count >> 1) + (count & 1) + 2;
  const float *a = coarse + clamp_to(i - 1, height - 1) * width, *b = coarse + clamp_to(i, height - 1) * width,
              *c = coarse + clamp_to(i + 1, height - 1) * width;
  const int64_t left = first < 0 ? -first : 0, right = smaller(n, width - first);
  if (y & 1)
    for (int64_t k = left; k < right; ++k) column[k] = up_between(b[first + k], c[first + k]);
  else
    for (int64_t k = left; k < right; ++k) column[k] = up_on(a[first + k], b[first + k], c[first + k]);
  const auto edge = [&](int64_t k) {  // beyond the border the edge repeats
    const int64_t x = clamp_to(first + k, width - 1);
    column[k] = y & 1 ? up_between(b[x], c[x]) : up_on(a[x], b[x], c[x]);
  };
  for (int64_t k = 0; k < left; ++k) edge(k);
  for (int64_t k = right; k < n; ++k) edge(k);
  for (int64_t k = 0; k < count >> 1; ++k) {
    out[2 * k] = up_on(column[k], column[k + 1], column[k + 2]);
    out[2 * k + 1] = up_between(column[k + 1], column[k + 2]);
  }
  if (count & 1) {
    const int64_t k = count >> 1;
    out[count - 1] = up_on(column[k], column[k + 1], column[k + 2]);
  }
}

template <int kPower>
void fold_block(const PyramidParams& p, int64_t y, int64_t x0, int64_t count) {
  float low[kBlock], rating[kBlock], before[kBlock], peak[kBlock];
  expand_row(p.rating, p.coarse_height, p.coarse_width, y, x0, count, rating);
  expand_row(p.before, p.coarse_height, p.coarse_width, y, x0, count, before);
  expand_row(p.peak, p.coarse_height, p.coarse_width, y, x0, count, peak);
  float* denominator = p.denominator + y * p.width + x0;
  for (int64_t x = 0; x < count; ++x) {
    const float scale = scale_of(peak[x]);
    rating[x] = raise<kPower>(rating[x] * scale);
    before[x] = raise<kPower>(before[x] * scale);
    denominator[x] = denominator[x] * before[x] + rating[x];
  }
  for (int plane = 0; plane < p.planes; ++plane) {
    expand_row(p.coarse + plane * p.coarse_height * p.coarse_width, p.coarse_height, p.coarse_width, y, x0, count, low);
    const float* fine = p.fine + (plane * p.height + y) * p.width + x0;
    float* numerator = p.numerator + (plane * p.height + y) * p.width + x0;
    for (int64_t x = 0; x < count; ++x) numerator[x] = numerator[x] * before[x] + rating[x] * (fine[x] - low[x]);
  }
}

template <int kPower>
void fold_all(const PyramidParams& p, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x = 0; x < p.width; x += kBlock) fold_block<kPower>(p, y, x, smaller(kBlock, p.width - x));
}

}  // namespace

void down_rows(const PyramidParams& p, int plane, int64_t begin, int64_t end) {
  const float* source = p.fine + plane * p.height * p.width;
  float column[2 * kBlock + 3];
  for (int64_t y = begin; y < end; ++y) {
    const float* row[5];
    for (int j = 0; j < 5; ++j) row[j] = source + mirror_in(2 * y + j - 2, p.height) * p.width;
    for (int64_t x = 0; x < p.coarse_width; x += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x);
      column_sums(row, p.width, 2 * x - 2, 2 * count + 3, column);
      float* out = p.out + (plane * p.coarse_height + y) * p.coarse_width + x;
      if (p.addend) {
        const float* addend = p.addend + (out - p.out);
        for (int64_t k = 0; k < count; ++k) out[k] = addend[k] + binomial(column + 2 * k) * kBinomial;
      } else {
        for (int64_t k = 0; k < count; ++k) out[k] = binomial(column + 2 * k) * kBinomial;
      }
    }
  }
}

void up_rows(const PyramidParams& p, int plane, int64_t begin, int64_t end) {
  const float* source = p.coarse + plane * p.coarse_height * p.coarse_width;
  float row[kBlock];
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < p.width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.width - x0);
      expand_row(source, p.coarse_height, p.coarse_width, y, x0, count, row);
      float* out = p.out + (plane * p.height + y) * p.width + x0;
      if (p.addend) {
        const float* addend = p.addend + (out - p.out);
        for (int64_t x = 0; x < count; ++x) out[x] = addend[x] + p.gain * row[x];
      } else {
        for (int64_t x = 0; x < count; ++x) out[x] = p.gain * row[x];
      }
    }
}

void smooth_rows(const PyramidParams& p, int plane, int64_t begin, int64_t end) {
  const float* source = p.fine + plane * p.height * p.width;
  float column[kBlock + 4];
  for (int64_t y = begin; y < end; ++y) {
    const float* row[5];
    for (int j = 0; j < 5; ++j) row[j] = source + mirror_in(y + j - 2, p.height) * p.width;
    for (int64_t x = 0; x < p.width; x += kBlock) {
      const int64_t count = smaller(kBlock, p.width - x);
      column_sums(row, p.width, x - 2, count + 4, column);
      float* out = p.out + (plane * p.height + y) * p.width + x;
      for (int64_t k = 0; k < count; ++k) out[k] = binomial(column + k) * kBinomial;
    }
  }
}

void energy_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  constexpr int64_t kRows = 2 * kEnergyRows + 3, kColumns = 2 * kEnergyColumns + 4;
  float square[kRows * kColumns], low[kColumns], column[kColumns];
  const float mean = 1.0f / static_cast<float>(p.planes);
  for (int64_t y0 = begin; y0 < end; y0 += kEnergyRows)
    for (int64_t x0 = 0; x0 < p.coarse_width; x0 += kEnergyColumns) {
      const int64_t rows = smaller(kEnergyRows, end - y0), columns = smaller(kEnergyColumns, p.coarse_width - x0);
      // 1. squared detail of the fine rows and columns this tile pools (the part inside the image)
      const int64_t top = 2 * y0 - 2 < 0 ? 0 : 2 * y0 - 2, bottom = smaller(p.height, 2 * (y0 + rows) + 1);
      const int64_t left = 2 * x0 - 2 < 0 ? 0 : 2 * x0 - 2, right = smaller(p.width, 2 * (x0 + columns) + 1);
      const int64_t count = right - left;
      for (int64_t y = top; y < bottom; ++y) {
        float* sum = square + (y - top) * kColumns;
        for (int64_t x = 0; x < count; ++x) sum[x] = 0;
        for (int plane = 0; plane < p.planes; ++plane) {
          const float* fine = p.fine + (plane * p.height + y) * p.width + left;
          const float* coarse = p.coarse + plane * p.coarse_height * p.coarse_width;
          for (int64_t x = 0; x < count; x += kBlock) {
            const int64_t part = smaller(kBlock, count - x);
            expand_row(coarse, p.coarse_height, p.coarse_width, y, left + x, part, low + x);
          }
          for (int64_t x = 0; x < count; ++x) {
            const float detail = fine[x] - low[x];
            sum[x] += detail * detail;
          }
        }
      }
      // 2. pooled to the coarse grid
      for (int64_t y = y0; y < y0 + rows; ++y) {
        const float* row[5];
        for (int j = 0; j < 5; ++j) row[j] = square + (mirror_in(2 * y + j - 2, p.height) - top) * kColumns;
        // buffer columns 0 .. count - 1 are image columns left .. right - 1; this tile's sums start at 2 x0 - 2
        const int64_t shift = 2 * x0 - 2 - left, n = 2 * columns + 3;
        const int64_t from = shift < 0 ? -shift : 0, to = smaller(n, count - shift);
        const auto sum_at = [&](int64_t m) {
          return binomial_sum(row[0][m], row[1][m], row[2][m], row[3][m], row[4][m]);
        };
        for (int64_t x = from; x < to; ++x) column[x] = sum_at(shift + x);
        for (int64_t x = 0; x < from; ++x) column[x] = sum_at(mirror_in(2 * x0 - 2 + x, p.width) - left);
        for (int64_t x = to; x < n; ++x) column[x] = sum_at(mirror_in(2 * x0 - 2 + x, p.width) - left);
        float* out = p.out + y * p.coarse_width + x0;
        for (int64_t k = 0; k < columns; ++k) out[k] = binomial(column + 2 * k) * (mean * kBinomial);
      }
    }
}

void rate_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  const float mean = 1.0f / static_cast<float>(p.planes);
  const int64_t area = p.coarse_height * p.coarse_width;
  float light[kBlock], energy[kBlock];
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < p.coarse_width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x0), first = y * p.coarse_width + x0;
      for (int64_t x = 0; x < count; ++x) light[x] = p.coarse[first + x];
      for (int plane = 1; plane < p.planes; ++plane)
        for (int64_t x = 0; x < count; ++x) light[x] += p.coarse[plane * area + first + x];
      if (p.coarser) {
        expand_row(p.coarser, p.coarser_height, p.coarser_width, y, x0, count, energy);
        for (int64_t x = 0; x < count; ++x) energy[x] = p.energy[first + x] + p.gain * energy[x];
      } else {
        for (int64_t x = 0; x < count; ++x) energy[x] = p.energy[first + x];
      }
      float *rating = p.rating_out + first, *peak = p.peak_out + first;
      const float* before = p.before + first;
      for (int64_t x = 0; x < count; ++x) energy[x] = rate_one(energy[x], light[x] * mean, p.slope, p.floor);
      if (p.valid)
        for (int64_t x = 0; x < count; ++x) energy[x] = p.valid[first + x] ? energy[x] : 0.0f;
      for (int64_t x = 0; x < count; ++x) {
        rating[x] = energy[x];
        peak[x] = energy[x] > before[x] ? energy[x] : before[x];
      }
    }
}

void fold_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  switch (p.power) {
    case 1:
      return fold_all<1>(p, begin, end);
    case 2:
      return fold_all<2>(p, begin, end);
    case 4:
      return fold_all<4>(p, begin, end);
    case 6:
      return fold_all<6>(p, begin, end);
    default:
      return fold_all<8>(p, begin, end);
  }
}

void collapse_rows(const PyramidParams& p, int plane, int64_t begin, int64_t end) {
  const float* coarse = p.coarse + plane * p.coarse_height * p.coarse_width;
  float low[kBlock];
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x0 = 0; x0 < p.width; x0 += kBlock) {
      const int64_t count = smaller(kBlock, p.width - x0);
      expand_row(coarse, p.coarse_height, p.coarse_width, y, x0, count, low);
      const float* numerator = p.numerator_in + (plane * p.height + y) * p.width + x0;
      const float* denominator = p.denominator_in + y * p.width + x0;
      float* out = p.out + (plane * p.height + y) * p.width + x0;
      for (int64_t x = 0; x < count; ++x) {
        const float weight = denominator[x];
        out[x] = low[x] + (weight > 0 ? numerator[x] / weight : 0.0f);
      }
    }
}

void valid_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  uint8_t column[2 * kBlock + 3];
  for (int64_t y = begin; y < end; ++y) {
    const uint8_t* row[5];
    for (int j = 0; j < 5; ++j) row[j] = p.valid + clamp_to(2 * y + j - 2, p.height - 1) * p.width;
    for (int64_t x = 0; x < p.coarse_width; x += kBlock) {
      const int64_t count = smaller(kBlock, p.coarse_width - x), first = 2 * x - 2;
      for (int64_t k = 0; k < 2 * count + 3; ++k) {
        const int64_t m = clamp_to(first + k, p.width - 1);
        column[k] = row[0][m] & row[1][m] & row[2][m] & row[3][m] & row[4][m];
      }
      uint8_t* out = p.valid_out + y * p.coarse_width + x;
      for (int64_t k = 0; k < count; ++k) {
        const uint8_t* t = column + 2 * k;
        out[k] = (t[0] & t[1] & t[2] & t[3] & t[4]) != 0;
      }
    }
  }
}

void base_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  const int64_t w = p.coarse_width, area = p.coarse_height * w;
  for (int64_t i = begin * w; i < end * w; ++i) {
    const float weight = p.rating[i] + kLeast;
    p.denominator[i] += weight;
    for (int plane = 0; plane < p.planes; ++plane) p.numerator[plane * area + i] += p.coarse[plane * area + i] * weight;
  }
}

void depth_rows(const PyramidParams& p, int, int64_t begin, int64_t end) {
  for (int64_t i = begin * p.coarse_width; i < end * p.coarse_width; ++i) {
    const DepthSums sums = follow_one(p.rating[i], p.peak[i], p.before[i], p.place,
                                      {p.index[i], p.index_weight[i], p.total[i], p.seen[i]});
    p.index[i] = sums.index, p.index_weight[i] = sums.weight, p.total[i] = sums.total, p.seen[i] = sums.seen;
  }
}

void mean_rows(const PyramidParams& p, int plane, int64_t begin, int64_t end) {
  const int64_t w = p.coarse_width, first = plane * p.coarse_height * w;
  for (int64_t i = begin * w; i < end * w; ++i) p.out[first + i] = p.numerator_in[first + i] / p.denominator_in[i];
}

}  // namespace pyfocus::PYFOCUS_ISA
