#include "kernels/q8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/q8_round_target.h"
#include "kernels/cpu/scratch.h"
#include "kernels/gptq.h"

enum {
  BAND = NB_Q8_PANEL, /* output features; a multiple of the rows that GPTQ's kernels take */
  PANEL_FROM = 32,    /* rows of x: fewer do not pay for turning the weights */
  SHARES = 12,        /* runs of bands a thread: as in decode.c */
};

const uint8_t nb_q8_evens_odds[NB_Q8_BLOCK] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                               1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
const uint8_t nb_q8_words4[NB_Q8_BLOCK] = {0,  2,  4,  6,  1,  3,  5,  7,  8,  10, 12, 14, 9,  11, 13, 15,
                                           16, 18, 20, 22, 17, 19, 21, 23, 24, 26, 28, 30, 25, 27, 29, 31};
const uint8_t nb_q8_words2[NB_Q8_BLOCK] = {0,  4,  8,  12, 1,  5,  9,  13, 2,  6,  10, 14, 3,  7,  11, 15,
                                           16, 20, 24, 28, 17, 21, 25, 29, 18, 22, 26, 30, 19, 23, 27, 31};

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void dot_scalar(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  for (int64_t row = begin; row < end; row++) {
    float sums[NB_Q8_ROWS] = {0};
    for (int64_t block = 0; block < x->blocks; block++) {
      nb_q8_weights weights;
      nb_q8_weights_at(w, row, block, &weights);
      for (int64_t i = 0; i < x->count; i++) {
        const int8_t *codes = x->codes + i * x->cols + block * NB_Q8_BLOCK;
        int32_t halves[2] = {0};
        for (int j = 0; j < NB_Q8_BLOCK; j++) halves[j / 16] += weights.codes[j] * codes[j];
        float dot = (float)halves[0] * weights.scales[0] + (float)halves[1] * weights.scales[1];
        sums[i] += dot * x->scales[i * x->blocks + block] - weights.minimum * x->sums[i * x->blocks + block];
      }
    }
    for (int64_t i = 0; i < x->count; i++) out.data[i * out.stride + row - begin] = sums[i];
  }
}

static const nb_q8_kernel scalar_kernel = {.dot = dot_scalar};

#if defined(__x86_64__)
static const nb_cpu_q8 *const tables[NB_ISA_COUNT] = {
    [NB_ISA_AVX2] = &nb_cpu_q8_avx2, [NB_ISA_AVXVNNI] = &nb_cpu_q8_avxvnni, [NB_ISA_AVX512] = &nb_cpu_q8_avx512};
#elif defined(__aarch64__)
static const nb_cpu_q8 *const tables[NB_ISA_COUNT] = {
    [NB_ISA_NEON] = &nb_cpu_q8_neon, [NB_ISA_DOTPROD] = &nb_cpu_q8_dotprod};
#else
static const nb_cpu_q8 *const tables[NB_ISA_COUNT] = {0};
#endif

static const nb_q8_kernel *kernel_for(nb_format format) {
  for (nb_isa isa = nb_isa_current(); isa != NB_ISA_SCALAR; isa = nb_isa_fallback(isa)) {
    if (tables[isa] && tables[isa]->formats[format].dot) return &tables[isa]->formats[format];
  }
  return &scalar_kernel;
}

bool nb_q8_pays(const nb_packed *w) {
  return nb_format_info(w->format)->q8_is_cheap && nb_q8_fits(w) && kernel_for(w->format) != &scalar_kernel;
}

/* Panels belong to the kernels of the instruction set in use, not to those that fill its holes. */
static const nb_cpu_q8 *panels_in_use(void) {
  const nb_cpu_q8 *table = tables[nb_isa_current()];
  return table && table->multiply ? table : NULL;
}

void nb_q8_round(const float *x, int64_t cols, int8_t *codes, float *scales) {
  for (nb_isa isa = nb_isa_current(); isa != NB_ISA_SCALAR; isa = nb_isa_fallback(isa)) {
    if (!tables[isa] || !tables[isa]->round) continue;
    tables[isa]->round(x, cols, codes, scales);
    return;
  }
  round_row(x, cols, codes, scales);
}

/* ---- a set of products ------------------------------------------------------------------------------------------- */

