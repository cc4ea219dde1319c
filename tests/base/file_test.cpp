#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::TemporaryFolder;

void put(const std::string &path, const std::string &content) { std::ofstream(path) << content; }

TEST(File, ReadsExactlyWhatIsAskedFor) {
  const TemporaryFolder folder;
  put(folder / "f", "0123456789");
  const File file(folder / "f");
  EXPECT_EQ(file.size(), 10u);
  char bytes[4] = {};
  file.read(3, bytes, 3);
  EXPECT_STREQ(bytes, "345");
  EXPECT_NO_THROW(file.read(10, bytes, 0));
  EXPECT_FAILS(file.read(8, bytes, 3), Code::format, "too short: 3 bytes at offset 8 are needed, the file has 10");
  EXPECT_FAILS(file.read(std::numeric_limits<uint64_t>::max(), bytes, 3), Code::format, "too short");
  EXPECT_EQ(file.read_all(10), "0123456789");
  EXPECT_FAILS(file.read_all(9), Code::format, "at most 9 bytes, found 10");
}

TEST(File, NoticesThatItWasCutAfterOpening) {
  const TemporaryFolder folder;
  put(folder / "f", "0123456789");
  const File file(folder / "f");
  ASSERT_EQ(truncate((folder / "f").c_str(), 4), 0);
  char bytes[8];
  EXPECT_FAILS(file.read(0, bytes, 8), Code::format, "ends at offset 4, not at 10");
}

TEST(File, RefusesWhatIsNotARegularFile) {
  const TemporaryFolder folder;
  EXPECT_FAILS(File(folder.path()), Code::io, "found a folder");
  EXPECT_FAILS(File("/dev/zero"), Code::io, "expected a regular file");
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_FAILS(File(folder / "fifo"), Code::io, "expected a regular file");  // and does not wait for a writer
  EXPECT_FAILS(File(folder / "absent"), Code::io, "absent: cannot open: No such file");
  EXPECT_FAILS(File(std::string("a\0b", 3)), Code::invalid, "NUL");
}

TEST(File, MovesAndKeepsReadingAfterItsNameIsGone) {
  const TemporaryFolder folder;
  put(folder / "f", "abc");
  File first(folder / "f");
  std::filesystem::remove(folder / "f");
  const File second(std::move(first));
  EXPECT_EQ(second.read_all(3), "abc");
}

TEST(Buffer, IsAlignedAndMoves) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{1000}, size_t{5} << 20}) {
    Buffer buffer(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    std::memset(buffer.data(), 7, bytes);
    const std::byte *data = buffer.data();
    Buffer other;
    other = std::move(buffer);
    EXPECT_EQ(other.data(), data);
  }
  EXPECT_FAILS(Buffer(std::numeric_limits<size_t>::max()), Code::no_memory, "cannot allocate");
}

TEST(WriteFileAtomic, ReplacesTheContentAndLeavesNothingElse) {
  const TemporaryFolder folder;
  write_file_atomic(folder / "f", "one");
  write_file_atomic(folder / "f", std::string("tw\0o", 4));
  EXPECT_EQ(read_file(folder / "f"), std::string("tw\0o", 4));
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"f"});
}

TEST(WriteFileAtomic, AFailureKeepsTheOldAndLeavesNothingElse) {
  const TemporaryFolder folder;
  make_folders(folder / "f/x");
  EXPECT_FAILS(write_file_atomic(folder / "f", "one"), Code::io, "/f: cannot rename");
  EXPECT_FAILS(write_file_atomic(folder / "absent/f", "one"), Code::io, "absent/");
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"f"});
}

TEST(WriteFileAtomic, WorksForANameWithoutFolder) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file_atomic("plain", "x");
  std::filesystem::current_path(before);
  EXPECT_EQ(read_file(folder / "plain"), "x");
}

// A reader that never stops looking sees one of the contents, whole, at every instant.
TEST(WriteFileAtomic, AReaderSeesOldOrNewAndNeverAMixture) {
  const TemporaryFolder folder;
  const std::string a(10000, 'a'), b(20000, 'b');
  write_file_atomic(folder / "f", a);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; i < 100; ++i) write_file_atomic(folder / "f", i % 2 ? a : b);
    stop = true;
  });
  bool whole = true;
  while (!stop) {
    const std::string found = read_file(folder / "f");
    whole = whole && (found == a || found == b);
  }
  writer.join();
  EXPECT_TRUE(whole);
}

