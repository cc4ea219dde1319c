// The mixture in compute=f32 against the golden files: every gate form and k, router logits and gates, language-model and total
// gradients of the router, joint gradients, attention mixtures, 20 steps of router training.
#include <gtest/gtest.h>

#include "model/training_pass.h"
#include "support/golden.h"

namespace moe::test {
namespace {

struct Loaded {
  std::shared_ptr<const BaseModel> model;
  Mixture mixture;
  Json numbers;
  PackedBatch batch;
};

Loaded load(const std::string &name, const std::string &case_name, bool attention = false) {
  Loaded l;
  const std::string folder = golden_path("mixture/" + name);
  l.numbers = read_json(folder + "/expected.json");
  l.model = golden_model("models/" + l.numbers.string_at("model", "expected.json"));
  RouterConfig config;
  config.layers = l.model->config().layers;
  config.hidden = l.model->config().hidden;
  config.experts = attention ? 2 : static_cast<int64_t>(l.numbers.find("experts")->size());
  config.ffn = !attention;
  config.attention = attention;
  const Json &c = l.numbers.find("cases")->at(case_name, "expected.json");
  config.form = parse_gate_form(c.string_at("form", case_name));
  config.top_k = c.integer_at("k", case_name);
  config.temperature = static_cast<float>(c.number_at("tau", case_name));
  for (int64_t i = 1; i <= config.experts; i++) {
    l.mixture.domains.push_back(text("expert", i));
    l.mixture.experts.push_back(Adapter::load(*l.model, folder + text(attention ? "/attn_expert" : "/expert", i), false));
  }
  l.mixture.router = Router::load(folder + (attention ? "/attn_router.safetensors" : "/router.safetensors"), config);
  l.batch = read_packed_batch(folder + "/batch.safetensors");
  return l;
}

PassResult run(Loaded &l, PassRequest request, const PackedBatch &batch) {
  Overlay overlay;
  overlay.mixture = &l.mixture;
  request.gradient_scale = 1.0f / static_cast<float>(batch.supervised());
  Arena arena = pass_arena(*l.model, training_pass_bytes(*l.model, overlay, request, batch.size(), batch.supervised()));
  return training_pass(*l.model, overlay, batch, request, arena);
}

std::vector<float> captured(const Capture &capture, const std::string &name) {
  for (const auto &[key, tensor] : capture.tensors) {
    if (key == name) return tensor.integers.empty() ? tensor.values : std::vector<float>(tensor.integers.begin(), tensor.integers.end());
  }
  return {};
}

RouterLosses losses_of(const Json &numbers) {
  RouterLosses losses;
  losses.balance = static_cast<float>(numbers.number_at("alpha", "expected.json"));
  losses.z = static_cast<float>(numbers.number_at("beta", "expected.json"));
  for (const Json &x : numbers.find("target_usage")->items()) losses.target_usage.push_back(static_cast<float>(x.number()));
  return losses;
}

void expect_router_gradients(Loaded &l, const Safetensors &expected, const std::string &prefix) {
  for (const Router::Entry &entry : l.mixture.router->entries()) {
    const std::vector<float> gradient = golden_floats(expected, prefix + entry.key);
    EXPECT_LT(largest_difference(gradient, l.mixture.router->gradients().data() + entry.offset, gradient.size()), 1e-4) << prefix << entry.key;
  }
}

class GoldenMixture : public testing::TestWithParam<std::tuple<const char *, const char *>> {};

// One pass that trains the router, with everything a golden case compares.
PassResult run_captured(Loaded &l, Capture &capture) {
  capture.logits = capture.router = true;
  PassRequest request;
  request.train = Trainable::router;
  request.capture = &capture;
  return run(l, request, l.batch);
}

TEST_P(GoldenMixture, RoutingLogitsLossesAndGradientsAreTheReferences) {
  const auto [name, case_name] = GetParam();
  Loaded l = load(name, case_name);
  const Safetensors expected(golden_path(text("mixture/", name, "/", case_name, ".safetensors")));
  const Json &c = l.numbers.find("cases")->at(case_name, "expected.json");
  Capture capture;
  const PassResult result = run_captured(l, capture);
  EXPECT_NEAR(result.nll / static_cast<double>(result.supervised), c.number_at("lm_loss", case_name), 1e-5);
  EXPECT_LT(largest_difference(golden_floats(expected, "logits"), captured(capture, "logits")), 2e-4);
  for (int64_t i = 0; i < l.model->config().layers; i++) {
    const std::string layer = text("layers.", i, ".");
    EXPECT_LT(largest_difference(golden_floats(expected, layer + "router_logits"), captured(capture, layer + "router.logits")), 2e-4);
    EXPECT_LT(largest_difference(golden_floats(expected, layer + "probs"), captured(capture, layer + "router.probs")), 2e-4);
    EXPECT_LT(largest_difference(golden_floats(expected, layer + "gates"), captured(capture, layer + "router.gates")), 2e-4);
    const std::vector<int32_t> chosen = expected.read_integers(expected.at(layer + "chosen"));
    EXPECT_EQ(std::vector<float>(chosen.begin(), chosen.end()), captured(capture, layer + "router.experts"));
  }
  expect_router_gradients(l, expected, "grad_lm.");

  const RouterLosses losses = losses_of(l.numbers);
  EXPECT_NEAR(result.router.balance(losses.target_usage), c.number_at("balance_target", case_name), 1e-5);
  EXPECT_NEAR(result.router.balance({}), c.number_at("balance_uniform", case_name), 1e-5);
  EXPECT_NEAR(result.router.z(), c.number_at("z_loss", case_name), 1e-4);
  std::fill(l.mixture.router->gradients().begin(), l.mixture.router->gradients().end(), 0.0f);
  PassRequest request;
  request.train = Trainable::router;
  request.losses = losses;
  run(l, request, l.batch);
  expect_router_gradients(l, expected, "grad_total.");
}
INSTANTIATE_TEST_SUITE_P(Cases, GoldenMixture,
                         testing::Combine(testing::Values("qwen3", "llama", "gemma3_text"),
                                          testing::Values("delta_k1", "delta_k2", "delta_k3", "delta_k2_tau", "weighted_k2", "weighted_k3",
                                                          "renormalised_delta_k2", "straight_through_k1")),
                         [](const auto &info) { return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param); });

class GoldenMixtureModel : public testing::TestWithParam<const char *> {};

TEST_P(GoldenMixtureModel, JointGradientsAreTheReferences) {
  Loaded l = load(GetParam(), "joint_k2");
  const Safetensors expected(golden_path(text("mixture/", GetParam(), "/joint_k2.safetensors")));
  PassRequest request;
  request.train = Trainable::joint;
  run(l, request, l.batch);
  expect_router_gradients(l, expected, "grad_lm.");
  for (size_t e = 0; e < l.mixture.experts.size(); e++) {
    for (const Adapter::Entry &entry : l.mixture.experts[e]->entries()) {
      const std::vector<float> gradient = golden_floats(expected, text("grad_lm.expert", e + 1, ".", entry.key));
      EXPECT_LT(largest_difference(gradient, l.mixture.experts[e]->gradients().data() + entry.offset, gradient.size()), 1e-4) << e << entry.key;
    }
  }
}

TEST_P(GoldenMixtureModel, EachExpertAloneIsTheSingleAdapterModel) {
  Loaded l = load(GetParam(), "delta_k2");
  const Safetensors expected(golden_path(text("mixture/", GetParam(), "/single_experts.safetensors")));
  for (size_t e = 0; e < l.mixture.experts.size(); e++) {
    Overlay overlay;
    overlay.adapter = l.mixture.experts[e].get();
    Capture capture;
    capture.logits = true;
    PassRequest request;
    request.capture = &capture;
    Arena arena = pass_arena(*l.model, training_pass_bytes(*l.model, overlay, request, l.batch.size(), l.batch.supervised()));
    training_pass(*l.model, overlay, l.batch, request, arena);
    EXPECT_LT(largest_difference(golden_floats(expected, text("expert", e + 1, ".logits")), captured(capture, "logits")), 2e-4) << e;
  }
}

TEST_P(GoldenMixtureModel, TwentyRouterStepsFollowTheReference) {
  Loaded l = load(GetParam(), "train_router_k2");
  const std::string folder = golden_path(text("mixture/", GetParam()));
  const Json &c = l.numbers.find("cases")->at("train_router_k2", "expected.json");
  const PackedBatch batch = read_packed_batch(folder + "/train_batch.safetensors");
  PassRequest request;
  request.train = Trainable::router;
  request.losses = losses_of(l.numbers);
  Router &router = *l.mixture.router;
  const std::shared_ptr<Backend> &ops = l.model->shared_backend();
  SharedArray m(router.size()), v(router.size());
  for (int64_t step = 0; step < 20; step++) {
    std::fill(router.gradients().begin(), router.gradients().end(), 0.0f);
    const PassResult result = run(l, request, batch);
    const auto &row = c.find("steps")->items()[static_cast<size_t>(step)].items();
    const double lm = result.nll / static_cast<double>(result.supervised);
    const double balance = result.router.balance(request.losses.target_usage), z = result.router.z();
    EXPECT_NEAR(lm, row[0].number(), 1e-3) << step;
    EXPECT_NEAR(balance, row[1].number(), 1e-3) << step;
    EXPECT_NEAR(z, row[2].number(), 1e-3 * (1 + z)) << step;
    EXPECT_NEAR(lm + request.losses.balance * balance + request.losses.z * z, row[3].number(), 1e-3) << step;
    AdamW options;
    options.learning_rate = static_cast<float>(c.number_at("lr", "train"));
    options.weight_decay = static_cast<float>(c.number_at("weight_decay", "train"));
    options.step = step + 1;
    ops->adamw(static_cast<int64_t>(router.size()), router.shared_parameters().bring(ops, true), router.shared_gradients().bring(ops, false),
               m.bring(ops, true), v.bring(ops, true), options);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, GoldenMixtureModel, testing::Values("qwen3", "llama", "gemma3_text"),
                         [](const auto &info) { return std::string(info.param); });

TEST(GoldenAttentionMixture, RoutingLogitsAndGradientsAreTheReferences) {
  Loaded l = load("qwen3", "attention_k2", true);
  const Safetensors expected(golden_path("mixture/qwen3/attention_k2.safetensors"));
  Capture capture;
  const PassResult result = run_captured(l, capture);
  EXPECT_NEAR(result.nll / static_cast<double>(result.supervised),
              l.numbers.find("cases")->at("attention_k2", "expected.json").number_at("lm_loss", "attention_k2"), 1e-5);
  EXPECT_LT(largest_difference(golden_floats(expected, "logits"), captured(capture, "logits")), 2e-4);
  for (int64_t i = 0; i < l.model->config().layers; i++) {
    EXPECT_LT(largest_difference(golden_floats(expected, text("layers.", i, ".gates")), captured(capture, text("layers.", i, ".attn_router.gates"))), 2e-4);
  }
  expect_router_gradients(l, expected, "grad_lm.");
}

}  // namespace
}  // namespace moe::test
