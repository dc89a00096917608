#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace pyfocus {
namespace {

struct Job {
  RangeBody body = nullptr;
  void* context = nullptr;
  int64_t count = 0, grain = 1;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;

  void run() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain);
      if (begin >= count) return;
      try {
        body(context, begin, std::min(begin + grain, count));
      } catch (...) {
        const std::lock_guard<std::mutex> hold(error_lock);
        if (!error) error = std::current_exception();
        next.store(count);
      }
    }
  }
};

// Workers sleep until a job's generation number changes. `seats` limits how many of them join a job.
class Pool {
 public:
  void run(Job& job, int threads) {
    const std::lock_guard<std::mutex> one_job(jobs_);
    grow(threads - 1);
    {
      const std::lock_guard<std::mutex> hold(lock_);
      job_ = &job;
      seats_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    job.run();
    std::unique_lock<std::mutex> hold(lock_);
    seats_ = 0;  // nobody joins a finished job
    done_.wait(hold, [this] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void grow(int workers) {
    while (static_cast<int>(workers_.size()) < workers) {
      workers_.emplace_back([this] { work(); });
      workers_.back().detach();
    }
  }
  void work() {
    std::unique_lock<std::mutex> hold(lock_);
    uint64_t seen = 0;
    for (;;) {
      wake_.wait(hold, [&] { return generation_ != seen && seats_ > 0; });
      seen = generation_;
      --seats_;
      ++busy_;
      Job* job = job_;
      hold.unlock();
      job->run();
      hold.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex jobs_, lock_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  uint64_t generation_ = 0;
  int seats_ = 0, busy_ = 0;
};

// A forked child has no workers: it gets a fresh pool. The parent's is leaked on purpose (its threads may be waiting
// at exit, and its locks may have been held at the fork).
std::atomic<Pool*> pool_of_process{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool_of_process.store(nullptr); });
  static_cast<void>(registered);
  Pool* current = pool_of_process.load();
  if (!current) {
    Pool* fresh = new Pool;
    if (pool_of_process.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
  }
  return *current;
}

thread_local bool inside_pool = false;  // a nested call runs on its own thread

int processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int> default_threads{0};

}  // namespace

int threads() {
  const int set = default_threads.load();
  return set > 0 ? set : processors();
}

void set_threads(int count) { default_threads.store(std::clamp(count, 0, 1024)); }

void parallel_chunks(int64_t count, int64_t grain, int wanted, RangeBody body, void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t chunks = (count + grain - 1) / grain;
  const int seats = static_cast<int>(std::min<int64_t>(wanted > 0 ? wanted : threads(), chunks));
  Job job;
  job.count = count;
  job.grain = grain;
  struct Wrapped {
    RangeBody body;
    void* context;
  } wrapped{body, context};
  job.context = &wrapped;
  job.body = [](void* c, int64_t begin, int64_t end) {
    const bool outer = inside_pool;
    inside_pool = true;
    struct Restore {
      bool value;
      ~Restore() { inside_pool = value; }
    } restore{outer};
    auto* w = static_cast<Wrapped*>(c);
    w->body(w->context, begin, end);
  };
  if (seats <= 1 || inside_pool)
    job.run();
  else
    pool().run(job, seats);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace pyfocus
