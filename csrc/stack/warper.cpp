#include "stack/warper.h"

#include <algorithm>
#include <cmath>

#include "demosaic.h"
#include "warp.h"

namespace pyfocus {
namespace {

PlaneSource plain(const Tensor& planes) { return plane_source("warp", planes, nullptr, 0, nullptr, nullptr, nullptr); }

void copy_map(const Matrix& map, double* to) { std::copy(map.m.begin(), map.m.end(), to); }

}  // namespace

void Warper::room(int64_t planes, Size size) {
  if (planes_ && planes_.shape(0) == planes && planes_.shape(1) == size.height && planes_.shape(2) == size.width)
    return;
  planes_ = Buffer(memory_, Dtype::F32, {planes, size.height, size.width});
  valid_ = Buffer(memory_, Dtype::U8, {size.height, size.width});
}

void Warper::forget() {
  planes_ = {};
  valid_ = {};
  roots_ = {};
}

Warped Warper::warp(const Frame& frame, const Matrix& map, Size size, const double* gains, const Execution& on) {
  if (frame.is_mosaic()) return warp_mosaic(frame, map, size, gains, on);
  Buffer decoded;
  PlaneSource source = source_of(frame, levels_, gains, &memory_, &decoded);
  room(source.planes, size);
  const bool root = source.table == nullptr;
  if (!root) {  // a table of roots saves taking them
    source.table = root_of_codes(frame.data.dtype);
    for (int p = 0; p < source.planes; ++p) source.scale[p] = static_cast<float>(std::sqrt(gains[p]));
  }
  double maps[kMaxPlanes * 9];
  for (int p = 0; p < source.planes; ++p) copy_map(map, maps + 9 * p);
  const Tensor& seen = valid_;
  pyfocus::warp(source, view_of(maps, Dtype::F64, {source.planes, 3, 3}), planes_, &seen, interpolation_, root, true,
                false, on);
  return {planes_, valid_};
}

Warped Warper::warp_mosaic(const Frame& frame, const Matrix& map, Size size, const double* gains, const Execution& on) {
  int offsets[4][2];
  plane_offsets(frame.facts.cfa, offsets);
  const PlaneSource counts = source_of(frame, levels_, gains, &memory_, nullptr);
  float scale[4], offset[4];
  for (int p = 0; p < 4; ++p) {
    scale[2 * offsets[p][0] + offsets[p][1]] = counts.scale[p];
    offset[2 * offsets[p][0] + offsets[p][1]] = counts.offset[p];
  }
  Tensor even = frame.data;
  for (int axis = 0; axis < 2; ++axis) even.shape[axis] = even.shape[axis] / 2 * 2;
  if (!roots_) roots_ = Buffer(memory_, Dtype::F32, {3, even.shape[0], even.shape[1]});
  demosaic(even, offsets[0][0], offsets[0][1], scale, offset, roots_, on);
  double maps[3 * 9];
  if (domain_ == Domain::Rgb) {
    room(3, {size.height / 2 * 2, size.width / 2 * 2});
    for (int p = 0; p < 3; ++p) copy_map(map, maps + 9 * p);
    const Tensor& seen = valid_;
    pyfocus::warp(plain(roots_), view_of(maps, Dtype::F64, {3, 3, 3}), planes_, &seen, interpolation_, false, true,
                  false, on);
    return {planes_, valid_};
  }
  room(4, {size.height / 2, size.width / 2});
  constexpr int kChannel[4] = {0, 1, 1, 2};
  for (int p = 0; p < 4; ++p) {  // each where that plane's pixels lie; valid where all four are
    copy_map(map * scaled(2, offsets[p][1], offsets[p][0]), maps);
    const Tensor& seen = valid_;
    pyfocus::warp(plain(part_of(roots_, kChannel[p], kChannel[p] + 1)), view_of(maps, Dtype::F64, {1, 3, 3}),
                  part_of(planes_, p, p + 1), &seen, interpolation_, false, true, p > 0, on);
  }
  return {planes_, valid_};
}

}  // namespace pyfocus