TEST(AtomicFolder, AppearsWholeOnCommit) {
  const TemporaryFolder folder;
  AtomicFolder out(folder / "target/");
  out.write("a", "1");
  out.write("sub/deep/b", "2");
  put(join_path(out.path(), "c"), "3");
  EXPECT_FALSE(folder_exists(folder / "target"));
  out.commit();
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"target"});
  EXPECT_EQ(list_folder(folder / "target"), (std::vector<std::string>{"a", "c", "sub"}));
  EXPECT_EQ(read_file(folder / "target/sub/deep/b"), "2");
}

TEST(AtomicFolder, WithoutCommitNothingRemains) {
  const TemporaryFolder folder;
  {
    AtomicFolder out(folder / "target");
    out.write("sub/a", "1");
  }
  EXPECT_TRUE(list_folder(folder.path()).empty());
}

TEST(AtomicFolder, ReplacesAnOlderFolder) {
  const TemporaryFolder folder;
  for (const char *content : {"old", "new"}) {
    AtomicFolder out(folder / "target");
    out.write(content, content);
    out.commit();
  }
  EXPECT_EQ(list_folder(folder / "target"), std::vector<std::string>{"new"});
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"target"});
}

TEST(AtomicFolder, TheTargetIsThereAtEveryInstantOfAReplacement) {
  const TemporaryFolder folder;
  const auto save = [&](const std::string &content) {
    AtomicFolder out(folder / "target");
    out.write("value", content);
    out.commit();
  };
  save("0");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 1; i < 100; ++i) save(std::to_string(i));
    stop = true;
  });
  bool present = true;
  while (!stop) present = present && folder_exists(folder / "target");
  writer.join();
  EXPECT_TRUE(present);
  EXPECT_EQ(read_file(folder / "target/value"), "99");
}

TEST(AtomicFolder, KeepsItsPlaceWhenTheWorkingDirectoryChanges) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  AtomicFolder out("relative");
  std::filesystem::current_path(before);
  out.write("a", "1");
  out.commit();
  EXPECT_TRUE(file_exists(folder / "relative/a"));
}

TEST(AtomicFolder, RefusesNamesThatLeaveItAndTargetsThatAreFiles) {
  const TemporaryFolder folder;
  AtomicFolder out(folder / "target");
  EXPECT_FAILS(out.write("../a", "1"), Code::invalid, "leaves the folder");
  EXPECT_FAILS(out.write("/a", "1"), Code::invalid, "leaves the folder");
  put(folder / "file", "x");
  EXPECT_FAILS(AtomicFolder(folder / "file"), Code::io, "found a file");
}

// The process dies at a random time while it saves; afterwards the target is one of the whole versions.
TEST(AtomicFolder, SurvivesAKillAtAnyInstant) {
  const TemporaryFolder folder;
  const auto save = [&](const std::string &content) {
    AtomicFolder out(folder / "target");
    out.write("first", content);
    out.write("second", content);
    out.commit();
  };
  save("0");
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        for (int i = 0;; ++i) save(std::to_string(i));
      } catch (...) {
      }
      _exit(1);
    }
    usleep(static_cast<useconds_t>(500 + round * 700));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_EQ(read_file(folder / "target/first"), read_file(folder / "target/second"));
  }
}

TEST(AppendFile, AppendsWholeLines) {
  const TemporaryFolder folder;
  put(folder / "log", "before\n");
  AppendFile(folder / "log").line("one");
  AppendFile(folder / "log").line("two");
  EXPECT_EQ(read_file(folder / "log"), "before\none\ntwo\n");
}

TEST(AppendFile, EndsALineThatWasCutOff) {
  const TemporaryFolder folder;
  put(folder / "log", "whole\ncut o");
  AppendFile log(folder / "log");
  log.line("one");
  log.line("two");
  EXPECT_EQ(read_file(folder / "log"), "whole\ncut o\none\ntwo\n");
}

