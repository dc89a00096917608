// The wavelet's checks and launches: on the CPU each step in tasks of rows, the same for any number of threads; arrays
// on a device go to the kernels of wavelet.cu.
#include "parallel.h"
#include "wavelet.h"
#include "wavelet_rows.h"

namespace pyfocus {
namespace {

constexpr int64_t kRowsPerTask = 16, kMost = int64_t{1} << 30;

// Runs a kernel's rows, or the device's launcher.
template <class Rows>
void run(Rows rows, const WaveletParams& p, int64_t height, const Execution& on) {
  parallel_for(height, kRowsPerTask, on.threads, [&](int64_t begin, int64_t end) { rows(p, begin, end); });
}

int planes(const Tensor& t) { return t.ndim == 2 ? 1 : static_cast<int>(t.shape[t.ndim - 3]); }
int64_t height(const Tensor& t) { return t.shape[t.ndim - 2]; }
int64_t width(const Tensor& t) { return t.shape[t.ndim - 1]; }

// The arrays of one call: all on the device of the first, C order, not empty.
class Arrays {
 public:
  Arrays(const char* function, const Tensor& first) : function_(function), place_(first.place()) {}

  const Tensor& any(const char* name, const Tensor& t, int ndim, Dtype dtype = Dtype::F32) const {
    check_tensor(function_, name, t, dtype, ndim);
    check_place(function_, name, &t, place_);
    check_contiguous(function_, name, t);
    PYFOCUS_CHECK(t.count() > 0, "%s: %s must not be empty", function_, name);
    PYFOCUS_CHECK(height(t) < kMost && width(t) < kMost, "%s: %s must have fewer than 2^30 rows and columns", function_,
                  name);
    return t;
  }
  // Of so many planes (0: (h, w)) on the coarse grid, or on the fine one.
  const Tensor& coarse(const char* name, const Tensor& t, const WaveletParams& p, int planes,
                       Dtype dtype = Dtype::F32) const {
    return sized(name, t, planes, p.coarse_height, p.coarse_width, dtype);
  }
  const Tensor& fine(const char* name, const Tensor& t, const WaveletParams& p, int planes) const {
    return sized(name, t, planes, p.height, p.width, Dtype::F32);
  }
  void written(const char* name, const Tensor& t) const {
    PYFOCUS_CHECK(!t.read_only, "%s: %s is written to, got a read-only array", function_, name);
  }
  // How many complex planes, from the real and imaginary parts of low.
  int complex_planes(const char* name, const Tensor& t) const {
    PYFOCUS_CHECK(planes(t) % 2 == 0, "%s: %s must have an even number of planes, real and imaginary parts, got %d",
                  function_, name, planes(t));
    return planes(t) / 2;
  }
  // (C, h, w) or (2C, h, w) of the fine grid: true for the latter.
  bool is_complex(const char* name, const Tensor& t, int count) const {
    PYFOCUS_CHECK(planes(t) == count || planes(t) == 2 * count,
                  "%s: %s must have %d planes, or %d with imaginary parts, got %d", function_, name, count, 2 * count,
                  planes(t));
    return planes(t) == 2 * count;
  }
  bool on_device() const { return place_.device == Device::Cuda; }
  int device() const { return place_.index; }

 private:
  const Tensor& sized(const char* name, const Tensor& t, int count, int64_t h, int64_t w, Dtype dtype) const {
    any(name, t, count ? 3 : 2, dtype);
    PYFOCUS_CHECK(planes(t) == (count ? count : 1) && height(t) == h && width(t) == w,
                  "%s: %s must be %d plane(s) of %lld x %lld, got %d of %lld x %lld", function_, name,
                  count ? count : 1, static_cast<long long>(h), static_cast<long long>(w), planes(t),
                  static_cast<long long>(height(t)), static_cast<long long>(width(t)));
    return t;
  }

