// Bundles and routers through the C API: building, validation, routing without a model against a reference, training.
#include <cmath>
#include <cstring>
#include <numeric>

#include "api/bundle_fixture.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "support/needs.h"
#include "tensor/dequantize.h"

namespace moe::test {
namespace {

std::vector<std::string> findings(const Bundle &bundle, int32_t *good) {
  moe_error error = MOE_ERROR_INIT;
  std::vector<std::string> lines;
  const auto keep = [](const moe_event *event, void *user) -> int32_t {
    EXPECT_EQ(event->kind, MOE_EVENT_FINDING);
    if (event->value == 0) static_cast<std::vector<std::string> *>(user)->push_back(event->text);
    return 0;
  };
  EXPECT_OK(moe_bundle_validate(bundle.base, bundle.path().c_str(), keep, &lines, good, &error));
  return lines;
}

TEST(Bundle, IsBuiltValidatedAndOpened) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle(Values{{"top_k", "2"}, {"form", "renormalised_delta"}});
  int32_t good = 0;
  EXPECT_EQ(findings(bundle, &good), std::vector<std::string>());
  EXPECT_EQ(good, 1);
  const ModelHandle model = bundle.open();
  EXPECT_EQ(moe_model_experts(model), 2);
  EXPECT_STREQ(moe_model_domain(model, 0), "base");
  EXPECT_STREQ(moe_model_domain(model, 1), "law");  // name order
  EXPECT_STREQ(moe_model_domain(model, 2), "math");
  EXPECT_EQ(moe_model_domain(model, 3), nullptr);
  TextHandle info, inspected;
  ASSERT_OK(moe_model_info(model, &info, &error));
  EXPECT_EQ(json_of(info).at("bundle", "").at("form", "").string(), "renormalised_delta");
  ASSERT_OK(moe_inspect(bundle.path().c_str(), &inspected, &error));
  EXPECT_EQ(json_of(inspected).at("base_model_path", "").string(), tiny());

  ModelHandle loaded;
  EXPECT_CODE(moe_model_load(bundle.path().c_str(), nullptr, nullptr, &loaded, &error), MOE_ERR_INVALID, tiny());
  EXPECT_OK(moe_model_load(bundle.path().c_str(), make_options({{"base_model", tiny()}}), nullptr, &loaded, &error));
  write_text(bundle.path() + "/router.safetensors", "damaged");
  EXPECT_GE(findings(bundle, &good).size(), 1u);
  EXPECT_EQ(good, 0);
  EXPECT_CODE(moe_model_open_bundle(bundle.base, bundle.path().c_str(), nullptr, &loaded, &error), MOE_ERR_FORMAT,
              "router.safetensors");
}

TEST(Bundle, ValidationCanBeCancelled) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  int32_t good = 1;
  const auto stop = [](const moe_event *, void *) -> int32_t { return 1; };
  EXPECT_CODE(moe_bundle_validate(bundle.base, bundle.path().c_str(), stop, nullptr, &good, &error), MOE_ERR_CANCELLED,
              "cancelled");
  EXPECT_EQ(good, 0);
}

struct Reference {
  std::vector<int32_t> ids;
  std::vector<double> weights;
};

// Softmax, top-k and gates of one row in double precision.
Reference route(const std::vector<float> &w, const std::vector<float> &b, const std::vector<float> &row, int k,
                const std::string &form, double tau) {
  const size_t entries = b.size(), d = row.size();
  std::vector<double> z(entries), p(entries);
  for (size_t i = 0; i < entries; i++) {
    z[i] = b[i];
    for (size_t j = 0; j < d; j++) z[i] += static_cast<double>(w[i * d + j]) * row[j];
    p[i] = std::exp(z[i] / tau);
  }
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double &x : p) x /= sum;
  Reference result;
  for (size_t i = 0; i < entries; i++) result.ids.push_back(static_cast<int32_t>(i));
  std::stable_sort(result.ids.begin(), result.ids.end(),
                   [&](int a, int c) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(c)]; });
  result.ids.resize(static_cast<size_t>(k));
  double experts = 0, picked = 0;
  for (int32_t id : result.ids) picked += p[static_cast<size_t>(id)], experts += id ? p[static_cast<size_t>(id)] : 0;
  const double divisor = form == "weighted" ? picked : form == "renormalised_delta" ? p[0] + experts : 1;
  double gates = 0;
  for (int32_t id : result.ids) {
    const double gate = form == "straight_through" ? 1 : p[static_cast<size_t>(id)] / divisor;
    result.weights.push_back(gate);
    if (id) gates += gate;
  }
  for (size_t j = 0; j < result.ids.size(); j++) {
    if (result.ids[j] == 0) result.weights[j] = 1 - gates;
  }
  return result;
}

