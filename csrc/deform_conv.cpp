// deform_conv on the CPU. A tile of output pixels goes through as one small matrix: per offset group and tap the places
// are found once, the group's channels gathered there (rows of columns), and the product with the weights is taken in
// registers, in panels of 128 bytes. Backward, a round of tiles leaves its columns and their gradients in the slots;
// the sums over pixels (into the image, into the weight) are then taken by those who own the places they go to, tile
// after tile, so that no two threads add to one number.
#include "deform_conv_tile.h"

namespace pyfocus::PYFOCUS_ISA {
namespace {

// --- slots -----------------------------------------------------------------

template <class Real>
struct Slot {
  Real* columns;   // [panel][c, t][pixel]
  Real* product;   // forward: one group's output, [o][pixel]
  Real* gradient;  // backward: of the columns, like them
  Real* upstream;  // [panel][o][pixel]
  Real* crossed;   // the same turned round: [group][panel of o][pixel][o]
};

template <class Real>
inline Slot<Real> slot(const DeformConvParams& p, int64_t index) {
  Slot<Real> s;
  s.columns = reinterpret_cast<Real*>(p.slots + index * p.slot_bytes);
  s.product = s.gradient = s.columns + p.rows() * p.tile;
  s.upstream = s.gradient + p.rows() * p.tile;
  s.crossed = s.upstream + p.out_channels * p.tile;
  return s;
}

// One row of the columns, or what a row adds to the sums of gradient times corner, over all pixels of a tile.
template <bool kColumns, bool kSums, class Real>
inline void gather(const Places<Real>& places, const Real* __restrict plane, int64_t stride, int64_t padded,
                   int64_t panel_step, const Real* __restrict gradient, Real* __restrict columns,
                   Real (*__restrict sums)[kDeformTile]) {
  const Real *__restrict below = plane + stride, *__restrict w0 = places.weight[0], *__restrict w1 = places.weight[1],
             *__restrict w2 = places.weight[2], *__restrict w3 = places.weight[3];
  for (int64_t q0 = 0; q0 < padded; q0 += kDeformPanel<Real>) {
    const int64_t from = q0 / kDeformPanel<Real> * panel_step;
    for (int64_t j = 0; j < kDeformPanel<Real>; ++j) {
      const int64_t q = q0 + j;
      const int32_t cell = places.at[q];
      const Real corner[4] = {plane[cell], plane[cell + 1], below[cell], below[cell + 1]};
      if constexpr (kColumns) {
        const Real w[4] = {w0[q], w1[q], w2[q], w3[q]};
        columns[from + j] = deform_sample(w, corner);
      }
      if constexpr (kSums) {
        const Real g = gradient[from + j];
        sums[0][q] += g * corner[0], sums[1][q] += g * corner[1];
        sums[2][q] += g * corner[2], sums[3][q] += g * corner[3];
      }
    }
  }
}

// --- forward ---------------------------------------------------------------

template <class Real>
void turn_weights(const DeformConvParams& p, bool transposed, int64_t begin, int64_t end) {
  constexpr int64_t kStrip = 256;
  const int64_t outputs = p.group_outputs(), rows = p.group_rows();
  Real* to = static_cast<Real*>(p.turned);
  for (int64_t o = begin; o < end; ++o)
    for (int64_t k0 = 0; k0 < rows; k0 += kStrip) {
      Real strip[kStrip];
      const int64_t count = smaller(kStrip, rows - k0);
      widen(p.weight, p.dtype, o * rows + k0, count, transposed ? strip : to + o * rows + k0);
      if (transposed)
        for (int64_t k = 0; k < count; ++k) to[(o / outputs * rows + k0 + k) * outputs + o % outputs] = strip[k];
    }
}

template <class Real>
void border_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  const int64_t wide = p.width + 2;
  for (int64_t c = begin; c < end; ++c) {
    Real* to = static_cast<Real*>(p.bordered) + c * p.plane();
    for (int64_t x = 0; x < 2 * wide; ++x) to[x] = 0;
    to += 2 * wide;
    for (int64_t y = 0; y < p.height; ++y, to += wide) {
      to[0] = to[wide - 1] = 0;
      widen(p.input, p.dtype, ((p.image * p.channels + c) * p.height + y) * p.width, p.width, to + 1);
    }
    for (int64_t x = 0; x < wide; ++x) to[x] = 0;
  }
}

template <class Real>
void forward_tile(const DeformConvParams& p, int64_t tile, const Slot<Real>& s) {
  constexpr int64_t kPanel = kDeformPanel<Real>;
  Pixels<Real> pixels;
  Places<Real> places;
  find_pixels(p, tile, &pixels);
  const int64_t taps = p.taps(), rows = p.rows(), per = p.offset_channels(), outputs = p.group_outputs();
  for (int64_t group = 0; group < p.steps.offset_groups; ++group)
    for (int64_t tap = 0; tap < taps; ++tap) {
      find_places(p, pixels, group, tap, false, &places);
      for (int64_t c = group * per; c < (group + 1) * per; ++c)
        gather<true, false, Real>(places, static_cast<const Real*>(p.bordered) + c * p.plane(), p.width + 2,
                                  pixels.padded, rows * kPanel, nullptr, s.columns + (c * taps + tap) * kPanel,
                                  nullptr);
    }
  for (int64_t q = 0; q < pixels.count; q += kPanel)
    for (int64_t group = 0; group < p.steps.groups; ++group) {
      const int64_t first = group * p.group_rows(), count = smaller(kPanel, pixels.count - q);
      multiply<1>(static_cast<const Real*>(p.turned) + first * outputs, outputs,
                  s.columns + (q / kPanel * rows + first) * kPanel, p.group_rows(), outputs, count, false, s.product);
      for (int64_t o = group * outputs; o < (group + 1) * outputs; ++o) {
        Real bias = 0, *row = s.product + o % outputs * kPanel;
        if (p.bias) widen(p.bias, p.dtype, o, 1, &bias);
        for (int64_t j = 0; j < count; ++j) row[j] += bias;
        narrow(row, p.dtype, (p.image * p.out_channels + o) * p.pixels() + pixels.first + q, count, p.output);
      }
    }
}

// --- backward, per tile ----------------------------------------------------

// The gradient by the output, and turned round for the weight's gradient; zero past the last pixel and channel.
template <class Real>
void load_upstream(const DeformConvParams& p, const Pixels<Real>& pixels, const Slot<Real>& s) {
  constexpr int64_t kPanel = kDeformPanel<Real>;
  const int64_t outputs = p.group_outputs(), panels = ceil_div(outputs, kPanel);
  for (int64_t o = 0; o < p.out_channels; ++o)
    for (int64_t q = 0; q < pixels.padded; q += kPanel) {
      Real* to = s.upstream + (q / kPanel * p.out_channels + o) * kPanel;
      const int64_t count = smaller(kPanel, pixels.count - q);
      widen(p.upstream, p.dtype, (p.image * p.out_channels + o) * p.pixels() + pixels.first + q, count, to);
      for (int64_t j = count; j < kPanel; ++j) to[j] = 0;
    }
  if (!p.grad_weight) return;
  for (int64_t group = 0; group < p.steps.groups; ++group)
    for (int64_t panel = 0; panel < panels; ++panel) {
      Real* to = s.crossed + (group * panels + panel) * p.tile * kPanel;
      const int64_t count = smaller(kPanel, outputs - panel * kPanel), o = group * outputs + panel * kPanel;
      for (int64_t q = 0; q < pixels.padded; ++q, to += kPanel) {
        const Real* from = s.upstream + (q / kPanel * p.out_channels + o) * kPanel + q % kPanel;
        for (int64_t j = 0; j < kPanel; ++j) to[j] = j < count ? from[j * kPanel] : Real(0);
      }
    }
}

template <class Real>
void store_places(const DeformConvParams& p, const Pixels<Real>& pixels, const Places<Real>& places, int64_t plane,
                  const Real (*sums)[kDeformTile]) {
  const int64_t area = p.pixels();
  Real* mask = static_cast<Real*>(p.grad_mask);
  Real* offset = static_cast<Real*>(p.grad_offset);
  for (int64_t q = 0; q < pixels.count; ++q) {
    const Real corner[4] = {sums[0][q], sums[1][q], sums[2][q], sums[3][q]};
    Real w[4];
    deform_weights(places.fy[q], places.fx[q], w);
    if (mask) mask[plane * area + pixels.first + q] = deform_sample(w, corner);
    if (!offset) continue;
    offset[2 * plane * area + pixels.first + q] = places.scale[q] * deform_by_y(places.fx[q], corner);
    offset[(2 * plane + 1) * area + pixels.first + q] = places.scale[q] * deform_by_x(places.fy[q], corner);
  }
}

template <class Real>
void backward_tile(const DeformConvParams& p, int64_t tile, const Slot<Real>& s) {
  constexpr int64_t kPanel = kDeformPanel<Real>;
  Pixels<Real> pixels;
  Places<Real> places;
  Real sums[4][kDeformTile];
  find_pixels(p, tile, &pixels);
  load_upstream(p, pixels, s);
  const int64_t taps = p.taps(), rows = p.rows(), per = p.offset_channels(), outputs = p.group_outputs(),
                step = rows * kPanel;
  if (p.grad_input || p.wants_places())
    for (int64_t group = 0; group < p.steps.groups; ++group)
      for (int64_t q = 0; q < pixels.padded; q += kPanel)
        multiply<1>(static_cast<const Real*>(p.turned) + group * outputs * p.group_rows(), p.group_rows(),
                    s.upstream + (q / kPanel * p.out_channels + group * outputs) * kPanel, outputs, p.group_rows(),
                    kPanel, false, s.gradient + (q / kPanel * rows + group * p.group_rows()) * kPanel);
  if (!p.grad_weight && !p.wants_places()) return;
  for (int64_t group = 0; group < p.steps.offset_groups; ++group)
    for (int64_t tap = 0; tap < taps; ++tap) {
      find_places(p, pixels, group, tap, true, &places);
      for (int i = 0; i < 4; ++i)
        for (int64_t q = 0; q < pixels.padded; ++q) sums[i][q] = 0;
      for (int64_t c = group * per; c < (group + 1) * per; ++c) {
        const Real* plane = static_cast<const Real*>(p.bordered) + c * p.plane();
        const int64_t row = (c * taps + tap) * kPanel, stride = p.width + 2;
        if (!p.wants_places())
          gather<true, false, Real>(places, plane, stride, pixels.padded, step, nullptr, s.columns + row, nullptr);
        else if (!p.grad_weight)
          gather<false, true, Real>(places, plane, stride, pixels.padded, step, s.gradient + row, nullptr, sums);
        else
          gather<true, true, Real>(places, plane, stride, pixels.padded, step, s.gradient + row, s.columns + row, sums);
      }
      if (p.wants_places())
        store_places(p, pixels, places, (p.image * p.steps.offset_groups + group) * taps + tap, sums);
    }
}

// --- backward, sums over tiles ---------------------------------------------

// Adds a row of gradients to each of kChannels planes; side by side, so that one does not wait for the other's store.
template <int kChannels, class Real>
inline void scatter(const Places<Real>& places, int64_t count, const Real* __restrict gradient, int64_t panel_step,
                    int64_t row_step, Real* __restrict planes, int64_t plane, int64_t stride) {
  for (int64_t q = 0; q < count; ++q) {
    const Real w[4] = {places.weight[0][q], places.weight[1][q], places.weight[2][q], places.weight[3][q]};
    const Real* from = gradient + q / kDeformPanel<Real> * panel_step + q % kDeformPanel<Real>;
    Real* to = planes + places.at[q];
    for (int c = 0; c < kChannels; ++c, from += row_step, to += plane) {
      const Real g = *from;
      to[0] += w[0] * g, to[1] += w[1] * g;
      to[stride] += w[2] * g, to[stride + 1] += w[3] * g;
    }
  }
}

template <class Real>
void scatter_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  const int64_t per = p.offset_channels(), blocks = ceil_div(per, kDeformScatter), taps = p.taps(),
                row_step = taps * kDeformPanel<Real>, panel_step = p.channels * row_step, stride = p.width + 2;
  Pixels<Real> pixels;
  Places<Real> places;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task / blocks, first = task % blocks * kDeformScatter, c = group * per + first;
    Real* planes = static_cast<Real*>(p.gathered) + c * p.plane();
    for (int64_t tile = p.first; tile < p.last; ++tile) {
      find_pixels(p, tile, &pixels);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const Real* gradient = slot<Real>(p, tile - p.first).gradient + c * row_step + tap * kDeformPanel<Real>;
        find_places(p, pixels, group, tap, false, &places);
        if (per - first >= kDeformScatter)
          scatter<kDeformScatter>(places, pixels.count, gradient, panel_step, row_step, planes, p.plane(), stride);
        else
          for (int64_t k = 0; k < per - first; ++k)
            scatter<1>(places, pixels.count, gradient + k * row_step, panel_step, row_step, planes + k * p.plane(),
                       p.plane(), stride);
      }
    }
  }
}

