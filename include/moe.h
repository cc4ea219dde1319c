/*
 * moe.h - libmoe: train domain adapters (LoRA) on one base language model, route between them, evaluate, generate.
 *
 * A whole job in one program: load a model, train an adapter for a few steps, save it, generate with it.
 *
 * ~~~c
 * #include <moe.h>
 * #include <stdio.h>
 *
 * static int32_t print(const moe_piece *piece, void *out) {
 *   return fwrite(piece->text, 1, piece->text_length, (FILE *)out) != piece->text_length;
 * }
 *
 * int main(int argc, char **argv) {  // MODEL DATA ADAPTER_FOLDER
 *   moe_error error = MOE_ERROR_INIT;
 *   moe_step step = MOE_STEP_INIT;
 *   moe_options *options = NULL;
 *   moe_model *model = NULL;
 *   moe_lora *lora = NULL;
 *   moe_dataset *data = NULL;
 *   moe_trainer *trainer = NULL;
 *   moe_session *session = NULL;
 *   if (argc != 4) return 2;
 *   if (moe_options_create(&options, &error) || moe_options_set(options, "data", argv[2], &error) ||
 *       moe_options_set(options, "max_steps", "4", &error) || moe_options_set(options, "max_new_tokens", "16", &error) ||
 *       moe_model_load(argv[1], options, NULL, &model, &error) || moe_lora_create(model, options, &lora, &error) ||
 *       moe_dataset_open(model, options, NULL, &data, &error) ||
 *       moe_trainer_create_lora(lora, data, options, NULL, &trainer, &error)) goto done;
 *   while (moe_trainer_steps_done(trainer) < moe_trainer_steps_planned(trainer)) {
 *     if (moe_lora_train_step(trainer, NULL, &step, &error)) goto done;
 *     printf("step %d: loss %.4f\n", (int)step.step, step.loss);
 *   }
 *   if (moe_lora_save(lora, argv[3], &error) || moe_session_create(model, options, NULL, &session, &error) ||
 *       moe_session_set_adapter(session, lora, &error)) goto done;
 *   moe_generate(session, "Question: 2 + 2?\nAnswer:", 24, options, print, stdout, NULL, &error);
 * done:
 *   if (error.code) fprintf(stderr, "%s\n", error.message);
 *   moe_session_free(&session), moe_trainer_free(&trainer), moe_dataset_free(&data), moe_lora_free(&lora);
 *   moe_model_free(&model), moe_options_free(&options);
 *   return error.code ? 1 : 0;
 * }
 * ~~~
 *
 * What holds for every function here, and is not repeated at each:
 *
 * - Results. A call that can fail returns MOE_OK or a negative MOE_ERR_*. Results come through out-pointers, which are set to
 *   NULL or 0 on failure. The last parameter `error` may be NULL; otherwise it gets code and message, and code 0 on success.
 *   There is no other place where an error is kept.
 * - Errors that any call may give: MOE_ERR_INVALID (a NULL or foreign handle, an argument out of its range), MOE_ERR_STATE (after
 *   a fork), MOE_ERR_BUSY (a handle of the call is in use by another one, or by the callback's caller), MOE_ERR_NOMEM,
 *   MOE_ERR_INTERNAL. Further ones are listed at "Errors". The library never aborts, exits, prints, or throws.
 * - Handles. Freed by their own free function, which takes the address of the handle, accepts NULL, and sets it to NULL. Handles
 *   keep what they need of each other alive, so they may be freed in any order. A handle whose call failed may be used again.
 * - Pointers given to a call are borrowed for the call, unless said otherwise.
 * - Threads. "Any thread": calls on one handle may overlap. "One at a time": an overlapping call, and a call on the same handle
 *   from within its own callback, gives MOE_ERR_BUSY and does nothing. A thread that calls needs 1 MiB of stack.
 * - After fork() the child may free handles (without waiting for threads); every other call there is MOE_ERR_STATE.
 * - Getters (they return their value and take no error) give 0, -1 or NULL, as noted, for a NULL or foreign handle.
 * - Texts. Paths, keys and option values are NUL-terminated UTF-8. Content (prompts, messages, tokenizer input) is a pointer and
 *   a length in bytes and may hold any byte, NUL too. Long results (JSON, tables) are a moe_text. Other arrays are copied into
 *   `buffer` of `capacity` elements, with the element count in `*needed`: nothing is written when it does not fit. A NULL buffer
 *   with capacity 0 asks for the count and gives MOE_OK; any other that is too small gives MOE_ERR_BUFFER, with `*needed` set.
 * - Structs begin with struct_size, set by the caller (MOE_*_INIT does). They only grow at the end; a library that is older than
 *   the caller's header leaves the new members alone, one that is newer does not touch what the caller lacks.
 * - Options are one key/value object for all calls. Each call reads the options listed at "Options" and ignores others. The table
 *   of all options with defaults and bounds is docs/options.md and moe_options_describe().
 * - Callbacks run on the calling thread and must return to their caller. A non-zero return cancels the call.
 * - Signals, locale, floating-point mode and file descriptors of the host are left alone. Nothing is initialised or shut down.
 *
 * The interface may still change before 1.0; moe_abi_version() tells. Every function is available since 0.1.
 */
#ifndef MOE_H
#define MOE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MOE_API __attribute__((visibility("default")))
#else
#define MOE_API
#endif

/* ======================================================= version ======================================================= */

#define MOE_ABI_VERSION 0

/*
 * The library's version, "0.1.0". Static text. Any thread. Since 0.1.
 */
MOE_API const char *moe_version(void);

/*
 * The binary interface of the loaded library (its SOVERSION). A binding compares it with the MOE_ABI_VERSION it was written for
 * and refuses another. Any thread. Since 0.1.
 */
MOE_API int32_t moe_abi_version(void);

#define MOE_FEATURE_PCRE2 1    /* pre-tokenizer patterns beyond the built-in ones */
#define MOE_FEATURE_UTF8PROC 2 /* Unicode normalization */
#define MOE_FEATURE_ZLIB 4     /* codecs of compressed rows and Parquet files */
#define MOE_FEATURE_ZSTD 8
#define MOE_FEATURE_SNAPPY 16
#define MOE_FEATURE_LZ4 32
#define MOE_FEATURE_BROTLI 64
#define MOE_FEATURE_AVX2 256   /* kernels that this build has and this machine can run */
#define MOE_FEATURE_AVX512 512
#define MOE_FEATURE_AVX512_BF16 1024
#define MOE_FEATURE_AVX2_VNNI 2048
#define MOE_FEATURE_AVX512_VNNI 4096
#define MOE_FEATURE_NEON 8192
#define MOE_FEATURE_NEON_DOTPROD 16384
#define MOE_FEATURE_NEON_I8MM 32768
#define MOE_FEATURE_AMX 65536

/*
 * What this build and this machine have: the sum of MOE_FEATURE_* bits. Any thread. Since 0.1.
 */
