#include "stack/fit.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "agree.h"
#include "ecc.h"
#include "pyramid.h"
#include "warp.h"

namespace pyfocus {
namespace {

constexpr double kPlentyPx = 0.8e6;  // of a picture with more pixels every second row is enough
constexpr double kKept = 0.7;        // share of the pixels, those that agree best, which decide in the end
constexpr int kTrims = 3;            // rounds of choosing them,
constexpr double kSettledPx = 0.01;  // and the corner step after which another changes nothing

// As many pixels, on a grid, as a quantile needs.
std::vector<double> some_of(const Tensor& image) {
  const int64_t h = image.shape[0], w = image.shape[1], rows = 1 + h / 128, columns = 1 + w / 128;
  std::vector<double> values;
  values.reserve(static_cast<size_t>((h / rows + 1) * (w / columns + 1)));
  for (int64_t y = 0; y < h; y += rows)
    for (int64_t x = 0; x < w; x += columns) values.push_back(static_cast<double>(image.as<const float>()[y * w + x]));
  return values;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

// Where the pooled difference after gain and offset is among the smaller ones, in `mask`: of the size of `a`, or of the
// picture twice as fine. False when there is no gain.
bool find_agreeing(const Tensor& a, const Tensor& b, const Matrix& matrix, const Tensor& mask, Memory& memory,
                   const Execution& on) {
  Buffer warped(memory, Dtype::F32, {1, a.shape[0], a.shape[1]}), pooled(memory, Dtype::F32, {a.shape[0], a.shape[1]});
  Matrix map = matrix;
  const PlaneSource source =
      plane_source("register", reshaped(b, {1, b.shape[0], b.shape[1]}), nullptr, 0, nullptr, nullptr, nullptr);
  warp(source, view_of(map.data(), Dtype::F64, {1, 3, 3}), warped, nullptr, Interpolation::Bilinear, false, false,
       false, on);
  const Tensor difference = plane_of(warped, 0);
  const std::vector<double> x = some_of(difference), y = some_of(a);
  const double mean_x = mean_of(x), mean_y = mean_of(y);
  double spread = 0, both = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    spread += (x[i] - mean_x) * (x[i] - mean_x);
    both += (x[i] - mean_x) * y[i];
  }
  if (!(spread > 0)) return false;
  const double gain = both / spread;
  agree_residual(difference, a, static_cast<float>(gain), static_cast<float>(mean_y - gain * mean_x), difference, on);
  pyramid_smooth(difference, pooled, on);
  pyramid_smooth(pooled, difference, on);
  std::vector<double> residuals = some_of(difference);
  agree_mask(difference, quantile(residuals, kKept), mask, on);
  return true;
}

}  // namespace

double quantile(std::vector<double>& values, double q) {
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(at);
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(low), values.end());
  const double below = values[low];
  if (low + 1 >= values.size()) return below;
  const double above = *std::min_element(values.begin() + static_cast<ptrdiff_t>(low) + 1, values.end());
  return below + (above - below) * (at - static_cast<double>(low));
}

std::optional<Fit> maximise(const Tensor& a, const Tensor& b, const Matrix& matrix, Motion motion, const Tensor* mask,
                            int64_t most, Memory& memory, const Execution& on) {
  const int64_t h = a.shape[0], w = a.shape[1];
  const int64_t rows = static_cast<double>(h) * static_cast<double>(w) > kPlentyPx ? 2 : 1;
  const int sums = ecc_sum_count(motion == Motion::Homography ? 8 : 6);
  Buffer workspace(memory, Dtype::F64, {ecc_chunk_count(h, w, rows, false), sums});
  double state[kEccStateSize] = {};
  std::memcpy(state, matrix.data(), sizeof matrix.m);
  ecc_maximise(a, b, mask, static_cast<int>(motion), most, 0, rows, workspace,
               view_of(state, Dtype::F64, {kEccStateSize}), on);
  if (state[kEccFailed] != 0) return std::nullopt;
  Fit fit;
  std::memcpy(fit.matrix.data(), state, sizeof fit.matrix.m);
  fit.correlation = state[kEccCorrelation];
  fit.iterations = static_cast<int64_t>(state[kEccIterations]);
  fit.converged = state[kEccConverged] != 0;
  return fit;
}

Fit trimmed(const Luma& fixed, const Luma& moving, size_t level, const Fit& fit, Motion motion, Memory& memory,
            const Execution& on) {
  const Tensor &a = fixed.levels[level], &b = moving.levels[level];
  const size_t coarse = std::min({level + 1, fixed.levels.size() - 1, moving.levels.size() - 1});
  Buffer mask(memory, Dtype::U8, {a.shape[0], a.shape[1]});
  Fit best = fit;
  for (int round = 0; round < kTrims; ++round) {
    const Matrix guess = at_level(best.matrix, static_cast<int>(coarse - level));
    if (!find_agreeing(fixed.levels[coarse], moving.levels[coarse], guess, mask, memory, on)) break;
    const Tensor& chosen = mask;
    const std::optional<Fit> again = maximise(a, b, best.matrix, motion, &chosen, 12, memory, on);
    if (!again) break;
    const double moved = corner_shift(again->matrix * inverse(best.matrix), {a.shape[0], a.shape[1]});
    best = {again->matrix, fit.correlation, best.iterations + again->iterations, again->converged};
    if (moved < kSettledPx) break;
  }
  return best;
}

}  // namespace pyfocus
