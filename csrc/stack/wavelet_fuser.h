// The same fold over complex wavelets: pyfocus/wavelet.py has the reasons, wavelet.h the formulas.
#pragma once

#include "stack/pyramid_fuser.h"

namespace pyfocus {

class WaveletFuser final : public PyramidFuser {
 public:
  using PyramidFuser::PyramidFuser;

 protected:
  Level make_level(int64_t planes, int64_t height, int64_t width, int power) override;
  int64_t parts() const override { return 2; }
  void measure(const Tensor& planes, const Tensor* valid) override;
  void pool() override;
  void fold(const Tensor& planes, bool masked, const NoiseLine& noise) override;
  // The real parts of the next level: the frame's light, times 2 per level.
  Tensor light(const Level& level) const override { return part_of(level.coarse, 0, planes_); }
  float light_share() const override { return 0.5f; }
  void enlarge(const Tensor& source, const Tensor& destination) const override;
  Buffer collapse(size_t stop, bool in_place) override;
};

}  // namespace pyfocus
