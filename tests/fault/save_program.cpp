// A short training of an adapter, or of the router of a bundle, alone or with its experts, that saves a checkpoint after every step,
// for the fault tests to interrupt.
//   save_program <model> <packed batch> <output folder> <steps> new|resume [<bundle> [experts]]
// Says "saved N" and "finished" on standard output when the run does; log lines and the error go to standard error.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "model/bundle.h"
#include "train/run.h"

namespace {

void say(const std::string &line) {
  if (write(STDOUT_FILENO, (line + "\n").data(), line.size() + 1) < 0) std::exit(3);
}

void train(char **arguments) {
  moe::ModelOptions model_options;
  model_options.compute = "f32";
  model_options.threads = 1;
  const auto model = moe::BaseModel::load(arguments[1], model_options);
  moe::RunOptions run;
  moe::TrainOptions options;
  options.learning_rate = 1e-2;
  options.max_steps = std::atoi(arguments[4]);
  options.save_steps = 1;
  options.save_total_limit = 1;
  const auto data = moe::Dataset::open({{arguments[2], "", "", -1}}, {}, nullptr, nullptr, model->config().vocabulary);
  std::unique_ptr<moe::Trainer> trainer;
  if (arguments[6]) {
    run.bundle = arguments[6];
    options.train_experts = arguments[7] != nullptr;
    const auto mixture = std::make_shared<moe::Mixture>(moe::load_bundle(*model, run.bundle));
    trainer = moe::Trainer::for_router(model, mixture, data, options);
  } else {
    moe::LoraConfig config;
    config.r = 2;
    config.dropout = 0.1;
    config.target_modules.names = {"q_proj", "down_proj"};
    const auto adapter = moe::Adapter::create(*model, config, 1);
    trainer = moe::Trainer::for_lora(model, adapter, data, options);
  }
  run.output_dir = arguments[3];
  run.resume = std::string(arguments[5]) == "resume";
  run.log = [](moe::LogLevel, const std::string &line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  const auto tell = [](const moe::RunEvent &event) {
    if (event.kind == moe::RunEvent::Kind::checkpoint) say("saved " + std::to_string(event.step.step));
    if (event.kind == moe::RunEvent::Kind::finished) say("finished");
    return true;
  };
  moe::run_training(*trainer, *model, run, tell, nullptr);
}

}  // namespace

int main(int count, char **arguments) {
  if (count < 6 || count > 8) return 2;
  try {
    train(arguments);
  } catch (const moe::Error &error) {
    std::fprintf(stderr, "error %d: %s\n", static_cast<int>(error.code()), error.what());
    return 1;
  }
  return 0;
}
