// The verbs of moe-train.
#pragma once
#include "cli/program.h"

namespace moe::cli {

int run_lora(Context &context);
int run_build(Context &context);
int run_router(Context &context);
int run_pipeline(Context &context);
int run_plan(Context &context);
int run_doctor(Context &context);

}  // namespace moe::cli
