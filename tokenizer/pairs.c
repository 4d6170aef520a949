#include "tokenizer/pairs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"

enum { KNOWN = 1 << 15 /* pairs that are remembered: 768 KiB, about what stays in a cache of the second level */ };

typedef struct listed {
  int32_t left, right; /* ids; left is -1 in a free slot */
  int32_t rank, whole;
} listed;

typedef struct known {
  int32_t left, right; /* ids; the first one more than that: 0 is a free slot */
  nb_joined joined;
} known;

struct nb_pairs {
  uint64_t seed; /* of both tables: nobody can prepare a file that makes them slow */
  listed *slots; /* hash table, at most half full; NULL: none is listed */
  size_t capacity;

  const nb_vocab *vocab;
  int32_t *order; /* nb_merges.order; NULL: the merges are listed */
  bool by_left_id;
  known *known; /* [KNOWN]: a pair takes the place of the one that was there */
  char *whole;  /* scratch for a joined text, of */
  size_t longest;
};

static uint64_t hash_of(const nb_pairs *p, int32_t left, int32_t right) {
  uint64_t hash = (((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ p->seed) * 0x9e3779b97f4a7c15u;
  hash ^= hash >> 32;
  return (hash * (0xd6e8feb86659fd93u | p->seed << 1)) >> 32;
}

/* --- merges that are listed --- */

static listed *slot_of(const nb_pairs *p, int32_t left, int32_t right, uint64_t hash) {
  for (size_t i = (size_t)hash & (p->capacity - 1);; i = (i + 1) & (p->capacity - 1)) {
    listed *slot = &p->slots[i];
    if (slot->left < 0 || (slot->left == left && slot->right == right)) return slot;
  }
}

static nibble_status index_list(const char *where, nb_pairs *p, const nb_merges *merges, nibble_error *err) {
  enum { AHEAD = 16 }; /* merges whose slots are asked for before they are needed */
  uint64_t hashes[AHEAD];
  if (merges->count > INT32_MAX) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: too many merges", where);
  p->capacity = 1;
  while (p->capacity < 2 * merges->count) p->capacity *= 2;
  p->slots = nb_alloc_table(p->capacity, sizeof *p->slots);
  if (!p->slots) return nb_fail_memory(err, p->capacity * sizeof *p->slots);
  memset(p->slots, 0xff, p->capacity * sizeof *p->slots); /* -1 */
  for (size_t i = 0; i < merges->count + AHEAD; i++) {
    if (i >= AHEAD) {
      const nb_merge *m = &merges->list[i - AHEAD];
      *slot_of(p, m->left, m->right, hashes[i % AHEAD]) = (listed){m->left, m->right, (int32_t)(i - AHEAD), m->whole};
    }
    if (i >= merges->count) continue;
    hashes[i % AHEAD] = hash_of(p, merges->list[i].left, merges->list[i].right);
    __builtin_prefetch(&p->slots[hashes[i % AHEAD] & (p->capacity - 1)], 1);
  }
  return NIBBLE_OK;
}

/* --- merges by a rule --- */

static nibble_status keep_rule(nb_pairs *p, const nb_merges *merges, nibble_error *err) {
  size_t count = (size_t)p->vocab->count, size = count * sizeof *p->order;
  for (int32_t id = 0; id < p->vocab->count; id++) {
    size_t length = nb_vocab_key(p->vocab, id).length;
    if (merges->order[id] >= 0 && length > p->longest) p->longest = length;
  }
  p->by_left_id = merges->by_left_id;
  p->order = malloc(size + 1);
  p->known = nb_alloc(KNOWN, sizeof *p->known);
  p->whole = malloc(p->longest + 1);
  if (!p->order || !p->known || !p->whole) return nb_fail_memory(err, size);
  memcpy(p->order, merges->order, size);
  return NIBBLE_OK;
}

static nb_joined join(const nb_pairs *p, int32_t left, int32_t right) {
  nb_joined none = {.whole = -1};
  if (p->order[left] < 0 || p->order[right] < 0) return none;
  nb_str a = nb_vocab_key(p->vocab, left), b = nb_vocab_key(p->vocab, right);
  if (a.length + b.length > p->longest) return none;
  memcpy(p->whole, a.data, a.length);
  memcpy(p->whole + a.length, b.data, b.length);
  int32_t whole = nb_vocab_id(p->vocab, p->whole, a.length + b.length);
  if (whole < 0 || p->order[whole] < 0) return none;
  uint32_t among_equal = p->by_left_id ? (uint32_t)left : (uint32_t)a.length;
  return (nb_joined){.rank = (uint64_t)p->order[whole] << 32 | among_equal, .whole = whole};
}

/* --- both --- */

nibble_status nb_pairs_make(const char *where, const nb_merges *merges, const nb_vocab *vocab, nb_pairs **out,
                            nibble_error *err) {
  nb_pairs *p = *out = calloc(1, sizeof *p);
  if (!p) return nb_fail_memory(err, sizeof *p);
  p->vocab = vocab;
  nibble_status status = NIBBLE_OK;
  if (getrandom(&p->seed, sizeof p->seed, 0) < 0)
    status = nb_fail_errno(err, "no random numbers");
  else if (merges->order)
    status = keep_rule(p, merges, err);
  else if (merges->count > 0)
    status = index_list(where, p, merges, err);
  if (status == NIBBLE_OK) return status;
  nb_pairs_free(p);
  *out = NULL;
  return status;
}

nb_joined nb_pairs_find(nb_pairs *p, int32_t left, int32_t right) {
  if (!p->order) {
    if (!p->slots) return (nb_joined){.whole = -1};
    const listed *slot = slot_of(p, left, right, hash_of(p, left, right));
    return (nb_joined){.rank = (uint64_t)slot->rank, .whole = slot->left < 0 ? -1 : slot->whole};
  }
  known *k = &p->known[hash_of(p, left, right) % KNOWN];
  if (k->left != left + 1 || k->right != right) *k = (known){left + 1, right, join(p, left, right)};
  return k->joined;
}

void nb_pairs_free(nb_pairs *p) {
  if (!p) return;
  free(p->slots);
  free(p->order);
  free(p->known);
  free(p->whole);
  free(p);
}
