/* nibble: makes large language models small, and proves that they still work.
 *
 * This is the whole public interface; the command line is written against it and nothing else. A caller fills an
 * options struct (zeroed fields mean the default), calls one function, and reads a result struct. Data goes in and out
 * as files: a MODEL is a Hugging Face folder, a .gguf file, or one .safetensors with its config.json beside it.
 *
 *   nibble_ppl_options options = {.size = sizeof options, .model = "./SmolLM2", .text = "wiki.txt"};
 *   nibble_ppl_result result = {.size = sizeof result};
 *   nibble_status status = nibble_ppl(&options, &result, &err);
 *
 * Every struct of options or results that a caller makes begins with its size, so that a program may be linked with a
 * library in whose header the struct has grown, or not yet: fields that the program does not know are zero in options
 * and left out of results, and fields of a result that the library does not know are zero. Structs that the library
 * makes grow at their end. All others, which lie in these or in lists, stay as they are: whatever is new about a
 * tensor, say, comes in a list of its own.
 *
 * What else is required is told by NIBBLE_USAGE, as are NULL in the place of options, results and handles; functions
 * that free take NULL.
 *
 * The library never prints, exits or aborts. Every function that can fail returns a nibble_status and, when it is not
 * NIBBLE_OK, leaves one line in *err that names the file, the tensor and what is wrong. Strings passed in stay the
 * caller's; strings and handles passed out are released with the function named beside them. */
#ifndef NIBBLE_H
#define NIBBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* Of this header. The build reads the version here, and nowhere else. */
#define NIBBLE_VERSION_MAJOR 0
#define NIBBLE_VERSION_MINOR 1
#define NIBBLE_VERSION_PATCH 0
#define NIBBLE_VERSION_NUMBER (NIBBLE_VERSION_MAJOR * 10000 + NIBBLE_VERSION_MINOR * 100 + NIBBLE_VERSION_PATCH)
#define NIBBLE_QUOTE_(x) #x
#define NIBBLE_QUOTE(x) NIBBLE_QUOTE_(x)
#define NIBBLE_VERSION \
  NIBBLE_QUOTE(NIBBLE_VERSION_MAJOR) "." NIBBLE_QUOTE(NIBBLE_VERSION_MINOR) "." NIBBLE_QUOTE(NIBBLE_VERSION_PATCH)

/* NIBBLE_VERSION of the library that is linked, which another header than this may have been made for. */
const char *nibble_version(void);

/* The values are the exit codes of the command line, which adds the signal's number to NIBBLE_STOPPED. */
typedef enum nibble_status {
  NIBBLE_OK = 0,
  NIBBLE_CHECK_FAILED = 1, /* a measured figure missed its threshold */
  NIBBLE_USAGE = 2,        /* an option or argument makes no sense */
  NIBBLE_BAD_INPUT = 3,    /* a file is damaged, hostile, or of another kind */
  NIBBLE_SYSTEM = 4,       /* disk, memory or permission */
  NIBBLE_STOPPED = 128,    /* the context's `stop` said so */
} nibble_status;

/* "ok", "check_failed", "usage", "bad_input", "system" or "stopped"; "unknown" for a number that is no status. */
const char *nibble_status_name(nibble_status status);

enum { NIBBLE_MESSAGE_MAX = 1024 };

/* One line of explanation, always terminated, without a newline at its end. Unspecified while the status is NIBBLE_OK.
 */
typedef struct nibble_error {
  nibble_status status;
  char message[NIBBLE_MESSAGE_MAX];
} nibble_error;

/* Called now and then from the thread that called the library. `done` of `total` in `unit` ("bytes", "tokens");
 * `what` names the tensor or step and is valid during the call only. `warning` is called once for each warning. */
typedef struct nibble_progress {
  void (*step)(void *ctx, const char *what, uint64_t done, uint64_t total, const char *unit);
  void (*warning)(void *ctx, const char *message);
  void *ctx;
} nibble_progress;

/* ---- context ---------------------------------------------------------------------------------------------------- */

/* What calls compute with. Options name one; NULL there means all cores and no GPU. Calls on several threads may share
 * one while nobody changes it, and calls with different ones do not see each other. It must outlive the calls that it
 * is named in; handles keep a copy. */
typedef struct nibble_context nibble_context;

/* Free with nibble_context_free. */
nibble_status nibble_context_create(nibble_context **out, nibble_error *err);
void nibble_context_free(nibble_context *context);

/* At most 1024; 0 means one a core. Results never depend on it. They are OpenMP's: on a busy machine a program is best
 * started with OMP_WAIT_POLICY=passive, or GOMP_SPINCOUNT=2000, which the command line sees to. */
nibble_status nibble_context_set_threads(nibble_context *context, int threads, nibble_error *err);

typedef enum nibble_device {
  NIBBLE_DEVICE_CPU,
  NIBBLE_DEVICE_CUDA, /* the first CUDA device; NIBBLE_SYSTEM where there is none */
  NIBBLE_DEVICE_AUTO  /* as many layers on it as fit, the rest on the CPU; all on the CPU where there is none */
} nibble_device;

/* Device of calls that run a model (nibble_ppl, generate, bench, logits, hidden and verify) or quantize one to nf4, fp4
 * or int8 (nibble_quantize; the bits are the same). GPTQ uses it for Hessians, factors and rounding; its forward pass
 * stays on the CPU. gpu_memory: bytes that AUTO may fill with weights and caches; 0: nine tenths of what is free. */
nibble_status nibble_context_set_device(nibble_context *context, nibble_device device, uint64_t gpu_memory,
                                        nibble_error *err);

/* A function that calls ask now and then, from any of their threads, whether they should stop; NULL: none. Once it
 * returns true, the call ends within about a second: NIBBLE_STOPPED, no output and nothing half done, an older output
 * as it was. Calibration keeps its work folder, from which `resume` goes on; *err says what stays. */
nibble_status nibble_context_set_stop(nibble_context *context, bool (*stop)(void *ctx), void *ctx, nibble_error *err);

