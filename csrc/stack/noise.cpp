#include "stack/noise.h"

#include <algorithm>
#include <cmath>

#include "stack/fit.h"

namespace pyfocus {
namespace {

constexpr int kBins = 8;
constexpr double kQuiet = 0.2;  // the share taken for bare noise
constexpr size_t kFewest = 50;  // places of a range of brightness

double median_of(std::vector<double> values) { return quantile(values, 0.5); }

// Non-negative slope and floor of y over x, least squares of the relative error.
NoiseLine fit_line(const std::vector<double>& x, const std::vector<double>& y) {
  double xx = 0, x1 = 0, one = 0, xy = 0, y1 = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double w = 1 / (y[i] * y[i]);
    xx += w * x[i] * x[i];
    x1 += w * x[i];
    one += w;
    xy += w * x[i] * y[i];
    y1 += w * y[i];
  }
  const double determinant = xx * one - x1 * x1;
  double slope, floor;
  if (determinant > 1e-12 * xx * one) {
    slope = (xy * one - x1 * y1) / determinant;
    floor = (xx * y1 - x1 * xy) / determinant;
  } else {  // one brightness only: of all lines through it, the shortest
    const double at = x1 / one, level = y1 / one;
    slope = level * at / (at * at + 1);
    floor = level / (at * at + 1);
  }
  if (floor < 0) {
    std::vector<double> ratios;
    for (size_t i = 0; i < x.size(); ++i) ratios.push_back(y[i] / std::max(x[i], 1e-6));
    return {median_of(ratios), 0};
  }
  if (slope < 0) return {0, median_of(y)};
  return {slope, floor};
}

}  // namespace

int64_t noise_step(int64_t height, int64_t width) {
  return std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(static_cast<double>(height * width) / 20'000)));
}

NoiseLine noise_of(const Tensor& energy, const Tensor& light, float share, const Tensor* seen, int64_t step) {
  const int64_t h = energy.shape[0], w = energy.shape[1], planes = light.shape[0];
  std::vector<double> quiet, mean;
  for (int64_t y = 0; y < h; y += step)
    for (int64_t x = 0; x < w; x += step) {
      if (seen && !seen->as<const uint8_t>()[y * w + x]) continue;
      float sum = 0;
      for (int64_t c = 0; c < planes; ++c) sum += light.as<const float>()[(c * h + y) * w + x] * share;
      mean.push_back(static_cast<double>(sum / static_cast<float>(planes)));
      quiet.push_back(static_cast<double>(energy.as<const float>()[y * w + x]));
    }
  if (mean.empty()) return {};
  std::vector<double> edges, sorted = mean, x, y;
  for (int i = 0; i <= kBins; ++i) edges.push_back(quantile(sorted, 0.02 + 0.96 * i / kBins));
  for (size_t bin = 0; bin < kBins; ++bin) {
    std::vector<double> values;
    double sum = 0;
    for (size_t i = 0; i < mean.size(); ++i) {
      const double v = mean[i];
      if (!(v >= edges[bin] && v <= edges[bin + 1] && v > 0 && v < 0.9)) continue;
      values.push_back(quiet[i]);
      sum += v;
    }
    if (values.size() <= kFewest) continue;
    x.push_back(sum / static_cast<double>(values.size()));
    y.push_back(quantile(values, kQuiet) + 1e-12);
  }
  return x.empty() ? NoiseLine{} : fit_line(x, y);
}

double middle_of(const Tensor& light, float share, int64_t step) {
  std::vector<double> values;
  for (int64_t c = 0; c < light.shape[0]; ++c)
    for (int64_t y = 0; y < light.shape[1]; y += step)
      for (int64_t x = 0; x < light.shape[2]; x += step)
        values.push_back(
            static_cast<double>(light.as<const float>()[(c * light.shape[1] + y) * light.shape[2] + x] * share));
  return values.empty() ? 0 : quantile(values, 0.5);
}

}  // namespace pyfocus
