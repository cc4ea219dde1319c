// Struct layouts, error texts, and what happens to callers that do it wrong: NULL, foreign handles, short buffers, wrong order.
#include <cstddef>
#include <cstring>

#include "api/api.h"
#include "api/fence.h"
#include "support/needs.h"

namespace moe::test {
namespace {

TEST(Layout, OfTheStructsIsFixed) {
  EXPECT_EQ(sizeof(moe_error), 1024u);
  EXPECT_EQ(offsetof(moe_error, code), 4u);
  EXPECT_EQ(offsetof(moe_error, message), 8u);
  EXPECT_EQ(sizeof(moe_step), 112u);
  EXPECT_EQ(offsetof(moe_step, flags), 4u);
  EXPECT_EQ(offsetof(moe_step, step), 8u);
  EXPECT_EQ(offsetof(moe_step, supervised_tokens), 24u);
  EXPECT_EQ(offsetof(moe_step, loss), 40u);
  EXPECT_EQ(offsetof(moe_step, seconds), 104u);
  EXPECT_EQ(offsetof(moe_event, kind), 4u);
  EXPECT_EQ(offsetof(moe_event, done), 8u);
  EXPECT_EQ(offsetof(moe_event, value), 24u);
  EXPECT_EQ(offsetof(moe_batch, n_tokens), 8u);
  EXPECT_EQ(offsetof(moe_batch, tokens), 24u);
  if (sizeof(void *) != 8) return;
  EXPECT_EQ(sizeof(moe_event), 64u);
  EXPECT_EQ(sizeof(moe_batch), 64u);
  EXPECT_EQ(offsetof(moe_batch, labels), 48u);
  EXPECT_EQ(sizeof(moe_piece), 48u);
  EXPECT_EQ(offsetof(moe_piece, log_probability), 24u);
  EXPECT_EQ(offsetof(moe_piece, n_routing), 40u);
  EXPECT_EQ(sizeof(moe_option), 64u);
}

TEST(Errors, HaveNames) {
  EXPECT_STREQ(moe_status_name(MOE_OK), "MOE_OK");
  EXPECT_STREQ(moe_status_name(MOE_ERR_BUFFER), "MOE_ERR_BUFFER");
  EXPECT_STREQ(moe_status_name(7), "MOE_ERR_UNKNOWN");
  for (int32_t code = MOE_ERR_INTERNAL; code <= MOE_OK; code++) EXPECT_STRNE(moe_status_name(code), "MOE_ERR_UNKNOWN") << code;
}

TEST(Errors, LongTextEndsBetweenTwoCharacters) {
  moe_error error = MOE_ERROR_INIT;
  std::string message;
  while (message.size() < 1010) message += "x";
  message += "äöü€😀";
  api::report_error(&error, MOE_ERR_IO, message);
  EXPECT_EQ(std::string(error.message), message.substr(0, 1014));  // "äö" fits before the NUL, "ü" does not
  api::report_error(&error, MOE_ERR_IO,
                    "a\nb\tc\xff"
                    "d\0e");
  EXPECT_STREQ(error.message, "a b c?d");
}

TEST(Errors, AreClearedBySuccess) {
  moe_error error = MOE_ERROR_INIT;
  OptionsHandle options;
  EXPECT_CODE(moe_options_set(nullptr, "rank", "1", &error), MOE_ERR_INVALID, "moe_options: the handle is NULL");
  EXPECT_EQ(moe_options_create(&options, &error), MOE_OK);
  EXPECT_EQ(error.code, MOE_OK);
  EXPECT_STREQ(error.message, "");
  EXPECT_EQ(moe_options_set(nullptr, "rank", "1", nullptr), MOE_ERR_INVALID);
}

TEST(Misuse, EveryCallRefusesNull) {
  moe_error error = MOE_ERROR_INIT;
  size_t needed = 7;
  double loss = 1;
  int32_t good = 1;
  TextHandle text;
  EXPECT_EQ(moe_options_create(nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_options_set(make_options({}), nullptr, "1", &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_options_set(make_options({}), "rank", nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_options_load_json(make_options({}), nullptr, 3, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_options_get(nullptr, "rank", &text, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_options_has(nullptr, "rank"), 0);
  EXPECT_EQ(moe_options_row(0, nullptr), 0);
  EXPECT_EQ(moe_model_load("x", nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID);
  ModelHandle model;
  EXPECT_EQ(moe_model_load(nullptr, nullptr, nullptr, &model, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_model_info(nullptr, &text, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_model_tokenize(nullptr, "a", 1, 0, nullptr, 0, &needed, &error), MOE_ERR_INVALID);
  EXPECT_EQ(needed, 0u);
  EXPECT_EQ(moe_lora_create(nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_lora_save(nullptr, "x", &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_router_route(nullptr, 0, nullptr, 0, 0, 0, nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_bundle_validate(nullptr, "x", nullptr, nullptr, &good, &error), MOE_ERR_INVALID);
  EXPECT_EQ(good, 0);
  EXPECT_EQ(moe_lora_train_step(nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_trainer_evaluate(nullptr, nullptr, &loss, &error), MOE_ERR_INVALID);
  EXPECT_EQ(loss, 0);
  EXPECT_EQ(moe_session_next(nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_generate(nullptr, "a", 1, nullptr, nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_eval_run(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_inspect(nullptr, &text, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_sha256("x", nullptr, &error), MOE_ERR_INVALID);
}

TEST(Misuse, GettersOfNothingGiveNothing) {
  EXPECT_EQ(moe_model_vocabulary_size(nullptr), 0);
  EXPECT_EQ(moe_model_domain(nullptr, 0), nullptr);
  EXPECT_EQ(moe_model_bos(nullptr), -1);
  EXPECT_EQ(moe_model_weights_fingerprint(nullptr), nullptr);
  EXPECT_EQ(moe_lora_parameters(nullptr), 0);
  EXPECT_EQ(moe_router_top_k(nullptr), 0);
  EXPECT_EQ(moe_trainer_steps_done(nullptr), 0);
  EXPECT_EQ(moe_session_bytes(nullptr), 0u);
  EXPECT_EQ(moe_text_data(nullptr), nullptr);
  EXPECT_EQ(moe_cancel_token_fired(nullptr), 0);
  size_t count = 5;
  EXPECT_EQ(moe_generation_tokens(nullptr, &count), nullptr);
  EXPECT_EQ(count, 0u);
}

TEST(Misuse, AHandleOfAnotherTypeIsNoticed) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({});
  TextHandle text;
  void *handle = static_cast<moe_options *>(options);
  EXPECT_CODE(moe_model_info(static_cast<moe_model *>(handle), &text, &error), MOE_ERR_INVALID,
              "moe_model: the handle is of another type");
  EXPECT_EQ(moe_model_layers(static_cast<moe_model *>(handle)), 0);
  auto *foreign = static_cast<moe_model *>(handle);
  moe_model_free(&foreign);
  EXPECT_EQ(moe_options_has(options, "rank"), 0);  // still alive
  EXPECT_OK(moe_options_set(options, "rank", "3", &error));
}

TEST(Misuse, FreeingTwiceIsHarmless) {
  moe_options *options = nullptr;
  ASSERT_EQ(moe_options_create(&options, nullptr), MOE_OK);
  moe_options_free(&options);
  EXPECT_EQ(options, nullptr);
  moe_options_free(&options);
  moe_options_free(nullptr);
  moe_model_free(nullptr);
}

TEST(Misuse, ParentsMayBeFreedBeforeTheirChildren) {
  moe_error error = MOE_ERROR_INIT;
  ModelHandle model = load_tiny();
  LoraHandle lora;
  TrainerHandle trainer;
  SessionHandle session;
  ASSERT_OK(moe_lora_create(model, nullptr, &lora, &error));
  ASSERT_OK(moe_trainer_create_lora(lora, nullptr, make_options({{"max_steps", "2"}}), nullptr, &trainer, &error));
  ASSERT_OK(moe_session_create(model, nullptr, nullptr, &session, &error));
  ASSERT_OK(moe_session_set_adapter(session, lora, &error));
  moe_model_free(&model);
  moe_lora_free(&lora);
  const SmallBatch batch;
  const moe_batch view = batch.view();
  EXPECT_OK(moe_lora_train_step(trainer, &view, nullptr, &error));
  const int32_t tokens[] = {1, 2, 3};
  EXPECT_OK(moe_session_append(session, tokens, 3, &error));
  moe_piece piece = MOE_PIECE_INIT;
  EXPECT_OK(moe_session_next(session, &piece, &error));
}

TEST(Misuse, BuffersAreFilledWhollyOrNotAtAll) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  size_t needed = 0;
  ASSERT_OK(moe_model_tokenize(model, "hello", 5, 0, nullptr, 0, &needed, &error));
  ASSERT_GT(needed, 1u);
  std::vector<int32_t> ids(needed, -7);
  const size_t size = needed;
  EXPECT_CODE(moe_model_tokenize(model, "hello", 5, 0, ids.data(), size - 1, &needed, &error), MOE_ERR_BUFFER, "elements needed");
  EXPECT_EQ(needed, size);
  EXPECT_EQ(ids, std::vector<int32_t>(size, -7));
  EXPECT_EQ(moe_model_tokenize(model, "hello", 5, 0, nullptr, 3, &needed, &error), MOE_ERR_INVALID);
  EXPECT_EQ(moe_model_tokenize(model, "hello", 5, 0, ids.data(), size, nullptr, &error), MOE_ERR_INVALID);
  EXPECT_OK(moe_model_tokenize(model, "hello", 5, 0, ids.data(), size, &needed, &error));
  EXPECT_NE(ids[0], -7);
}

TEST(Misuse, StructsOfOtherSizesAreUnderstood) {
  moe_error error = MOE_ERROR_INIT;
  const SmallTrainer small_trainer;
  moe_trainer *trainer = small_trainer.trainer;
  const SmallBatch batch;
  moe_batch view = batch.view();
  struct {
    moe_step step;
    uint64_t later;  // a member of a later version
  } longer{{}, 77};
  longer.step.struct_size = sizeof longer;
  EXPECT_OK(moe_lora_train_step(trainer, &view, &longer.step, &error));
  EXPECT_EQ(longer.later, 77u);
  EXPECT_EQ(longer.step.struct_size, sizeof longer);
  EXPECT_EQ(longer.step.step, 1);
  moe_step unset{};
  EXPECT_CODE(moe_lora_train_step(trainer, &view, &unset, &error), MOE_ERR_INVALID, "struct_size");
  view.struct_size = 8;
  EXPECT_CODE(moe_lora_train_step(trainer, &view, nullptr, &error), MOE_ERR_INVALID, "batch: struct_size");
  EXPECT_EQ(moe_trainer_steps_done(trainer), 1);
}

TEST(Misuse, AFailedCallSetsItsResultToNull) {
  moe_error error = MOE_ERROR_INIT;
  moe_model *model = reinterpret_cast<moe_model *>(&error);
  EXPECT_EQ(moe_model_load("/no/such/model", nullptr, nullptr, &model, &error), MOE_ERR_IO);
  EXPECT_EQ(model, nullptr);
}

TEST(Version, IsThatOfTheHeader) {
  EXPECT_EQ(moe_abi_version(), MOE_ABI_VERSION);
  EXPECT_EQ(std::count(moe_version(), moe_version() + std::strlen(moe_version()), '.'), 2);
  TextHandle text;
  moe_error error = MOE_ERROR_INIT;
  ASSERT_OK(moe_doctor(nullptr, &text, &error));
  const Json json = json_of(text);
  EXPECT_EQ(json.at("version", "").string(), moe_version());
  EXPECT_EQ(json.at("features", "").at("avx2", "").boolean(), (moe_features() & MOE_FEATURE_AVX2) != 0);
  EXPECT_GT(json.at("memory_bytes", "").number(), 1e6);
  EXPECT_EQ(json.find("measured"), nullptr);
}

}  // namespace
}  // namespace moe::test
