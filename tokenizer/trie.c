#include "tokenizer/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* --- sorting the tokens --- */

/* A token, and its first eight bytes as a number that sorts as they do. */
typedef struct key {
  uint64_t head;
  nb_str text;
  int32_t id;
} key;

static uint64_t head_of(nb_str text) {
  uint64_t head = 0;
  for (size_t i = 0; i < 8; i++) head = head << 8 | (i < text.length ? (unsigned char)text.data[i] : 0);
  return head;
}

static int by_bytes(const void *a, const void *b) {
  const key *x = a, *y = b;
  size_t n = x->text.length < y->text.length ? x->text.length : y->text.length;
  int order = memcmp(x->text.data, y->text.data, n);
  if (order) return order;
  if (x->text.length != y->text.length) return x->text.length > y->text.length ? 1 : -1;
  return (x->id > y->id) - (x->id < y->id);
}

/* What is moved while keys are sorted. */
typedef struct mark {
  uint64_t head;
  uint32_t key;
} mark;

/* Sorts the marks of n keys by their heads, a byte at a time from the last; marks has room for twice n. After an even
 * number of turns they stand where they stood. */
static void sort_marks(mark *marks, size_t n) {
  mark *from = marks, *to = marks + n;
  for (unsigned shift = 0; shift < 64; shift += 8) {
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[(from[i].head >> shift & 255) + 1]++;
    for (unsigned byte = 1; byte < 257; byte++) at[byte] += at[byte - 1];
    for (size_t i = 0; i < n; i++) to[at[from[i].head >> shift & 255]++] = from[i];
    mark *swapped = from;
    from = to;
    to = swapped;
  }
}

/* Puts keys[0, n), sorted by their heads and then by what follows, at keys[n, 2 n). */
static bool sort_keys(key *keys, size_t n) {
  mark *marks = nb_alloc_table(n ? n : 1, 2 * sizeof *marks);
  if (!marks) return false;
  for (size_t i = 0; i < n; i++) marks[i] = (mark){keys[i].head, (uint32_t)i};
  sort_marks(marks, n);
  for (size_t i = 0; i < n; i++) keys[n + i] = keys[marks[i].key];
  free(marks);
  keys += n;
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && keys[end].head == keys[i].head; end++) {
    }
    if (end - i > 1) qsort(keys + i, end - i, sizeof *keys, by_bytes);
  }
  return true;
}

/* A byte of a key's text; of the first eight, without a look at the text. */
static unsigned char byte_at(const key *k, size_t at) {
  return (unsigned char)(at < 8 ? k->head >> (56 - 8 * at) & 0xff : (uint64_t)(unsigned char)k->text.data[at]);
}

/* Bytes that two keys have in common, as far as their heads tell. */
static size_t common_head(const key *a, const key *b) {
  size_t shorter = a->text.length < b->text.length ? a->text.length : b->text.length;
  uint64_t differs = a->head ^ b->head;
  size_t common = differs ? (size_t)__builtin_clzll(differs) / 8 : 8;
  return common < shorter ? common : shorter;
}

/* --- making it --- */

/* The tokens below a node: keys[begin, end), and the length of what they have in common. */
typedef struct range {
  uint32_t begin, end;
  size_t depth;
} range;

typedef struct maker {
  nb_trie *trie;
  const key *keys;
  range *ranges; /* of the nodes */
} maker;

/* Adds the node of keys[begin, end), which have `depth` bytes in common and one more. */
static void add_node(maker *m, uint32_t begin, uint32_t end, size_t depth) {
  const nb_str first = m->keys[begin].text, last = m->keys[end - 1].text;
  size_t common = common_head(&m->keys[begin], &m->keys[end - 1]);
  if (common < depth + 1) common = depth + 1;
  while (common < first.length && common < last.length && first.data[common] == last.data[common]) common++;
  size_t node = m->trie->count++;
  m->trie->labels[node] = byte_at(&m->keys[begin], depth);
  m->trie->nodes[node] =
      (nb_trie_node){.edge = first.data + depth + 1, .edge_length = (uint32_t)(common - depth - 1), .id = -1};
  m->ranges[node] = (range){begin, end, common};
}

/* Adds a node's children, and its token. */
static void branch(maker *m, size_t node) {
  range r = m->ranges[node];
  m->trie->nodes[node].first = (uint32_t)m->trie->count;
  while (r.begin < r.end && m->keys[r.begin].text.length == r.depth) m->trie->nodes[node].id = m->keys[r.begin++].id;
  while (r.begin < r.end) {
    uint32_t end = r.begin + 1;
    unsigned char byte = byte_at(&m->keys[r.begin], r.depth);
    while (end < r.end && byte_at(&m->keys[end], r.depth) == byte) end++;
    add_node(m, r.begin, end, r.depth);
    r.begin = end;
  }
}

