// The rows of the table of options. A row names who reads it; the order is the order of the help.
#include "api/option_table.h"

namespace moe::api {
namespace {

constexpr OptionType kInt = OptionType::integer, kFloat = OptionType::number, kBool = OptionType::boolean,
                     kBytes = OptionType::bytes, kString = OptionType::string, kChoice = OptionType::choice;
constexpr double kMany = 9007199254740992.0;  // 2^53

#define ALL_MODELS "lora build router pipeline plan run perplexity generate chat bench inspect tokenize render data dump"
#define TRAINING "lora router pipeline plan"
#define GENERATION "generate chat"

constexpr OptionRow kRows[] = {
    // ---- what is opened ----
    {"model", "base_model, model_path, model_name_or_path, base_model_path", kString, false, "", 0, 0, "",
     "base model: a Hugging Face folder or a GGUF file", ALL_MODELS},
    {"moe", "bundle, moe_path, moe_model, moe_model_path", kString, false, "", 0, 0, "", "mixture bundle (folder)",
     "router plan run perplexity generate chat bench dump"},
    {"adapter", "lora, lora_path, adapter_path, adapter_name_or_path, checkpoint_path", kString, true, "", 0, 0, "",
     "adapter folder; for run also name=folder, several", "run perplexity generate chat bench dump"},
    {"base_model_name", "base_name", kString, false, "", 0, 0, "", "base model's name to record in adapters in place of its path",
     "lora build router pipeline"},
    {"strict_base", "", kBool, false, "false", 0, 0, "",
     "refuse an adapter or bundle that was made on other weights of the same architecture",
     "lora build router run perplexity generate chat bench dump"},
    {"threads", "num_threads, n_threads", kInt, false, "0", 0, 1024, "", "threads; 0 = the processors this process may use",
     ALL_MODELS " doctor"},
    {"bind_threads", "pin_threads, cpu_affinity", kBool, false, "false", 0, 0, "",
     "each thread but the first stays on one processor (Linux): steadier on a machine that nothing else uses", ALL_MODELS},
    {"mmap", "use_mmap", kBool, false, "false", 0, 0, "",
     "weights stay in the mapped file where they need no change: processes share them, reading is on demand, generating slower (cpu)",
     ALL_MODELS},
    {"device", "", kChoice, false, "cpu", 0, 0, "cpu|cuda|cuda:N",
     "where to compute: this processor, or an NVIDIA GPU (N counts from 0; what it needs is in docs/cuda.md)", ALL_MODELS},
    {"compute", "precision, compute_dtype, torch_dtype", kChoice, false, "auto", 0, 0, "auto|int8|bf16|f32",
     "activations: int8 meet quantized weights in inference, training then has bf16; f32 is the strict mode; auto = int8 where that is faster",
     ALL_MODELS},

    // ---- data ----
    {"data", "data_dir, data_path, data_file, dataset, dataset_path, train_data, train_file", kString, true, "", 0, 0, "",
     "training data: a file, or domain=file for several; run: what the models were trained on, to warn of tasks that stand in it",
     TRAINING " run data"},
    {"data_weights", "mixture_weights, mix_weights", kString, true, "", 0, 0, "",
     "share of each domain in an epoch, as domain=weight for every domain of data; default their sizes", "lora router plan"},
    {"data_memory", "", kBytes, false, "256M", 0, kMany, "",
     "bytes of tokens to keep in memory; what is more goes into a temporary file (in TMPDIR)", TRAINING},
    {"eval_data", "eval_file, validation_data, validation_file, valid_data", kString, true, "", 0, 0, "",
     "held-out data to evaluate during training, as data", "lora router pipeline"},
    {"validation_split", "val_size, test_size, eval_split", kFloat, false, "0", 0, 0.9, "",
     "share of the data to evaluate on instead of training, when there is no eval_data", "lora router pipeline"},
    {"domain", "domain_name", kString, false, "", 0, 0, "",
     "name of the domain: names the output; with domain gating, whose expert answers", "lora generate chat"},
    {"schema", "dataset_schema, data_format", kString, false, "", 0, 0, "",
     "schema of the rows: a name or a JSON file; detected by default", TRAINING " run data"},
    {"template", "prompt_template", kChoice, false, "own", 0, 0, "own|common|unseen",
     "prompts as the schema writes them, in one frame for all domains, or in a frame for evaluation that training never saw",
     TRAINING " run data"},
    {"max_samples", "max_train_samples, num_samples", kInt, false, "0", 0, kMany, "", "rows to use of each file; 0 = all",
     TRAINING " data"},
    {"max_length", "max_seq_length, max_seq_len, cutoff_len, block_size", kInt, false, "1024", 2, 1048576, "",
     "tokens of a sequence at most", TRAINING " run data bench"},
    {"head", "", kInt, false, "10", 0, 1000000, "", "rows to show", "data"},
    {"show_skipped", "", kInt, false, "0", 0, 1000000, "", "skipped rows to show with their reasons; the whole file is read for them",
     "data"},
    {"raw", "", kBool, false, "false", 0, 0, "", "show the file's own columns as JSON lines", "data"},
    {"types", "", kBool, false, "false", 0, 0, "", "with raw: the types of the columns first", "data"},

    // ---- where results go ----
    {"output_dir", "save_dir, out_dir, output_path", kString, false, "", 0, 0, "", "folder of the results",
     "lora build router pipeline run"},

    // ---- adapter ----
    {"rank", "r, lora_r, lora_rank", kInt, false, "16", 1, 4096, "", "rank of the adapter", "lora pipeline plan bench"},
    {"alpha", "lora_alpha", kFloat, false, "32", 0, 1e6, "", "scale of the adapter: alpha / rank", "lora pipeline plan"},
    {"dropout", "lora_dropout", kFloat, false, "0", 0, 0.99, "", "dropout on the adapter's input during training",
     "lora pipeline plan"},
    {"rslora", "use_rslora", kBool, false, "false", 0, 0, "", "scale alpha / sqrt(rank) instead", "lora pipeline plan"},
    {"target_modules", "lora_target, lora_target_modules, lora_modules", kString, true, "all-linear", 0, 0, "",
     "projections to adapt: all-linear, names, or one regular expression", "lora pipeline plan"},
    {"init_adapter", "adapter_init, resume_adapter_file", kString, false, "", 0, 0, "", "adapter folder to start from", "lora"},

    // ---- optimizer ----
    {"learning_rate", "lr, step_size", kFloat, false, "2e-4", 0, 10, "", "largest learning rate; of a router 1e-2 when not given", TRAINING},
    {"lr_schedule", "lr_scheduler_type, lr_scheduler, scheduler, schedule", kChoice, false, "cosine", 0, 0,
     "cosine|linear|constant", "learning rate after the warm-up", TRAINING},
    {"warmup_ratio", "warmup", kFloat, false, "0.03", 0, 1, "", "share of the steps in which the learning rate rises", TRAINING},
    {"weight_decay", "wd", kFloat, false, "0.01", 0, 1, "", "AdamW weight decay", TRAINING},
    {"adam_beta1", "beta1", kFloat, false, "0.9", 0, 0.999999, "", "AdamW decay of the first moment", TRAINING},
    {"adam_beta2", "beta2", kFloat, false, "0.999", 0, 0.999999, "", "AdamW decay of the second moment", TRAINING},
    {"adam_epsilon", "adam_eps", kFloat, false, "1e-8", 1e-15, 1, "", "AdamW epsilon", TRAINING},
    {"max_grad_norm", "grad_clip, gradient_clipping, max_gradient_norm", kFloat, false, "1", 0, 1e9, "",
     "clip the gradient to this norm; 0 = no", TRAINING},
    {"batch_size", "per_device_train_batch_size, train_batch_size, micro_batch_size", kInt, false, "8", 1, 65536, "",
     "rows of a micro-batch; bench: sequences at once (1 when not set)", TRAINING " bench"},
    {"gradient_accumulation_steps", "accumulation_steps, grad_accum, grad_accumulation_steps", kInt, false, "1", 1, 65536, "",
     "micro-batches of an optimizer step", TRAINING},
    {"epochs", "num_train_epochs, num_epochs, n_epochs", kInt, false, "1", 1, 100000, "", "times through the data", TRAINING},
    {"max_steps", "iters, num_steps, max_train_steps", kInt, false, "0", 0, kMany, "",
     "optimizer steps; 0 = as many as the epochs have", TRAINING},
    {"seed", "random_seed", kInt, false, "0", 0, kMany, "", "seed of everything random",
     "lora build router pipeline plan run generate chat bench"},
    {"memory_limit", "max_memory", kBytes, false, "0", 0, kMany, "", "bytes a run may allocate (8G); 0 = no limit",
     TRAINING " run"},

    // ---- run ----
    {"logging_steps", "log_every, log_interval, steps_per_report", kInt, false, "1", 0, kMany, "", "log every so many steps",
     "lora router pipeline"},
    {"eval_steps", "eval_every, eval_interval, steps_per_eval", kInt, false, "0", 0, kMany, "",
     "evaluate every so many steps; 0 = at the end", "lora router pipeline"},
    {"save_steps", "save_every, save_interval, checkpoint_steps", kInt, false, "0", 0, kMany, "",
     "write a checkpoint every so many steps; 0 = at the end", "lora router pipeline"},
    {"save_total_limit", "keep_checkpoints", kInt, false, "2", 1, 1000000, "", "checkpoints to keep", "lora router pipeline"},
    {"experiment", "experiment_name", kString, false, "", 0, 0, "",
     "also list the run in experiments/<time>-<name>: what it said (run.log) and its report.html", "lora router pipeline"},
    {"resume", "resume_from_checkpoint", kBool, false, "false", 0, 0, "", "go on from the newest good checkpoint in output_dir; run: from the items that are done",
     "lora router pipeline run"},

    // ---- bundle ----
    {"adapters", "adapter_list, experts", kString, true, "", 0, 0, "", "adapters as name=folder, order kept", "build"},
    {"adapters_dir", "adapters_path, lora_dir, domain_models", kString, false, "", 0, 0, "", "folder with one adapter a domain",
     "build"},
    {"router", "router_path, router_file", kString, false, "", 0, 0, "", "router weights to start from", "build"},
    {"gating", "gating_strategy", kChoice, false, "token", 0, 0, "token|domain",
     "token: each layer routes each token; domain: the caller names it", "build"},
    {"top_k", "num_experts_per_tok, k", kInt, false, "", 0, 1048576, "",
     "router: entries a token picks (2); generation: most probable tokens to sample from (0 = all)", "build " GENERATION},
    {"form", "gate_form", kChoice, false, "delta", 0, 0, "delta|renormalised_delta|weighted|straight_through",
     "how probabilities become gates", "build"},
    {"temperature", "temp", kFloat, false, "1", 0, 100, "", "router: of its softmax; generation: of the sampling",
     "build " GENERATION},
    {"fallback_domain", "", kString, false, "", 0, 0, "",
     "with domain gating: who answers for an unknown domain; default the base", "build"},
    {"validate_only", "", kBool, false, "false", 0, 0, "", "check the bundle of output_dir instead of building", "build"},

    // ---- router training ----
    {"balance_loss_weight", "aux_loss_coef, router_aux_loss_coef, load_balancing_weight", kFloat, false, "0.01", 0, 100, "",
     "weight of the balance loss", "router pipeline dump"},
    {"z_loss_weight", "router_z_loss_coef, z_loss_coef", kFloat, false, "0.001", 0, 100, "", "weight of the z loss",
     "router pipeline dump"},
    {"supervised_weight", "domain_loss_weight", kFloat, false, "1", 0, 100, "", "weight of the domain loss at the start",
     "router pipeline dump"},
    {"supervised_weight_end", "", kFloat, false, "0.1", 0, 100, "", "weight of the domain loss at the end", "router pipeline"},
    {"target_usage", "", kFloat, true, "", 0, 1, "", "share of each entry, base first; default from the domains' tokens",
     "router pipeline dump"},
    {"balance_exact", "", kBool, false, "false", 0, 0, "", "balance over the whole step by one more forward pass",
     "router pipeline"},
    {"train_experts", "", kBool, false, "false", 0, 0, "", "train the experts together with the router", "router pipeline plan"},
    {"expert_learning_rate", "expert_lr", kFloat, false, "2e-4", 0, 10, "", "with train_experts: largest learning rate of the experts",
     "router pipeline plan"},

    // ---- generation ----
    {"prompt", "", kString, false, "", 0, 0, "", "text to go on from; standard input by default", "generate"},
    {"system", "system_prompt", kString, false, "", 0, 0, "", "system message of the chat", GENERATION},
    {"chat", "use_chat_template", kBool, false, "false", 0, 0, "",
     "the prompt is a message of the user, in the model's chat template", "generate"},
    {"max_new_tokens", "max_tokens, n_predict, num_predict", kInt, false, "128", 0, 1048576, "", "tokens to generate at most",
     GENERATION " run"},
    {"do_sample", "sample", kBool, false, "false", 0, 0, "",
     "sample instead of taking the most probable token; implied by the options below and temperature", GENERATION},
    {"top_p", "nucleus", kFloat, false, "1", 0, 1, "", "sample from the most probable tokens that together reach this",
     GENERATION},
    {"min_p", "", kFloat, false, "0", 0, 1, "", "sample from tokens of at least this share of the best one's probability",
     GENERATION},
    {"repetition_penalty", "repeat_penalty", kFloat, false, "1", 0.01, 100, "", "divide the logits of earlier tokens; 1 = no",
     GENERATION},
    {"ignore_eos", "", kBool, false, "false", 0, 0, "", "go on after the end of the text", GENERATION " bench"},
    {"stop", "stop_strings, stop_sequences, stop_words", kString, true, "", 0, 0, "", "texts that end the generation",
     GENERATION},
    {"show_routing", "", kBool, false, "false", 0, 0, "", "print the share of each expert", GENERATION},

    // ---- evaluation ----
    {"model_type", "", kChoice, true, "", 0, 0, "base|lora|uniform|moe|domain|oracle|all",
     "what to evaluate; default what is given, all: with uniform mixing too",
     "run"},
    {"tasks", "task, benchmarks", kString, true, "", 0, 0, "", "held-out rows as file or domain=file, several", "run pipeline"},
    {"limit", "max_eval_samples", kInt, false, "0", 0, kMany, "", "rows of each task; 0 = all", "run pipeline"},
    {"num_fewshot", "fewshot, n_shot", kInt, false, "0", 0, 1000, "", "solved rows before each question", "run pipeline"},
    {"fewshot_data", "fewshot_file", kString, true, "", 0, 0, "",
     "where those rows come from, as tasks; default the first rows of each task, which are then not scored", "run pipeline"},
    {"scoring", "", kChoice, false, "likelihood", 0, 0, "likelihood|generation|both", "how answers are scored", "run pipeline"},
    {"allow_code_execution", "", kBool, false, "false", 0, 0, "",
     "scoring generation: run generated programs with the tests of their rows, in a limited child process", "run pipeline"},
    {"log_samples", "", kBool, false, "false", 0, 0, "", "also write every item", "run pipeline"},
    {"results", "results_path", kString, false, "", 0, 0, "", "evaluation_results.json or its folder", "report"},
    {"training", "training_dirs", kString, true, "", 0, 0, "",
     "training output folders; default those that the evaluated models came from", "report"},
    {"text", "text_file", kString, false, "", 0, 0, "", "text file to measure", "perplexity"},
    {"window", "context, ctx_size", kInt, false, "1024", 2, 1048576, "", "tokens of a window", "perplexity"},
    {"stride", "", kInt, false, "512", 1, 1048576, "", "tokens from window to window", "perplexity"},

    // ---- tools ----
    {"prompt_tokens", "n_prompt", kInt, false, "512", 1, 1048576, "", "tokens to read", "bench"},
    {"generate_tokens", "n_gen", kInt, false, "64", 0, 1048576, "", "tokens to generate", "bench"},
    {"train", "", kBool, false, "false", 0, 0, "", "measure training steps as well", "bench"},
    {"measure", "", kBool, false, "false", 0, 0, "", "measure the peak rates of the machine", "doctor bench"},
    {"input", "input_file", kString, false, "", 0, 0, "", "file to read", "tokenize render dump"},
    {"output", "output_file", kString, false, "", 0, 0, "", "file to write; report: default report.html beside the results",
     "dump report"},
    {"what", "", kChoice, true, "logits,token_nll", 0, 0, "logits|hidden_states|token_nll|router|gradients", "numbers to write",
     "dump"},
    {"trainable", "", kChoice, false, "adapter", 0, 0, "adapter|router|joint|all", "whose gradients", "dump"},
    {"template_file", "chat_template", kString, false, "", 0, 0, "", "chat template in place of the model's", "render"},
    {"variables", "template_variables", kString, false, "", 0, 0, "", "JSON file of template variables: bos_token", "render"},
    {"now", "", kString, false, "", 0, 0, "", "the time a template sees; none of the built-in ones asks", "render"},
};

}  // namespace

std::span<const OptionRow> option_rows() { return kRows; }

}  // namespace moe::api
