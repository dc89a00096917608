#include "stack/fuser.h"

#include "pyramid.h"

namespace pyfocus {

Buffer halved(Buffer planes, int halvings, Memory& memory, const Execution& on) {
  for (int i = 0; i < halvings; ++i) {
    Buffer smaller(memory, Dtype::F32, {planes.shape(0), (planes.shape(1) + 1) / 2, (planes.shape(2) + 1) / 2});
    pyramid_down(planes, smaller, nullptr, on);
    planes = std::move(smaller);
  }
  return planes;
}

}  // namespace pyfocus
