/* The arithmetic of positions. */
#ifndef NB_RUNNER_POSITIONS_H
#define NB_RUNNER_POSITIONS_H

#include "model/config.h"

/* The inverse frequencies of the rotary embedding, float32 [head_dim / 2], with the config's scaling applied. */
void nb_rope_frequencies(const nb_rope *rope, int64_t head_dim, float *out);

/* The bucket of relative position key - query among `buckets`. */
int64_t nb_position_bucket(int64_t distance, bool causal, int64_t buckets, int64_t max_distance);

#endif