  const char* function_;
  Place place_;
};

// The two grids of a level.
WaveletParams grids(const Tensor& fine) {
  WaveletParams p;
  p.height = height(fine), p.width = width(fine);
  p.coarse_height = (p.height + 1) / 2, p.coarse_width = (p.width + 1) / 2;
  return p;
}

// sums (3, 2C, H, W) with their weight (H, W).
void check_sums(const char* function, const Arrays& arrays, const Tensor& sums, const Tensor& weight,
                const WaveletParams& p) {
  PYFOCUS_CHECK(sums.shape[0] == 3 && planes(sums) == 2 * p.planes && height(sums) == p.coarse_height &&
                    width(sums) == p.coarse_width,
                "%s: sums must be (3, %d, %lld, %lld), got (%lld, %d, %lld, %lld)", function, 2 * p.planes,
                static_cast<long long>(p.coarse_height), static_cast<long long>(p.coarse_width),
                static_cast<long long>(sums.shape[0]), planes(sums), static_cast<long long>(height(sums)),
                static_cast<long long>(width(sums)));
  arrays.coarse("weight", weight, p, 0);
}

}  // namespace

void wavelet_measure(const Tensor& fine, const Tensor& low, const Tensor& energy, const Execution& on) {
  const Arrays arrays("wavelet_measure", fine);
  WaveletParams p = grids(arrays.any("fine", fine, 3));
  p.planes = arrays.complex_planes("low", arrays.any("low", low, 3));
  p.complex = arrays.is_complex("fine", fine, p.planes);
  arrays.coarse("low", low, p, 2 * p.planes), arrays.written("low", low);
  arrays.coarse("energy", energy, p, 0), arrays.written("energy", energy);
  p.fine = fine.as<const float>(), p.low = low.as<float>(), p.energy = energy.as<float>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_measure", wavelet_measure_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_measure_rows), p, p.coarse_height, on);
}

void wavelet_fold(const Tensor& fine, const Tensor& rating, const Tensor& before, const Tensor& peak, int power,
                  const Tensor& sums, const Tensor& weight, const Execution& on) {
  const Arrays arrays("wavelet_fold", fine);
  WaveletParams p = grids(arrays.any("fine", fine, 3));
  PYFOCUS_CHECK(power == 4 || power == 8, "wavelet_fold: power must be 4 or 8, got %d", power);
  p.planes = arrays.complex_planes("sums", arrays.any("sums", sums, 4));
  p.complex = arrays.is_complex("fine", fine, p.planes);
  check_sums("wavelet_fold", arrays, sums, weight, p);
  arrays.written("sums", sums), arrays.written("weight", weight);
  p.fine = fine.as<const float>(), p.sums = sums.as<float>(), p.weight = weight.as<float>(), p.power = power;
  p.rating = arrays.coarse("rating", rating, p, 0).as<const float>();
  p.before = arrays.coarse("before", before, p, 0).as<const float>();
  p.peak = arrays.coarse("peak", peak, p, 0).as<const float>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_fold", wavelet_fold_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_fold_rows), p, p.coarse_height, on);
}

void wavelet_merge(const Tensor& low, const Tensor& sums, const Tensor& weight, const Tensor& destination,
                   const Execution& on) {
  const Arrays arrays("wavelet_merge", low);
  const int count = arrays.complex_planes("low", arrays.any("low", low, 3));
  WaveletParams p = grids(arrays.any("destination", destination, 3));
  p.planes = count, p.complex = arrays.is_complex("destination", destination, count);
  arrays.written("destination", destination);
  arrays.coarse("low", low, p, 2 * count);
  check_sums("wavelet_merge", arrays, arrays.any("sums", sums, 4), weight, p);
  p.coarse = low.as<const float>(), p.sums_in = sums.as<const float>(), p.weight_in = weight.as<const float>();
  p.out = destination.as<float>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_merge", wavelet_merge_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_merge_rows), p, p.coarse_height, on);
}

void wavelet_pool(const Tensor& source, const Tensor& destination, float gain, const Tensor* add, const Execution& on) {
  const Arrays arrays("wavelet_pool", source);
  WaveletParams p = grids(arrays.any("source", source, 2));
  arrays.coarse("destination", destination, p, 0), arrays.written("destination", destination);
  p.fine = source.as<const float>(), p.out = destination.as<float>(), p.gain = gain;
  if (add) p.addend = arrays.coarse("add", *add, p, 0).as<const float>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_pool", wavelet_pool_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_pool_rows), p, p.coarse_height, on);
}

void wavelet_spread(const Tensor& source, const Tensor& destination, float gain, const Tensor* add,
                    const Execution& on) {
  const Arrays arrays("wavelet_spread", source);
  WaveletParams p = grids(arrays.any("destination", destination, 2));
  arrays.written("destination", destination);
  p.coarse = arrays.coarse("source", source, p, 0).as<const float>(), p.out = destination.as<float>(), p.gain = gain;
  if (add) p.addend = arrays.fine("add", *add, p, 0).as<const float>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_spread", wavelet_spread_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_spread_rows), p, p.height, on);
}

void wavelet_valid(const Tensor& source, const Tensor& destination, const Execution& on) {
  const Arrays arrays("wavelet_valid", source);
  WaveletParams p = grids(arrays.any("source", source, 2, Dtype::U8));
  arrays.coarse("destination", destination, p, 0, Dtype::U8), arrays.written("destination", destination);
  p.valid = source.as<const uint8_t>(), p.valid_out = destination.as<uint8_t>();
  if (arrays.on_device()) PYFOCUS_ON_CUDA("wavelet_valid", wavelet_valid_cuda(p, arrays.device(), on.stream));
  run(PYFOCUS_BEST(wavelet_valid_rows), p, p.coarse_height, on);
}

}  // namespace pyfocus