typedef struct q8_job {
  nb_product products[NB_PRODUCTS_MAX];
  const nb_q8_kernel *kernels[NB_PRODUCTS_MAX];
  const nb_cpu_q8 *panels; /* whose panels are used; NULL: none */
  float *panel_memory;     /* a panel for every thread */
  int64_t panel_floats;
  nb_q8_x x[NB_PRODUCTS_MAX];
  int shares[NB_PRODUCTS_MAX]; /* the first product with the same x in the same order */
  int count;
  int64_t n;
} q8_job;

/* Rounds row `row` of product `index`'s x, and puts its codes in the kernel's order. */
static void round_x(const q8_job *job, int index, int64_t row) {
  const nb_q8_x *x = &job->x[index];
  const uint8_t *order = job->kernels[index]->order;
  int8_t *codes = (int8_t *)x->codes + row * x->cols;
  float *scales = (float *)x->scales + row * x->blocks, *sums = (float *)x->sums + row * x->blocks;
  int32_t *totals = (int32_t *)x->totals + row * x->blocks;
  nb_q8_round(job->products[index].x + row * job->products[index].ldx, x->cols, codes, scales);
  for (int64_t b = 0; b < x->blocks; b++, codes += NB_Q8_BLOCK) {
    int32_t sum = 0;
    int8_t before[NB_Q8_BLOCK];
    for (int j = 0; j < NB_Q8_BLOCK; j++) sum += before[j] = codes[j];
    totals[b] = sum;
    sums[b] = scales[b] * (float)sum;
    for (int j = 0; order && j < NB_Q8_BLOCK; j++) codes[j] = before[order[j]];
  }
}

static void round_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const q8_job *job = ctx;
  for (int64_t row = begin; row < end; row++) {
    for (int i = 0; i < job->count; i++) {
      if (job->shares[i] == i) round_x(job, i, row);
    }
  }
}

/* To the rows that follow x's own. */
static void advance(nb_q8_x *x) {
  x->codes += x->count * x->cols;
  x->scales += x->count * x->blocks;
  x->sums += x->count * x->blocks;
  x->totals += x->count * x->blocks;
}

static void panel_band(const q8_job *job, int index, int64_t begin, int64_t end, int thread) {
  const nb_product *p = &job->products[index];
  float sums[NB_Q8_PANEL_ROWS * NB_Q8_PANEL], *memory = job->panel_memory + thread * job->panel_floats;
  nb_q8_x x = job->x[index];
  nb_q8_panel panel = {.codes = (uint8_t *)memory};
  panel.scales = memory += x.cols * NB_Q8_PANEL / 4;
  panel.minima = memory + x.blocks * NB_Q8_PANEL;
  job->kernels[index]->pack(p->w, begin, end, &panel);
  for (int64_t i = 0; i < job->n; i += NB_Q8_PANEL_ROWS) {
    x.count = nb_min_i64(NB_Q8_PANEL_ROWS, job->n - i);
    job->panels->multiply(&panel, &x, sums);
    for (int64_t j = 0; j < x.count; j++) {
      for (int64_t r = begin; r < end; r++) nb_finish(p, i + j, r, sums[j * NB_Q8_PANEL + r - begin]);
    }
    advance(&x);
  }
}

static void dot_band(const q8_job *job, int index, int64_t begin, int64_t end) {
  const nb_product *p = &job->products[index];
  float sums[NB_Q8_ROWS * BAND];
  nb_q8_x x = job->x[index];
  for (int64_t i = 0; i < job->n; i += NB_Q8_ROWS) {
    x.count = nb_min_i64(NB_Q8_ROWS, job->n - i);
    job->kernels[index]->dot(p->w, begin, end, &x, (nb_sums){.data = sums, .stride = BAND});
    for (int64_t j = 0; j < x.count; j++) {
      for (int64_t r = begin; r < end; r++) nb_finish(p, i + j, r, sums[j * BAND + r - begin]);
    }
    advance(&x);
  }
}

/* Bands are numbered through all products. */
static void dot_bands(void *ctx, int64_t begin, int64_t end, int thread) {
  const q8_job *job = ctx;
  for (int64_t band = begin; band < end; band++) {
    int64_t local = band;
    int index = 0;
    for (; local * BAND >= job->products[index].w->rows; index++)
      local -= nb_ceil_div(job->products[index].w->rows, BAND);
    int64_t first = local * BAND, last = nb_min_i64(first + BAND, job->products[index].w->rows);
    if (job->panels && job->kernels[index]->pack) {
      panel_band(job, index, first, last, thread);
    } else {
      dot_band(job, index, first, last);
    }
  }
}

