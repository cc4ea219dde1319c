// The mixture bundle: built, validated, loaded, damaged.
#include "model/bundle.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/sha256.h"
#include "model/bundle_files.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using test::golden_model;
using test::golden_path;
using test::TemporaryFolder;

std::vector<float> values(std::span<const float> span) { return {span.begin(), span.end()}; }

BundleBuild golden_build() {
  BundleBuild build;
  for (const auto &[domain, expert] : {std::pair{"medical", "expert1"}, {"math", "expert2"}, {"code", "expert3"}}) {
    build.adapters.emplace_back(domain, golden_path(std::string("mixture/qwen3/") + expert));
  }
  build.router_file = golden_path("mixture/qwen3/router.safetensors");
  return build;
}

class Bundle : public testing::Test {
 protected:
  // (good, line) of every finding
  std::vector<std::pair<bool, std::string>> findings(bool expected) {
    std::vector<std::pair<bool, std::string>> lines;
    EXPECT_EQ(validate_bundle(*model_, folder_, [&](bool good, const std::string &line) { lines.emplace_back(good, line); }),
              expected);
    return lines;
  }
  // The bad findings joined.
  std::string complaints() {
    std::string all;
    for (const auto &[good, line] : findings(false)) all += good ? "" : line + "\n";
    return all;
  }
  void edit(const std::string &name, const std::function<void(Json &)> &change) {
    Json json = read_json(folder_ + "/" + name);
    change(json);
    std::ofstream(folder_ + "/" + name) << json.dump(2);
  }

  std::shared_ptr<const BaseModel> model_ = golden_model("models/qwen3");
  TemporaryFolder temporary_;
  std::string folder_ = temporary_ / "moe_model";
};

TEST_F(Bundle, TwoWritersOfItsRouterAreKeptApart) {
  build_bundle(*model_, golden_build(), folder_);
  const Mixture mixture = load_bundle(*model_, folder_);
  std::ofstream(folder_ + "/.router.safetensors.new-1-2-3") << "what a killed run left";
  {
    const FileLock other(folder_ + "/.lock");
    EXPECT_FAILS(save_bundle_router(folder_, *mixture.router, Json()), Code::busy, "moe_model/.lock");
  }
  save_bundle_router(folder_, *mixture.router, Json());
  EXPECT_FALSE(fs::exists(folder_ + "/.router.safetensors.new-1-2-3"));
  findings(true);
}

TEST_F(Bundle, HoldsTheFilesOfItsLayoutEachWithFormatAndHash) {
  const Json summary = build_bundle(*model_, golden_build(), folder_);
  EXPECT_EQ(summary.string_at("result", "summary"), "good");
  const Json config = read_json(folder_ + "/moe_config.json");
  EXPECT_EQ(config.string_at("format", ""), "libmoe.bundle");
  for (const char *name :
       {"moe_config.json", "domain_mapping.json", "router_config.json", "model_info.json", "build_summary.json"}) {
    const Json json = read_json(folder_ + "/" + name);
    EXPECT_EQ(json.integer_at("format_version", name), 1);
    EXPECT_TRUE(json.string_at("format", name).starts_with("libmoe.")) << name;
  }
  const Json mapping = read_json(folder_ + "/domain_mapping.json");
  EXPECT_EQ(mapping.integer_at("base", ""), 0);
  EXPECT_EQ(mapping.integer_at("medical", ""), 1);
  EXPECT_EQ(mapping.integer_at("code", ""), 3);
  size_t files = 0;
  for (const auto &entry : fs::recursive_directory_iterator(folder_)) {
    if (!entry.is_regular_file()) continue;
    files++;
    const std::string name = fs::relative(entry.path(), folder_);
    if (name == "moe_config.json") continue;
    EXPECT_EQ(config.at("files", "").at(name, "files").string_at("sha256", ""), sha256_file(entry.path())) << name;
  }
  EXPECT_EQ(files, config.at("files", "").size() + 1);
  EXPECT_TRUE(is_bundle(folder_));
  EXPECT_FALSE(is_bundle(temporary_.path()));
}

