/* Decoders: a list of tokens becomes a list of strings, step by step, and is joined at the end. */
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "tokenizer/bytes.h"
#include "tokenizer/steps.h"

/* Strings one behind the other in `text`; ends[i] is where the i-th ends. */
typedef struct list {
  nb_buf text;
  size_t *ends;
  size_t count, capacity;
  bool failed;
} list;

static void close_string(list *l) {
  size_t *ends = nb_grow(l->ends, &l->capacity, l->count + 1, sizeof *ends);
  if (!ends) {
    l->failed = true;
    return;
  }
  l->ends = ends;
  l->ends[l->count++] = l->text.length;
}

static void free_list(list *l) {
  nb_buf_free(&l->text);
  free(l->ends);
}

static nb_str string_at(const list *l, size_t i) {
  size_t begin = i > 0 ? l->ends[i - 1] : 0;
  return (nb_str){l->text.data ? l->text.data + begin : "", l->ends[i] - begin};
}

/* A string and its place in the list. */
typedef struct item {
  nb_str text;
  bool first, last;
} item;

/* The work of a step on each string. */
typedef struct job {
  nb_buf *out;
  nb_budget *budget;
  nibble_error *err;
} job;

typedef struct step step;
struct step {
  void (*whole)(const step *s, const list *in, list *out);      /* does the list, or */
  nibble_status (*each)(const step *s, const item *in, job *j); /* every string by itself */
  nb_regex *regex;                                              /* Replace: what */
  char *text;          /* Replace: by what; Metaspace, Strip: the character; BPEDecoder: the suffix; WordPiece: the
                          prefix; CTC: the delimiter of words */
  char *padding;       /* CTC: the token between two equal ones */
  bool clean;          /* WordPiece, CTC: no spaces before punctuation */
  bool prepended;      /* Metaspace: the first one was added when encoding */
  int64_t start, stop; /* Strip: at most so many from either end */
};

struct nb_decoder {
  step steps[NB_MAX_STEPS];
  int count;
};

/* --- steps --- */

/* A token's bytes if each of its characters stands for one, else the token as it is. */
static void append_bytes(nb_str token, nb_buf *out) {
  size_t start = out->length, length;
  for (size_t i = 0; i < token.length; i += length) {
    int byte = nb_char_byte(nb_utf8_decode(token.data + i, &length));
    if (byte < 0) {
      out->length = start;
      nb_buf_append(out, token.data, token.length);
      return;
    }
    char c = (char)byte;
    nb_buf_append(out, &c, 1);
  }
}

static void bytes(const step *s, const list *in, list *out) {
  (void)s;
  nb_buf joined = {0};
  for (size_t i = 0; i < in->count; i++) append_bytes(string_at(in, i), &joined);
  if (joined.length > 0) nb_utf8_repair(joined.data, joined.length, &out->text);
  if (joined.failed) out->failed = true;
  nb_buf_free(&joined);
  close_string(out);
}

