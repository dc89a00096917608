// The mean of all frames where they are valid; where no frame is, 0.
#pragma once

#include "stack/fuser.h"

namespace pyfocus {

class AverageFuser final : public Fuser {
 public:
  AverageFuser(Memory& memory, const Execution& on) : memory_(memory), on_(on) {}

  void push(const Tensor& planes, const Tensor* valid, double place) override;
  Buffer preview(int halvings) override;
  Fused finish() override;

 private:
  Memory& memory_;
  Execution on_;
  Buffer sum_, weight_, window_;
};

}  // namespace pyfocus
