// Stacks a folder of 16-bit PNGs with a network that pyfocus-export wrote: ONNX Runtime, libpng, and no pyfocus.
// A frame is worked on in tiles. Each reads its halo from the frame and from the state as it was before the frame, so
// tiles give what the whole frame would; what they make waits until no tile reads what is in its place any more.
#include <onnxruntime_cxx_api.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>

using std::string, std::vector, std::filesystem::path, Ort::Value;
using Inputs = std::map<string, Value>;
using Stream = std::unique_ptr<FILE, int (*)(FILE*)>;
[[noreturn]] static void fail(const string& text) { throw std::runtime_error(text); }

struct Box {  // rows and columns of the frame, the ends not included
  int64_t y0, y1, x0, x1;
  Box grown(int64_t by, const Box& all) const {
    return {std::max(y0 - by, all.y0), std::min(y1 + by, all.y1), std::max(x0 - by, all.x0), std::min(x1 + by, all.x1)};
  }
  vector<Box> cut(int64_t side) const {
    vector<Box> tiles;
    for (int64_t y = y0; y < y1; y += side)
      for (int64_t x = x0; x < x1; x += side) tiles.push_back({y, std::min(y + side, y1), x, std::min(x + side, x1)});
    return tiles;
  }
};

static Value tensor(const vector<int64_t>& shape, const vector<float>& values) {  // of these, or all of one value
  Value made = Value::CreateTensor<float>(Ort::AllocatorWithDefaultOptions(), shape.data(), shape.size());
  std::fill_n(made.GetTensorMutableData<float>(), made.GetTensorTypeAndShapeInfo().GetElementCount(), values[0]);
  std::copy(values.begin(), values.end(), made.GetTensorMutableData<float>());
  return made;
}

struct Map {  // a pixel per `stride` pixels of the frame; stride 0: one number for all of it
  string name;
  int64_t channels, stride;
  Value over(const Box& b, float value = 0) const {
    return tensor({1, channels, stride ? (b.y1 - b.y0) / stride : 1, stride ? (b.x1 - b.x0) / stride : 1}, {value});
  }
  // What lies in `part`, from a map of the box `a` to one of the box `b`.
  void copy(const Value& source, const Box& a, Value& target, const Box& b, const Box& part) const {
    const float* from = source.GetTensorData<float>();
    float* to = target.GetTensorMutableData<float>();
    if (!stride) std::copy_n(from, channels, to);
    for (int64_t c = 0; stride && c < channels; ++c)
      for (int64_t y = part.y0; y < part.y1; y += stride) {
        const auto row = [&](const Box& of) {
          return (c * (of.y1 - of.y0) + y - of.y0) / stride * ((of.x1 - of.x0) / stride) + (part.x0 - of.x0) / stride;
        };
        std::copy_n(from + row(a), (part.x1 - part.x0) / stride, to + row(b));
      }
  }
};

static string fact(const Ort::Session& graph, const string& key) {  // of a file's metadata
  const Ort::AllocatorWithDefaultOptions allocator;
  const auto text = graph.GetModelMetadata().LookupCustomMetadataMapAllocated(("pyfocus." + key).c_str(), allocator);
  return text ? text.get() : throw std::runtime_error("the model was not written by pyfocus-export: no pyfocus." + key);
}

static vector<Value> run(Ort::Session& graph, Inputs given) {
  vector<const char*> in, out;
  vector<Value> values;
  for (auto& [name, value] : given) in.push_back(name.c_str()), values.push_back(std::move(value));
  const vector<string> gives = graph.GetOutputNames();
  for (const string& name : gives) out.push_back(name.c_str());
  return graph.Run({}, in.data(), values.data(), in.size(), out.data(), out.size());
}

[[noreturn]] static void jump(png_structp png, png_const_charp) { png_longjmp(png, 1); }

