// Generation through the C API: pull and callback forms agree, sessions fork and truncate, adapters and experts change the
// result.
#include <thread>

#include "api/bundle_fixture.h"
#include "support/needs.h"

namespace moe::test {
namespace {

SessionHandle open_session(const moe_model *model, const Values &values = {}, moe_cancel_token *token = nullptr) {
  moe_error error = MOE_ERROR_INIT;
  SessionHandle session;
  EXPECT_OK(moe_session_create(model, make_options(values), token, &session, &error));
  return session;
}

std::vector<float> logits(const moe_session *session) {
  moe_error error = MOE_ERROR_INIT;
  size_t needed = 0;
  EXPECT_OK(moe_session_logits(session, nullptr, 0, &needed, &error));
  std::vector<float> values(needed);
  EXPECT_OK(moe_session_logits(session, values.data(), values.size(), &needed, &error));
  return values;
}

std::vector<int32_t> tokens(const moe_session *session) {
  moe_error error = MOE_ERROR_INIT;
  size_t needed = 0;
  EXPECT_OK(moe_session_tokens(session, nullptr, 0, &needed, &error));
  std::vector<int32_t> ids(needed);
  EXPECT_OK(moe_session_tokens(session, ids.data(), ids.size(), &needed, &error));
  return ids;
}

struct Stream {
  std::string text;
  int pieces = 0, stop_after = 1 << 30;
  moe_session *session = nullptr;
  int32_t reentry = MOE_OK;
};
int32_t collect(const moe_piece *piece, void *user) {
  auto *stream = static_cast<Stream *>(user);
  stream->text.append(piece->text, piece->text_length);
  if (stream->session) stream->reentry = moe_session_truncate(stream->session, 0, nullptr);
  return ++stream->pieces >= stream->stop_after;
}

TEST(Session, NextAndGenerateAgree) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const SessionHandle pull = open_session(model), push = open_session(model);
  ASSERT_OK(moe_session_append_text(pull, "1 + 1", 5, MOE_TEXT_ADD_SPECIAL, &error));
  std::vector<int32_t> pulled;
  moe_piece piece = MOE_PIECE_INIT;
  for (int i = 0; i < 12; i++) {
    ASSERT_OK(moe_session_next(pull, &piece, &error));
    pulled.push_back(piece.token);
    EXPECT_LE(piece.log_probability, 0);
    EXPECT_EQ(piece.n_routing, 0);
  }
  Stream stream;
  GenerationHandle generation;
  ASSERT_OK(moe_generate(push, "1 + 1", 5, make_options({{"max_new_tokens", "12"}, {"ignore_eos", "1"}}), collect, &stream,
                         &generation, &error));
  size_t count = 0, length = 0;
  const int32_t *ids = moe_generation_tokens(generation, &count);
  EXPECT_EQ(std::vector<int32_t>(ids, ids + count), pulled);
  EXPECT_EQ(std::string(moe_generation_text(generation, &length)).size(), length);
  EXPECT_EQ(stream.text, moe_generation_text(generation, nullptr));
  EXPECT_STREQ(moe_generation_finish_reason(generation), "length");
  EXPECT_GT(moe_generation_prompt_tokens(generation), 0);
  EXPECT_NE(moe_generation_log_probabilities(generation, &count), nullptr);
  EXPECT_EQ(moe_generation_routing(generation, &count), nullptr);
  EXPECT_EQ(tokens(pull), tokens(push));
  EXPECT_EQ(logits(pull), logits(push));
}

TEST(Session, SamplingDependsOnTheSeedOnly) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const auto sampled = [&](const Values &values) {
    const SessionHandle session = open_session(model, values);
    EXPECT_OK(moe_generate(session, "abc", 3, make_options({{"max_new_tokens", "20"}, {"ignore_eos", "1"}}), nullptr, nullptr,
                           nullptr, &error));
    return tokens(session);
  };
  EXPECT_EQ(sampled({{"temperature", "1.2"}, {"seed", "3"}}), sampled({{"temperature", "1.2"}, {"seed", "3"}}));
  EXPECT_NE(sampled({{"temperature", "1.2"}, {"seed", "3"}}), sampled({{"temperature", "1.2"}, {"seed", "4"}}));
  EXPECT_EQ(sampled({{"temperature", "0"}, {"seed", "3"}}), sampled({{"seed", "9"}}));
  EXPECT_EQ(sampled({{"top_k", "1"}, {"seed", "3"}}), sampled({}));
}

