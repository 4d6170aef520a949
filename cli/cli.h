/* What every subcommand shares: the common options, messages, the progress bar and JSON output. A subcommand is one
 * file with one function `int cli_NAME(int argc, char **argv)` and a row in main.c's table; it parses its options with
 * argp through cli_parse, which adds the common ones, calls one function of nibble.h, and prints the result. argv[0] is
 * "nibble NAME".
 *
 *   typedef struct options { cli_common common; ... } options;     common must come first
 *   cli_parse(&argp, argc, argv, &options)                         exits with 2 on wrong usage
 *   return cli_finish(status, &err)                                the exit code; prints the error, if any */
#ifndef NB_CLI_CLI_H
#define NB_CLI_CLI_H

#include <argp.h>
#include <cjson/cJSON.h>

#include "nibble.h"

typedef struct cli_common {
  bool json, quiet;
  bool runs_model;  /* set before cli_parse: the command can compute on a GPU, */
  bool makes_files; /* and a signal must wait until what it has begun is cleared up; */
  bool multiplies;  /* the three below are options: how weights are multiplied */
  nibble_int8 int8;
  nibble_activations activations; /* set before cli_parse: what holds where nobody asks */
  nibble_head head;
  nibble_device device;
  uint64_t gpu_memory;
  const nibble_context *context; /* hand these two to the library */
  nibble_progress progress;
} cli_common;

/* Parses argv into `options`, whose first member is a cli_common, with the subcommand's own argp and the common options
 * (--json, --threads, --device, --gpu-memory, --quiet; --int8, --activations, --head), of which it makes the context.
 * Exits with NIBBLE_USAGE on wrong usage. */
void cli_parse(const struct argp *argp, int argc, char **argv, void *options);

/* Ends the progress bar, frees the context, prints the error (if status is not NIBBLE_OK) to stderr, flushes stdout and
 * returns the exit code: after a signal 128 and its number, else NIBBLE_SYSTEM if stdout could not be written; if it is
 * a pipe that nobody reads any more, that of SIGPIPE, without a word. */
int cli_finish(nibble_status status, const nibble_error *err);

/* For exit(), after argp has printed --help: ends with cli_finish's exit code if stdout could not be written. */
void cli_check_stdout(void);

/* From now on SIGINT, SIGTERM and SIGHUP, unless they are ignored, end the command of this name, and say so. Again,
 * with another name, it changes only that. */
void cli_signals_take(const char *command);

/* From now on a signal is kept for cli_stop_is_asked, and a second one ends the process. */
void cli_signals_defer(void);
int cli_signal_caught(void); /* its number, or 0 */
const char *cli_signal_name(int number);

/* Forgets a SIGINT that was caught, so that the next call of the library runs; false if none was. */
bool cli_signals_forget_interrupt(void);

/* For nibble_context_set_stop: a signal has come, or cli_flush has failed. */
bool cli_stop_is_asked(void *ctx);

/* Flushes stdout in the middle of a command, which stops if nobody can read it. */
void cli_flush(void);

/* Prints one JSON value, indented, in ASCII, with a newline, and frees it. */
void cli_print_json(cJSON *json);

/* A JSON string of n bytes of UTF-8; cJSON's own ends at a NUL. NULL without memory. */
cJSON *cli_json_text(const char *text, size_t n);

/* "5GB", "200MB", "24GiB", "1.5k" or plain bytes; calls argp_error (which exits) if it is none of these. */
uint64_t cli_size(const struct argp_state *state, const char *option, const char *text);

/* A whole number in [min, max]; calls argp_error otherwise. */
int64_t cli_int(const struct argp_state *state, const char *option, const char *text, int64_t min, int64_t max);
double cli_double(const struct argp_state *state, const char *option, const char *text, double min, double max);

/* A share: "0.7" or "70%"; calls argp_error if it is not in (0, max]. A number above 1 needs its sign, so that nobody's
 * 5 for 5% is taken for 500%. */
double cli_share(const struct argp_state *state, const char *option, const char *text, double max);

/* Token ids separated by commas, malloc'd; calls argp_error on anything else. */
int32_t *cli_ids(const struct argp_state *state, const char *option, const char *text, size_t *count);

/* "weight-only" or "llm.int8", for a command that takes no other way to multiply. */
nibble_int8 cli_int8(const struct argp_state *state, const char *text);

const char *cli_activations_name(nibble_activations activations); /* "exact" or "int8" */

/* "1.5 GB" into a buffer of at least 32 bytes, which is returned. */
const char *cli_bytes(char *buffer, uint64_t bytes);

enum { CLI_NAME_ROOM = NIBBLE_MESSAGE_MAX };

/* A path or another text that is not ours, fit for a terminal, into the buffer, which is returned. */
const char *cli_name(char buffer[CLI_NAME_ROOM], const char *text);

/* Prints what a model says, whole characters: as it is into a file or a pipe, only what shows on a terminal. */
void cli_print_text(const char *bytes, size_t n);

/* The end of a subcommand's parser: puts positional arguments into `slots` in order and calls argp_error where there
 * are too many, or at the end too few; other keys are ARGP_ERR_UNKNOWN. */
error_t cli_argument(int key, char *arg, struct argp_state *state, const char **slots[], int count);

/* The part of bench that measures kernels instead of a model; returns the exit code. */
int cli_bench_kernels(const nibble_kernel_bench_options *options, bool json);

/* tokenize, where --compare is among its arguments. */
int cli_compare_tokens(int argc, char **argv);

int cli_convert(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_memory(int argc, char **argv);
int cli_ppl(int argc, char **argv);
int cli_logits(int argc, char **argv);
int cli_hidden(int argc, char **argv);
int cli_generate(int argc, char **argv);
int cli_chat(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_init(int argc, char **argv);
int cli_quantize(int argc, char **argv);
int cli_tokenize(int argc, char **argv);
int cli_verify(int argc, char **argv);

#endif
