#include "cli/cli.h"

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

enum {
  OPT_JSON = 0x1000,
  OPT_THREADS,
  OPT_DEVICE,
  OPT_GPU_MEMORY,
  OPT_QUIET,
  OPT_INT8,
  OPT_ACTIVATIONS,
  OPT_HEAD,
  BAR_WIDTH = 24
};

/* The program's only one; cli_finish frees it. */
static nibble_context *context;

static const double BAR_AFTER_SECONDS = 2.0, BAR_EVERY_SECONDS = 0.1;

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static struct {
  double start, last; /* seconds; start is 0 before the first step */
  bool drawn;
} bar;

static void erase_bar(void) {
  if (bar.drawn) fputs("\r\033[K", stderr);
  bar.drawn = false;
}

static void show_step(void *ctx, const char *what, uint64_t done, uint64_t total, const char *unit) {
  (void)ctx;
  double now = now_seconds();
  if (bar.start == 0) bar.start = now;
  double elapsed = now - bar.start;
  if (elapsed < BAR_AFTER_SECONDS || now - bar.last < BAR_EVERY_SECONDS) return;
  bar.last = now;
  double share = total ? fmin(1, (double)done / (double)total) : 0;
  double rate = (double)done / elapsed, left = rate > 0 ? (double)(total - done) / rate : 0;
  bool bytes = strcmp(unit, "bytes") == 0;
  char cells[BAR_WIDTH + 1];
  for (int i = 0; i < BAR_WIDTH; i++) cells[i] = i < (int)(share * BAR_WIDTH) ? '#' : '.';
  cells[BAR_WIDTH] = 0;
  fprintf(stderr, "\r\033[K[%s] %3.0f%%  %.1f %s/s  %.0f s left  %.56s", cells, 100 * share, bytes ? rate / 1e6 : rate,
          bytes ? "MB" : unit, left, what ? what : "");
  fflush(stderr);
  bar.drawn = true;
}

static void show_warning(void *ctx, const char *message) {
  (void)ctx;
  erase_bar();
  fprintf(stderr, "nibble: warning: %s\n", message);
}

static nibble_device parse_device(const struct argp_state *state, const char *text) {
  if (strcmp(text, "cpu") == 0) return NIBBLE_DEVICE_CPU;
  if (strcmp(text, "cuda") == 0) return NIBBLE_DEVICE_CUDA;
  if (strcmp(text, "auto") != 0) argp_error(state, "--device %s: cpu, cuda or auto is wanted", text);
  return NIBBLE_DEVICE_AUTO;
}

