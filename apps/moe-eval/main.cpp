#include "moe-eval/verbs.h"

int main(int argc, char **argv) {
  using namespace moe::cli;
  const Program program{
      "moe-eval",
      "evaluate base models, adapters and mixtures; generate; look into files",
      {
          {"run", "accuracy and loss on held-out rows, with intervals and comparisons",
           "--model PATH [--adapter FOLDER,...] [--moe FOLDER] --tasks [DOMAIN=]FILE,... [options]", run_evaluation},
          {"report", "one HTML page about an evaluation and the training before it",
           "--results FOLDER [--training FOLDER,...] [--output FILE.html]", run_report},
          {"perplexity", "perplexity of a text over overlapping windows", "--model PATH --text FILE [options]", run_perplexity},
          {"generate", "go on from a prompt", "--model PATH [--adapter FOLDER | --moe FOLDER] [--prompt TEXT] [options]",
           run_generate},
          {"chat", "talk with the model; /reset begins anew, /exit ends",
           "--model PATH [--adapter FOLDER | --moe FOLDER] [options]", run_chat},
          {"bench", "tokens per second of this machine, beside its peak rates", "--model PATH [--train] [options]", run_bench},
          {"inspect", "what a file or folder holds", "PATH [--json]", run_inspect, 1},
          {"tokenize", "token ids of JSON lines", "--model PATH [--input FILE.jsonl]", run_tokenize},
          {"render", "chats of JSON lines as the model's template writes them",
           "--model PATH | --template-file FILE [--variables FILE.json] [--input FILE.jsonl]", run_render},
          {"data", "rows of a data file as training sees them", "--data FILE [--model PATH] [--raw [--types]] [options]",
           run_data},
          {"dump", "the numbers of one pass, for comparison with another engine",
           "--model PATH --input FILE.safetensors --output FILE.safetensors [options]", run_dump},
      },
      "run"};
  return run_program(program, argc, argv);
}