/* NIBBLE_OK if there is a device that NIBBLE_DEVICE_CUDA would compute on; else NIBBLE_SYSTEM, and why there is none.
 */
nibble_status nibble_device_check(nibble_error *err);

/* Replaces each character of the text by '?', in place, that would act on a terminal or on the text around it instead
 * of showing itself: controls (C0, DEL, C1), ends of lines, changes of direction, bytes that are not UTF-8. Those in
 * `keep` stay (NULL: none, for a name; "\n\t" for text of several lines). Messages, warnings and findings need it no
 * more; what a model says, and text that a caller brings, do. */
void nibble_printable(char *text, const char *keep);

/* High-water mark of this process's resident memory, in bytes. */
uint64_t nibble_peak_rss(void);

/* True if a file that this process has mapped was truncated or written to while it was read: what was computed from it
 * since the last call of this function is worth nothing. Outputs are not written then, and functions that write one
 * fail with NIBBLE_BAD_INPUT by themselves. */
bool nibble_input_changed(void);

/* ---- inspect ---------------------------------------------------------------------------------------------------- */

/* One tensor of a checkpoint as it lies in its file. */
typedef struct nibble_tensor_info {
  const char *name;
  const char *dtype;  /* "BF16", or a GGUF block format's name */
  const char *format; /* "nf4", "int8", ... on the main tensor of a packed weight; "part" on what belongs to one; else
                         the same as dtype */
  int ndim;
  int64_t shape[8];
  uint64_t bytes;
  const char *file; /* the file's name, without folders */
} nibble_tensor_info;

/* All weights of one format. */
typedef struct nibble_format_total {
  const char *format;
  size_t tensors;
  int64_t parameters;
  uint64_t bytes; /* with scales and maps */
} nibble_format_total;

typedef struct nibble_inspection {
  const char *kind;         /* "safetensors", "pytorch", "gguf" */
  const char *model_type;   /* "" if the config does not say */
  const char *architecture; /* class name, "" if the config does not say */
  bool known_family;        /* nibble has a row for this model_type */
  bool runnable;            /* and can run it */
  const char *quant_method; /* from quantization_config, "" if none */
  nibble_tensor_info *tensors;
  size_t tensor_count;
  nibble_format_total *formats;
  size_t format_count;
  int64_t parameters; /* logical weights: a packed one counts as what it stands for */
  uint64_t tensor_bytes, file_bytes;
  size_t missing_count, extra_count; /* against what the config promises; 0 for an unknown family */
  char **missing;                    /* names of the first few */
  size_t missing_listed;
} nibble_inspection;

typedef struct nibble_inspect_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model; /* MODEL; required */
} nibble_inspect_options;

/* Reads the headers of MODEL; no weight is touched, but for a .bin's, whose checksums are checked. Free with
 * nibble_inspection_free. */
nibble_status nibble_inspect(const nibble_inspect_options *options, nibble_inspection **out, nibble_error *err);
void nibble_inspection_free(nibble_inspection *inspection);

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* What a model needs when its weights are held in one format. */
typedef struct nibble_memory_row {
  const char *format;        /* "f32", "f16", "int8", "nf4", "nf4-double-quant", "gptq-4bit-g128", or "as stored" */
  uint64_t weight_bytes;     /* all tensors, those that are not quantized in 16 bits */
  uint64_t kv_cache_bytes;   /* 16-bit keys and values, batch * ctx positions */
  uint64_t activation_bytes; /* the widest moment of one forward pass over batch * ctx tokens */
  uint64_t total_bytes;
} nibble_memory_row;

typedef struct nibble_memory_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model; /* MODEL, or a config.json without weights; required */
  int64_t ctx;       /* tokens; 0: 2048, or the model's limit if that is less */
  int64_t batch;     /* sequences; 0: 1 */
} nibble_memory_options;

typedef struct nibble_memory_result {
  size_t size; /* of this struct */
  char model_type[64];
  int64_t parameters, quantizable_parameters; /* the second: in linear layers that quantize packs */
  int64_t ctx, batch;
  nibble_memory_row rows[8];
  size_t row_count;
} nibble_memory_result;

nibble_status nibble_memory(const nibble_memory_options *options, nibble_memory_result *out, nibble_error *err);

/* ---- init ------------------------------------------------------------------------------------------------------- */

typedef struct nibble_init_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *config, *dst; /* config.json (or a folder that has one), and the folder to make; required */
  uint64_t seed;
  const char *dtype;       /* "bfloat16", ...; NULL: the config's */
  uint64_t max_shard_size; /* bytes; 0: 5 GB */
  bool force, no_sync;
  nibble_progress progress;
} nibble_init_options;

typedef struct nibble_init_result {
  size_t size; /* of this struct */
  int64_t parameters;
  uint64_t file_bytes;
  double seconds;
} nibble_init_result;

/* Writes a model with random weights (normal, the config's initializer_range; norms 1, biases 0) as a stream. The same
 * seed gives the same bytes, whatever the threads and shards. */
nibble_status nibble_init(const nibble_init_options *options, nibble_init_result *out, nibble_error *err);

/* ---- convert ---------------------------------------------------------------------------------------------------- */

typedef struct nibble_convert_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *src, *dst; /* MODEL, and the Hugging Face folder to make; required */
  const char *dtype;     /* of all float tensors: "float32", "float16", "bfloat16" or their short names. NULL or "keep":
                            as they are; a .gguf: bfloat16 if it holds blocks, else the dtype of most of its weights */
  uint64_t max_shard_size; /* bytes; 0: 5 GB */
  bool dequantize;         /* packed weights become float again, in `dtype` or the config's */
  const char *layout;      /* of GPTQ's zero points: "gptq" or "gptq_v2"; NULL: as they are */
  bool force, no_sync;
  nibble_progress progress;
} nibble_convert_options;

