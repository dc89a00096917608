// Buffers of the pipeline: counted, and never past a ceiling.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>

#include "tensor.h"

namespace pyfocus {

// Not copied: arrays point to it. `ceiling`: bytes not to exceed, 0 for none. Failures are Resource errors.
class Memory {
 public:
  static constexpr size_t kAlignment = 64;

  explicit Memory(int64_t ceiling = 0) : ceiling_(ceiling) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* take(int64_t bytes);  // aligned; null for 0 bytes
  void give(void* memory, int64_t bytes) noexcept;

  int64_t in_use() const { return in_use_; }
  int64_t peak() const { return peak_; }
  int64_t room() const { return ceiling_ > 0 ? ceiling_ - in_use_ : INT64_MAX; }

 private:
  int64_t ceiling_;
  std::atomic<int64_t> in_use_{0}, peak_{0};
};

// An array in C order that owns its memory.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Memory& memory, Dtype dtype, std::initializer_list<int64_t> shape);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~Buffer();

  static Buffer zeros(Memory& memory, Dtype dtype, std::initializer_list<int64_t> shape);

  explicit operator bool() const { return view_.data != nullptr; }
  operator const Tensor&() const { return view_; }  // NOLINT: an array is what an op takes
  const Tensor& view() const { return view_; }
  int64_t bytes() const { return view_.count() * dtype_size(view_.dtype); }
  int64_t shape(int axis) const { return view_.shape[axis]; }
  template <class T>
  T* as() const {
    return view_.as<T>();
  }
  void fill_zero();
  void swap(Buffer& other) noexcept {
    std::swap(view_, other.view_);
    std::swap(memory_, other.memory_);
  }

 private:
  Tensor view_;
  Memory* memory_ = nullptr;
};

// Views: of memory in C order, of a part of the first axis, and the same values in another shape.
Tensor view_of(void* data, Dtype dtype, std::initializer_list<int64_t> shape);
Tensor part_of(const Tensor& tensor, int64_t begin, int64_t end);
Tensor plane_of(const Tensor& tensor, int64_t plane);  // (h, w) of (C, h, w)
Tensor reshaped(const Tensor& tensor, std::initializer_list<int64_t> shape);

}  // namespace pyfocus
