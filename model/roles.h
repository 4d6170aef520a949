/* What a tensor does in a model. A tensor's role is decided once, when the checkpoint is opened (by the rules of its
 * family, model/family.h), and stored; whatever comes later (loading, hooks, recipes, memory, reports, splitting over
 * machines) switches on the role and never looks at a name again. */
#ifndef NB_MODEL_ROLES_H
#define NB_MODEL_ROLES_H

#include <stdbool.h>

typedef enum nb_role {
  NB_ROLE_OTHER, /* none that the family's rules name; as a hook: the residual stream before a block */
  NB_TOKEN_EMBED,
  NB_POSITION_EMBED,
  NB_TYPE_EMBED,
  NB_EMBED_NORM,
  NB_ATTN_NORM,
  NB_ATTN_Q,
  NB_ATTN_K,
  NB_ATTN_V,
  NB_ATTN_QKV, /* the three above in one, rows of Q first */
  NB_Q_NORM,
  NB_K_NORM,
  NB_ATTN_O,
  NB_ATTN_POST_NORM,
  NB_ATTN_BIAS, /* a table of biases on scores by relative position */
  NB_CROSS_NORM,
  NB_CROSS_Q,
  NB_CROSS_K,
  NB_CROSS_V,
  NB_CROSS_O,
  NB_MLP_NORM,
  NB_MLP_GATE,
  NB_MLP_UP, /* in families without a gate the first of two layers */
  NB_MLP_DOWN,
  NB_MLP_POST_NORM,
  NB_ROUTER,
  NB_EXPERT_GATE,
  NB_EXPERT_UP,
  NB_EXPERT_DOWN,
  NB_EXPERTS_GATE_UP, /* gates and ups of all experts of a layer in one tensor (nb_role_parts) */
  NB_EXPERTS_DOWN,
  NB_FINAL_NORM,
  NB_HEAD_DENSE, /* before the output embedding of masked language models */
  NB_HEAD_NORM,
  NB_HEAD,      /* output embedding */
  NB_HEAD_BIAS, /* its bias, where it is a tensor of its own */
  NB_POOLER,
  NB_CLASSIFIER, /* packed like any linear layer, as transformers does */
  NB_BUFFER,     /* what old versions of transformers, or a layout, saved and nothing reads */
  /* Of a family without rules, guessed from name and shape. */
  NB_UNKNOWN_EMBED,
  NB_UNKNOWN_NORM,
  NB_UNKNOWN_LINEAR,
  NB_UNKNOWN_HEAD,
  NB_ROLES
} nb_role;

typedef enum nb_kind {
  NB_KIND_OTHER,
  NB_KIND_EMBEDDING, /* rows looked up by number; never packed */
  NB_KIND_NORM,
  NB_KIND_LINEAR, /* what quantize packs */
  NB_KIND_EXPERT, /* a linear layer, one of several; in one tensor with the others or not */
  NB_KIND_ROUTER, /* a matrix too small and too telling to be packed */
  NB_KIND_HEAD,   /* output embedding: linear, kept unless --include names it */
  NB_KIND_TABLE,  /* of biases */
} nb_kind;

/* How a matrix [out, in] is shared out over machines that work on one layer together. */
typedef enum nb_split {
  NB_SPLIT_COPY,    /* everybody has all of it */
  NB_SPLIT_BY_ROWS, /* each has some output features */
  NB_SPLIT_BY_COLS, /* each has some input features; the outputs are then summed */
} nb_split;

typedef struct nb_role_row {
  const char *name; /* "attn_q": in recipes, reports and progress */
  nb_kind kind;
  nb_split split;
} nb_role_row;

const nb_role_row *nb_role_info(nb_role role);

enum { NB_MAX_ROLE_PARTS = 2 };

/* A tensor of some roles holds one matrix of each of several others for every expert: [experts, rows, in], where the
 * rows of the first part stand above those of the second. The parts' roles, ending with NB_ROLE_OTHER; NULL: the role's
 * tensor is one matrix or vector. */
const nb_role *nb_role_parts(nb_role role);

/* True for what a packed layout may hold: linear layers and experts, and the output embedding where it is asked for. */
static inline bool nb_kind_is_linear(nb_kind kind) {
  return kind == NB_KIND_LINEAR || kind == NB_KIND_EXPERT || kind == NB_KIND_HEAD;
}

#endif
