#include "model/roles.h"

#include <stddef.h>

static const nb_role_row rows[NB_ROLES] = {
    [NB_ROLE_OTHER] = {"other", NB_KIND_OTHER, NB_SPLIT_COPY},
    [NB_TOKEN_EMBED] = {"token_embed", NB_KIND_EMBEDDING, NB_SPLIT_BY_ROWS},
    [NB_POSITION_EMBED] = {"position_embed", NB_KIND_EMBEDDING, NB_SPLIT_COPY},
    [NB_TYPE_EMBED] = {"type_embed", NB_KIND_EMBEDDING, NB_SPLIT_COPY},
    [NB_EMBED_NORM] = {"embed_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_ATTN_NORM] = {"attn_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_ATTN_Q] = {"attn_q", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_ATTN_K] = {"attn_k", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_ATTN_V] = {"attn_v", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_ATTN_QKV] = {"attn_qkv", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_Q_NORM] = {"q_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_K_NORM] = {"k_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_ATTN_O] = {"attn_o", NB_KIND_LINEAR, NB_SPLIT_BY_COLS},
    [NB_ATTN_POST_NORM] = {"attn_post_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_ATTN_BIAS] = {"attn_bias", NB_KIND_TABLE, NB_SPLIT_COPY},
    [NB_CROSS_NORM] = {"cross_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_CROSS_Q] = {"cross_q", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_CROSS_K] = {"cross_k", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_CROSS_V] = {"cross_v", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_CROSS_O] = {"cross_o", NB_KIND_LINEAR, NB_SPLIT_BY_COLS},
    [NB_MLP_NORM] = {"mlp_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_MLP_GATE] = {"mlp_gate", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_MLP_UP] = {"mlp_up", NB_KIND_LINEAR, NB_SPLIT_BY_ROWS},
    [NB_MLP_DOWN] = {"mlp_down", NB_KIND_LINEAR, NB_SPLIT_BY_COLS},
    [NB_MLP_POST_NORM] = {"mlp_post_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_ROUTER] = {"router", NB_KIND_ROUTER, NB_SPLIT_COPY},
    [NB_EXPERT_GATE] = {"expert_gate", NB_KIND_EXPERT, NB_SPLIT_BY_ROWS},
    [NB_EXPERT_UP] = {"expert_up", NB_KIND_EXPERT, NB_SPLIT_BY_ROWS},
    [NB_EXPERT_DOWN] = {"expert_down", NB_KIND_EXPERT, NB_SPLIT_BY_COLS},
    [NB_EXPERTS_GATE_UP] = {"experts_gate_up", NB_KIND_EXPERT, NB_SPLIT_COPY},
    [NB_EXPERTS_DOWN] = {"experts_down", NB_KIND_EXPERT, NB_SPLIT_COPY},
    [NB_FINAL_NORM] = {"final_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_HEAD_DENSE] = {"head_dense", NB_KIND_LINEAR, NB_SPLIT_COPY},
    [NB_HEAD_NORM] = {"head_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_HEAD] = {"head", NB_KIND_HEAD, NB_SPLIT_BY_ROWS},
    [NB_HEAD_BIAS] = {"head_bias", NB_KIND_OTHER, NB_SPLIT_BY_ROWS},
    [NB_POOLER] = {"pooler", NB_KIND_LINEAR, NB_SPLIT_COPY},
    [NB_CLASSIFIER] = {"classifier", NB_KIND_LINEAR, NB_SPLIT_COPY},
    [NB_BUFFER] = {"buffer", NB_KIND_OTHER, NB_SPLIT_COPY},
    [NB_UNKNOWN_EMBED] = {"unknown_embed", NB_KIND_EMBEDDING, NB_SPLIT_COPY},
    [NB_UNKNOWN_NORM] = {"unknown_norm", NB_KIND_NORM, NB_SPLIT_COPY},
    [NB_UNKNOWN_LINEAR] = {"unknown_linear", NB_KIND_LINEAR, NB_SPLIT_COPY},
    [NB_UNKNOWN_HEAD] = {"unknown_head", NB_KIND_HEAD, NB_SPLIT_COPY},
};

static const nb_role parts[NB_ROLES][NB_MAX_ROLE_PARTS + 1] = {
    [NB_EXPERTS_GATE_UP] = {NB_EXPERT_GATE, NB_EXPERT_UP},
    [NB_EXPERTS_DOWN] = {NB_EXPERT_DOWN},
};

const nb_role_row *nb_role_info(nb_role role) { return &rows[role]; }

const nb_role *nb_role_parts(nb_role role) { return parts[role][0] == NB_ROLE_OTHER ? NULL : parts[role]; }
