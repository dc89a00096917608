// Atomic sums and maxima of integers: whatever the order, the result is the same. On the emulated device blocks run at
// the same time, too.
#pragma once

#include <cstdint>

#include "sample.h"

namespace pyfocus {

PYFOCUS_HD static inline void atomic_add(int32_t* to, int32_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, value);
#else
  __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
#endif
}

PYFOCUS_HD static inline void atomic_add(int64_t* to, int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
#else
  __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
#endif
}

PYFOCUS_HD static inline void atomic_max(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(to, value);
#else
  uint32_t before = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(to, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

}  // namespace pyfocus
