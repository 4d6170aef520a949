/* Byte-pair encoding of one word (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909): of all neighbouring pairs
 * that have a merge, the one of the lowest rank is joined, the leftmost first, until none is left. Short words rescan
 * their pairs, which is fastest; long ones keep them in a heap, so that a word of n symbols costs n log n. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "tokenizer/parts.h"

enum {
  SHORT_WORD = 24,        /* symbols up to which rescanning beats the heap */
  CACHED_WORD = 64,       /* bytes: longer words hardly come twice */
  CACHED_WORDS = 1 << 15, /* words after which the cache is emptied */
};

typedef struct cache_slot {
  uint32_t hash; /* 0: free */
  uint32_t text, ids;
  uint16_t text_length, id_count;
} cache_slot;

struct nb_word_cache {
  cache_slot *slots;      /* hash table, at most half full */
  size_t capacity, count; /* a power of two, or 0 */
  nb_buf text;
  nb_ids ids;
};

typedef struct symbol {
  int32_t id, previous, next; /* neighbours by index; -1 at the ends. id is -1 once merged into the left one */
} symbol;

typedef struct candidate {
  int32_t rank, at, merged;
} candidate;

struct nb_bpe_scratch {
  nb_ids initial;
  symbol *symbols;
  size_t symbol_capacity;
  candidate *heap;
  size_t heap_length, heap_capacity;
  nb_buf chars;
};

/* --- the byte-level alphabet --- */

/* The 188 bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and up, in order. */
static bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

size_t nb_byte_char(unsigned char byte, char out[2]) {
  uint32_t code = byte;
  if (!stands_for_itself(byte)) code = 0x100u + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7fu + 0x21u : 0x43u);
  char four[4];
  size_t length = nb_utf8_encode(code, four);
  memcpy(out, four, 2);
  return length;
}

int nb_char_byte(uint32_t code) {
  if (code < 0x100) return stands_for_itself(code) ? (int)code : -1;
  uint32_t k = code - 0x100;
  return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7f) : k == 0x43 ? 0xad : -1;
}

void nb_bytes_to_chars(const char *text, size_t n, nb_buf *out) {
  for (size_t i = 0; i < n; i++) {
    char two[2];
    nb_buf_append(out, two, nb_byte_char((unsigned char)text[i], two));
  }
}

/* --- merges --- */

static nb_merge *merge_slot(const nb_bpe *bpe, int32_t left, int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  uint64_t hash = (key ^ bpe->seed) * 0x9e3779b97f4a7c15u;
  hash ^= hash >> 32;
  hash *= 0xd6e8feb86659fd93u | bpe->seed << 1;
  for (size_t i = hash >> 32 & (bpe->merge_capacity - 1);; i = (i + 1) & (bpe->merge_capacity - 1)) {
    nb_merge *slot = &bpe->merges[i];
    if (slot->left < 0 || (slot->left == left && slot->right == right)) return slot;
  }
}

static bool resize_merges(nb_bpe *bpe, size_t capacity) {
  nb_bpe bigger = {.merge_capacity = capacity, .seed = bpe->seed};
  bigger.merges = malloc(capacity * sizeof *bigger.merges);
  if (!bigger.merges) return false;
  for (size_t i = 0; i < capacity; i++) bigger.merges[i].left = -1;
  for (size_t i = 0; i < bpe->merge_capacity; i++) {
    const nb_merge *merge = &bpe->merges[i];
    if (merge->left >= 0) *merge_slot(&bigger, merge->left, merge->right) = *merge;
  }
  free(bpe->merges);
  bpe->merges = bigger.merges;
  bpe->merge_capacity = capacity;
  return true;
}

bool nb_bpe_add_merge(nb_bpe *bpe, nb_merge merge) {
  if (2 * bpe->merge_count >= bpe->merge_capacity) {
    size_t capacity = bpe->merge_capacity * 2;
    if (capacity == 0) capacity = 1024;
    while (capacity < 2 * bpe->model_count) capacity *= 2; /* about as many merges as tokens */
    if (!resize_merges(bpe, capacity)) return false;
  }
  nb_merge *slot = merge_slot(bpe, merge.left, merge.right);
  bpe->merge_count += slot->left < 0;
  *slot = merge;
  return true;
}

static const nb_merge *find_merge(const nb_bpe *bpe, int32_t left, int32_t right) {
  if (bpe->merge_count == 0) return NULL;
  const nb_merge *slot = merge_slot(bpe, left, right);
  return slot->left < 0 ? NULL : slot;
}

