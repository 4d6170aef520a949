#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stage.h"
#include "convert/tokenizer_open.h"
#include "validate/against.h"

static const char check[] = "against", differs[] = "tokenizer-differs";

/* One of the two tokenizers. */
typedef struct reading {
  char *text; /* of tokenizer.json; NULL for a .gguf */
  size_t length;
  bool is_there;
  nb_tokenizer_spec spec;
  nb_tokenizer *tokenizer;
} reading;

static void reading_free(reading *r) {
  free(r->text);
  nb_tokenizer_spec_free(&r->spec);
  nb_tokenizer_close(r->tokenizer);
}

/* The file's bytes; *is_there false where there is none. */
static nibble_status read_file(const nb_checkpoint *c, reading *out, nibble_error *err) {
  if (c->gguf) {
    out->is_there = true;
    return NIBBLE_OK;
  }
  char *path = nb_path_join(c->folder, "tokenizer.json");
  if (!path) return nb_fail_memory(err, strlen(c->folder));
  nibble_status status = NIBBLE_OK;
  out->is_there = access(path, F_OK) == 0;
  if (out->is_there) status = nb_read_file(path, NB_JSON_MAX_BYTES, &out->text, &out->length, err);
  free(path);
  return status;
}

static nibble_status read_spec(const nb_checkpoint *c, reading *r, nibble_error *err) {
  if (c->gguf) return nb_gguf_tokenizer(c->gguf, &r->spec, err);
  return nb_tokenizer_spec_read("tokenizer.json", r->text, r->length, &r->spec, err);
}

/* Byte-pair encoding joins by their order, so another order is another tokenizer. */
static void compare_merges(const nb_pair *p, const nb_merges *now, const nb_merges *then) {
  size_t i = 0;
  while (i < now->count && i < then->count && memcmp(&now->list[i], &then->list[i], sizeof *now->list) == 0) i++;
  if (i < now->count || i < then->count)
    nb_find(p->findings, NIBBLE_FAULT, check, differs, nb_place_tensor(""),
            "tokenizer.json: its merges are not the original's from number %zu on (%zu of them, and %zu)", i,
            now->count, then->count);
}

/* Unigram chooses by them. */
static void compare_scores(const nb_pair *p, const nb_vocab *now, const nb_vocab *then) {
  int32_t n = now->own < then->own ? now->own : then->own;
  for (int32_t i = 0; now->scores && then->scores && i < n; i++) {
    if ((float)now->scores[i] == (float)then->scores[i]) continue;
    nb_find(p->findings, NIBBLE_FAULT, check, differs, nb_place_tensor(""),
            "tokenizer.json: the score of token %d is %.9g, and %.9g in the original", i, now->scores[i],
            then->scores[i]);
    return;
  }
}

static nb_str token_of(const nb_tokenizer *t, int32_t id) {
  nb_str s = {NULL, 0};
  if (id < nb_tokenizer_vocab_size(t)) s.data = nb_tokenizer_token(t, id, &s.length);
  return s;
}

/* A .gguf has a token for every row of the embedding, so where it is one of the two only those of both count. */
static void compare_tokens(const nb_pair *p, const nb_tokenizer *now, const nb_tokenizer *then) {
  bool common = p->artifact->gguf || p->original->gguf;
  int32_t count = nb_tokenizer_vocab_size(now);
  if (nb_tokenizer_vocab_size(then) > count) count = nb_tokenizer_vocab_size(then);
  for (int32_t id = 0; id < count; id++) {
    nb_str a = token_of(now, id), b = token_of(then, id);
    if ((common || (!a.data && !b.data)) && (!a.data || !b.data)) continue;
    bool same = a.data && b.data && a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
    if (same && (common || nb_tokenizer_is_special(now, id) == nb_tokenizer_is_special(then, id))) continue;
    nb_find(p->findings, NIBBLE_FAULT, check, differs, nb_place_tensor(""),
            same ? "the tokenizer: '%.*s', token %d, is special in one of the artifact and the original only"
                 : "the tokenizer: '%.*s' is token %d, which is '%.*s' in the original",
            (int)(a.data && a.length < 64 ? a.length
                  : a.data                ? 64
                                          : 0),
            a.data ? a.data : "", id,
            (int)(b.data && b.length < 64 ? b.length
                  : b.data                ? 64
                                          : 0),
            b.data ? b.data : "");
    return;
  }
}

/* Text in which normalizers, pre-tokenizers and post-processors show what they do: case, accents in one character and
 * in two, ligatures, widths, digits, runs of white space, marks, other scripts, what belongs to no word. */
