#include "stack/matrix.h"

#include <algorithm>
#include <cmath>

namespace pyfocus {
namespace {

constexpr int64_t kGrid = 96;  // points per side at which the shared part is looked for
constexpr double kSlack = 1e-6;

std::array<Point, 4> corners(Size size) {
  const double w = static_cast<double>(size.width - 1), h = static_cast<double>(size.height - 1);
  return {{{0, 0}, {w, 0}, {0, h}, {w, h}}};
}

bool sees(const std::vector<Matrix>& maps, Point p, Size size) {
  return std::all_of(maps.begin(), maps.end(), [&](const Matrix& map) {
    const Point q = apply(map, p);
    return q.x >= -kSlack && q.x <= static_cast<double>(size.width - 1) + kSlack && q.y >= -kSlack &&
           q.y <= static_cast<double>(size.height - 1) + kSlack;
  });
}

// `count` integers from 0 to last, evenly, each once.
std::vector<int64_t> grid_lines(int64_t size) {
  const int64_t count = std::min(size, kGrid);
  std::vector<int64_t> lines;
  for (int64_t i = 0; i < count; ++i) {
    const double at =
        count > 1 ? static_cast<double>(i) * (static_cast<double>(size - 1) / static_cast<double>(count - 1)) : 0;
    const auto line = static_cast<int64_t>(std::nearbyint(at));
    if (lines.empty() || line != lines.back()) lines.push_back(line);
  }
  return lines;
}

struct Column {
  size_t first;
  int64_t rows;
};

// The largest rectangle of a grid, by the area between its lines, whose points are all seen; rows and columns
// inclusive. The classical scan: per row, how many rows up to it are seen, and the columns still open.
Rect largest_rectangle(const std::vector<std::vector<bool>>& seen, const std::vector<int64_t>& ys,
                       const std::vector<int64_t>& xs) {
  double best = -1;
  Rect found{0, 0, -1, -1};
  std::vector<int64_t> above(xs.size(), 0);
  for (size_t row = 0; row < ys.size(); ++row) {
    for (size_t i = 0; i < xs.size(); ++i) above[i] = seen[row][i] ? above[i] + 1 : 0;
    std::vector<Column> open;
    for (size_t column = 0; column <= xs.size(); ++column) {
      const int64_t rows = column < xs.size() ? above[column] : 0;
      size_t first = column;
      while (!open.empty() && open.back().rows >= rows) {
        const Column closed = open.back();
        open.pop_back();
        first = closed.first;
        if (closed.rows == 0) continue;
        const int64_t top = ys[row + 1 - static_cast<size_t>(closed.rows)];
        const double area =
            static_cast<double>(ys[row] - top + 1) * static_cast<double>(xs[column - 1] - xs[first] + 1);
        if (area > best) {
          best = area;
          found = {top, xs[first], ys[row], xs[column - 1]};
        }
      }
      open.push_back({first, rows});
    }
  }
  return found;
}

// Moves one side outwards as far as all corners stay seen.
void grow(Rect* rect, int64_t Rect::* side, int64_t limit, const std::vector<Matrix>& maps, Size size) {
  int64_t near = rect->*side, far = limit;
  while (near != far) {
    const int64_t middle = (near + far + (far > near ? 1 : 0)) / 2;
    Rect trial = *rect;
    trial.*side = middle;
    bool seen = true;
    for (const int64_t y : {trial.top, trial.bottom})
      for (const int64_t x : {trial.left, trial.right})
        seen = seen && sees(maps, {static_cast<double>(x), static_cast<double>(y)}, size);
    if (seen)
      near = middle;
    else
      far = far > near ? middle - 1 : middle + 1;
  }
  rect->*side = near;
}

}  // namespace

bool Matrix::is_finite() const {
  return std::all_of(m.begin(), m.end(), [](double v) { return std::isfinite(v); });
}

Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix out;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j)
      out.m[3 * i + j] = a.m[3 * i] * b.m[j] + a.m[3 * i + 1] * b.m[3 + j] + a.m[3 * i + 2] * b.m[6 + j];
  return out;
}

Matrix inverse(const Matrix& a) {
  const auto& m = a.m;
  Matrix out;
  out.m = {m[4] * m[8] - m[5] * m[7], m[2] * m[7] - m[1] * m[8], m[1] * m[5] - m[2] * m[4],
           m[5] * m[6] - m[3] * m[8], m[0] * m[8] - m[2] * m[6], m[2] * m[3] - m[0] * m[5],
           m[3] * m[7] - m[4] * m[6], m[1] * m[6] - m[0] * m[7], m[0] * m[4] - m[1] * m[3]};
  const double determinant = m[0] * out.m[0] + m[1] * out.m[3] + m[2] * out.m[6];
  for (double& v : out.m) v /= determinant;
  return out;
}

Matrix normalised(const Matrix& a) {
  Matrix out = a;
  for (double& v : out.m) v /= a.m[8];
  return out;
}

Point apply(const Matrix& a, Point p) {
  const double w = a.m[6] * p.x + a.m[7] * p.y + a.m[8];
  return {(a.m[0] * p.x + a.m[1] * p.y + a.m[2]) / w, (a.m[3] * p.x + a.m[4] * p.y + a.m[5]) / w};
}

Matrix scaled(double factor, double x, double y) {
  Matrix out;
  out.m = {factor, 0, x, 0, factor, y, 0, 0, 1};
  return out;
}

Matrix at_pitch(const Matrix& a, double factor) {
  const Matrix scale = scaled(factor, (factor - 1) / 2, (factor - 1) / 2);
  return normalised(inverse(scale) * a * scale);
}

Matrix at_level(const Matrix& a, int levels) {
  const double factor = std::ldexp(1.0, -levels);
  return scaled(factor, 0, 0) * a * scaled(1 / factor, 0, 0);
}

Matrix without_perspective(const Matrix& a) {
  Matrix out = normalised(a);
  out.m[6] = out.m[7] = 0;
  return out;
}

double corner_shift(const Matrix& a, Size size) {
  double most = 0;
  for (const Point p : corners(size)) {
    const Point q = apply(a, p);
    const double moved = std::hypot(q.x - p.x, q.y - p.y);
    if (!(moved <= most)) most = moved;  // a corner sent to nowhere counts
  }
  return most;
}

Rect common_valid_rect(const std::vector<Matrix>& maps, Size size) {
  const std::vector<int64_t> ys = grid_lines(size.height), xs = grid_lines(size.width);
  std::vector<std::vector<bool>> seen(ys.size(), std::vector<bool>(xs.size()));
  for (size_t i = 0; i < ys.size(); ++i)
    for (size_t j = 0; j < xs.size(); ++j)
      seen[i][j] = sees(maps, {static_cast<double>(xs[j]), static_cast<double>(ys[i])}, size);
  Rect rect = largest_rectangle(seen, ys, xs);
  if (rect.bottom < rect.top || rect.right < rect.left) return {};
  for (int round = 0; round < 2; ++round) {
    grow(&rect, &Rect::top, 0, maps, size);
    grow(&rect, &Rect::left, 0, maps, size);
    grow(&rect, &Rect::bottom, size.height - 1, maps, size);
    grow(&rect, &Rect::right, size.width - 1, maps, size);
  }
  return {rect.top, rect.left, rect.bottom + 1, rect.right + 1};
}

}  // namespace pyfocus
