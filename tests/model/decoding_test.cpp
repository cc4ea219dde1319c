// Decoding in compute=f32: with a cache, in pieces of any size and next to other sequences, a token gets the logits and losses of
// the full forward pass; an adapter that is merged into the weights gets those of the adapter beside them.
#include <gtest/gtest.h>

#include "model/inference_pass.h"
#include "model/model_runs.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe::test {
namespace {

class Decoding : public testing::TestWithParam<const char *> {
 protected:
  void SetUp() override {
    model_ = golden_model(std::string("models/") + GetParam());
    adapter_ = adapter_on(*model_, Place::both, 4, 3, 0.2f);
    for (Place place : kPlaces) mixtures_.push_back(mixture_on(*model_, place, GateForm::delta, 2));
    mixtures_.push_back(mixture_on(*model_, Place::both, GateForm::straight_through, 1));
    overlays_ = {{"base", {}}, {"adapter", {adapter_.get(), nullptr}}};
    for (Mixture &mixture : mixtures_) overlays_.push_back({text("mixture ", overlays_.size() - 2), {nullptr, &mixture}});
    batch_ = sequence_of(golden_batch(GetParam()), 2);
    for (size_t t = 0; t + 1 < batch_.tokens.size(); t++) batch_.labels[t] = batch_.tokens[t + 1];
  }

  struct Full {
    std::vector<float> logits, nll;
    std::vector<float> logits_of(int64_t t, int64_t vocabulary) const {
      return {logits.begin() + t * vocabulary, logits.begin() + (t + 1) * vocabulary};
    }
  };
  Full full(const Overlay &overlay) const {
    const Numbers numbers = run_pass(*model_, overlay, batch_);
    return {numbers.logits(), numbers.result.token_nll};
  }
  int64_t vocabulary() const { return model_->config().vocabulary; }