TEST_F(Bundle, LoadsWhatItWasBuiltFrom) {
  build_bundle(*model_, golden_build(), folder_);
  const Mixture mixture = load_bundle(*model_, folder_, true);
  EXPECT_EQ(mixture.domains, (std::vector<std::string>{"medical", "math", "code"}));
  for (size_t i = 0; i < 3; i++) {
    const auto expected = Adapter::load(*model_, golden_path(text("mixture/qwen3/expert", i + 1)), false);
    EXPECT_EQ(values(mixture.experts[i]->parameters()), values(expected->parameters()));
  }
  ASSERT_NE(mixture.router, nullptr);
  const RouterConfig &config = mixture.router->config();
  EXPECT_EQ(config.layers, 3);
  EXPECT_EQ(config.hidden, 48);
  EXPECT_EQ(config.top_k, 2);
  EXPECT_TRUE(config.ffn);
  EXPECT_FALSE(config.attention);
  const Safetensors file(golden_path("mixture/qwen3/router.safetensors"));
  const std::vector<float> w = file.read_floats(file.at("layers.1.router.weight"));
  EXPECT_TRUE(std::equal(w.begin(), w.end(), mixture.router->weight(1, RouterKind::ffn)));
}

TEST_F(Bundle, AttentionAdaptersGetAttentionRouters) {
  BundleBuild build;
  build.adapters = {{"a", golden_path("mixture/qwen3/attn_expert1")}, {"b", golden_path("mixture/qwen3/expert2")}};
  build.router.form = GateForm::renormalised_delta;
  build.router.temperature = 0.5f;
  build_bundle(*model_, build, folder_);
  const Mixture mixture = load_bundle(*model_, folder_);
  EXPECT_TRUE(mixture.router->has(RouterKind::attention) && mixture.router->has(RouterKind::ffn));
  EXPECT_EQ(mixture.router->config().form, GateForm::renormalised_delta);
  EXPECT_EQ(mixture.router->config().temperature, 0.5f);
  findings(true);
}

TEST_F(Bundle, DomainGatingHasNoRouterAndAFallback) {
  BundleBuild build = golden_build();
  build.gating = "domain";
  build.fallback_domain = "math";
  build_bundle(*model_, build, folder_);
  EXPECT_EQ(load_bundle(*model_, folder_).router, nullptr);
  EXPECT_EQ(read_bundle_config(folder_).fallback_domain, "math");
  EXPECT_FALSE(fs::exists(folder_ + "/router.safetensors"));
  findings(true);
}

TEST_F(Bundle, AGoodOneHasOnlyGoodFindings) {
  build_bundle(*model_, golden_build(), folder_);
  const auto lines = findings(true);
  EXPECT_GE(lines.size(), 11u + 1 + 3 + 1 + 4);
  for (const auto &[good, line] : lines) {
    EXPECT_TRUE(good) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
}

TEST_F(Bundle, DamageOfAnyFileIsFoundAndNamed) {
  build_bundle(*model_, golden_build(), folder_);
  std::vector<std::string> names;
  for (const auto &[name, record] : read_bundle_config(folder_).files) names.push_back(name);
  EXPECT_EQ(names.size(), 3 * 2 + 5u);
  for (const std::string &name : names) {
    const std::string path = folder_ + "/" + name, content = read_file(path);
    std::string changed = content;
    changed[changed.size() / 2] ^= 1;
    std::ofstream(path, std::ios::binary) << changed;
    EXPECT_NE(complaints().find(name + ": "), std::string::npos) << name << " changed";
    std::ofstream(path, std::ios::binary) << content.substr(0, content.size() - 1);
    EXPECT_NE(complaints().find(name + ": "), std::string::npos) << name << " cut";
    fs::remove(path);
    EXPECT_NE(complaints().find(name + ": "), std::string::npos) << name << " removed";
    if (name.ends_with(".safetensors") || name.ends_with("adapter_config.json")) {
      EXPECT_THROW(load_bundle(*model_, folder_), Error) << name;
    }
    std::ofstream(path, std::ios::binary) << content;
  }
  findings(true);
}

TEST_F(Bundle, ADamagedConfigIsAFindingToo) {
  build_bundle(*model_, golden_build(), folder_);
  std::ofstream(folder_ + "/moe_config.json") << "{\"format\": ";
  EXPECT_NE(complaints().find("moe_config.json"), std::string::npos);
  EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, "moe_config.json");
}