nibble_status nb_trie_make(nb_trie *trie, const nb_vocab *vocab, nibble_error *err) {
  *trie = (nb_trie){0};
  size_t room = (size_t)vocab->count + 1, n = 0;
  key *keys = nb_alloc(room, 2 * sizeof *keys);
  maker m = {.trie = trie, .ranges = nb_alloc(room, 2 * sizeof *m.ranges)};
  trie->nodes = nb_alloc(2 * room, sizeof *trie->nodes);
  trie->labels = nb_alloc(2 * room, sizeof *trie->labels);
  nibble_status status = NIBBLE_OK;
  if (!keys || !m.ranges || !trie->nodes || !trie->labels) {
    status = nb_fail_memory(err, 2 * room * sizeof *keys);
    goto done;
  }
  for (int32_t id = 0; id < vocab->count; id++) {
    nb_str text = nb_vocab_text(vocab, id);
    if (text.data && text.length > 0) keys[n++] = (key){head_of(text), text, id};
  }
  if (!sort_keys(keys, n)) {
    status = nb_fail_memory(err, n * sizeof *keys);
    goto done;
  }
  m.keys = keys + n;
  trie->nodes[NB_TRIE_ROOT] = (nb_trie_node){.id = -1};
  m.ranges[NB_TRIE_ROOT] = (range){0, (uint32_t)n, 0};
  trie->count = 1;
  for (size_t node = 0; node < trie->count; node++) branch(&m, node);
  trie->nodes[trie->count].first = (uint32_t)trie->count;
  uint32_t child = 1, end = trie->count > 1 ? trie->nodes[1].first : 1;
  for (unsigned byte = 0; byte < 257; byte++) {
    while (child < end && trie->labels[child] < byte) child++;
    trie->start[byte] = child;
  }
done:
  free(keys);
  free(m.ranges);
  return status;
}

void nb_trie_free(nb_trie *trie) {
  free(trie->nodes);
  free(trie->labels);
  *trie = (nb_trie){0};
}

/* --- walking --- */

/* The child of a node whose label is `byte`; NB_TRIE_ROOT, which is nobody's child, if there is none. */
static uint32_t find_child(const nb_trie *trie, uint32_t node, unsigned char byte, size_t *steps) {
  if (node == NB_TRIE_ROOT) return trie->start[byte] < trie->start[byte + 1] ? trie->start[byte] : NB_TRIE_ROOT;
  uint32_t low = trie->nodes[node].first, end = trie->nodes[node + 1].first, high = end;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    ++*steps;
    if (trie->labels[middle] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low < end && trie->labels[low] == byte ? low : NB_TRIE_ROOT;
}

/* Goes along the edge that the walk stands on, as far as the text does; false if the two differ. */
static bool follow(const nb_trie *trie, nb_trie_walk *w, const char *text, size_t n, size_t *used) {
  const nb_trie_node *node = &trie->nodes[w->node];
  size_t length = w->edge < n ? w->edge : n;
  const char *edge = node->edge + (node->edge_length - w->edge);
  w->steps += length;
  if (memcmp(edge, text, length) != 0) return false;
  w->edge -= (uint32_t)length;
  *used = length;
  return true;
}

/* Takes the way to the child whose label is `byte`. */
static bool descend(const nb_trie *trie, nb_trie_walk *w, unsigned char byte) {
  uint32_t child = find_child(trie, w->node, byte, &w->steps);
  w->steps++;
  if (child == NB_TRIE_ROOT) return false;
  w->node = child;
  w->edge = trie->nodes[child].edge_length;
  return true;
}

int32_t nb_trie_next(const nb_trie *trie, nb_trie_walk *w) {
  size_t used;
  for (;;) {
    if (w->edge > 0) {
      if (!follow(trie, w, w->text + w->at, w->n - w->at, &used)) return -1;
      w->at += used;
      if (w->edge > 0) return -1;
    } else {
      if (w->at == w->n || !descend(trie, w, (unsigned char)w->text[w->at])) return -1;
      w->at++;
      if (w->edge > 0) continue;
    }
    if (trie->nodes[w->node].id >= 0) return trie->nodes[w->node].id;
  }
}

bool nb_trie_begin(const nb_trie *trie, nb_str prefix, nb_trie_walk *w) {
  *w = (nb_trie_walk){.node = NB_TRIE_ROOT};
  for (size_t at = 0, used; at < prefix.length; at += used) {
    used = 1;
    if (w->edge > 0 ? !follow(trie, w, prefix.data + at, prefix.length - at, &used)
                    : !descend(trie, w, (unsigned char)prefix.data[at]))
      return false;
  }
  return true;
}