bool nb_bpe_set_token(nb_bpe *bpe, int32_t id, const char *text, size_t n) {
  if (id >= bpe->token_capacity) {
    int32_t capacity = bpe->token_capacity ? bpe->token_capacity : 1024;
    while (capacity <= id) capacity *= 2;
    nb_token *tokens = calloc((size_t)capacity, sizeof *tokens); /* pages that stay zero cost nothing */
    if (!tokens) return false;
    if (bpe->token_count > 0) memcpy(tokens, bpe->tokens, (size_t)bpe->token_count * sizeof *tokens);
    free(bpe->tokens);
    bpe->tokens = tokens;
    bpe->token_capacity = capacity;
  }
  if (id >= bpe->token_count) bpe->token_count = id + 1;
  bpe->tokens[id] = (nb_token){.text = text, .length = (uint32_t)n};
  return true;
}

static int32_t find_id(const nb_bpe *bpe, const char *text, size_t n) {
  int64_t id;
  return nb_strmap_find(&bpe->ids, text, n, &id) ? (int32_t)id : -1;
}

nibble_status nb_bpe_finish(nb_bpe *bpe, nibble_error *err) {
  char name[8];
  for (unsigned byte = 0; byte < 256; byte++) {
    bpe->byte_ids[byte] = find_id(bpe, name, nb_byte_char((unsigned char)byte, name));
    static const char hex[] = "0123456789ABCDEF";
    char code[6] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'};
    bpe->fallback_ids[byte] = find_id(bpe, code, sizeof code);
  }
  bpe->unknown_id = bpe->unknown ? find_id(bpe, bpe->unknown, strlen(bpe->unknown)) : -1;
  bpe->cache = calloc(1, sizeof *bpe->cache);
  bpe->scratch = calloc(1, sizeof *bpe->scratch);
  return bpe->cache && bpe->scratch ? NIBBLE_OK : nb_fail_memory(err, sizeof *bpe->scratch);
}

void nb_bpe_free(nb_bpe *bpe) {
  nb_strmap_free(&bpe->ids);
  free(bpe->tokens);
  free(bpe->arena);
  free(bpe->merges);
  free(bpe->unknown);
  free(bpe->prefix);
  free(bpe->suffix);
  if (bpe->cache) {
    free(bpe->cache->slots);
    nb_buf_free(&bpe->cache->text);
    nb_ids_free(&bpe->cache->ids);
    free(bpe->cache);
  }
  if (bpe->scratch) {
    nb_ids_free(&bpe->scratch->initial);
    free(bpe->scratch->symbols);
    free(bpe->scratch->heap);
    nb_buf_free(&bpe->scratch->chars);
    free(bpe->scratch);
  }
  *bpe = (nb_bpe){0};
}

/* --- from a word to its first symbols --- */

static void put(nb_ids *ids, int32_t id) { nb_ids_append(ids, &id, 1); }

typedef struct speller {
  nb_bpe *bpe;
  nb_ids *ids;
  size_t pending; /* unknown tokens not yet put: the reference puts them before the next known character */
} speller;

static nibble_status unknown_char(speller *s, const char *text, size_t n, nibble_error *err) {
  nb_bpe *bpe = s->bpe;
  if (bpe->byte_fallback) {
    size_t have = 0;
    while (have < n && bpe->fallback_ids[(unsigned char)text[have]] >= 0) have++;
    if (have == n) {
      for (size_t i = 0; i < n; i++) put(s->ids, bpe->fallback_ids[(unsigned char)text[i]]);
      return NIBBLE_OK;
    }
  }
  if (!bpe->unknown) return NIBBLE_OK; /* dropped, as the reference does */
  if (bpe->unknown_id < 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "the text has a character without a token, and unk_token '%s' is no token",
                   bpe->unknown);
  if (s->pending && !bpe->fuse_unknown) put(s->ids, bpe->unknown_id);
  s->pending = 1;
  return NIBBLE_OK;
}

/* A character of the word, with what its place in the word adds to it. */
static nibble_status spell_char(speller *s, const char *text, size_t n, bool first, bool last, nibble_error *err) {
  nb_bpe *bpe = s->bpe;
  const char *prefix = first ? "" : bpe->prefix, *suffix = last ? bpe->suffix : "";
  if (prefix[0] || suffix[0]) {
    nb_buf *whole = &bpe->scratch->chars;
    whole->length = 0;
    nb_buf_puts(whole, prefix);
    nb_buf_append(whole, text, n);
    nb_buf_puts(whole, suffix);
    if (whole->failed) return nb_fail_memory(err, n);
    text = whole->data;
    n = whole->length;
  }
  int32_t id = find_id(bpe, text, n);
  if (id < 0) return unknown_char(s, text, n, err);
  if (s->pending) put(s->ids, bpe->unknown_id);
  s->pending = 0;
  put(s->ids, id);
  return NIBBLE_OK;
}

