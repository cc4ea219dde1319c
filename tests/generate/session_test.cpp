// Sessions: what was computed in pieces, cut back, forked or batched equals what is computed at once.
#include "generate/session.h"

#include <gtest/gtest.h>

#include <thread>

#include "support/expect_error.h"
#include "support/golden.h"
#include "support/needs.h"
#include "support/reference.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

using test::golden_model;
using test::golden_path;
using test::tiny_model;

const std::vector<int32_t> kPrompt = {7, 33, 12, 4, 90, 61, 5, 18, 44, 102, 3};

SamplerOptions sampling(uint64_t seed = 5) {
  SamplerOptions options;
  options.do_sample = true;
  options.top_k = 20;
  options.seed = seed;
  return options;
}

std::vector<int32_t> next_tokens(Session &session, int count, const SamplerOptions &options) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; i++) tokens.push_back(session.next(options).token);
  return tokens;
}

std::vector<float> logits_of(Session &session) {
  const auto logits = session.logits();
  return {logits.begin(), logits.end()};
}

class GoldenGreedy : public testing::TestWithParam<const char *> {};

TEST_P(GoldenGreedy, SixtyFourTokensEqualTransformers) {
  const std::string folder = std::string("models/") + GetParam();
  const auto model = golden_model(folder);
  const Safetensors file(golden_path(folder + "/expected.safetensors"));
  const PackedBatch batch = read_packed_batch(file);
  const auto greedy = file.read_integers(file.at("greedy"));
  const size_t count = greedy.size() / static_cast<size_t>(batch.sequences());
  for (size_t s = 0; s < static_cast<size_t>(batch.sequences()); s++) {
    Session session(model);
    session.append(
        std::span(batch.tokens)
            .subspan(static_cast<size_t>(batch.starts[s]), static_cast<size_t>(batch.starts[s + 1] - batch.starts[s])));
    const std::vector<int32_t> wanted(greedy.begin() + static_cast<ptrdiff_t>(s * count),
                                      greedy.begin() + static_cast<ptrdiff_t>((s + 1) * count));
    EXPECT_EQ(next_tokens(session, static_cast<int>(count), {}), wanted) << "sequence " << s;
    EXPECT_EQ(session.tokens().size(), static_cast<size_t>(batch.starts[s + 1] - batch.starts[s]) + count);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, GoldenGreedy, testing::Values("llama", "llama_tied", "qwen3", "gemma3_text", "gemma3_nested"));

TEST(Session, WithoutATokenizerTheTextIsEmpty) {
  Session session(golden_model("models/llama"));
  session.append(kPrompt);
  const Piece piece = session.next({});
  EXPECT_GE(piece.token, 0);
  EXPECT_EQ(piece.text, "");
  EXPECT_LT(piece.log_probability, 0);
  EXPECT_FAILS(session.append_text("a", false, false), Code::unsupported, "tokenizer");
}

TEST(Session, AppendingInPiecesEqualsAppendingAtOnce) {
  Session whole(tiny_model()), pieces(tiny_model());
  whole.append(kPrompt);
  for (size_t i = 0; i < kPrompt.size(); i += 3)
    pieces.append(std::span(kPrompt).subspan(i, std::min<size_t>(3, kPrompt.size() - i)));
  EXPECT_LT(test::largest_difference(logits_of(whole), logits_of(pieces)), 1e-5);
  EXPECT_EQ(whole.tokens(), pieces.tokens());
}

TEST(Session, TruncatedAndRegeneratedIsEqual) {
  Session session(tiny_model());
  session.append(kPrompt);
  const auto logits = logits_of(session);
  const auto first = next_tokens(session, 12, sampling());
  session.truncate(static_cast<int64_t>(kPrompt.size()));
  EXPECT_LT(test::largest_difference(logits, logits_of(session)), 1e-5);
  EXPECT_EQ(next_tokens(session, 12, sampling()), first);
  session.truncate(static_cast<int64_t>(kPrompt.size()) + 5);
  EXPECT_EQ(next_tokens(session, 7, sampling()), std::vector<int32_t>(first.begin() + 5, first.end()));
  session.truncate(0);
  EXPECT_TRUE(session.tokens().empty());
  session.append(kPrompt);
  EXPECT_EQ(next_tokens(session, 12, sampling()), first);
  EXPECT_FAILS(session.truncate(-1), Code::invalid, "truncate");
  EXPECT_FAILS(session.truncate(1000), Code::invalid, "truncate");
}

TEST(Session, OtherTokensAfterTruncateHaveTheirOwnLogits) {
  Session session(tiny_model()), fresh(tiny_model());
  session.append(kPrompt);
  session.truncate(static_cast<int64_t>(kPrompt.size()) - 2);
  session.append(std::vector<int32_t>{200, 201});  // as many as were cut
  std::vector<int32_t> other(kPrompt.begin(), kPrompt.end() - 2);
  other.insert(other.end(), {200, 201});
  fresh.append(other);
  EXPECT_LT(test::largest_difference(logits_of(fresh), logits_of(session)), 1e-5);
}

TEST(Session, AForkGoesItsOwnWay) {
  Session session(tiny_model());
  session.append(kPrompt);
  session.next(sampling());
  const auto fork = session.fork();
  EXPECT_EQ(fork->tokens(), session.tokens());
  const auto straight = next_tokens(session, 10, sampling());
  EXPECT_NE(next_tokens(*fork, 10, sampling(77)), straight);
  fork->truncate(static_cast<int64_t>(kPrompt.size()) + 1);
  EXPECT_EQ(next_tokens(*fork, 10, sampling()), straight);
}

TEST(Session, ABatchEqualsTheSessionsOneByOne) {
  const auto model = tiny_model();
  const auto mixture = test::noisy_mixture(*model, {"a", "b"}, 3);
  std::vector<std::unique_ptr<Session>> alone, together;
  for (size_t i = 0; i < 4; i++) {
    for (auto *list : {&alone, &together}) {
      list->push_back(std::make_unique<Session>(model, nullptr, mixture));
      list->back()->append(std::span(kPrompt).subspan(0, 2 + 3 * i));
    }
  }
  std::vector<Session *> sessions;
  for (const auto &session : together) sessions.push_back(session.get());
  for (int n = 0; n < 15; n++) {
    const auto pieces = Session::next_of_all(sessions, sampling());
    ASSERT_EQ(pieces.size(), 4u);
    for (size_t i = 0; i < 4; i++) {
      const Piece piece = alone[i]->next(sampling());
      EXPECT_EQ(pieces[i].token, piece.token) << "session " << i << " token " << n;
      EXPECT_EQ(pieces[i].text, piece.text);
      EXPECT_NEAR(pieces[i].log_probability, piece.log_probability, 1e-4);
      ASSERT_EQ(pieces[i].routing.size(), 3u);
      for (size_t e = 0; e < 3; e++) EXPECT_NEAR(pieces[i].routing[e], piece.routing[e], 1e-5);
    }
  }
  for (size_t i = 0; i < 4; i++) EXPECT_LT(test::largest_difference(logits_of(*alone[i]), logits_of(*together[i])), 1e-5);
}

TEST(Session, ABatchIsOfOneModelAndOverlayAndOfDistinctSessions) {
  const auto model = tiny_model();
  Session first(model), second(model, test::noisy_adapter(*model, 1)), empty(model);
  first.append(kPrompt);
  second.append(kPrompt);
  std::vector<Session *> mixed{&first, &second}, twice{&first, &first}, with_empty{&first, &empty};
  EXPECT_FAILS(Session::next_of_all(mixed, {}), Code::invalid, "session 1");
  EXPECT_FAILS(Session::next_of_all(twice, {}), Code::invalid, "twice");
  EXPECT_FAILS(Session::next_of_all(with_empty, {}), Code::state, "session 1");
  EXPECT_TRUE(Session::next_of_all({}, {}).empty());
}

TEST(Session, SeedsReproduceAndThreadCountsChangeNothing) {
  std::vector<std::vector<int32_t>> tokens;
  for (const int threads : {1, 2, 3}) {
    Session session(tiny_model(threads, "bf16"));
    session.append(kPrompt);
    tokens.push_back(next_tokens(session, 24, sampling()));
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[0], tokens[2]);
  Session other(tiny_model(1, "bf16"));
  other.append(kPrompt);
  EXPECT_NE(next_tokens(other, 24, sampling(6)), tokens[0]);
}

TEST(Session, ACancelledCallLeavesTheSessionAsItWas) {
  Session session(tiny_model()), fresh(tiny_model());
  session.append(kPrompt);
  const int32_t first = session.next({}).token;  // not in the cache yet
  Cancel fired;
  fired.fire();
  EXPECT_FAILS(session.append(kPrompt, &fired), Code::cancelled, "cancelled");
  EXPECT_FAILS(session.next({}, &fired), Code::cancelled, "cancelled");
  EXPECT_FAILS(session.logits(&fired), Code::cancelled, "cancelled");
  EXPECT_EQ(session.tokens().size(), kPrompt.size() + 1);
  EXPECT_FAILS(session.append(std::vector<int32_t>{5, 100000}), Code::invalid, "100000");
  EXPECT_EQ(session.tokens().size(), kPrompt.size() + 1);
  fresh.append(kPrompt);
  EXPECT_EQ(fresh.next({}).token, first);
  EXPECT_EQ(next_tokens(session, 5, {}), next_tokens(fresh, 5, {}));
}

TEST(Session, CancelFromAnotherThreadEndsALongPrompt) {
  Session session(tiny_model());
  const std::vector<int32_t> prompt(20000, 9);
  Cancel cancel;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    cancel.fire();
  });
  try {
    session.append(prompt, &cancel);
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::cancelled);
    EXPECT_TRUE(session.tokens().empty());
  }
  other.join();
  session.truncate(0);
  session.append(kPrompt);
  Session fresh(tiny_model());
  fresh.append(kPrompt);
  EXPECT_LT(test::largest_difference(logits_of(fresh), logits_of(session)), 1e-6);
}

