/* tokenizer.json from tokenizer.ggml.*: byte-level BPE ("gpt2") and SentencePiece's BPE ("llama"). The text is laid out
 * as the tokenizers library writes it, so that the two can be compared byte by byte. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/checked.h"
#include "convert/gguf.h"
#include "convert/gguf_pretokenizers.h"

/* tokenizer.ggml.token_type; llama.h, enum llama_token_type. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

/* SentencePiece's longest piece by default is 16 characters; the limit keeps the search for merges linear. */
enum { MAX_PIECE = 1024 };

typedef struct merge {
  int32_t left, right, whole; /* ids */
  int32_t left_chars, right_chars;
  double score; /* of the whole */
} merge;

typedef struct vocabulary {
  const nb_gguf *gguf;
  nibble_error *err;
  const nb_pretokenizer *words; /* NULL: SentencePiece */
  nb_gguf_string *tokens, *merges;
  size_t token_count, merge_count;
  const nb_gguf_entry *types, *scores; /* NULL, or token_count items */
  nb_strmap ids;
  int64_t bos, eos, unknown; /* -1: none */
  bool add_bos, add_eos, add_space_prefix;
  merge *derived; /* where the file has no merges */
  size_t derived_count;
} vocabulary;

static bool is_utf8(nb_gguf_string s) {
  utf8proc_int32_t code;
  for (size_t i = 0; i < s.length;) {
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.data + i, (utf8proc_ssize_t)(s.length - i), &code);
    if (n <= 0) return false;
    i += (size_t)n;
  }
  return true;
}

static int64_t type_of(const vocabulary *v, size_t id) {
  return v->types ? nb_gguf_item_int(v->types, id) : TYPE_NORMAL;
}

static bool find_id(const vocabulary *v, const char *text, size_t n, int64_t *id) {
  return nb_strmap_find(&v->ids, text, n, id);
}

/* ---- reading ---- */

static nibble_status load_array(const vocabulary *v, const char *key, const nb_gguf_entry **out) {
  const nb_gguf_entry *e = nb_gguf_find(v->gguf, key);
  if (!e) return NIBBLE_OK;
  if (!e->is_array || e->type == NB_GGUF_STRING || e->type == NB_GGUF_ARRAY || e->count != v->token_count)
    return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: metadata '%s' must be a number for each of the %zu tokens",
                   v->gguf->path, key, v->token_count);
  *out = e;
  return NIBBLE_OK;
}

static nibble_status load_tokens(vocabulary *v) {
  const char *key = "tokenizer.ggml.tokens";
  nibble_status status = nb_gguf_strings(v->gguf, key, &v->tokens, &v->token_count, v->err);
  if (status != NIBBLE_OK) return status;
  if (v->token_count == 0 || v->token_count > 1 << 24)
    return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: it holds no tokenizer: metadata '%s' is missing or of no use",
                   v->gguf->path, key);
  for (size_t i = 0; i < v->token_count; i++) {
    nb_gguf_string token = v->tokens[i];
    if (!is_utf8(token) || (!v->words && token.length > MAX_PIECE))
      return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: token %zu is %s", v->gguf->path, i,
                     is_utf8(token) ? "too long" : "not valid UTF-8");
    nb_strmap_result added = nb_strmap_add(&v->ids, token.data, token.length, (int64_t)i);
    if (added == NB_STRMAP_NO_MEMORY) return nb_fail_memory(v->err, v->token_count * sizeof(nb_strmap_slot));
    if (added == NB_STRMAP_EXISTS)
      return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: token %zu, '%.*s', is there twice", v->gguf->path, i,
                     (int)nb_min_i64((int64_t)token.length, 64), token.data);
  }
  return NIBBLE_OK;
}

/* "left right": the space that parts them is the first one past the first byte. */
static bool split_merge(nb_gguf_string text, nb_gguf_string *left, nb_gguf_string *right) {
  const char *space = text.length > 2 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
  if (!space) return false;
  size_t n = (size_t)(space - text.data);
  *left = (nb_gguf_string){text.data, n};
  *right = (nb_gguf_string){space + 1, text.length - n - 1};
  return true;
}