typedef struct nibble_convert_result {
  size_t size;           /* of this struct */
  size_t tensors;        /* written */
  size_t overflowed;     /* tensors with values that `dtype` cannot hold: they became infinite, with a warning each */
  uint64_t tensor_bytes; /* written */
  uint64_t source_bytes; /* read */
  char dtype[16];        /* "keep", or as config.json spells it */
  double seconds;
} nibble_convert_result;

/* Rewrites a checkpoint as safetensors, as a stream, with its config, its side files and a nibble.json. DST appears
 * whole or not at all. */
nibble_status nibble_convert(const nibble_convert_options *options, nibble_convert_result *out, nibble_error *err);

/* ---- running a model -------------------------------------------------------------------------------------------- */

/* How weights in int8 are multiplied. */
typedef enum nibble_int8 {
  NIBBLE_INT8_WEIGHT_ONLY, /* dequantized, in float32 */
  NIBBLE_INT8_LLM,         /* as LLM.int8: activations quantized a row at a time, outlier columns apart */
} nibble_int8;

/* How activations enter the products with packed weights. */
typedef enum nibble_activations {
  NIBBLE_ACTIVATIONS_EXACT, /* in float32 */
  NIBBLE_ACTIVATIONS_INT8,  /* rounded to eight bits, a scale for 32 of a row, as llama.cpp does */
  NIBBLE_ACTIVATIONS_FAST,  /* rounded where the format's products are faster for it and perplexity rises by less than
                               0.5% (docs/results.md has the measurement), else in float32 */
} nibble_activations;

/* How the output embedding is multiplied, if it is stored as plain floats. */
typedef enum nibble_head {
  NIBBLE_HEAD_AS_STORED,
  NIBBLE_HEAD_INT8, /* rounded to int8 when the model is loaded, a scale a row: it is read for every token */
} nibble_head;

typedef enum nibble_convention {
  NIBBLE_CONVENTION_HF,        /* windows without overlap, all predictions of each full window */
  NIBBLE_CONVENTION_LLAMA_CPP, /* the same windows, predictions of the second half, BOS at the start of each if the
                                  tokenizer adds one */
} nibble_convention;

typedef struct nibble_ppl_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model; /* required */
  const char *text;  /* file, plain or gzip; "-": standard input; required */
  int64_t ctx;       /* tokens of a window; 0: 512 */
  int64_t stride;    /* from one window's start to the next; each then scores only what it adds. 0: ctx. hf only */
  int64_t chunks;    /* most windows; 0: all */
  nibble_convention convention;
  nibble_int8 int8;
  nibble_activations activations;
  nibble_progress progress;
  nibble_head head;
} nibble_ppl_options;

typedef struct nibble_ppl_result {
  size_t size; /* of this struct */
  double perplexity, perplexity_stderr;
  int64_t tokens;           /* predictions averaged over */
  int64_t chunks;           /* windows */
  double seconds;           /* of computing; reading and tokenizing are not in it */
  double tokens_per_second; /* tokens that went through the model, a second */
  double load_seconds;
  uint64_t weight_bytes, file_bytes;
} nibble_ppl_result;

/* Perplexity of MODEL on a text: exp of the mean negative log-likelihood. The standard error is that of the mean,
 * carried through exp, with predictions taken as independent (llama-perplexity's). */
nibble_status nibble_ppl(const nibble_ppl_options *options, nibble_ppl_result *out, nibble_error *err);

typedef struct nibble_logits_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model;  /* required */
  const int32_t *ids; /* [id_count]; required */
  size_t id_count;
  const int32_t *decoder_ids; /* [decoder_id_count], of a model with an encoder, which gets `ids`, and a decoder */
  size_t decoder_id_count;
  const char *hook; /* nibble_hidden: the activation's name; required there */
  const char *out;  /* safetensors file to write; required */
  bool force;       /* replace it if it exists */
  nibble_int8 int8;
  nibble_activations activations;
  nibble_progress progress;
  nibble_head head;
} nibble_logits_options;

typedef struct nibble_logits_result {
  size_t size; /* of this struct */
  int ndim;
  int64_t shape[3];
  double seconds;
} nibble_logits_result;

/* Writes the raw output of one forward pass, float32, under the name that transformers has for it: `logits`
 * [1, tokens, vocab_size] of a language model, [1, labels] of a classifier of sequences; `last_hidden_state`
 * [1, tokens, hidden_size] of a base class. The class is the one that config.json's "architectures" names. */
nibble_status nibble_logits(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err);

/* Writes the activation `hook` [1, tokens, width], float32, under its own name: "layers.3.mlp.down_proj.input", any
 * linear layer's input; "layers.3.input", the residual stream before a block; "norm.input", after the last. */
nibble_status nibble_hidden(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err);

typedef struct nibble_generate_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model;      /* required */
  const char *prompt;     /* required, unless there are `messages` */
  int64_t max_new_tokens; /* 0: 128 */
  double temperature;     /* 0: greedy */
  int64_t top_k;          /* sample among the k likeliest; 0: all */
  double top_p;           /* sample among the likeliest that together have this probability; 0 or 1: all */
  uint64_t seed;          /* the same seed, model and settings give the same text */
  bool ignore_eos;
  nibble_int8 int8;
  nibble_activations activations;
  /* Called with each piece of new text, whole UTF-8 characters, not NUL-terminated. NULL: none. */
  void (*text)(void *ctx, const char *bytes, size_t n);
  void *ctx;
  nibble_progress progress;
  /* The prompt is what a user says: the model's chat template is put around it, and its special tokens are what they
   * are for. The next three ask for this one. */
  bool chat;
  const char *system;   /* the first message, what a system says; NULL: none */
  const char *messages; /* JSON file with the messages before the prompt, [{"role": ..., "content": ...}], or an object
                           that has them, `tools`, `documents` and what else the template reads; NULL: none */
  const char *tools;    /* JSON file with a list of tools; NULL: none */
  nibble_head head;
} nibble_generate_options;