MOE_API uint64_t moe_features(void);

/* ======================================================== errors ======================================================= */

#define MOE_OK 0
#define MOE_ERR_NOMEM (-1)       /* an allocation failed or a memory limit would be exceeded */
#define MOE_ERR_INVALID (-2)     /* an argument or option is out of its range */
#define MOE_ERR_STATE (-3)       /* the call does not fit the state of the handle */
#define MOE_ERR_IO (-4)          /* the operating system refused: open, read, write, flush, rename */
#define MOE_ERR_FORMAT (-5)      /* a file is not what its format says */
#define MOE_ERR_UNSUPPORTED (-6) /* well-formed, but not something this build can do */
#define MOE_ERR_NUMERIC (-7)     /* NaN or infinity where a number is needed */
#define MOE_ERR_CANCELLED (-8)   /* the token was fired or a callback asked to stop */
#define MOE_ERR_BUFFER (-9)      /* the buffer is too small; the needed size was returned */
#define MOE_ERR_BUSY (-10)       /* the handle or file is in use by another call or process */
#define MOE_ERR_DEVICE (-11)     /* the compute device failed */
#define MOE_ERR_INTERNAL (-12)   /* a defect of the library */

typedef struct moe_error {
  uint32_t struct_size; /* sizeof(moe_error); 0 counts as the size of version 0.1 */
  int32_t code;         /* MOE_OK or MOE_ERR_* */
  char message[1016];   /* one line, NUL-terminated UTF-8: the file, tensor or key, what was expected, what was found */
} moe_error;
#define MOE_ERROR_INIT { sizeof(moe_error), 0, {0} }

/*
 * The constant's name, "MOE_ERR_INVALID", for a code; "MOE_ERR_UNKNOWN" for a number that is none. Static text. Any thread.
 * Since 0.1.
 */
MOE_API const char *moe_status_name(int32_t code);

/* ========================================================= text ======================================================== */

/* A text that a call produced: JSON, or a table for people. Immutable. */
typedef struct moe_text moe_text;

/*
 * The bytes of the text, followed by a NUL. Valid until the text is freed; NULL for a NULL handle. Any thread. Since 0.1.
 */
MOE_API const char *moe_text_data(const moe_text *text);

/*
 * The length in bytes, without the NUL at the end; 0 for a NULL handle. Any thread. Since 0.1.
 */
MOE_API size_t moe_text_length(const moe_text *text);

/*
 * Frees the text and sets *text to NULL. Since 0.1.
 */
MOE_API void moe_text_free(moe_text **text);

/* ======================================================= options ======================================================= */

/* Keys and values for every call. Keys are the words of the flags of moe-train and moe-eval; '_' and '-' in a key are the same,
 * and habits from other programs work (lora_alpha, num_train_epochs, ...). Values are checked when they are set. */
typedef struct moe_options moe_options;

#define MOE_LOG_ERROR 0
#define MOE_LOG_WARNING 1
#define MOE_LOG_INFO 2
#define MOE_LOG_DEBUG 3

/* A log line: level MOE_LOG_*, a NUL-terminated line that is valid during the call, the `user` pointer that was given. */
typedef void (*moe_log_callback)(int32_t level, const char *line, void *user);

/*
 * Makes an empty set of options: all defaults. *out is freed by moe_options_free. Any thread. Since 0.1.
 */
MOE_API int32_t moe_options_create(moe_options **out, moe_error *error);

/*
 * Sets one option from text: numbers in decimal ("2e-4"), bytes also with K, M, G ("8G" = 8 * 2^30), booleans
 * true/false/1/0/yes/no/ on/off, lists separated by commas ("q_proj,v_proj"; "medical=DIR,math=DIR"). A later value replaces an
 * earlier one. Errors: INVALID: no option of this name (the message suggests the nearest), or the value is not of its type or out
 * of its bounds. One at a time. Since 0.1.
 */
MOE_API int32_t moe_options_set(moe_options *options, const char *key, const char *value, moe_error *error);

/*
 * Appends one element of `length` bytes to an option that is a list, as it is: not split at commas, and NUL may be inside. For
 * stop strings and paths with commas. Errors: INVALID: unknown key, or the option is no list. One at a time. Since 0.1.
 */
MOE_API int32_t moe_options_append(moe_options *options, const char *key, const char *value, size_t length, moe_error *error);

/*
 * Sets every option of a JSON object of `length` bytes: {"rank": 16, "data": {"math": "math.jsonl"}, "stop": ["\n"]}. A list is
 * an array, or an object whose members become "name=value". null restores the default. All or nothing.
 * Errors: FORMAT: no JSON object; INVALID: as moe_options_set. One at a time. Since 0.1.
 */
MOE_API int32_t moe_options_load_json(moe_options *options, const char *json, size_t length, moe_error *error);

/*
 * 1 when the option was set, 0 when it has its default or no option has this name. Any thread while nothing sets. Since 0.1.
 */
MOE_API int32_t moe_options_has(const moe_options *options, const char *key);

/*
 * The value in force, set or default, as moe_options_set takes it; "" for an option without a default that was not set. A list is
 * given as a JSON array when a comma or quote would be ambiguous. *out is freed by moe_text_free.
 * Errors: INVALID: unknown key. Any thread while nothing sets. Since 0.1.
 */
MOE_API int32_t moe_options_get(const moe_options *options, const char *key, moe_text **out, moe_error *error);

/*
 * The options in force as one JSON object with typed values, in the order of the table: those that `verb` reads ("lora", "run",
 * ...), all of them with NULL. An option without value is null. *out is freed by moe_text_free.
 * Errors: INVALID: no verb of this name. Any thread while nothing sets. Since 0.1.
 */
MOE_API int32_t moe_options_resolved(const moe_options *options, const char *verb, moe_text **out, moe_error *error);

/*
 * MOE_OK when `verb` reads every option that is set; otherwise INVALID, naming the first that it does not read. For programs that
 * want to refuse a misplaced flag. Any thread while nothing sets. Since 0.1.
 */
MOE_API int32_t moe_options_check(const moe_options *options, const char *verb, moe_error *error);

/*
 * Log lines of everything that is made with these options go to `log` (NULL: nowhere, the default). A model keeps the callback,
 * and what is made from the model inherits it, so `user` must stay valid until these are freed. It is called on the thread of the
 * call that has something to say; a model used by several threads calls it from several. It must not call the library with a
 * handle of that call. One at a time. Since 0.1.
 */
MOE_API int32_t moe_options_set_log(moe_options *options, moe_log_callback log, void *user, moe_error *error);

/*
 * Frees the options and sets *options to NULL. What was made with them stays. Since 0.1.
 */
MOE_API void moe_options_free(moe_options **options);