class RouteAlone : public testing::TestWithParam<std::tuple<const char *, int>> {};

TEST_P(RouteAlone, IsTheReferenceInEveryTypeAndAlignment) {
  const auto [form, k] = GetParam();
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  const OptionsHandle options = make_options({{"form", form}, {"top_k", std::to_string(k)}, {"temperature", "0.05"}});
  const std::string file = bundle.path() + "/router.safetensors";
  RouterHandle router;
  ASSERT_OK(moe_router_load(file.c_str(), options, &router, &error));
  const size_t d = static_cast<size_t>(moe_router_hidden_size(router)), rows = 5;
  EXPECT_EQ(moe_router_experts(router), 2);
  EXPECT_EQ(moe_router_top_k(router), k);
  const Safetensors tensors(file);
  for (int32_t dtype : {MOE_DTYPE_F32, MOE_DTYPE_BF16, MOE_DTYPE_F16}) {
    const size_t size = dtype == MOE_DTYPE_F32 ? 4 : 2, stride = d * size + 3;  // rows of odd alignment
    std::vector<unsigned char> hidden(rows * stride + 1);
    std::vector<std::vector<float>> values(rows, std::vector<float>(d));
    for (size_t r = 0; r < rows; r++) {
      for (size_t j = 0; j < d; j++) {
        const float x = std::sin(static_cast<float>(7 * r + 3 * j + 1)) * 4;
        unsigned char *at = hidden.data() + 1 + r * stride + j * size;
        const uint16_t half = dtype == MOE_DTYPE_BF16 ? float_to_bf16(x) : float_to_f16(x);
        values[r][j] = dtype == MOE_DTYPE_F32 ? x : dtype == MOE_DTYPE_BF16 ? bf16_to_float(half) : f16_to_float(half);
        if (dtype == MOE_DTYPE_F32) std::memcpy(at, &x, 4);
        else std::memcpy(at, &half, 2);
      }
    }
    std::vector<int32_t> ids(rows * static_cast<size_t>(k));
    std::vector<float> weights(ids.size());
    for (int32_t layer = 0; layer < moe_router_layers(router); layer++) {
      const std::string name = text("layers.", layer, ".router.");
      const auto w = tensors.read_floats(tensors.at(name + "weight")), b = tensors.read_floats(tensors.at(name + "bias"));
      ASSERT_OK(moe_router_route(router, layer, hidden.data() + 1, dtype, rows, static_cast<int64_t>(stride), ids.data(),
                                 weights.data(), &error));
      for (size_t r = 0; r < rows; r++) {
        const Reference expected = route(w, b, values[r], k, form, 0.05);
        for (size_t j = 0; j < static_cast<size_t>(k); j++) {
          EXPECT_EQ(ids[r * static_cast<size_t>(k) + j], expected.ids[j]) << r;
          EXPECT_NEAR(weights[r * static_cast<size_t>(k) + j], expected.weights[j], 2e-5) << r;
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Forms, RouteAlone,
                         testing::Values(std::tuple("delta", 1), std::tuple("delta", 2), std::tuple("renormalised_delta", 2),
                                         std::tuple("renormalised_delta", 3), std::tuple("weighted", 2),
                                         std::tuple("weighted", 3), std::tuple("straight_through", 1),
                                         std::tuple("straight_through", 2)));

TEST(Router, RefusesWhatItCannotRoute) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  RouterHandle router;
  ASSERT_OK(moe_router_load(bundle.path().c_str(), nullptr, &router, &error));
  const int64_t d = moe_router_hidden_size(router), bytes = d * 4;
  std::vector<float> hidden(static_cast<size_t>(2 * d), 1), weights(4);
  std::vector<int32_t> ids(4);
  const auto call = [&](int32_t layer, int32_t dtype, int64_t rows, int64_t stride) {
    return moe_router_route(router, layer, hidden.data(), dtype, rows, stride, ids.data(), weights.data(), &error);
  };
  EXPECT_OK(call(0, MOE_DTYPE_F32, 2, bytes));
  EXPECT_OK(call(0, MOE_DTYPE_F32, 0, 0));
  EXPECT_CODE(call(-1, MOE_DTYPE_F32, 2, bytes), MOE_ERR_INVALID, "layer");
  EXPECT_CODE(call(99, MOE_DTYPE_F32, 2, bytes), MOE_ERR_INVALID, "found 99");
  EXPECT_CODE(call(0, 9, 2, bytes), MOE_ERR_INVALID, "dtype");
  EXPECT_CODE(call(0, MOE_DTYPE_F32, -1, bytes), MOE_ERR_INVALID, "rows");
  EXPECT_CODE(call(0, MOE_DTYPE_F32, 2, bytes - 1), MOE_ERR_INVALID, "row_stride_bytes");
  hidden[static_cast<size_t>(d) + 3] = NAN;
  EXPECT_CODE(call(0, MOE_DTYPE_F32, 2, bytes), MOE_ERR_NUMERIC, "row 1");
  EXPECT_CODE(moe_router_route_attention(router, 0, hidden.data(), MOE_DTYPE_F32, 1, bytes, ids.data(), weights.data(), &error),
              MOE_ERR_STATE, "attention");
  EXPECT_CODE(moe_router_load(bundle.path().c_str(), make_options({{"form", "weighted"}, {"top_k", "1"}}), &router, &error),
              MOE_ERR_INVALID, "constant gate");
  EXPECT_CODE(moe_router_load(tiny().c_str(), nullptr, &router, &error), MOE_ERR_FORMAT, "qwen3");
  RouterHandle other;
  EXPECT_CODE(moe_router_create(bundle.base, nullptr, &other, &error), MOE_ERR_STATE, "no bundle");
}

TEST(Router, IsTrainedAndPutIntoItsBundle) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle(Values{{"top_k", "2"}});
  const ModelHandle model = bundle.open();
  write_sums(bundle.folder / "law.jsonl", 12, 1);
  write_sums(bundle.folder / "math.jsonl", 12);
  const OptionsHandle options =
      make_options({{"data", "law=" + (bundle.folder / "law.jsonl") + ",math=" + (bundle.folder / "math.jsonl")},
                    {"batch_size", "4"},
                    {"learning_rate", "1e-2"},
                    {"output_dir", bundle.folder / "out"}});
  RouterHandle router;
  DatasetHandle data;
  TrainerHandle trainer;
  ASSERT_OK(moe_router_load(bundle.path().c_str(), nullptr, &router, &error));
  ASSERT_OK(moe_dataset_open(model, options, nullptr, &data, &error));
  ASSERT_OK(moe_trainer_create_router(model, router, data, options, nullptr, &trainer, &error));
  moe_step step = MOE_STEP_INIT;
  EXPECT_CODE(moe_lora_train_step(trainer, nullptr, &step, &error), MOE_ERR_STATE, "moe_router_train_step");
  ASSERT_OK(moe_router_train_step(trainer, nullptr, &step, &error));
  EXPECT_GT(step.balance_loss, 0);
  EXPECT_GT(step.supervised_loss, 0);
  EXPECT_GT(step.total_loss, step.loss);
  size_t needed = 0;
  ASSERT_OK(moe_trainer_usage(trainer, nullptr, 0, &needed, &error));
  std::vector<double> usage(needed);
  ASSERT_OK(moe_trainer_usage(trainer, usage.data(), usage.size(), &needed, &error));
  EXPECT_EQ(needed, static_cast<size_t>(moe_model_layers(model) * 3));
  EXPECT_NEAR(usage[0] + usage[1] + usage[2], 1, 1e-9);
  TextHandle before, after, summary;
  ASSERT_OK(moe_sha256((bundle.path() + "/router.safetensors").c_str(), &before, &error));
  ASSERT_OK(moe_trainer_run(trainer, nullptr, options, nullptr, nullptr, &summary, &error));
  ASSERT_OK(moe_sha256((bundle.path() + "/router.safetensors").c_str(), &after, &error));
  EXPECT_NE(text_of(before), text_of(after));
  EXPECT_NE(text_of(summary).find("usage"), std::string::npos);
  int32_t good = 0;
  EXPECT_EQ(findings(bundle, &good), std::vector<std::string>());
  bundle.open();
  EXPECT_CODE(
      moe_dataset_open(model, make_options({{"data", "cooking=" + (bundle.folder / "law.jsonl")}}), nullptr, &data, &error),
      MOE_ERR_INVALID, "base, law, math");
}

TEST(Router, ExpertsThatTrainWithItAreInTheBundleAfterwards) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  const ModelHandle model = bundle.open();
  const OptionsHandle options = make_options({{"data", "law=" + write_sums(bundle.folder / "law.jsonl", 12, 1)},
                                              {"batch_size", "4"},
                                              {"max_steps", "5"},
                                              {"warmup_ratio", "0"},
                                              {"train_experts", "true"},
                                              {"expert_learning_rate", "1e-2"}});
  const auto trainer_of = [&](const ModelHandle &opened, moe_dataset *data, TrainerHandle &trainer) {
    RouterHandle router;
    ASSERT_OK(moe_router_load(bundle.path().c_str(), nullptr, &router, &error));
    ASSERT_OK(moe_trainer_create_router(opened, router, data, options, nullptr, &trainer, &error));
  };
  DatasetHandle data, same;
  ASSERT_OK(moe_dataset_open(model, options, nullptr, &data, &error));
  ASSERT_OK(moe_dataset_open(model, options, nullptr, &same, &error));
  TrainerHandle trainer, of_open, of_saved;
  trainer_of(model, data, trainer);
  for (int i = 0; i < 5; i++) ASSERT_OK(moe_router_train_step(trainer, nullptr, nullptr, &error));
  ASSERT_OK(moe_trainer_save_bundle(trainer, bundle.path().c_str(), &error));
  double trained = 0, saved = 0, open = 0;
  ASSERT_OK(moe_trainer_evaluate(trainer, same, &trained, &error));
  trainer_of(bundle.open(), nullptr, of_saved);
  ASSERT_OK(moe_trainer_evaluate(of_saved, same, &saved, &error));
  EXPECT_EQ(saved, trained);
  trainer_of(model, nullptr, of_open);  // the trained router before the experts that were open
  ASSERT_OK(moe_trainer_evaluate(of_open, same, &open, &error));
  EXPECT_GT(open, trained);
  const SmallTrainer lora;
  EXPECT_CODE(moe_trainer_save_bundle(lora.trainer, bundle.path().c_str(), &error), MOE_ERR_STATE, "moe_lora_save");
}

TEST(Router, OfOtherSizesIsRefused) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  const ModelHandle model = bundle.open();
  RouterHandle random, saved;
  ASSERT_OK(moe_router_create(model, make_options({{"seed", "5"}, {"top_k", "1"}}), &random, &error));
  EXPECT_EQ(moe_router_top_k(random), 1);
  EXPECT_CODE(moe_router_create(model, make_options({{"top_k", "4"}}), &saved, &error), MOE_ERR_INVALID, "top_k");
  ASSERT_OK(moe_router_save(random, (bundle.folder / "r.safetensors").c_str(), &error));
  ASSERT_OK(moe_router_load((bundle.folder / "r.safetensors").c_str(), nullptr, &saved, &error));
  ASSERT_OK(moe_bundle_save_router(bundle.path().c_str(), random, &error));
  EXPECT_OK(moe_bundle_save_router(bundle.path().c_str(), saved, &error));
  const std::vector<float> zeros(3 * 8, 0);
  const TensorToWrite tensors[] = {{"layers.0.router.weight", DType::f32, {3, 8}, zeros.data()},
                                   {"layers.0.router.bias", DType::f32, {3}, zeros.data()}};
  write_safetensors(bundle.folder / "small.safetensors", tensors);
  RouterHandle small;
  ASSERT_OK(moe_router_load((bundle.folder / "small.safetensors").c_str(), nullptr, &small, &error));
  TrainerHandle trainer;
  EXPECT_CODE(moe_trainer_create_router(model, small, nullptr, nullptr, nullptr, &trainer, &error), MOE_ERR_INVALID, "expected");
  const float hidden[8] = {};
  int32_t ids[2];
  float weights[2];
  ASSERT_OK(moe_router_route(small, 0, hidden, MOE_DTYPE_F32, 1, 32, ids, weights, &error));
  EXPECT_EQ(ids[0], 0);  // all equal: the lowest first
  EXPECT_EQ(ids[1], 1);
  EXPECT_NEAR(weights[0], 2.0 / 3, 1e-6);
}

}  // namespace
}  // namespace moe::test
