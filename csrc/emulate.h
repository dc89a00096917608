// The host as a CUDA device, for tests: runs a block kernel of launch.cuh phase by phase. Blocks and the threads of a
// phase go in random orders, each block over fresh memory filled with NaN bytes, several blocks at once on the pool.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "launch.cuh"
#include "parallel.h"

namespace pyfocus {

// A permutation of 0 .. count - 1, another one for every seed (xorshift: Marsaglia 2003; shuffle: Fisher & Yates).
inline void shuffle(int* order, int count, uint64_t seed) {
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
  for (int i = 0; i < count; ++i) order[i] = i;
  for (int i = count - 1; i > 0; --i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    std::swap(order[i], order[state % static_cast<uint64_t>(i + 1)]);
  }
}

template <class T>
class Poisoned {  // count objects on the heap, every byte 0xff
 public:
  explicit Poisoned(int count) : bytes_(new unsigned char[sizeof(T) * static_cast<size_t>(count)]) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_default_constructible_v<T>);
    std::memset(bytes_.get(), 0xff, sizeof(T) * static_cast<size_t>(count));
  }
  T& operator[](int i) { return reinterpret_cast<T*>(bytes_.get())[i]; }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
};

template <class Kernel, int kPhase>
void emulate_phases(const typename Kernel::Params& p, At at, typename Kernel::Shared& shared,
                    Poisoned<typename Kernel::Local>& locals, uint64_t seed) {
  int order[Kernel::kThreads];
  shuffle(order, Kernel::kThreads, seed + kPhase);
  for (int thread : order) {
    at.thread = thread;
    Kernel::template phase<kPhase>(p, at, shared, locals[thread]);
  }
  if constexpr (kPhase + 1 < Kernel::kPhases) emulate_phases<Kernel, kPhase + 1>(p, at, shared, locals, seed);
}

template <class Kernel>
void emulate(const Grid& grid, const typename Kernel::Params& p) {
  const int64_t count = grid.x * grid.y * grid.z;
  parallel_for(count, 1, 0, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = count - 1 - i;  // last to first: order must not matter
      At at{static_cast<int>(block % grid.x), static_cast<int>(block / grid.x % grid.y),
            static_cast<int>(block / (grid.x * grid.y)), 0, 0};
      Poisoned<typename Kernel::Shared> shared(1);
      Poisoned<typename Kernel::Local> locals(Kernel::kThreads);
      const int turns = turns_of<Kernel>(p, at);
      for (; at.turn < turns; ++at.turn)
        emulate_phases<Kernel, 0>(p, at, shared[0], locals, static_cast<uint64_t>(block * 64 + at.turn * 8));
    }
  });
}

}  // namespace pyfocus
