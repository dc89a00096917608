// The rules of ecc_maximise's loop: where it starts, and what a solved step makes of the state. Host and device compile
// these very lines.
#pragma once

#include <math.h>

#include "ecc_solve.h"

namespace pyfocus {

PYFOCUS_HD inline void ecc_start(const EccFrame& f, double* state) {
  ecc_from_pixels(f, state + kEccMatrix, state + kEccCurrent);
  ecc_take(f, state + kEccCurrent, state);
  state[kEccCorrelation] = 0, state[kEccIterations] = 0, state[kEccConverged] = 0;
  state[kEccFailed] = 1, state[kEccDone] = 0;
}

// Whether an image of n pixels says nothing: no more varies than what the rounding of float sums makes.
PYFOCUS_HD inline bool ecc_flat(double variation, double square, double n) {
  return variation <= kEccFlat * n || variation <= kEccRounding * square;
}

// The running matrix as the best one.
PYFOCUS_HD inline void ecc_keep(double* state, double correlation, int64_t iterations) {
  for (int k = 0; k < 9; ++k) state[kEccMatrix + k] = state[kEccRunning + k] / state[kEccRunning + 8];
  state[kEccCorrelation] = correlation, state[kEccIterations] = static_cast<double>(iterations);
  state[kEccFailed] = 0;
}

// Whether going from `current` to `moved` moves every corner of the fixed image by less than the epsilon.
PYFOCUS_HD inline bool ecc_settled(const EccFrame& f, const double* c, const double* moved) {
  // The inverse of `current` up to a factor, which the division by the last coordinate takes out again.
  const double inverse[9] = {c[4] * c[8] - c[5] * c[7], c[2] * c[7] - c[1] * c[8], c[1] * c[5] - c[2] * c[4],
                             c[5] * c[6] - c[3] * c[8], c[0] * c[8] - c[2] * c[6], c[2] * c[3] - c[0] * c[5],
                             c[3] * c[7] - c[4] * c[6], c[1] * c[6] - c[0] * c[7], c[0] * c[4] - c[1] * c[3]};
  bool settled = true;
  for (int corner = 0; corner < 4; ++corner) {
    const double x = ((corner & 1 ? 2 * f.fixed_x : 0.0) - f.moving_x) / f.scale,
                 y = ((corner & 2 ? 2 * f.fixed_y : 0.0) - f.moving_y) / f.scale;
    const double a = inverse[0] * x + inverse[1] * y + inverse[2], b = inverse[3] * x + inverse[4] * y + inverse[5],
                 d = inverse[6] * x + inverse[7] * y + inverse[8];
    const double w = moved[6] * a + moved[7] * b + moved[8] * d;
    const double dx = (moved[0] * a + moved[1] * b + moved[2] * d) / w - x,
                 dy = (moved[3] * a + moved[4] * b + moved[5] * d) / w - y;
    settled = settled && f.scale * sqrt(dx * dx + dy * dy) < kEccEpsilonPx;
  }
  return settled;
}

// Step `iteration` (from 0) is solved: the best matrix, the next one, and whether that was all.
PYFOCUS_HD inline void ecc_advance(const EccFrame& f, const double* sums, int parameters, int motion, int64_t iteration,
                                   EccSystem* s, double* state) {
  const double* plain = sums + ecc_sum_count(parameters) - 6;
  const double si = plain[0], st = plain[1], n = plain[5];
  const double ii = plain[2] - si * si / n, tt = plain[3] - st * st / n, it = plain[4] - si * st / n;
  state[kEccDone] = 1;
  if (!s->usable || s->singular || ecc_flat(ii, plain[2], n) || ecc_flat(tt, plain[3], n)) return;
  const double correlation = it / sqrt(ii * tt), best = state[kEccCorrelation];
  if (state[kEccFailed] != 0 || correlation > best)
    ecc_keep(state, correlation, iteration + 1);
  else if (correlation < best - kEccFall)
    return;

  const int unknowns = ecc_unknowns(motion);
  double explained = 0, mixed = 0, length = 0;  // J^T i . x_i, J^T t . x_i, J^T t . x_t
  for (int r = 0; r < unknowns; ++r) {
    explained += s->i[r] * s->a[r][unknowns], mixed += s->t[r] * s->a[r][unknowns];
    length += s->t[r] * s->a[r][unknowns + 1];
  }
  const double gain = ii - explained, shared = it - mixed;
  double scale = gain / shared;
  if (!(shared > 0)) {  // the step that at least makes the correlation positive (their eq. 17)
    length = length > 1e-30 ? length : 1e-30;
    const double root = sqrt((explained > 0 ? explained : 0.0) / length), other = -shared / length;
    scale = root > other ? root : other;
  }
  for (int k = 0; k < 9; ++k) s->moved[k] = state[kEccCurrent + k];
  for (int r = 0; r < unknowns; ++r) {
    const double step = scale * s->a[r][unknowns + 1] - s->a[r][unknowns];
    int first, second;
    double sign;
    ecc_column(motion, r, &first, &sign, &second);
    s->moved[first] += sign * step;
    if (second >= 0) s->moved[second] += step;
  }
  double nothing = 0;
  for (int k = 0; k < 9; ++k) nothing += s->moved[k] - s->moved[k];
  if (!(nothing == 0)) return;
  const bool settled = ecc_settled(f, state + kEccCurrent, s->moved);
  ecc_take(f, s->moved, state);
  if (settled) ecc_keep(state, correlation, iteration + 1), state[kEccConverged] = 1;
  state[kEccDone] = settled ? 1 : 0;
}

}  // namespace pyfocus