/* The byte of a token "<0xHH>"; -1 if it is another. */
static int fallback_byte(nb_str token) {
  if (token.length != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') return -1;
  int value = 0;
  for (int i = 3; i < 5; i++) {
    int digit = nb_hex_digit(token.data[i]);
    if (digit < 0) return -1;
    value = value << 4 | digit;
  }
  return value;
}

/* Ends a run of bytes: their text, or one U+FFFD a byte if they are not UTF-8. */
static void end_run(nb_buf *run, list *out) {
  bool whole = run->length > 0 && nb_utf8_valid(run->data, run->length) == run->length;
  if (whole) nb_buf_append(&out->text, run->data, run->length);
  for (size_t k = 0; k < run->length && !whole; k++) {
    nb_buf_puts(&out->text, "\xef\xbf\xbd");
    close_string(out);
  }
  if (whole) close_string(out);
  run->length = 0;
}

static void byte_fallback(const step *s, const list *in, list *out) {
  (void)s;
  nb_buf run = {0};
  for (size_t i = 0; i < in->count; i++) {
    nb_str token = string_at(in, i);
    int byte = fallback_byte(token);
    if (byte >= 0) {
      char c = (char)byte;
      nb_buf_append(&run, &c, 1);
      continue;
    }
    end_run(&run, out);
    nb_buf_append(&out->text, token.data, token.length);
    close_string(out);
  }
  end_run(&run, out);
  if (run.failed) out->failed = true;
  nb_buf_free(&run);
}

static void fuse(const step *s, const list *in, list *out) {
  (void)s;
  nb_buf_append(&out->text, in->text.data, in->text.length);
  close_string(out);
}

/* Replaces `what` by `by` in one string; nothing is found around every character. */
static void substitute(nb_str text, const char *what, const char *by, nb_buf *out) {
  size_t length = strlen(what), at = 0, done = 0, step = 0;
  while (at <= text.length && !out->failed) {
    const char *hit = length > 0 ? memmem(text.data + at, text.length - at, what, length) : text.data + at;
    if (!hit) break;
    at = (size_t)(hit - text.data);
    nb_buf_append(out, text.data + done, at - done);
    nb_buf_puts(out, by);
    done = at + length;
    if (length == 0 && at < text.length) nb_utf8_decode(text.data + at, &step);
    at = length > 0 ? done : at < text.length ? at + step : at + 1;
  }
  nb_buf_append(out, text.data + done, text.length - done);
}

/* True if a space stands before a character that one of clean_up's rules begins with. */
static bool may_be_cleaned(nb_str text) {
  for (size_t i = 0; i + 1 < text.length; i++) {
    if (text.data[i] == ' ' && text.data[i + 1] && strchr(".?!,'nd", text.data[i + 1])) return true;
  }
  return false;
}

/* Takes the spaces out that stand before punctuation and contractions, one kind after the other, as the reference does;
 * text[0, length) of `text` stays. The decoders of tokenizers have one rule more than transformers. */
static void clean_by_rules(nb_buf *text, size_t length, bool as_decoders) {
  static const struct {
    const char *what, *by;
    bool decoders_only;
  } rules[] = {{" .", ".", false},   {" ?", "?", false},     {" !", "!", false},    {" ,", ",", false},
               {" ' ", "'", false},  {" n't", "n't", false}, {" 'm", "'m", false},  {" do not", " don't", true},
               {" 's", "'s", false}, {" 've", "'ve", false}, {" 're", "'re", false}};
  if (text->length == length || !may_be_cleaned((nb_str){text->data + length, text->length - length})) return;
  for (size_t i = 0; i < sizeof rules / sizeof *rules && !text->failed && text->length > length; i++) {
    if (rules[i].decoders_only && !as_decoders) continue;
    nb_buf next = {0};
    substitute((nb_str){text->data + length, text->length - length}, rules[i].what, rules[i].by, &next);
    text->length = length; /* every rule shortens: there is room */
    if (next.failed) text->failed = true;
    if (next.length > 0) nb_buf_append(text, next.data, next.length);
    nb_buf_free(&next);
  }
}

void nb_clean_up(nb_buf *text, size_t length) { clean_by_rules(text, length, false); }

static void clean_up(nb_buf *text, size_t length) { clean_by_rules(text, length, true); }

static nibble_status wordpiece(const step *s, const item *in, job *j) {
  size_t begin = j->out->length, length = strlen(s->text);
  bool inside = in->text.length >= length && memcmp(in->text.data, s->text, length) == 0;
  if (in->first) length = 0;
  if (!in->first && !inside) nb_buf_puts(j->out, " ");
  if (!inside) length = 0;
  nb_buf_append(j->out, in->text.data + length, in->text.length - length);
  if (s->clean) clean_up(j->out, begin);
  return NIBBLE_OK;
}

/* Of equal neighbours one stays; the padding goes. */
static void ctc(const step *s, const list *in, list *out) {
  nb_str last = {0};
  for (size_t i = 0; i < in->count && !out->text.failed; i++) {
    nb_str token = string_at(in, i);
    bool again = i > 0 && token.length == last.length && memcmp(token.data, last.data, token.length) == 0;
    size_t begin = out->text.length;
    last = token;
    if (again) continue;
    substitute(token, s->padding, "", &out->text);
    if (s->clean) {
      clean_up(&out->text, begin);
      nb_buf words = {.limit = out->text.limit};
      substitute((nb_str){out->text.data + begin, out->text.length - begin}, s->text, " ", &words);
      out->text.length = begin;
      nb_buf_append(&out->text, words.data ? words.data : "", words.length);
      out->text.is_full |= words.is_full;
      out->text.failed |= words.failed;
      nb_buf_free(&words);
    }
    if (out->text.length > begin) close_string(out);
  }
}

static nibble_status metaspace(const step *s, const item *in, job *j) {
  substitute(in->text, s->text, in->first && s->prepended ? "" : " ", j->out);
  return NIBBLE_OK;
}

static nibble_status suffix(const step *s, const item *in, job *j) {
  substitute(in->text, s->text, in->last ? "" : " ", j->out);
  return NIBBLE_OK;
}

static nibble_status replace(const step *s, const item *in, job *j) {
  if (in->text.length == 0) return NIBBLE_OK;
  nb_search search = {.text = in->text.data, .n = in->text.length, .budget = j->budget};
  return nb_regex_replace(s->regex, &search, in->text.data, s->text, j->out, j->err);
}

static nibble_status strip(const step *s, const item *in, job *j) {
  size_t length = strlen(s->text);
  nb_str text = in->text;
  int64_t cut = 0;
  while (length > 0 && cut < s->start && text.length >= length && memcmp(text.data, s->text, length) == 0) {
    text.data += length;
    text.length -= length;
    cut++;
  }
  for (cut = 0; length > 0 && cut < s->stop && text.length >= length; cut++, text.length -= length) {
    if (memcmp(text.data + text.length - length, s->text, length) != 0) break;
  }
  nb_buf_append(j->out, text.data, text.length);
  return NIBBLE_OK;
}

static nibble_status run_step(const step *s, const list *in, list *out, nb_budget *budget, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  job j = {.out = &out->text, .budget = budget, .err = err};
  out->text.length = out->count = 0;
  out->text.limit = budget->bytes;
  if (budget->bytes == 0) return nb_budget_refuse("decoder", err);
  if (s->whole) s->whole(s, in, out);
  for (size_t i = 0; s->each && i < in->count && status == NIBBLE_OK && !out->text.failed; i++) {
    item one = {.text = string_at(in, i), .first = i == 0, .last = i + 1 == in->count};
    status = s->each(s, &one, &j);
    close_string(out);
  }
  budget->bytes -= out->text.length;
  return status == NIBBLE_OK && out->text.is_full ? nb_budget_refuse("decoder", err) : status;
}

nibble_status nb_decode_tokens(const nb_decoder *decoder, const nb_token *tokens, size_t count, nb_buf *text,
                               nibble_error *err) {
  list now = {.text.limit = NB_TEXT_MAX}, next = {0};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < count && !now.text.failed; i++) {
    nb_buf_append(&now.text, tokens[i].text, tokens[i].length);
    if (!decoder && i + 1 < count) nb_buf_puts(&now.text, " ");
    close_string(&now);
  }
  if (now.text.is_full)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "the text of the tokens is longer than the %d bytes allowed", NB_TEXT_MAX);
  nb_budget budget = nb_budget_of(now.text.length);
  for (int i = 0; decoder && i < decoder->count && status == NIBBLE_OK && now.count > 0; i++) {
    status = run_step(&decoder->steps[i], &now, &next, &budget, err);
    list swapped = now;
    now = next;
    next = swapped;
  }
  if (status == NIBBLE_OK) nb_buf_append(text, now.text.data, now.text.length);
  if (status == NIBBLE_OK && (now.failed || next.failed || now.text.failed || next.text.failed || text->failed))
    status = nb_fail_memory(err, now.text.length);
  free_list(&now);
  free_list(&next);
  return status;
}

