// A fit of two pictures by the enhanced correlation coefficient: its steps, and again by the pixels that agree.
#pragma once

#include <optional>

#include "stack/align.h"

namespace pyfocus {

struct Fit {
  Matrix matrix;
  double correlation = 0;
  int64_t iterations = 0;
  bool converged = false;
};

// Gauss-Newton from `matrix` on, `most` steps at most; nothing when too little is shared or the system is singular.
// a and b (h, w) float32, mask (h, w) uint8 or null.
std::optional<Fit> maximise(const Tensor& a, const Tensor& b, const Matrix& matrix, Motion motion, const Tensor* mask,
                            int64_t most, Memory& memory, const Execution& on);

// The fit of a level again, by those pixels alone that agree under it, chosen anew until they stay the same.
Fit trimmed(const Luma& fixed, const Luma& moving, size_t level, const Fit& fit, Motion motion, Memory& memory,
            const Execution& on);

// The value below which the share `q` of the values lies, between two of them as NumPy's; `values` are reordered.
double quantile(std::vector<double>& values, double q);

}  // namespace pyfocus
