// The pyramid's checks and launches: on the CPU each step in tasks of rows, the same for any number of threads; arrays
// on a device go to the kernels of pyramid*.cu.
#include "parallel.h"
#include "pyramid.h"
#include "pyramid_rows.h"

namespace pyfocus {
namespace {

constexpr int64_t kRowsPerTask = 32, kMost = int64_t{1} << 30;
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

int planes(const Tensor& t) { return t.ndim == 3 ? static_cast<int>(t.shape[0]) : 1; }
int64_t height(const Tensor& t) { return t.shape[t.ndim - 2]; }
int64_t width(const Tensor& t) { return t.shape[t.ndim - 1]; }

struct Size {
  int planes;
  int64_t height, width;
};

void check_size(const char* function, const char* name, const Tensor& t, const Size& size) {
  PYFOCUS_CHECK(planes(t) == size.planes && height(t) == size.height && width(t) == size.width,
                "%s: %s must be %d plane(s) of %lld x %lld, got %d of %lld x %lld", function, name, size.planes,
                static_cast<long long>(size.height), static_cast<long long>(size.width), planes(t),
                static_cast<long long>(height(t)), static_cast<long long>(width(t)));
}

// The arrays of one call: all on the device of the first.
class Arrays {
 public:
  Arrays(const char* function, const Tensor& first) : function_(function), place_(first.place()) {}

  // (C, h, w), or (h, w) as one plane.
  const float* read(const char* name, const Tensor& t) const {
    check(name, t, Dtype::F32);
    return t.as<const float>();
  }
  const float* read(const char* name, const Tensor& t, const Size& size) const {
    check(name, t, Dtype::F32);
    check_size(function_, name, t, size);
    return t.as<const float>();
  }
  float* write(const char* name, const Tensor& t, const Size& size, Dtype dtype = Dtype::F32) const {
    check(name, t, dtype);
    check_output(function_, name, t, dtype, t.ndim);
    check_size(function_, name, t, size);
    return t.as<float>();
  }
  const uint8_t* mask(const char* name, const Tensor& t) const {
    check(name, t, Dtype::U8);
    check_tensor(function_, name, t, Dtype::U8, 2);
    return t.as<const uint8_t>();
  }
  const Place& place() const { return place_; }
  bool on_device() const { return place_.device == Device::Cuda; }

 private:
  void check(const char* name, const Tensor& t, Dtype dtype) const {
    PYFOCUS_CHECK(t.ndim == 2 || t.ndim == 3, "%s: %s must be (h, w) or (C, h, w), got %d dimensions", function_, name,
                  t.ndim);
    check_tensor(function_, name, t, dtype, t.ndim);
    check_place(function_, name, &t, place_);
    check_contiguous(function_, name, t);
    PYFOCUS_CHECK(t.count() > 0, "%s: %s must not be empty", function_, name);
    PYFOCUS_CHECK(height(t) < kMost && width(t) < kMost, "%s: %s must have fewer than 2^30 rows and columns", function_,
                  name);
  }

