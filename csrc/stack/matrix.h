// Maps of the plane as 3 x 3 matrices, row by row, in double: from reference pixels (x, y, 1) to a frame's pixels;
// pixel centres at integers, so pixel X of a picture shrunk by s lies at s X + (s - 1) / 2 of the large one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pyfocus {

struct Size {
  int64_t height = 0, width = 0;
  bool operator==(const Size&) const = default;
};

struct Point {
  double x = 0, y = 0;
};

struct Rect {  // rows [top, bottom), columns [left, right)
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  bool operator==(const Rect&) const = default;
};

struct Matrix {
  std::array<double, 9> m{1, 0, 0, 0, 1, 0, 0, 0, 1};

  double* data() { return m.data(); }
  const double* data() const { return m.data(); }
  double operator()(int row, int column) const { return m[static_cast<size_t>(3 * row + column)]; }
  bool is_finite() const;
};

Matrix operator*(const Matrix& a, const Matrix& b);
Matrix inverse(const Matrix& a);     // by the adjugate; not finite where a is singular
Matrix normalised(const Matrix& a);  // divided by its last element
Point apply(const Matrix& a, Point p);
Matrix scaled(double factor, double x, double y);  // X -> factor X + (x, y)

Matrix at_pitch(const Matrix& a, double factor);  // between the two pictures shrunk by a factor
Matrix at_level(const Matrix& a, int levels);  // between pyramid levels, whose grids share pixel 0; finer if negative
Matrix without_perspective(const Matrix& a);

double corner_shift(const Matrix& a, Size size);  // how far the corner that moves most moves, px

// The largest upright rectangle of the reference that every frame of `size` sees, to a few px; empty: all zeros. What a
// frame sees is convex, so a rectangle is seen when its corners are. Found on a grid, then grown to the last pixel.
Rect common_valid_rect(const std::vector<Matrix>& maps, Size size);

}  // namespace pyfocus
