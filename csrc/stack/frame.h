// A frame as it is given, and the facts by which its counts become linear light.
#pragma once

#include "planes.h"
#include "stack/matrix.h"
#include "stack/memory.h"

namespace pyfocus {

enum class Cfa : uint8_t { None, Rggb, Bggr, Grbg, Gbrg };
enum class Encoding : uint8_t { Linear, Srgb };

struct Facts {
  Cfa cfa = Cfa::None;
  double black[4] = {};  // by position in the 2 x 2 block, row by row; of a mosaic
  double white = 1;
  double balance[3] = {1, 1, 1};       // white balance, R, G, B
  Encoding encoding = Encoding::Srgb;  // of an image: uint8 and uint16 by full scale, float32 with 1 for white
};

// `data`: (H, W) uint16 of a mosaic; (C, H, W) with any strides, C of 1 to 4, uint8, uint16 or float32 of an image.
struct Frame {
  Tensor data;
  Facts facts;

  bool is_mosaic() const { return facts.cfa != Cfa::None; }
  int64_t step() const { return is_mosaic() ? 2 : 1; }  // frame pixels per plane pixel
  int planes() const { return is_mosaic() ? 4 : static_cast<int>(data.shape[0]); }
  Size size() const;        // as given
  Size plane_size() const;  // of a plane
};

// Where R, G1, G2, B lie in the block: G1 shares its rows with red.
void plane_offsets(Cfa cfa, int (*offsets)[2]);

// Tables of a whole pipeline: what the codes of sRGB mean, and their roots.
const float* light_of_codes(Dtype dtype);  // 256 or 65536 entries, made once per process
const float* root_of_codes(Dtype dtype);

// How a kernel reads the frame: levels, white balance and `gain` (a factor per plane, or null) in scale and offset.
// `levels`: whose facts count (the burst's first frame's). Of float32 that is sRGB-encoded, `decoded` takes the linear
// values and must outlive the source.
PlaneSource source_of(const Frame& frame, const Facts& levels, const double* gain, Memory* memory, Buffer* decoded);

// The frame's map as each plane sees it by its own phase: S^-1 M S; `maps` (planes, 9).
void plane_maps(const Frame& frame, const Matrix& map, double* maps);

}  // namespace pyfocus
