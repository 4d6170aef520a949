/* GGUF's block formats: a row of weights cut into blocks of 32 (Q4_0 to Q8_0) or 256 (the K-quants), each with its own
 * scales. Rows of such a matrix follow one another without a gap; a block never crosses rows.
 * They are rows of the table in formats.c like any other format; this header is what that table needs. Every value is
 * exact up to one last rounding, so all implementations agree bit by bit. Source: the block structs of ggml-common.h
 * (ggml-org/ggml), described in docs/formats.md. */
#ifndef NB_KERNELS_GGUF_BLOCKS_H
#define NB_KERNELS_GGUF_BLOCKS_H

#include "kernels/formats.h"

/* An nb_dequantize_fn for NB_FORMAT_Q4_0 to NB_FORMAT_Q6_K, for any processor and for x86's wider registers
 * (cpu/gguf_target.h); the tile need not begin or end with a block. */
void nb_gguf_dequantize_scalar(nb_tile t, float *out, int64_t stride);
void nb_gguf_dequantize_avx2(nb_tile t, float *out, int64_t stride);
void nb_gguf_dequantize_avx512(nb_tile t, float *out, int64_t stride);

#endif
