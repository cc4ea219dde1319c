// What must hold for any weights and any tokens, in every gate form and k, for experts on the FFN, on the attention and on both:
// a zero delta is the base, a closed gate is one adapter, all experts are dense mixing, the order of experts does not matter,
// nothing looks ahead, threads, packing and recomputation change nothing, gradients are slopes.
#include <gtest/gtest.h>

#include "model/inference_pass.h"
#include "model/model_runs.h"

namespace moe::test {
namespace {

class Invariant : public testing::TestWithParam<const char *> {
 protected:
  std::shared_ptr<const BaseModel> load(const std::string &compute = "f32", int threads = 2) const {
    return golden_model(std::string("models/") + GetParam(), compute, threads);
  }
  PackedBatch batch() const { return golden_batch(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Models, Invariant, testing::ValuesIn(kModels),
                         [](const auto &info) { return std::string(info.param); });

// Logits of the last token of each sequence: the sequences together, then one more token each, as a session computes them.
std::vector<float> decode(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch) {
  const size_t v = static_cast<size_t>(model.config().vocabulary), n = static_cast<size_t>(batch.sequences());
  std::vector<float> logits(2 * n * v);
  std::vector<KvCache> caches;
  std::vector<Segment> segments(n);
  const int32_t next = 3;
  for (size_t s = 0; s < n; s++) caches.emplace_back(model, 8);
  for (size_t s = 0; s < n; s++) {
    segments[s].cache = &caches[s];
    segments[s].tokens =
        std::span(batch.tokens)
            .subspan(static_cast<size_t>(batch.starts[s]), static_cast<size_t>(batch.starts[s + 1] - batch.starts[s]));
    segments[s].logits = logits.data() + s * v;
  }
  InferenceScratch scratch;
  inference_pass(model, overlay, segments, scratch);
  for (size_t s = 0; s < n; s++) {
    segments[s].tokens = std::span(&next, 1);
    segments[s].logits = logits.data() + (n + s) * v;
  }
  inference_pass(model, overlay, segments, scratch);
  return logits;
}

TEST_P(Invariant, ZeroDeltasAreTheBaseBitForBit) {
  for (const char *compute : {"f32", "bf16"}) {
    SCOPED_TRACE(compute);
    const auto model = load(compute);
    const PackedBatch b = batch();
    const Numbers base = run_pass(*model, Overlay{}, b);
    const std::vector<float> decoded = decode(*model, {}, b);
    const auto expect_base = [&](const Overlay &overlay) {
      const Numbers other = run_pass(*model, overlay, b);
      EXPECT_TRUE(same_bits(base.logits(), other.logits()));
      EXPECT_TRUE(same_bits(base.result.token_nll, other.result.token_nll));
      EXPECT_TRUE(same_bits(decoded, decode(*model, overlay, b)));
    };
    const auto adapter = adapter_on(*model, Place::both, 4, 1, 0);
    expect_base({adapter.get(), nullptr});
    for_each_routing([&](Place place, GateForm form, int64_t k) {
      Mixture mixture = mixture_on(*model, place, form, k, 0);
      expect_base({nullptr, &mixture});
    });
  }
}

TEST_P(Invariant, AGateOfOneIsTheSingleAdapter) {
  const auto model = load();
  const PackedBatch b = batch();
  for (Place place : kPlaces) {
    for (GateForm form : {GateForm::straight_through, GateForm::delta}) {
      for (int64_t i = 0; i < 3; i++) {
        SCOPED_TRACE(text(place_name(place), " ", gate_form_name(form), " expert ", i));
        Mixture mixture = mixture_on(*model, place, form, 1);
        set_bias(*mixture.router, i + 1, 1000);
        const Numbers alone = run_pass(*model, *mixture.experts[static_cast<size_t>(i)], b), mixed = run_pass(*model, mixture, b);
        EXPECT_LT(largest_difference(alone.logits(), mixed.logits()), 1e-5);
        EXPECT_GT(largest_difference(run_pass(*model, Overlay{}, b).logits(), mixed.logits()), 1e-2)
            << "the adapter does nothing";
      }
    }
  }
}

// ---- gradients --------------------------------------------------------------------------------------------------------

void expect_every_router_learns(Mixture &mixture) {
  for (const Router::Entry &entry : mixture.router->entries()) {
    double norm = 0;
    for (size_t i = 0; i < static_cast<size_t>(entry.shape[0]); i++)
      norm += std::abs(mixture.router->gradients()[entry.offset + i]);
    EXPECT_GT(norm, 1e-9) << entry.key;
  }
}

TEST_P(Invariant, TheLanguageModelLossReachesEveryRouterInEveryForm) {
  const auto model = load();
  for_each_routing([&](Place place, GateForm form, int64_t k) {
    Mixture mixture = mixture_on(*model, place, form, k);
    PassRequest request;
    request.train = Trainable::router;
    request.force_expert = k == 1;
    run_pass(*model, mixture, batch(), request);
    expect_every_router_learns(mixture);
  });
}

TEST_P(Invariant, AtTopOneTokensWhoseBaseWinsTeachTheRouterToo) {
  const auto model = load();
  PackedBatch b = batch();
  for (size_t t = 0; t < b.tokens.size(); t++) b.labels[t] = (b.tokens[t] + 1) % static_cast<int32_t>(model->config().vocabulary);
  for (Place place : kPlaces) {
    for (GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::straight_through}) {
      SCOPED_TRACE(text(place_name(place), " ", gate_form_name(form)));
      Mixture mixture = mixture_on(*model, place, form, 1);
      for (float &x : mixture.router->parameters()) x *= 0.1f;
      set_bias(*mixture.router, 0, 6);
      PassRequest request;
      request.train = Trainable::router;
      request.force_expert = true;
      const Numbers numbers = run_pass(*model, mixture, b, request);
      expect_every_router_learns(mixture);
      for (size_t r = 0; r < numbers.result.router.picks.size(); r++) {
        EXPECT_EQ(numbers.result.router.picks[r][0], static_cast<double>(b.size())) << "the base does not win everywhere";
        EXPECT_EQ(numbers.result.router.zero_gradient_tokens[r], 0) << r;
      }
    }
  }
}

double norm_of(std::span<const float> x) {
  double sum = 0;
  for (float value : x) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

// Moves the parameters by `step` along the gradient (as a unit vector), measures the loss there, and moves back.
template <class Trained>
double slope_along_gradient(Trained &trained, const std::function<double()> &loss) {
  const std::vector<float> before(trained.parameters().begin(), trained.parameters().end());
  const std::vector<float> gradient(trained.gradients().begin(), trained.gradients().end());
  const double norm = norm_of(gradient), step = 1e-2;
  const auto at = [&](double distance) {
    const std::span<float> parameters = trained.parameters();
    for (size_t i = 0; i < before.size(); i++) parameters[i] = static_cast<float>(before[i] + distance * gradient[i] / norm);
    return loss();
  };
  // five points: the error of the difference is of the fourth order
  const double slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
  std::copy(before.begin(), before.end(), trained.parameters().begin());
  return slope;
}

TEST(GradientSlope, IsThatOfTheLossOnQuantizedBasesToo) {
  for (const char *file :
       {"gguf/llama-F32.gguf", "gguf/llama-Q4_0.gguf", "gguf/llama-Q5_1.gguf", "gguf/qwen3-Q8_0.gguf", "gguf/gemma3-Q4_0.gguf"}) {
    SCOPED_TRACE(file);
    const auto model = golden_model(file);
    const std::string name = file;
    const PackedBatch b = read_packed_batch(golden_path(name.substr(0, name.find('-')) + ".expected.safetensors"));
    const auto adapter = adapter_on(*model, Place::both, 3, 4, 0.05f);
    PassRequest request;
    request.train = Trainable::adapter;
    run_pass(*model, *adapter, b, request);
    const double slope =
        slope_along_gradient(*adapter, [&] { return run_pass(*model, *adapter, b).loss(); });
    EXPECT_NEAR(slope / norm_of(adapter->gradients()), 1, 1e-2);

    // every entry is picked: the selection cannot change on the way
    for (GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted}) {
      Mixture mixture = mixture_on(*model, Place::both, form, 4, 0.05f);
      request.train = Trainable::joint;
      run_pass(*model, mixture, b, request);
      const auto loss = [&] { return run_pass(*model, mixture, b).loss(); };
      EXPECT_NEAR(slope_along_gradient(*mixture.router, loss) /
                      norm_of(mixture.router->gradients()),
                  1, 1e-2)
          << gate_form_name(form) << " router";
      for (const auto &expert : mixture.experts) {
        EXPECT_NEAR(slope_along_gradient(*expert, loss) / norm_of(expert->gradients()), 1, 1e-2)
            << gate_form_name(form) << " expert";
      }
    }
  }
}

// ---- mixing -----------------------------------------------------------------------------------------------------------

// Without a norm after the FFN the first layer's output is linear in the experts' outputs, which single passes give.
TEST(DenseMixing, OfAllEntriesIsTheWeightedSumOfSinglePasses) {
  for (const char *name : {"llama", "qwen3"}) {
    const auto model = golden_model(std::string("models/") + name);
    const PackedBatch b = golden_batch(name);
    const size_t d = static_cast<size_t>(model->config().hidden), stream = static_cast<size_t>(b.size()) * d;
    const auto first_layer = [&](const Numbers &numbers) {
      const std::vector<float> all = numbers.of("hidden_states");
      return std::vector<float>(all.begin() + static_cast<int64_t>(stream), all.begin() + static_cast<int64_t>(2 * stream));
    };
    for (GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted}) {
      SCOPED_TRACE(text(name, " ", gate_form_name(form)));
      Mixture mixture = mixture_on(*model, Place::ffn, form, 4);
      const Numbers mixed = run_pass(*model, mixture, b);
      const std::vector<float> p = mixed.of("layers.0.router.probs");
      std::vector<double> expected(stream);
      for (size_t i = 0; i < 4; i++) {
        const std::vector<float> single =
            first_layer(i == 0 ? run_pass(*model, Overlay{}, b) : run_pass(*model, *mixture.experts[i - 1], b));
        for (size_t j = 0; j < stream; j++) expected[j] += static_cast<double>(p[j / d * 4 + i]) * single[j];
      }
      EXPECT_LT(nmse(expected, first_layer(mixed)), 1e-11);
      EXPECT_LT(largest_error(expected, first_layer(mixed)), 1e-4);
    }
  }
}

TEST_P(Invariant, TheOrderOfTheExpertsDoesNotMatter) {
  const auto model = load();
  const size_t order[] = {0, 3, 1, 2};  // entry i of the permuted mixture is entry order[i]
  for_each_routing([&](Place place, GateForm form, int64_t k) {
    Mixture mixture = mixture_on(*model, place, form, k), permuted = mixture_on(*model, place, form, k);
    for (size_t i = 1; i < 4; i++) permuted.experts[i - 1] = mixture.experts[order[i] - 1];
    for (const Router::Entry &entry : mixture.router->entries()) {
      const size_t width = entry.shape.size() == 2 ? static_cast<size_t>(entry.shape[1]) : 1;
      for (size_t i = 0; i < 4; i++) {
        std::copy_n(mixture.router->parameters().begin() + static_cast<int64_t>(entry.offset + order[i] * width), width,
                    permuted.router->parameters().begin() + static_cast<int64_t>(entry.offset + i * width));
      }
    }
    const Numbers one = run_pass(*model, mixture, batch()), other = run_pass(*model, permuted, batch());
    EXPECT_LT(largest_difference(one.logits(), other.logits()), 1e-5);
    const std::string router = place == Place::attention ? "layers.1.attn_router." : "layers.1.router.";
    const std::vector<float> gates = one.of(router + "gates"), permuted_gates = other.of(router + "gates");
    for (size_t t = 0; t < gates.size() / 4; t++) {
      for (size_t i = 0; i < 4; i++) EXPECT_NEAR(permuted_gates[4 * t + i], gates[4 * t + order[i]], 1e-5) << t << " " << i;
    }
  });
}

// ---- order and position -------------------------------------------------------------------------------------------------

// The tokens of `batch` from `from` to the end of its sequence are replaced.
PackedBatch changed_from(PackedBatch batch, int32_t from, int64_t vocabulary) {
  for (int32_t end : batch.starts) {
    if (end <= from) continue;
    for (int32_t t = from; t < end; t++) {
      int32_t &token = batch.tokens[static_cast<size_t>(t)];
      token = static_cast<int32_t>((token + 1 + t % 7) % vocabulary);
    }
    break;
  }
  return batch;
}

TEST_P(Invariant, NothingLooksAhead) {
  for (const char *compute : {"f32", "bf16"}) {
    const auto model = load(compute);
    const PackedBatch b = batch();
    for (Place place : kPlaces) {
      Mixture mixture = mixture_on(*model, place, GateForm::delta, 2);
      const Numbers before = run_pass(*model, mixture, b);
      for (int32_t from : {4, 5, 13, 21, 40, 62}) {
        SCOPED_TRACE(text(compute, " ", place_name(place), " from token ", from));
        const Numbers after = run_pass(*model, mixture, changed_from(b, from, model->config().vocabulary));
        int64_t next_sequence = 0;
        while (b.starts[static_cast<size_t>(next_sequence)] <= from) next_sequence++;
        const int64_t end = b.starts[static_cast<size_t>(next_sequence)], tokens = b.size();
        for (const auto &[name, tensor] : before.capture.tensors) {
          const std::vector<float> one = before.of(name), other = after.of(name);
          const size_t planes = name == "hidden_states" ? static_cast<size_t>(tensor.shape[0]) : 1;
          const size_t width = one.size() / planes / static_cast<size_t>(tokens);
          for (size_t row = 0; row < planes * static_cast<size_t>(tokens); row++) {
            const int64_t t = static_cast<int64_t>(row) % tokens;
            // On a device how many tokens share an expert may choose another kernel, whose sums have other last bits.
            const auto equal = [&](float a, float b) {
              return a == b || (!model->backend().host_memory() && std::abs(a - b) <= 1e-5f * (1 + std::abs(a)));
            };
            const bool same =
                std::equal(one.begin() + static_cast<int64_t>(row * width), one.begin() + static_cast<int64_t>((row + 1) * width),
                           other.begin() + static_cast<int64_t>(row * width), equal);
            if (t < from || t >= end) {
              ASSERT_TRUE(same) << name << " of token " << t;
            } else if (t == from && name == "logits") {
              ASSERT_FALSE(same) << "the change does nothing";
            }
          }
        }
      }
    }
  }
}

TEST_P(Invariant, PackedAndOneByOneGiveTheSameLossAndGradient) {
  const auto model = load();
  const PackedBatch b = batch();
  const auto adapter = adapter_on(*model, Place::both, 4, 2, 0.2f);
  Mixture mixture = mixture_on(*model, Place::both, GateForm::delta, 2);
  for (const Overlay &overlay : {Overlay{}, Overlay{adapter.get(), nullptr}, Overlay{nullptr, &mixture}}) {
    PassRequest request;
    if (overlay.adapter) request.train = Trainable::adapter;
    if (overlay.mixture) request.train = Trainable::joint;
    const auto gradient = [&] {
      std::vector<float> all = overlay.mixture ? gradients_of(mixture) : std::vector<float>{};
      if (overlay.adapter) all.assign(adapter->gradients().begin(), adapter->gradients().end());
      return all;
    };
    const Numbers packed = run_pass(*model, overlay, b, request);
    const std::vector<float> packed_gradient = gradient();
    clear_gradients(mixture);
    std::fill(adapter->gradients().begin(), adapter->gradients().end(), 0.0f);
    double nll = 0;
    for (int64_t s = 0; s < b.sequences(); s++) {
      const PackedBatch one = sequence_of(b, s);
      request.gradient_scale = 1.0f / static_cast<float>(b.supervised());
      Arena arena = pass_arena(*model, training_pass_bytes(*model, overlay, request, one.size(), one.supervised()));
      nll += training_pass(*model, overlay, one, request, arena).nll;
    }
    EXPECT_NEAR(nll / packed.result.nll, 1, 1e-6);
    EXPECT_LT(packed_gradient.empty() ? 0 : largest_difference(packed_gradient, gradient()), 1e-5);
  }
}

// ---- determinism --------------------------------------------------------------------------------------------------------

struct JointPass {
  Numbers numbers;
  std::vector<float> gradients;
};

JointPass joint_pass(const BaseModel &model, Place place, const PackedBatch &batch, int64_t checkpointed_layers) {
  Mixture mixture = mixture_on(model, place, GateForm::renormalised_delta, 2);
  PassRequest request;
  request.train = Trainable::joint;
  request.training = true;
  request.losses.balance = 0.1f;
  request.losses.z = 0.01f;
  request.checkpointed_layers = checkpointed_layers;
  JointPass pass{run_pass(model, mixture, batch, request), {}};
  pass.gradients = gradients_of(mixture);
  return pass;
}

void expect_same(const JointPass &a, const JointPass &b) {
  EXPECT_TRUE(same_bits(a.gradients, b.gradients));
  EXPECT_TRUE(same_bits(a.numbers.logits(), b.numbers.logits()));
  EXPECT_TRUE(same_bits(a.numbers.result.token_nll, b.numbers.result.token_nll));
  EXPECT_EQ(a.numbers.result.router.picks, b.numbers.result.router.picks);
  EXPECT_EQ(a.numbers.result.router.probability, b.numbers.result.router.probability);
  EXPECT_EQ(a.numbers.result.router.lm_gradient_norm, b.numbers.result.router.lm_gradient_norm);
}

TEST_P(Invariant, ThreadsAndRecomputedActivationsChangeNoBit) {
  for (const char *compute : {"f32", "bf16"}) {
    for (Place place : kPlaces) {
      SCOPED_TRACE(text(compute, " ", place_name(place)));
      const JointPass one = joint_pass(*load(compute, 1), place, batch(), 0);
      EXPECT_GT(norm_of(one.gradients), 0);
      for (int threads : {2, 3}) expect_same(one, joint_pass(*load(compute, threads), place, batch(), 0));
      for (int threads : {1, 2}) {
        for (int64_t checkpointed : {2, 100}) expect_same(one, joint_pass(*load(compute, threads), place, batch(), checkpointed));
      }
    }
  }
}

}  // namespace
}  // namespace moe::test
