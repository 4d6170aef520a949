/* GGUF's blocks hold their own scales; here they are looked at as they lie. Where a block's scales are wrong, every
 * value of it is, so the finding names the block. */
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/stop.h"
#include "convert/gguf.h"
#include "kernels/formats.h"
#include "validate/scan.h"
#include "validate/structure.h"

enum { BAND = 1 << 14, MAX_BANDS = 1 << 9 }; /* blocks */

typedef struct block_scan {
  nb_tally not_finite, unscaled, constant;
  bool all_equal;
} block_scan;

typedef struct block_job {
  const uint8_t *data;
  const nb_block_layout *layout;
  int64_t base;
  block_scan band[MAX_BANDS];
} block_job;

static void tally(nb_tally *t, int64_t index) {
  if (t->count++ == 0) t->first = index;
}

static void tally_join(nb_tally *into, nb_tally more) {
  if (into->count == 0) into->first = more.first;
  into->count += more.count;
}

static uint16_t half_at(const uint8_t *block, int at) {
  uint16_t bits;
  if (at < 0) return 0;
  memcpy(&bits, block + at, sizeof bits);
  return bits;
}

static bool is_finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

static bool all_same(const uint8_t *p, int n) {
  uint8_t differ = 0;
  for (int i = 1; i < n; i++) differ |= p[i] ^ p[0];
  return differ == 0;
}

static void scan_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  block_job *job = ctx;
  const nb_block_layout *l = job->layout;
  block_scan s = {{0, -1}, {0, -1}, {0, -1}, true};
  for (int64_t i = job->base + begin; i < job->base + end; i++) {
    const uint8_t *block = job->data + i * l->bytes;
    uint16_t scale = half_at(block, l->scale), minimum = half_at(block, l->minimum);
    bool same = all_same(block + l->codes, l->code_bytes), zero = (scale & 0x7fff) == 0;
    if (!is_finite(scale) || !is_finite(minimum)) tally(&s.not_finite, i);
    if (zero && !same) tally(&s.unscaled, i);
    if (!zero && same) tally(&s.constant, i);
    s.all_equal = s.all_equal && same && block[l->codes] == job->data[l->codes];
  }
  job->band[begin / BAND] = s;
}

static block_scan scan_blocks(const uint8_t *data, int64_t blocks, const nb_block_layout *layout) {
  block_job job;
  block_scan all = {{0, -1}, {0, -1}, {0, -1}, true};
  job.data = data;
  job.layout = layout;
  for (job.base = 0; job.base < blocks && !nb_stop_asked(); job.base += (int64_t)MAX_BANDS * BAND) {
    int64_t n = nb_min_i64((int64_t)MAX_BANDS * BAND, blocks - job.base);
    nb_parallel(n, BAND, scan_band, &job);
    for (int64_t b = 0; b < nb_ceil_div(n, BAND); b++) {
      tally_join(&all.not_finite, job.band[b].not_finite);
      tally_join(&all.unscaled, job.band[b].unscaled);
      tally_join(&all.constant, job.band[b].constant);
      all.all_equal &= job.band[b].all_equal;
    }
  }
  return all;
}

/* Whose blocks something is found of. */
typedef struct block_look {
  nb_findings *findings;
  const char *tensor;
  int64_t blocks;
} block_look;

static void find(const block_look *of, nibble_severity severity, const char *check, const char *cause,
                 const nb_tally *bad, const char *text) {
  if (bad->count)
    nb_find(of->findings, severity, check, cause, (nb_place){of->tensor, bad->first, -1, bad->count},
            "%lld of %lld blocks %s", (long long)bad->count, (long long)of->blocks, text);
}

/* More constant blocks than one in so many are a fault. */
enum { MOST_CONSTANT = 50 };

bool nb_structure_blocks(const nb_checkpoint *c, const nb_tensor *t, nb_findings *findings) {
  const nb_block_layout *layout = &nb_format_info(t->format)->block;
  if (layout->weights < 1 || t->count < layout->weights) return false;
  int64_t blocks = t->count / layout->weights;
  block_scan s = scan_blocks(nb_tensor_raw(c, t), blocks, layout);
  const block_look of = {findings, t->name, blocks};
  find(&of, NIBBLE_FAULT, "scale", "scale-not-finite", &s.not_finite,
       "have a scale or minimum that is NaN or infinite");
  bool dead = s.unscaled.count == blocks;
  find(&of, NIBBLE_FAULT, "scale", dead ? "scales-all-zero" : "scale-lost", &s.unscaled,
       "have a scale of zero, but codes that are not all the same");
  if (s.all_equal && blocks > 1 && s.constant.count) {
    nb_find(findings, NIBBLE_FAULT, "codes", "codes-all-equal", nb_place_tensor(t->name), "every code is the same");
  } else {
    bool fault = s.constant.count > 1 && s.constant.count > blocks / MOST_CONSTANT;
    find(&of, fault ? NIBBLE_FAULT : NIBBLE_NOTE, "codes", "constant-blocks", &s.constant, "are of one code");
  }
  return s.not_finite.count > 0;
}

/* ---- vocabulary ---- */

static void check_id(const nb_checkpoint *c, const char *key, nb_findings *findings) {
  int64_t id = -1;
  nibble_error ignored; /* of another type: the reader of the tokenizer says so */
  if (nb_gguf_int(c->gguf, key, 0, INT64_MAX, &id, &ignored) != NIBBLE_OK || id < c->config.vocab_size) return;
  nb_find(findings, NIBBLE_FAULT, "vocabulary", "special-id-out-of-range", nb_place_tensor(""),
          "%s is %lld, the embedding has %lld rows", key, (long long)id, (long long)c->config.vocab_size);
}

void nb_structure_gguf_vocab(const nb_checkpoint *c, nb_findings *findings) {
  static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"};
  const nb_gguf_entry *tokens = nb_gguf_find(c->gguf, "tokenizer.ggml.tokens");
  if (!c->config.family) return;
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) check_id(c, ids[i], findings);
  if (tokens && tokens->is_array && tokens->count > (uint64_t)c->config.vocab_size)
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "tokenizer-larger-than-embedding", nb_place_tensor(""),
            "tokenizer.ggml.tokens has %lld tokens, the embedding %lld rows", (long long)tokens->count,
            (long long)c->config.vocab_size);
  static const char *const lists[] = {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"};
  for (size_t i = 0; tokens && i < sizeof lists / sizeof *lists; i++) {
    const nb_gguf_entry *list = nb_gguf_find(c->gguf, lists[i]);
    if (!list || !list->is_array || list->count == tokens->count) continue;
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "vocabulary-lists-differ", nb_place_tensor(""),
            "%s has %lld items, tokenizer.ggml.tokens %lld", lists[i], (long long)list->count,
            (long long)tokens->count);
  }
}
