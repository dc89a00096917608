#include "stack/average_fuser.h"

#include <algorithm>
#include <cstring>

#include "tile.h"

namespace pyfocus {

void AverageFuser::push(const Tensor& planes, const Tensor* valid, double) {
  const int64_t c = planes.shape[0], h = planes.shape[1], w = planes.shape[2];
  if (!sum_) {
    Buffer sum = Buffer::zeros(memory_, Dtype::F32, {c, h, w}), weight = Buffer::zeros(memory_, Dtype::F32, {h, w});
    window_ = Buffer(memory_, Dtype::F32, {h, w});
    sum_ = std::move(sum);
    weight_ = std::move(weight);
  }
  float* window = window_.as<float>();
  const uint8_t* seen = valid ? valid->as<const uint8_t>() : nullptr;
  for (int64_t i = 0; i < h * w; ++i) window[i] = seen ? static_cast<float>(seen[i]) : 1.0f;
  int32_t origin[2] = {};
  tile_scatter(reshaped(planes, {1, c, h, w}), view_of(origin, Dtype::I32, {1, 2}), window_, sum_, weight_, on_);
}

Buffer AverageFuser::preview(int halvings) {
  PYFOCUS_CHECK(sum_, "preview: no frames were pushed");
  Buffer image(memory_, Dtype::F32, {sum_.shape(0), sum_.shape(1), sum_.shape(2)});
  std::memcpy(image.as<float>(), sum_.as<float>(), static_cast<size_t>(sum_.bytes()));
  tile_divide(image, weight_, on_);
  return halved(std::move(image), halvings, memory_, on_);
}

Fused AverageFuser::finish() {
  PYFOCUS_CHECK(sum_, "finish: no frames were pushed");
  tile_divide(sum_, weight_, on_);
  Fused fused;
  fused.image = std::move(sum_);
  weight_ = {};
  window_ = {};
  return fused;
}

}  // namespace pyfocus
