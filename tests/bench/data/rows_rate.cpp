// rows_rate FILE...: how fast RowReader turns files into rows, one thread, and what memory it holds: megabytes (10^6) a second and
// the largest resident memory after a tenth and after all of each file. `rows_rate --make FILE MEGABYTES SOURCE...` writes a file
// of that size first: the lines of the sources again and again.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "formats/rows.h"

namespace {

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

void measure(const std::string &path) {
  using Clock = std::chrono::steady_clock;
  const double megabytes = static_cast<double>(moe::File(path).size()) / 1e6;
  for (int pass = 0; pass < 3; pass++) {
    const auto begin = Clock::now();
    moe::RowReader reader(path);
    int64_t rows = 0, defects = 0;
    double early = 0;
    for (moe::Json row; reader.next(row); rows++) {
      defects += !reader.defect().empty();
      if (rows == 50'000) early = peak_megabytes();
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    std::printf("%s: %.0f MB, %lld rows, %lld defects, %.2f s, %.0f MB/s; peak memory %.1f MB after 50000 rows, %.1f MB after all\n",
                path.c_str(), megabytes, static_cast<long long>(rows), static_cast<long long>(defects), seconds,
                megabytes / seconds, early, peak_megabytes());
  }
}

void make(const char *path, double megabytes, char **sources, int count) {
  std::string lines;
  for (int i = 0; i < count; i++) lines += moe::read_file(sources[i]);
  std::ofstream out(path, std::ios::binary);
  for (double written = 0; written < megabytes * 1e6; written += static_cast<double>(lines.size())) out << lines;
}

}  // namespace

int main(int count, char **arguments) {
  try {
    if (count > 4 && std::strcmp(arguments[1], "--make") == 0) {
      make(arguments[2], std::atof(arguments[3]), arguments + 4, count - 4);
      return 0;
    }
    for (int i = 1; i < count; i++) measure(arguments[i]);
    return 0;
  } catch (const moe::Error &error) {
    std::fprintf(stderr, "rows_rate: %s\n", error.what());
    return 1;
  }
}
