// A bundle of two small trained adapters on the tiny model.
#pragma once
#include "api/api.h"

namespace moe::test {

struct Bundle {
  ModelHandle base = load_tiny();
  TemporaryFolder folder;
  std::string path() const { return folder / "bundle"; }

  explicit Bundle(Values values = {}) {
    moe_error error = MOE_ERROR_INIT;
    for (const char *domain : {"math", "law"}) add_adapter(domain);
    values.insert({{"adapters_dir", folder / "adapters"}, {"output_dir", path()}});
    EXPECT_OK(moe_bundle_build(base, make_options(values), nullptr, &error));
  }

  ModelHandle open() const {
    moe_error error = MOE_ERROR_INIT;
    ModelHandle model;
    EXPECT_OK(moe_model_open_bundle(base, path().c_str(), nullptr, &model, &error));
    return model;
  }

 private:
  void add_adapter(const std::string &domain) {
    moe_error error = MOE_ERROR_INIT;
    const OptionsHandle options = make_options({{"rank", "2"},
                                                {"learning_rate", "0.1"},
                                                {"warmup_ratio", "0"},
                                                {"max_steps", "3"},
                                                {"target_modules", "gate_proj,up_proj,down_proj"},
                                                {"seed", domain == "math" ? "1" : "2"}});
    LoraHandle lora;
    TrainerHandle trainer;
    EXPECT_OK(moe_lora_create(base, options, &lora, &error));
    EXPECT_OK(moe_trainer_create_lora(lora, nullptr, options, nullptr, &trainer, &error));
    SmallBatch small;
    if (domain == "law") std::swap(small.labels[0], small.labels[5]);
    const moe_batch batch = small.view();
    for (int i = 0; i < 2; i++) EXPECT_OK(moe_lora_train_step(trainer, &batch, nullptr, &error));
    std::filesystem::create_directories(folder / ("adapters/" + domain));
    EXPECT_OK(moe_lora_save(lora, (folder / ("adapters/" + domain + "/final_adapter")).c_str(), &error));
  }
};

}  // namespace moe::test