typedef struct nibble_generate_result {
  size_t size; /* of this struct */
  int64_t prompt_tokens, new_tokens;
  bool stopped_at_eos;
  double load_seconds, prompt_seconds, generate_seconds;
  char *text;                     /* all new text; free() */
  size_t text_length;             /* bytes; there may be NULs among them */
  nibble_activations activations; /* that were multiplied with packed weights: EXACT or INT8 */
} nibble_generate_result;

nibble_status nibble_generate(const nibble_generate_options *options, nibble_generate_result *out, nibble_error *err);

/* A conversation with a model that stays open. What the model has read stays read: of a longer conversation only the
 * new messages are run. */
typedef struct nibble_chat nibble_chat;

typedef struct nibble_chat_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model;                     /* required; it must have a chat template */
  const char *system, *messages, *tools; /* as nibble_generate's */
  int64_t ctx;            /* tokens of the whole conversation; 0: 4096, or the model's limit if that is less */
  int64_t max_new_tokens; /* of an answer; 0: as many as there is room for */
  double temperature;     /* this and the next as nibble_generate's */
  int64_t top_k;
  double top_p;
  uint64_t seed;
  nibble_int8 int8;
  nibble_activations activations;
  nibble_progress progress;
  nibble_head head;
} nibble_chat_options;

typedef struct nibble_chat_answer {
  size_t size;                       /* of this struct */
  int64_t prompt_tokens, new_tokens; /* the first: tokens that were read anew */
  bool stopped_at_eos;
  double prompt_seconds, generate_seconds;
  char *text; /* free() */
  size_t text_length;
  nibble_activations activations; /* that were multiplied with packed weights: EXACT or INT8 */
} nibble_chat_answer;

/* Close with nibble_chat_close. */
nibble_status nibble_chat_open(const nibble_chat_options *options, nibble_chat **out, nibble_error *err);
void nibble_chat_close(nibble_chat *chat);

/* Says `text` and gets the answer, whose pieces go to `piece` as they come (NULL: none), whole characters each. After
 * NIBBLE_STOPPED the conversation goes on from what was written so far; after another failure it is as before. */
nibble_status nibble_chat_say(nibble_chat *chat, const char *text,
                              void (*piece)(void *ctx, const char *bytes, size_t n), void *ctx, nibble_chat_answer *out,
                              nibble_error *err);

/* Begins anew: with what it was opened with, or with `system` (not NULL) in the place of all messages. */
nibble_status nibble_chat_reset(nibble_chat *chat, const char *system, nibble_error *err);

typedef struct nibble_bench_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model;   /* required */
  int64_t prompt, gen; /* tokens; 0: 512 and 128 */
  int64_t repetitions; /* 0: 3 */
  nibble_int8 int8;
  nibble_activations activations;
  nibble_progress progress;
  nibble_head head;
} nibble_bench_options;

typedef struct nibble_bench_result {
  size_t size; /* of this struct */
  double prompt_tokens_per_second, prompt_stddev;
  double gen_tokens_per_second, gen_stddev;
  double load_seconds;
  uint64_t weight_bytes;
  nibble_activations activations; /* that were multiplied with packed weights: EXACT or INT8 */
} nibble_bench_result;

/* Speed of reading a prompt of random ids, and of generating with an empty context, each after one run that is not
 * counted. Only the last token's logits are computed, as llama-bench does. */
nibble_status nibble_bench(const nibble_bench_options *options, nibble_bench_result *out, nibble_error *err);

/* ---- a model that stays open ------------------------------------------------------------------------------------ */

/* One call each of the functions above opens a model, uses it and closes it. These keep it open:
 *
 *   nibble_model_options of = {.size = sizeof of, .model = "./SmolLM2"};
 *   nibble_session_options room = {.size = sizeof room};
 *   nibble_model_open(&of, &model, &err)
 *   nibble_session_open(model, &room, &session, &err)
 *   nibble_session_feed(session, ids, count, &err)        as often as there are ids
 *   nibble_session_logits(session, 1, logits, &err)       after the last of them
 *   nibble_session_truncate(session, 0, &err)             and again, for another text
 *
 * Several threads may use sessions of one model that is on the CPU, each its own; on a GPU one thread at a time. */
typedef struct nibble_model nibble_model;
typedef struct nibble_session nibble_session;

typedef struct nibble_model_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *model; /* MODEL; required */
  nibble_int8 int8;
  nibble_activations activations;
  nibble_head head;
} nibble_model_options;

typedef struct nibble_model_info {
  size_t size;                           /* of this struct */
  const char *model_type, *architecture; /* the model's; valid while it is open */
  int64_t layers;                        /* of the decoder, if it has an encoder, too */
  int64_t vocab_size, hidden_size;
  int64_t output_width;  /* of a row of logits; of a base class, of hidden states */
  int64_t max_positions; /* that it was made for */
  uint64_t weight_bytes; /* as they are stored */
  bool has_encoder;      /* beside a decoder: nibble_session_encode comes first */
  bool is_causal;        /* false: it takes a text as a whole, and each feed is another text */
  bool has_one_row;      /* a classifier of sequences: its output is one row for a text */
} nibble_model_info;

/* Opens MODEL and loads all of it; NIBBLE_BAD_INPUT names what cannot be run. Close with nibble_model_close; a model
 * that is closed before its sessions goes with the last of them. */
nibble_status nibble_model_open(const nibble_model_options *options, nibble_model **out, nibble_error *err);
void nibble_model_close(nibble_model *model);
nibble_status nibble_model_describe(const nibble_model *model, nibble_model_info *out, nibble_error *err);

typedef struct nibble_session_options {
  size_t size;                   /* of this struct */
  const nibble_context *context; /* whose threads it uses, on the model's device; NULL: the model's */
  int64_t capacity;              /* ids that it may hold; 0: 2048, or the model's max_positions if that is less */
  int64_t encoder_capacity;      /* the same of an encoder */
  int64_t step; /* most ids that are run, and whose logits can be read, at a time; 0: 512. `capacity` of a model that
                   takes a text as a whole, and with NIBBLE_INT8_LLM */
} nibble_session_options;