template <class Real>
void add_weights(const DeformConvParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kPanel = kDeformPanel<Real>;
  const int64_t outputs = p.group_outputs(), panels = ceil_div(outputs, kPanel), rows = p.group_rows(),
                blocks = ceil_div(rows, kDeformRows);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task / blocks, row = task % blocks * kDeformRows, count = smaller(kDeformRows, rows - row);
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t tile = p.first; tile < p.last; ++tile) {
        const Slot<Real> s = slot<Real>(p, tile - p.first);
        Real* to = static_cast<Real*>(p.weight_sum) + ((group * panels + panel) * rows + row) * kPanel;
        for (int64_t q = 0; q < smaller(p.tile, p.pixels() - tile * p.tile); q += kPanel)
          multiply<kPanel>(s.columns + (q / kPanel * p.rows() + group * rows + row) * kPanel, 1,
                           s.crossed + ((group * panels + panel) * p.tile + q) * kPanel, kPanel, count,
                           smaller(kPanel, outputs - panel * kPanel), true, to);
      }
  }
}

template <class Real>
void store_weights(const DeformConvParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kPanel = kDeformPanel<Real>, kStrip = 256;
  const int64_t outputs = p.group_outputs(), panels = ceil_div(outputs, kPanel), rows = p.group_rows();
  Real strip[kStrip];
  for (int64_t o = begin; o < end; ++o) {
    const int64_t inside = o % outputs, panel = o / outputs * panels + inside / kPanel;
    const Real* from = static_cast<const Real*>(p.weight_sum) + panel * rows * kPanel + inside % kPanel;
    for (int64_t k0 = 0; k0 < rows; k0 += kStrip) {
      const int64_t count = smaller(kStrip, rows - k0);
      for (int64_t k = 0; k < count; ++k) strip[k] = from[(k0 + k) * kPanel];
      narrow(strip, p.dtype, o * rows + k0, count, p.grad_weight);
    }
  }
}