TEST(Session, StopTextsAndTheCallbackEndIt) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const SessionHandle session = open_session(model);
  Stream stream;
  stream.stop_after = 3;
  GenerationHandle generation;
  ASSERT_OK(moe_generate(session, "abc", 3, nullptr, collect, &stream, &generation, &error));
  EXPECT_STREQ(moe_generation_finish_reason(generation), "cancelled");
  size_t count = 0;
  moe_generation_tokens(generation, &count);
  EXPECT_EQ(count, 3u);
  const size_t before = tokens(session).size();
  ASSERT_OK(moe_generate(session, nullptr, 0, make_options({{"max_new_tokens", "2"}, {"ignore_eos", "1"}}), nullptr, nullptr,
                         nullptr, &error));
  EXPECT_EQ(tokens(session).size(), before + 2);
  ASSERT_OK(moe_session_truncate(session, 0, &error));
  EXPECT_CODE(moe_generate(session, nullptr, 0, nullptr, nullptr, nullptr, nullptr, &error), MOE_ERR_STATE, "empty");
  moe_piece piece = MOE_PIECE_INIT;
  EXPECT_CODE(moe_session_next(session, &piece, &error), MOE_ERR_STATE, "empty");
  EXPECT_CODE(moe_session_truncate(session, 1, &error), MOE_ERR_INVALID, "truncate");
}

TEST(Session, ForksGoOnByThemselvesAndBatchesAgree) {
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const SessionHandle first = open_session(model);
  const int32_t prompt[] = {3, 9, 27, 81};
  ASSERT_OK(moe_session_append(first, prompt, 4, &error));
  SessionHandle second, third;
  ASSERT_OK(moe_session_fork(first, &second, &error));
  ASSERT_OK(moe_session_append(second, prompt, 2, &error));
  ASSERT_OK(moe_session_fork(second, &third, &error));
  moe_session *batch[] = {first, second};
  moe_piece pieces[2] = {MOE_PIECE_INIT, MOE_PIECE_INIT};
  ASSERT_OK(moe_sessions_next(batch, 2, pieces, &error));
  moe_piece alone = MOE_PIECE_INIT;
  ASSERT_OK(moe_session_next(third, &alone, &error));
  EXPECT_EQ(pieces[1].token, alone.token);
  EXPECT_EQ(tokens(first).size(), 5u);
  EXPECT_EQ(tokens(second), tokens(third));
  EXPECT_GT(moe_session_bytes(first), 0u);
  moe_session *twice[] = {first, first};
  EXPECT_CODE(moe_sessions_next(twice, 2, pieces, &error), MOE_ERR_INVALID, "twice");
}

TEST(Session, AdaptersAndExpertsChangeTheLogits) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  const ModelHandle mixture = bundle.open();
  LoraHandle lora;
  ASSERT_OK(moe_lora_load(bundle.base, (bundle.folder / "adapters/math/final_adapter").c_str(), nullptr, &lora, &error));
  const int32_t prompt[] = {5, 9, 20};
  const auto logits_with = [&](auto put) {
    const SessionHandle session = open_session(bundle.base);
    put(session);
    EXPECT_OK(moe_session_append(session, prompt, 3, &error));
    return logits(session);
  };
  const auto base = logits_with([](moe_session *) {});
  const auto adapted = logits_with([&](moe_session *s) { EXPECT_OK(moe_session_set_adapter(s, lora, &error)); });
  const auto mixed = logits_with([&](moe_session *s) { EXPECT_OK(moe_session_set_mixture(s, mixture, &error)); });
  const auto none = logits_with([&](moe_session *s) {
    EXPECT_OK(moe_session_set_mixture(s, mixture, &error));
    EXPECT_OK(moe_session_set_adapter(s, nullptr, &error));
  });
  EXPECT_NE(base, adapted);
  EXPECT_NE(base, mixed);
  EXPECT_NE(adapted, mixed);
  EXPECT_EQ(base, none);

  const SessionHandle session = open_session(mixture);
  ASSERT_OK(moe_session_append(session, prompt, 3, &error));
  EXPECT_EQ(logits(session), mixed);
  moe_piece piece = MOE_PIECE_INIT;
  ASSERT_OK(moe_session_next(session, &piece, &error));
  ASSERT_EQ(piece.n_routing, 3);
  EXPECT_NEAR(piece.routing[0] + piece.routing[1] + piece.routing[2], 1, 1e-5);
  EXPECT_CODE(moe_session_set_adapter(session, lora, &error), MOE_ERR_STATE, "empty");
  ASSERT_OK(moe_session_truncate(session, 0, &error));
  RouterHandle router;
  ASSERT_OK(moe_router_create(mixture, make_options({{"seed", "77"}}), &router, &error));
  ASSERT_OK(moe_session_set_router(session, router, &error));
  ASSERT_OK(moe_session_append(session, prompt, 3, &error));
  EXPECT_NE(logits(session), mixed);
  const ModelHandle elsewhere = load_tiny();
  const SessionHandle stranger = open_session(elsewhere);
  EXPECT_CODE(moe_session_set_adapter(stranger, lora, &error), MOE_ERR_INVALID, "base model of the session");
  EXPECT_CODE(moe_session_set_router(stranger, router, &error), MOE_ERR_STATE, "no experts");
}