/* --- reading --- */

static void read_metaspace(nb_step_reader *r, step *s) {
  const char *scheme = "always";
  bool prefix = true;
  nb_step_text(r, "prepend_scheme", &scheme);
  nb_step_bool(r, "add_prefix_space", &prefix);
  nb_step_char(r, "replacement", &s->text);
  s->prepended = prefix && strcmp(scheme, "never") != 0;
}

static void read_replace(nb_step_reader *r, step *s) {
  nb_step_pattern(r, &s->regex);
  nb_step_string(r, "content", NB_MAX_CONTENT, &s->text);
}

static void read_strip(nb_step_reader *r, step *s) {
  nb_step_count(r, "start", &s->start);
  nb_step_count(r, "stop", &s->stop);
  nb_step_char(r, "content", &s->text);
}

static void read_wordpiece(nb_step_reader *r, step *s) {
  s->clean = true;
  nb_step_string(r, "prefix", NB_MAX_CONTENT, &s->text);
  nb_step_bool(r, "cleanup", &s->clean);
}

static void read_ctc(nb_step_reader *r, step *s) {
  s->clean = true;
  nb_step_string(r, "pad_token", NB_MAX_CONTENT, &s->padding);
  nb_step_string(r, "word_delimiter_token", NB_MAX_CONTENT, &s->text);
  nb_step_bool(r, "cleanup", &s->clean);
}