static error_t parse_common(int key, char *arg, struct argp_state *state) {
  cli_common *common = state->input;
  switch (key) {
    case OPT_JSON: common->json = true; return 0;
    case OPT_QUIET: common->quiet = true; return 0;
    case OPT_THREADS:
      nibble_context_set_threads(context, (int)cli_int(state, "--threads", arg, 1, 1024), NULL);
      return 0;
    case OPT_DEVICE: common->device = parse_device(state, arg); return 0;
    case OPT_GPU_MEMORY: common->gpu_memory = cli_size(state, "--gpu-memory", arg); return 0;
    case ARGP_KEY_END:
      /* Refused, not ignored: a figure measured on the wrong device would mislead. */
      if (common->device == NIBBLE_DEVICE_CUDA && !common->runs_model)
        argp_error(state, "--device cuda: this command computes on the cpu only");
      nibble_context_set_device(context, common->device, common->gpu_memory, NULL);
      common->context = context;
      if (!common->quiet) common->progress.warning = show_warning;
      if (!common->quiet && isatty(STDERR_FILENO)) common->progress.step = show_step;
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option common_options[] = {
    {"json", OPT_JSON, NULL, 0, "Print the result as JSON", 0},
    {"threads", OPT_THREADS, "N", 0, "Use N threads (default: one a core)", 0},
    {"device", OPT_DEVICE, "cpu|cuda|auto", 0, "Where a model is run (default: cpu); auto: what fits on the GPU there",
     0},
    {"gpu-memory", OPT_GPU_MEMORY, "SIZE", 0, "GPU memory that --device auto may fill (default: most of what is free)",
     0},
    {"quiet", OPT_QUIET, NULL, 0, "No progress and no warnings", 0},
    {0},
};

static const struct argp common_argp = {.options = common_options, .parser = parse_common};

/* ---- how weights are multiplied --------------------------------------------------------------------------------- */

/* A word of an option and what it stands for. */
typedef struct choice {
  const char *word;
  int value;
} choice;

static const choice int8_choices[] = {{"weight-only", NIBBLE_INT8_WEIGHT_ONLY}, {"llm.int8", NIBBLE_INT8_LLM}, {0}};
static const choice activation_choices[] = {
    {"exact", NIBBLE_ACTIVATIONS_EXACT}, {"int8", NIBBLE_ACTIVATIONS_INT8}, {"fast", NIBBLE_ACTIVATIONS_FAST}, {0}};
static const choice head_choices[] = {{"as-stored", NIBBLE_HEAD_AS_STORED}, {"int8", NIBBLE_HEAD_INT8}, {0}};

static int choose(const struct argp_state *state, const char *option, const choice *choices, const char *text) {
  char words[64] = "";
  for (const choice *c = choices; c->word; c++) {
    if (strcmp(text, c->word) == 0) return c->value;
    size_t n = strlen(words);
    snprintf(words + n, sizeof words - n, "%s%s", n == 0 ? "" : c[1].word ? ", " : " or ", c->word);
  }
  argp_error(state, "%s %s: %s is wanted", option, text, words);
  return 0;
}

nibble_int8 cli_int8(const struct argp_state *state, const char *text) {
  return (nibble_int8)choose(state, "--int8", int8_choices, text);
}

static error_t parse_products(int key, char *arg, struct argp_state *state) {
  cli_common *common = state->input;
  switch (key) {
    case OPT_INT8: common->int8 = cli_int8(state, arg); return 0;
    case OPT_ACTIVATIONS:
      common->activations = (nibble_activations)choose(state, "--activations", activation_choices, arg);
      return 0;
    case OPT_HEAD: common->head = (nibble_head)choose(state, "--head", head_choices, arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option product_options[] = {
    {"int8", OPT_INT8, "MODE", 0, "Weights in int8: weight-only (default), or llm.int8, as LLM.int8 does", 0},
    {"activations", OPT_ACTIVATIONS, "exact|int8|fast", 0,
     "Activations that packed weights are multiplied with: in float32; in eight bits; or, where that is faster and "
     "costs less than 0.5% of perplexity, in eight bits (default: fast in bench, chat and generate, else exact)",
     0},
    {"head", OPT_HEAD, "as-stored|int8", 0,
     "The output embedding, if it is stored as plain floats: as it is (default), or rounded to int8 at loading", 0},
    {0},
};

static const struct argp product_argp = {.options = product_options, .parser = parse_products};

/* ---- all options ------------------------------------------------------------------------------------------------ */

/* argp gives a child parser the input that its parent names for it. Every subcommand's input begins with a cli_common,
 * so this parser above them can name the same address for all. */
static error_t parse_nothing(int key, char *arg, struct argp_state *state) {
  (void)arg;
  if (key != ARGP_KEY_INIT) return ARGP_ERR_UNKNOWN;
  const cli_common *common = state->input;
  for (int i = 0; i < 2 + common->multiplies; i++) state->child_inputs[i] = state->input;
  return 0;
}

/* AUTO means either; what it came to should not be a surprise. */
static void say_where(const cli_common *common) {
  nibble_error err;
  if (common->device != NIBBLE_DEVICE_AUTO || !common->runs_model || common->quiet) return;
  if (nibble_device_check(&err) != NIBBLE_OK) fprintf(stderr, "nibble: computing on the cpu: %s\n", err.message);
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *options) {
  const struct argp own = {.options = argp->options, .parser = argp->parser};
  struct argp_child children[] = {{&own, 0, NULL, 0}, {&common_argp, 0, "Common options:", 10}, {0}, {0}};
  if (((const cli_common *)options)->multiplies)
    children[2] = (struct argp_child){&product_argp, 0, "How weights are multiplied:", 5};
  const struct argp both = {
      .parser = parse_nothing, .args_doc = argp->args_doc, .doc = argp->doc, .children = children};
  argp_err_exit_status = NIBBLE_USAGE;
  nibble_error err;
  nibble_status status = nibble_isa_check(&err);
  if (status == NIBBLE_OK) status = nibble_context_create(&context, &err);
  if (status != NIBBLE_OK) exit(cli_finish(status, &err));
  error_t failed = argp_parse(&both, argc, argv, 0, NULL, options);
  if (failed) {
    fprintf(stderr, "%s: %s\n", argv[0], strerror(failed));
    exit(NIBBLE_USAGE);
  }
  say_where(options);
  nibble_context_set_stop(context, cli_stop_is_asked, NULL, NULL);
  if (((const cli_common *)options)->makes_files) cli_signals_defer();
}

static bool is_stdout_checked;

/* True if the other end of a pipe is closed. */
static bool has_lost_reader(void) {
  struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
  return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

/* The exit code if stdout could not be written, else NIBBLE_OK. */
static int finish_stdout(void) {
  is_stdout_checked = true;
  if (fflush(stdout) == 0 && !ferror(stdout)) return NIBBLE_OK;
  if (has_lost_reader()) return 128 + SIGPIPE;
  fputs("nibble: cannot write to standard output\n", stderr);
  return NIBBLE_SYSTEM;
}

void cli_check_stdout(void) {
  int code = is_stdout_checked ? NIBBLE_OK : finish_stdout();
  if (code != NIBBLE_OK) _exit(code);
}

int cli_finish(nibble_status status, const nibble_error *err) {
  erase_bar();
  nibble_context_free(context);
  context = NULL;
  char message[NIBBLE_MESSAGE_MAX];
  int number = cli_signal_caught();
  if (status == NIBBLE_STOPPED && number) {
    is_stdout_checked = true;
    fprintf(stderr, "%s: %s: %s\n", program_invocation_name, cli_signal_name(number), cli_name(message, err->message));
    return NIBBLE_STOPPED + number;
  }
  int code = finish_stdout();
  if (code != NIBBLE_OK && (status == NIBBLE_OK || status == NIBBLE_STOPPED)) return code;
  bool is_lost = code == NIBBLE_SYSTEM && status == NIBBLE_CHECK_FAILED; /* what was found was to be read there */
  if (status != NIBBLE_OK) fprintf(stderr, "nibble: %s\n", cli_name(message, err->message));
  if (status == NIBBLE_OK && nibble_input_changed()) {
    fputs("nibble: an input file changed while it was read\n", stderr);
    return NIBBLE_BAD_INPUT;
  }
  return is_lost ? NIBBLE_SYSTEM : (int)status;
}

/* JSON in ASCII, as Python's json module writes it: no byte of a string reaches a terminal as it is. Bytes that are not
 * UTF-8, which no JSON may hold, become U+FFFD. */
static void put_ascii(const char *text) {
  utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text);
  while (left > 0) {
    utf8proc_int32_t code;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, left, &code);
    if (n <= 0) {
      code = 0xfffd;
      n = 1;
    }
    if (code < 0x7f) {
      putchar(code);
    } else if (code < 0x10000) {
      printf("\\u%04x", (unsigned)code);
    } else { /* a surrogate pair */
      printf("\\u%04x\\u%04x", 0xd7c0u + ((unsigned)code >> 10), 0xdc00u + ((unsigned)code & 0x3ff));
    }
    text += n;
    left -= n;
  }
}

void cli_print_json(cJSON *json) {
  char *text = json ? cJSON_Print(json) : NULL;
  put_ascii(text ? text : "null");
  putchar('\n');
  cJSON_free(text);
  cJSON_Delete(json);
}

cJSON *cli_json_text(const char *text, size_t n) {
  char *quoted = malloc(6 * n + 3), *at = quoted;
  if (!quoted) return NULL;
  *at++ = '"';
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c < 0x20) {
      at += sprintf(at, "\\u%04x", c);
      continue;
    }
    if (c == '"' || c == '\\') *at++ = '\\';
    *at++ = (char)c;
  }
  *at++ = '"';
  *at = 0;
  cJSON *json = cJSON_CreateRaw(quoted);
  free(quoted);
  return json;
}

uint64_t cli_size(const struct argp_state *state, const char *option, const char *text) {
  static const struct {
    const char *name;
    double factor;
  } units[] = {{"", 1},         {"b", 1},        {"k", 1e3},      {"kb", 1e3},    {"m", 1e6},
               {"mb", 1e6},     {"g", 1e9},      {"gb", 1e9},     {"t", 1e12},    {"tb", 1e12},
               {"kib", 1024.0}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}};
  char *end;
  double value = strtod(text, &end);
  while (*end == ' ') end++;
  for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++) {
    double bytes = value * units[i].factor;
    if (strcasecmp(end, units[i].name) == 0 && bytes >= 1 && bytes < 0x1p62) return (uint64_t)bytes;
  }
  argp_error(state, "%s %s: a size such as 5GB, 200MB or 24GiB is wanted", option, text);
  return 0;
}

