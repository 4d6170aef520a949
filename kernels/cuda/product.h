/* The products of the CUDA backend: matrices as they lie on the device, and the launches that multiply them. Which one
 * is used depends on the shape: product.cu for few rows of activations on tiled weights, gemm.cu for many, plain.cu for
 * whatever is not tiled. All of them add in a fixed order, so results repeat. */
#ifndef NB_KERNELS_CUDA_PRODUCT_H
#define NB_KERNELS_CUDA_PRODUCT_H

#include "kernels/cuda/device.h"
#include "kernels/cuda/tiles.h"

/* A weight on the device; all pointers are the device's. */
typedef struct nb_device_matrix {
  nb_tiles tiles; /* kind NONE: `packed` is a copy of the source, with its buffers on the device */
  nb_packed packed;
  int gptq_bits; /* of `packed`; 0: another format */
  const uint32_t *codes;
  const void *scales;
  uint16_t values[16];     /* quant_map in float16: kernels have it without a load (nf4, fp4) */
  const float *quant_map;  /* [16] */
  const float *nested_map; /* [256], with double quantization */
  const float *nested_absmax;
  float nested_offset;
  const int32_t *order; /* [col_tiles * 64], or NULL: columns lie in order */
} nb_device_matrix;

typedef enum nb_x_dtype { NB_X_F32, NB_X_F16, NB_X_BF16 } nb_x_dtype;

/* Rows of activations on the device. */
typedef struct nb_device_rows {
  const void *data; /* [count, cols of the weight] */
  nb_x_dtype dtype;
  int64_t stride; /* elements from row to row */
  int64_t count;
} nb_device_rows;

/* One of the layers of a launch: y [n, rows] = x W^T + bias, plus y if `accumulate`. */
typedef struct nb_device_layer {
  nb_device_matrix w;
  const float *bias; /* NULL: none */
  float *y;
  bool accumulate;
} nb_device_layer;

/* What the next launch will read first, so that memory need not wait for what runs between the two: of each of its
 * blocks the beginning of the run. */
typedef struct nb_product_ahead {
  nb_product_plan plan; /* blocks 0: not known */
  int count, first_set[NB_PRODUCT_FUSED + 1];
  const char *codes[NB_PRODUCT_FUSED], *scales[NB_PRODUCT_FUSED];
  int64_t tiles[NB_PRODUCT_FUSED]; /* of each layer */
  int64_t col_tiles;
  int tile_bytes, scale_bytes; /* of a tile; scales 0: they lie otherwise */
} nb_product_ahead;

typedef struct nb_product_args {
  nb_device_layer layer[NB_PRODUCT_FUSED];
  int first_set[NB_PRODUCT_FUSED + 1]; /* sets of row tiles before each layer; a set is what one block takes */
  int count;
  const void *x; /* [n, cols]; a tall product's: float16 [columns, col_tiles * 64] in the order of the tiles */
  nb_x_dtype x_dtype;
  int64_t ldx; /* elements */
  int n;
  int columns;    /* that the tensor cores see: n, or twice as many with two parts */
  bool two_parts; /* x is split into two float16, the second what the first left */
  bool is_plain;  /* whole tiles in order, aligned */
  float rescale;  /* of the sums: what the activations were multiplied with, undone */
  nb_product_plan plan;
  nb_product_ahead ahead;
  float *partial;    /* [blocks, 2, set]: of a block's first set and of its last, where others have a part */
  unsigned *arrived; /* [sets], zero between launches */
} nb_product_args;

/* Where the kernels leave what does not fit on chip, and what the device has. */
typedef struct nb_workspace {
  float *partial;
  int64_t partial_floats;
  unsigned *arrived;
  int64_t arrived_count;
  uint16_t *narrow; /* activations as nb_product_small's tall products take them: [columns, col_tiles * 64] */
  int64_t narrow_elements;
  int processors;
  int64_t shared_limit;         /* bytes of shared memory that a block can have */
  const nb_device_layer *ahead; /* of the product that is expected to follow, or NULL */
  int ahead_count;
  cudaStream_t stream;
} nb_workspace;

/* Elements of `narrow` that n rows need at the most on a weight of so many column tiles. */
static inline int64_t nb_product_narrow_elements(int64_t n, int64_t col_tiles) {
  return (n <= NB_PRODUCT_TWO_PARTS ? 2 * n : n) * col_tiles * NB_TILE_COLS;
}

/* Up to 64 rows of x on up to NB_PRODUCT_FUSED tiled layers of one kind, one number and one order of columns. False,
 * with nothing done, if the workspace is too small. */
bool nb_product_small(const nb_workspace *ws, const nb_device_layer *layers, int count, nb_device_rows x);

/* Any n, any format; float32 activations. Slow. */
void nb_product_plain(const nb_workspace *ws, const nb_device_layer *layer, const float *x, int64_t ldx, int64_t n);

/* out [n, cols] float32 = rows ids[i] of a matrix of any kind; ids on the device. */
void nb_rows_of(const nb_workspace *ws, const nb_device_matrix *w, const int32_t *ids, int64_t n, float *out);

/* How activations become float16: times NB_X_SCALE, so that there is room up to 524000 and still steps of 2.4e-7 below
 * 5e-4; larger ones are cut off there. What a first part leaves is the second, times NB_X_REST. float16 activations
 * are taken as they are. */
#define NB_X_SCALE 0.125f
#define NB_X_REST 256.0f

/* x to float16, times NB_X_SCALE unless it is float16, in the order in which w is tiled: out [n, col_tiles * 64],
 * padded with zeros, 16-byte aligned. With `two_parts` two rows for each of x, the second what the first leaves. */
void nb_narrow(cudaStream_t stream, const nb_device_matrix *w, nb_device_rows x, bool two_parts, uint16_t *out);

#endif