/* The tokenizers library refuses a file whose merges name tokens that are not there. */
static nibble_status check_merges(const vocabulary *v) {
  nb_buf whole = {0};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < v->merge_count; i++) {
    nb_gguf_string left, right;
    int64_t id;
    bool ok = split_merge(v->merges[i], &left, &right);
    if (ok) {
      whole.length = 0;
      nb_buf_append(&whole, left.data, left.length);
      nb_buf_append(&whole, right.data, right.length);
      if (whole.failed)
        status = nb_fail_memory(v->err, left.length + right.length);
      else
        ok = find_id(v, left.data, left.length, &id) && find_id(v, right.data, right.length, &id) &&
             find_id(v, whole.data, whole.length, &id);
    }
    if (!ok)
      status = nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: merge %zu, '%.*s', is no pair of tokens that make a third",
                       v->gguf->path, i, (int)nb_min_i64((int64_t)v->merges[i].length, 64), v->merges[i].data);
  }
  nb_buf_free(&whole);
  return status;
}

/* ---- SentencePiece: merges from scores ---- */

/* SentencePiece joins the neighbours that make the best-scored piece. As a list of merges: every way to cut a piece in
 * two pieces, best score first; the further keys only make the order a definite one, which is transformers'
 * (tokenization_utils_base.py, generate_merges). */