/* One row of the table of options. The texts are static. */
typedef struct moe_option {
  uint32_t struct_size;
  int32_t is_list;           /* 1: takes several values */
  const char *key;           /* "learning_rate" */
  const char *aliases;       /* "lr, step_size" or "" */
  const char *type;          /* "int", "float", "bool", "bytes", "string" or "choice"; of a list, of its elements */
  const char *default_value; /* "" = none */
  const char *bounds;        /* "0 to 1", "cosine|linear|constant" or "" */
  const char *help;          /* one line without a full stop */
  const char *verbs;         /* who reads it: "lora router pipeline plan" */
} moe_option;
#define MOE_OPTION_INIT { sizeof(moe_option), 0, 0, 0, 0, 0, 0, 0, 0 }

/*
 * Row `index` (from 0) of the table into *out. Returns 1, or 0 when there are fewer rows. Any thread. Since 0.1.
 */
MOE_API int32_t moe_options_row(size_t index, moe_option *out);

/*
 * The same table as JSON: [{"key", "aliases": [...], "type", "default", "bounds", "help", "verbs": [...]}, ...], the rows that
 * `verb` reads, all of them with NULL. *out is freed by moe_text_free. Errors: INVALID: no verb of this name. Any thread.
 * Since 0.1.
 */
MOE_API int32_t moe_options_describe(const char *verb, moe_text **out, moe_error *error);

/* ===================================================== cancellation ==================================================== */

/* A flag that stops long calls within one layer, step or token; they return MOE_ERR_CANCELLED. It cannot be lowered again. */
typedef struct moe_cancel_token moe_cancel_token;

/*
 * Makes a token. *out is freed by moe_cancel_token_free. Any thread. Since 0.1.
 */
MOE_API int32_t moe_cancel_token_create(moe_cancel_token **out, moe_error *error);

/*
 * Raises the flag. Nothing happens for NULL. Any thread, at any time; also from a signal handler. Since 0.1.
 */
MOE_API void moe_cancel_token_fire(moe_cancel_token *cancel);

/*
 * 1 when the flag was raised, else 0. Any thread. Since 0.1.
 */
MOE_API int32_t moe_cancel_token_fired(const moe_cancel_token *cancel);

/*
 * Frees the handle and sets *cancel to NULL. Calls that were given the token keep what they need. Since 0.1.
 */
MOE_API void moe_cancel_token_free(moe_cancel_token **cancel);

/* ======================================================== models ======================================================= */

/* Weights, tokenizer and configuration of a base model, or of a bundle: a base model with experts (adapters) and their router.
 * Immutable after loading; shared by any number of sessions and trainers on any threads. It owns the threads of its computations.
 * */
typedef struct moe_model moe_model;

/*
 * Loads a base model from a Hugging Face folder or a GGUF file, or a bundle folder together with its base model.
 *   path      UTF-8 path of the folder or file
 *   options   may be NULL. Options: device, compute, threads, base_model_name; for a bundle also base_model (required) and
 *             strict_base. device cuda keeps the weights and all that is computed in the memory of an NVIDIA GPU. The log
 *             callback of the options stays with the model
 *   cancel    may be NULL; looked at while tensors are read
 *   out       freed by moe_model_free
 * Errors: IO, FORMAT (naming file and tensor or key), UNSUPPORTED (an architecture or type, or no CUDA part of the library),
 * DEVICE (no driver or no such device), NOMEM, CANCELLED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_load(const char *path, const moe_options *options, moe_cancel_token *cancel, moe_model **out,
                               moe_error *error);

/*
 * Opens a bundle on a base model that is loaded already; the weights are shared, not copied. Options: strict_base. *out is freed
 * by moe_model_free. Errors: IO, FORMAT (also: another architecture than the bundle was built on), CANCELLED. Any thread. Since
 * 0.1.
 */
MOE_API int32_t moe_model_open_bundle(const moe_model *base, const char *folder, const moe_options *options, moe_model **out,
                                      moe_error *error);

/*
 * What the model is, as JSON: path, name, family, sizes of the decoder, parameters, bytes, compute, threads, backend, both
 * fingerprints, tokenizer, end tokens; for a bundle also domains, gating, top_k, form. *out is freed by moe_text_free.
 * Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_info(const moe_model *model, moe_text **out, moe_error *error);

/*
 * Sizes: tokens of the vocabulary V, width of the residual stream d, decoder layers L, the longest position count the model was
 * made for, stored parameters, bytes of the weights in memory, experts E of a bundle (0 for a base model). 0 for a NULL handle.
 * Any thread. Since 0.1.
 */
MOE_API int64_t moe_model_vocabulary_size(const moe_model *model);
MOE_API int64_t moe_model_hidden_size(const moe_model *model);
MOE_API int64_t moe_model_layers(const moe_model *model);
MOE_API int64_t moe_model_max_positions(const moe_model *model);
MOE_API int64_t moe_model_parameters(const moe_model *model);
MOE_API uint64_t moe_model_bytes(const moe_model *model);
MOE_API int64_t moe_model_experts(const moe_model *model);

/*
 * Name of router entry `index`: 0 is "base", 1 to E the domains of a bundle. NULL outside. Valid as long as the model.
 * Any thread. Since 0.1.
 */
MOE_API const char *moe_model_domain(const moe_model *model, int64_t index);

/*
 * sha256 of the canonical architecture (equal for every file format of it), and of the weights (name, type, shape and both ends
 * of every tensor), as 64 hexadecimal digits. NULL for a NULL handle. Valid as long as the model. Any thread. Since 0.1.
 */
MOE_API const char *moe_model_architecture_fingerprint(const moe_model *model);
MOE_API const char *moe_model_weights_fingerprint(const moe_model *model);

/*
 * Frees the handle and sets *model to NULL; the weights go with the last handle that uses them. Since 0.1.
 */
MOE_API void moe_model_free(moe_model **model);

/* ------------------------------------------------------- tokenizer ----------------------------------------------------- */

#define MOE_TEXT_ADD_SPECIAL 1   /* begin-of-text and end-of-text tokens as the model asks */
#define MOE_TEXT_PARSE_SPECIAL 2 /* control-token text in the input becomes the control token; not for text of strangers */
#define MOE_TEXT_SKIP_SPECIAL 4  /* detokenize: control tokens give no text */

/*
 * Token ids of `length` bytes of text (any bytes). flags: sum of MOE_TEXT_ADD_SPECIAL and MOE_TEXT_PARSE_SPECIAL. Ids go to
 * buffer[capacity], their count to *needed. Errors: UNSUPPORTED: the model has no tokenizer; BUFFER. Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_tokenize(const moe_model *model, const char *text, size_t length, int32_t flags, int32_t *buffer,
                                   size_t capacity, size_t *needed, moe_error *error);

/*
 * The text of `count` token ids: bytes, not necessarily whole UTF-8 characters, without a NUL at the end. flags: 0 or
 * MOE_TEXT_SKIP_SPECIAL. Errors: UNSUPPORTED: no tokenizer; INVALID: an id outside the vocabulary; BUFFER. Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_detokenize(const moe_model *model, const int32_t *tokens, size_t count, int32_t flags, char *buffer,
                                     size_t capacity, size_t *needed, moe_error *error);

/*
 * Ids of the begin-of-text and end-of-text tokens; -1 when there is none. Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_bos(const moe_model *model);
MOE_API int32_t moe_model_eos(const moe_model *model);

/*
 * 1 when the token ends a generation (end of text or end of turn), else 0. Any thread. Since 0.1.
 */