  // Appends tokens [first, first + count) and compares what comes out with the full pass.
  void expect_piece(const Overlay &overlay, KvCache &cache, int64_t first, int64_t count, const Full &expected) {
    std::vector<float> logits(static_cast<size_t>(vocabulary())), nll(static_cast<size_t>(count));
    Segment segment;
    segment.tokens = std::span(batch_.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    segment.labels = std::span(batch_.labels).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    segment.cache = &cache;
    segment.logits = logits.data();
    segment.nll = nll.data();
    inference_pass(*model_, overlay, std::span(&segment, 1), scratch_);
    EXPECT_EQ(cache.size(), first + count);
    EXPECT_LT(largest_difference(expected.logits_of(first + count - 1, vocabulary()), logits), 1e-5)
        << "token " << first + count - 1;
    for (int64_t i = 0; i < count; i++)
      EXPECT_NEAR(nll[static_cast<size_t>(i)], expected.nll[static_cast<size_t>(first + i)], 1e-4) << first + i;
  }

  std::shared_ptr<const BaseModel> model_;
  std::shared_ptr<Adapter> adapter_;
  std::vector<Mixture> mixtures_;
  std::vector<std::pair<std::string, Overlay>> overlays_;
  PackedBatch batch_;
  InferenceScratch scratch_;
};
INSTANTIATE_TEST_SUITE_P(Models, Decoding, testing::ValuesIn(kModels),
                         [](const auto &info) { return std::string(info.param); });

TEST_P(Decoding, InPiecesOfAnySizeIsTheFullForward) {
  const int64_t tokens = batch_.size();
  const std::vector<std::vector<int64_t>> cuts = {
      std::vector<int64_t>(static_cast<size_t>(tokens), 1), {tokens}, {tokens - 1, 1}, {1, 3, 2, 11, tokens - 17}};
  for (const auto &[name, overlay] : overlays_) {
    const Full expected = full(overlay);
    for (const std::vector<int64_t> &pieces : cuts) {
      SCOPED_TRACE(text(name, " in ", pieces.size(), " pieces"));
      KvCache cache(*model_, 4);
      for (int64_t count : pieces) expect_piece(overlay, cache, cache.size(), count, expected);
    }
  }
}

TEST_P(Decoding, FromATruncatedOrCopiedCacheIsTheFullForward) {
  for (const auto &[name, overlay] : overlays_) {
    SCOPED_TRACE(name);
    const Full expected = full(overlay);
    KvCache cache(*model_, 4), copy(*model_, 2);
    expect_piece(overlay, cache, 0, 30, expected);
    cache.truncate(17);
    copy.copy_from(cache, 9);
    expect_piece(overlay, cache, 17, 6, expected);
    expect_piece(overlay, copy, 9, 20, expected);
  }
}

TEST_P(Decoding, OtherSequencesOfTheSameCallChangeNothing) {
  const PackedBatch other = sequence_of(golden_batch(GetParam()), 1);
  for (const auto &[name, overlay] : overlays_) {
    SCOPED_TRACE(name);
    const Full expected = full(overlay);
    KvCache cache(*model_, 4), first(*model_, 4), last(*model_, 4);
    for (const auto &[begin, count] : {std::pair<int64_t, int64_t>{0, 13}, {13, 1}, {14, 8}}) {
      std::vector<float> logits(static_cast<size_t>(vocabulary()));
      Segment segments[3];
      segments[0].cache = &first;
      segments[0].tokens = std::span(other.tokens).first(1);
      segments[1].cache = &cache;
      segments[1].tokens = std::span(batch_.tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
      segments[1].logits = logits.data();
      segments[2].cache = &last;
      segments[2].tokens = std::span(other.tokens).first(5);
      inference_pass(*model_, overlay, segments, scratch_);
      EXPECT_LT(largest_difference(expected.logits_of(begin + count - 1, vocabulary()), logits), 1e-5) << begin;
    }
  }
}

// A segment without a cache, those that continue it, and again, until a round is full; among them one with a cache.
TEST_P(Decoding, ContinuationsWithoutACacheAreTheFullForward) {
  const auto v = static_cast<size_t>(vocabulary());
  const auto tokens = [&](int64_t first, int64_t count) {
    return std::span(batch_.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  };
  struct Part {
    int64_t first, count;
    bool continues;
  };
  const std::vector<Part> family = {{0, 13, false}, {13, 9, true}, {9, 12, true}, {13, 1, true}, {13, 0, true}, {0, 5, true}};
  for (const auto &[name, overlay] : overlays_) {
    SCOPED_TRACE(name);
    const Full expected = full(overlay);
    std::vector<Part> parts;
    for (int repeat = 0; repeat < 80; repeat++) parts.insert(parts.end(), family.begin(), family.end());
    std::vector<std::vector<float>> nll(parts.size()), logits(parts.size());
    std::vector<Segment> segments(parts.size());
    KvCache cache(*model_, 4);
    for (size_t i = 0; i < parts.size(); i++) {
      const Part &part = parts[i];
      segments[i].tokens = tokens(part.first, part.count);
      segments[i].labels = std::span(batch_.labels).subspan(static_cast<size_t>(part.first), static_cast<size_t>(part.count));
      nll[i].resize(static_cast<size_t>(part.count));
      segments[i].nll = nll[i].data();
      segments[i].prefix = part.continues ? static_cast<int32_t>(i - i % family.size()) : -1;
      segments[i].prefix_tokens = part.continues ? part.first : 0;
      if (part.count == 0) continue;
      logits[i].resize(v);
      segments[i].logits = logits[i].data();
    }
    Segment cached;
    cached.tokens = tokens(0, 3);
    cached.cache = &cache;
    segments.push_back(cached);
    inference_pass(*model_, overlay, segments, scratch_);
    EXPECT_EQ(cache.size(), 3);
    for (size_t i = 0; i < parts.size(); i++) {
      const int64_t end = parts[i].first + parts[i].count;
      for (int64_t t = parts[i].first; t < end; t++)
        EXPECT_NEAR(nll[i][static_cast<size_t>(t - parts[i].first)], expected.nll[static_cast<size_t>(t)], 1e-4) << i << " " << t;
      if (parts[i].count == 0) continue;
      EXPECT_LT(largest_difference(expected.logits_of(end - 1, vocabulary()), logits[i]), 1e-5) << i;
    }
  }
}

// The same after what a cache holds, which many sequences share; among them sequences without it.
TEST_P(Decoding, SequencesAfterACommonFrontAreTheFullForward) {
  constexpr int64_t kFront = 7;
  for (const auto &[name, overlay] : overlays_) {
    SCOPED_TRACE(name);
    const Full expected = full(overlay);
    KvCache front(*model_, 4);
    Segment filling;
    filling.tokens = std::span(batch_.tokens).first(kFront);
    filling.cache = &front;
    inference_pass(*model_, overlay, {&filling, 1}, scratch_);
    std::vector<Segment> segments;
    std::vector<int64_t> first;
    std::vector<std::vector<float>> nll;
    nll.reserve(300);
    const auto add = [&](int64_t begin, int64_t count, bool fronted, int64_t continued) {
      Segment &segment = segments.emplace_back();
      segment.tokens = std::span(batch_.tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
      segment.labels = std::span(batch_.labels).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
      segment.nll = nll.emplace_back(static_cast<size_t>(count)).data();
      if (fronted) segment.front = &front;
      if (continued >= 0) segment.prefix = static_cast<int32_t>(continued), segment.prefix_tokens = begin - (fronted ? kFront : 0);
      first.push_back(begin);
    };
    for (int repeat = 0; repeat < 60; repeat++) {
      const auto family = static_cast<int64_t>(segments.size());
      add(kFront, 8, true, -1);
      add(kFront + 6, 5, true, family);
      add(kFront + 8, 3, true, family);
      add(0, 9, false, -1);
    }
    inference_pass(*model_, overlay, segments, scratch_);
    EXPECT_EQ(front.size(), kFront);
    for (size_t i = 0; i < segments.size(); i++)
      for (size_t t = 0; t < nll[i].size(); t++)
        ASSERT_NEAR(nll[i][t], expected.nll[static_cast<size_t>(first[i]) + t], 1e-4) << i << " " << t;
  }
}

TEST_P(Decoding, AContinuationOfAnythingElseIsRefused) {
  KvCache cache(*model_, 4);
  std::vector<Segment> segments(3);
  for (Segment &segment : segments) segment.tokens = std::span(batch_.tokens).first(2);
  segments[1].prefix = segments[2].prefix = 0;
  segments[1].prefix_tokens = 3;
  EXPECT_FAILS(inference_pass(*model_, {}, segments, scratch_), Code::invalid, "continues 3 tokens of a segment of 2");
  segments[1].prefix_tokens = 2;
  segments[2].prefix = 1;
  EXPECT_FAILS(inference_pass(*model_, {}, segments, scratch_), Code::invalid, "segment 2 continues segment 1");
  segments[2].prefix = 0;
  segments[0].cache = &cache;
  EXPECT_FAILS(inference_pass(*model_, {}, segments, scratch_), Code::invalid, "without a cache");
  segments[0].front = &cache;
  EXPECT_FAILS(inference_pass(*model_, {}, {segments.data(), 1}, scratch_), Code::invalid, "a cache or a front");
  segments[0].cache = nullptr;
  EXPECT_FAILS(inference_pass(*model_, {}, segments, scratch_), Code::invalid, "the same front");
}

// W + scale B A for every adapted projection, in double precision, as a checkpoint folder of its own.
void write_merged(const std::string &base, const BaseModel &model, const Adapter &adapter, const std::string &folder) {
  const Safetensors source(base);
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  for (const TensorInfo &tensor : source.tensors()) {
    values.push_back(source.read_floats(tensor));
    int64_t layer = 0;
    Module module = Module::q_proj;
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));
    if (parse_module_path(path, &layer, &module)) {
      const LowRank f = adapter.factors(layer, module);
      const ModuleShape shape = module_shape(model.config(), module);
      for (int64_t o = 0; o < shape.out; o++) {
        for (int64_t i = 0; i < shape.in; i++) {
          double delta = 0;
          for (int64_t r = 0; r < f.rank; r++) delta += static_cast<double>(f.b[o * f.rank + r]) * f.a[r * shape.in + i];
          float &w = values.back()[static_cast<size_t>(o * shape.in + i)];
          w = static_cast<float>(w + f.scale * delta);
        }
      }
    }
  }
  for (size_t i = 0; i < values.size(); i++)
    tensors.push_back({source.tensors()[i].name, DType::f32, source.tensors()[i].shape, values[i].data()});
  write_safetensors(join_path(folder, "model.safetensors"), tensors);
  write_file_atomic(join_path(folder, "config.json"), read_file(join_path(base, "config.json")));
}

TEST_P(Decoding, AMergedAdapterIsTheAdapterBesideTheBase) {
  const TemporaryFolder folder;
  write_merged(golden_path(std::string("models/") + GetParam()), *model_, *adapter_, folder.path());
  const auto merged = BaseModel::load(folder.path(), model_options());
  const PackedBatch batch = golden_batch(GetParam());
  const Numbers beside = run_pass(*model_, *adapter_, batch), inside = run_pass(*merged, Overlay{}, batch);
  EXPECT_LT(largest_difference(inside.logits(), beside.logits()), 1e-5);
  EXPECT_NEAR(inside.loss(), beside.loss(), 1e-5);
  EXPECT_GT(largest_difference(run_pass(*model_, Overlay{}, batch).logits(), beside.logits()), 1e-2)
      << "the adapter does nothing";
}

}  // namespace
}  // namespace moe::test
