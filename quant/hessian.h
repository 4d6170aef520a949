/* What GPTQ knows about a linear layer's inputs: H = sum of x x^T over all calibration tokens, gathered batch by batch,
 * and the factor of its inverse that the solver walks along. Layers that share an input share both.
 *
 *   nb_hessian_create(context, in_features, &h, err); nb_hessian_add(&h, x, tokens, ldx); ...
 *   nb_hessian_factorize(&h, &order, &factor, err); nb_gptq_solve(..., &factor, ...)
 *
 * Frantar et al. 2022, arXiv:2210.17323. Results do not depend on the number of threads. */
#ifndef NB_QUANT_HESSIAN_H
#define NB_QUANT_HESSIAN_H

#include "kernels/cuda/module.h"

typedef struct nb_hessian {
  int64_t n;      /* in_features */
  int64_t tokens; /* seen */
  float *sum;     /* [n, n], the upper triangle until it is factorized, then all of it */

  const nb_cuda_module *gpu; /* gathers, factorizes and solves; NULL: the CPU does */
  nb_cuda_hessian *on_gpu;   /* the sum there, owned */
  nibble_status gpu_status;  /* of what was gathered, told by nb_hessian_factorize */
  nibble_error gpu_error;
} nb_hessian;

/* On the GPU if the context says so (NULL: the CPU). NIBBLE_SYSTEM without memory, or without the GPU that was asked
 * for. */
nibble_status nb_hessian_create(const nibble_context *context, int64_t n, nb_hessian *out, nibble_error *err);
void nb_hessian_free(nb_hessian *hessian);

/* Adds x [rows, n], `ldx` floats from row to row. */
void nb_hessian_add(nb_hessian *hessian, const float *x, int64_t rows, int64_t ldx);

/* In which order the solver takes the columns. */
typedef enum nb_column_order {
  NB_ORDER_NATURAL,
  /* Groups stay as they lie and are taken by their largest diagonal element, the columns of each by theirs: the gain of
   * activation order without its g_idx (GPTQModel's act_group_aware, arXiv:2505.14638). */
  NB_ORDER_GROUPS,
  NB_ORDER_ACTIVATION, /* all columns by diagonal element, groups cut in that order: the paper's act-order */
} nb_column_order;

typedef struct nb_factor {
  int64_t n, group_size, groups; /* group_size: columns of a full group, as resolved against n */
  int32_t *column;               /* [n]: which column stands at each place of the order */
  int32_t *group;                /* [n]: the group of the column at each place; equal ones are adjacent */
  bool *dead;                    /* [n] by column: inputs that were never other than zero */
  float *upper;                  /* [n, n] in the order, upper triangle U with H^-1 = U^T U */
  double damp;                   /* that was used, of the mean diagonal element */
  bool is_indefinite;            /* no damping made H positive definite: `upper` is no use */
} nb_factor;

typedef struct nb_factor_options {
  int64_t group_size; /* 0 or less: one group */
  nb_column_order order;
  double damp; /* added to the diagonal, as a part of its mean; grows by itself while that is not enough */
} nb_factor_options;

/* Free with nb_factor_free. NIBBLE_SYSTEM without memory. */
nibble_status nb_hessian_factorize(nb_hessian *hessian, const nb_factor_options *options, nb_factor *out,
                                   nibble_error *err);
void nb_factor_free(nb_factor *factor);

#endif
