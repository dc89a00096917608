#include "stack/phase.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

namespace pyfocus {
namespace {

using Complex = std::complex<double>;

// Without the standard's care for infinities, which costs a call.
inline Complex times(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

int64_t smallest_factor(int64_t n) {
  for (int64_t p = 2; p * p <= n; ++p)
    if (n % p == 0) return p;
  return n;
}

// out[k] of `n` values in[0], in[stride], ...: parts by the residue of the index, then one butterfly over them.
void transform(const Complex* in, int64_t stride, Complex* out, int64_t n, const Complex* roots, int64_t root_step) {
  if (n == 1) {
    out[0] = in[0];
    return;
  }
  const int64_t p = smallest_factor(n), m = n / p;
  for (int64_t r = 0; r < p; ++r) transform(in + r * stride, stride * p, out + r * m, m, roots, root_step * p);
  Complex part[64];
  std::vector<Complex> many;
  Complex* parts = part;
  if (p > 64) {
    many.resize(static_cast<size_t>(p));
    parts = many.data();
  }
  for (int64_t k = 0; k < m; ++k) {
    for (int64_t r = 0; r < p; ++r) parts[r] = times(out[r * m + k], roots[r * k * root_step]);
    for (int64_t q = 0; q < p; ++q) {
      Complex sum = parts[0];
      for (int64_t r = 1; r < p; ++r) sum += times(parts[r], roots[(r * q % p) * m * root_step]);
      out[q * m + k] = sum;
    }
  }
}

class Plan {
 public:
  Plan(int64_t n, bool backward) : n_(n), roots_(static_cast<size_t>(n)) {
    for (int64_t i = 0; i < n; ++i) {
      const double angle = (backward ? 2 : -2) * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
      roots_[static_cast<size_t>(i)] = {std::cos(angle), std::sin(angle)};
    }
  }
  void run(Complex* values, Complex* scratch) const {
    std::copy(values, values + n_, scratch);
    transform(scratch, 1, values, n_, roots_.data(), 1);
  }

 private:
  int64_t n_;
  std::vector<Complex> roots_;
};

// Rows, then columns, of (h, w) values.
void transform_picture(Complex* values, Complex* scratch, int64_t h, int64_t w, bool backward) {
  const Plan rows(w, backward), columns(h, backward);
  for (int64_t y = 0; y < h; ++y) rows.run(values + y * w, scratch);
  Complex* column = scratch + h;
  for (int64_t x = 0; x < w; ++x) {
    for (int64_t y = 0; y < h; ++y) column[y] = values[y * w + x];
    columns.run(column, scratch);
    for (int64_t y = 0; y < h; ++y) values[y * w + x] = column[y];
  }
}

int64_t mirrored(int64_t i, int64_t size) {
  if (size == 1) return 0;
  const int64_t period = 2 * (size - 1), at = i % period;
  return at < size ? at : period - at;
}

// Two real pictures as one complex one, without their means and under a window that ends at 0.
void windowed(const Tensor& a, const Tensor& b, Complex* out) {
  const int64_t h = a.shape[0], w = a.shape[1], b_h = std::min(h, b.shape[0]), b_w = std::min(w, b.shape[1]);
  const auto of_a = [&](int64_t y, int64_t x) { return static_cast<double>(a.as<const float>()[y * w + x]); };
  const auto of_b = [&](int64_t y, int64_t x) {
    return static_cast<double>(b.as<const float>()[mirrored(y, b_h) * b.shape[1] + mirrored(x, b_w)]);
  };
  double mean_a = 0, mean_b = 0;
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x) {
      mean_a += of_a(y, x);
      mean_b += of_b(y, x);
    }
  mean_a /= static_cast<double>(h * w);
  mean_b /= static_cast<double>(h * w);
  const auto hann = [](int64_t i, int64_t size) {
    return 0.5 - 0.5 * std::cos(2 * std::numbers::pi * static_cast<double>(i + 1) / static_cast<double>(size + 1));
  };
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x) {
      const double window = hann(y, h) * hann(x, w);
      out[y * w + x] = {(of_a(y, x) - mean_a) * window, (of_b(y, x) - mean_b) * window};
    }
}

}  // namespace

Matrix phase_shift(const Tensor& a, const Tensor& b, Memory& memory) {
  const int64_t h = a.shape[0], w = a.shape[1];
  Buffer both(memory, Dtype::F64, {h, w, 2}), cross(memory, Dtype::F64, {h, w, 2});
  Buffer scratch(memory, Dtype::F64, {std::max(w, 2 * h), 2});
  auto* z = reinterpret_cast<Complex*>(both.as<double>());
  auto* c = reinterpret_cast<Complex*>(cross.as<double>());
  auto* s = reinterpret_cast<Complex*>(scratch.as<double>());
  windowed(a, b, z);
  transform_picture(z, s, h, w, false);
  double most = 0;
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x) {  // the two spectra apart: of real pictures they are symmetric
      const Complex here = z[y * w + x], there = std::conj(z[(h - y) % h * w + (w - x) % w]);
      const Complex of_a = 0.5 * (here + there), of_b = times({0, -0.5}, here - there);
      c[y * w + x] = times(of_b, std::conj(of_a));
      most = std::max(most, std::abs(c[y * w + x]));
    }
  if (!(most > 0)) return {};
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x) {
      const double fy = static_cast<double>(2 * y < h ? y : y - h) / static_cast<double>(h);
      const double fx = static_cast<double>(2 * x < w ? x : x - w) / static_cast<double>(w);
      const double smooth = std::exp(-20 * (fy * fy + fx * fx));  // frames differ in sharpness: fine detail says little
      Complex& v = c[y * w + x];
      v = v / (std::abs(v) + 1e-9 * most) * smooth;
    }
  transform_picture(c, s, h, w, true);
  int64_t peak = 0;
  for (int64_t i = 1; i < h * w; ++i)
    if (c[i].real() > c[peak].real()) peak = i;
  const int64_t y = peak / w, x = peak % w;
  return scaled(1, static_cast<double>(x > w / 2 ? x - w : x), static_cast<double>(y > h / 2 ? y - h : y));
}

}  // namespace pyfocus
