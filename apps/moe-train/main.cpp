#include "moe-train/verbs.h"

int main(int argc, char **argv) {
  using namespace moe::cli;
  const Program program{
      "moe-train",
      "train adapters of domains, build a mixture of them, train its router",
      {
          {"lora", "train an adapter (LoRA) on one domain", "--model PATH --data FILE --domain NAME [options]", run_lora},
          {"build", "build a mixture bundle from adapters, or check one",
           "--model PATH --adapters-dir FOLDER|--adapters NAME=FOLDER,... --output-dir FOLDER [options]", run_build},
          {"router", "train the router of a bundle", "--moe FOLDER --data DOMAIN=FILE,... [options]", run_router},
          {"pipeline", "adapters, bundle, router and evaluation from one file", "--config FILE.json [options]", run_pipeline, 0,
           false},
          {"plan", "what a run will need, before it starts", "--model PATH --data FILE [options]", run_plan},
          {"doctor", "what this machine and this build offer", "[--measure]", run_doctor},
          {"mixture", "a router over whole models", "", nullptr},
          {"pretrain", "a sparse mixture from scratch", "", nullptr},
          {"sft", "fine-tuning of all weights", "", nullptr},
          {"merge", "an adapter into the weights", "", nullptr},
          {"export", "other formats", "", nullptr},
          {"quantize", "weights to a GGUF type", "", nullptr},
      },
      nullptr};
  return run_program(program, argc, argv);
}
