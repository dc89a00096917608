// unpack on CUDA. A block owns 128 x 8 pixels of all planes; a thread four of them, two rows apart.
//   1. codes of the pixels. Where the destination is interleaved they go to shared memory, else straight out,
//   2. interleaved: neighbouring threads write neighbouring codes, so that no sector is written twice.
// Bytes per value: 4 read, 1 or 2 written, and the curve's table (36 KB) from L1. 8.2 KB of shared memory. The CPU's
// arithmetic: without contraction to fused multiply-adds the same codes. Deterministic.
#include "launch.cuh"
#include "unpack.h"
#include "unpack_curve.h"

namespace pyfocus {
namespace {

constexpr int kTileWidth = 128, kTileHeight = 8, kRowStep = 2;

#if defined(__CUDACC__)
__device__
#endif
    constexpr SrgbCurve kCurve = make_srgb_curve();

struct UnpackCudaParams {
  UnpackParams unpack;
  bool interleaved;
};

struct UnpackKernel {
  using Params = UnpackCudaParams;
  struct Shared {
    uint16_t code[kTileHeight][kTileWidth * kMaxPlanes];
  };
  using Local = Nothing;
  static constexpr int kThreads = kTileWidth * kRowStep, kPhases = 2;

  PYFOCUS_HD static uint16_t encode(const UnpackParams& p, int plane, int64_t y, int64_t x) {
    const float light = p.source[plane * p.source_plane + y * p.source_row + x];
    const float largest = p.dtype == Dtype::U8 ? 255.0f : 65535.0f;
    const float v = (p.curve ? encode_srgb(light, kCurve.value) : light) * p.scale[plane] + p.offset[plane] + 0.5f;
    return static_cast<uint16_t>(v > 0 ? (v < largest ? v : largest) : 0.0f);
  }

  PYFOCUS_HD static void write(const UnpackParams& p, int plane, int64_t at, uint16_t code) {
    if (p.dtype == Dtype::U8)
      static_cast<uint8_t*>(p.destination[plane])[at] = static_cast<uint8_t>(code);
    else
      static_cast<uint16_t*>(p.destination[plane])[at] = code;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& params, const At& at, Shared& s, Local&) {
    const UnpackParams& p = params.unpack;
    const int column = at.thread % kTileWidth;
    const int64_t x0 = int64_t{at.x} * kTileWidth, x = x0 + column;
    if (kPhase == 1 && !params.interleaved) return;
    for (int j = at.thread / kTileWidth; j < kTileHeight; j += kRowStep) {
      const int64_t y = int64_t{at.y} * kTileHeight + j;
      if (y >= p.height) return;
      if (kPhase == 0) {
        for (int plane = 0; plane < p.planes && x < p.width; ++plane) {
          const uint16_t code = encode(p, plane, y, x);
          if (params.interleaved)
            s.code[j][column * p.planes + plane] = code;
          else
            write(p, plane, y * p.row_stride + x * p.column_stride, code);
        }
      } else {
        const int wide = static_cast<int>(p.width - x0 < kTileWidth ? p.width - x0 : kTileWidth) * p.planes;
        for (int i = column; i < wide; i += kTileWidth) write(p, 0, y * p.row_stride + x0 * p.planes + i, s.code[j][i]);
      }
    }
  }
};

}  // namespace

void unpack_cuda(const UnpackParams& p, int device, void* stream) {
  UnpackCudaParams with{p, p.planes > 1 && p.column_stride == p.planes};
  for (int i = 1; i < p.planes; ++i)
    with.interleaved = with.interleaved && static_cast<char*>(p.destination[i]) ==
                                               static_cast<char*>(p.destination[0]) + i * dtype_size(p.dtype);
  launch<UnpackKernel>("unpack", {blocks(p.width, kTileWidth), blocks(p.height, kTileHeight)}, with, device, stream);
}

}  // namespace pyfocus