// Per image in 16 lanes, images added in order.
template <class Real>
void sum_bias(const DeformConvParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kLanes = 16, kStrip = 256;
  const int64_t area = p.pixels();
  for (int64_t o = begin; o < end; ++o) {
    Real total = 0;
    for (int64_t n = 0; n < p.batch; ++n) {
      Real strip[kStrip], lane[kLanes] = {}, sum = 0;
      for (int64_t q = 0; q < area; q += kStrip) {
        const int64_t count = smaller(kStrip, area - q);
        widen(p.upstream, p.dtype, (n * p.out_channels + o) * area + q, count, strip);
        for (int64_t i = count; i < kStrip; ++i) strip[i] = 0;
        for (int64_t i = 0; i < kStrip; i += kLanes)
          for (int64_t k = 0; k < kLanes; ++k) lane[k] += strip[i + k];
      }
      for (int64_t k = 0; k < kLanes; ++k) sum += lane[k];
      total += sum;
    }
    narrow(&total, p.dtype, o, 1, p.grad_bias);
  }
}

template <class Real>
void store_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const Real* from = static_cast<const Real*>(p.gathered) + c * p.plane() + 2 * (p.width + 2) + 1;
    for (int64_t y = 0; y < p.height; ++y, from += p.width + 2)
      narrow(from, p.dtype, ((p.image * p.channels + c) * p.height + y) * p.width, p.width, p.grad_input);
  }
}

}  // namespace

