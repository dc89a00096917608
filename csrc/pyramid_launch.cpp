// The pyramid's checks and launches: each step in tasks of rows, the same for any number of threads.
#include "parallel.h"
#include "pyramid.h"
#include "pyramid_rows.h"

namespace pyfocus {
namespace {

constexpr int64_t kRowsPerTask = 32;
using Rows = void (*)(const PyramidParams&, int, int64_t, int64_t);

void run(Rows rows, const PyramidParams& p, int planes, int64_t height, const Execution& on) {
  const int64_t tasks = (height + kRowsPerTask - 1) / kRowsPerTask;
  parallel_for(planes * tasks, 1, on.threads, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % tasks * kRowsPerTask, last = first + kRowsPerTask;
      rows(p, static_cast<int>(task / tasks), first, last < height ? last : height);
    }
  });
}

// (C, h, w), or (h, w) as one plane.
void check_planes(const char* function, const char* name, const Tensor& t, bool written) {
  PYFOCUS_CHECK(t.ndim == 2 || t.ndim == 3, "%s: %s must be (h, w) or (C, h, w), got %d dimensions", function, name,
                t.ndim);
  if (written)
    check_output(function, name, t, Dtype::F32, t.ndim);
  else
    check_tensor(function, name, t, Dtype::F32, t.ndim);
  check_on_cpu(function, name, t);
  check_contiguous(function, name, t);
  PYFOCUS_CHECK(t.count() > 0, "%s: %s must not be empty", function, name);
}

int planes(const Tensor& t) { return t.ndim == 3 ? static_cast<int>(t.shape[0]) : 1; }
int64_t height(const Tensor& t) { return t.shape[t.ndim - 2]; }
int64_t width(const Tensor& t) { return t.shape[t.ndim - 1]; }

void check_same(const char* function, const char* name, const Tensor& t, int64_t h, int64_t w, int c) {
  PYFOCUS_CHECK(height(t) == h && width(t) == w && planes(t) == c,
                "%s: %s must be %d plane(s) of %lld x %lld, got %d of %lld x %lld", function, name, c,
                static_cast<long long>(h), static_cast<long long>(w), planes(t), static_cast<long long>(height(t)),
                static_cast<long long>(width(t)));
}

// The two grids of one level: fine (h, w) and the one below, half of it rounded up.
PyramidParams grids(const char* function, const Tensor& fine, const char* coarse_name, const Tensor& coarse) {
  PyramidParams p;
  p.planes = planes(fine);
  p.height = height(fine), p.width = width(fine);
  p.coarse_height = (p.height + 1) / 2, p.coarse_width = (p.width + 1) / 2;
  check_same(function, coarse_name, coarse, p.coarse_height, p.coarse_width, planes(coarse));
  return p;
}

}  // namespace

void pyramid_down(const Tensor& source, const Tensor& destination, bool add, const Execution& on) {
  check_planes("pyramid_down", "source", source, false);
  check_planes("pyramid_down", "destination", destination, true);
  PyramidParams p = grids("pyramid_down", source, "destination", destination);
  check_same("pyramid_down", "destination", destination, p.coarse_height, p.coarse_width, p.planes);
  p.fine = source.as<const float>(), p.out = destination.as<float>(), p.add = add;
  run(PYFOCUS_BEST(down_rows), p, p.planes, p.coarse_height, on);
}

void pyramid_up(const Tensor& source, const Tensor& destination, float gain, bool add, const Execution& on) {
  check_planes("pyramid_up", "source", source, false);
  check_planes("pyramid_up", "destination", destination, true);
  PyramidParams p = grids("pyramid_up", destination, "source", source);
  check_same("pyramid_up", "source", source, p.coarse_height, p.coarse_width, p.planes);
  p.coarse = source.as<const float>(), p.out = destination.as<float>(), p.gain = gain, p.add = add;
  run(PYFOCUS_BEST(up_rows), p, p.planes, p.height, on);
}

void pyramid_smooth(const Tensor& source, const Tensor& destination, const Execution& on) {
  check_planes("pyramid_smooth", "source", source, false);
  check_planes("pyramid_smooth", "destination", destination, true);
  check_same("pyramid_smooth", "destination", destination, height(source), width(source), planes(source));
  PYFOCUS_CHECK(source.data != destination.data, "pyramid_smooth: destination must not be the source itself");
  PyramidParams p;
  p.planes = planes(source), p.height = height(source), p.width = width(source);
  p.fine = source.as<const float>(), p.out = destination.as<float>();
  run(PYFOCUS_BEST(smooth_rows), p, p.planes, p.height, on);
}

void pyramid_energy(const Tensor& fine, const Tensor& coarse, const Tensor& energy, const Execution& on) {
  check_planes("pyramid_energy", "fine", fine, false);
  check_planes("pyramid_energy", "coarse", coarse, false);
  check_planes("pyramid_energy", "energy", energy, true);
  PyramidParams p = grids("pyramid_energy", fine, "coarse", coarse);
  check_same("pyramid_energy", "coarse", coarse, p.coarse_height, p.coarse_width, p.planes);
  check_same("pyramid_energy", "energy", energy, p.coarse_height, p.coarse_width, 1);
  p.fine = fine.as<const float>(), p.coarse = coarse.as<const float>(), p.out = energy.as<float>();
  run(PYFOCUS_BEST(energy_rows), p, 1, p.coarse_height, on);
}

