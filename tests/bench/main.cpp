// op_bench: the ops of the CPU backend at the shapes of real models, as shares of what the machine reaches in the same moment.
//
//   op_bench --benchmark_filter='^matmul/smollm2.*threads:2'      --benchmark_list_tests shows all names
//   op_bench --benchmark_out=ops.json                             as JSON
//
// Names are op/model/what/tokens/threads; the columns are explained in sampling.h. MOE_CPU_LEVEL caps the level. All of them take
// about ten minutes on an idle machine.
#include <cstdio>

#include "cpu/kernels.h"
#include "sampling.h"

namespace {

// One line an op. The console reporter of the library would print the time and the number of its own single iteration.
class Table : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context &) override {
    std::printf("level %s; shares are of what the machine reached in the same moment\n", moe::cpu::best_kernels().level);
    std::printf("%-82s %11s %8s %8s  %-5s %6s %10s %8s\n", "", "time us", "1e9/s", "limit", "of", "share", "hand-off", "dropped");
    return true;
  }
  void ReportRuns(const std::vector<Run> &runs) override {
    for (const Run &run : runs) {
      const std::string name = run.run_name.function_name + (run.aggregate_name.empty() ? "" : " " + run.aggregate_name);
      const auto counter = [&](const char *key) {
        const auto found = run.counters.find(key);
        return found == run.counters.end() ? 0.0 : found->second.value;
      };
      if (run.counters.count("share") == 0) {
        std::printf("%-82s %s\n", name.c_str(), run.report_label.c_str());
      } else {
        std::printf("%-82s %11.1f %8.1f %8.1f  %-5s %5.1f%% %7.0f ns %8.0f\n", name.c_str(), run.GetAdjustedRealTime(),
                    counter("rate"), counter("limit"), run.report_label.c_str(), 100 * counter("share"), counter("handoff_ns"),
                    counter("dropped"));
      }
    }
    std::fflush(stdout);
  }
};

}  // namespace

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("cpu level", moe::cpu::best_kernels().level);
  moe::bench::add_products();
  moe::bench::add_attention();
  moe::bench::add_cross_entropy();
  moe::bench::add_rows();
  Table table;
  benchmark::RunSpecifiedBenchmarks(&table);
  return 0;
}
