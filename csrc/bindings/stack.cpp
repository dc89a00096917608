// Bindings of the pipeline: frames in, one at a time, and the picture out, in memory that NumPy sees without a copy.
#include "stack/stack.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>

#include "array.h"
#include "bindings.h"
#include "stack/phase.h"

namespace pyfocus {
namespace {

using Row = std::array<double, 9>;

// A stack with the memory it works in: arrays that are given out keep that alive.
struct OwnedStack {
  std::shared_ptr<Memory> memory;
  std::unique_ptr<Stack> stack;
};

struct HostArray {
  std::shared_ptr<Memory> memory;
  Buffer buffer;
};

py::object given(const std::shared_ptr<Memory>& memory, Buffer buffer) {
  if (!buffer) return py::none();
  auto array = std::make_unique<HostArray>();
  array->memory = memory;
  array->buffer = std::move(buffer);
  return py::cast(std::move(array));
}

py::buffer_info buffer_of(HostArray& array) {
  const Tensor& t = array.buffer;
  std::vector<py::ssize_t> shape(t.shape, t.shape + t.ndim), strides;
  for (int i = 0; i < t.ndim; ++i) strides.push_back(t.stride[i] * 4);
  return py::buffer_info(t.data, 4, "f", t.ndim, shape, strides);
}

template <class T>
T one_of(const char* name, const std::string& word, std::initializer_list<std::pair<const char*, T>> words) {
  for (const auto& [known, value] : words)
    if (word == known) return value;
  fail(ErrorKind::Argument, "Stack: %s is unknown: %s", name, word.c_str());
}

Facts facts_of(const py::object& meta) {
  Facts facts;
  const py::object cfa = meta.attr("cfa");
  if (!cfa.is_none())
    facts.cfa = one_of<Cfa>("cfa", cfa.cast<std::string>(),
                            {{"RGGB", Cfa::Rggb}, {"BGGR", Cfa::Bggr}, {"GRBG", Cfa::Grbg}, {"GBRG", Cfa::Gbrg}});
  const auto black = meta.attr("black").cast<std::array<double, 4>>();
  const auto balance = meta.attr("white_balance").cast<std::array<double, 3>>();
  std::copy(black.begin(), black.end(), facts.black);
  std::copy(balance.begin(), balance.end(), facts.balance);
  facts.white = meta.attr("white").cast<double>();
  facts.encoding = one_of<Encoding>("encoding", meta.attr("encoding").cast<std::string>(),
                                    {{"linear", Encoding::Linear}, {"srgb", Encoding::Srgb}});
  return facts;
}

// (H, W[, C]) pixels as the pipeline takes them: planes first.
Tensor planar(const Tensor& pixels, bool mosaic) {
  if (mosaic) return pixels;
  PYFOCUS_CHECK(pixels.ndim == 2 || pixels.ndim == 3, "push: an image must be (H, W) or (H, W, C), got %d dimensions",
                pixels.ndim);
  Tensor out = pixels;
  out.ndim = 3;
  const bool grey = pixels.ndim == 2;
  out.shape[0] = grey ? 1 : pixels.shape[2];
  out.stride[0] = grey ? 1 : pixels.stride[2];
  for (int axis = 0; axis < 2; ++axis) {
    out.shape[axis + 1] = pixels.shape[axis];
    out.stride[axis + 1] = pixels.stride[axis];
  }
  return out;
}

StackOptions options_of(const std::string& fuser, const std::string& domain, const std::string& motion,
                        const std::string& interpolation) {
  StackOptions options;
  options.fuser = one_of<FuserKind>(
      "fuser", fuser,
      {{"average", FuserKind::Average}, {"laplacian", FuserKind::Laplacian}, {"wavelet", FuserKind::Wavelet}});
  options.domain = one_of<Domain>("domain", domain, {{"rgb", Domain::Rgb}, {"raw", Domain::Raw}});
  options.motion = one_of<Motion>("motion", motion,
                                  {{"translation", Motion::Translation},
                                   {"similarity", Motion::Similarity},
                                   {"affine", Motion::Affine},
                                   {"homography", Motion::Homography}});
  options.interpolation = one_of<Interpolation>("interpolation", interpolation,
                                                {{"bilinear", Interpolation::Bilinear},
                                                 {"bicubic", Interpolation::Bicubic},
                                                 {"lanczos3", Interpolation::Lanczos3}});
  return options;
}

}  // namespace

void bind_stack(py::module_& m) {
  m.def(
      "phase_shift",
      [](const py::object& a, const py::object& b) {
        const Array first(a), second(b);
        for (const Array* array : {&first, &second}) {
          check_tensor("phase_shift", "a picture", array->view, Dtype::F32, 2);
          check_contiguous("phase_shift", "a picture", array->view);
          check_on_cpu("phase_shift", "a picture", array->view);
          PYFOCUS_CHECK(array->view.count() > 0, "phase_shift: a picture must not be empty");
        }
        Memory memory;
        const py::gil_scoped_release release;
        const Matrix map = phase_shift(first.view, second.view, memory);
        return std::make_tuple(map(0, 2), map(1, 2));
      },
      py::arg("a"), py::arg("b"), "Shift (x, y) from a to b by phase correlation, whole pixels.");
  py::class_<HostArray>(m, "HostArray", py::buffer_protocol(), "float32 values in the host's memory, for np.asarray.")
      .def_buffer(&buffer_of);
  py::class_<OwnedStack>(m, "Stack",
                         "The pipeline on the host, for one thread at a time. memory: bytes not to exceed, 0 for any.")
      .def(py::init([](const std::string& fuser, const std::string& domain, const std::string& motion,
                       const std::string& interpolation, bool align, bool equalise, bool crop, bool depth, int threads,
                       int64_t ceiling) {
             StackOptions options = options_of(fuser, domain, motion, interpolation);
             options.align = align, options.equalise = equalise, options.crop = crop, options.depth = depth;
             auto owned = std::make_unique<OwnedStack>();
             owned->memory = std::make_shared<Memory>(ceiling);
             owned->stack = std::make_unique<Stack>(options, *owned->memory, Execution{threads, nullptr});
             return owned;
           }),
           py::arg("fuser"), py::kw_only(), py::arg("domain") = "rgb", py::arg("motion") = "similarity",
           py::arg("interpolation") = "lanczos3", py::arg("align") = true, py::arg("equalise") = true,
           py::arg("crop") = true, py::arg("depth") = true, py::arg("threads") = 0, py::arg("memory") = 0)
      .def_property_readonly("memory_in_use", [](const OwnedStack& owned) { return owned.memory->in_use(); })
      .def_property_readonly("memory_peak", [](const OwnedStack& owned) { return owned.memory->peak(); })
      .def(
          "push",
          [](OwnedStack& owned, const py::object& pixels, const py::object& meta, const std::optional<Row>& transform,
             double place) {
            const Array array(pixels);
            const Facts facts = facts_of(meta);
            const Frame frame{planar(array.view, facts.cfa != Cfa::None), facts};
            Matrix known;
            if (transform) known.m = *transform;
            const py::gil_scoped_release release;
            const Step step = owned.stack->push(frame, transform ? &known : nullptr, place);
            return std::make_tuple(step.registered, step.transform.m, step.correlation, step.iterations,
                                   step.converged);
          },
          py::arg("pixels"), py::arg("meta"), py::arg("transform") = py::none(), py::arg("place") = 0.0,
          "Fold a frame in: (registered, transform, correlation, iterations, converged).")
      .def_property_readonly("crop",
                             [](const OwnedStack& owned) {
                               const Rect r = owned.stack->crop();
                               return std::make_tuple(r.top, r.left, r.bottom, r.right);
                             })
      .def(
          "preview",
          [](OwnedStack& owned, int halvings) {
            Buffer picture;
            {
              const py::gil_scoped_release release;
              picture = owned.stack->preview(halvings);
            }
            return given(owned.memory, std::move(picture));
          },
          py::arg("halvings") = 0, "The fused planes so far (C, h, w), halved so many times.")
      .def(
          "finish",
          [](OwnedStack& owned) {
            Fused fused;
            {
              const py::gil_scoped_release release;
              fused = owned.stack->finish();
            }
            return py::make_tuple(given(owned.memory, std::move(fused.image)),
                                  given(owned.memory, std::move(fused.depth)),
                                  given(owned.memory, std::move(fused.confidence)));
          },
          "Planes (C, H, W), depth and confidence (H, W) or None.");
}

}  // namespace pyfocus