static nibble_status spell(nb_bpe *bpe, const char *word, size_t n, bool raw, nb_ids *ids, nibble_error *err) {
  speller s = {.bpe = bpe, .ids = ids};
  ids->length = 0;
  bool affixes = bpe->prefix[0] || bpe->suffix[0];
  nibble_status status = NIBBLE_OK;
  size_t length = 1;
  for (size_t i = 0; i < n && status == NIBBLE_OK; i += length) {
    if (raw && !affixes && !s.pending && bpe->byte_ids[(unsigned char)word[i]] >= 0) {
      put(ids, bpe->byte_ids[(unsigned char)word[i]]);
      continue;
    }
    char two[2];
    const char *text = word + i;
    size_t bytes;
    if (raw) {
      bytes = nb_byte_char((unsigned char)word[i], two);
      text = two;
    } else {
      nb_utf8_decode(text, &length);
      bytes = length;
    }
    status = spell_char(&s, text, bytes, i == 0, i + length == n, err);
  }
  if (s.pending) put(ids, bpe->unknown_id);
  return status;
}

/* --- merging --- */

static size_t merge_short(const nb_bpe *bpe, int32_t *ids, size_t n) {
  int32_t ranks[SHORT_WORD], merged[SHORT_WORD];
  for (size_t i = 0; i + 1 < n; i++) {
    const nb_merge *merge = find_merge(bpe, ids[i], ids[i + 1]);
    ranks[i] = merge ? merge->rank : INT32_MAX;
    merged[i] = merge ? merge->merged : -1;
  }
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == INT32_MAX) break;
    ids[best] = merged[best];
    n--;
    memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
    if (best + 1 < n) {
      memmove(ranks + best, ranks + best + 1, (n - best - 1) * sizeof *ranks);
      memmove(merged + best, merged + best + 1, (n - best - 1) * sizeof *merged);
    }
    for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
      const nb_merge *merge = find_merge(bpe, ids[i], ids[i + 1]);
      ranks[i] = merge ? merge->rank : INT32_MAX;
      merged[i] = merge ? merge->merged : -1;
    }
  }
  return n;
}

