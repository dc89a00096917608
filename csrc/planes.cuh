// One value of a plane as the kernels read it: the stored count through the table, scale and offset of its plane.
#pragma once

#include "planes.h"
#include "sample.h"

namespace pyfocus {

template <class T>
PYFOCUS_HD inline float load_value(const PlaneSource& s, int plane, int64_t y, int64_t x) {
  const T v = static_cast<const T*>(s.plane[plane])[y * s.row_stride + x * s.column_stride];
  if constexpr (sizeof(T) <= 2) {
    if (s.table) return s.table[v] * s.scale[plane] + s.offset[plane];
  }
  return static_cast<float>(v) * s.scale[plane] + s.offset[plane];
}

}  // namespace pyfocus
