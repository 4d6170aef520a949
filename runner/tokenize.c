/* nibble.h's functions for text and token ids. */
#include "base/context.h"
#include "convert/tokenizer_open.h"
#include "runner/text.h"

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
