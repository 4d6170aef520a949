#include "runner/decoding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "convert/tokenizer_open.h"

nibble_status nb_decoding_open(nb_decoding *d, const char *model, const nb_model_options *options, nibble_error *err) {
  d->name = model;
  nibble_status status = nb_model_load(model, options, &d->model, err);
  if (status == NIBBLE_OK) status = nb_model_need_decoder(&d->model, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_of(&d->model.checkpoint, &d->tokenizer, err);
  if (status == NIBBLE_OK) status = nb_stop_tokens_read(&d->model.checkpoint, &d->stops, err);
  return status;
}

void nb_decoding_close(nb_decoding *d) {
  nb_sampler_free(&d->sampler);
  nb_session_free(d->session);
  nb_tokenizer_close(d->tokenizer);
  nb_ids_free(&d->ids);
  free(d->logits);
  nb_stop_tokens_free(&d->stops);
  nb_model_free(&d->model);
}

nibble_status nb_decoding_reserve(nb_decoding *d, int64_t capacity, int64_t step, const nb_sampling *how,
                                  nibble_error *err) {
  int64_t vocab = d->model.checkpoint.config.vocab_size;
  nb_session_options room = {.capacity = capacity, .step_tokens = step};
  d->step_tokens = step;
  nibble_status status = nb_session_create(&d->model, &room, &d->session, err);
  if (status != NIBBLE_OK) return status;
  if (!(d->logits = nb_alloc((uint64_t)vocab, sizeof *d->logits)))
    return nb_fail_memory(err, (uint64_t)vocab * sizeof *d->logits);
  return nb_sampler_init(&d->sampler, how, vocab, err);
}

/* Runs tokens through the model and leaves the logits after the last of them in d->logits. */
static nibble_status feed(nb_decoding *d, const int32_t *ids, int64_t count, nibble_error *err) {
  int64_t step = 0;
  nb_ids_append(&d->ids, ids, (size_t)count);
  if (d->ids.failed) return nb_fail_memory(err, (uint64_t)count * sizeof *ids);
  for (int64_t at = 0; at < count; at += step) {
    step = nb_min_i64(d->step_tokens, count - at);
    nibble_status status = nb_session_step(d->session, ids + at, step, err);
    if (status != NIBBLE_OK) return status;
  }
  nibble_status status = nb_session_logits(d->session, &(int32_t){(int32_t)(step - 1)}, 1, d->logits, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < d->model.checkpoint.config.vocab_size; i++) {
    if (isfinite(d->logits[i])) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the model's output is not finite after %lld tokens", d->name,
                   (long long)nb_session_length(d->session));
  }
  return status;
}

/* Forgets what the session holds from where it differs from ids on, and at least the last: its logits are needed. */
static int64_t keep_common(nb_decoding *d, const int32_t *ids, int64_t count) {
  int64_t common = 0, held = nb_min_i64((int64_t)d->ids.length, nb_session_length(d->session));
  while (common < nb_min_i64(held, count - 1) && d->ids.data[common] == ids[common]) common++;
  nb_session_truncate(d->session, common);
  d->ids.length = (size_t)common;
  return common;
}

static void hand_out(const nb_decoding *d, const nb_buf *text, size_t from) {
  if (d->text && text->length > from) d->text(d->ctx, text->data + from, text->length - from);
}

static nibble_status write(nb_decoding *d, int64_t most, nb_token_stream *stream, nb_buf *text, nibble_error *err) {
  for (nibble_status status;;) {
    int32_t id = nb_sampler_next(&d->sampler, d->logits);
    d->stopped_at_eos = !d->ignore_eos && nb_stop_tokens_have(&d->stops, id);
    if (d->stopped_at_eos) return NIBBLE_OK;
    size_t from = text->length;
    if ((status = nb_token_stream_push(stream, id, text, err)) != NIBBLE_OK) return status;
    hand_out(d, text, from);
    if (++d->new_tokens == most) return NIBBLE_OK;
    if ((status = feed(d, &id, 1, err)) != NIBBLE_OK) return status;
  }
}

nibble_status nb_decoding_run(nb_decoding *d, const int32_t *ids, int64_t count, int64_t most, nb_buf *text,
                              nibble_error *err) {
  nb_token_stream stream = {.tokenizer = d->tokenizer, .flags = NB_SKIP_SPECIAL};
  double start = nb_seconds();
  d->new_tokens = 0;
  d->stopped_at_eos = false;
  int64_t common = keep_common(d, ids, count);
  d->prompt_tokens = count - common;
  nibble_status status = feed(d, ids + common, d->prompt_tokens, err);
  double prompt_end = nb_seconds();
  d->prompt_seconds = prompt_end - start;
  if (status == NIBBLE_OK) status = write(d, most, &stream, text, err);
  d->generate_seconds = nb_seconds() - prompt_end;
  size_t from = text->length;
  if (status == NIBBLE_OK && (status = nb_token_stream_end(&stream, text, err)) == NIBBLE_OK) hand_out(d, text, from);
  if (status == NIBBLE_OK && text->failed) status = nb_fail_memory(err, text->length);
  nb_ids_free(&stream.window);
  return status;
}