  const char* function_;
  Place place_;
};

// The two grids of one level: fine (h, w) and the one below, half of it rounded up.
PyramidParams grids(const Tensor& fine) {
  PyramidParams p;
  p.planes = planes(fine);
  p.height = height(fine), p.width = width(fine);
  p.coarse_height = (p.height + 1) / 2, p.coarse_width = (p.width + 1) / 2;
  return p;
}

Size fine_size(const PyramidParams& p, int planes) { return {planes, p.height, p.width}; }
Size coarse_size(const PyramidParams& p, int planes) { return {planes, p.coarse_height, p.coarse_width}; }

// One grid only, as the coarse one.
PyramidParams grid(const Tensor& t) {
  PyramidParams p;
  p.planes = planes(t);
  p.coarse_height = height(t), p.coarse_width = width(t);
  return p;
}

}  // namespace

void pyramid_down(const Tensor& source, const Tensor& destination, const Tensor* add, const Execution& on) {
  const Arrays arrays("pyramid_down", source);
  const float* fine = arrays.read("source", source);
  PyramidParams p = grids(source);
  p.fine = fine, p.out = arrays.write("destination", destination, coarse_size(p, p.planes));
  if (add) p.addend = arrays.read("add", *add, coarse_size(p, p.planes));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_down", pyramid_down_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(down_rows), p, p.planes, p.coarse_height, on);
}

void pyramid_up(const Tensor& source, const Tensor& destination, float gain, const Tensor* add, const Execution& on) {
  const Arrays arrays("pyramid_up", source);
  const float* coarse = arrays.read("source", source);
  PYFOCUS_CHECK(destination.ndim == 2 || destination.ndim == 3,
                "pyramid_up: destination must be (h, w) or (C, h, w), got %d dimensions", destination.ndim);
  PyramidParams p = grids(destination);
  p.coarse = coarse, p.out = arrays.write("destination", destination, fine_size(p, p.planes)), p.gain = gain;
  check_size("pyramid_up", "source", source, coarse_size(p, p.planes));
  if (add) p.addend = arrays.read("add", *add, fine_size(p, p.planes));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_up", pyramid_up_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(up_rows), p, p.planes, p.height, on);
}

void pyramid_smooth(const Tensor& source, const Tensor& destination, const Execution& on) {
  const Arrays arrays("pyramid_smooth", source);
  const float* fine = arrays.read("source", source);
  PyramidParams p = grids(source);
  p.fine = fine, p.out = arrays.write("destination", destination, fine_size(p, p.planes));
  PYFOCUS_CHECK(source.data != destination.data, "pyramid_smooth: destination must not be the source itself");
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_smooth", pyramid_smooth_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(smooth_rows), p, p.planes, p.height, on);
}

void pyramid_energy(const Tensor& fine, const Tensor& coarse, const Tensor& energy, const Execution& on) {
  const Arrays arrays("pyramid_energy", fine);
  const float* from = arrays.read("fine", fine);
  PyramidParams p = grids(fine);
  p.fine = from, p.coarse = arrays.read("coarse", coarse, coarse_size(p, p.planes));
  p.out = arrays.write("energy", energy, coarse_size(p, 1));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_energy", pyramid_energy_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(energy_rows), p, 1, p.coarse_height, on);
}

void pyramid_measure(const Tensor& fine, const Tensor& coarse, const Tensor& energy, const Execution& on) {
  const Arrays arrays("pyramid_measure", fine);
  const float* from = arrays.read("fine", fine);
  PyramidParams p = grids(fine);
  p.fine = from, p.coarse_out = arrays.write("coarse", coarse, coarse_size(p, p.planes));
  p.out = arrays.write("energy", energy, coarse_size(p, 1));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_measure", pyramid_measure_cuda(p, arrays.place().index, on.stream));
  PyramidParams first = p;
  first.out = p.coarse_out, p.coarse = p.coarse_out;
  run(PYFOCUS_BEST(down_rows), first, p.planes, p.coarse_height, on);
  run(PYFOCUS_BEST(energy_rows), p, 1, p.coarse_height, on);
}

void pyramid_rate(const Tensor& energy, const Tensor& coarse, const Tensor* valid, float slope, float floor,
                  const Tensor& before, const Tensor& rating, const Tensor& peak, const Tensor* coarser, float gain,
                  const Execution& on) {
  const Arrays arrays("pyramid_rate", energy);
  const float* from = arrays.read("energy", energy);
  const float* light = arrays.read("coarse", coarse);
  PyramidParams p = grid(coarse);
  check_size("pyramid_rate", "energy", energy, coarse_size(p, 1));
  p.energy = from, p.coarse = light, p.before = arrays.read("before", before, coarse_size(p, 1));
  p.rating_out = arrays.write("rating", rating, coarse_size(p, 1));
  p.peak_out = arrays.write("peak", peak, coarse_size(p, 1));
  PYFOCUS_CHECK(slope >= 0 && floor >= 0, "pyramid_rate: slope and floor must not be negative, got %g and %g",
                static_cast<double>(slope), static_cast<double>(floor));
  p.slope = slope, p.floor = floor, p.gain = gain;
  if (valid) {
    p.valid = arrays.mask("valid", *valid);
    check_size("pyramid_rate", "valid", *valid, coarse_size(p, 1));
  }
  p.coarser_height = (p.coarse_height + 1) / 2, p.coarser_width = (p.coarse_width + 1) / 2;
  if (coarser) p.coarser = arrays.read("coarser", *coarser, {1, p.coarser_height, p.coarser_width});
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_rate", pyramid_rate_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(rate_rows), p, 1, p.coarse_height, on);
}

void pyramid_fold(const Tensor& fine, const Tensor& coarse, const Tensor& rating, const Tensor& before,
                  const Tensor& peak, int power, const Tensor& numerator, const Tensor& denominator,
                  const Execution& on) {
  const Arrays arrays("pyramid_fold", fine);
  const float* from = arrays.read("fine", fine);
  PYFOCUS_CHECK(power == 1 || power == 2 || power == 4 || power == 6 || power == 8,
                "pyramid_fold: power must be 1, 2, 4, 6 or 8, got %d", power);
  PyramidParams p = grids(fine);
  p.fine = from, p.coarse = arrays.read("coarse", coarse, coarse_size(p, p.planes)), p.power = power;
  p.rating = arrays.read("rating", rating, coarse_size(p, 1));
  p.before = arrays.read("before", before, coarse_size(p, 1));
  p.peak = arrays.read("peak", peak, coarse_size(p, 1));
  p.numerator = arrays.write("numerator", numerator, fine_size(p, p.planes));
  p.denominator = arrays.write("denominator", denominator, fine_size(p, 1));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_fold", pyramid_fold_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(fold_rows), p, 1, p.height, on);
}

void pyramid_collapse(const Tensor& numerator, const Tensor& denominator, const Tensor& coarse,
                      const Tensor& destination, const Execution& on) {
  const Arrays arrays("pyramid_collapse", numerator);
  const float* sum = arrays.read("numerator", numerator);
  PyramidParams p = grids(numerator);
  p.numerator_in = sum, p.denominator_in = arrays.read("denominator", denominator, fine_size(p, 1));
  p.coarse = arrays.read("coarse", coarse, coarse_size(p, p.planes));
  p.out = arrays.write("destination", destination, fine_size(p, p.planes));
  if (arrays.on_device())
    PYFOCUS_ON_CUDA("pyramid_collapse", pyramid_collapse_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(collapse_rows), p, p.planes, p.height, on);
}

void pyramid_valid(const Tensor& source, const Tensor& destination, const Execution& on) {
  const Arrays arrays("pyramid_valid", source);
  const uint8_t* from = arrays.mask("source", source);
  PyramidParams p = grids(source);
  p.valid = from;
  arrays.write("destination", destination, coarse_size(p, 1), Dtype::U8);
  p.valid_out = destination.as<uint8_t>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_valid", pyramid_valid_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(valid_rows), p, 1, p.coarse_height, on);
}

void pyramid_base(const Tensor& coarse, const Tensor& rating, const Tensor& base, const Tensor& weight,
                  const Execution& on) {
  const Arrays arrays("pyramid_base", coarse);
  const float* from = arrays.read("coarse", coarse);
  PyramidParams p = grid(coarse);
  p.coarse = from, p.rating = arrays.read("rating", rating, coarse_size(p, 1));
  p.numerator = arrays.write("base", base, coarse_size(p, p.planes));
  p.denominator = arrays.write("weight", weight, coarse_size(p, 1));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_base", pyramid_base_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(base_rows), p, 1, p.coarse_height, on);
}

void pyramid_depth(const Tensor& rating, const Tensor& peak, const Tensor& before, float place, const Tensor& index,
                   const Tensor& index_weight, const Tensor& total, const Tensor& seen, const Execution& on) {
  const Arrays arrays("pyramid_depth", rating);
  const float* from = arrays.read("rating", rating);
  PyramidParams p = grid(rating);
  const Size size = coarse_size(p, 1);
  check_size("pyramid_depth", "rating", rating, size);
  p.rating = from, p.peak = arrays.read("peak", peak, size), p.before = arrays.read("before", before, size);
  p.place = place, p.index = arrays.write("index", index, size);
  p.index_weight = arrays.write("index_weight", index_weight, size), p.total = arrays.write("total", total, size);
  arrays.write("seen", seen, size, Dtype::I32);
  p.seen = seen.as<int32_t>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_depth", pyramid_depth_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(depth_rows), p, 1, p.coarse_height, on);
}

void pyramid_mean(const Tensor& sum, const Tensor& weight, const Tensor& destination, const Execution& on) {
  const Arrays arrays("pyramid_mean", sum);
  const float* from = arrays.read("sum", sum);
  PyramidParams p = grid(sum);
  p.numerator_in = from, p.denominator_in = arrays.read("weight", weight, coarse_size(p, 1));
  p.out = arrays.write("destination", destination, coarse_size(p, p.planes));
  if (arrays.on_device()) PYFOCUS_ON_CUDA("pyramid_mean", pyramid_mean_cuda(p, arrays.place().index, on.stream));
  run(PYFOCUS_BEST(mean_rows), p, p.planes, p.coarse_height, on);
}

}  // namespace pyfocus
