/* What the tokenizer's files share; everyone else includes tokenizer/tokenizer.h. Each part of a tokenizer.json becomes
 * a short list of steps of few kinds, made once by its parser and then run over the text: readers/json.c   the JSON:
 * vocabulary and merges straight from the text, the rest through cJSON normalizers.c    text to text pretokenizers.c
 * text to words bpe.c            the model: word to ids decoders.c       ids to text */
#ifndef NB_TOKENIZER_PARTS_H
#define NB_TOKENIZER_PARTS_H

#include <cjson/cJSON.h>

#include "base/strmap.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"

enum {
  NB_MAX_STEPS = 32,      /* in one part of a tokenizer */
  NB_MAX_ID = 1 << 21,    /* larger than any vocabulary, small enough for an array */
  NB_MAX_ADDED = 1 << 10, /* bytes of an added token: bounds the work at each place in a text */
  NB_MAX_CONTENT = 256,   /* bytes that a step puts into a text, as often as it likes */
};

/* --- the byte-level alphabet: every byte as a printable character, as GPT-2 writes them --- */

/* The UTF-8 (1 or 2 bytes) of the character that stands for `byte`; returns its length. */
size_t nb_byte_char(unsigned char byte, char out[2]);

/* The byte that a character stands for; -1 if it stands for none. */
int nb_char_byte(uint32_t code);

/* Appends the characters of text[0, n)'s bytes. */
void nb_bytes_to_chars(const char *text, size_t n, nb_buf *out);

/* --- the model --- */

typedef struct nb_token {
  const char *text; /* NULL: no token has this id */
  uint32_t length;  /* bytes */
  int32_t added;    /* one more than its index among the added tokens; 0: it is none */
  bool special;
} nb_token;

typedef struct nb_merge {
  int32_t left, right; /* ids; left is -1 in a free slot */
  int32_t rank, merged;
} nb_merge;

typedef struct nb_bpe {
  nb_strmap ids;    /* token -> id; the keys lie in `arena` or with the added tokens */
  nb_token *tokens; /* [token_count], by id */
  int32_t token_count, token_capacity;
  size_t model_count; /* tokens in the model's own vocabulary */
  char *arena;        /* the model's token texts */
  nb_merge *merges;   /* hash table */
  size_t merge_capacity, merge_count;
  uint64_t seed;                   /* of the hash tables: nobody can prepare a file that makes them slow */
  int32_t byte_ids[256];           /* id of a byte's character; -1: none */
  int32_t fallback_ids[256];       /* id of "<0xHH>"; -1: none */
  char *unknown, *prefix, *suffix; /* unk_token, continuing_subword_prefix, end_of_word_suffix; NULL or "": none */
  int32_t unknown_id;              /* -1: not in the vocabulary */
  bool fuse_unknown, byte_fallback, ignore_merges;
  struct nb_word_cache *cache;
  struct nb_bpe_scratch *scratch;
} nb_bpe;

/* Makes `id` the token's; the text must outlive the model. False if there is no memory. */
bool nb_bpe_set_token(nb_bpe *bpe, int32_t id, const char *text, size_t n);

/* Adds a merge; a later one of the same pair replaces an earlier one, as in the reference. False if there is no
 * memory. */
bool nb_bpe_add_merge(nb_bpe *bpe, nb_merge merge);

/* Fills what follows from vocabulary and settings. */
nibble_status nb_bpe_finish(nb_bpe *bpe, nibble_error *err);

/* Appends the ids of one word; `raw`: the word holds bytes, each of which stands for its character. */
nibble_status nb_bpe_word(nb_bpe *bpe, const char *word, size_t n, bool raw, nb_ids *ids, nibble_error *err);

void nb_bpe_free(nb_bpe *bpe);

/* --- normalizers --- */

typedef struct nb_normal_step {
  enum { NB_NORMAL_FORM, NB_NORMAL_LOWER, NB_NORMAL_STRIP, NB_NORMAL_REPLACE, NB_NORMAL_PREPEND, NB_NORMAL_BYTES } kind;
  bool compose, compat; /* FORM */
  bool left, right;     /* STRIP */
  nb_regex *regex;      /* REPLACE: what */
  char *text;           /* REPLACE: by what; PREPEND: what */
} nb_normal_step;

typedef struct nb_normalizer {
  nb_normal_step steps[NB_MAX_STEPS];
  int count;
} nb_normalizer;

nibble_status nb_normalizer_parse(const char *where, const cJSON *json, nb_normalizer *out, nibble_error *err);

/* Normalizes *text (valid UTF-8) in place; `other` is scratch. *at_start is cleared if its first characters went. */
nibble_status nb_normalize(const nb_normalizer *normalizer, nb_buf *text, nb_buf *other, bool *at_start,
                           nibble_error *err);
void nb_normalizer_free(nb_normalizer *normalizer);

/* --- pre-tokenizers --- */

typedef enum nb_behavior {
  NB_REMOVED,
  NB_ISOLATED,
  NB_MERGED_WITH_PREVIOUS,
  NB_MERGED_WITH_NEXT,
  NB_CONTIGUOUS
} nb_behavior;

