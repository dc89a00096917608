// The thread pool: fork-aware, sized by the caller, no OpenMP (which hangs after fork and clashes with torch's copy).
#pragma once

#include <atomic>
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

// A host's own threads in the place of the pool's: `run` calls task(context, i) for i of 0 to count - 1, on any
// threads, and comes back when all are done.
struct Runner {
  void (*run)(void* user, int count, void (*task)(void* context, int index), void* context) = nullptr;
  void* user = nullptr;
};

// While it lives, what this thread gives to parallel_chunks goes to `runner` (null: the pool), and ends with a
// Cancelled error before its next chunk once `cancelled` (null: never) is set.
class ParallelScope {
 public:
  ParallelScope(const Runner* runner, const std::atomic<bool>* cancelled);
  ParallelScope(const ParallelScope&) = delete;
  ParallelScope& operator=(const ParallelScope&) = delete;
  ~ParallelScope();

 private:
  const Runner* runner_before_;
  const std::atomic<bool>* cancelled_before_;
};

template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, const Body& body) {
  parallel_chunks(
      count, grain, threads,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace pyfocus