MOE_API int32_t moe_model_is_end(const moe_model *model, int32_t token);

/*
 * A chat as the text the model was trained on.
 *   model     may be NULL when the option template_file is given
 *   request   JSON, `length` bytes: an array of messages [{"role": "user", "content": "..."}, ...], or an object with "messages"
 *             and optionally "add_generation_prompt" (default false)
 *   options   may be NULL. Options: template_file (a template in place of the model's), variables (a JSON file with "bos_token")
 *   out       JSON {"rendered": text, "assistant_spans": [[begin, end], ...]}, code points of the text that training supervises;
 *             freed by moe_text_free
 * Errors: UNSUPPORTED: the template is none of the built-in ones, or the request uses tools, kwargs or continue_final_message;
 * INVALID: the template refuses the conversation; FORMAT: not such JSON. Any thread. Since 0.1.
 */
MOE_API int32_t moe_chat_render(const moe_model *model, const char *request, size_t length, const moe_options *options,
                                moe_text **out, moe_error *error);

/* ======================================================= adapters ====================================================== */

/* A LoRA adapter on a base model: new, loaded, or in training. Sessions and trainers that use it see its present weights. */
typedef struct moe_lora moe_lora;

/*
 * A new adapter with A random and B zero, so it changes nothing yet. Options: rank, alpha, dropout, rslora, target_modules, seed.
 * *out is freed by moe_lora_free. Errors: INVALID: a target that matches nothing. Any thread. Since 0.1.
 */
MOE_API int32_t moe_lora_create(const moe_model *model, const moe_options *options, moe_lora **out, moe_error *error);

/*
 * Loads a PEFT adapter folder. Every key is accounted for. Options: strict_base. *out is freed by moe_lora_free.
 * Errors: IO, FORMAT (a missing or unused key, a shape, another architecture), UNSUPPORTED (DoRA and the like), NUMERIC (NaN).
 * Any thread. Since 0.1.
 */
MOE_API int32_t moe_lora_load(const moe_model *model, const char *folder, const moe_options *options, moe_lora **out,
                              moe_error *error);

/*
 * Writes a PEFT adapter folder that appears whole or not at all; an adapter folder of that name is replaced, any other folder
 * that is not empty is refused. Errors: IO, INVALID. One at a time with the training of this adapter. Since 0.1.
 */
MOE_API int32_t moe_lora_save(const moe_lora *lora, const char *folder, moe_error *error);

/*
 * Number of trained values. 0 for a NULL handle. Any thread. Since 0.1.
 */
MOE_API int64_t moe_lora_parameters(const moe_lora *lora);

/*
 * 1 when the adapter changes nothing (its delta is exactly zero: not trained), else 0. One at a time with the training of this
 * adapter. Since 0.1.
 */
MOE_API int32_t moe_lora_is_zero(const moe_lora *lora);

/*
 * Frees the handle and sets *lora to NULL. Since 0.1.
 */
MOE_API void moe_lora_free(moe_lora **lora);

/* ======================================================= routers ======================================================= */

/* A token router: per layer, logits W u + b over E + 1 entries (entry 0 = base) of the layer's hidden state u. Belongs to a
 * bundle, or stands alone for a runtime that has its own experts. */
typedef struct moe_router moe_router;

#define MOE_DTYPE_F32 0
#define MOE_DTYPE_BF16 1
#define MOE_DTYPE_F16 2

/*
 * A new random router of the sizes of a bundle. Options: top_k, form, temperature (those of the bundle by default), seed. *out is
 * freed by moe_router_free. Errors: STATE: the model is no bundle with token routing. Any thread. Since 0.1.
 */
MOE_API int32_t moe_router_create(const moe_model *bundle, const moe_options *options, moe_router **out, moe_error *error);

/*
 * Loads a router from a bundle folder, or from a router.safetensors file alone; its sizes are those of the file. Needs no model.
 * Options: top_k, form, temperature (by default those of the bundle; for a file alone 2, delta, 1). *out is freed by
 * moe_router_free. Errors: IO, FORMAT, NUMERIC. Any thread. Since 0.1.
 */
MOE_API int32_t moe_router_load(const char *path, const moe_options *options, moe_router **out, moe_error *error);

/*
 * Writes router.safetensors at `path`, whole or not at all. Errors: IO. One at a time with the training of this router. Since
 * 0.1.
 */
MOE_API int32_t moe_router_save(const moe_router *router, const char *path, moe_error *error);

/*
 * Sizes: experts E besides the base, entries a token picks (k), layers, width d of the hidden state. 0 for a NULL handle.
 * Any thread. Since 0.1.
 */
MOE_API int32_t moe_router_experts(const moe_router *router);
MOE_API int32_t moe_router_top_k(const moe_router *router);
MOE_API int32_t moe_router_layers(const moe_router *router);
MOE_API int64_t moe_router_hidden_size(const moe_router *router);

/*
 * Routes rows of hidden states (the normalised input of the layer's feed-forward block) without a model.
 *   layer             0 to layers - 1
 *   hidden            [rows, d] of dtype MOE_DTYPE_*, row r at hidden + r * row_stride_bytes; any alignment
 *   ids               [rows, k]: picked entries by falling probability, 0 = base
 *   weights           [rows, k]: of an expert its gate g; of the base 1 - (sum of the gates of the row). The layer's output is
 *                     base + sum of g_i (expert_i - base), whether the base was picked or not
 * Allocates nothing. Errors: INVALID; NUMERIC: a row holds NaN or infinity, its number is in the message.
 * Any thread while the router is not being trained. Since 0.1.
 */
MOE_API int32_t moe_router_route(const moe_router *router, int32_t layer, const void *hidden, int32_t dtype, int64_t rows,
                                 int64_t row_stride_bytes, int32_t *ids, float *weights, moe_error *error);

/*
 * The same for the router before a layer's attention, where the experts adapt attention too. Errors also: STATE: there is none.
 * Any thread while the router is not being trained. Since 0.1.
 */
MOE_API int32_t moe_router_route_attention(const moe_router *router, int32_t layer, const void *hidden, int32_t dtype,
                                           int64_t rows, int64_t row_stride_bytes, int32_t *ids, float *weights,
                                           moe_error *error);

/*
 * Frees the handle and sets *router to NULL. Since 0.1.
 */
MOE_API void moe_router_free(moe_router **router);

/* ======================================================= bundles ======================================================= */

