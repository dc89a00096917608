// Sums of deform_conv_product.cuh on tensor cores, by warps: 4 warps share kM x kN sums, each has 32 rows in pieces of
// 16 x 16. Device only; a warp's threads must all be here. Products of half numbers are exact, sums are in float.
#pragma once

#include <mma.h>

#include <type_traits>

#include "deform_conv_types.cuh"

namespace pyfocus {

template <class Product, class T, int kM, int kN, int kDepth, bool kAcross>
struct TensorSums {
  static constexpr int kWarpsM = kM / 32, kWarpN = kN * kWarpsM / 4, kPieces = kWarpN / 16;
  static_assert(kM % 32 == 0 && kWarpN % 16 == 0 && kDepth % 16 == 0);
  using Element = std::conditional_t<std::is_same_v<T, F16>, __half, __nv_bfloat16>;
  using LayoutA = std::conditional_t<kAcross, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  using LayoutB = std::conditional_t<kAcross, nvcuda::wmma::row_major, nvcuda::wmma::col_major>;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum[2][kPieces];

  PYFOCUS_HD static int first_row(int thread) { return thread / 32 % kWarpsM * 32; }
  PYFOCUS_HD static int first_column(int thread) { return thread / 32 / kWarpsM * kWarpN; }

  PYFOCUS_HD void clear() {
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < kPieces; ++j) nvcuda::wmma::fill_fragment(sum[i][j], 0.0f);
  }

  PYFOCUS_HD void add(const T* a, const T* b, int thread) {
    const int m = first_row(thread), n = first_column(thread);
#pragma unroll 2
    for (int k = 0; k < kDepth; k += 16) {
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, Element, LayoutA> left[2];
      for (int i = 0; i < 2; ++i)
        nvcuda::wmma::load_matrix_sync(left[i], reinterpret_cast<const Element*>(a + Product::at_a(m + 16 * i, k)),
                                       Product::kRowA);
      for (int j = 0; j < kPieces; ++j) {
        nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, Element, LayoutB> right;
        nvcuda::wmma::load_matrix_sync(right, reinterpret_cast<const Element*>(b + Product::at_b(n + 16 * j, k)),
                                       Product::kRowB);
        for (int i = 0; i < 2; ++i) nvcuda::wmma::mma_sync(sum[i][j], left[i], right, sum[i][j]);
      }
    }
  }

  PYFOCUS_HD void store(float* to, int stride, int thread) const {
    to += first_column(thread) * stride + first_row(thread);
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < kPieces; ++j)
        nvcuda::wmma::store_matrix_sync(to + 16 * (j * stride + i), sum[i][j], stride, nvcuda::wmma::mem_col_major);
  }

  PYFOCUS_HD void load(const float* from, int stride, int thread) {
    from += first_column(thread) * stride + first_row(thread);
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < kPieces; ++j)
        nvcuda::wmma::load_matrix_sync(sum[i][j], from + 16 * (j * stride + i), stride, nvcuda::wmma::mem_col_major);
  }
};

}  // namespace pyfocus
