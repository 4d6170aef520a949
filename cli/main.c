/* nibble SUBCOMMAND ...: a table of subcommands. */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli/cli.h"

typedef struct subcommand {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} subcommand;

static const subcommand subcommands[] = {
    {"convert", cli_convert, "rewrites a checkpoint as a Hugging Face folder: from GGUF, .bin, packed weights"},
    {"inspect", cli_inspect, "architecture, tensors, packed formats and totals of a checkpoint"},
    {"generate", cli_generate, "continues a text"},
    {"chat", cli_chat, "a conversation with a model"},
    {"bench", cli_bench, "prefill and decode in tokens a second; the matrix kernels by themselves"},
    {"logits", cli_logits, "the raw output of one forward pass"},
    {"hidden", cli_hidden, "an activation of one forward pass, by name"},
    {"init", cli_init, "a model of a given config with random weights"},
    {"ppl", cli_ppl, "perplexity on a text, with its standard error"},
    {"memory", cli_memory, "what a model needs in each format: weights, KV cache, activations"},
    {"quantize", cli_quantize, "a checkpoint's linear layers in 4 or 8 bits, for transformers and bitsandbytes"},
    {"tokenize", cli_tokenize, "text to token ids, and back"},
    {"verify", cli_verify, "whether an artifact is sound"},
};

enum { SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static void usage(FILE *out) {
  fputs("Usage: nibble SUBCOMMAND [OPTION...] ARGS\n\n", out);
  for (int i = 0; i < SUBCOMMANDS; i++) fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
  fputs(
      "\n`nibble SUBCOMMAND --help` says more, with an example. A MODEL is a Hugging Face folder, a .gguf file, or a\n"
      ".safetensors file with its config.json beside it.\n\n"
      "Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 bad input, 4 the system said no (disk, memory, "
      "permission),\n"
      "130, 143 and 129 after SIGINT, SIGTERM and SIGHUP: nothing half done is left, but the work folder of a "
      "calibration.\n",
      out);
}

/* libgomp's threads wait for the next loop by spinning for some 15 ms, in which, on a busy machine, they take the
 * processor from the thread that they wait for: decoding was over ten times slower. A tenth of a millisecond outlasts
 * the gap between two loops. libgomp reads this from the environment before main, so the program starts again with it.
 */
static void bound_spinning(char **argv) {
  if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
  if (setenv("GOMP_SPINCOUNT", "2000", 0) == 0) execv("/proc/self/exe", argv);
}

/* A descriptor that is closed at the start would be given to the next file opened, and what is printed would go there.
 * These are the null device opened the wrong way round, so that reading and writing still fail. */
static bool open_standard_descriptors(void) {
  static const int modes[] = {[STDIN_FILENO] = O_WRONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_RDONLY};
  for (int fd = 0; fd < 3; fd++) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) return false; /* the lowest free one is this */
  }
  return true;
}

int main(int argc, char **argv) {
  if (!open_standard_descriptors()) return NIBBLE_SYSTEM;
  bound_spinning(argv);
  prctl(PR_SET_NAME, "nibble"); /* started again, it would be "exe" in ps and top */
  signal(SIGPIPE, SIG_IGN);     /* a closed stdout is seen when it is written to */
  signal(SIGXFSZ, SIG_IGN);     /* and so is a file that grows over the limit of its size */
  cli_signals_take("nibble");
  atexit(cli_check_stdout);
  if (argc < 2) {
    usage(stderr);
    return NIBBLE_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    usage(stdout);
    return cli_finish(NIBBLE_OK, NULL);
  }
  if (strcmp(argv[1], "--version") == 0) {
    puts("nibble " NIBBLE_VERSION);
    return cli_finish(NIBBLE_OK, NULL);
  }
  for (int i = 0; i < SUBCOMMANDS; i++) {
    if (strcmp(argv[1], subcommands[i].name) != 0) continue;
    static char name[64];
    snprintf(name, sizeof name, "nibble %s", subcommands[i].name);
    argv[1] = name;
    program_invocation_short_name = program_invocation_name = name; /* what argp puts before its messages */
    cli_signals_take(name);
    return subcommands[i].run(argc - 1, argv + 1);
  }
  fprintf(stderr, "nibble: no subcommand '%s'; `nibble --help` lists them\n", argv[1]);
  return NIBBLE_USAGE;
}