#define MOE_EVENT_STEP 1       /* a step was done: `step` is set */
#define MOE_EVENT_EVALUATION 2 /* `value` is the mean loss on the evaluation data, nats per token */
#define MOE_EVENT_CHECKPOINT 3 /* a checkpoint is safe on disk: `text` is its folder */
#define MOE_EVENT_RESUMED 4    /* the run goes on after step `done` from the checkpoint `text` */
#define MOE_EVENT_ITEM 5       /* evaluation: `done` of `total` items of model `name` on domain `domain` */
#define MOE_EVENT_FINDING 6    /* validation: `text` says what, `value` is 1 good, 0 bad */
#define MOE_EVENT_FINISHED 7   /* the result is on disk: `text` is its folder */

struct moe_step;

/* What a long call tells its caller. Valid during the callback. */
typedef struct moe_event {
  uint32_t struct_size;
  int32_t kind;        /* MOE_EVENT_* */
  int64_t done, total; /* steps or items; total 0 = not known */
  double value;
  const struct moe_step *step; /* MOE_EVENT_STEP, else NULL */
  const char *name;            /* NUL-terminated, or NULL */
  const char *domain;          /* NUL-terminated, or NULL */
  const char *text;            /* NUL-terminated, or NULL */
} moe_event;

/* Return 0 to go on; anything else cancels the call, which then returns MOE_ERR_CANCELLED. */
typedef int32_t (*moe_event_callback)(const moe_event *event, void *user);

/*
 * Builds a bundle from adapters: a folder with copies of them, a router, and what they were built on. It appears whole or not at
 * all.
 *   base      the base model of the adapters
 *   options   adapters (list of name=folder, order kept) or adapters_dir (every <domain>/ or <domain>/final_adapter in name
 *             order); output_dir; router (weights to start from), gating, top_k, form, temperature, fallback_domain, strict_base,
 *             seed
 *   summary   may be NULL; build_summary.json, freed by moe_text_free
 * Errors: IO, FORMAT, UNSUPPORTED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_bundle_build(const moe_model *base, const moe_options *options, moe_text **summary, moe_error *error);

/*
 * Checks every file, hash, shape, key and the base model of a bundle; each finding is an event MOE_EVENT_FINDING. *good is 1 when
 * all are good. Errors: CANCELLED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_bundle_validate(const moe_model *base, const char *folder, moe_event_callback on_event, void *user,
                                    int32_t *good, moe_error *error);

/*
 * Replaces the router of a bundle folder; the bundle is whole at every moment. Models that are open keep the old one.
 * Errors: IO, FORMAT, INVALID: other sizes. One at a time with the training of this router. Since 0.1.
 */
MOE_API int32_t moe_bundle_save_router(const char *folder, const moe_router *router, moe_error *error);

/* ========================================================= data ======================================================== */

/* Rows of files as tokenized, supervised, packed examples, with a cursor that a checkpoint restores. */
typedef struct moe_dataset moe_dataset;

/*
 * Opens the data of the option `data`: a file, or several as name=file, where the name is the domain of its rows. The rows are
 * read, rendered by their schema and tokenized; rows that cannot be used are counted with their reason, see moe_dataset_report.
 *   model     its tokenizer and chat template are used; a bundle's domains give rows their expert
 *   options   data, data_weights (domain=weight), schema (detected by default), max_length (tokens), max_samples, seed (order of
 *             rows), data_memory (bytes of tokens in memory, the others are in a temporary file)
 *   cancel    may be NULL; looked at while rows are read
 * *out is freed by moe_dataset_free. Errors: IO, FORMAT (naming file and line), INVALID: no row can be used, CANCELLED. Any
 * thread. Since 0.1.
 */
MOE_API int32_t moe_dataset_open(const moe_model *model, const moe_options *options, moe_cancel_token *cancel, moe_dataset **out,
                                 moe_error *error);

/*
 * Examples in the data set. 0 for a NULL handle. Any thread. Since 0.1.
 */
MOE_API int64_t moe_dataset_size(const moe_dataset *data);

/*
 * What was read, as JSON: files with sha256 and rows, schema, examples, tokens, supervised tokens, skipped rows by reason. *out
 * is freed by moe_text_free. Any thread. Since 0.1.
 */
MOE_API int32_t moe_dataset_report(const moe_dataset *data, moe_text **out, moe_error *error);

/*
 * Moves about `fraction` (0 to 1, exclusive) of the examples of each file into a data set of its own, for evaluation: by a hash
 * of the prompts, so that it does not depend on order or seed, and equal prompts stay together. Both start at their beginning.
 * *validation is freed by moe_dataset_free. Errors: INVALID: one side would be empty. One at a time. Since 0.1.
 */
MOE_API int32_t moe_dataset_split(moe_dataset *data, double fraction, moe_dataset **validation, moe_error *error);

/*
 * The first rows of a file for people, one JSON object a line: as rendered, with token count and supervised spans (code points).
 * With the option raw: the file's own columns, and the first line is their types when the option types is set.
 *   model     may be NULL: then there are no token counts
 *   options   data, schema, head (rows), show_skipped (rows that give no example; the whole file is read), raw, types, max_length
 *   out       JSON lines; the last one of each file is {"file", "schema", "rows", "whole_file", "examples", "skipped": {reason:
 *             {"count", "first_row"}}, "repeated_ids"}, of the rows that were read; freed by moe_text_free
 * Errors: IO, FORMAT. Any thread. Since 0.1.
 */
MOE_API int32_t moe_dataset_preview(const moe_model *model, const moe_options *options, moe_text **out, moe_error *error);

/*
 * Frees the handle and sets *data to NULL. Since 0.1.
 */
MOE_API void moe_dataset_free(moe_dataset **data);

/* ======================================================= training ====================================================== */

/* What is trained (an adapter or a router), its optimizer, schedule and place in the data. The caller owns the loop. Results are
 * bit-equal for any number of threads, and after save and resume. */
typedef struct moe_trainer moe_trainer;

/* One whole optimizer step: T tokens in S sequences one after another, nothing padded. The library cuts it into micro-batches. */
typedef struct moe_batch {
  uint32_t struct_size;
  uint32_t reserved;              /* 0 */
  int64_t n_tokens;               /* T */
  int64_t n_sequences;            /* S */
  const int32_t *tokens;          /* [T] */
  const int32_t *positions;       /* [T], or NULL: they restart at 0 in each sequence. Given, they must say the same */
  const int32_t *sequence_starts; /* [S + 1]: 0 first, T last, rising */
  const int32_t *labels;          /* [T]: the token that position t must predict (already shifted), -100 = not supervised */
  const int32_t *domains;         /* [S]: router entry of each sequence's domain, 0 = base, -1 = not known; or NULL */
} moe_batch;
#define MOE_BATCH_INIT { sizeof(moe_batch), 0, 0, 0, 0, 0, 0, 0, 0 }

#define MOE_STEP_SKIPPED 1 /* NaN or infinity in the loss or the gradient: nothing was updated */

