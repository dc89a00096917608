// The thread pool: fork-aware, sized by the caller, no OpenMP (which hangs after fork and clashes with torch's copy).
#pragma once

#include <cstdint>

namespace pyfocus {

// A range of work: body(context, begin, end) for disjoint [begin, end) that cover [0, count).
using RangeBody = void (*)(void* context, int64_t begin, int64_t end);

// Runs body over chunks of `grain` items on up to `threads` threads (0: the default). Chunk borders depend on `grain`
// alone, never on the number of threads, so a reduction per chunk is deterministic. Exceptions reach the caller.
void parallel_chunks(int64_t count, int64_t grain, int threads, RangeBody body, void* context);

// Default number of threads: set_threads, else the processors this process may use.
int threads();
void set_threads(int count);

template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, const Body& body) {
  parallel_chunks(
      count, grain, threads,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace pyfocus