static void read_suffix(nb_step_reader *r, step *s) { nb_step_string(r, "suffix", NB_MAX_CONTENT, &s->text); }

static const struct step_type {
  const char *type;
  step step;
  void (*read)(nb_step_reader *r, step *s); /* the options; NULL: there are none */
} types[] = {
    {"ByteLevel", {.whole = bytes}, NULL},
    {"ByteFallback", {.whole = byte_fallback}, NULL},
    {"Fuse", {.whole = fuse}, NULL},
    {"Metaspace", {.each = metaspace}, read_metaspace},
    {"Replace", {.each = replace}, read_replace},
    {"Strip", {.each = strip}, read_strip},
    {"BPEDecoder", {.each = suffix}, read_suffix},
    {"WordPiece", {.each = wordpiece}, read_wordpiece},
    {"CTC", {.whole = ctc}, read_ctc},
};

static void add(nb_step_reader *r, const void *row, void *ctx) {
  const struct step_type *type = row;
  nb_decoder *out = ctx;
  if (!nb_step_room(r, out->count)) return;
  step *s = &out->steps[out->count++];
  *s = type->step;
  if (type->read) type->read(r, s);
}

nibble_status nb_decoder_read(const char *where, const cJSON *parts, nb_decoder **out, nibble_error *err) {
  nb_step_reader r = {
      .where = where, .group = "decoder", .list = "decoders", .types = NB_STEP_TYPES(types), .err = err};
  *out = calloc(1, sizeof **out);
  if (!*out) return nb_fail_memory(err, sizeof **out);
  nibble_status status = nb_steps_each(&r, parts, add, *out);
  if (status == NIBBLE_OK && r.json) return NIBBLE_OK;
  nb_decoder_free(*out);
  *out = NULL;
  return status;
}

void nb_decoder_free(nb_decoder *decoder) {
  for (int i = 0; decoder && i < decoder->count; i++) {
    nb_regex_free(decoder->steps[i].regex);
    free(decoder->steps[i].text);
    free(decoder->steps[i].padding);
  }
  free(decoder);
}