/* What one optimizer step did. */
typedef struct moe_step {
  uint32_t struct_size;
  uint32_t flags; /* MOE_STEP_* */
  int64_t step;   /* steps done, this one included */
  int64_t tokens; /* of the step */
  int64_t supervised_tokens;
  int64_t rows;        /* sequences of the step */
  double loss;         /* language-model loss before the update, nats per supervised token */
  double total_loss;   /* with the router losses */
  double balance_loss; /* router losses, unweighted; 0 for an adapter */
  double z_loss;
  double supervised_loss;
  double supervised_weight; /* weight of supervised_loss at this step */
  double gradient_norm;     /* before clipping */
  double learning_rate;
  double seconds;
} moe_step;
#define MOE_STEP_INIT { sizeof(moe_step), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/*
 * A trainer for an adapter.
 *   lora      its weights change with every step
 *   data      may be NULL: then every step is given its batch. Used by this trainer only
 *   options   learning_rate, lr_schedule, warmup_ratio, weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm,
 *             batch_size, gradient_accumulation_steps, epochs, max_steps (without data: the length of the schedule), seed,
 *             memory_limit; and for moe_trainer_run eval_steps, save_steps, save_total_limit, logging_steps
 *   cancel    may be NULL; kept, and looked at by every call on the trainer
 *   out       freed by moe_trainer_free
 * Errors: NOMEM: the memory plan exceeds memory_limit (before anything is allocated). Any thread. Since 0.1.
 */
MOE_API int32_t moe_trainer_create_lora(moe_lora *lora, moe_dataset *data, const moe_options *options, moe_cancel_token *cancel,
                                        moe_trainer **out, moe_error *error);

/*
 * A trainer for the router of a bundle; the experts stay as they are, or with the option train_experts the trainer has copies of
 * them that train as well (moe_trainer_save_bundle).
 *   bundle    the model with the experts
 *   router    of the same sizes; its weights change with every step
 *   options   as moe_trainer_create_lora, and balance_loss_weight, z_loss_weight, supervised_weight, supervised_weight_end,
 *             target_usage, balance_exact, train_experts, expert_learning_rate
 * The rest as moe_trainer_create_lora. Since 0.1.
 */
MOE_API int32_t moe_trainer_create_router(const moe_model *bundle, moe_router *router, moe_dataset *data,
                                          const moe_options *options, moe_cancel_token *cancel, moe_trainer **out,
                                          moe_error *error);

/*
 * Replaces the cancel token (NULL: none) that later calls on the trainer look at. One at a time. Since 0.1.
 */
MOE_API int32_t moe_trainer_set_cancel(moe_trainer *trainer, moe_cancel_token *cancel, moe_error *error);

/*
 * One optimizer step.
 *   batch     the whole step; NULL takes the next batch of the trainer's data set
 *   out       may be NULL; struct_size must be set
 * Errors: STATE: the trainer trains a router, or there is no batch (no data, or all epochs are done); INVALID: the batch is not
 * well- formed, or an id is outside the vocabulary; CANCELLED: the state is as before the step. One at a time. Since 0.1.
 */
MOE_API int32_t moe_lora_train_step(moe_trainer *trainer, const moe_batch *batch, moe_step *out, moe_error *error);

/*
 * The same for a router. Errors also: NUMERIC: the router is dead (no gradient of the language model reached it for 20 steps
 * although the experts differ from the base). One at a time. Since 0.1.
 */
MOE_API int32_t moe_router_train_step(moe_trainer *trainer, const moe_batch *batch, moe_step *out, moe_error *error);

/*
 * Mean loss over a data set in nats per supervised token, dropout off. The training state is not touched. Errors: CANCELLED. One
 * at a time. Since 0.1.
 */
MOE_API int32_t moe_trainer_evaluate(moe_trainer *trainer, moe_dataset *data, double *loss, moe_error *error);

/*
 * Steps done, and steps of the whole run that the schedule is made for. 0 for a NULL handle. Any thread. Since 0.1.
 */
MOE_API int64_t moe_trainer_steps_done(const moe_trainer *trainer);
MOE_API int64_t moe_trainer_steps_planned(const moe_trainer *trainer);

/*
 * Share of picks of each router entry since training began, [routers, E + 1] row after row: the feed-forward routers of all
 * layers, then the attention routers of all layers as far as they exist. Errors: STATE: the trainer trains no router; BUFFER. One
 * at a time. Since 0.1.
 */
MOE_API int32_t moe_trainer_usage(const moe_trainer *trainer, double *buffer, size_t capacity, size_t *needed, moe_error *error);

/*
 * What the trainer allocates, as JSON: bytes by purpose, total, size of the micro-batches, whether activations are checkpointed.
 * *out is freed by moe_text_free. Any thread. Since 0.1.
 */
MOE_API int32_t moe_trainer_plan(const moe_trainer *trainer, moe_text **out, moe_error *error);

/*
 * Writes a checkpoint folder, whole or not at all: what is trained, optimizer, place in the data, hashes. Between any two steps.
 * Errors: IO; training can go on. One at a time. Since 0.1.
 */
MOE_API int32_t moe_trainer_save(const moe_trainer *trainer, const char *folder, moe_error *error);

/*
 * Puts what a trainer of a router has trained into a bundle folder: the router and, with train_experts, all experts. Stopped at
 * any moment the bundle is the old one or the new one; models that are open keep the old one. Errors: IO, FORMAT; STATE: the
 * trainer trains an adapter; INVALID: the bundle has other domains or sizes; BUSY: another process does the same. One at a time.
 * Since 0.1.
 */
MOE_API int32_t moe_trainer_save_bundle(const moe_trainer *trainer, const char *folder, moe_error *error);

/*
 * Goes on from a checkpoint folder; every byte is verified first. Errors: IO, FORMAT; STATE: the checkpoint was made with other
 * options or data that change the result (named). One at a time. Since 0.1.
 */
MOE_API int32_t moe_trainer_resume(moe_trainer *trainer, const char *folder, moe_error *error);

/*
 * The whole run: steps to the end, metrics, evaluation, checkpoints and the result on disk (docs/training-output.md).
 *   eval_data  may be NULL; evaluated every eval_steps and at the end. Rows of it that stand in the training data are warned of
 *              in the log and counted in the summary
 *   options    output_dir (required), domain (names the summary), resume (go on from the newest good checkpoint there), moe
 *              (router: the bundle folder that gets what was trained; by default the one it was opened from). How often things
 *              happen is said when the trainer is created: eval_steps, save_steps, save_total_limit, logging_steps
 *   on_event   may be NULL; steps, evaluations, checkpoints, the end. On cancel a checkpoint is written first
 *   summary    may be NULL; the training summary as JSON, freed by moe_text_free
 * Errors: IO, NUMERIC (the loss stays NaN, or a router is dead), CANCELLED, BUSY: another process writes there. One at a time.
 * Since 0.1.
 */