TEST(Session, AnEmptySessionHasNoLogits) {
  Session session(tiny_model());
  EXPECT_FAILS(session.next({}), Code::state, "empty");
  EXPECT_FAILS(session.logits(), Code::state, "empty");
  EXPECT_FAILS(session.generate({}, nullptr), Code::state, "empty");
  session.append({});
  EXPECT_TRUE(session.tokens().empty());
}

TEST(Session, AdapterAndMixtureAreSetOnAnEmptySession) {
  const auto model = tiny_model();
  const auto adapter = test::noisy_adapter(*model, 1);
  const auto mixture = test::noisy_mixture(*model, {"a"}, 5);
  Session session(model), adapted(model, adapter), mixed(model, nullptr, mixture);
  for (Session *one : {&session, &adapted, &mixed}) one->append(kPrompt);
  const auto base = logits_of(session);
  EXPECT_FAILS(session.set_adapter(adapter), Code::state, "empty");
  EXPECT_FAILS(session.set_mixture(mixture), Code::state, "empty");
  session.truncate(0);
  session.set_adapter(adapter);
  session.append(kPrompt);
  EXPECT_EQ(logits_of(session), logits_of(adapted));
  EXPECT_NE(logits_of(session), base);
  session.truncate(0);
  session.set_mixture(mixture);
  session.append(kPrompt);
  EXPECT_EQ(logits_of(session), logits_of(mixed));
  const Piece piece = session.next({});
  EXPECT_EQ(piece.routing.size(), 2u);
  EXPECT_NEAR(piece.routing[0] + piece.routing[1], 1, 1e-5);
  session.truncate(0);
  session.set_mixture(nullptr);
  session.append(kPrompt);
  EXPECT_EQ(logits_of(session), base);
  EXPECT_TRUE(session.next({}).routing.empty());
  EXPECT_FAILS(Session(model, adapter, mixture), Code::invalid, "not both");
  const auto by_domain = std::make_shared<Mixture>(*mixture);
  by_domain->router = nullptr;
  EXPECT_FAILS(Session(model, nullptr, by_domain), Code::invalid, "router");
}

TEST(Session, AModelWithoutAChatTemplateRefusesMessages) {
  NEEDS_UTF8PROC();
  Session session(tiny_model());
  EXPECT_FAILS(session.append_messages({{"user", "hello"}}, true), Code::unsupported, "chat template");
}

TEST(Session, CountsItsMemory) {
  Session session(tiny_model());
  const uint64_t before = session.bytes();
  session.append(kPrompt);
  EXPECT_GT(session.bytes(), before + static_cast<uint64_t>(session.model().config().vocabulary) * 4);
}

}  // namespace
}  // namespace moe