TEST(RemoveUnfinished, TakesWhatKilledWritersLeftAndNothingElse) {
  const TemporaryFolder folder;
  for (const char *name :
       {".result.new-12-34567-1", ".old.old-1-2-3", "old", "kept", ".new-1-2-3", ".x.new-1-2", ".x.new-1-2-3a"}) {
    make_folders(folder / name);
    put(folder / name + "/file", name);
  }
  put(folder / ".summary.json.new-1-2-3", "half");
  make_folders(folder / ".stepped_aside.old-1-2-3");
  remove_unfinished(folder.path());
  EXPECT_EQ(list_folder(folder.path()),
            (std::vector<std::string>{".new-1-2-3", ".x.new-1-2", ".x.new-1-2-3a", "kept", "old", "stepped_aside"}));
  remove_unfinished(folder / "absent");
}

TEST(FileLock, RefusesASecondHolderInThisAndInAnotherProcess) {
  const TemporaryFolder folder;
  {
    const FileLock lock(folder / "lock");
    EXPECT_FAILS(FileLock(folder / "lock"), Code::busy, "/lock: is locked");
    const pid_t child = fork();
    if (child == 0) {
      try {
        const FileLock second(folder / "lock");
      } catch (const Error &error) {
        _exit(error.code() == Code::busy ? 17 : 1);
      }
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 17);
  }
  EXPECT_NO_THROW(FileLock(folder / "lock"));
}

TEST(RemoveTree, RemovesLinksButNotWhatTheyPointTo) {
  const TemporaryFolder folder;
  make_folders(folder / "outside");
  put(folder / "outside/keep", "x");
  make_folders(folder / "tree/a/b");
  put(folder / "tree/a/b/f", "x");
  ASSERT_EQ(symlink((folder / "outside").c_str(), (folder / "tree/a/link").c_str()), 0);
  remove_tree(folder / "tree/");
  EXPECT_FALSE(folder_exists(folder / "tree"));
  EXPECT_TRUE(file_exists(folder / "outside/keep"));
  ASSERT_EQ(symlink((folder / "outside").c_str(), (folder / "link").c_str()), 0);
  remove_tree(folder / "link/");
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"outside"});
  EXPECT_TRUE(file_exists(folder / "outside/keep"));
  EXPECT_NO_THROW(remove_tree(folder / "absent"));
}

TEST(Folders, AreMadeWithTheirParentsAndListedInOrder) {
  const TemporaryFolder folder;
  make_folders(folder / "a/b//c/");
  make_folders(folder / "a/b/c");
  EXPECT_TRUE(folder_exists(folder / "a/b/c"));
  put(folder / "a/z", "");
  put(folder / "a/.hidden", "");
  EXPECT_EQ(list_folder(folder / "a"), (std::vector<std::string>{".hidden", "b", "z"}));
  EXPECT_FAILS(make_folders(folder / "a/z"), Code::io, "cannot make the folder");
  EXPECT_FAILS(list_folder(folder / "absent"), Code::io, "cannot list");
}

TEST(Paths, AreJoinedAndCut) {
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("", "b"), "b");
  EXPECT_EQ(join_path("a", "/b"), "/b");
  EXPECT_EQ(base_name("/a/b/"), "b");
  EXPECT_EQ(base_name("b"), "b");
  EXPECT_EQ(base_name("/"), "/");
  EXPECT_EQ(parent_path("/a/b/"), "/a");
  EXPECT_EQ(parent_path("/a"), "/");
  EXPECT_EQ(parent_path("a"), ".");
  EXPECT_EQ(parent_path("a//b"), "a");
}

TEST(Paths, NamesFromFilesCannotLeaveTheirFolder) {
  for (const char *name : {"a", "..a", "a b", "..."}) EXPECT_TRUE(is_plain_name(name)) << name;
  for (const char *name : {"", ".", "..", "a/b", "/a", "a/"}) EXPECT_FALSE(is_plain_name(name)) << name;
  EXPECT_FALSE(is_plain_name(std::string_view("a\0b", 3)));
  for (const char *path : {"a", "a/b", "./a", "..a/b", "a/b..", "a//b"}) EXPECT_TRUE(is_inside(path)) << path;
  for (const char *path : {"", "/a", "..", "../a", "a/..", "a/../b"}) EXPECT_FALSE(is_inside(path)) << path;
}

}  // namespace
}  // namespace moe