/* Keys and values of one text, and scratch memory. Close with nibble_session_close. */
nibble_status nibble_session_open(nibble_model *model, const nibble_session_options *options, nibble_session **out,
                                  nibble_error *err);
void nibble_session_close(nibble_session *session);

/* Gives an encoder its ids; the decoder begins anew. NIBBLE_USAGE if the model has none beside a decoder. */
nibble_status nibble_session_encode(nibble_session *session, const int32_t *ids, size_t count, nibble_error *err);

/* Appends ids and runs the model on them, `step` at a time. NIBBLE_USAGE if one is not in the vocabulary or there is no
 * room. After a failure the session is as long as before, and there are no logits to read. */
nibble_status nibble_session_feed(nibble_session *session, const int32_t *ids, size_t count, nibble_error *err);

/* What the model gives after each of the last `rows` ids of the last feed: out [rows, output_width], float32. At most
 * `step` rows can be read. */
nibble_status nibble_session_logits(nibble_session *session, size_t rows, float *out, nibble_error *err);

/* Forgets all ids from `length` on. */
nibble_status nibble_session_truncate(nibble_session *session, int64_t length, nibble_error *err);
int64_t nibble_session_length(const nibble_session *session); /* ids that it holds */

/* ---- quantize --------------------------------------------------------------------------------------------------- */

typedef enum nibble_scales {
  NIBBLE_SCALES_DEFAULT,  /* gptq: searched; rtn: min/max */
  NIBBLE_SCALES_SEARCHED, /* those of the least error; gptq weighs it as its solver does */
  NIBBLE_SCALES_MIN_MAX,  /* a group's grid spans its least and largest weight: GPTQModel's default */
} nibble_scales;

typedef enum nibble_zeros {
  NIBBLE_ZEROS_DEFAULT, /* in the middle */
  NIBBLE_ZEROS_MIDDLE,  /* of the grid: it is symmetric */
  NIBBLE_ZEROS_FITTED,  /* wherever they fit best */
} nibble_zeros;

typedef enum nibble_sampling {
  NIBBLE_SAMPLING_DEFAULT, /* the first ones */
  NIBBLE_SAMPLING_FIRST,   /* windows from the text's start on */
  NIBBLE_SAMPLING_RANDOM,  /* windows anywhere in the text, drawn by the seed */
} nibble_sampling;

/* An option is read by the methods that its comment names, or by all where it names none. One that is set (not 0, not
 * NULL) and that the method does not read is refused: NIBBLE_USAGE. */

typedef struct nibble_quantize_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *src, *dst;         /* a MODEL, and the folder to make; required */
  const char *method;            /* "nf4", "fp4", "int8", "gptq" or "rtn"; required */
  bool double_quant;             /* nf4, fp4: quantize the blocks' scales too */
  int64_t block_size;            /* nf4, fp4: a power of two from 32 to 4096; 0: 64 */
  const char *include, *exclude; /* regular expressions (PCRE2) searched in tensor names, or NULL: output embeddings to
                                    quantize too, weights to keep; exclude wins */
  int bits;                      /* gptq, rtn: 2, 3, 4, 8; 0: 4 */
  int64_t group_size;            /* gptq, rtn: weights of a row that share a scale; -1: all; 0: 128 */
  nibble_zeros zeros;            /* gptq, rtn */
  nibble_scales scales;          /* gptq, rtn */
  const char *scale_dtype;       /* gptq, rtn: "float16" (NULL: this) or "bfloat16" */
  const char *layout;            /* gptq, rtn: "gptq" (version 1 of the zero points; NULL: this) or "gptq_v2" */
  bool desc_act;                 /* gptq: groups are cut in the order of activations, which g_idx then tells */
  double damp;                   /* gptq: added to the Hessian's diagonal, as a part of its mean; 0: 0.05 */
  const char *calib;             /* gptq: calibration text, plain or gzip, or JSON lines with "text" */
  int64_t nsamples, seqlen;      /* gptq: windows and their tokens; 0: 128, and 2048 or what the model can */
  nibble_sampling sampling;      /* gptq */
  uint64_t seed;                 /* gptq, with NIBBLE_SAMPLING_RANDOM */
  uint64_t max_memory;           /* gptq: bytes of activations to hold in memory, not in a file; 0: 1 GiB */
  const char *work_dir;          /* gptq: where finished layers are kept until the end; NULL: DST.work */
  bool resume;                   /* gptq: go on from what is in work_dir */
  bool unknown_family;           /* quantize a model whose family is not known, by the names of its tensors */
  bool requantize;               /* dequantize a packed source first; without it such a source is refused */
  uint64_t max_shard_size;       /* bytes; 0: 50 GB */
  bool force, no_sync;           /* replace dst; do not wait for the disk */
  nibble_progress progress;
} nibble_quantize_options;

enum { NIBBLE_WORST_LAYERS = 5 };

/* Parts of a layer's outputs on the calibration text, as norms. */
typedef struct nibble_layer_error {
  char tensor[256];
  double error, rtn_error; /* as it was quantized, and had its weights been rounded to the nearest */
} nibble_layer_error;

typedef struct nibble_quantize_result {
  size_t size; /* of this struct */
  int64_t parameters, quantized_parameters, quantized_tensors;
  uint64_t source_bytes, file_bytes; /* of the weight files */
  double relative_error;             /* norm of the quantized weights' errors by the norm of the weights */
  double worst_relative_error;       /* of one tensor: */
  char worst_tensor[256];
  nibble_layer_error worst_layers[NIBBLE_WORST_LAYERS]; /* gptq: the largest errors, largest first */
  int worst_layer_count;
  double seconds;
} nibble_quantize_result;

/* Quantizes the linear layers of a checkpoint and writes a folder that transformers loads: nf4, fp4 and int8 byte for
 * byte as bitsandbytes 0.50 does on a CPU, gptq and rtn in GPTQ's layout. The folder has safetensors, config.json
 * with its quantization_config, everything else that belongs to the model, and nibble.json with hashes and errors.
 * NIBBLE_BAD_INPUT names the first weight that is NaN or infinite. */
