// Bindings of depth, guided and roots: what makes a depth map, and a picture of it.
#include "depth.h"

#include <deque>
#include <vector>

#include "array.h"
#include "bindings.h"
#include "guided.h"
#include "roots.h"

namespace pyfocus {
namespace {

// Several arrays, alive as long as this is.
class Several {
 public:
  explicit Several(const py::sequence& objects) {
    for (const py::handle object : objects) views_.push_back(arrays_.emplace_back(object).view);
  }
  const Tensor* data() const { return views_.data(); }
  int64_t count() const { return static_cast<int64_t>(views_.size()); }

 private:
  std::deque<Array> arrays_;
  std::vector<Tensor> views_;
};

Near near_of(const std::string& name) {
  PYFOCUS_CHECK(name == "first" || name == "last" || name == "none",
                "depth: near must be first, last or none, got '%s'", name.c_str());
  return name == "first" ? Near::First : name == "last" ? Near::Last : Near::None;
}

CutRule rule_of(const std::array<float, 3>& rule) { return {rule[0], rule[1], rule[2]}; }

void bind_maps(py::module_& m) {
  m.def(
      "depth_cut",
      [](const py::object& vote, const std::string& near, const std::array<float, 3>& rule) {
        const Array v(vote);
        const Near end = near_of(near);
        const py::gil_scoped_release release;
        depth_cut(v.view, end, rule_of(rule));
      },
      py::arg("vote"), py::arg("near"), py::arg("rule"), "Lower votes behind a near peak to the valley between.");
  m.def(
      "depth_peaks",
      [](const py::object& vote, const py::object& seen, const std::string& near, const std::array<float, 3>& rule,
         float sure, const py::object& depth, const py::object& spread, const py::object& confidence) {
        const Array v(vote), s(seen), d(depth), w(spread), c(confidence);
        const Near end = near_of(near);
        const py::gil_scoped_release release;
        depth_peaks(v.view, s.view, end, rule_of(rule), sure, d.view, w.view, c.view);
      },
      py::arg("vote"), py::arg("seen"), py::arg("near"), py::arg("rule"), py::arg("sure"), py::arg("depth"),
      py::arg("spread"), py::arg("confidence"), "Depth in frames, its variance and confidence of votes.");
  m.def(
      "depth_weights",
      [](const py::object& vote, const py::object& seen, const std::string& near, const std::array<float, 3>& rule,
         const py::object& depth, const py::object& spread, float narrow, float nothing) {
        const Array v(vote), s(seen), d(depth), w(spread);
        const Near end = near_of(near);
        const py::gil_scoped_release release;
        depth_weights(v.view, s.view, end, rule_of(rule), d.view, w.view, narrow, nothing);
      },
      py::arg("vote"), py::arg("seen"), py::arg("near"), py::arg("rule"), py::arg("depth"), py::arg("spread"),
      py::arg("narrow"), py::arg("nothing"), "Votes to weights within a window about the depth.");
  m.def(
      "depth_blend",
      [](const py::sequence& codes, const py::object& table, const py::object& weights, int64_t top, int64_t left,
         float least, const py::object& destination) {
        const Several frames(codes);
        const Array t(table), w(weights), to(destination);
        const py::gil_scoped_release release;
        depth_blend(frames.data(), frames.count(), t.view, w.view, top, left, least, to.view);
      },
      py::arg("codes"), py::arg("table"), py::arg("weights"), py::arg("top"), py::arg("left"), py::arg("least"),
      py::arg("destination"), "The weighted mean of frames over a tile.");
}

// guided_down and guided_across.
using Sweep = void (*)(const Tensor&, const Tensor&, float, const Tensor&, int);

void bind_sweep(py::module_& m, const char* name, Sweep sweep, const char* text) {
  m.def(
      name,
      [sweep](const py::object& values, const py::object& links, float share, const py::object& workspace,
              int threads) {
        const Array v(values), l(links), w(workspace);
        const py::gil_scoped_release release;
        sweep(v.view, l.view, share, w.view, threads);
      },
      py::arg("values"), py::arg("links"), py::arg("share"), py::arg("workspace"), py::arg("threads") = 0, text);
}

}  // namespace

void bind_depth(py::module_& m) {
  bind_maps(m);
  bind_sweep(m, "guided_down", &guided_down, "The smoother's sweep along columns, in place.");
  bind_sweep(m, "guided_across", &guided_across, "The smoother's sweep along rows, in place.");
  m.def(
      "roots_encode",
      [](const py::object& values, const py::object& codes, float lowest, float highest, float scale, int threads) {
        const Array from(values), to(codes);
        const py::gil_scoped_release release;
        roots_encode(from.view, to.view, lowest, highest, scale, threads);
      },
      py::arg("values"), py::arg("codes"), py::arg("lowest"), py::arg("highest"), py::arg("scale"),
      py::arg("threads") = 0, "Values as 16-bit codes of their roots.");
  m.def(
      "roots_lookup",
      [](const py::sequence& codes, const py::object& table, const py::object& destination, int threads) {
        const Several frames(codes);
        const Array t(table), to(destination);
        const py::gil_scoped_release release;
        roots_lookup(frames.data(), frames.count(), t.view, to.view, threads);
      },
      py::arg("codes"), py::arg("table"), py::arg("destination"), py::arg("threads") = 0,
      "Parts of frames through a table of 65536 floats.");
}

}  // namespace pyfocus
