#include "tokenizer/readers/spm_model.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/checked.h"
#include "base/utf8.h"
#include "sentencepiece.pb-c.h"

/* A piece of two bytes in the file takes eighty in memory; what is larger than this bound holds no model. */
enum { MEMORY_BYTE = 32, MEMORY = 1 << 20, MEMORY_MAX = 512 << 20 };

/* protobuf-c takes memory for each piece twice; it comes from blocks, which are given back together. */
enum { BLOCK = 1 << 20 };

typedef struct block {
  struct block *before;
} block;

typedef struct arena {
  size_t left; /* of the bound */
  block *last;
  char *at; /* what is free of the last block */
  size_t room;
} arena;

static void *take_memory(void *ctx, size_t size) {
  arena *a = ctx;
  if (size > a->left) return NULL;
  size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
  if (size > a->room) {
    size_t whole = sizeof(max_align_t) + (size > BLOCK ? size : BLOCK);
    block *fresh = malloc(whole);
    if (!fresh) return NULL;
    *fresh = (block){a->last};
    a->last = fresh;
    a->at = (char *)fresh + sizeof(max_align_t);
    a->room = whole - sizeof(max_align_t);
  }
  char *taken = a->at;
  a->at += size;
  a->room -= size;
  a->left -= size < a->left ? size : a->left;
  return taken;
}

static void keep_memory(void *ctx, void *memory) {
  (void)ctx;
  (void)memory;
}

static void free_blocks(arena *a) {
  while (a->last) {
    block *before = a->last->before;
    free(a->last);
    a->last = before;
  }
}

/* ---- pieces ---- */

static nb_str text_of(const Nb__Spm__Piece *piece) {
  nb_str text = {(const char *)piece->piece.data, piece->has_piece ? piece->piece.len : 0};
  return text;
}

static nibble_status check_piece(const char *where, size_t i, const Nb__Spm__Piece *piece, nibble_error *err) {
  nb_str text = text_of(piece);
  if (text.length == 0) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: piece %zu is empty", where, i);
  if (text.length > NB_TOKEN_MAX)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: piece %zu has more than %d bytes", where, i, NB_TOKEN_MAX);
  if (nb_utf8_valid(text.data, text.length) < text.length)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: piece %zu is not UTF-8", where, i);
  if (!isfinite(piece->score))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the score of piece %zu is no number", where, i);
  return NIBBLE_OK;
}

static nibble_status read_pieces(const char *where, const Nb__Spm__Model *model, nb_spm_model *out, nibble_error *err) {
  nb_vocab *vocab = &out->vocab;
  size_t count = model->n_pieces, bytes = 0;
  if (count == 0 || count > NB_MAX_ID)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it holds %zu pieces; 1 to %d are allowed", where, count, NB_MAX_ID);
  for (size_t i = 0; i < count; i++) {
    nibble_status status = check_piece(where, i, model->pieces[i], err);
    if (status != NIBBLE_OK) return status;
    bytes += text_of(model->pieces[i]).length + 1;
  }
  char *at = vocab->texts = malloc(bytes);
  vocab->scores = nb_alloc(count, sizeof *vocab->scores);
  vocab->types = nb_alloc(count, sizeof *vocab->types);
  if (!at || !vocab->scores || !vocab->types) return nb_fail_memory(err, bytes);
  for (size_t i = 0; i < count; i++) {
    nb_str text = text_of(model->pieces[i]);
    memcpy(at, text.data, text.length);
    at[text.length] = 0;
    nibble_status status = nb_vocab_add(vocab, where, (int32_t)i, (nb_str){at, text.length}, err);
    if (status != NIBBLE_OK) return status;
    vocab->scores[i] = (double)model->pieces[i]->score;
    vocab->types[i] = (uint8_t)model->pieces[i]->type;
    at += text.length + 1;
  }
  return nb_vocab_make_index(vocab, where, err);
}

/* ---- switches ---- */

