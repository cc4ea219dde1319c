// Checkpoints: what does not match its manifest is not believed, and pruning never takes the last good one.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "support/temporary_folder.h"
#include "train/checkpoint.h"

namespace moe {
namespace {

void write(const std::string &parent, int64_t step, const std::string &content) {
  write_checkpoint(checkpoint_path(parent, step), [&](const std::string &folder) { write_file_atomic(join_path(folder, "weights.bin"), content); });
}

TEST(Checkpoint, IsFoundByItsStepAndVerifies) {
  const test::TemporaryFolder folder;
  write(folder.path(), 2, "two");
  write(folder.path(), 10, "ten");
  make_folders(join_path(folder.path(), "checkpoint-x"));
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{2, 10}));
  EXPECT_EQ(newest_checkpoint(folder.path(), {}), checkpoint_path(folder.path(), 10));
}

TEST(Checkpoint, ADamagedNewestFallsBackToTheOneBeforeAndSaysSo) {
  const test::TemporaryFolder folder;
  write(folder.path(), 1, "one");
  for (const std::string damaged : {"tWo", "tw"}) {
    write(folder.path(), 2, "two");
    write_file_atomic(join_path(checkpoint_path(folder.path(), 2), "weights.bin"), damaged);
    std::string said;
    EXPECT_EQ(newest_checkpoint(folder.path(), [&](LogLevel, const std::string &line) { said += line; }), checkpoint_path(folder.path(), 1));
    EXPECT_NE(said.find("weights.bin"), std::string::npos) << said;
    EXPECT_THROW(verify_checkpoint(checkpoint_path(folder.path(), 2)), Error);
  }
}

TEST(Checkpoint, PruningKeepsTheNewestThatVerifies) {
  const test::TemporaryFolder folder;
  for (int64_t step = 1; step <= 4; step++) write(folder.path(), step, "content");
  for (int64_t step : {3, 4}) write_file_atomic(join_path(checkpoint_path(folder.path(), step), "weights.bin"), "damaged");
  prune_checkpoints(folder.path(), 2, {});
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{2, 3, 4}));
}

TEST(Checkpoint, AFailedWriteLeavesNothing) {
  const test::TemporaryFolder folder;
  const std::string target = checkpoint_path(folder.path(), 5);
  EXPECT_THROW(write_checkpoint(target, [](const std::string &) { fail(Code::io, "disk full"); }), Error);
  EXPECT_TRUE(list_folder(folder.path()).empty());
}

}  // namespace
}  // namespace moe
