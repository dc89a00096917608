#include "planes.h"

namespace pyfocus {

PlaneSource plane_source(const char* function, const Tensor& source, const int (*mosaic)[2], int mosaic_planes,
                         const Tensor* table, const float* scale, const float* offset) {
  PlaneSource s;
  s.place = source.place();
  PYFOCUS_CHECK(source.dtype == Dtype::U8 || source.dtype == Dtype::U16 || source.dtype == Dtype::F32,
                "%s: source must be uint8, uint16 or float32, got %s", function, dtype_name(source.dtype));
  const int64_t size = source.dtype == Dtype::U8 ? 1 : source.dtype == Dtype::U16 ? 2 : 4;
  const char* base = static_cast<const char*>(source.data);
  if (mosaic) {
    PYFOCUS_CHECK(source.ndim == 2, "%s: a mosaic must be (H, W), got %d dimensions", function, source.ndim);
    PYFOCUS_CHECK(mosaic_planes >= 1 && mosaic_planes <= kMaxPlanes, "%s: a mosaic has 1 to 4 planes, got %d", function,
                  mosaic_planes);
    s.planes = mosaic_planes;
    s.height = source.shape[0] / 2, s.width = source.shape[1] / 2;
    s.row_stride = 2 * source.stride[0], s.column_stride = 2 * source.stride[1];
    for (int p = 0; p < s.planes; ++p) {
      PYFOCUS_CHECK((mosaic[p][0] | 1) == 1 && (mosaic[p][1] | 1) == 1,
                    "%s: mosaic offsets must be 0 or 1, got (%d, %d)", function, mosaic[p][0], mosaic[p][1]);
      s.plane[p] = base + size * (mosaic[p][0] * source.stride[0] + mosaic[p][1] * source.stride[1]);
    }
  } else {
    PYFOCUS_CHECK(source.ndim == 3, "%s: source must be (C, H, W), got %d dimensions", function, source.ndim);
    PYFOCUS_CHECK(source.shape[0] >= 1 && source.shape[0] <= kMaxPlanes, "%s: source must have 1 to 4 planes, got %lld",
                  function, static_cast<long long>(source.shape[0]));
    s.planes = static_cast<int>(source.shape[0]);
    s.height = source.shape[1], s.width = source.shape[2];
    s.row_stride = source.stride[1], s.column_stride = source.stride[2];
    for (int p = 0; p < s.planes; ++p) s.plane[p] = base + size * p * source.stride[0];
  }
  PYFOCUS_CHECK(s.height >= 1 && s.width >= 1, "%s: source must not be empty, got %lld x %lld", function,
                static_cast<long long>(s.height), static_cast<long long>(s.width));
  PYFOCUS_CHECK(s.height < (1 << 30) && s.width < (1 << 30), "%s: source is too large", function);
  s.dtype = source.dtype;
  if (table) {
    check_tensor(function, "table", *table, Dtype::F32, 1);
    check_contiguous(function, "table", *table);
    check_place(function, "table", table, s.place);
    PYFOCUS_CHECK(source.dtype != Dtype::F32, "%s: a table needs a uint8 or uint16 source, got float32", function);
    check_shape(function, "table", *table, 0, source.dtype == Dtype::U8 ? 256 : 65536);
    s.table = table->as<const float>();
  }
  for (int p = 0; p < s.planes; ++p) {
    if (scale) s.scale[p] = scale[p];
    if (offset) s.offset[p] = offset[p];
  }
  return s;
}

}  // namespace pyfocus