nibble_status nibble_quantize(const nibble_quantize_options *options, nibble_quantize_result *out, nibble_error *err);

/* ---- tokenize --------------------------------------------------------------------------------------------------- */

/* The tokenizer of a model; one thread at a time may use it. */
typedef struct nb_tokenizer nibble_tokenizer;

/* Opens the tokenizer of MODEL (a tokenizer.json will do). NIBBLE_BAD_INPUT if it has none, or one with parts that
 * nibble does not know: the ids are those of Hugging Face's tokenizers or there are none. */
nibble_status nibble_tokenizer_open(const char *model, nibble_tokenizer **out, nibble_error *err);
void nibble_tokenizer_close(nibble_tokenizer *tokenizer);

/* What these functions make, zeros after a failure; free(data). */
typedef struct nibble_ids {
  int32_t *data; /* [count]; may be NULL if there are none */
  size_t count;
} nibble_ids;

typedef struct nibble_text {
  char *data; /* [length], any bytes, and a NUL */
  size_t length;
} nibble_text;

/* The ids of text[0, n), with the special tokens that the tokenizer puts around it if add_special. Bytes that are not
 * UTF-8 are read as U+FFFD. */
nibble_status nibble_tokenizer_encode(nibble_tokenizer *tokenizer, const char *text, size_t n, bool add_special,
                                      nibble_ids *out, nibble_error *err);

/* One token of an encoding, and the part of a text that it stands for. */
typedef struct nibble_token {
  int32_t id;
  int32_t type_id;   /* which text it belongs to, as the tokenizer's template numbers them */
  int32_t word;      /* the word of its text that it lies in, from 0; -1 where it stands for no text */
  bool special;      /* the template or padding has put it there (special_tokens_mask) */
  bool padding;      /* (attention_mask is 0) */
  size_t begin, end; /* of its text as given, before normalization; 0, 0 where it stands for no text */
} nibble_token;

/* The tokens of a text or a pair of texts, or what truncation cut off one of them. */
typedef struct nibble_encoding {
  nibble_token *tokens; /* [count]; NULL if there are none */
  size_t count;
  size_t text;      /* index of the text in its batch */
  bool overflowing; /* a later piece of a text that was cut: it follows the first one */
} nibble_encoding;

/* Free with nibble_encodings_free. */
typedef struct nibble_encodings {
  nibble_encoding *list; /* [count], in the order of the texts */
  size_t count;
} nibble_encodings;

/* Which text of a pair loses its tokens. */
typedef enum nibble_truncate {
  NIBBLE_TRUNCATE_NONE = 0,
  NIBBLE_TRUNCATE_LONGEST_FIRST = 1,
  NIBBLE_TRUNCATE_ONLY_FIRST = 2,
  NIBBLE_TRUNCATE_ONLY_SECOND = 3,
} nibble_truncate;

typedef enum nibble_pad {
  NIBBLE_PAD_NONE = 0,
  NIBBLE_PAD_LONGEST = 1, /* to the longest encoding of the batch; what overflows does not count */
  NIBBLE_PAD_FIXED = 2,   /* to pad_length */
} nibble_pad;

typedef enum nibble_offsets {
  NIBBLE_OFFSETS_CHARACTERS = 0, /* code points, as Python's strings count them; a damaged sequence of bytes is one */
  NIBBLE_OFFSETS_BYTES = 1,
} nibble_offsets;

typedef struct nibble_encode_options {
  size_t size;
  const nibble_context *context; /* NULL: the default one */
  bool no_special;               /* without the special tokens of the tokenizer's template */
  bool overflow;                 /* hand out what truncation cuts off, too */
  nibble_offsets offsets;
  nibble_truncate truncation;
  bool truncate_left; /* the start of a text is cut off, not its end */
  size_t max_length;  /* tokens of an encoding, special ones included */
  size_t stride;      /* tokens that an overflowing piece shares with the one before it */
  nibble_pad padding;
  bool pad_left;          /* in front of a text, not behind it */
  size_t pad_length;      /* tokens; for NIBBLE_PAD_FIXED */
  size_t pad_multiple_of; /* the length is rounded up to a multiple of it; 0: it is not */
  int32_t pad_id, pad_type_id;
} nibble_encode_options;

/* What the tokenizer's files say of truncation and padding, as options that do the same: tokenizer.json's fields, and
 * before them the model_max_length, sides and padding token of tokenizer_config.json. max_length is 0 and pad_id -1
 * where they say nothing. Set out->size first. */
nibble_status nibble_tokenizer_limits(const nibble_tokenizer *tokenizer, nibble_encode_options *out, nibble_error *err);

/* A text, or two that are encoded together. Any bytes: those that are not UTF-8 are read as U+FFFD. */
typedef struct nibble_text_pair {
  const char *text;
  size_t text_length;
  const char *pair; /* the second one; NULL: there is none */
  size_t pair_length;
} nibble_text_pair;

/* Encodes texts as tokenizers' encode_batch does: tokens with offsets, type ids and masks, cut and padded as the
 * options say. What the tokenizer's files say of truncation and padding does not count, as in transformers. It costs
 * several times what nibble_tokenizer_encode does. NIBBLE_BAD_INPUT if a text has too few tokens for what
 * only_first or only_second is to cut off. */
nibble_status nibble_tokenizer_encode_batch(nibble_tokenizer *tokenizer, const nibble_text_pair *texts, size_t count,
                                            const nibble_encode_options *options, nibble_encodings *out,
                                            nibble_error *err);
void nibble_encodings_free(nibble_encodings *encodings);

/* The text of ids; those that name no token are passed over. */
nibble_status nibble_tokenizer_decode(const nibble_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                      bool skip_special, nibble_text *out, nibble_error *err);

