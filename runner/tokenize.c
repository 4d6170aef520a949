/* nibble.h's functions for text and token ids. */
#include "base/context.h"
#include "convert/tokenizer_open.h"
#include "runner/text.h"
#include "tokenizer/encoding.h"

nibble_status nibble_tokenizer_open(const char *model, nibble_tokenizer **out, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "out", out, err);
  if (status != NIBBLE_OK) return status;
  *out = NULL;
  status = nb_call_require(__func__, "model", model, err);
  return status == NIBBLE_OK ? nb_tokenizer_open(model, out, err) : status;
}

void nibble_tokenizer_close(nibble_tokenizer *tokenizer) { nb_tokenizer_close(tokenizer); }

nibble_status nibble_tokenizer_encode(nibble_tokenizer *tokenizer, const char *text, size_t n, bool add_special,
                                      nibble_ids *out, nibble_error *err) {
  nb_ids ids = {0};
  nibble_status status = nb_call_require(__func__, "out", out, err);
  if (status != NIBBLE_OK) return status;
  *out = (nibble_ids){0};
  status = nb_call_require(__func__, "tokenizer", tokenizer, err);
  if (status == NIBBLE_OK && n > 0) status = nb_call_require(__func__, "text", text, err);
  if (status != NIBBLE_OK) return status;
  status = nb_tokenizer_encode(tokenizer, n ? text : "", n, add_special ? NB_ADD_SPECIAL : 0, &ids, err);
  if (status != NIBBLE_OK) nb_ids_free(&ids);
  *out = (nibble_ids){ids.data, ids.length};
  return status;
}

static nibble_status check_options(const nibble_encode_options *o, nibble_error *err) {
  if (o->offsets < NIBBLE_OFFSETS_CHARACTERS || o->offsets > NIBBLE_OFFSETS_BYTES)
    return nb_fail(err, NIBBLE_USAGE, "nibble_tokenizer_encode_batch: offsets is %d", (int)o->offsets);
  if (o->truncation < NIBBLE_TRUNCATE_NONE || o->truncation > NIBBLE_TRUNCATE_ONLY_SECOND)
    return nb_fail(err, NIBBLE_USAGE, "nibble_tokenizer_encode_batch: truncation is %d", (int)o->truncation);
  if (o->padding < NIBBLE_PAD_NONE || o->padding > NIBBLE_PAD_FIXED)
    return nb_fail(err, NIBBLE_USAGE, "nibble_tokenizer_encode_batch: padding is %d", (int)o->padding);
  return NIBBLE_OK;
}

nibble_status nibble_tokenizer_encode_batch(nibble_tokenizer *tokenizer, const nibble_text_pair *texts, size_t count,
                                            const nibble_encode_options *options, nibble_encodings *out,
                                            nibble_error *err) {
  nibble_encode_options o = {0};
  static const nb_call_rules rules = {
      "nibble_tokenizer_encode_batch", NB_SIZES(nibble_encode_options, pad_type_id), {0}, {{0}}};
  nb_call call = {.options = &o};
  if (out) *out = (nibble_encodings){0};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "tokenizer", tokenizer, err);
  if (status == NIBBLE_OK && count > 0) status = nb_call_require(__func__, "texts", texts, err);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) {
    if (texts[i].text_length > 0) status = nb_call_require(__func__, "text", texts[i].text, err);
  }
  if (status == NIBBLE_OK) status = check_options(&o, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_encode_batch(tokenizer, texts, count, &o, out, err);
  return nb_call_end(&call, status);
}

nibble_status nibble_tokenizer_limits(const nibble_tokenizer *tokenizer, nibble_encode_options *out,
                                      nibble_error *err) {
  static const nb_sizes sizes = NB_SIZES(nibble_encode_options, pad_type_id);
  nibble_status status = nb_result_clear(__func__, &sizes, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "tokenizer", tokenizer, err);
  if (status == NIBBLE_OK) nb_result_fill(out, nb_tokenizer_limits(tokenizer), sizeof *out);
  return status;
}

static nibble_status clear_text(const char *function, nibble_text *out, nibble_error *err) {
  nibble_status status = nb_call_require(function, "out", out, err);
  if (status == NIBBLE_OK) *out = (nibble_text){0};
  return status;
}

/* Hands a buffer over as a text, or frees it after a failure. */
static nibble_status hand_over(nb_buf *buf, nibble_status status, nibble_text *out, nibble_error *err) {
  nb_buf_append(buf, "", 0); /* so that an empty text is a string too */
  if (status == NIBBLE_OK && buf->failed) status = nb_fail_memory(err, buf->length);
  if (status != NIBBLE_OK) nb_buf_free(buf);
  *out = (nibble_text){buf->data, buf->length};
  return status;
}

nibble_status nibble_tokenizer_decode(const nibble_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                      bool skip_special, nibble_text *out, nibble_error *err) {
  nb_buf buf = {0};
  nibble_status status = clear_text(__func__, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "tokenizer", tokenizer, err);
  if (status == NIBBLE_OK && count > 0) status = nb_call_require(__func__, "ids", ids, err);
  if (status != NIBBLE_OK) return status;
  status = nb_tokenizer_decode(tokenizer, ids, count, skip_special ? NB_SKIP_SPECIAL : 0, &buf, err);
  return hand_over(&buf, status, out, err);
}

nibble_status nibble_text_read(const char *path, nibble_text *out, nibble_error *err) {
  nb_buf buf = {0};
  nibble_status status = clear_text(__func__, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "path", path, err);
  if (status != NIBBLE_OK) return status;
  return hand_over(&buf, nb_text_read(path, &buf, err), out, err);
}