void pyramid_rate(const Tensor& rating, const Tensor& coarse, const Tensor* valid, float slope, float floor,
                  const Tensor& peak, const Tensor& before, const Execution& on) {
  check_planes("pyramid_rate", "rating", rating, true);
  check_planes("pyramid_rate", "coarse", coarse, false);
  check_planes("pyramid_rate", "peak", peak, true);
  check_planes("pyramid_rate", "before", before, true);
  const int64_t h = height(rating), w = width(rating);
  check_same("pyramid_rate", "rating", rating, h, w, 1);
  check_same("pyramid_rate", "coarse", coarse, h, w, planes(coarse));
  check_same("pyramid_rate", "peak", peak, h, w, 1);
  check_same("pyramid_rate", "before", before, h, w, 1);
  PYFOCUS_CHECK(slope >= 0 && floor >= 0, "pyramid_rate: slope and floor must not be negative, got %g and %g",
                static_cast<double>(slope), static_cast<double>(floor));
  PyramidParams p;
  p.planes = planes(coarse);
  p.coarse_height = h, p.coarse_width = w;
  p.coarse = coarse.as<const float>(), p.rating_out = rating.as<float>();
  p.peak_out = peak.as<float>(), p.before_out = before.as<float>();
  p.slope = slope, p.floor = floor;
  if (valid) {
    check_tensor("pyramid_rate", "valid", *valid, Dtype::U8, 2);
    check_on_cpu("pyramid_rate", "valid", *valid);
    check_contiguous("pyramid_rate", "valid", *valid);
    check_same("pyramid_rate", "valid", *valid, h, w, 1);
    p.valid = valid->as<const uint8_t>();
  }
  run(PYFOCUS_BEST(rate_rows), p, 1, h, on);
}

void pyramid_fold(const Tensor& fine, const Tensor& coarse, const Tensor& rating, const Tensor& before,
                  const Tensor& peak, int power, const Tensor& numerator, const Tensor& denominator,
                  const Execution& on) {
  check_planes("pyramid_fold", "fine", fine, false);
  check_planes("pyramid_fold", "coarse", coarse, false);
  PYFOCUS_CHECK(power == 1 || power == 2 || power == 4 || power == 6 || power == 8,
                "pyramid_fold: power must be 1, 2, 4, 6 or 8, got %d", power);
  PyramidParams p = grids("pyramid_fold", fine, "coarse", coarse);
  check_same("pyramid_fold", "coarse", coarse, p.coarse_height, p.coarse_width, p.planes);
  const Tensor* small[] = {&rating, &before, &peak};
  const char* names[] = {"rating", "before", "peak"};
  for (int i = 0; i < 3; ++i) {
    check_planes("pyramid_fold", names[i], *small[i], false);
    check_same("pyramid_fold", names[i], *small[i], p.coarse_height, p.coarse_width, 1);
  }
  check_planes("pyramid_fold", "numerator", numerator, true);
  check_same("pyramid_fold", "numerator", numerator, p.height, p.width, p.planes);
  check_planes("pyramid_fold", "denominator", denominator, true);
  check_same("pyramid_fold", "denominator", denominator, p.height, p.width, 1);
  p.fine = fine.as<const float>(), p.coarse = coarse.as<const float>(), p.rating = rating.as<const float>();
  p.before = before.as<const float>(), p.peak = peak.as<const float>(), p.power = power;
  p.numerator = numerator.as<float>(), p.denominator = denominator.as<float>();
  run(PYFOCUS_BEST(fold_rows), p, 1, p.height, on);
}

void pyramid_collapse(const Tensor& numerator, const Tensor& denominator, const Tensor& coarse,
                      const Tensor& destination, const Execution& on) {
  check_planes("pyramid_collapse", "numerator", numerator, false);
  check_planes("pyramid_collapse", "denominator", denominator, false);
  check_planes("pyramid_collapse", "coarse", coarse, false);
  check_planes("pyramid_collapse", "destination", destination, true);
  PyramidParams p = grids("pyramid_collapse", numerator, "coarse", coarse);
  check_same("pyramid_collapse", "coarse", coarse, p.coarse_height, p.coarse_width, p.planes);
  check_same("pyramid_collapse", "denominator", denominator, p.height, p.width, 1);
  check_same("pyramid_collapse", "destination", destination, p.height, p.width, p.planes);
  p.numerator_in = numerator.as<const float>(), p.denominator_in = denominator.as<const float>();
  p.coarse = coarse.as<const float>(), p.out = destination.as<float>();
  run(PYFOCUS_BEST(collapse_rows), p, p.planes, p.height, on);
}

void pyramid_valid(const Tensor& source, const Tensor& destination, const Execution& on) {
  check_tensor("pyramid_valid", "source", source, Dtype::U8, 2);
  check_on_cpu("pyramid_valid", "source", source);
  check_on_cpu("pyramid_valid", "destination", destination);
  check_contiguous("pyramid_valid", "source", source);
  check_output("pyramid_valid", "destination", destination, Dtype::U8, 2);
  PyramidParams p = grids("pyramid_valid", source, "destination", destination);
  p.valid = source.as<const uint8_t>(), p.valid_out = destination.as<uint8_t>();
  run(PYFOCUS_BEST(valid_rows), p, 1, p.coarse_height, on);
}

}  // namespace pyfocus
