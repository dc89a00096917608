#include "stack/frame.h"

#include <cmath>
#include <vector>

namespace pyfocus {
namespace {

double linear_of(double v) { return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4); }

std::vector<float> table_of(int64_t codes, bool root) {
  std::vector<float> table(static_cast<size_t>(codes));
  for (int64_t i = 0; i < codes; ++i) {
    const double light = linear_of(static_cast<double>(i) / static_cast<double>(codes - 1));
    table[static_cast<size_t>(i)] = static_cast<float>(root ? std::sqrt(light) : light);
  }
  return table;
}

const float* table_for(Dtype dtype, bool root) {
  static const std::vector<float> tables[2][2] = {{table_of(256, false), table_of(256, true)},
                                                  {table_of(65536, false), table_of(65536, true)}};
  return tables[dtype == Dtype::U16][root].data();
}

// Values of an sRGB-encoded float32 picture as linear light, in `decoded` (C, H, W).
Tensor decode(const Tensor& data, Memory* memory, Buffer* decoded) {
  *decoded = Buffer(*memory, Dtype::F32, {data.shape[0], data.shape[1], data.shape[2]});
  float* to = decoded->as<float>();
  for (int64_t c = 0; c < data.shape[0]; ++c)
    for (int64_t y = 0; y < data.shape[1]; ++y) {
      const float* from = data.as<const float>() + c * data.stride[0] + y * data.stride[1];
      for (int64_t x = 0; x < data.shape[2]; ++x) {
        const float v = from[x * data.stride[2]];
        *to++ = v <= 0.04045f ? v / 12.92f : static_cast<float>(std::pow((v + 0.055f) / 1.055f, 2.4f));
      }
    }
  return decoded->view();
}

}  // namespace

Size Frame::size() const {
  return data.ndim == 2 ? Size{data.shape[0], data.shape[1]} : Size{data.shape[1], data.shape[2]};
}

Size Frame::plane_size() const {
  const Size whole = size();
  return {whole.height / step(), whole.width / step()};
}

void plane_offsets(Cfa cfa, int (*offsets)[2]) {
  constexpr int kRed[5][2] = {{0, 0}, {0, 0}, {1, 1}, {0, 1}, {1, 0}};
  const int y = kRed[static_cast<int>(cfa)][0], x = kRed[static_cast<int>(cfa)][1];
  const int all[4][2] = {{y, x}, {y, 1 - x}, {1 - y, x}, {1 - y, 1 - x}};
  for (int p = 0; p < 4; ++p) {
    offsets[p][0] = all[p][0];
    offsets[p][1] = all[p][1];
  }
}

const float* light_of_codes(Dtype dtype) { return table_for(dtype, false); }
const float* root_of_codes(Dtype dtype) { return table_for(dtype, true); }

PlaneSource source_of(const Frame& frame, const Facts& levels, const double* gain, Memory* memory, Buffer* decoded) {
  float scale[kMaxPlanes], offset[kMaxPlanes] = {};
  const auto factor = [gain](int p) { return gain ? gain[p] : 1.0; };
  if (frame.is_mosaic()) {
    int offsets[4][2];
    plane_offsets(frame.facts.cfa, offsets);
    const double balance[4] = {levels.balance[0], levels.balance[1], levels.balance[1], levels.balance[2]};
    for (int p = 0; p < 4; ++p) {
      const double black = levels.black[2 * offsets[p][0] + offsets[p][1]];
      PYFOCUS_CHECK(levels.white > black, "frame: white must be above black, got %g and %g", levels.white, black);
      const double one = factor(p) * balance[p] / (levels.white - black);
      scale[p] = static_cast<float>(one);
      offset[p] = static_cast<float>(-black * one);
    }
    Tensor even = frame.data;
    for (int axis = 0; axis < 2; ++axis) even.shape[axis] = even.shape[axis] / 2 * 2;
    return plane_source("frame", even, offsets, 4, nullptr, scale, offset);
  }
  const int planes = frame.planes();
  Tensor data = frame.data, table;
  const bool srgb = (data.dtype == Dtype::F32 ? frame.facts : levels).encoding == Encoding::Srgb;
  double full = 1;
  if (data.dtype == Dtype::F32) {
    if (srgb) data = decode(data, memory, decoded);
  } else if (srgb) {
    const int64_t codes = data.dtype == Dtype::U8 ? 256 : 65536;
    table = view_of(const_cast<float*>(light_of_codes(data.dtype)), Dtype::F32, {codes});
  } else {
    full = data.dtype == Dtype::U8 ? 255 : 65535;
  }
  for (int p = 0; p < planes; ++p) scale[p] = static_cast<float>(factor(p) / full);
  return plane_source("frame", data, nullptr, 0, table.data ? &table : nullptr, scale, offset);
}

void plane_maps(const Frame& frame, const Matrix& map, double* maps) {
  int offsets[4][2] = {};
  if (frame.is_mosaic()) plane_offsets(frame.facts.cfa, offsets);
  const auto step = static_cast<double>(frame.step());
  for (int p = 0; p < frame.planes(); ++p) {
    const Matrix scale = scaled(step, offsets[p][1], offsets[p][0]);
    const Matrix seen = normalised(inverse(scale) * map * scale);
    for (size_t i = 0; i < 9; ++i) maps[9 * p + static_cast<int>(i)] = seen.m[i];
  }
}

}  // namespace pyfocus
