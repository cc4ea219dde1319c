// Every truncation and every flipped bit of three small files, and all files of tests/golden/parquet, are read or refused with 64
// MiB of address space beyond what the process has.
#include <gtest/gtest.h>

#ifdef __linux__
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>

#include "base/file.h"
#include "fuzz/readers.h"
#include "support/temporary_folder.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // the shadow memory does not fit under a limit
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

namespace moe {
namespace {

constexpr uint64_t kHeadroom = 64 << 20;

std::string golden_folder() { return std::string(MOE_TESTS_DIR) + "/golden/parquet/"; }

void limit_memory() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + kHeadroom;
  const rlimit both{limit, limit};
  if (pages == 0 || setrlimit(RLIMIT_AS, &both) != 0) throw std::runtime_error("the limit cannot be set");
}

// 0 when the child ended well: otherwise what it says is on stderr.
int in_limited_child(const std::function<void()> &work) {
  const pid_t child = fork();
  if (child != 0) {
    int status = -1;
    waitpid(child, &status, 0);
    return status;
  }
  try {
    limit_memory();
    work();
  } catch (const std::exception &error) {
    fprintf(stderr, "in the child: %s\n", error.what());
    _exit(1);
  }
  _exit(0);
}

// Throws when the reader fails in another way than with a clear error.
bool accepted(const std::string &path) {
  try {
    fuzz::read_parquet(path);
    return true;
  } catch (const Error &error) {
    if (error.code() == Code::internal || error.message().empty()) throw;
    return false;
  }
}

TEST(ParquetMemory, TheLimitHolds) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space";
  EXPECT_NE(in_limited_child([] { std::vector<char>(kHeadroom + (8 << 20)).at(1) = 1; }), 0);
}

TEST(ParquetMemory, DamagedFilesNeedLittle) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space";
  for (const char *name :
       {"parquet-testing/map_no_value.parquet", "hyparquet/datapage_v2.snappy.parquet", "hyparquet/struct_strings.parquet"}) {
    const std::string valid = read_file(golden_folder() + name);
    const test::TemporaryFolder folder;
    const std::string path = folder / "x.parquet";
    EXPECT_EQ(in_limited_child([&] {
                int refused = 0;
                const auto give = [&](const std::string &content) {
                  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
                  refused += !accepted(path);
                };
                for (size_t length = 0; length < valid.size(); ++length) give(valid.substr(0, length));
                if (refused != static_cast<int>(valid.size())) throw std::runtime_error("a truncated file was accepted");
                for (size_t bit = 0; bit < valid.size() * 8; ++bit) {
                  std::string damaged = valid;
                  damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
                  give(damaged);
                }
                if (refused < static_cast<int>(valid.size()) * 2) throw std::runtime_error("hardly any damage was seen");
              }),
              0)
        << name;
  }
}

TEST(ParquetMemory, AllGoldenFilesNeedLittle) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space";
  for (const char *folder : {"hyparquet/", "parquet-testing/"}) {
    for (const std::string &name : list_folder(golden_folder() + folder)) {
      EXPECT_EQ(in_limited_child([&] { accepted(golden_folder() + folder + name); }), 0) << name;
    }
  }
}

}  // namespace
}  // namespace moe
#endif