MOE_API int32_t moe_trainer_run(moe_trainer *trainer, moe_dataset *eval_data, const moe_options *options,
                                moe_event_callback on_event, void *user, moe_text **summary, moe_error *error);

/*
 * Frees the handle and sets *trainer to NULL; what was trained stays. Since 0.1.
 */
MOE_API void moe_trainer_free(moe_trainer **trainer);

/*
 * What a training run would allocate, as JSON, before anything large is: as moe_trainer_plan. For a bundle the training of its
 * router (with train_experts also of its experts), otherwise of an adapter. Options: those of moe_lora_create and of the
 * trainers. *out is freed by moe_text_free. Errors: NOMEM: more than memory_limit even with checkpointed activations (both figures
 * are in the message). Any thread. Since 0.1.
 */
MOE_API int32_t moe_plan(const moe_model *model, const moe_options *options, moe_text **out, moe_error *error);

/* ====================================================== generation ===================================================== */

/* One sequence being read and written: the key/value cache, the sampler, and the adapter or experts in force. */
typedef struct moe_session moe_session;

/* What one token added. Valid until the next call on the session. */
typedef struct moe_piece {
  uint32_t struct_size;
  int32_t token;          /* -1: none, text that was held back */
  const char *text;       /* whole UTF-8 characters that became complete; may be empty */
  size_t text_length;     /* bytes */
  double log_probability; /* of the token by the model itself, nats */
  const float *routing;   /* [n_routing] share of each entry, mean over the layers; entry 0 = base. NULL without experts */
  int32_t n_routing;      /* E + 1, or 0 */
  int32_t is_end;         /* 1: the token ends the text and is no part of it */
} moe_piece;
#define MOE_PIECE_INIT { sizeof(moe_piece), 0, 0, 0, 0, 0, 0, 0 }

/* Return 0 to go on; anything else ends the generation. */
typedef int32_t (*moe_token_callback)(const moe_piece *piece, void *user);

/*
 * A session on a model. A bundle's experts and router are in force from the start.
 *   options   may be NULL. Sampling: do_sample, temperature, top_k (most probable tokens), top_p, min_p, repetition_penalty,
 *             seed. Greedy by default; any of temperature, top_k, top_p, min_p implies do_sample, and temperature 0 is greedy.
 *             Also domain: the expert of a bundle with domain gating (default: its fallback)
 *   cancel    may be NULL; kept, and looked at by every call on the session
 *   out       freed by moe_session_free
 * Any thread. Since 0.1.
 */
MOE_API int32_t moe_session_create(const moe_model *model, const moe_options *options, moe_cancel_token *cancel,
                                   moe_session **out, moe_error *error);

/*
 * Replaces the sampling options, and the cancel token (NULL: none), that later calls on the session use. One at a time. Since
 * 0.1.
 */
MOE_API int32_t moe_session_set_options(moe_session *session, const moe_options *options, moe_error *error);
MOE_API int32_t moe_session_set_cancel(moe_session *session, moe_cancel_token *cancel, moe_error *error);

/*
 * Puts an adapter in force (NULL: none), of the same base model, in place of the experts of a bundle. Errors: STATE: the session
 * is not empty (moe_session_truncate(session, 0) empties it). One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_set_adapter(moe_session *session, const moe_lora *lora, moe_error *error);

/*
 * Puts the experts and router of a bundle on the same base model in force (NULL: none). Errors: STATE as above. One at a time.
 * Since 0.1.
 */
MOE_API int32_t moe_session_set_mixture(moe_session *session, const moe_model *bundle, moe_error *error);

/*
 * Replaces the router before the experts in force, for example by one in training. Errors: STATE: no experts in force, or as
 * above; INVALID: other sizes. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_set_router(moe_session *session, const moe_router *router, moe_error *error);

/*
 * Reads tokens. Errors: INVALID: an id outside the vocabulary; CANCELLED: the session is as before. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_append(moe_session *session, const int32_t *tokens, size_t count, moe_error *error);

/*
 * Reads text. flags: MOE_TEXT_ADD_SPECIAL (for the beginning of a text) and MOE_TEXT_PARSE_SPECIAL. Errors: UNSUPPORTED: no
 * tokenizer; CANCELLED. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_append_text(moe_session *session, const char *text, size_t length, int32_t flags, moe_error *error);

/*
 * Makes the session hold this conversation, by the model's chat template: what it has in common with what is held is kept, the
 * rest is replaced. So a chat passes all of its messages each time and pays for the new ones. The content of a message never
 * becomes a control token. messages: a JSON array as for moe_chat_render. add_generation_prompt: 1 opens the assistant's turn.
 * Errors: as moe_chat_render; CANCELLED: the session is as before. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_append_messages(moe_session *session, const char *messages, size_t length,
                                            int32_t add_generation_prompt, moe_error *error);

/*
 * Samples one token and reads it. *out is valid until the next call on the session. Errors: STATE: nothing was appended;
 * CANCELLED. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_next(moe_session *session, moe_piece *out, moe_error *error);

/*
 * One token for each of `count` different sessions of one model in one pass, with the sampling options of the first.
 *   pieces    [count], struct_size set in each
 * Errors: as moe_session_next; INVALID: different models, or one session twice. One at a time. Since 0.1.
 */
MOE_API int32_t moe_sessions_next(moe_session *const *sessions, size_t count, moe_piece *pieces, moe_error *error);

/*
 * Logits [V] of the token to come. Errors: STATE: nothing was appended; BUFFER. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_logits(const moe_session *session, float *buffer, size_t capacity, size_t *needed, moe_error *error);

/*
 * All tokens the session holds, read and sampled. Errors: BUFFER. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_tokens(const moe_session *session, int32_t *buffer, size_t capacity, size_t *needed,
                                   moe_error *error);

/*
 * Keeps the first `size` tokens and forgets the rest. Errors: INVALID: size is negative or larger than the session. One at a
 * time. Since 0.1.
 */
MOE_API int32_t moe_session_truncate(moe_session *session, int64_t size, moe_error *error);

/*
 * A copy of the session that goes on by itself. *out is freed by moe_session_free. One at a time. Since 0.1.
 */
MOE_API int32_t moe_session_fork(const moe_session *session, moe_session **out, moe_error *error);

/*
 * Bytes of the session: cache and scratch memory. 0 for a NULL handle. One at a time. Since 0.1.
 */
MOE_API uint64_t moe_session_bytes(const moe_session *session);

/*
 * Frees the handle and sets *session to NULL. Since 0.1.
 */
MOE_API void moe_session_free(moe_session **session);

/* The text that moe_generate made. */
typedef struct moe_generation moe_generation;

