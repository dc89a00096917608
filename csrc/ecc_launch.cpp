// ecc's checks, launches, and on the CPU the loop over steps. Rows are summed in chunks, the chunks in order: the same
// for any number of threads.
#include <cmath>

#include "ecc.h"
#include "ecc_rows.h"
#include "ecc_step.h"
#include "parallel.h"

namespace pyfocus {
namespace {

// Images, mask and workspace of a call; `lead` is what says how many pairs there are: (...) or (B, ...).
struct Call {
  const char* function;
  const char* lead_name;
  const Tensor& lead;
  int lead_ndim;  // of a single pair's
  EccParams p;

  bool batched() const { return lead.ndim == lead_ndim + 1; }
  int64_t pairs() const { return batched() ? lead.shape[0] : 1; }

  // An array per pair whose first axis counts pairs if the lead's does.
  void check_per_pair(const char* name, const Tensor& t, int ndim, bool written) const {
    check_place(function, name, &t, lead.place());
    const int wanted = ndim + (batched() ? 1 : 0);
    if (written)
      check_output(function, name, t, Dtype::F64, wanted);
    else
      check_tensor(function, name, t, Dtype::F64, wanted), check_contiguous(function, name, t);
    if (batched()) check_shape(function, name, t, 0, pairs());
  }

  // (h, w), the same for all pairs, or (B, h, w). Gives the elements from one pair to the next.
  int64_t check_image(const char* name, const Tensor& t, Dtype dtype) const {
    check_place(function, name, &t, lead.place());
    check_tensor(function, name, t, dtype, batched() && t.ndim == 3 ? 3 : 2);
    check_contiguous(function, name, t);
    if (t.ndim == 3) check_shape(function, name, t, 0, pairs());
    const int64_t h = t.shape[t.ndim - 2], w = t.shape[t.ndim - 1];
    PYFOCUS_CHECK(h >= 2 && w >= 2 && h < (int64_t{1} << 31) && h * w < (int64_t{1} << 31),
                  "%s: images must be 2 x 2 pixels or more and fewer than 2^31, got %lld x %lld", function,
                  static_cast<long long>(h), static_cast<long long>(w));
    return t.ndim == 3 ? h * w : 0;
  }

  void take(const Tensor& fixed, const Tensor& moving, const Tensor* mask, int parameters, int64_t row_step,
            const Tensor& workspace) {
    PYFOCUS_CHECK(pairs() < 65536, "%s: at most 65535 pairs, got %lld", function, static_cast<long long>(pairs()));
    p.pairs = pairs();
    p.fixed_stride = check_image("fixed", fixed, Dtype::F32);
    p.moving_stride = check_image("moving", moving, Dtype::F32);
    p.fixed = fixed.as<const float>(), p.moving = moving.as<const float>();
    p.height = fixed.shape[fixed.ndim - 2], p.width = fixed.shape[fixed.ndim - 1];
    p.moving_height = moving.shape[moving.ndim - 2], p.moving_width = moving.shape[moving.ndim - 1];
    p.scale = 0.5 * static_cast<double>(p.height > p.width ? p.height : p.width);
    PYFOCUS_CHECK(row_step >= 1 && row_step <= kEccChunkRows, "%s: row_step must be 1 to %d, got %lld", function,
                  kEccChunkRows, static_cast<long long>(row_step));
    p.row_step = row_step;
    p.parameters = parameters;
    check_per_pair("workspace", workspace, 2, true);
    p.chunks = ecc_chunk_count(p.height, p.width, row_step, lead.device == Device::Cuda);
    check_shape(function, "workspace", workspace, workspace.ndim - 2, p.chunks);
    check_shape(function, "workspace", workspace, workspace.ndim - 1, ecc_sum_count(parameters));
    p.chunk = workspace.as<double>();
    if (!mask) return;
    p.mask_stride = check_image("mask", *mask, Dtype::U8);
    check_shape(function, "mask", *mask, mask->ndim - 2, p.height);
    check_shape(function, "mask", *mask, mask->ndim - 1, p.width);
    p.mask = mask->as<const uint8_t>();
  }

  // The host looks at matrices only where it need not wait for them. `stride`: doubles from pair to pair; `scaled`:
  // whether the last element of an affine may be anything but 0.
  void check_matrices(const char* name, const double* matrix, int64_t stride, bool scaled) const {
    if (lead.device == Device::Cuda) return;
    for (int64_t pair = 0; pair < p.pairs; ++pair) {
      const double* m = matrix + pair * stride;
      for (int i = 0; i < 9; ++i)
        PYFOCUS_CHECK(std::isfinite(m[i]), "%s: %s must be finite, got %g", function, name, m[i]);
      PYFOCUS_CHECK(p.parameters == 8 || (m[6] == 0 && m[7] == 0 && (scaled ? m[8] != 0 : m[8] == 1)),
                    "%s: an affine matrix must end with the row 0 0 1, got %g %g %g", function, m[6], m[7], m[8]);
    }
  }
};

void sum_chunks(const EccParams& p, int64_t first_pair, int64_t pairs, int threads) {
  parallel_for(pairs * p.chunks, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % p.chunks * kEccChunkRows, last = row + kEccChunkRows;
      PYFOCUS_BEST(ecc_rows)(p, first_pair + i / p.chunks, row, last < p.height ? last : p.height);
    }
  });
}

