// Models through the C API: loading, what they say of themselves, tokenizer, chat, inspect, log, cancelling.
#include <cstring>

#include "api/api.h"
#include "support/needs.h"

namespace moe::test {
namespace {

std::vector<int32_t> tokenize(const moe_model *model, const std::string &text, int32_t flags = 0) {
  moe_error error = MOE_ERROR_INIT;
  size_t needed = 0;
  EXPECT_OK(moe_model_tokenize(model, text.data(), text.size(), flags, nullptr, 0, &needed, &error));
  std::vector<int32_t> ids(needed);
  EXPECT_OK(moe_model_tokenize(model, text.data(), text.size(), flags, ids.data(), ids.size(), &needed, &error));
  return ids;
}

TEST(Model, SaysWhatItIs) {
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  EXPECT_EQ(moe_model_vocabulary_size(model), 272);
  EXPECT_GT(moe_model_hidden_size(model), 0);
  EXPECT_EQ(moe_model_experts(model), 0);
  EXPECT_STREQ(moe_model_domain(model, 0), "base");
  EXPECT_EQ(moe_model_domain(model, 1), nullptr);
  TextHandle text;
  ASSERT_OK(moe_model_info(model, &text, &error));
  const Json info = json_of(text);
  EXPECT_EQ(info.at("family", "").string(), "qwen3");
  EXPECT_EQ(info.at("layers", "").integer(), moe_model_layers(model));
  EXPECT_EQ(info.at("parameters", "").integer(), moe_model_parameters(model));
  EXPECT_EQ(info.at("compute", "").string(), "f32");
  EXPECT_EQ(info.at("weights_fingerprint", "").string(), moe_model_weights_fingerprint(model));
  EXPECT_EQ(std::string(moe_model_architecture_fingerprint(model)).size(), 64u);
  EXPECT_TRUE(info.at("bundle", "").is_null());
}

TEST(Model, TextComesBackFromItsTokens) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const std::string text("1 + 1 = 2\0\n\xff caf\xc3\xa9", 18);
  const std::vector<int32_t> ids = tokenize(model, text);
  std::string back(64, '#');
  size_t needed = 0;
  ASSERT_OK(moe_model_detokenize(model, ids.data(), ids.size(), 0, back.data(), back.size(), &needed, &error));
  EXPECT_EQ(back.substr(0, needed), text);
  const int32_t outside = 272;
  EXPECT_CODE(moe_model_detokenize(model, &outside, 1, 0, nullptr, 0, &needed, &error), MOE_ERR_INVALID, "272");
  EXPECT_TRUE(tokenize(model, "").empty());
}

TEST(Model, AFailureNamesTheFile) {
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  ModelHandle model;
  EXPECT_CODE(moe_model_load((folder / "none").c_str(), nullptr, nullptr, &model, &error), MOE_ERR_IO, folder / "none");
  write_text(folder / "bad.gguf", std::string("GGUF\3\0\0\0\1", 9));
  EXPECT_CODE(moe_model_load((folder / "bad.gguf").c_str(), nullptr, nullptr, &model, &error), MOE_ERR_FORMAT, "bad.gguf");
  EXPECT_CODE(moe_model_load(folder.path().c_str(), nullptr, nullptr, &model, &error), MOE_ERR_IO, "config.json");
}

TEST(Model, LoadingCanBeCancelled) {
  moe_error error = MOE_ERROR_INIT;
  TokenHandle token;
  ASSERT_OK(moe_cancel_token_create(&token, &error));
  moe_cancel_token_fire(token);
  EXPECT_EQ(moe_cancel_token_fired(token), 1);
  ModelHandle model;
  EXPECT_CODE(moe_model_load(tiny().c_str(), nullptr, token, &model, &error), MOE_ERR_CANCELLED, "cancelled");
  EXPECT_EQ(static_cast<moe_model *>(model), nullptr);
}

TEST(Model, LogLinesGoToTheCallbackOnly) {
  moe_error error = MOE_ERROR_INIT;
  std::vector<std::string> lines;
  const OptionsHandle options = make_options({});
  const auto keep = [](int32_t level, const char *line, void *user) {
    EXPECT_LE(level, MOE_LOG_DEBUG);
    static_cast<std::vector<std::string> *>(user)->push_back(line);
  };
  ASSERT_OK(moe_options_set_log(options, keep, &lines, &error));
  ModelHandle model;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_OK(moe_model_load(tiny().c_str(), options, nullptr, &model, &error));
  EXPECT_EQ(testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr(), "");
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines.back().find("qwen3"), std::string::npos) << lines.back();
}

TEST(Chat, IsRenderedFromJson) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  TextHandle text;
  const std::string messages = R"([{"role": "user", "content": "hi"}])";
  EXPECT_CODE(moe_chat_render(nullptr, messages.data(), messages.size(), nullptr, &text, &error), MOE_ERR_INVALID,
              "template_file");
  const TemporaryFolder temporary;
  write_text(temporary / "t.jinja", "{{ unknown }}");
  const OptionsHandle options = make_options({{"template_file", temporary / "t.jinja"}});
  EXPECT_CODE(moe_chat_render(model, messages.data(), messages.size(), options, &text, &error), MOE_ERR_UNSUPPORTED, "sha256");
  for (const char *bad : {"{}", "[1]", "[{\"role\":\"user\"}]", "7"}) {
    EXPECT_CODE(moe_chat_render(model, bad, std::strlen(bad), options, &text, &error), MOE_ERR_FORMAT, "messages");
  }
  const std::string tools = R"({"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "x"}]})";
  EXPECT_CODE(moe_chat_render(model, tools.data(), tools.size(), options, &text, &error), MOE_ERR_UNSUPPORTED, "tools");
}

TEST(Inspect, ShowsTensorsAndMetadataWithoutLoading) {
  moe_error error = MOE_ERROR_INIT;
  TextHandle text;
  ASSERT_OK(moe_inspect(tiny().c_str(), &text, &error));
  const Json gguf = json_of(text);
  EXPECT_EQ(gguf.at("kind", "").string(), "gguf");
  EXPECT_EQ(gguf.at("family", "").string(), "qwen3");
  EXPECT_EQ(gguf.at("tensors", "").size(), static_cast<size_t>(gguf.at("tensor_count", "").integer()));
  EXPECT_EQ(gguf.at("metadata", "").at("general.architecture", "").string(), "qwen3");
  const ModelHandle model = load_tiny();
  EXPECT_EQ(gguf.at("architecture_fingerprint", "").string(), moe_model_architecture_fingerprint(model));

  TextHandle folder, adapter;
  ASSERT_OK(moe_inspect((std::string(MOE_TESTS_DIR) + "/golden/models/qwen3").c_str(), &folder, &error));
  EXPECT_EQ(json_of(folder).at("kind", "").string(), "model");
  EXPECT_CODE(moe_inspect(MOE_TESTS_DIR, &adapter, &error), MOE_ERR_FORMAT, "expected a folder");
}

TEST(Sha256, OfAFolderSeesNamesAndContents) {
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  write_text(folder / "a", "abc");
  const auto hash = [&](const std::string &path) {
    TextHandle text;
    EXPECT_OK(moe_sha256(path.c_str(), &text, &error));
    return text_of(text);
  };
  EXPECT_EQ(hash(folder / "a"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string one = hash(folder.path());
  std::filesystem::rename(folder / "a", folder / "b");
  const std::string two = hash(folder.path());
  write_text(folder / "b", "abd");
  EXPECT_NE(one, two);
  EXPECT_NE(two, hash(folder.path()));
}

}  // namespace
}  // namespace moe::test
