/* nibble chat MODEL: a conversation, a line at a time. */
#include <float.h>
#include <histedit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_chat_options chat;
} options;

enum { OPT_SYSTEM = 0x100, OPT_MESSAGES, OPT_TOOLS, OPT_CTX, OPT_NEW, OPT_TEMPERATURE, OPT_TOP_K, OPT_TOP_P, OPT_SEED };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  nibble_chat_options *c = &o->chat;
  const char **slots[] = {&c->model};
  switch (key) {
    case OPT_SYSTEM: c->system = arg; return 0;
    case OPT_MESSAGES: c->messages = arg; return 0;
    case OPT_TOOLS: c->tools = arg; return 0;
    case OPT_CTX: c->ctx = cli_int(state, "--ctx", arg, 2, 1 << 24); return 0;
    case OPT_NEW: c->max_new_tokens = cli_int(state, "--max-new-tokens", arg, 1, 1 << 24); return 0;
    case OPT_TEMPERATURE: c->temperature = cli_double(state, "--temperature", arg, 0, 100); return 0;
    case OPT_TOP_K: c->top_k = cli_int(state, "--top-k", arg, 0, 1 << 24); return 0;
    case OPT_TOP_P: /* of the options 0 is none; here it leaves the likeliest token */
      c->top_p = fmax(DBL_MIN, cli_double(state, "--top-p", arg, 0, 1));
      return 0;
    case OPT_SEED: c->seed = (uint64_t)cli_int(state, "--seed", arg, 0, INT64_MAX); return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"system", OPT_SYSTEM, "TEXT", 0, "What a system says before", 0},
    {"messages", OPT_MESSAGES, "FILE", 0,
     "JSON with the messages before, or with an object that has them as messages, tools, documents", 0},
    {"tools", OPT_TOOLS, "FILE", 0, "JSON with a list of tools", 0},
    {"ctx", OPT_CTX, "N", 0, "Tokens that the conversation may have (default: 4096, or the model's limit)", 0},
    {"max-new-tokens", OPT_NEW, "N", 0, "End an answer after N tokens (default: where there is no room)", 0},
    {"temperature", OPT_TEMPERATURE, "T", 0, "Sample at this temperature (default: 0, the likeliest token)", 0},
    {"top-k", OPT_TOP_K, "K", 0, "Sample among the K likeliest (default: all)", 0},
    {"top-p", OPT_TOP_P, "P", 0, "Sample among the likeliest that together have probability P (default: all)", 0},
    {"seed", OPT_SEED, "N", 0, "Another text for another N (default: 0)", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "A conversation with a model that has a chat template: each line of the input is what a user says. "
        "/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. With --json an answer is an object.\v"
        "Example: nibble chat ./SmolLM2-nf4 --system \"You are terse.\"",
};

/* ---- lines ------------------------------------------------------------------------------------------------------ */

/* Where lines come from: a terminal on which they are edited, or anything else. */
typedef struct input {
  EditLine *editor; /* NULL: none */
  History *history;
  char *line;
  size_t room;
} input;

static char *prompt(EditLine *editor) {
  static char text[] = "> ";
  (void)editor;
  return text;
}

static void open_input(input *in) {
  HistEvent event;
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
  in->history = history_init();
  in->editor = in->history ? el_init("nibble", stdin, stdout, stderr) : NULL;
  if (!in->editor) return;
  history(in->history, &event, H_SETSIZE, 1000);
  el_set(in->editor, EL_PROMPT, prompt);
  el_set(in->editor, EL_EDITOR, "emacs");
  el_set(in->editor, EL_HIST, history, in->history);
}

static void close_input(input *in) {
  if (in->editor) el_end(in->editor);
  if (in->history) history_end(in->history);
  free(in->line);
}

static bool is_blank(const char *line) { return line[strspn(line, " \t\r\n")] == 0; }

/* The next line without its end; NULL at the end of the input. */
static char *read_line(input *in) {
  HistEvent event;
  int n = 0;
  if (!in->editor) {
    ssize_t length = getline(&in->line, &in->room, stdin);
    if (length < 0) return NULL;
    in->line[strcspn(in->line, "\r\n")] = 0;
    return in->line;
  }
  const char *edited = el_gets(in->editor, &n);
  if (!edited || n <= 0) return NULL;
  if (!is_blank(edited)) history(in->history, &event, H_ENTER, edited);
  free(in->line);
  in->line = strdup(edited);
  if (in->line) in->line[strcspn(in->line, "\r\n")] = 0;
  return in->line;
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

typedef struct talk {
  const options *o;
  nibble_chat *chat;
  bool in_person; /* somebody types: each answer's speed is told */
  bool has_left;
} talk;

static void print_piece(void *ctx, const char *bytes, size_t n) {
  (void)ctx;
  cli_print_text(bytes, n);
  cli_flush(); /* a reader sees each token as it comes */
}

static void print_json(const nibble_chat_answer *a) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddItemToObject(json, "text", cli_json_text(a->text, a->text_length));
  cJSON_AddNumberToObject(json, "prompt_tokens", (double)a->prompt_tokens);
  cJSON_AddNumberToObject(json, "new_tokens", (double)a->new_tokens);
  cJSON_AddBoolToObject(json, "stopped_at_eos", a->stopped_at_eos);
  cJSON_AddStringToObject(json, "activations", cli_activations_name(a->activations));
  cJSON_AddNumberToObject(json, "prompt_seconds", a->prompt_seconds);
  cJSON_AddNumberToObject(json, "generate_seconds", a->generate_seconds);
  cli_print_json(json);
  cli_flush();
}