TEST_F(Bundle, PathsThatLeaveTheFolderAreRefused) {
  build_bundle(*model_, golden_build(), folder_);
  const std::string good = read_file(folder_ + "/moe_config.json");
  for (const char *path : {"../other", "/etc", "adapters/../../x"}) {
    edit("moe_config.json", [&](Json &json) {
      Json paths = json.at("adapter_paths", "");
      paths.set("math", path);
      json.set("adapter_paths", paths);
    });
    EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, "leaves the folder");
    std::ofstream(folder_ + "/moe_config.json") << good;
    edit("moe_config.json", [&](Json &json) { json.set("router_file", path); });
    EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, "key 'router_file'");
    std::ofstream(folder_ + "/moe_config.json") << good;
  }
  edit("moe_config.json", [&](Json &json) { json.set("files", Json::object({{"../x", Json::object({{"sha256", "0"}})}})); });
  EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, "key 'files': '../x' leaves the folder");
}

TEST_F(Bundle, FilesThatAreNotRecordedAreNotLoaded) {
  build_bundle(*model_, golden_build(), folder_);
  edit("moe_config.json", [&](Json &json) {
    Json files = Json::object();
    for (const auto &[name, record] : json.at("files", "").members()) {
      if (name != "adapters/math/adapter_model.safetensors") files.set(name, record);
    }
    json.set("files", files);
  });
  EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, "adapters/math/adapter_model.safetensors: is not listed");
  EXPECT_NE(complaints().find("adapters/math/adapter_model.safetensors"), std::string::npos);
}

TEST_F(Bundle, AnotherBaseIsAnErrorAndOtherWeightsAWarning) {
  const auto q8 = golden_model("gguf/qwen3-Q8_0.gguf"), q4 = golden_model("gguf/qwen3-Q4_0.gguf");
  LoraConfig lora;
  lora.target_modules.all_linear = true;
  const TemporaryFolder adapter;
  Adapter::create(*q8, lora, 0)->save(*q8, adapter.path());
  BundleBuild build;
  build.adapters = {{"one", adapter.path()}};
  build_bundle(*q8, build, folder_);
  EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, q8->architecture_fingerprint());
  EXPECT_FAILS(load_bundle(*model_, folder_), Code::format, model_->architecture_fingerprint());
  EXPECT_EQ(load_bundle(*q4, folder_).domains.size(), 1u);
  EXPECT_FAILS(load_bundle(*q4, folder_, true), Code::format, "other weights");
  EXPECT_NE(complaints().find("another architecture"), std::string::npos);
}

TEST_F(Bundle, WhatCannotBeBuiltIsRefusedBeforeAnythingIsWritten) {
  const auto refuse = [&](const std::function<void(BundleBuild &)> &change, Code code, const std::string &part) {
    BundleBuild build = golden_build();
    change(build);
    EXPECT_FAILS(build_bundle(*model_, build, folder_), code, part);
    EXPECT_FALSE(fs::exists(folder_));
  };
  refuse([](BundleBuild &b) { b.adapters.clear(); }, Code::invalid, "at least one");
  refuse([](BundleBuild &b) { b.adapters[1].first = "medical"; }, Code::invalid, "'medical' occurs twice");
  refuse([](BundleBuild &b) { b.adapters[1].first = "base"; }, Code::invalid, "'base' cannot be the name");
  refuse([](BundleBuild &b) { b.adapters[1].first = "../x"; }, Code::invalid, "'../x' cannot be the name");
  refuse([](BundleBuild &b) { b.gating = "xlora"; }, Code::unsupported, "gating: 'xlora' is not built in yet");
  refuse([](BundleBuild &b) { b.gating = "dense"; }, Code::invalid, "gating: expected token or domain, found 'dense'");
  refuse([](BundleBuild &b) { b.fallback_domain = "law"; }, Code::invalid, "fallback_domain: 'law'");
  refuse([](BundleBuild &b) { b.router.top_k = 5; }, Code::invalid, "top_k: expected 1 to 4");
  refuse([](BundleBuild &b) { b.adapters[0].second = golden_path("lora/llama_qv_rslora"); }, Code::format, "llama_qv_rslora");
  refuse([](BundleBuild &b) { b.router_file = golden_path("mixture/gemma3_text/router.safetensors"); }, Code::format,
         "router.safetensors");
}