static const char *const probes[] = {
    "Hello world, it's DON'T and we'll see.",
    " a  b   c\td\n\ne\r\n  f ",
    "1234567 3.14 1,000,000 2nd 0x1F",
    "caf\xc3\xa9 cafe\xcc\x81 \xc3\x85ngstr\xc3\xb6m \xef\xac\x81ne \xef\xbc\xa1\xef\xbc\xa2 \xe2\x85\xa3 "
    "\xc4\xb0stanbul",
    "if (x >= 10 && y != 'a') { return foo_bar->baz[i++]; } // http://a.b/c?d=e&f#g",
    "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c \xe3\x81\x93\xe3\x82\x93 "
    "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 "
    "\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 \xe0\xa4\xa8\xe0\xa4\xae "
    "\xf0\x9f\x98\x80\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd",
    "\xe2\x80\x9cquoted\xe2\x80\x9d \xe2\x80\x94 \xe2\x80\xa6 \xc2\xa0x\xe2\x80\x8bz \xc2\xab\xc2\xbb #hash @at $5 50%",
    "<s> </s> <unk> <|endoftext|> [CLS] [MASK] <|im_start|>user",
};

/* Whether both give the same ids; a probe that both refuse is the same, too. */
static nibble_status same_ids(const reading *now, const reading *then, const char *probe, bool *same,
                              nibble_error *err) {
  nb_ids a = {0}, b = {0};
  nibble_error ignored;
  nibble_status first = nb_tokenizer_encode(now->tokenizer, probe, strlen(probe), NB_ADD_SPECIAL, &a, &ignored);
  nibble_status second = nb_tokenizer_encode(then->tokenizer, probe, strlen(probe), NB_ADD_SPECIAL, &b, &ignored);
  *same =
      first == second && a.length == b.length && (!a.length || memcmp(a.data, b.data, a.length * sizeof *a.data) == 0);
  nb_ids_free(&a);
  nb_ids_free(&b);
  if (first != NIBBLE_SYSTEM && second != NIBBLE_SYSTEM) return NIBBLE_OK;
  return nb_fail_memory(err, strlen(probe));
}

static nibble_status compare_ids(const nb_pair *p, const reading *now, const reading *then, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < sizeof probes / sizeof *probes; i++) {
    bool same;
    status = same_ids(now, then, probes[i], &same, err);
    if (status != NIBBLE_OK || same) continue;
    /* What a .gguf says of special tokens around a text and what a tokenizer.json does need not agree. */
    bool common = p->artifact->gguf || p->original->gguf;
    nb_find(p->findings, common ? NIBBLE_WARNING : NIBBLE_FAULT, check, differs, nb_place_tensor(""),
            "the tokenizer gives other ids than the original's, for example of '%s'", probes[i]);
    break;
  }
  return status;
}

/* Both are understood. */
static nibble_status compare(const nb_pair *p, reading *now, reading *then, nibble_error *err) {
  size_t faults = nb_findings_count(p->findings, NIBBLE_FAULT);
  if (!p->artifact->gguf && !p->original->gguf) {
    compare_merges(p, &now->spec.merges, &then->spec.merges);
    compare_scores(p, &now->spec.vocab, &then->spec.vocab);
  }
  nibble_status status = nb_tokenizer_make("tokenizer.json", &now->spec, &now->tokenizer, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make("tokenizer.json", &then->spec, &then->tokenizer, err);
  if (status != NIBBLE_OK) return status;
  compare_tokens(p, now->tokenizer, then->tokenizer);
  if (nb_findings_count(p->findings, NIBBLE_FAULT) > faults) return NIBBLE_OK; /* ids differ then, of course */
  return compare_ids(p, now, then, err);
}

static nibble_status compare_present(const nb_pair *p, reading *now, reading *then, nibble_error *err) {
  if (now->text && then->text && now->length == then->length && memcmp(now->text, then->text, now->length) == 0)
    return NIBBLE_OK;
  nibble_status status = read_spec(p->artifact, now, err);
  if (status == NIBBLE_OK) status = read_spec(p->original, then, err);
  return status == NIBBLE_OK ? compare(p, now, then, err) : status;
}

nibble_status nb_against_tokenizer(const nb_pair *p, nibble_error *err) {
  reading now = {0}, then = {0};
  nibble_error why;
  nibble_status status = read_file(p->artifact, &now, &why);
  if (status == NIBBLE_OK) status = read_file(p->original, &then, &why);
  if (status == NIBBLE_OK && now.is_there && then.is_there) status = compare_present(p, &now, &then, &why);
  if (status == NIBBLE_OK && now.is_there != then.is_there)
    nb_find(p->findings, NIBBLE_WARNING, check, "tokenizer-not-compared", nb_place_tensor(""),
            "tokenizer.json is in %s only", now.is_there ? "the artifact" : "the original");
  reading_free(&now);
  reading_free(&then);
  if (status == NIBBLE_BAD_INPUT) { /* one of them is damaged, or of a kind that is not known */
    nb_find(p->findings, NIBBLE_WARNING, check, "tokenizer-not-compared", nb_place_tensor(""),
            "the tokenizer is not the same file as the original's, and not understood: %s", why.message);
    return NIBBLE_OK;
  }
  if (status != NIBBLE_OK && err) *err = why;
  return status;
}