int64_t cli_int(const struct argp_state *state, const char *option, const char *text, int64_t min, int64_t max) {
  char *end;
  long long value = strtoll(text, &end, 10);
  if (end == text || *end || value < min || value > max)
    argp_error(state, "%s %s: a whole number from %lld to %lld is wanted", option, text, (long long)min,
               (long long)max);
  return value;
}

double cli_double(const struct argp_state *state, const char *option, const char *text, double min, double max) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !(value >= min && value <= max))
    argp_error(state, "%s %s: a number from %g to %g is wanted", option, text, min, max);
  return value;
}

double cli_share(const struct argp_state *state, const char *option, const char *text, double max) {
  char *end;
  double value = strtod(text, &end);
  bool percent = *end == '%';
  if (percent) value /= 100;
  if (end == text || end[percent] || !(value > 0 && value <= max))
    argp_error(state, "%s %s: a share up to %g is wanted, such as 0.7 or 70%%", option, text, max);
  if (!percent && value > 1)
    argp_error(state, "%s %s: %g as a share is %g%%; write %s%% for percent", option, text, value, 100 * value, text);
  return value;
}

int32_t *cli_ids(const struct argp_state *state, const char *option, const char *text, size_t *count) {
  size_t most = 1;
  for (const char *p = text; *p; p++) most += *p == ',';
  int32_t *ids = calloc(most, sizeof *ids);
  if (!ids) argp_failure(state, NIBBLE_SYSTEM, 0, "no memory for %zu ids", most);
  *count = 0;
  for (const char *at = text; ids; at++) {
    char *end;
    long value = strtol(at, &end, 10);
    if (end == at || value < 0 || value > INT32_MAX || (*end && *end != ','))
      argp_error(state, "%s: token ids separated by commas are wanted, not '%.40s'", option, at);
    ids[(*count)++] = (int32_t)value;
    if (!*end) break;
    at = end;
  }
  return ids;
}