/*
 * Appends a prompt and samples until the text ends. The session keeps everything, so that the next call goes on from there.
 *   prompt    `prompt_length` bytes of text, or NULL and 0 to go on from what was appended. Its control-token text stays text;
 *             begin-of-text is added when the session is empty
 *   options   may be NULL: max_new_tokens, ignore_eos, stop (texts that end it and are cut off), chat (the session becomes a chat
 *             of the message `system`, if set, and the prompt as the user's), and sampling options, which replace those of the
 *             session for this call when any is set
 *   on_token  may be NULL; called with every piece. A non-zero return ends the generation with what there is
 *   out       may be NULL; freed by moe_generation_free
 * Errors: UNSUPPORTED: no tokenizer (or chat template) and a prompt; CANCELLED: the token of the session was fired. One at a
 * time. Since 0.1.
 */
MOE_API int32_t moe_generate(moe_session *session, const char *prompt, size_t prompt_length, const moe_options *options,
                             moe_token_callback on_token, void *user, moe_generation **out, moe_error *error);

/*
 * The generated text (bytes, NUL after the end; *length may be NULL), its token ids and their log-probabilities in nats, and
 * the mean share [E + 1] of each entry (none without experts). Valid until the generation is freed; NULL for a NULL handle.
 * Any thread. Since 0.1.
 */
MOE_API const char *moe_generation_text(const moe_generation *generation, size_t *length);
MOE_API const int32_t *moe_generation_tokens(const moe_generation *generation, size_t *count);
MOE_API const double *moe_generation_log_probabilities(const moe_generation *generation, size_t *count);
MOE_API const float *moe_generation_routing(const moe_generation *generation, size_t *count);

/*
 * Why it ended: "eos", "stop", "length" or "cancelled" (by on_token). Valid until the generation is freed; NULL for a NULL
 * handle. Any thread. Since 0.1.
 */
MOE_API const char *moe_generation_finish_reason(const moe_generation *generation);

/*
 * Tokens of the prompt; seconds spent on the prompt and on the generated tokens. 0 for a NULL handle. Any thread. Since 0.1.
 */
MOE_API int64_t moe_generation_prompt_tokens(const moe_generation *generation);
MOE_API double moe_generation_prompt_seconds(const moe_generation *generation);
MOE_API double moe_generation_seconds(const moe_generation *generation);

/*
 * Frees the generation and sets *generation to NULL. Since 0.1.
 */
MOE_API void moe_generation_free(moe_generation **generation);

/* ====================================================== evaluation ===================================================== */

/*
 * Evaluates one or several models on the same rows.
 *   base      a base model; adapters and bundles of the options are opened on it
 *   options   model_type (list of base, lora, uniform, moe, domain, oracle, all), adapter (list of folders or name=folder), moe (bundle
 *             folder), tasks (list of file or domain=file), data (what the models were trained on: rows of the tasks that stand
 *             in it are warned of in the log and counted in the results), schema, limit, num_fewshot, scoring, max_length,
 *             max_new_tokens, seed, template, fewshot_data, log_samples, resume, output_dir (evaluation_results.json and
 *             report.html, and the items with log_samples, are written there)
 *   on_event  may be NULL: MOE_EVENT_ITEM after every item
 *   cancel    may be NULL
 *   results   may be NULL; evaluation_results.json, freed by moe_text_free
 *   table     may be NULL; the table for a terminal, freed by moe_text_free
 * Errors: IO, FORMAT, UNSUPPORTED, CANCELLED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_eval_run(const moe_model *base, const moe_options *options, moe_event_callback on_event, void *user,
                             moe_cancel_token *cancel, moe_text **results, moe_text **table, moe_error *error);

/*
 * One self-contained HTML page about an evaluation and the training before it.
 *   options   results (evaluation_results.json or its folder; items beside it are read too), training (list of training output
 *             folders; by default those that the evaluated models came from), output (file to write, or none). One of results
 *             and training is needed
 *   html      may be NULL; the page, freed by moe_text_free
 * Errors: INVALID, IO, FORMAT. Any thread. Since 0.1.
 */
MOE_API int32_t moe_eval_report(const moe_options *options, moe_text **html, moe_error *error);

/*
 * Token-weighted perplexity of a text over overlapping windows.
 *   model     base model or bundle
 *   lora      an adapter in force, or NULL
 *   text      `length` bytes
 *   options   may be NULL: window, stride (tokens)
 *   out       JSON {"perplexity", "mean_nll", "tokens", "tokens_scored", "window", "stride", "seconds"}; freed by moe_text_free
 * Errors: UNSUPPORTED: no tokenizer; INVALID: fewer than two tokens; CANCELLED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_perplexity(const moe_model *model, const moe_lora *lora, const char *text, size_t length,
                               const moe_options *options, moe_cancel_token *cancel, moe_text **out, moe_error *error);

/* ======================================================== tools ======================================================== */

/*
 * What a file or folder holds, as JSON {"kind", "path", ...}: a GGUF or safetensors file, a model folder, an adapter folder, a
 * bundle (with the recorded path of its base model) or a checkpoint: tensors (name, dtype, shape, bytes), metadata,
 * configuration, fingerprint where there is one; or a Parquet file: schema, row groups, columns (type, codec, encodings, sizes).
 * No weights or rows are loaded. *out is freed by moe_text_free. Errors: IO, FORMAT, UNSUPPORTED. Any thread. Since 0.1.
 */
MOE_API int32_t moe_inspect(const char *path, moe_text **out, moe_error *error);

/*
 * The numbers of one forward (and backward) pass on a packed batch, in the code path of training, for comparison with another
 * engine.
 *   model     base model or bundle, loaded with compute=f32 for the strict mode
 *   lora      an adapter in force, or NULL
 *   options   input (safetensors with tokens, sequence_starts, labels, optionally positions, domains), output (safetensors), what
 *             (list of logits, hidden_states, token_nll, router, gradients), trainable (adapter, router, joint, all),
 *             balance_loss_weight, z_loss_weight, supervised_weight (when set), target_usage
 *   cancel    may be NULL
 * Errors: IO, FORMAT, INVALID: gradients of something that is not there; CANCELLED. One at a time with the training of what is in
 * force. Since 0.1.
 */
MOE_API int32_t moe_dump(const moe_model *model, const moe_lora *lora, const moe_options *options, moe_cancel_token *cancel,
                         moe_error *error);

/*
 * This machine and build as JSON: version, features, CPU level, the first CUDA device or what it lacks, threads, memory in bytes;
 * with the option measure (options may be NULL) also the measured peak rates of the cores and of the memory. *out is freed by
 * moe_text_free. Any thread. Since 0.1.
 */
MOE_API int32_t moe_doctor(const moe_options *options, moe_text **out, moe_error *error);

/*
 * sha256 of a file's content, or of a folder's (names and contents of all files below it) or of the files that a pattern (* ? [...])
 * fits (the same), as 64 hexadecimal digits. *out is freed by moe_text_free. Errors: IO. Any thread. Since 0.1.
 */
MOE_API int32_t moe_sha256(const char *path, moe_text **out, moe_error *error);

#ifdef __cplusplus
}
#endif

#endif /* MOE_H */
