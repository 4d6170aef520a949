/* A model is a program: a block is a list of operations over named registers, and so are its embedding, its end and its
 * head. The lists are data (families/NAME.c, heads.c); the runner walks them (runner/program.c), and so does whatever
 * must know what a block computes: calibration, hooks, memory.
 *
 * Registers hold float32 [rows, width], a row a token. An operation whose weight the checkpoint does not have is left
 * out when a block is loaded, and so is one whose input nothing has written by then: one list serves layers with and
 * without experts, gates, biases or norms of Q and K. Adjacent LINEARs with one input are one launch and share one
 * Hessian. Weights that lie fused stay fused, since packed blocks cannot be cut: SPLIT deals out what they give. */
#ifndef NB_MODEL_OPS_H
#define NB_MODEL_OPS_H

#include "model/roles.h"

typedef enum nb_reg {
  NB_NO_REG,
  NB_X, /* residual stream [hidden] */
  NB_N, /* normed [hidden] */
  NB_T, /* temporary [hidden] */
  NB_Q, /* queries [heads * head_dim] */
  NB_K, /* keys [kv_heads * head_dim] */
  NB_V, /* values, as keys */
  NB_F, /* Q, K and V in one */
  NB_A, /* attended, as queries */
  NB_G, /* gate [intermediate] */
  NB_U, /* up [intermediate] */
  NB_R, /* scores of the experts [num_experts] */
  NB_E, /* the encoder's output [hidden]; rows of its own */
  NB_L, /* what the head gives [vocab, or labels] */
  NB_REGS
} nb_reg;

typedef enum nb_op_kind {
  NB_OP_END,    /* ends a list */
  NB_OP_EMBED,  /* out = row of the role's table: of the token's id, position or type */
  NB_OP_NORM,   /* out = norm(in); may be in place */
  NB_OP_LINEAR, /* out = in W^T + bias */
  NB_OP_SPLIT,  /* Q, K, V = F */
  NB_OP_CACHE,  /* keys K and values V join the cache; in = Q */
  NB_OP_ATTEND, /* out = attention of the queries `in` over the cache */
  NB_OP_GATE,   /* in = act(in) * `with`, or act(in) where nothing has written `with` */
  NB_OP_SCALE,  /* in *= the config's factor of that role */
  NB_OP_EXPERTS /* out += what the experts that in's row of R chooses make of it */
} nb_op_kind;

enum {
  NB_ADDED = 1,    /* out += instead of out = */
  NB_PER_HEAD = 2, /* NORM: each head_dim by itself */
  NB_ROTATED = 4,  /* CACHE: queries and keys are turned by their positions on the way */
  NB_CROSS = 8,    /* CACHE, ATTEND: the encoder's keys and values */
  NB_ONCE = 16,    /* runs on the encoder's rows, and only when they are new */
  NB_TANH = 32,    /* GATE: tanh, whatever the config's activation is */
};

typedef struct nb_op {
  nb_op_kind kind;
  nb_reg in, out;
  nb_role role; /* of its weight */
  unsigned flags;
  nb_reg with;
} nb_op;

#endif
