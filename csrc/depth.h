// depth: which frame is sharpest where, and the picture that follows from it. Votes V_k of N frames on a grid of half
// the picture's size (pyfocus/focus.py), seen_k = 1 where frame k saw the place, else 0:
//
//   cut      where a near peak stands before a farther one, votes behind it become the valley between: see depth_cut
//   peaks    W_k = exp(V_k - max V) seen_k;  a = (sum W - 1) / (sum seen - 1);  confidence = 1 - a
//            c, s = mean and variance of k under W^4;  d = the vertex of the parabola through the highest vote and its
//            neighbours, at most half a frame from it;  depth = c + min(confidence / sure, 1) (d - c),  spread = s
//   weights  w_k = exp(S_k - max S),  S_k = 4 V_k - (k - depth)^2 / (2 (narrow^2 + 4 spread)),  0 where not seen
//   blend    picture = sum_k up(w_k) table[codes_k] / sum_k up(w_k)
//
// On the CPU, part by part: a call is one tile in one thread. Bytes per place: 8 N for peaks and weights, and for the
// blend 2 C + 1 per pixel of each frame that has a weight in the tile.
#pragma once

#include <cstdint>

#include "check.h"
#include "tensor.h"

namespace pyfocus {

enum class Near : int { None = 0, First = 1, Last = 2 };  // which end of the burst shows near things

// A near peak counts when it is `clear` by itself, at most `below` under the highest vote, and when a valley of
// `valley` parts it from what comes behind.
struct CutRule {
  float below = 0, valley = 0, clear = 0;
};

struct DepthParams {
  float* vote = nullptr;        // (frames, places); is cut, and becomes the weights
  const float* seen = nullptr;  // (frames, places)
  int64_t frames = 0, places = 0;
  Near near = Near::None;
  CutRule cut;
  float sure = 1, narrow = 1, nothing = 0;
  float* depth = nullptr;  // written by peaks, read by weights
  float* spread = nullptr;
  float* confidence = nullptr;
};

struct BlendParams {
  const uint16_t* const* codes = nullptr;  // per frame, (planes, height, width) with the strides below
  int64_t plane_stride = 0, row_stride = 0;
  const float* table = nullptr;
  const float* weights = nullptr;  // (frames, coarse_height, coarse_width); picture pixel (y, x) is (y + top, x + left)
  int64_t frames = 0, coarse_height = 0, coarse_width = 0, top = 0, left = 0;
  float* out = nullptr;
  int64_t out_plane_stride = 0, out_row_stride = 0;
  int64_t planes = 0, height = 0, width = 0;
  float least = 0;  // frames whose weights are no larger anywhere in the tile are left out, where others are there
};

constexpr int64_t kMostBlend = 2048;  // columns of a tile

// vote (N, h, w) float32 is changed in place.
void depth_cut(const Tensor& vote, Near near, const CutRule& rule);

// vote is changed; seen (N, h, w); depth, spread and confidence (h, w) are written.
void depth_peaks(const Tensor& vote, const Tensor& seen, Near near, const CutRule& rule, float sure,
                 const Tensor& depth, const Tensor& spread, const Tensor& confidence);

// vote becomes the weights; depth and spread (h, w). Where no frame saw anything all weights are `nothing`.
void depth_weights(const Tensor& vote, const Tensor& seen, Near near, const CutRule& rule, const Tensor& depth,
                   const Tensor& spread, float narrow, float nothing);

// codes: N arrays (C, h, w) uint16, C <= 4; weights (N, H, W) of a part of the half-size grid, whose first place is
// `top` rows and `left` columns (0 or more) of the picture before the tile's first pixel; destination (C, h, w) float32
// with contiguous rows.
void depth_blend(const Tensor* codes, int64_t count, const Tensor& table, const Tensor& weights, int64_t top,
                 int64_t left, float least, const Tensor& destination);

}  // namespace pyfocus
