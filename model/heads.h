/* What a class of transformers puts on top of a model's blocks, a row a kind. config.json names the class
 * ("BertForSequenceClassification"); its ending is the kind, whatever stands before it. */
#ifndef NB_MODEL_HEADS_H
#define NB_MODEL_HEADS_H

#include "model/ops.h"

typedef enum nb_head_kind {
  NB_HEAD_OTHER, /* a class that is not known: what it has on top is kept and not computed */
  NB_HEAD_BASE,  /* the model alone; its output is the last hidden state */
  NB_HEAD_LM,    /* scores of the next token */
  NB_HEAD_MASKED_LM,
  NB_HEAD_CLASSIFY, /* scores of labels for a whole sequence */
} nb_head_kind;

struct nb_head_row {
  const char *suffix; /* of the class's name */
  nb_head_kind kind;
  const nb_op *ops;   /* on the rows asked for, in X; the result is in L, of a base class in X */
  bool first_only;    /* it looks at the first token alone */
  const char *output; /* what transformers calls it: "logits" */
};

/* Never NULL. */
const struct nb_head_row *nb_head_of_class(const char *name);

#endif
