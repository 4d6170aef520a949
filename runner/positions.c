/* What attention needs to know of positions: angles of the rotary embedding, biases by distance. */
#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "runner/program.h"

/* Su et al. 2021, arXiv:2104.09864; float32 at each step, because that is what transformers does. */
static void rope_frequencies(const nb_rope *rope, int64_t head_dim, float *out) {
  for (int64_t i = 0; i < head_dim / 2; i++) {
    float exponent = (float)(2 * i) / (float)head_dim;
    out[i] = 1.0f / powf((float)rope->theta, exponent);
  }
  if (rope->type == NB_ROPE_LINEAR) {
    for (int64_t i = 0; i < head_dim / 2; i++) out[i] /= (float)rope->factor;
  }
  if (rope->type != NB_ROPE_LLAMA3) return;
  /* Long wavelengths are stretched by `factor`, short ones kept, those between interpolated (Llama 3.1). */
  double context = (double)rope->original_max_position_embeddings;
  double low = rope->low_freq_factor, high = rope->high_freq_factor;
  for (int64_t i = 0; i < head_dim / 2; i++) {
    float wavelength = (float)(2 * M_PI) / out[i];
    float stretched = out[i] / (float)rope->factor;
    if (wavelength > (float)(context / low)) {
      out[i] = stretched;
    } else if (wavelength >= (float)(context / high)) {
      float smooth = ((float)context / wavelength - (float)low) / (float)(high - low);
      out[i] = (1 - smooth) * stretched + smooth * out[i];
    }
  }
}

static nibble_status upload_rope(nb_frame *f, const nb_config *c, int64_t capacity, nibble_error *err) {
  nb_backend *b = f->backend;
  int64_t half = c->head_dim / 2;
  uint64_t row_bytes = (uint64_t)half * sizeof(float);
  float *values = nb_alloc((uint64_t)half * 3, sizeof(float));
  if (!values) return nb_fail_memory(err, row_bytes * 3);
  float *frequency = values, *cosines = values + half, *sines = cosines + half;
  rope_frequencies(&c->rope, c->head_dim, frequency);
  nibble_status status = b->buffer_create(b, (uint64_t)capacity * row_bytes, &f->cos, err);
  if (status == NIBBLE_OK) status = b->buffer_create(b, (uint64_t)capacity * row_bytes, &f->sin, err);
  for (int64_t p = 0; status == NIBBLE_OK && p < capacity; p++) {
    for (int64_t i = 0; i < half; i++) {
      float angle = (float)p * frequency[i];
      cosines[i] = cosf(angle);
      sines[i] = sinf(angle);
    }
    status = b->upload(b, f->cos, (uint64_t)p * row_bytes, cosines, row_bytes, err);
    if (status == NIBBLE_OK) status = b->upload(b, f->sin, (uint64_t)p * row_bytes, sines, row_bytes, err);
  }
  free(values);
  return status;
}

/* T5's buckets (Raffel et al. 2019, arXiv:1910.10683): half of them for one distance each, the rest ever wider up to
 * max_distance; both directions have half of all where later tokens are seen. `distance` is key - query. */
static int64_t position_bucket(int64_t distance, bool causal, int64_t buckets, int64_t max_distance) {
  int64_t first = 0;
  if (!causal) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    if (distance < 0) distance = -distance;
  } else {
    distance = distance < 0 ? -distance : 0;
  }
  int64_t exact = buckets / 2;
  if (distance < exact) return first + distance;
  /* float32 where transformers' tensors are, double where Python's numbers are. */
  float reach = (float)log((double)max_distance / (double)exact);
  float share = logf((float)distance / (float)exact) / reach * (float)(buckets - exact);
  return first + nb_min_i64(exact + (int64_t)share, buckets - 1);
}

static nibble_status upload_bias(nb_frame *f, const nb_config *c, const nb_model_stack *stack, int64_t capacity,
                                 nibble_error *err) {
  nb_backend *b = f->backend;
  int64_t heads = c->num_attention_heads, width = 2 * capacity - 1;
  uint64_t bytes = (uint64_t)(heads * width) * sizeof(float);
  float *values = nb_alloc((uint64_t)(heads * width), sizeof *values);
  if (!values) return nb_fail_memory(err, bytes);
  for (int64_t at = 0; at < width; at++) {
    int64_t bucket = position_bucket(at - (capacity - 1), stack->family->causal, c->relative_attention_num_buckets,
                                     c->relative_attention_max_distance);
    for (int64_t h = 0; h < heads; h++) values[h * width + at] = stack->position_bias[bucket * heads + h];
  }
  nibble_status status = b->buffer_create(b, bytes, &f->bias, err);
  if (status == NIBBLE_OK) status = b->upload(b, f->bias, 0, values, bytes, err);
  free(values);
  return status;
}

nibble_status nb_frame_positions(nb_frame *f, const nb_config *c, const nb_model_stack *stack, int64_t capacity,
                                 nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  if (c->family->rotary) status = upload_rope(f, c, capacity, err);
  if (status == NIBBLE_OK && stack->position_bias) status = upload_bias(f, c, stack, capacity, err);
  return status;
}