TEST(Session, OfABundleWithDomainGatingTakesTheExpertByName) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle(Values{{"gating", "domain"}, {"fallback_domain", "law"}});
  const ModelHandle model = bundle.open();
  const int32_t prompt[] = {5, 9, 20};
  const auto with = [&](const Values &values) {
    const SessionHandle session = open_session(model, values);
    EXPECT_OK(moe_session_append(session, prompt, 3, &error));
    return logits(session);
  };
  EXPECT_EQ(with({}), with({{"domain", "law"}}));
  EXPECT_NE(with({{"domain", "math"}}), with({{"domain", "law"}}));
  EXPECT_NE(with({{"domain", "base"}}), with({{"domain", "law"}}));
  SessionHandle session;
  EXPECT_CODE(moe_session_create(model, make_options({{"domain", "cooking"}}), nullptr, &session, &error), MOE_ERR_INVALID,
              "cooking");
}

TEST(Session, CannotUseAnAdapterWhileItIsTrained) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  const ModelHandle model = load_tiny();
  LoraHandle lora;
  DatasetHandle data;
  TrainerHandle trainer;
  const OptionsHandle options =
      make_options({{"data", write_sums(folder / "d.jsonl", 8)}, {"max_steps", "1"}, {"output_dir", folder / "o"}});
  ASSERT_OK(moe_lora_create(model, options, &lora, &error));
  ASSERT_OK(moe_dataset_open(model, options, nullptr, &data, &error));
  ASSERT_OK(moe_trainer_create_lora(lora, data, options, nullptr, &trainer, &error));
  struct {
    SessionHandle session;
    int32_t status = MOE_OK;
  } state{open_session(model)};
  ASSERT_OK(moe_session_set_adapter(state.session, lora, &error));
  const auto use = [](const moe_event *, void *user) -> int32_t {
    auto *s = static_cast<decltype(state) *>(user);
    const int32_t token = 3;
    s->status = moe_session_append(s->session, &token, 1, nullptr);
    return 0;
  };
  ASSERT_OK(moe_trainer_run(trainer, nullptr, options, use, &state, nullptr, &error));
  EXPECT_EQ(state.status, MOE_ERR_BUSY);
  const int32_t token = 3;
  EXPECT_OK(moe_session_append(state.session, &token, 1, &error));
}

TEST(Session, ReentryFromItsCallbackIsRefused) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const SessionHandle session = open_session(model);
  Stream stream;
  stream.session = session;
  ASSERT_OK(moe_generate(session, "abc", 3, make_options({{"max_new_tokens", "2"}}), collect, &stream, nullptr, &error));
  EXPECT_EQ(stream.reentry, MOE_ERR_BUSY);
}

TEST(Session, IsCancelledFromAnotherThread) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  TokenHandle token;
  ASSERT_OK(moe_cancel_token_create(&token, &error));
  const SessionHandle session = open_session(model, {}, token);
  std::thread other;
  struct State {
    std::thread *thread;
    moe_cancel_token *token;
  } state{&other, token};
  const auto fire = [](const moe_piece *, void *user) -> int32_t {
    auto *s = static_cast<State *>(user);
    if (!s->thread->joinable()) *s->thread = std::thread([s] { moe_cancel_token_fire(s->token); });
    return 0;
  };
  GenerationHandle generation;
  const OptionsHandle endless = make_options({{"max_new_tokens", "100000"}, {"ignore_eos", "1"}});
  EXPECT_CODE(moe_generate(session, "abc", 3, endless, fire, &state, &generation, &error), MOE_ERR_CANCELLED, "cancelled");
  other.join();
  EXPECT_EQ(static_cast<moe_generation *>(generation), nullptr);
  EXPECT_GT(tokens(session).size(), 3u);
  ASSERT_OK(moe_session_set_cancel(session, nullptr, &error));
  EXPECT_OK(moe_generate(session, nullptr, 0, make_options({{"max_new_tokens", "1"}}), nullptr, nullptr, nullptr, &error));
}

TEST(Session, ManySessionsShareOneModel) {
  NEEDS_UTF8PROC();
  const ModelHandle model = load_tiny();
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); i++) {
    threads.emplace_back([&, i] {
      moe_error error = MOE_ERROR_INIT;
      const SessionHandle session = open_session(model);
      EXPECT_OK(moe_generate(session, "abc", 3, make_options({{"max_new_tokens", "16"}}), nullptr, nullptr, nullptr, &error));
      results[i] = tokens(session);
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (const auto &result : results) EXPECT_EQ(result, results[0]);
}

}  // namespace
}  // namespace moe::test