TEST_F(Bundle, AFolderThatIsNoBundleIsNotReplaced) {
  fs::create_directory(folder_);
  std::ofstream(folder_ + "/thesis.txt") << "years of work";
  EXPECT_FAILS(build_bundle(*model_, golden_build(), folder_), Code::invalid, "exists and is no bundle");
  EXPECT_TRUE(fs::exists(folder_ + "/thesis.txt"));
}

TEST_F(Bundle, ABundleIsReplacedByANewBuildFromItsOwnAdapters) {
  build_bundle(*model_, golden_build(), folder_);
  BundleBuild build;
  build.adapters = {{"code", folder_ + "/adapters/code"}, {"medical", folder_ + "/adapters/medical"}};
  build_bundle(*model_, build, folder_);
  EXPECT_EQ(load_bundle(*model_, folder_).domains, (std::vector<std::string>{"code", "medical"}));
  EXPECT_FALSE(fs::exists(folder_ + "/adapters/math"));
  findings(true);
}

TEST_F(Bundle, ATrainedRouterReplacesTheOldOne) {
  build_bundle(*model_, golden_build(), folder_);
  Mixture mixture = load_bundle(*model_, folder_);
  for (float &x : mixture.router->parameters()) x += 1;
  Json usage = Json::array();
  for (double share : {0.25, 0.25, 0.25, 0.25}) usage.push(share);
  save_bundle_router(folder_, *mixture.router, Json::object({{"steps", 20}, {"target_usage", usage}}));
  findings(true);
  EXPECT_EQ(values(load_bundle(*model_, folder_).router->parameters()), values(mixture.router->parameters()));
  EXPECT_EQ(read_bundle_config(folder_).target_usage, std::vector<float>(4, 0.25f));
  EXPECT_EQ(read_json(folder_ + "/router_config.json").integer_at("steps", ""), 20);
  for (const auto &[name, record] : read_bundle_config(folder_).files) EXPECT_EQ(record.next_sha256, "") << name;
}

TEST_F(Bundle, TrainedExpertsReplaceTheOldOnesTogetherWithTheRouter) {
  build_bundle(*model_, golden_build(), folder_);
  Mixture mixture = load_bundle(*model_, folder_);
  for (float &x : mixture.router->parameters()) x += 1;
  for (const auto &expert : mixture.experts) {
    for (float &x : expert->parameters()) x *= 2;
  }
  save_bundle_mixture(*model_, folder_, mixture, Json::object({{"steps", 20}}));
  findings(true);
  const Mixture loaded = load_bundle(*model_, folder_, true);
  EXPECT_EQ(values(loaded.router->parameters()), values(mixture.router->parameters()));
  for (size_t i = 0; i < 3; i++) EXPECT_EQ(values(loaded.experts[i]->parameters()), values(mixture.experts[i]->parameters())) << i;
  EXPECT_EQ(read_json(folder_ + "/router_config.json").string_at("format", ""), "libmoe.router_config");
  EXPECT_FALSE(fs::exists(folder_ + "/.replacement"));
  std::swap(mixture.domains[0], mixture.domains[1]);
  EXPECT_FAILS(save_bundle_mixture(*model_, folder_, mixture, {}), Code::invalid, "domains of the mixture");
}