/* The lines of a text that are in one script, and their tokens. */
typedef struct nibble_script_tokens {
  const char *script; /* Unicode's name of it, a constant: "Latin"; "Common" for lines without letters */
  size_t lines, words, characters, bytes; /* words: what white space parts */
  size_t *tokens;                         /* [tokenizers] */
} nibble_script_tokens;

typedef struct nibble_token_comparison {
  size_t tokenizers, count;
  nibble_script_tokens *scripts; /* [count], that of most bytes first */
  nibble_script_tokens total;
} nibble_token_comparison;

/* Counts what each line of text[0, n) takes under each of `count` tokenizers, without special tokens around it. A line
 * counts for the script that most of its letters are in. */
nibble_status nibble_tokenizers_compare(nibble_tokenizer *const *tokenizers, size_t count, const char *text, size_t n,
                                        nibble_token_comparison *out, nibble_error *err);
void nibble_token_comparison_free(nibble_token_comparison *comparison);

/* Draws tokens a character under the tokenizers, `names` [tokenizers], by script, into an SVG file, which is replaced.
 */
nibble_status nibble_token_comparison_draw(const nibble_token_comparison *comparison, const char *const *names,
                                           const char *path, nibble_error *err);

/* Reads a text, plain or gzip, from a file or from standard input ("-"): at most 1 GiB. */
nibble_status nibble_text_read(const char *path, nibble_text *out, nibble_error *err);

/* ---- kernels ---------------------------------------------------------------------------------------------------- */

/* NIBBLE_USAGE if the environment variable NIBBLE_ISA, which asks for kernels of a lesser instruction set, names none
 * or one that is not here. Calls pass over such a setting and take the best that is here. */
nibble_status nibble_isa_check(nibble_error *err);

/* One product y [n, rows] = x [n, cols] W^T. */
typedef struct nibble_kernel_bench_row {
  const char *format; /* of W: "nf4" */
  bool double_quant;
  int64_t rows, cols, n;
  double seconds;          /* median */
  double bytes_per_second; /* of W */
  double flops;            /* a second: 2 n rows cols / seconds */
  double share;            /* of the nearer limit, which is */
  bool bound_by_memory;    /* reading memory, or else multiplying */
} nibble_kernel_bench_row;

typedef struct nibble_kernel_bench {
  size_t size;     /* of this struct; of the library's, in what `started` gets */
  const char *isa; /* "avx2" */
  int threads;
  double copy_bytes_per_second, read_bytes_per_second, peak_flops; /* this machine's limits, measured first */
  double nf4_parameters_per_second; /* quantized from bf16, memory to memory, relative errors included */
  nibble_kernel_bench_row *rows;
  size_t row_count;
} nibble_kernel_bench;

typedef struct nibble_kernel_bench_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *format;    /* NULL: all */
  int64_t rows, cols, n; /* 0: all */
  nibble_activations activations;
  void (*started)(void *ctx, const nibble_kernel_bench *bench); /* the limits are known; or NULL */
  void (*each)(void *ctx, const nibble_kernel_bench_row *row);  /* called as each row is measured; or NULL */
  void *ctx;
} nibble_kernel_bench_options;

/* Measures the matrix kernels on shapes of real models. Takes 700 MB of memory and some minutes. NIBBLE_USAGE if no
 * kernel matches. Free the result with nibble_kernel_bench_free. */
nibble_status nibble_bench_kernels(const nibble_kernel_bench_options *options, nibble_kernel_bench *out,
                                   nibble_error *err);
void nibble_kernel_bench_free(nibble_kernel_bench *bench);

/* ---- verify ----------------------------------------------------------------------------------------------------- */

typedef enum nibble_severity {
  NIBBLE_NOTE,    /* worth knowing; sound artifacts have such things */
  NIBBLE_WARNING, /* unusual, but nothing says that it is wrong */
  NIBBLE_FAULT,   /* the artifact fails */
} nibble_severity;

/* One thing that a check has to say. Faults of a kind in one tensor are one finding, which places the first of them. */
typedef struct nibble_finding {
  nibble_severity severity;
  const char *check;  /* stable name of the check: "missing", "scale", "error" */
  const char *cause;  /* stable name of the known mistake that explains it: "nibbles-swapped"; "" if none does */
  const char *tensor; /* "": the artifact as a whole */
  int64_t block;      /* quantization block or row the first lies in; -1: none */
  int64_t index;      /* its element, flattened; -1: none */
  int64_t count;      /* how many there are in this tensor */
  const char *text;   /* one line */
} nibble_finding;

/* A weight of the artifact against the original's. Errors are relative to the original's Frobenius norm. */
typedef struct nibble_weight_error {
  const char *tensor;
  const char *format; /* of the artifact's: "nf4", "BF16" */
  int64_t rows, cols;
  double relative_error;
  double expected_error; /* that rounding this very weight to the nearest makes; NaN if it has no such error */
  double snr_db;         /* signal to noise; infinite if the two are the same */
  double cosine;
  double max_error; /* the largest difference, and its place */
  int64_t max_row, max_col;
  int64_t damaged_blocks; /* far worse than the rest of their kind, and the first of them (-1: none) */
  int64_t first_damaged_block;
  bool flagged;       /* far worse than its format makes it */
  const char *cause;  /* if flagged: the mistake that explains the error, as in nibble_finding; "" otherwise */
  double cause_error; /* and the error, on a sample of rows, once that mistake is undone */
} nibble_weight_error;

enum { NIBBLE_KL_BINS = 16, NIBBLE_WORST_TOKENS = 8 };

/* A token at which the two models differ most. Texts are UTF-8, with control characters replaced. */
typedef struct nibble_worst_token {
  int64_t position; /* in the text's tokens */
  double kl;
  char *context, *token;     /* what stood before it, and the text's own next token */
  char *reference_top, *top; /* the likeliest next token of either model */
} nibble_worst_token;

/* How the artifact behaves on a text, beside the original. A token's KL divergence is that of the artifact's
 * distribution from the original's, in nats. */
