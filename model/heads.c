#include "model/heads.h"

#include "base/str.h"
#include "model/config.h"

static const nb_op lm_ops[] = {
    {NB_OP_SCALE, NB_X, NB_X, NB_HEAD, 0, 0},
    {NB_OP_LINEAR, NB_X, NB_L, NB_HEAD, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op masked_lm_ops[] = {
    {NB_OP_LINEAR, NB_X, NB_N, NB_HEAD_DENSE, 0, 0},
    {NB_OP_GATE, NB_N, NB_N, 0, 0, 0},
    {NB_OP_NORM, NB_N, NB_N, NB_HEAD_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_L, NB_HEAD, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op classify_ops[] = {
    {NB_OP_LINEAR, NB_X, NB_N, NB_POOLER, 0, 0},
    {NB_OP_GATE, NB_N, NB_N, 0, NB_TANH, 0},
    {NB_OP_LINEAR, NB_N, NB_L, NB_CLASSIFIER, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op no_ops[] = {{NB_OP_END, 0, 0, 0, 0, 0}};

/* The first that fits: "LMHeadModel" before "Model". */
static const nb_head_row heads[] = {
    {"ForCausalLM", NB_HEAD_LM, lm_ops, false, "logits"},
    {"LMHeadModel", NB_HEAD_LM, lm_ops, false, "logits"},
    {"ForConditionalGeneration", NB_HEAD_LM, lm_ops, false, "logits"},
    {"ForMaskedLM", NB_HEAD_MASKED_LM, masked_lm_ops, false, "logits"},
    {"ForSequenceClassification", NB_HEAD_CLASSIFY, classify_ops, true, "logits"},
    {"Model", NB_HEAD_BASE, no_ops, false, "last_hidden_state"},
    {"", NB_HEAD_OTHER, no_ops, false, "last_hidden_state"},
};

const nb_head_row *nb_head_of_class(const char *name) {
  const nb_head_row *row = heads;
  while (!nb_ends_with(name, row->suffix)) row++;
  return row;
}