const char *cli_activations_name(nibble_activations activations) {
  return activations == NIBBLE_ACTIVATIONS_INT8 ? "int8" : "exact";
}

const char *cli_bytes(char *buffer, uint64_t bytes) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = (double)bytes;
  int unit = 0;
  while (value >= 999.5 && unit < 4) {
    value /= 1000;
    unit++;
  }
  snprintf(buffer, 32, unit ? "%.3g %s" : "%.0f %s", value, units[unit]);
  return buffer;
}

const char *cli_name(char buffer[CLI_NAME_ROOM], const char *text) {
  snprintf(buffer, CLI_NAME_ROOM, "%s", text);
  nibble_printable(buffer, "");
  return buffer;
}

void cli_print_text(const char *bytes, size_t n) {
  if (!isatty(STDOUT_FILENO)) {
    fwrite(bytes, 1, n, stdout);
    return;
  }
  char *text = malloc(n + 1);
  if (!text) return;
  for (size_t i = 0; i < n; i++) text[i] = bytes[i] ? bytes[i] : 1; /* a NUL would end the text */
  text[n] = 0;
  nibble_printable(text, "\n\t");
  fputs(text, stdout);
  free(text);
}

error_t cli_argument(int key, char *arg, struct argp_state *state, const char **slots[], int count) {
  if (key == ARGP_KEY_END && !*slots[count - 1])
    argp_error(state, "%s", count == 1 ? "an argument is missing" : "arguments are missing");
  if (key != ARGP_KEY_ARG) return key == ARGP_KEY_END ? 0 : ARGP_ERR_UNKNOWN;
  for (int i = 0; i < count; i++) {
    if (*slots[i]) continue;
    *slots[i] = arg;
    return 0;
  }
  argp_error(state, "'%s' is one argument too many", arg);
  return 0;
}