typedef struct nb_pre_step {
  enum { NB_PRE_SPLIT, NB_PRE_SPACE, NB_PRE_BYTES, NB_PRE_METASPACE } kind;
  nb_regex *regex;                    /* SPLIT: by the matches of this pattern, */
  bool (*is_in_class)(uint32_t code); /* or by the characters of this class */
  nb_behavior behavior;
  bool invert;
  char *replacement;                              /* METASPACE: written for a space */
  enum { NB_NEVER, NB_FIRST, NB_ALWAYS } prepend; /* METASPACE: before which pieces */
  nb_buf text, shadow;                            /* scratch of the steps that change the text */
} nb_pre_step;

typedef struct nb_pre_tokenizer {
  nb_pre_step steps[NB_MAX_STEPS];
  int count;
  bool raw; /* words come out as bytes whose characters the model wants */
} nb_pre_tokenizer;

nibble_status nb_pre_tokenizer_parse(const char *where, const cJSON *json, nb_pre_tokenizer *out, nibble_error *err);

/* Calls `word` for each word of text[0, n), which must be valid UTF-8; `at_start`: it begins the whole input. */
typedef nibble_status (*nb_word_fn)(void *ctx, const char *word, size_t n, nibble_error *err);
nibble_status nb_pre_tokenize(nb_pre_tokenizer *pre, const char *text, size_t n, bool at_start, nb_word_fn word,
                              void *ctx, nibble_error *err);
void nb_pre_tokenizer_free(nb_pre_tokenizer *pre);

/* --- decoders --- */

typedef struct nb_decode_step {
  enum {
    NB_DECODE_BYTES,
    NB_DECODE_METASPACE,
    NB_DECODE_REPLACE,
    NB_DECODE_BYTE_FALLBACK,
    NB_DECODE_FUSE,
    NB_DECODE_STRIP,
    NB_DECODE_SUFFIX
  } kind;
  nb_regex *regex;     /* REPLACE: what */
  char *text;          /* REPLACE: by what; METASPACE, STRIP: the character; SUFFIX: the suffix */
  bool prepended;      /* METASPACE: the first one was added when encoding */
  int64_t start, stop; /* STRIP: at most so many from either end */
} nb_decode_step;

typedef struct nb_decoder {
  nb_decode_step steps[NB_MAX_STEPS];
  int count;
  bool present; /* without one, the reference joins tokens with spaces */
} nb_decoder;

nibble_status nb_decoder_parse(const char *where, const cJSON *json, nb_decoder *out, nibble_error *err);

/* Appends the text of `count` tokens. */
nibble_status nb_decode_tokens(const nb_decoder *decoder, const nb_token *tokens, size_t count, nb_buf *text,
                               nibble_error *err);
void nb_decoder_free(nb_decoder *decoder);

/* --- helpers of the parsers --- */

/* The string "type" of an object; NULL after filling *err if it is missing. `part` names it in messages. */
const char *nb_part_type(const char *where, const char *part, const cJSON *json, nibble_error *err);

/* A pattern written {"Regex": "..."} or {"String": "..."} under "pattern". */
nibble_status nb_part_pattern(const char *where, const char *part, const cJSON *json, nb_regex **out,
                              nibble_error *err);

/* A malloc'd copy of the string under `key`, which must be there and have at most `limit` bytes; NULL on failure. */
nibble_status nb_part_string(const char *where, const char *part, const cJSON *json, const char *key, size_t limit,
                             char **out, nibble_error *err);

/* The same for one character. */
nibble_status nb_part_char(const char *where, const char *part, const cJSON *json, const char *key, char **out,
                           nibble_error *err);

/* --- the tokenizer --- */

typedef struct nb_added {
  const char *text; /* as matched: normalized if it asks for that */
  size_t length;
  int32_t id;
  bool single_word, lstrip, rstrip, normalized, special;
} nb_added;

/* Added tokens sorted by their bytes, searched for the longest that a place in a text begins with. */
typedef struct nb_added_set {
  nb_added *tokens;
  size_t count;
  size_t first[257]; /* those that begin with byte b lie in [first[b], first[b + 1]) */
} nb_added_set;

struct nb_tokenizer {
  nb_bpe bpe;
  nb_normalizer normalizer;
  nb_pre_tokenizer pre;
  nb_decoder decoder;
  nb_added_set verbatim, normalized; /* matched before and after normalization */
  char **owned;                      /* texts of the added tokens */
  size_t owned_count;
  nb_regex *word;                   /* matches one character of a word; NULL if no added token asks */
  nb_ids template;                  /* the post-processor's ids; -1 where the text's go; empty: the text's alone */
  nb_buf repaired, normal, scratch; /* of encode */
};

/* Reads the list "added_tokens"; vocabulary and normalizer must be there. */
nibble_status nb_added_parse(const char *where, const cJSON *list, nb_tokenizer *tokenizer, nibble_error *err);
void nb_added_free(nb_tokenizer *tokenizer);

/* Cuts text[0, n) at the tokens of a set. Calls `part` for what lies between and for each token, with its id instead
 * of -1; a token's part includes the white space that it swallows. */
typedef nibble_status (*nb_part_fn)(void *ctx, size_t begin, size_t end, int32_t id, nibble_error *err);
nibble_status nb_added_cut(const nb_tokenizer *tokenizer, const nb_added_set *set, const char *text, size_t n,
                           nb_part_fn part, void *ctx, nibble_error *err);

#endif
