// float16 and bfloat16 as kernels keep them: bits, widened to float exactly and narrowed to the nearest, ties to even.
// On the device by its own instructions; on the emulated one by the bit arithmetic that the CPU ops use.
#pragma once

#include <cstdint>

#include "sample.h"

#if defined(PYFOCUS_EMULATE)
#include "deform_conv_half.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace pyfocus {

struct F16 {
  uint16_t bits;
};

struct BF16 {
  uint16_t bits;
};

PYFOCUS_HD static inline float widened(float v) { return v; }
PYFOCUS_HD static inline double widened(double v) { return v; }

#if defined(PYFOCUS_EMULATE)
static inline float widened(F16 v) { return PYFOCUS_ISA::from_f16(v.bits); }
static inline float widened(BF16 v) { return PYFOCUS_ISA::from_bf16(v.bits); }
#else
PYFOCUS_HD static inline float widened(F16 v) { return __half2float(__half(__half_raw{v.bits})); }
PYFOCUS_HD static inline float widened(BF16 v) { return __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{v.bits})); }
#endif

template <class T>
struct Narrow {  // from float or double to T
  PYFOCUS_HD static inline T of(T v) { return v; }
};

template <>
struct Narrow<F16> {
#if defined(PYFOCUS_EMULATE)
  static inline F16 of(float v) { return {PYFOCUS_ISA::to_f16(v)}; }
#else
  PYFOCUS_HD static inline F16 of(float v) { return {static_cast<__half_raw>(__float2half_rn(v)).x}; }
#endif
};

template <>
struct Narrow<BF16> {
#if defined(PYFOCUS_EMULATE)
  static inline BF16 of(float v) { return {PYFOCUS_ISA::to_bf16(v)}; }
#else
  PYFOCUS_HD static inline BF16 of(float v) { return {static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(v)).x}; }
#endif
};

// 16 bytes of T, moved as one.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / static_cast<int>(sizeof(T));
  T v[kCount];
};

}  // namespace pyfocus