static bool multiply(q8_job *job) {
  int64_t floats = 0, bands = 0;
  job->panels = job->n >= PANEL_FROM ? panels_in_use() : NULL;
  job->panel_floats = 0;
  for (int i = 0; i < job->count; i++) {
    const nb_product *p = &job->products[i];
    job->kernels[i] = kernel_for(p->w->format);
    int same = 0;
    while (!(job->kernels[same]->order == job->kernels[i]->order && nb_same_x(&job->products[same], p))) same++;
    job->shares[i] = same;
    bands += nb_ceil_div(p->w->rows, BAND);
    if (same == i) floats += job->n * (p->w->cols / 4 + p->w->cols / NB_Q8_BLOCK * 3);
    int64_t panel = p->w->cols * NB_Q8_PANEL / 4 + p->w->cols / NB_Q8_BLOCK * NB_Q8_PANEL * 2;
    if (job->panels) job->panel_floats = nb_max_i64(job->panel_floats, panel);
  }
  float *at = nb_scratch(floats + nb_threads() * job->panel_floats);
  if (!at) return false;
  job->panel_memory = at;
  at += nb_threads() * job->panel_floats;
  for (int i = 0; i < job->count; i++) {
    if (job->shares[i] != i) {
      job->x[i] = job->x[job->shares[i]];
      continue;
    }
    nb_q8_x *x = &job->x[i];
    *x = (nb_q8_x){.cols = job->products[i].w->cols, .blocks = job->products[i].w->cols / NB_Q8_BLOCK};
    x->codes = (const int8_t *)at;
    x->scales = at += job->n * x->cols / 4;
    x->sums = at += job->n * x->blocks;
    at += job->n * x->blocks;
    x->totals = (const int32_t *)(const void *)at;
    at += job->n * x->blocks;
  }
  nb_parallel(job->n, 4, round_band, job);
  nb_parallel_stoppable(bands, nb_ceil_div(bands, (int64_t)nb_threads() * SHARES), dot_bands, job, NULL);
  return true;
}

static bool multiply_ordered(q8_job *job) {
  nb_product given[NB_PRODUCTS_MAX];
  float *memory;
  memcpy(given, job->products, sizeof given);
  bool ok = nb_order_x(given, job->count, job->n, job->products, &memory) && multiply(job);
  free(memory);
  return ok;
}

/* x [n, cols] through eight bits and back, for weights that are multiplied in float32. */
static float *rounded(const nb_product *p, int64_t n) {
  int64_t cols = p->w->cols, blocks = nb_ceil_div(cols, NB_Q8_BLOCK);
  float *x = nb_alloc((uint64_t)(n * cols), sizeof *x), *scales = nb_alloc((uint64_t)blocks, sizeof *scales);
  int8_t *codes = nb_alloc((uint64_t)cols, 1);
  for (int64_t row = 0; x && scales && codes && row < n; row++) {
    nb_q8_round(p->x + row * p->ldx, cols, codes, scales);
    for (int64_t c = 0; c < cols; c++) x[row * cols + c] = (float)codes[c] * scales[c / NB_Q8_BLOCK];
  }
  if (!scales || !codes) free(x), x = NULL;
  free(scales);
  free(codes);
  return x;
}

static bool multiply_rounded(const nb_product *p, int64_t n) {
  nb_product floats = *p;
  float *x = rounded(p, n);
  if (!x) return false;
  floats.x = x;
  floats.ldx = p->w->cols;
  nb_matmul_many(&floats, 1, n);
  free(x);
  return true;
}

bool nb_q8_matmul(const nb_product *products, int count, int64_t n) {
  q8_job job = {.n = n};
  bool ok = true;
  for (int i = 0; ok && i < count; i++) {
    const nb_product *p = &products[i];
    if (nb_format_info(p->w->format)->scheme == NB_SCHEME_PLAIN) {
      nb_matmul_many(p, 1, n);
    } else if (!nb_q8_fits(p->w)) {
      ok = multiply_rounded(p, n);
    } else {
      job.products[job.count++] = *p;
    }
    if (job.count == NB_PRODUCTS_MAX || (i == count - 1 && job.count > 0)) {
      ok = ok && multiply_ordered(&job);
      job.count = 0;
    }
  }
  return ok;
}
