#include "stack/memory.h"

#include <cstdlib>
#include <cstring>

namespace pyfocus {
namespace {

Tensor shaped(void* data, Dtype dtype, std::initializer_list<int64_t> shape) {
  PYFOCUS_CHECK(shape.size() <= static_cast<size_t>(Tensor::kMaxDims), "view: at most %d dimensions", Tensor::kMaxDims);
  Tensor t;
  t.data = data;
  t.dtype = dtype;
  for (const int64_t size : shape) t.shape[t.ndim++] = size;
  int64_t stride = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    t.stride[i] = stride;
    stride *= t.shape[i];
  }
  return t;
}

}  // namespace

void* Memory::take(int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes < 0 || bytes > room()) {
    fail(ErrorKind::Resource, "memory: %.1f MB more are wanted, %.1f of the allowed %.1f MB are in use; allow more",
         static_cast<double>(bytes) / 1e6, static_cast<double>(in_use_.load()) / 1e6,
         static_cast<double>(ceiling_) / 1e6);
  }
  void* got = std::aligned_alloc(kAlignment, (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment);
  if (!got) fail(ErrorKind::Resource, "memory: there is none for %.1f MB more", static_cast<double>(bytes) / 1e6);
  in_use_ += bytes;
  if (in_use_ > peak_) peak_ = in_use_.load();
  return got;
}

void Memory::give(void* memory, int64_t bytes) noexcept {
  if (!memory) return;
  in_use_ -= bytes;
  std::free(memory);
}

Buffer::Buffer(Memory& memory, Dtype dtype, std::initializer_list<int64_t> shape) : memory_(&memory) {
  view_ = shaped(nullptr, dtype, shape);
  view_.data = memory.take(bytes());
}

Buffer::~Buffer() {
  if (memory_) memory_->give(view_.data, bytes());
}

Buffer Buffer::zeros(Memory& memory, Dtype dtype, std::initializer_list<int64_t> shape) {
  Buffer array(memory, dtype, shape);
  array.fill_zero();
  return array;
}

void Buffer::fill_zero() {
  if (view_.data) std::memset(view_.data, 0, static_cast<size_t>(bytes()));
}

Tensor view_of(void* data, Dtype dtype, std::initializer_list<int64_t> shape) { return shaped(data, dtype, shape); }

Tensor part_of(const Tensor& tensor, int64_t begin, int64_t end) {
  Tensor part = tensor;
  part.data = static_cast<char*>(tensor.data) + begin * tensor.stride[0] * dtype_size(tensor.dtype);
  part.shape[0] = end - begin;
  return part;
}

Tensor plane_of(const Tensor& tensor, int64_t plane) {
  Tensor out = part_of(tensor, plane, plane + 1);
  out.ndim = tensor.ndim - 1;
  for (int i = 0; i < out.ndim; ++i) {
    out.shape[i] = tensor.shape[i + 1];
    out.stride[i] = tensor.stride[i + 1];
  }
  return out;
}

Tensor reshaped(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  Tensor out = shaped(tensor.data, tensor.dtype, shape);
  PYFOCUS_CHECK(tensor.is_contiguous() && out.count() == tensor.count(), "reshaped: the sizes differ");
  out.device = tensor.device;
  out.device_index = tensor.device_index;
  out.read_only = tensor.read_only;
  return out;
}

}  // namespace pyfocus
