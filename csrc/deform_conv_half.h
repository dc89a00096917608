// Data of deform_conv to and from the type it is worked on in: half types to float exactly, from float to the nearest,
// ties to even, in integers, so that every instruction set gives the same bits.
#pragma once

#include "deform_conv_rows.h"

namespace pyfocus::PYFOCUS_ISA {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline float from_f16(uint16_t half) {
  uint32_t bits = (half & 0x7fffu) << 13;
  const uint32_t exponent = bits & 0x0f800000u;
  bits += 112u << 23;                               // the exponent's other bias
  if (exponent == 0x0f800000u) bits += 112u << 23;  // infinity and NaN
  const float normal = __builtin_bit_cast(float, bits);
  const float small = __builtin_bit_cast(float, bits + (1u << 23)) - 0x1p-14f;
  const float size = exponent == 0 ? small : normal;
  return half & 0x8000u ? -size : size;
}

inline uint16_t to_f16(float value) {
  const uint32_t all = __builtin_bit_cast(uint32_t, value), bits = all & 0x7fffffffu;
  const uint32_t normal = (bits - (112u << 23) + 0xfffu + (bits >> 13 & 1)) >> 13;
  const uint32_t small =
      __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, bits) + 0.5f) - __builtin_bit_cast(uint32_t, 0.5f);
  const uint32_t large = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t size = bits >= 0x47800000u ? large : bits < 0x38800000u ? small : normal;
  return static_cast<uint16_t>(size | (all >> 16 & 0x8000u));
}

inline float from_bf16(uint16_t half) { return __builtin_bit_cast(float, static_cast<uint32_t>(half) << 16); }

inline uint16_t to_bf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
  return static_cast<uint16_t>(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16);
}

// to[i] = from[first + i]
template <class Real>
inline void widen(const void* from, Dtype dtype, int64_t first, int64_t count, Real* __restrict to) {
  if (dtype == Dtype::F16) {
    const uint16_t* half = static_cast<const uint16_t*>(from) + first;
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Real>(from_f16(half[i]));
  } else if (dtype == Dtype::BF16) {
    const uint16_t* half = static_cast<const uint16_t*>(from) + first;
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Real>(from_bf16(half[i]));
  } else {
    const Real* full = static_cast<const Real*>(from) + first;
    for (int64_t i = 0; i < count; ++i) to[i] = full[i];
  }
}

// to[first + i] = from[i]
template <class Real>
inline void narrow(const Real* __restrict from, Dtype dtype, int64_t first, int64_t count, void* to) {
  if (dtype == Dtype::F16) {
    uint16_t* half = static_cast<uint16_t*>(to) + first;
    for (int64_t i = 0; i < count; ++i) half[i] = to_f16(static_cast<float>(from[i]));
  } else if (dtype == Dtype::BF16) {
    uint16_t* half = static_cast<uint16_t*>(to) + first;
    for (int64_t i = 0; i < count; ++i) half[i] = to_bf16(static_cast<float>(from[i]));
  } else {
    Real* full = static_cast<Real*>(to) + first;
    for (int64_t i = 0; i < count; ++i) full[i] = from[i];
  }
}

}  // namespace
}  // namespace pyfocus::PYFOCUS_ISA
