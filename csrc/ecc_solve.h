// What ecc_maximise does with the sums of a step: the small system and the loop's rules, in double. Host and device
// compile these very lines; on a device the threads of a block share the work as the functions' last arguments say.
#pragma once

#include <math.h>

#include "ecc.h"

namespace pyfocus {

constexpr double kEccRidge = 1e-7, kEccEpsilonPx = 0.004, kEccFall = 1e-3, kEccFewest = 256;
constexpr double kEccFlat = 1e-12, kEccRounding = 1e-6;  // of a variance: absolute, and beside the mean square

// Sizes of the two images, as the matrices need them.
struct EccFrame {
  double scale, fixed_x, fixed_y, moving_x, moving_y;  // half the fixed image's longer side; the centres
};

inline EccFrame ecc_frame(const EccParams& p) {
  const auto middle = [](int64_t size) { return 0.5 * static_cast<double>(size - 1); };
  return {p.scale, middle(p.width), middle(p.height), middle(p.moving_width), middle(p.moving_height)};
}

struct EccSystem {
  double a[8][10];    // [H | J^T i, J^T t], zero-mean; in the end the right sides hold the solutions
  double i[8], t[8];  // the right sides as they were
  double moved[9];
  int usable, singular;
};

PYFOCUS_HD inline int ecc_unknowns(int motion) { return motion == 3 ? 8 : 2 * motion + 2; }

// Unknown c of a motion is made of the affine's parameters: sign * first + second (second -1: none).
PYFOCUS_HD inline void ecc_column(int motion, int c, int* first, double* sign, int* second) {
  *first = motion == 0 ? 3 * c + 2 : motion == 1 && c > 1 ? 3 * c - 4 : c;
  *sign = motion == 1 && c == 1 ? -1.0 : 1.0;
  *second = motion == 1 && c < 2 ? 4 - c : -1;
}

PYFOCUS_HD inline double ecc_gather(const double* v, int motion, int c) {
  int first, second;
  double sign;
  ecc_column(motion, c, &first, &sign, &second);
  return sign * v[first] + (second < 0 ? 0.0 : v[second]);
}

// Row r of the system from the sums.
PYFOCUS_HD inline void ecc_row(const double* sums, int parameters, int motion, EccSystem* s, int r) {
  const int unknowns = ecc_unknowns(motion), triangle = parameters * (parameters + 1) / 2;
  const double *ones = sums + triangle + 2 * parameters, *plain = sums + triangle + 3 * parameters;
  const double n = plain[5], one = ecc_gather(ones, motion, r);
  int of[2];
  double sign;
  ecc_column(motion, r, &of[0], &sign, &of[1]);
  for (int c = 0; c < unknowns; ++c) {
    double h = 0;
    for (int side = 0; side < 2; ++side) {
      const int k = of[side];
      if (k < 0) continue;
      int with[2];
      double other;
      ecc_column(motion, c, &with[0], &other, &with[1]);
      for (int end = 0; end < 2; ++end) {
        const int l = with[end], low = k < l ? k : l, high = k < l ? l : k;
        if (l < 0) continue;
        const double value = sums[low * (2 * parameters - 1 - low) / 2 + high];
        h += (side == 0 ? sign : 1.0) * (end == 0 ? other : 1.0) * value;
      }
    }
    h -= one * ecc_gather(ones, motion, c) / n;
    s->a[r][c] = c == r ? h * (1 + kEccRidge) : h;
  }
  s->i[r] = s->a[r][unknowns] = ecc_gather(sums + triangle, motion, r) - one * plain[0] / n;
  s->t[r] = s->a[r][unknowns + 1] = ecc_gather(sums + triangle + parameters, motion, r) - one * plain[1] / n;
}

// Whether the sums say anything.
PYFOCUS_HD inline void ecc_judge(const double* sums, int parameters, EccSystem* s) {
  const int count = ecc_sum_count(parameters);
  double nothing = 0;
  for (int k = 0; k < count; ++k) nothing += sums[k] - sums[k];
  s->usable = nothing == 0 && sums[count - 1] >= kEccFewest;
  s->singular = 0;
}

// Step k of Gauss and Jordan with partial pivoting, in column j > k. Column k is only read, by all others alike.
PYFOCUS_HD inline void ecc_eliminate(EccSystem* s, int unknowns, int k, int j) {
  int pivot = k;
  for (int r = k + 1; r < unknowns; ++r) pivot = fabs(s->a[r][k]) > fabs(s->a[pivot][k]) ? r : pivot;
  const double divisor = s->a[pivot][k];
  if (divisor == 0 && j == unknowns) s->singular = 1;
  const double kept = s->a[pivot][j] / divisor;
  s->a[pivot][j] = s->a[k][j];
  for (int r = 0; r < unknowns; ++r)
    if (r != k) s->a[r][j] -= s->a[r == pivot ? k : r][k] * kept;
  s->a[k][j] = kept;
}

// A map between centred, scaled coordinates as one between pixels, and back.
PYFOCUS_HD inline void ecc_to_pixels(const EccFrame& f, const double* c, double* m) {
  double row[9];
  for (int r = 0; r < 9; r += 3) {
    row[r] = c[r] / f.scale, row[r + 1] = c[r + 1] / f.scale;
    row[r + 2] = c[r + 2] - (row[r] * f.fixed_x + row[r + 1] * f.fixed_y);
  }
  for (int k = 0; k < 3; ++k) {
    m[k] = f.scale * row[k] + f.moving_x * row[6 + k];
    m[3 + k] = f.scale * row[3 + k] + f.moving_y * row[6 + k];
    m[6 + k] = row[6 + k];
  }
}

PYFOCUS_HD inline void ecc_from_pixels(const EccFrame& f, const double* m, double* c) {
  double row[9];
  for (int r = 0; r < 9; r += 3) {
    row[r] = m[r] * f.scale, row[r + 1] = m[r + 1] * f.scale;
    row[r + 2] = m[r] * f.fixed_x + m[r + 1] * f.fixed_y + m[r + 2];
  }
  for (int k = 0; k < 3; ++k) {
    c[k] = (row[k] - f.moving_x * row[6 + k]) / f.scale;
    c[3 + k] = (row[3 + k] - f.moving_y * row[6 + k]) / f.scale;
    c[6 + k] = row[6 + k];
  }
}

// `moved` becomes the running matrix.
PYFOCUS_HD inline void ecc_take(const EccFrame& f, const double* moved, double* state) {
  for (int k = 0; k < 9; ++k) state[kEccCurrent + k] = moved[k] / moved[8];
  ecc_to_pixels(f, state + kEccCurrent, state + kEccRunning);
}

}  // namespace pyfocus
