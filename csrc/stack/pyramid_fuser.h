// The fold over Laplacian pyramids that picks detail and averages what is alike: pyfocus/laplacian.py has the reasons,
// pyramid.h the formulas. One pass, constant memory, the same bytes for any number of threads.
#pragma once

#include <optional>
#include <vector>

#include "stack/fuser.h"
#include "stack/noise.h"

namespace pyfocus {

class PyramidFuser : public Fuser {
 public:
  // `levels`: 0 for as many as the size asks for; `depth`: also make depth and confidence.
  PyramidFuser(Memory& memory, const Execution& on, bool depth = true, int levels = 0)
      : memory_(memory), on_(on), want_depth_(depth), wanted_(levels) {}

  void push(const Tensor& planes, const Tensor* valid, double place) override;
  Buffer preview(int halvings) override;
  Fused finish() override;

 protected:
  // One level: accumulators and scratch. The fine grid (h, w), the coarse one (H, W). Of a pyramid the sums are
  // numerator (C, h, w) and denominator (h, w), of wavelets three bands (3, 2C, H, W) and their weight (H, W).
  struct Level {
    int64_t height = 0, width = 0, low_height = 0, low_width = 0;
    int power = 8;
    Buffer sums, weight, peak, before, energy, rating, coarse, seen;
  };

  // A level without its sums; `values` per place of its coarse grid.
  Level grid_level(int64_t values, int64_t height, int64_t width, int power);
  virtual Level make_level(int64_t planes, int64_t height, int64_t width, int power);
  virtual int64_t parts() const { return 1; }  // of a value of the last level
  virtual void measure(const Tensor& planes, const Tensor* valid);
  virtual void pool();
  virtual void fold(const Tensor& planes, bool masked, const NoiseLine& noise);
  virtual Tensor light(const Level& level) const { return level.coarse; }
  virtual float light_share() const { return 1; }
  virtual void enlarge(const Tensor& source, const Tensor& destination) const;
  // The picture on the fine grid of level `stop`; `in_place` (stop 0) in the accumulators' memory.
  virtual Buffer collapse(size_t stop, bool in_place);

  Memory& memory_;
  Execution on_;
  std::vector<Level> levels_;
  int64_t planes_ = 0;
  Buffer base_, base_weight_;

 private:
  void begin(const Tensor& planes);
  NoiseLine noise_floor(bool masked);
  void find_depth(Buffer* depth, Buffer* confidence);

  bool want_depth_;
  int wanted_;
  size_t depth_level_ = 0;
  std::optional<NoiseLine> noise_;
  Buffer index_, index_weight_, total_, seen_;
};

constexpr double kNoiseFloor = 2.0;      // in noise variances
constexpr double kSmallestNoise = 1e-8;  // and at least this: 8-bit steps in the shadows

}  // namespace pyfocus
