// Frames kept as 16-bit codes, and the table that says what a code means: the checks of ops that read them.
#pragma once

#include "check.h"
#include "tensor.h"

namespace pyfocus {

// One value per code.
inline void check_table(const char* function, const Tensor& table) {
  check_tensor(function, "table", table, Dtype::F32, 1);
  check_on_cpu(function, "table", table);
  check_contiguous(function, "table", table);
  check_shape(function, "table", table, 0, 65536);
}

// `count` arrays (C, h, w), all of one shape, rows contiguous.
inline void check_codes(const char* function, const Tensor* codes, int64_t count) {
  PYFOCUS_CHECK(count > 0, "%s: codes must be one array or more, got none", function);
  for (int64_t n = 0; n < count; ++n) {
    check_tensor(function, "codes", codes[n], Dtype::U16, 3);
    check_on_cpu(function, "codes", codes[n]);
    PYFOCUS_CHECK(codes[n].stride[2] == 1 || codes[n].shape[2] <= 1, "%s: codes must have contiguous rows, got strides",
                  function);
    for (int axis = 0; axis < 3; ++axis) check_shape(function, "codes", codes[n], axis, codes[0].shape[axis]);
  }
}

}  // namespace pyfocus
