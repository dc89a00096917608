#include "isa.h"

#include <atomic>

namespace pyfocus {

Isa best_isa() {
#if defined(PYFOCUS_ALL_ISA)
  static const Isa best = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      return Isa::V4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
      return Isa::V3;
    return Isa::V2;
  }();
  return best;
#else
  return Isa::V2;
#endif
}

namespace {
std::atomic<int> chosen{0};
}

Isa isa() {
  const int set = chosen.load(std::memory_order_relaxed);
  return set ? static_cast<Isa>(set) : best_isa();
}

void set_isa(Isa isa) {
  chosen.store(static_cast<int>(isa) < static_cast<int>(best_isa()) ? static_cast<int>(isa) : 0);
}

}  // namespace pyfocus