// Linear light (1, 3, h, w) of `size`, mirrored about the last row and column to multiples of `step`, which is `all`.
static Value read_png(const path& file, int64_t step, Box& size, Box& all) {
  const Stream stream(std::fopen(file.c_str(), "rb"), std::fclose);
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, jump, [](png_structp, png_const_charp) {});
  png_infop info = png_create_info_struct(png);
  if (!stream || setjmp(png_jmpbuf(png))) fail(file.string() + ": cannot be read, is no PNG, or is cut short");
  png_init_io(png, stream.get());
  png_read_png(png, info, PNG_TRANSFORM_STRIP_ALPHA | PNG_TRANSFORM_EXPAND | PNG_TRANSFORM_GRAY_TO_RGB, nullptr);
  size = {0, png_get_image_height(png, info), 0, png_get_image_width(png, info)};
  if (png_get_bit_depth(png, info) != 16 || std::min(size.y1, size.x1) < step)
    fail(file.string() + ": must have 16 bits a channel and " + std::to_string(step) + " rows and columns");
  all = {0, (size.y1 + step - 1) / step * step, 0, (size.x1 + step - 1) / step * step};
  Value planes = tensor({1, 3, all.y1, all.x1}, {0});
  for (int64_t at = 0; at < 3 * all.y1 * all.x1; ++at) {
    const int64_t y = at / all.x1 % all.y1, x = at % all.x1, c = at / all.x1 / all.y1;
    const png_byte* row = png_get_rows(png, info)[std::min(y, 2 * size.y1 - 2 - y)];
    const png_byte* code = row + 6 * std::min(x, 2 * size.x1 - 2 - x) + 2 * c;
    const float v = float(code[0] * 256 + code[1]) / 65535;
    planes.GetTensorMutableData<float>()[at] = v <= 0.04045f ? v / 12.92f : std::pow((v + 0.055f) / 1.055f, 2.4f);
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return planes;
}

static void write_png(const path& file, const float* planes, const Box& all, const Box& size) {
  vector<png_byte> row(6 * size.x1);
  const string part = file.string() + ".part";  // takes the name when it is whole
  Stream stream(std::fopen(part.c_str(), "wb"), std::fclose);
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, jump, nullptr);
  png_infop info = png_create_info_struct(png);
  if (!stream || setjmp(png_jmpbuf(png))) std::remove(part.c_str()), fail(file.string() + ": cannot be written");
  png_init_io(png, stream.get());
  png_set_IHDR(png, info, png_uint_32(size.x1), png_uint_32(size.y1), 16, PNG_COLOR_TYPE_RGB, 0, 0, 0);
  png_write_info(png, info);
  for (int64_t y = 0; y < size.y1; ++y) {
    for (int64_t at = 0; at < 3 * size.x1; ++at) {
      const float v = std::clamp(planes[(at % 3 * all.y1 + y) * all.x1 + at / 3], 0.0f, 1.0f);
      const long code = std::lround(65535 * (v <= 0.0031308f ? 12.92f * v : 1.055f * std::pow(v, 1 / 2.4f) - 0.055f));
      row[2 * at] = png_byte(code / 256), row[2 * at + 1] = png_byte(code % 256);
    }
    png_write_row(png, row.data());
  }
  png_write_end(png, info);
  if (std::fflush(stream.get()) || std::rename(part.c_str(), file.c_str())) jump(png, "");
  png_destroy_write_struct(&png, &info);
}