static int compare_merges(const void *a, const void *b) {
  const merge *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  if (x->left_chars != y->left_chars) return x->left_chars > y->left_chars ? -1 : 1;
  if (x->right_chars != y->right_chars) return x->right_chars > y->right_chars ? -1 : 1;
  if (x->whole != y->whole) return x->whole < y->whole ? -1 : 1;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

static bool is_character(char c) { return ((unsigned char)c & 0xc0) != 0x80; }

static nibble_status cut_piece(vocabulary *v, size_t id, size_t *capacity) {
  nb_gguf_string piece = v->tokens[id];
  int32_t chars = 0, left_chars = 0;
  for (size_t i = 0; i < piece.length; i++) chars += is_character(piece.data[i]);
  for (size_t cut = 1; cut < piece.length; cut++) {
    int64_t left, right;
    left_chars += is_character(piece.data[cut - 1]);
    if (!is_character(piece.data[cut]) || !find_id(v, piece.data, cut, &left) ||
        type_of(v, (size_t)left) != TYPE_NORMAL)
      continue;
    if (!find_id(v, piece.data + cut, piece.length - cut, &right) || type_of(v, (size_t)right) != TYPE_NORMAL) continue;
    if (v->derived_count == *capacity) {
      *capacity = *capacity ? *capacity * 2 : 4096;
      merge *grown = realloc(v->derived, *capacity * sizeof *grown);
      if (!grown) return nb_fail_memory(v->err, *capacity * sizeof *grown);
      v->derived = grown;
    }
    v->derived[v->derived_count++] = (merge){.left = (int32_t)left,
                                             .right = (int32_t)right,
                                             .whole = (int32_t)id,
                                             .left_chars = left_chars,
                                             .right_chars = chars - left_chars,
                                             .score = nb_gguf_item_double(v->scores, id)};
  }
  return NIBBLE_OK;
}

static nibble_status derive_merges(vocabulary *v) {
  size_t capacity = 0;
  if (!v->scores)
    return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: metadata 'tokenizer.ggml.scores' is missing", v->gguf->path);
  for (size_t i = 0; i < v->token_count; i++) {
    if (type_of(v, i) != TYPE_NORMAL) continue;
    if (!isfinite(nb_gguf_item_double(v->scores, i)))
      return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: the score of token %zu is no number", v->gguf->path, i);
    nibble_status status = cut_piece(v, i, &capacity);
    if (status != NIBBLE_OK) return status;
  }
  if (v->derived_count) qsort(v->derived, v->derived_count, sizeof *v->derived, compare_merges);
  return NIBBLE_OK;
}

/* ---- the vocabulary as a whole ---- */

static nibble_status load_kind(vocabulary *v) {
  nb_gguf_string kind = {0}, pre = {0};
  nibble_status status = nb_gguf_text(v->gguf, "tokenizer.ggml.model", &kind, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_text(v->gguf, "tokenizer.ggml.pre", &pre, v->err);
  if (status != NIBBLE_OK) return status;
  if (!kind.data) return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: it holds no tokenizer", v->gguf->path);
  if (nb_gguf_is(kind, "llama")) return NIBBLE_OK;
  if (!nb_gguf_is(kind, "gpt2"))
    return nb_fail(v->err, NIBBLE_BAD_INPUT,
                   "%s: a tokenizer of kind '%.*s' cannot be converted; 'gpt2' and 'llama' can", v->gguf->path,
                   (int)nb_min_i64((int64_t)kind.length, 64), kind.data);
  if (!(v->words = nb_pretokenizer_find(pre)))
    return nb_fail(v->err, NIBBLE_BAD_INPUT, "%s: pre-tokenizer '%.*s' is not known", v->gguf->path,
                   (int)nb_min_i64((int64_t)pre.length, 64), pre.data);
  return NIBBLE_OK;
}

static nibble_status load_switches(vocabulary *v) {
  const nb_gguf *g = v->gguf;
  int64_t last = (int64_t)v->token_count - 1;
  v->bos = v->eos = v->unknown = -1;
  v->add_bos = !v->words || v->words->add_bos;
  v->add_space_prefix = true;
  nibble_status status = nb_gguf_int(g, "tokenizer.ggml.bos_token_id", 0, last, &v->bos, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_int(g, "tokenizer.ggml.eos_token_id", 0, last, &v->eos, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_int(g, "tokenizer.ggml.unknown_token_id", 0, last, &v->unknown, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, v->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix, v->err);
  v->add_bos = v->add_bos && v->bos >= 0;
  v->add_eos = v->add_eos && v->eos >= 0;
  return status;
}

static nibble_status load_vocabulary(vocabulary *v) {
  nibble_status status = load_kind(v);
  if (status == NIBBLE_OK) status = load_tokens(v);
  if (status == NIBBLE_OK) status = load_array(v, "tokenizer.ggml.token_type", &v->types);
  if (status == NIBBLE_OK) status = load_array(v, "tokenizer.ggml.scores", &v->scores);
  if (status == NIBBLE_OK) status = load_switches(v);
  if (status == NIBBLE_OK)
    status = nb_gguf_strings(v->gguf, "tokenizer.ggml.merges", &v->merges, &v->merge_count, v->err);
  if (status == NIBBLE_OK) status = check_merges(v);
  if (status == NIBBLE_OK && !v->words && !v->merges) status = derive_merges(v);
  return status;
}

static void free_vocabulary(vocabulary *v) {
  nb_strmap_free(&v->ids);
  free(v->tokens);
  free(v->merges);
  free(v->derived);
}

/* ---- writing ---- */

static void put_string(nb_buf *out, const char *s, size_t n) {
  static const char escapes[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
  nb_buf_puts(out, "\"");
  for (size_t i = 0, plain = 0; i <= n; i++) {
    unsigned char c = i < n ? (unsigned char)s[i] : 0;
    if (i < n && c >= 0x20 && c != '"' && c != '\\') continue;
    nb_buf_append(out, s + plain, i - plain);
    plain = i + 1;
    if (i == n) break;
    if (c == '"' || c == '\\')
      nb_buf_printf(out, "\\%c", c);
    else if (c < sizeof escapes && escapes[c])
      nb_buf_printf(out, "\\%c", escapes[c]);
    else
      nb_buf_printf(out, "\\u%04x", c);
  }
  nb_buf_puts(out, "\"");
}

static void put_token(nb_buf *out, const vocabulary *v, int64_t id) {
  put_string(out, v->tokens[id].data, v->tokens[id].length);
}

static void put_added_tokens(nb_buf *out, const vocabulary *v) {
  const char *between = "\n";
  nb_buf_puts(out, "  \"added_tokens\": [");
  for (size_t i = 0; i < v->token_count; i++) {
    int64_t type = type_of(v, i);
    bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
    if (!special && type != TYPE_USER_DEFINED) continue;
    nb_buf_puts(out, between);
    nb_buf_printf(out, "    {\n      \"id\": %zu,\n      \"content\": ", i);
    put_token(out, v, (int64_t)i);
    nb_buf_printf(out,
                  ",\n      \"single_word\": false,\n      \"lstrip\": false,\n      \"rstrip\": false,\n"
                  "      \"normalized\": false,\n      \"special\": %s\n    }",
                  special ? "true" : "false");
    between = ",\n";
  }
  nb_buf_puts(out, *between == ',' ? "\n  ],\n" : "],\n");
}

static void put_split(nb_buf *out, const char *expression) {
  nb_buf_puts(out, "      {\n        \"type\": \"Split\",\n        \"pattern\": {\n          \"Regex\": ");
  put_string(out, expression, strlen(expression));
  nb_buf_puts(out, "\n        },\n        \"behavior\": \"Isolated\",\n        \"invert\": false\n      },\n");
}

static void put_words(nb_buf *out, const nb_pretokenizer *words) {
  nb_buf_puts(out, words->nfc ? "  \"normalizer\": {\n    \"type\": \"NFC\"\n  },\n" : "  \"normalizer\": null,\n");
  nb_buf_puts(out, "  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n");
  if (words->digits)
    nb_buf_puts(out, "      {\n        \"type\": \"Digits\",\n        \"individual_digits\": true\n      },\n");
  for (int i = 0; i < NB_MAX_SPLITS && words->splits[i]; i++) put_split(out, words->splits[i]);
  nb_buf_printf(out,
                "      {\n        \"type\": \"ByteLevel\",\n        \"add_prefix_space\": false,\n"
                "        \"trim_offsets\": true,\n        \"use_regex\": %s\n      }\n    ]\n  },\n",
                words->gpt2 ? "true" : "false");
}

/* A space before the text, and every space as U+2581: what SentencePiece does with add_dummy_prefix. */
static void put_spaces(nb_buf *out, const vocabulary *v) {
  const char *replace =
      "      {\n        \"type\": \"Replace\",\n        \"pattern\": {\n          \"String\": \" \"\n        },\n"
      "        \"content\": \"\u2581\"\n      }\n";
  nb_buf_puts(out, "  \"normalizer\": {\n    \"type\": \"Sequence\",\n    \"normalizers\": [\n");
  if (v->add_space_prefix)
    nb_buf_puts(out, "      {\n        \"type\": \"Prepend\",\n        \"prepend\": \"\u2581\"\n      },\n");
  nb_buf_puts(out, replace);
  nb_buf_puts(out, "    ]\n  },\n  \"pre_tokenizer\": null,\n");
}

static void put_template_piece(nb_buf *out, const vocabulary *v, int64_t token, const char *sequence, int type_id) {
  nb_buf_printf(out, "      {\n        \"%s\": {\n          \"id\": ", sequence ? "Sequence" : "SpecialToken");
  if (sequence)
    put_string(out, sequence, 1);
  else
    put_token(out, v, token);
  nb_buf_printf(out, ",\n          \"type_id\": %d\n        }\n      }", type_id);
}

static void put_template(nb_buf *out, const vocabulary *v, const char *sequences) {
  for (int i = 0; sequences[i]; i++) {
    const char sequence[] = {sequences[i], 0};
    if (i) nb_buf_puts(out, ",\n");
    if (v->add_bos) {
      put_template_piece(out, v, v->bos, NULL, i);
      nb_buf_puts(out, ",\n");
    }
    put_template_piece(out, v, -1, sequence, i);
    if (v->add_eos) {
      nb_buf_puts(out, ",\n");
      put_template_piece(out, v, v->eos, NULL, i);
    }
  }
}

static void put_special_token(nb_buf *out, const vocabulary *v, int64_t id) {
  nb_buf_puts(out, "      ");
  put_token(out, v, id);
  nb_buf_puts(out, ": {\n        \"id\": ");
  put_token(out, v, id);
  nb_buf_printf(out, ",\n        \"ids\": [\n          %lld\n        ],\n        \"tokens\": [\n          ",
                (long long)id);
  put_token(out, v, id);
  nb_buf_puts(out, "\n        ]\n      }");
}

static void put_post_processor(nb_buf *out, const vocabulary *v) {
  nb_buf_puts(out, "  \"post_processor\": {\n    \"type\": \"TemplateProcessing\",\n    \"single\": [\n");
  put_template(out, v, "A");
  nb_buf_puts(out, "\n    ],\n    \"pair\": [\n");
  put_template(out, v, "AB");
  nb_buf_puts(out, "\n    ],\n    \"special_tokens\": {");
  bool both = v->add_bos && v->add_eos && v->bos != v->eos;
  if (v->add_bos || v->add_eos) {
    nb_buf_puts(out, "\n");
    put_special_token(out, v, v->add_bos ? v->bos : v->eos);
    if (both) {
      nb_buf_puts(out, ",\n");
      put_special_token(out, v, v->eos);
    }
    nb_buf_puts(out, "\n    ");
  }
  nb_buf_puts(out, "}\n  },\n");
}

static void put_decoder(nb_buf *out, const vocabulary *v) {
  if (v->words) {
    nb_buf_puts(out,
                "  \"decoder\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": true,\n"
                "    \"trim_offsets\": true,\n    \"use_regex\": true\n  },\n");
    return;
  }
  nb_buf_puts(out,
              "  \"decoder\": {\n    \"type\": \"Sequence\",\n    \"decoders\": [\n"
              "      {\n        \"type\": \"Replace\",\n        \"pattern\": {\n          \"String\": \"\u2581\"\n"
              "        },\n        \"content\": \" \"\n      },\n"
              "      {\n        \"type\": \"ByteFallback\"\n      },\n"
              "      {\n        \"type\": \"Fuse\"\n      }");
  if (v->add_space_prefix)
    nb_buf_puts(out,
                ",\n      {\n        \"type\": \"Strip\",\n        \"content\": \" \",\n        \"start\": 1,\n"
                "        \"stop\": 0\n      }");
  nb_buf_puts(out, "\n    ]\n  },\n");
}

static void put_merge(nb_buf *out, nb_gguf_string left, nb_gguf_string right, bool first) {
  nb_buf_puts(out, first ? "\n      [\n        " : ",\n      [\n        ");
  put_string(out, left.data, left.length);
  nb_buf_puts(out, ",\n        ");
  put_string(out, right.data, right.length);
  nb_buf_puts(out, "\n      ]");
}

static void put_merges(nb_buf *out, const vocabulary *v) {
  nb_buf_puts(out, "    \"merges\": [");
  for (size_t i = 0; i < v->merge_count; i++) {
    nb_gguf_string left, right;
    if (split_merge(v->merges[i], &left, &right)) put_merge(out, left, right, i == 0);
  }
  for (size_t i = 0; i < v->derived_count; i++)
    put_merge(out, v->tokens[v->derived[i].left], v->tokens[v->derived[i].right], i == 0);
  nb_buf_puts(out, v->merge_count || v->derived_count ? "\n    ]\n" : "]\n");
}

static void put_model(nb_buf *out, const vocabulary *v) {
  bool bytes = v->words != NULL;
  nb_buf_puts(out, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ");
  if (bytes || v->unknown < 0)
    nb_buf_puts(out, "null"); /* every byte has a token */
  else
    put_token(out, v, v->unknown);
  nb_buf_printf(out,
                ",\n    \"continuing_subword_prefix\": %s,\n    \"end_of_word_suffix\": %s,\n    \"fuse_unk\": %s,\n"
                "    \"byte_fallback\": %s,\n    \"ignore_merges\": %s,\n    \"vocab\": {\n",
                bytes ? "\"\"" : "null", bytes ? "\"\"" : "null", bytes ? "false" : "true", bytes ? "false" : "true",
                bytes && v->words->ignore_merges ? "true" : "false");
  for (size_t i = 0; i < v->token_count; i++) {
    nb_buf_puts(out, "      ");
    put_token(out, v, (int64_t)i);
    nb_buf_printf(out, ": %zu%s\n", i, i + 1 < v->token_count ? "," : "");
  }
  nb_buf_puts(out, "    },\n");
  put_merges(out, v);
  nb_buf_puts(out, "  }\n}");
}

nibble_status nb_gguf_tokenizer_json(const nb_checkpoint *c, nb_buf *out, nibble_error *err) {
  vocabulary v = {.gguf = c->gguf, .err = err};
  nibble_status status = load_vocabulary(&v);
  if (status == NIBBLE_OK) {
    nb_buf_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added_tokens(out, &v);
    if (v.words)
      put_words(out, v.words);
    else
      put_spaces(out, &v);
    put_post_processor(out, &v);
    put_decoder(out, &v);
    put_model(out, &v);
    if (out->failed) status = nb_fail_memory(err, out->length);
  }
  free_vocabulary(&v);
  return status;
}