typedef struct nibble_behaviour {
  int64_t tokens, chunks, ctx; /* predictions compared, windows, and their length */
  double perplexity, perplexity_stderr;
  double reference_perplexity, reference_perplexity_stderr;       /* of the original */
  double nll_difference, nll_difference_low, nll_difference_high; /* mean log-likelihood lost a token, and its 95%
                                                                     interval: differences are taken token by token */
  double ppl_increase;                                            /* exp of that, less 1 */
  double kl_mean, kl_stderr, kl_p99, kl_max;
  double top1_agreement, top5_agreement; /* same likeliest token; share of the five likeliest in common */
  int64_t kl_bins[NIBBLE_KL_BINS];       /* tokens with a KL from 10^(i/2 - 7) on; the first also takes what is below */
  nibble_worst_token worst[NIBBLE_WORST_TOKENS];
  int64_t worst_count;
  double *block_errors; /* [block_count] relative error of the hidden states that enter each block, and the last norm */
  int64_t block_count;
  double
      *block_sensitivity; /* [sensitivity_count] mean KL if that block alone is the artifact's, on the first tokens */
  int64_t sensitivity_count; /* 0: not asked for, or the two models' blocks are of other shapes */
  int64_t parting_block;     /* the first block whose output is off by a quarter and more; -1: none */
  uint64_t predicted_bytes;  /* of weights, as `memory` tells them from the headers */
  uint64_t file_bytes;       /* on disk */
  uint64_t resident_bytes;   /* by which this process grew when the artifact was loaded and had run once */
  double seconds;
} nibble_behaviour;

/* What an artifact's behaviour must keep to. */
typedef struct nibble_thresholds {
  const char *profile;
  double max_kl;           /* mean, in nats */
  double max_ppl_increase; /* 0.01: by 1% */
  double min_top1;         /* share of tokens */
} nibble_thresholds;

/* A figure of the behaviour beside its limit. */
typedef struct nibble_limit {
  const char *figure; /* as in JSON: "kl_mean", "ppl_increase", "top1_agreement" */
  const char *title;  /* for people */
  double measured, limit;
  double used;   /* share of the limit: above 1 it is missed. Of an agreement, the share of the disagreement allowed */
  bool is_share; /* measured and limit are shares, shown as percents */
  bool is_least; /* the limit is the least, else the most, that is allowed */
} nibble_limit;

enum { NIBBLE_LIMITS = 3 };

typedef struct nibble_verify_options {
  size_t size; /* of this struct */
  const nibble_context *context;
  const char *artifact; /* MODEL; required */
  const char *against;  /* MODEL it was made from; NULL: its structure only */
  const char *text;     /* file, plain or gzip, to compare their behaviour on; NULL: not compared. Needs `against` */
  int64_t ctx, chunks;  /* windows of the text, as nibble_ppl's */
  nibble_int8 int8;
  const char *profile;                       /* "strict", "normal" (what the artifact's formats do to a small model),
                                                "loose"; NULL: normal */
  double max_kl, max_ppl_increase, min_top1; /* in the profile's place; 0: the profile's */
  const char *certificate; /* file for the certificate; NULL: nibble.json in the artifact's folder, if `against` is
                              given and the folder can be written to */
  bool no_certificate;     /* writes none, unless `certificate` is given */
  bool check_only;         /* measures nothing: are the files (the original's too, if given) the certified ones, and do
                              the certificate's figures keep to its thresholds and to those given here? What it says
                              is the result: depth, weights, behaviour */
  const char *report;      /* HTML file to write; NULL: none */
  bool sensitivity;        /* measures block_sensitivity, which takes as long as some windows; `report` does, too */
  nibble_progress progress;
  bool force;       /* `certificate` and `report` may be files that nibble did not write: they are replaced */
  const char *sign; /* PEM file of an Ed25519 private key: the certificate's file is signed, in a file beside it with
                       .sig behind its name. NULL: it is not */
  const char *key; /* with check_only: PEM file of the public key whose signature the certificate must have; of one that
                      has it not nothing else is believed. NULL: a signature is not checked */
} nibble_verify_options;

/* Of a certificate. */
typedef enum nibble_signature {
  NIBBLE_SIGNATURE_NONE,
  NIBBLE_SIGNATURE_UNCHECKED, /* there is one; no key was given */
  NIBBLE_SIGNATURE_GOOD,      /* it is that of the key given, made now or found so */
  NIBBLE_SIGNATURE_BAD,       /* it is not */
} nibble_signature;

typedef struct nibble_verification {
  const char *artifact, *original, *text; /* names without folders; "" where there is none */
  const char *text_sha256;
  const nibble_finding *findings; /* in the order of the checks */
  size_t finding_count, fault_count, warning_count;
  size_t tensors, packed_weights; /* looked at */
  uint64_t tensor_bytes;
  double structure_seconds;

  const nibble_weight_error *weights; /* with `against`: in the order of the original's file */
  size_t weight_count, flagged_count;
  double weights_seconds;

  const nibble_behaviour *behaviour; /* NULL: not compared */
  nibble_thresholds thresholds;
  const char *depth; /* how far it went: "structure", "weights", "behaviour"; "" for a certificate not believed */

  nibble_signature signature;
  const char *limits_of;              /* whose limits the profile "normal" took: a format's name; "" without it */
  nibble_limit limits[NIBBLE_LIMITS]; /* with `behaviour`: how much of each threshold it uses */
  const char *key_sha256;             /* fingerprint of `sign` or `key`: of the public key's DER form; "" without one */
} nibble_verification;

/* Checks an artifact: its structure, with `against` every weight, with `text` its behaviour. NIBBLE_CHECK_FAILED, with
 * *out set, if it has a fault or misses a threshold; NIBBLE_BAD_INPUT, with *out NULL, if the files cannot be read as
 * checkpoints at all. Free with nibble_verification_free. */
nibble_status nibble_verify(const nibble_verify_options *options, nibble_verification **out, nibble_error *err);
void nibble_verification_free(nibble_verification *verification);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