void add_chunks(const EccParams& p, int64_t pair, double* sums) {
  const int count = ecc_sum_count(p.parameters);
  const double* chunk = p.chunk + pair * p.chunks * count;
  for (int k = 0; k < count; ++k) sums[k] = 0;
  for (int64_t i = 0; i < p.chunks; ++i)
    for (int k = 0; k < count; ++k) sums[k] += chunk[i * count + k];
}

void solve(const EccFrame& frame, const EccParams& p, int64_t iteration, const double* sums, double* state) {
  const int unknowns = ecc_unknowns(p.motion);
  EccSystem system;
  ecc_judge(sums, p.parameters, &system);
  for (int r = 0; r < unknowns; ++r) ecc_row(sums, p.parameters, p.motion, &system, r);
  for (int k = 0; k < unknowns; ++k)
    for (int j = k + 1; j < unknowns + 2; ++j) ecc_eliminate(&system, unknowns, k, j);
  ecc_advance(frame, sums, p.parameters, p.motion, iteration, &system, state);
}

void maximise_pair(const EccParams& p, int64_t pair, int threads) {
  const EccFrame frame = ecc_frame(p);
  double* state = p.state + pair * kEccStateSize;
  double sums[ecc_sum_count(8)];
  if (p.begin == 0) ecc_start(frame, state);
  for (int64_t i = p.begin; i < p.begin + p.most && state[kEccDone] == 0; ++i) {
    sum_chunks(p, pair, 1, threads);
    add_chunks(p, pair, sums);
    solve(frame, p, i, sums, state);
  }
}

}  // namespace

int64_t ecc_chunk_count(int64_t height, int64_t width, int64_t row_step, bool device) {
  PYFOCUS_CHECK(height >= 2 && width >= 2 && row_step >= 1,
                "ecc_chunk_count: height and width must be 2 or more, row_step 1 or more, got %lld, %lld and %lld",
                static_cast<long long>(height), static_cast<long long>(width), static_cast<long long>(row_step));
  if (!device) return (height + kEccChunkRows - 1) / kEccChunkRows;
  const int64_t rows = ecc_tile_rows(height, width, row_step) * row_step;
  return (height + rows - 1) / rows * ((width + kEccTileColumns - 1) / kEccTileColumns);
}

void ecc(const Tensor& fixed, const Tensor& moving, const Tensor* mask, const Tensor& matrix, int parameters,
         const Tensor& workspace, const Tensor& sums, int64_t row_step, const Execution& on) {
  PYFOCUS_CHECK(parameters == 6 || parameters == 8, "ecc: parameters must be 6 (affine) or 8 (homography), got %d",
                parameters);
  check_tensor("ecc", "matrix", matrix, Dtype::F64, matrix.ndim == 3 ? 3 : 2);
  check_contiguous("ecc", "matrix", matrix);
  for (int axis = matrix.ndim - 2; axis < matrix.ndim; ++axis) check_shape("ecc", "matrix", matrix, axis, 3);
  Call call = {"ecc", "matrix", matrix, 2, {}};
  call.take(fixed, moving, mask, parameters, row_step, workspace);
  call.check_per_pair("sums", sums, 1, true);
  check_shape("ecc", "sums", sums, sums.ndim - 1, ecc_sum_count(parameters));
  EccParams& p = call.p;
  p.matrix = matrix.as<const double>(), p.matrix_stride = 9;
  p.sums = sums.as<double>();
  call.check_matrices("matrix", p.matrix, p.matrix_stride, false);
  if (matrix.device == Device::Cuda) PYFOCUS_ON_CUDA("ecc", ecc_cuda(p, matrix.device_index, on.stream));
  sum_chunks(p, 0, p.pairs, on.threads);
  for (int64_t pair = 0; pair < p.pairs; ++pair) add_chunks(p, pair, p.sums + pair * ecc_sum_count(parameters));
}

void ecc_maximise(const Tensor& fixed, const Tensor& moving, const Tensor* mask, int motion, int64_t most,
                  int64_t begin, int64_t row_step, const Tensor& workspace, const Tensor& state, const Execution& on) {
  const char* name = "ecc_maximise";
  PYFOCUS_CHECK(motion >= 0 && motion <= 3,
                "%s: motion must be 0 (translation), 1 (similarity), 2 (affine) or 3 (homography), got %d", name,
                motion);
  PYFOCUS_CHECK(most >= 0 && begin >= 0 && most <= 10000,
                "%s: most must be 0 to 10000 and begin 0 or more, got %lld "
                "and %lld",
                name, static_cast<long long>(most), static_cast<long long>(begin));
  check_output(name, "state", state, Dtype::F64, state.ndim == 2 ? 2 : 1);
  check_shape(name, "state", state, state.ndim - 1, kEccStateSize);
  Call call = {name, "state", state, 1, {}};
  call.take(fixed, moving, mask, motion == 3 ? 8 : 6, row_step, workspace);
  EccParams& p = call.p;
  p.state = state.as<double>();
  p.matrix = p.state + kEccRunning, p.matrix_stride = kEccStateSize;
  p.motion = motion, p.most = most, p.begin = begin;
  if (begin == 0) call.check_matrices("the start of state", p.state, kEccStateSize, true);
  if (state.device == Device::Cuda)
    PYFOCUS_ON_CUDA("ecc_maximise", ecc_maximise_cuda(p, state.device_index, on.stream));
  for (int64_t pair = 0; pair < p.pairs; ++pair) maximise_pair(p, pair, on.threads);
}

}  // namespace pyfocus
