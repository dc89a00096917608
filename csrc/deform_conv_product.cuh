// The product of two small matrices in shared memory by a block of 128 threads, sums kept in registers:
// sums[m, n] += over k of a[m, k] b[k, n]. float and double by fused multiply-adds, half types by tensor cores with
// sums in float. kAcross: a lies as [k][m], b as [k][n]; else as [m][k] and [n][k].
//
// float, 8 x 8 sums per thread: per 64 multiply-adds of a warp (16 cycles of an SM) 4 loads of 16 bytes a lane, 6
// passes of shared memory. Half: each of 4 warps has 32 x kN or 32 x kN / 2 sums, in pieces of 16 x 16.
// The emulated device and bfloat16 before sm_80 share the sums out evenly and take them one by one.
#pragma once

#include <type_traits>

#include "deform_conv_types.cuh"

#if defined(__CUDA_ARCH__)
#include "deform_conv_mma.cuh"
#endif

namespace pyfocus {

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, F16> || std::is_same_v<T, BF16>;

template <class T>
using RealOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T, int kM, int kN, int kDepth, bool kAcross>
struct Product {
  using Real = RealOf<T>;
  static constexpr int kThreads = 128;
  // Rows stay on 16 bytes; apart from each other by a few banks where lanes read different rows at once.
  static constexpr int kPad = kIsHalf<T> || !kAcross ? Pack<T>::kCount : 0;
  static constexpr int kRowA = (kAcross ? kM : kDepth) + kPad, kRowB = (kAcross ? kN : kDepth) + kPad;
  static constexpr int kSizeA = (kAcross ? kDepth : kM) * kRowA, kSizeB = (kAcross ? kDepth : kN) * kRowB;
  PYFOCUS_HD static constexpr int at_a(int m, int k) { return kAcross ? k * kRowA + m : m * kRowA + k; }
  PYFOCUS_HD static constexpr int at_b(int n, int k) { return kAcross ? k * kRowB + n : n * kRowB + k; }

  // Which sums a thread has: 4 neighbours and 4 others, or every 8th and every 16th.
  static constexpr int kRows = kAcross ? kM / 16 : kM / 8, kColumns = kAcross ? kN / 8 : kN / 16;
  PYFOCUS_HD static int row(int thread, int i) {
    return kAcross ? i / 4 * 64 + thread % 16 * 4 + i % 4 : thread / 16 + 8 * i;
  }
  PYFOCUS_HD static int column(int thread, int j) {
    return kAcross ? j / 4 * 32 + thread / 16 * 4 + j % 4 : thread % 16 + 16 * j;
  }

  struct Plain {
    Real sum[kRows][kColumns];

    PYFOCUS_HD void clear() {
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) sum[i][j] = 0;
    }

    PYFOCUS_HD void add(const T* a, const T* b, int thread) {
      if constexpr (kIsHalf<T>)
        add_halves(a, b, thread);
      else if constexpr (kAcross)
        add_across(a, b, thread);
      else
        add_along(a, b, thread);
    }

    PYFOCUS_HD void add_halves(const T* a, const T* b, int thread) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int k = 0; k < kDepth; ++k) {
        float left[kRows], right[kColumns];
        for (int i = 0; i < kRows; ++i) left[i] = widened(a[at_a(row(thread, i), k)]);
        for (int j = 0; j < kColumns; ++j) right[j] = widened(b[at_b(column(thread, j), k)]);
        for (int i = 0; i < kRows; ++i)
          for (int j = 0; j < kColumns; ++j) sum[i][j] += left[i] * right[j];
      }
    }

    PYFOCUS_HD void add_across(const T* a, const T* b, int thread) {
      constexpr int kCount = Pack<T>::kCount;
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
      for (int k = 0; k < kDepth; ++k) {
        Pack<T> left[kRows / kCount], right[kColumns / kCount];
        for (int i = 0; i < kRows; i += kCount)
          left[i / kCount] = *reinterpret_cast<const Pack<T>*>(a + at_a(row(thread, i), k));
        for (int j = 0; j < kColumns; j += kCount)
          right[j / kCount] = *reinterpret_cast<const Pack<T>*>(b + at_b(column(thread, j), k));
        for (int i = 0; i < kRows; ++i)
          for (int j = 0; j < kColumns; ++j)
            sum[i][j] += left[i / kCount].v[i % kCount] * right[j / kCount].v[j % kCount];
      }
    }

    PYFOCUS_HD void add_along(const T* a, const T* b, int thread) {
      constexpr int kCount = Pack<T>::kCount;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int k = 0; k < kDepth; k += kCount) {
        Pack<T> left[kRows], right[kColumns];
        for (int i = 0; i < kRows; ++i) left[i] = *reinterpret_cast<const Pack<T>*>(a + at_a(row(thread, i), k));
        for (int j = 0; j < kColumns; ++j) right[j] = *reinterpret_cast<const Pack<T>*>(b + at_b(column(thread, j), k));
        for (int e = 0; e < kCount; ++e)
          for (int i = 0; i < kRows; ++i)
            for (int j = 0; j < kColumns; ++j) sum[i][j] += left[i].v[e] * right[j].v[e];
      }
    }

    // to[n stride + m], and back.
    PYFOCUS_HD void store(Real* to, int stride, int thread) const {
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) to[column(thread, j) * stride + row(thread, i)] = sum[i][j];
    }
    PYFOCUS_HD void load(const Real* from, int stride, int thread) {
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) sum[i][j] = from[column(thread, j) * stride + row(thread, i)];
    }
  };

#if defined(__CUDA_ARCH__)
  static constexpr bool kTensor = std::is_same_v<T, F16> || (std::is_same_v<T, BF16> && __CUDA_ARCH__ >= 800);
  using Sums = std::conditional_t<kTensor, TensorSums<Product, T, kM, kN, kDepth, kAcross>, Plain>;
#else
  using Sums = Plain;
#endif
};

}  // namespace pyfocus