/* The spelling of a special piece: the one that the file gives it, or the usual one. */
static nibble_status copy_name(const char *where, ProtobufCBinaryData name, const char *usual, char **out,
                               nibble_error *err) {
  const char *data = name.len > 0 ? (const char *)name.data : usual;
  size_t n = name.len > 0 ? name.len : strlen(usual);
  if (memchr(data, 0, n) || nb_utf8_valid(data, n) < n)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the name of a special piece is not text", where);
  *out = strndup(data, n);
  return *out ? NIBBLE_OK : nb_fail_memory(err, n);
}

static nibble_status read_trainer(const char *where, const Nb__Spm__TrainerSpec *trainer, nb_spm_model *out,
                                  nibble_error *err) {
  int kind = (int)trainer->model_type;
  if (kind < NB_SPM_UNIGRAM || kind > NB_SPM_CHAR)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model_type %d is none of SentencePiece's", where, kind);
  out->kind = (nb_spm_kind)kind;
  out->byte_fallback = trainer->byte_fallback;
  out->space_as_suffix = trainer->treat_whitespace_as_suffix;
  out->unk_id = trainer->unk_id;
  if (trainer->unk_id < 0 || trainer->unk_id >= out->vocab.count)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: unk_id %d is the id of no piece", where, trainer->unk_id);
  nibble_status status = copy_name(where, trainer->unk_piece, "<unk>", &out->unk, err);
  if (status == NIBBLE_OK && trainer->bos_id >= 0) status = copy_name(where, trainer->bos_piece, "<s>", &out->bos, err);
  if (status == NIBBLE_OK && trainer->eos_id >= 0)
    status = copy_name(where, trainer->eos_piece, "</s>", &out->eos, err);
  return status;
}

static nibble_status read_normalizer(const Nb__Spm__NormalizerSpec *normalizer, nb_spm_model *out, nibble_error *err) {
  out->add_dummy_prefix = normalizer->add_dummy_prefix;
  out->remove_extra_whitespaces = normalizer->remove_extra_whitespaces;
  out->escape_whitespaces = normalizer->escape_whitespaces;
  ProtobufCBinaryData map = normalizer->precompiled_charsmap;
  if (map.len == 0) return NIBBLE_OK;
  nb_buf text = {0};
  nb_base64_encode(map.data, map.len, &text);
  out->charsmap = text.data;
  return text.failed ? nb_fail_memory(err, map.len) : NIBBLE_OK;
}

nibble_status nb_spm_parse(const char *where, nb_str text, nb_spm_model *out, nibble_error *err) {
  static const Nb__Spm__TrainerSpec usual_trainer = NB__SPM__TRAINER_SPEC__INIT;
  static const Nb__Spm__NormalizerSpec usual_normalizer = NB__SPM__NORMALIZER_SPEC__INIT;
  *out = (nb_spm_model){0};
  uint64_t memory = (uint64_t)text.length * MEMORY_BYTE + MEMORY;
  arena arena = {.left = memory < MEMORY_MAX ? (size_t)memory : MEMORY_MAX};
  ProtobufCAllocator allocator = {take_memory, keep_memory, &arena};
  Nb__Spm__Model *model = nb__spm__model__unpack(&allocator, text.length, (const uint8_t *)text.data);
  nibble_status status = NIBBLE_OK;
  if (!model) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: it is no model of SentencePiece, or a damaged one", where);
    goto done;
  }
  status = read_pieces(where, model, out, err);
  if (status == NIBBLE_OK)
    status = read_trainer(where, model->trainer_spec ? model->trainer_spec : &usual_trainer, out, err);
  if (status == NIBBLE_OK)
    status = read_normalizer(model->normalizer_spec ? model->normalizer_spec : &usual_normalizer, out, err);
done:
  free_blocks(&arena);
  return status;
}

void nb_spm_free(nb_spm_model *m) {
  nb_vocab_free(&m->vocab);
  free(m->unk);
  free(m->bos);
  free(m->eos);
  free(m->charsmap);
  *m = (nb_spm_model){0};
}
