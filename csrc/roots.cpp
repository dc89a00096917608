// roots on the CPU.
#include "roots.h"

#include "codes.h"
#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, encode_values, const EncodeParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, lookup_rows, const LookupParams& p, int64_t begin, int64_t end)

namespace PYFOCUS_ISA {

void encode_values(const EncodeParams& p, int64_t begin, int64_t end) {
  constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23: adding it leaves no room for a fraction
  for (int64_t i = begin; i < end; ++i) {
    const float v = p.values[i];
    float root = __builtin_copysignf(__builtin_sqrtf(__builtin_fabsf(v)), v);
    root = root < p.lowest ? p.lowest : root;
    root = root > p.highest ? p.highest : root;
    const float code = ((root - p.lowest) * p.scale + kWhole) - kWhole;
    p.codes[i] = static_cast<uint16_t>(static_cast<int32_t>(code));
  }
}

void lookup_rows(const LookupParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const uint16_t* from = p.codes + r / p.height * p.plane_stride + r % p.height * p.row_stride;
    float* out = p.out + r * p.width;
    for (int64_t x = 0; x < p.width; ++x) out[x] = p.table[from[x]];
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void roots_encode(const Tensor& values, const Tensor& codes, float lowest, float highest, float scale, int threads) {
  const char* name = "roots_encode";
  check_tensor(name, "values", values, Dtype::F32, 3);
  check_on_cpu(name, "values", values);
  check_contiguous(name, "values", values);
  check_output(name, "codes", codes, Dtype::U16, 3);
  check_on_cpu(name, "codes", codes);
  for (int axis = 0; axis < 3; ++axis) check_shape(name, "codes", codes, axis, values.shape[axis]);
  PYFOCUS_CHECK(highest > lowest && scale > 0 && (highest - lowest) * scale < 65535.5f,
                "%s: (highest - lowest) scale must lie in 0 to 65535, got %g", name,
                static_cast<double>((highest - lowest) * scale));
  const EncodeParams p = {values.as<const float>(), codes.as<uint16_t>(), lowest, highest, scale};
  parallel_for(values.count(), 1 << 16, threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(encode_values)(p, begin, end); });
}

void roots_lookup(const Tensor* codes, int64_t count, const Tensor& table, const Tensor& destination, int threads) {
  const char* name = "roots_lookup";
  check_codes(name, codes, count);
  check_table(name, table);
  check_output(name, "destination", destination, Dtype::F32, 4);
  check_on_cpu(name, "destination", destination);
  check_shape(name, "destination", destination, 0, count);
  for (int axis = 0; axis < 3; ++axis) check_shape(name, "destination", destination, axis + 1, codes[0].shape[axis]);
  const int64_t rows = codes[0].shape[0] * codes[0].shape[1], width = codes[0].shape[2];
  if (rows * width == 0) return;
  for (int64_t n = 0; n < count; ++n) {
    const LookupParams p = {codes[n].as<const uint16_t>(),
                            codes[n].stride[0],
                            codes[n].stride[1],
                            table.as<const float>(),
                            destination.as<float>() + n * rows * width,
                            codes[n].shape[1],
                            width};
    parallel_for(rows, 64, threads, [&](int64_t begin, int64_t end) { PYFOCUS_BEST(lookup_rows)(p, begin, end); });
  }
}
#endif

}  // namespace pyfocus