/* Says a line and prints the answer. Ctrl-C ends the answer and nothing else. */
static nibble_status say(const talk *t, const char *line, nibble_error *err) {
  bool json = t->o->common.json;
  nibble_chat_answer a = {.size = sizeof a};
  nibble_status status = nibble_chat_say(t->chat, line, json ? NULL : print_piece, NULL, &a, err);
  if (!json) putchar('\n');
  if (status == NIBBLE_OK && json) print_json(&a);
  cli_flush();
  if (status == NIBBLE_OK && t->in_person && !t->o->common.quiet)
    fprintf(stderr, "%.1f tokens/s, activations %s\n",
            a.generate_seconds > 0 ? (double)a.new_tokens / a.generate_seconds : 0,
            cli_activations_name(a.activations));
  free(a.text);
  return status == NIBBLE_STOPPED && cli_signals_forget_interrupt() ? NIBBLE_OK : status;
}

typedef nibble_status command(talk *t, const char *rest, nibble_error *err);

static nibble_status reset(talk *t, const char *rest, nibble_error *err) {
  (void)rest;
  return nibble_chat_reset(t->chat, NULL, err);
}

static nibble_status set_system(talk *t, const char *rest, nibble_error *err) {
  if (*rest) return nibble_chat_reset(t->chat, rest, err);
  fputs("nibble: /system wants a text\n", stderr);
  return NIBBLE_OK;
}

static nibble_status quit(talk *t, const char *rest, nibble_error *err) {
  (void)rest;
  (void)err;
  t->has_left = true;
  return NIBBLE_OK;
}

static command help;

static const struct {
  const char *name, *summary;
  command *run;
} commands[] = {{"/reset", "begin anew", reset},
                {"/system", "TEXT: begin anew, with TEXT as what a system says before", set_system},
                {"/help", "this list", help},
                {"/quit", "leave; so does Ctrl-D", quit}};

enum { COMMANDS = sizeof commands / sizeof *commands };

static nibble_status help(talk *t, const char *rest, nibble_error *err) {
  (void)t;
  (void)rest;
  (void)err;
  for (int i = 0; i < COMMANDS; i++) fprintf(stderr, "  %-8s %s\n", commands[i].name, commands[i].summary);
  fputs("  Ctrl-C   stop the answer\n", stderr);
  return NIBBLE_OK;
}

/* A line that begins with / is a command. */
static nibble_status obey(talk *t, const char *line, nibble_error *err) {
  size_t n = strcspn(line, " \t");
  const char *rest = line + n + strspn(line + n, " \t");
  for (int i = 0; i < COMMANDS; i++)
    if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0) return commands[i].run(t, rest, err);
  char shown[CLI_NAME_ROOM];
  fprintf(stderr, "nibble: no command '%.40s'; /help lists them\n", cli_name(shown, line));
  return NIBBLE_OK;
}

/* What a turn that failed does to the conversation: a question that there is no room for can be asked otherwise, on a
 * terminal; all else ends it. */
static bool goes_on(const input *in, nibble_status status, const nibble_error *err) {
  char message[NIBBLE_MESSAGE_MAX];
  if (status == NIBBLE_OK) return true;
  if (status != NIBBLE_USAGE || !in->editor) return false;
  fprintf(stderr, "nibble: %s; /reset begins anew\n", cli_name(message, err->message));
  return true;
}

static nibble_status converse(talk *t, input *in, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  while (!t->has_left) {
    const char *line = read_line(in);
    if (in->editor && cli_signals_forget_interrupt()) { /* at an empty prompt there is nothing to stop */
      fputs("\n(Ctrl-D leaves)\n", stderr);
      el_reset(in->editor);
      clearerr(stdin);
      continue;
    }
    if (cli_signal_caught()) {
      snprintf(err->message, sizeof err->message, "the conversation is over");
      return NIBBLE_STOPPED;
    }
    if (!line || cli_stop_is_asked(NULL)) break;
    if (is_blank(line)) continue;
    status = *line == '/' ? obey(t, line, err) : say(t, line, err);
    if (!goes_on(in, status, err)) return status;
    status = NIBBLE_OK;
  }
  return status;
}

int cli_chat(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .multiplies = true, .activations = NIBBLE_ACTIVATIONS_FAST}};
  cli_parse(&argp, argc, argv, &o);
  o.chat.size = sizeof o.chat;
  o.chat.context = o.common.context;
  o.chat.int8 = o.common.int8;
  o.chat.activations = o.common.activations;
  o.chat.head = o.common.head;
  o.chat.progress = o.common.progress;
  talk t = {.o = &o};
  input in = {0};
  nibble_error err;
  nibble_status status = nibble_chat_open(&o.chat, &t.chat, &err);
  if (status == NIBBLE_OK) {
    cli_signals_defer(); /* until here a signal ends the command at once */
    open_input(&in);
    t.in_person = in.editor != NULL;
    if (in.editor && !o.common.quiet) fputs("/help lists the commands, Ctrl-D leaves.\n", stderr);
    status = converse(&t, &in, &err);
    if (in.editor && !t.has_left) putchar('\n');
  }
  close_input(&in);
  nibble_chat_close(t.chat);
  return cli_finish(status, &err);
}
