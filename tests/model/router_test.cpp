// Weights of the per-layer token router and their file.
#include "model/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats/safetensors.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::golden_path;
using test::TemporaryFolder;

RouterConfig config_of(int64_t layers, int64_t hidden, int64_t experts) {
  RouterConfig config;
  config.layers = layers;
  config.hidden = hidden;
  config.experts = experts;
  return config;
}

std::vector<float> values(std::span<const float> span) { return {span.begin(), span.end()}; }

TEST(Router, StartsWithSmallNormalWeightsAndNoBias) {
  RouterConfig config = config_of(3, 500, 4);
  config.attention = true;
  const auto router = Router::create(config, 5);
  EXPECT_EQ(router->parameters().size(), 2u * 3 * 5 * 501);
  std::vector<double> firsts;
  for (RouterKind kind : {RouterKind::ffn, RouterKind::attention}) {
    for (int64_t layer = 0; layer < 3; layer++) {
      const float *w = router->weight(layer, kind), *b = router->bias(layer, kind);
      double sum = 0, squares = 0;
      for (int i = 0; i < 2500; i++) sum += w[i], squares += static_cast<double>(w[i]) * w[i];
      EXPECT_NEAR(sum / 2500, 0, 0.002);
      EXPECT_NEAR(std::sqrt(squares / 2500), 0.02, 0.002);
      for (int i = 0; i < 5; i++) EXPECT_EQ(b[i], 0);
      firsts.push_back(w[0]);
    }
  }
  std::sort(firsts.begin(), firsts.end());
  EXPECT_EQ(std::unique(firsts.begin(), firsts.end()), firsts.end()) << "every router starts differently";
  EXPECT_EQ(values(router->parameters()), values(Router::create(config, 5)->parameters()));
  EXPECT_NE(values(router->parameters()), values(Router::create(config, 6)->parameters()));
}

TEST(Router, FormsHaveTheirNames) {
  for (GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted, GateForm::straight_through}) {
    EXPECT_EQ(parse_gate_form(gate_form_name(form)), form);
  }
  EXPECT_FAILS(parse_gate_form("softmax"), Code::invalid,
               "expected delta, renormalised_delta, weighted or straight_through, found 'softmax'");
}

TEST(Router, SettingsThatCannotWorkAreRefused) {
  RouterConfig config = config_of(2, 8, 3);
  config.top_k = 0;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "top_k: expected 1 to 4 (3 experts and the base), found 0");
  config.top_k = 5;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "found 5");
  config.top_k = 4;
  EXPECT_EQ(Router::create(config, 0)->config().top_k, 4);
  config.top_k = 1;
  config.form = GateForm::weighted;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "'weighted' with top_k 1");
  config.form = GateForm::delta;
  config.temperature = 0;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "temperature");
  config.temperature = 1;
  config.experts = 0;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "experts, found 0");
  config.experts = 3;
  config.ffn = false;
  EXPECT_FAILS(Router::create(config, 0), Code::invalid, "at least one router");
}

TEST(Router, GradientsStandBesideTheParameters) {
  RouterConfig config = config_of(2, 7, 2);
  config.attention = true;
  const auto router = Router::create(config, 0);
  EXPECT_EQ(router->weight_gradient(1, RouterKind::attention) - router->gradients().data(),
            router->weight(1, RouterKind::attention) - router->parameters().data());
  EXPECT_EQ(router->bias_gradient(0, RouterKind::ffn) - router->gradients().data(),
            router->bias(0, RouterKind::ffn) - router->parameters().data());
  for (float x : router->gradients()) EXPECT_EQ(x, 0);
  EXPECT_FAILS(router->weight(2, RouterKind::ffn), Code::internal, "layer 2");
  config.attention = false;
  EXPECT_FAILS(Router::create(config, 0)->weight(0, RouterKind::attention), Code::internal, "layer 0");
}

TEST(Router, SavedAndLoadedItIsTheSame) {
  RouterConfig config = config_of(2, 7, 2);
  config.attention = true;
  const auto router = Router::create(config, 9);
  for (size_t i = 0; i < router->parameters().size(); i++) router->parameters()[i] += static_cast<float>(i);
  const TemporaryFolder folder;
  router->save(folder / "router.safetensors", {{"steps", "20"}});
  const auto loaded = Router::load(folder / "router.safetensors", config);
  EXPECT_EQ(values(router->parameters()), values(loaded->parameters()));
  EXPECT_EQ(Safetensors(folder / "router.safetensors").metadata_or("steps", ""), "20");
}

TEST(Router, GoldenFilesLoad) {
  const auto ffn = Router::load(golden_path("mixture/qwen3/router.safetensors"), config_of(3, 48, 3));
  const Safetensors file(golden_path("mixture/qwen3/router.safetensors"));
  const std::vector<float> w = file.read_floats(file.at("layers.2.router.weight")),
                           b = file.read_floats(file.at("layers.2.router.bias"));
  EXPECT_TRUE(std::equal(w.begin(), w.end(), ffn->weight(2, RouterKind::ffn)));
  EXPECT_TRUE(std::equal(b.begin(), b.end(), ffn->bias(2, RouterKind::ffn)));
  RouterConfig attention = config_of(3, 48, 2);
  attention.ffn = false;
  attention.attention = true;
  EXPECT_NE(Router::load(golden_path("mixture/qwen3/attn_router.safetensors"), attention)->weight(0, RouterKind::attention)[0],
            0);
}

TEST(Router, FilesThatDoNotFitAreErrors) {
  const std::string path = golden_path("mixture/qwen3/router.safetensors");
  EXPECT_FAILS(Router::load(path, config_of(3, 48, 2)), Code::format,
               "tensor 'layers.0.router.weight': expected shape [3, 48] (2 experts and the base), found [4, 48]");
  EXPECT_FAILS(Router::load(path, config_of(4, 48, 3)), Code::format, "tensor 'layers.3.router.weight' is missing");
  EXPECT_FAILS(Router::load(path, config_of(2, 48, 3)), Code::format, "is no part of a router of 2 layers");
  RouterConfig both = config_of(3, 48, 3);
  both.attention = true;
  EXPECT_FAILS(Router::load(path, both), Code::format, "tensor 'layers.0.attn_router.weight' is missing");
  const TemporaryFolder folder;
  const auto broken = Router::create(config_of(1, 3, 1), 0);
  broken->parameters()[1] = NAN;
  broken->save(folder / "r.safetensors");
  EXPECT_FAILS(Router::load(folder / "r.safetensors", config_of(1, 3, 1)), Code::numeric, "'layers.0.router.weight' holds nan");
}

}  // namespace
}  // namespace moe
