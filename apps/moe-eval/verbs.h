// The verbs of moe-eval.
#pragma once
#include "cli/program.h"

namespace moe::cli {

int run_evaluation(Context &context);
int run_report(Context &context);
int run_perplexity(Context &context);
int run_generate(Context &context);
int run_chat(Context &context);
int run_bench(Context &context);
int run_inspect(Context &context);
int run_tokenize(Context &context);
int run_render(Context &context);
int run_data(Context &context);
int run_dump(Context &context);

}  // namespace moe::cli
