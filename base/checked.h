/* Arithmetic on sizes that came from a file. Each function returns false on overflow and then leaves *out alone. */
#ifndef NB_BASE_CHECKED_H
#define NB_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool nb_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return false;
  *out = sum;
  return true;
}

static inline bool nb_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return false;
  *out = product;
  return true;
}

/* Product of ndim extents; also false if an extent is negative or the product exceeds INT64_MAX. */
static inline bool nb_shape_count(const int64_t *shape, int ndim, int64_t *out) {
  int64_t count = 1;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] < 0 || __builtin_mul_overflow(count, shape[i], &count)) return false;
  }
  *out = count;
  return true;
}

/* True if [offset, offset + length) lies inside [0, size). */
static inline bool nb_range_inside(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

static inline int64_t nb_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
static inline int64_t nb_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t nb_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* calloc for `count` items of `size` bytes; NULL on overflow too. Free with free(). */
void *nb_alloc(uint64_t count, uint64_t size);

/* Uninitialized memory on a 64-byte boundary, padded to whole cache lines; NULL on overflow. Free with free(). */
void *nb_alloc_aligned(uint64_t count, uint64_t size);

/* Uninitialized memory for what is large and read or written all over, such as a hash table: on huge pages, where the
 * system has them and there is use for them, since it takes longer to hand out small ones than to fill them. NULL on
 * overflow. Free with free(). */
void *nb_alloc_table(uint64_t count, uint64_t size);

#endif