static bool before(candidate a, candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void push(struct nb_bpe_scratch *s, candidate c) {
  size_t i = s->heap_length++;
  while (i > 0 && before(c, s->heap[(i - 1) / 2])) {
    s->heap[i] = s->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  s->heap[i] = c;
}

static candidate pop(struct nb_bpe_scratch *s) {
  candidate top = s->heap[0], last = s->heap[--s->heap_length];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < s->heap_length) {
    if (child + 1 < s->heap_length && before(s->heap[child + 1], s->heap[child])) child++;
    if (!before(s->heap[child], last)) break;
    s->heap[i] = s->heap[child];
    i = child;
  }
  s->heap[i] = last;
  return top;
}

/* Each of n symbols is put once and each of at most n - 1 merges puts two more. */
static bool reserve_long(struct nb_bpe_scratch *s, size_t n) {
  s->heap_length = 0;
  if (s->symbol_capacity >= n) return true;
  free(s->symbols);
  free(s->heap);
  s->symbols = nb_alloc(n, sizeof *s->symbols);
  s->heap = nb_alloc(n, 3 * sizeof *s->heap);
  s->symbol_capacity = s->symbols && s->heap ? n : 0;
  return s->symbol_capacity > 0;
}

static void consider(const nb_bpe *bpe, int32_t at) {
  struct nb_bpe_scratch *s = bpe->scratch;
  if (at < 0 || s->symbols[at].next < 0) return;
  const nb_merge *merge = find_merge(bpe, s->symbols[at].id, s->symbols[s->symbols[at].next].id);
  if (merge) push(s, (candidate){.rank = merge->rank, .at = at, .merged = merge->merged});
}

static nibble_status merge_long(const nb_bpe *bpe, int32_t *ids, size_t *count, nibble_error *err) {
  struct nb_bpe_scratch *s = bpe->scratch;
  int32_t n = (int32_t)*count;
  if (!reserve_long(s, *count)) return nb_fail_memory(err, *count * (sizeof(symbol) + 3 * sizeof(candidate)));
  for (int32_t i = 0; i < n; i++) {
    s->symbols[i] = (symbol){.id = ids[i], .previous = i - 1, .next = i + 1 < n ? i + 1 : -1};
  }
  for (int32_t i = 0; i < n; i++) consider(bpe, i);
  while (s->heap_length > 0) {
    candidate top = pop(s);
    symbol *left = &s->symbols[top.at];
    if (left->id < 0 || left->next < 0) continue;
    symbol *right = &s->symbols[left->next];
    const nb_merge *merge = find_merge(bpe, left->id, right->id);
    if (!merge || merge->merged != top.merged) continue; /* a neighbour has changed since it was put */
    left->id = top.merged;
    right->id = -1;
    left->next = right->next;
    if (left->next >= 0) s->symbols[left->next].previous = top.at;
    consider(bpe, left->previous);
    consider(bpe, top.at);
  }
  *count = 0;
  for (int32_t i = 0; i >= 0; i = s->symbols[i].next) ids[(*count)++] = s->symbols[i].id;
  return NIBBLE_OK;
}

/* --- the cache --- */

/* The slot of a word, or a free one. */
static cache_slot *cache_slot_of(const struct nb_word_cache *cache, const char *word, size_t n, uint32_t hash) {
  for (size_t i = hash & (cache->capacity - 1);; i = (i + 1) & (cache->capacity - 1)) {
    cache_slot *slot = &cache->slots[i];
    if (slot->hash == 0) return slot;
    if (slot->hash == hash && slot->text_length == n && memcmp(cache->text.data + slot->text, word, n) == 0)
      return slot;
  }
}

/* Makes room for one more word: by more slots, or by forgetting all words. */
static bool cache_make_room(struct nb_word_cache *cache) {
  if (cache->count >= CACHED_WORDS) {
    memset(cache->slots, 0, cache->capacity * sizeof *cache->slots);
    cache->count = cache->text.length = cache->ids.length = 0;
  }
  if (2 * cache->count < cache->capacity) return true;
  struct nb_word_cache bigger = *cache;
  bigger.capacity = cache->capacity ? 2 * cache->capacity : 256;
  bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
  if (!bigger.slots) return false;
  for (size_t i = 0; i < cache->capacity; i++) {
    const cache_slot *slot = &cache->slots[i];
    if (slot->hash == 0) continue;
    *cache_slot_of(&bigger, cache->text.data + slot->text, slot->text_length, slot->hash) = *slot;
  }
  free(cache->slots);
  *cache = bigger;
  return true;
}

/* Without memory the word is just not remembered. */
static void cache_add(struct nb_word_cache *cache, uint32_t hash, const char *word, size_t n, const nb_ids *ids) {
  if (!cache_make_room(cache)) return;
  cache_slot slot = {.hash = hash,
                     .text = (uint32_t)cache->text.length,
                     .ids = (uint32_t)cache->ids.length,
                     .text_length = (uint16_t)n,
                     .id_count = (uint16_t)ids->length};
  nb_buf_append(&cache->text, word, n);
  nb_ids_append(&cache->ids, ids->data, ids->length);
  if (cache->text.failed || cache->ids.failed) return;
  *cache_slot_of(cache, word, n, hash) = slot;
  cache->count++;
}

static nibble_status encode_word(nb_bpe *bpe, const char *word, size_t n, bool raw, nb_ids *ids, nibble_error *err) {
  if (bpe->ignore_merges) {
    nb_buf *chars = &bpe->scratch->chars;
    chars->length = 0;
    if (raw)
      nb_bytes_to_chars(word, n, chars);
    else
      nb_buf_append(chars, word, n);
    if (chars->failed) return nb_fail_memory(err, n);
    int32_t id = find_id(bpe, chars->data, chars->length);
    if (id >= 0) {
      ids->length = 0;
      put(ids, id);
      return ids->failed ? nb_fail_memory(err, n) : NIBBLE_OK;
    }
  }
  nibble_status status = spell(bpe, word, n, raw, ids, err);
  if (status != NIBBLE_OK) return status;
  if (ids->failed) return nb_fail_memory(err, n * sizeof *ids->data);
  if (ids->length > SHORT_WORD) return merge_long(bpe, ids->data, &ids->length, err);
  ids->length = merge_short(bpe, ids->data, ids->length);
  return NIBBLE_OK;
}

nibble_status nb_bpe_word(nb_bpe *bpe, const char *word, size_t n, bool raw, nb_ids *ids, nibble_error *err) {
  struct nb_word_cache *cache = bpe->cache;
  bool cached = n <= CACHED_WORD;
  uint32_t hash = 0;
  if (cached) {
    hash = (uint32_t)XXH3_64bits_withSeed(word, n, bpe->seed) | 1u << 31; /* never 0, which marks a free slot */
    const cache_slot *slot = cache->capacity ? cache_slot_of(cache, word, n, hash) : NULL;
    if (slot && slot->hash) {
      if (slot->id_count > 0) nb_ids_append(ids, cache->ids.data + slot->ids, slot->id_count);
      return NIBBLE_OK;
    }
  }
  nb_ids *fresh = &bpe->scratch->initial;
  nibble_status status = encode_word(bpe, word, n, raw, fresh, err);
  if (status != NIBBLE_OK) return status;
  if (cached) cache_add(cache, hash, word, n, fresh);
  nb_ids_append(ids, fresh->data, fresh->length);
  return NIBBLE_OK;
}
