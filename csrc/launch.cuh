// Block kernels, written once and run twice: by CUDA, and by the host (PYFOCUS_CUDA=EMULATE) in the tests.
//
// A kernel is a struct with
//   Params                  what the host passes, trivially copyable, by value; pointers are device pointers
//   Shared, Local           a block's shared memory; what a thread keeps from one phase to the next
//   kThreads, kPhases       threads per block; phases between barriers
//   phase<i>(p, at, s, l)   static, PYFOCUS_HD: what thread `at.thread` of block (at.x, at.y, at.z) does in phase i
//   turns(p, at)           optional: how often the phases are gone through (the same for all threads of a block);
//                           at.turn counts them. Without it: once.
//   kBlocksPerSm            optional: blocks that must fit on one multiprocessor, a limit for the compiler's registers
// On the device a barrier stands after every phase. The emulation runs the threads of a phase one after the other in a
// random order, over shared and local memory filled with NaN bytes, on the heap: a missing barrier, a race, an
// overrun or a read of something unset shows as a wrong number or as an error of AddressSanitizer.
// Kernels never allocate or synchronise; launch() only enqueues, and raises with the kernel's name.
#pragma once

#include <math.h>

#include <cstdint>
#include <type_traits>

#include "device.h"
#include "sample.h"

#if !defined(PYFOCUS_EMULATE)
#include "device.cuh"
#endif

namespace pyfocus {

struct At {
  int x, y, z;  // the block's place in the grid
  int thread;
  int turn;
};

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

struct Nothing {};  // for kernels without shared memory or locals

constexpr int64_t blocks(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }

inline void check_grid(const char* name, const Grid& grid) {
  PYFOCUS_CHECK(grid.x < (int64_t{1} << 31) && grid.y < 65536 && grid.z < 65536,
                "%s: the arrays are too large for one launch: a grid of %lld x %lld x %lld", name,
                static_cast<long long>(grid.x), static_cast<long long>(grid.y), static_cast<long long>(grid.z));
}

template <class Kernel>
PYFOCUS_HD constexpr int turns_of(const typename Kernel::Params& p, const At& at) {
  if constexpr (requires { Kernel::turns(p, at); })
    return Kernel::turns(p, at);
  else
    return 1;
}

}  // namespace pyfocus

#if defined(PYFOCUS_EMULATE)
#include "emulate.h"
#endif

namespace pyfocus {

#if defined(PYFOCUS_EMULATE)

template <class Kernel>
void launch(const char* name, const Grid& grid, const typename Kernel::Params& p, int device, void* stream) {
  check_grid(name, grid);
  if (stream_device(device, stream) != device)  // as CUDA does; whoever took the stream has checked it
    fail(ErrorKind::Device, "%s: a kernel of device %d on a stream of device %d", name, device,
         stream_device(device, stream));
  emulate<Kernel>(grid, p);
}

#else

template <class Kernel>
struct Bounds {
  static constexpr int blocks() {
    if constexpr (requires { Kernel::kBlocksPerSm; })
      return Kernel::kBlocksPerSm;
    else
      return 1;
  }
  static constexpr int kThreads = Kernel::kThreads, kBlocks = blocks();
};

template <class Kernel, int kPhase>
__device__ __forceinline__ void run_phases(const typename Kernel::Params& p, const At& at,
                                           typename Kernel::Shared& shared, typename Kernel::Local& local, bool last) {
  Kernel::template phase<kPhase>(p, at, shared, local);
  if constexpr (kPhase + 1 < Kernel::kPhases) {
    __syncthreads();
    run_phases<Kernel, kPhase + 1>(p, at, shared, local, last);
  } else if (!last) {
    __syncthreads();
  }
}

template <class Kernel>
__global__ void __launch_bounds__(Bounds<Kernel>::kThreads, Bounds<Kernel>::kBlocks)
    run_kernel(const __grid_constant__ typename Kernel::Params p) {
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& shared = *reinterpret_cast<typename Kernel::Shared*>(bytes);
  typename Kernel::Local local;
  At at{static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z),
        static_cast<int>(threadIdx.x), 0};
  const int turns = turns_of<Kernel>(p, at);
  for (; at.turn < turns; ++at.turn) run_phases<Kernel, 0>(p, at, shared, local, at.turn + 1 == turns);
}

template <class Kernel>
void launch(const char* name, const Grid& grid, const typename Kernel::Params& p, int device, void* stream) {
  static_assert(std::is_trivially_copyable_v<typename Kernel::Params>);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check_grid(name, grid);
  constexpr size_t kShared = std::is_empty_v<typename Kernel::Shared> ? 0 : sizeof(typename Kernel::Shared);
  const DeviceScope scope(name, device);
  if constexpr (kShared > 48 * 1024)
    check_cuda(name, cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(kShared)));
  const dim3 size(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  void* arguments[] = {const_cast<typename Kernel::Params*>(&p)};
  check_cuda(name, cudaLaunchKernel(run_kernel<Kernel>, size, dim3(Kernel::kThreads), arguments, kShared,
                                    static_cast<cudaStream_t>(stream)));
}

#endif

}  // namespace pyfocus