static void stack(Ort::Session& step, Ort::Session& finish, const vector<path>& frames, const path& to,
                  const vector<float>& noise, int64_t tile) {
  vector<Map> maps;  // of the state: [["name", channels, stride], ...]
  const string text = fact(step, "state");
  char name[64];
  long channels = 0, stride = 0;
  for (int at = 0, n = 0; std::sscanf(&text[at], "%*[[, ]\"%63[^\"]\", %ld, %ld]%n", name, &channels, &stride, &n) == 3;
       at += n)
    maps.push_back({name, channels, stride});
  const int64_t unit = std::stol(fact(step, "step_px")), halo = std::stol(fact(step, "halo_px"));
  tile = std::max(tile / unit * unit, unit);
  const Map light{"frame", 3, 1};
  vector<Value> state;
  Box size{}, all{};
  const auto look = [&](const Box& window, size_t from) {  // the state but for its beginning, and what both are told
    Inputs given;
    given.emplace("noise", tensor({1, 2}, noise)), given.emplace("white_balance", tensor({1, 3}, {1}));
    for (size_t m = from; m < maps.size(); ++m)
      maps[m].copy(state[m], all, given.emplace(maps[m].name, maps[m].over(window)).first->second, window, window);
    return given;
  };
  for (size_t k = 0; k < frames.size(); ++k) {
    const Box first = size;
    const Value frame = read_png(frames[k], unit, size, all);
    if (k && (size.y1 != first.y1 || size.x1 != first.x1)) fail(frames[k].string() + ": is not as large as the first");
    for (size_t m = state.size(); m < maps.size(); ++m) state.push_back(maps[m].over(all));
    vector<std::pair<Box, vector<Value>>> waiting;
    const auto write = [&](int64_t y) {  // what no tile reads that begins in row y or after it
      for (; !waiting.empty() && waiting[0].first.y1 + halo <= y; waiting.erase(waiting.begin()))
        for (size_t m = 0; m < maps.size(); ++m)
          if (maps[m].stride || y > all.y1)  // numbers only when all tiles have read the old ones
            maps[m].copy(waiting[0].second[m], waiting[0].first.grown(halo, all), state[m], all, waiting[0].first);
    };
    for (const Box& core : all.cut(tile)) {
      write(core.y0);
      const Box window = core.grown(halo, all);
      Inputs given = look(window, 0);
      light.copy(frame, all, given.emplace("frame", light.over(window)).first->second, window, window);
      given.emplace("valid", Map{"", 1, 1}.over(window, 1)), given.emplace("index", tensor({1}, {float(k)}));
      waiting.emplace_back(core, run(step, std::move(given)));
    }
    write(all.y1 + halo + 1);
  }
  Value picture = light.over(all);
  for (const Box& core : all.cut(tile)) {
    const Box window = core.grown(std::stol(fact(finish, "halo_px")), all);
    light.copy(run(finish, look(window, 2))[0], window, picture, all, core);
  }
  write_png(to, picture.GetTensorData<float>(), all, size);
}

int main(int count, char** given) try {
  std::map<string, string> options{{"--noise", "1e-6,1e-8"}, {"--tile", "384"}, {"--threads", "0"}};
  for (int k = 4; k + 1 < count; k += 2) options[given[k]] = given[k + 1];
  const string told = options["--noise"] + " " + options["--tile"] + " " + options["--threads"];
  vector<float> noise(2);
  int tile = 0, threads = 0;
  if (std::sscanf(told.c_str(), "%f,%f %d %d", &noise[0], &noise[1], &tile, &threads) != 4 || options.size() != 3 ||
      count < 4 || count % 2 || !(noise[0] >= 0 && noise[1] >= 0 && tile > 0 && threads >= 0))
    return std::cerr << "stack_onnx MODEL FRAMES OUT.png [--noise SHOT,READ] [--tile PX] [--threads N]\n", 2;
  vector<path> frames;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(given[2], missing))
    if (entry.path().extension() == ".png") frames.push_back(entry);
  if (frames.empty()) fail(string(given[2]) + ": there is no such folder, or no .png in it");
  std::sort(frames.begin(), frames.end());
  const Ort::Env env(ORT_LOGGING_LEVEL_FATAL);
  Ort::SessionOptions settings;
  settings.SetIntraOpNumThreads(threads);
  Ort::Session step(env, (path(given[1]) / "step.onnx").c_str(), settings);
  Ort::Session finish(env, (path(given[1]) / "finish.onnx").c_str(), settings);
  if (fact(step, "format") + fact(step, "version") + fact(step, "tile") != "pyfocus-onnx1[]")
    fail("the model must be of version 1, and exported without --tile");
  if (fact(step, "weights") != fact(finish, "weights")) fail("step.onnx and finish.onnx are of different weights");
  return stack(step, finish, frames, given[3], noise, tile), 0;
} catch (const std::exception& error) {
  return std::cerr << "error: " << string(error.what()).substr(0, string(error.what()).find('\n')) << '\n', 1;
}
