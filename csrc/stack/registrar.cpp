#include "stack/registrar.h"

#include <algorithm>

namespace pyfocus {
namespace {

constexpr size_t kTails = 3;  // ends of chains a new frame is tried against

}  // namespace

Step Registrar::push(Luma luma, const Execution& on) {
  if (!chains_.empty()) {
    const Size first = chains_.front()->luma.size;
    PYFOCUS_CHECK(luma.size == first, "register: a frame is %lld x %lld px, the first one %lld x %lld px",
                  static_cast<long long>(luma.size.width), static_cast<long long>(luma.size.height),
                  static_cast<long long>(first.width), static_cast<long long>(first.height));
  }
  Step step;
  Tail* chain = join(luma, &step, on);
  if (!chain) {
    auto fresh = std::make_unique<Tail>();
    fresh->luma = std::move(luma);
    fresh->is_first = chains_.empty();
    chain = fresh.get();
    chains_.push_back(std::move(fresh));
    forget();
    step.transform = {};
    step.found = false;
    if (chain->is_first) step = {{}, true, true, 1.0, 0, true};
  }
  ++chain->members;
  step.registered = step.found && chain->is_first;
  return step;
}

// Tries the ends of the chains, the longest first; on success the chain's end becomes this frame.
Registrar::Tail* Registrar::join(Luma& luma, Step* step, const Execution& on) {
  std::vector<Tail*> order;
  for (const auto& chain : chains_) order.push_back(chain.get());
  std::stable_sort(order.begin(), order.end(), [](const Tail* a, const Tail* b) { return a->members > b->members; });
  bool tried = false;
  for (size_t i = 0; i < std::min(order.size(), kTails); ++i) {
    Tail* chain = order[i];
    const Pair pair = align_pair(chain->luma, luma, motion_, &chain->motion, memory_, on);
    if (!pair.good) {
      if (!tried || pair.correlation > step->correlation)
        *step = {{}, false, false, pair.correlation, pair.iterations, pair.converged};
      tried = true;
      continue;
    }
    chain->transform = normalised(pair.matrix * chain->transform);
    chain->luma = std::move(luma);
    chain->motion = pair.matrix;
    *step = {chain->transform, false, true, pair.correlation, pair.iterations, pair.converged};
    return chain;
  }
  return nullptr;
}

// Keeps the first chain, the newest and the longest others: strays must not cost memory for ever.
void Registrar::forget() {
  if (chains_.size() <= kTails + 2) return;
  chains_.erase(std::min_element(chains_.begin() + 1, chains_.end() - 1,
                                 [](const auto& a, const auto& b) { return a->members < b->members; }));
}

}  // namespace pyfocus