void deform_turn_weights(const DeformConvParams& p, bool transposed, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? turn_weights<double>(p, transposed, begin, end)
                        : turn_weights<float>(p, transposed, begin, end);
}

void deform_forward_slots(const DeformConvParams& p, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; ++first)
    for (int64_t tile = first; tile < p.tiles; tile += p.slot_count)
      p.dtype == Dtype::F64 ? forward_tile(p, tile, slot<double>(p, first))
                            : forward_tile(p, tile, slot<float>(p, first));
}

void deform_backward_slots(const DeformConvParams& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    p.dtype == Dtype::F64 ? backward_tile(p, p.first + i, slot<double>(p, i))
                          : backward_tile(p, p.first + i, slot<float>(p, i));
}

void deform_border_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? border_planes<double>(p, begin, end) : border_planes<float>(p, begin, end);
}

void deform_scatter_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? scatter_planes<double>(p, begin, end) : scatter_planes<float>(p, begin, end);
}

void deform_add_weights(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? add_weights<double>(p, begin, end) : add_weights<float>(p, begin, end);
}

void deform_store_planes(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? store_planes<double>(p, begin, end) : store_planes<float>(p, begin, end);
}

void deform_store_weights(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? store_weights<double>(p, begin, end) : store_weights<float>(p, begin, end);
}

void deform_sum_bias(const DeformConvParams& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::F64 ? sum_bias<double>(p, begin, end) : sum_bias<float>(p, begin, end);
}

}  // namespace pyfocus::PYFOCUS_ISA