// tests/fault kills a save at every call; this is the state that lasts longest.
TEST_F(Bundle, CutOffBeforeItsNewFilesHaveTheirNamesItIsTheNewOneAndTheNextSaveFinishes) {
  build_bundle(*model_, golden_build(), folder_);
  Mixture mixture = load_bundle(*model_, folder_);
  for (float &x : mixture.router->parameters()) x += 1;
  const std::string old_router = read_file(folder_ + "/router.safetensors"), old_config = read_file(folder_ + "/router_config.json");
  save_bundle_router(folder_, *mixture.router, Json::object({{"steps", 1}}));
  const std::string next = folder_ + "/.replacement/router.safetensors";
  fs::create_directory(folder_ + "/.replacement");
  fs::rename(folder_ + "/router.safetensors", next);
  std::ofstream(folder_ + "/router.safetensors") << old_router;
  edit("moe_config.json", [&](Json &json) {
    Json files = Json::object();
    for (const auto &[name, record] : json.at("files", "").members()) {
      if (name != "router.safetensors") files.set(name, record);
    }
    files.set(".replacement/router.safetensors", Json::object({{"sha256", sha256_file(next)}}));
    files.set("router_config.json", Json::object({{"sha256", sha256_hex(old_config.data(), old_config.size())},
                                                  {"next_sha256", sha256_file(folder_ + "/router_config.json")}}));
    json.set("files", files).set("router_file", ".replacement/router.safetensors");
  });
  const std::string new_config = read_file(folder_ + "/router_config.json");
  for (const std::string &config : {old_config, new_config}) {
    std::ofstream(folder_ + "/router_config.json") << config;
    findings(true);
    EXPECT_EQ(values(load_bundle(*model_, folder_).router->parameters()), values(mixture.router->parameters()));
  }
  for (float &x : mixture.router->parameters()) x += 1;
  save_bundle_router(folder_, *mixture.router, {});
  findings(true);
  EXPECT_EQ(values(load_bundle(*model_, folder_).router->parameters()), values(mixture.router->parameters()));
  EXPECT_EQ(read_bundle_config(folder_).router_file, "router.safetensors");
  EXPECT_FALSE(fs::exists(folder_ + "/.replacement"));
}

TEST_F(Bundle, AFolderWithoutFormatIsTheDomainRouterWithShiftedIndices) {
  for (const auto &[domain, expert] : {std::pair{"medical", "expert1"}, {"math", "expert2"}}) {
    fs::create_directories(folder_ + "/adapters");
    fs::copy(golden_path(std::string("mixture/qwen3/") + expert), folder_ + "/adapters/" + domain);
  }
  std::ofstream(folder_ + "/moe_config.json") << R"({"base_model": "somewhere/model", "domains": ["medical", "math"],
    "adapter_paths": {"medical": "adapters/medical", "math": "/home/user/domain_models/math"}, "gating_strategy": "top-1_hard"})";
  std::ofstream(folder_ + "/domain_mapping.json") << R"({"medical": 1, "math": 0})";
  std::ofstream(folder_ + "/router_config.json")
      << R"({"type": "domain", "strategy": "top-1_hard", "fallback_domain": "medical"})";
  const BundleConfig config = read_bundle_config(folder_);
  EXPECT_EQ(config.gating, "domain");
  EXPECT_EQ(config.fallback_domain, "medical");
  EXPECT_EQ(config.base_model_path, "somewhere/model");
  const Mixture mixture = load_bundle(*model_, folder_);
  EXPECT_EQ(mixture.domains, (std::vector<std::string>{"math", "medical"})) << "entry 1 is the old index 0";
  EXPECT_EQ(mixture.router, nullptr);
  findings(true);
  std::ofstream(folder_ + "/domain_mapping.json") << R"({"medical": 1, "math": 1})";
  EXPECT_FAILS(read_bundle_config(folder_), Code::format, "domain_mapping.json: key 'math'");
  std::ofstream(folder_ + "/domain_mapping.json") << R"({"medical": 0, "law": 1})";
  EXPECT_FAILS(read_bundle_config(folder_), Code::format, "domain 'law': no adapter inside the folder");
}

TEST_F(Bundle, NewerVersionsAreRefused) {
  build_bundle(*model_, golden_build(), folder_);
  edit("moe_config.json", [](Json &json) { json.set("format_version", 2); });
  EXPECT_FAILS(read_bundle_config(folder_), Code::unsupported, "'format_version': expected 1, found 2");
  edit("moe_config.json", [](Json &json) { json.set("format", "other"); });
  EXPECT_FAILS(read_bundle_config(folder_), Code::format, "expected libmoe.bundle, found other");
}

}  // namespace
}  // namespace moe
