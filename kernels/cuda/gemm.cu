#include "kernels/cuda/gemm.h"

#include <stdlib.h>

extern "C" {
#include "base/checked.h"
}
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/panel.h"

/* cuBLAS' own numbers (cublas_api.h, library_types.h); its headers are not needed to build. */
enum { BLAS_OP_N = 0, BLAS_OP_T = 1, BLAS_COMPUTE_32F = 68, BLAS_DEFAULT = -1, WORKSPACE = 32 << 20 };
enum { TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14 };

typedef int (*create_fn)(void **handle);
typedef int (*destroy_fn)(void *handle);
typedef int (*stream_fn)(void *handle, cudaStream_t stream);
typedef int (*workspace_fn)(void *handle, void *memory, size_t bytes);
typedef int (*gemm_fn)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                       int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c, int type_c,
                       int ldc, int compute, int algorithm);

struct nb_gemm {
  void *handle, *workspace;
  destroy_fn destroy;
  gemm_fn gemm;
  cudaStream_t beside;         /* on which the next panel is widened */
  cudaEvent_t begins, widened; /* a panel's product; the next panel */
};

cudaError_t nb_gemm_stream_create(cudaStream_t *out) {
  int least = 0, greatest = 0;
  cudaError_t code = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  return code == cudaSuccess ? cudaStreamCreateWithPriority(out, cudaStreamNonBlocking, greatest) : code;
}

static bool create_beside(nb_gemm *g) {
  int least = 0, greatest = 0;
  return cudaDeviceGetStreamPriorityRange(&least, &greatest) == cudaSuccess &&
         cudaStreamCreateWithPriority(&g->beside, cudaStreamNonBlocking, least) == cudaSuccess &&
         cudaEventCreateWithFlags(&g->begins, cudaEventDisableTiming) == cudaSuccess &&
         cudaEventCreateWithFlags(&g->widened, cudaEventDisableTiming) == cudaSuccess;
}

nb_gemm *nb_gemm_create(cudaStream_t stream) {
  create_fn create = (create_fn)nb_blas_symbol("cublasCreate_v2");
  stream_fn set_stream = (stream_fn)nb_blas_symbol("cublasSetStream_v2");
  workspace_fn set_workspace = (workspace_fn)nb_blas_symbol("cublasSetWorkspace_v2");
  nb_gemm *g = (nb_gemm *)calloc(1, sizeof *g);
  if (!g) return NULL;
  g->destroy = (destroy_fn)nb_blas_symbol("cublasDestroy_v2");
  g->gemm = (gemm_fn)nb_blas_symbol("cublasGemmEx");
  bool ok = create && set_stream && set_workspace && g->destroy && g->gemm && create(&g->handle) == 0;
  if (ok) ok = cudaMalloc(&g->workspace, WORKSPACE) == cudaSuccess;
  /* The stream first: it takes the library's own workspace back. */
  if (ok) ok = set_stream(g->handle, stream) == 0 && set_workspace(g->handle, g->workspace, WORKSPACE) == 0;
  if (ok && create_beside(g)) return g;
  nb_gemm_free(g);
  return NULL;
}

void nb_gemm_free(nb_gemm *g) {
  if (!g) return;
  if (g->handle) g->destroy(g->handle);
  if (g->widened) cudaEventDestroy(g->widened);
  if (g->begins) cudaEventDestroy(g->begins);
  if (g->beside) cudaStreamDestroy(g->beside);
  if (g->workspace) cudaFree(g->workspace);
  free(g);
}

/* cuBLAS counts down columns: our row-major c [n, m] is its [m, n], made of b^T and a. */
bool nb_gemm_run(nb_gemm *g, nb_x_dtype dtype, const void *a, const void *b, int64_t n, int64_t m, int64_t k,
                 float factor, float *c, int64_t ldc, bool accumulate) {
  static const int types[] = {TYPE_F32, TYPE_F16, TYPE_BF16};
  float beta = accumulate ? 1 : 0;
  int type = types[dtype];
  return g->gemm(g->handle, BLAS_OP_T, BLAS_OP_N, (int)m, (int)n, (int)k, &factor, b, type, (int)k, a, type, (int)k,
                 &beta, c, TYPE_F32, (int)ldc, BLAS_COMPUTE_32F, BLAS_DEFAULT) == 0;
}

typedef struct bias_args {
  const float *bias;
  float *y;
  int64_t rows, n;
  bool accumulate;
} bias_args;

static __global__ void bias_kernel(const __grid_constant__ bias_args a) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.n) return;
  a.y[i] = a.bias[i % a.rows] + (a.accumulate ? a.y[i] : 0);
}

/* y = bias, or y += bias: what the product is then added to. */
static void lay_bias(const nb_workspace *ws, const nb_device_layer *layer, int64_t n) {
  bias_args a = {};
  a.bias = layer->bias, a.y = layer->y, a.rows = layer->w.packed.rows, a.n = n, a.accumulate = layer->accumulate;
  nb_launch(bias_kernel, dim3((unsigned)((a.rows * n + 255) / 256)), 256, 0, ws->stream, a);
}

/* ---- how a weight is cut
 * ----------------------------------------------------------------------------------------------------- */

/* Estimates for how a weight is best cut, in clock cycles, as measured on an H200; only their proportions matter. */
enum {
  TILE = 128,          /* cuBLAS gives a multiprocessor 128 by 256 elements of the output at a time, or 128 by 128 */
  MACS = 1800,         /* of a multiprocessor in a cycle, in the larger tiles */
  WIDENED = 960,       /* weights in a cycle of the whole device, as fast as its memory takes them */
  WIDENED_BESIDE = 20, /* of one multiprocessor that cuBLAS leaves alone */
  START = 6000,        /* cycles: of a product until it is at full speed, and of its end */
  MOST_WAVES = 8,      /* of tiles in a panel */
  MOST_ROWS = 1 << 20, /* of a panel: blocks of a launch */
};

/* One product with a panel of `rows`, and how many multiprocessors' cycles it leaves to others. */
static double panel_cycles(int64_t rows, int64_t n, int64_t k, int64_t processors, double *idle) {
  int64_t across = nb_ceil_div(n, TILE), large = across * nb_ceil_div(rows, 2 * TILE);
  double tile = (double)(TILE * TILE) * (double)k / MACS;
  double small_waves = 1.1 * (double)nb_ceil_div(across * nb_ceil_div(rows, TILE), processors);
  double large_waves = 2.0 * (double)nb_ceil_div(large, processors);
  double cycles = tile * (small_waves < large_waves ? small_waves : large_waves);
  *idle = cycles * (double)processors - 2 * tile * (double)large;
  if (*idle < 0) *idle = 0;
  return cycles + START;
}

/* All panels: each is widened beside the product of the one before it, or, where there is not enough room beside, with
 * all multiprocessors after it. */
static double cut_cycles(int64_t step, int64_t rows, int64_t n, int64_t k, int64_t processors) {
  double cycles = 0, idle = 0;
  for (int64_t first = 0; first < rows; first += step) {
    int64_t count = nb_min_i64(step, rows - first);
    double left = (double)(count * k) - idle * WIDENED_BESIDE;
    if (left > 0) cycles += left / WIDENED;
    cycles += panel_cycles(count, n, k, processors, &idle);
  }
  return cycles;
}

/* Rows of a panel: those of a whole number of waves of tiles, so that no multiprocessor waits for the others at the end
 * of each panel; or the whole weight. Panels of fewer rows expose less of the first one's widening, and take longer to
 * start. `room`: elements; more panels than one take turns in two halves of it. */
static int64_t panel_rows(const nb_workspace *ws, const nb_tiles *t, int64_t n, int64_t room) {
  int64_t k = t->col_tiles * NB_TILE_COLS, whole = t->row_tiles * NB_TILE_ROWS,
          most = nb_min_i64(room / 2 / k, MOST_ROWS);
  bool whole_fits = whole * k <= room && whole <= MOST_ROWS;
  int64_t best = whole_fits ? whole : most / NB_TILE_ROWS * NB_TILE_ROWS;
  if (best >= 2 * TILE) best -= best % (2 * TILE) * !whole_fits;
  double best_cycles = cut_cycles(best, t->rows, n, k, ws->processors);
  for (int waves = 1; waves <= MOST_WAVES; waves++) {
    int64_t step = 2 * TILE * nb_max_i64(1, waves * ws->processors / nb_ceil_div(n, TILE));
    if (step > most || step >= whole) break;
    double cycles = cut_cycles(step, t->rows, n, k, ws->processors);
    if (cycles < best_cycles) best = step, best_cycles = cycles;
  }
  return best;
}

int64_t nb_gemm_panel_elements(const nb_workspace *ws, const nb_device_matrix *w, int64_t n, int64_t most) {
  int64_t k = w->tiles.col_tiles * NB_TILE_COLS, whole = w->tiles.row_tiles * NB_TILE_ROWS;
  if (w->tiles.kind == NB_TILED_NONE) return 0;
  int64_t rows = panel_rows(ws, &w->tiles, n, nb_max_i64(most, 2 * NB_TILE_ROWS * k));
  return rows >= whole ? whole * k : 2 * rows * k;
}

/* ---- panels ----------------------------------------------------------------------------------------------------- */

/* What cuBLAS multiplies the panels with. */
typedef struct operand {
  const void *x;
  nb_x_dtype dtype; /* of it and the panels */
  float factor;     /* of the product */
} operand;

/* 16-bit activations that lie as the panels do are taken as they are. For bfloat16 the panels are bfloat16 then: its 8
 * bits of a weight are what PyTorch multiplies with such activations too. Anything else becomes float16. */
static operand operand_of(const nb_workspace *ws, const nb_device_matrix *w, const void *x, nb_x_dtype dtype,
                          int64_t ldx, int64_t n, uint16_t *narrow) {
  int64_t k = w->tiles.col_tiles * NB_TILE_COLS;
  if (dtype != NB_X_F32 && !w->order && w->tiles.cols == k && ldx == k && (uintptr_t)x % 16 == 0) return {x, dtype, 1};
  nb_narrow(ws->stream, w, x, dtype, ldx, n, narrow);
  return {narrow, NB_X_F16, dtype == NB_X_F16 ? 1 : 1 / NB_X_SCALE};
}

/* The first panel is widened by itself. Each other is on the second stream while the one before it is multiplied: by
 * the multiprocessors that cuBLAS leaves alone, as its stream comes first, and by all when it has ended. What is on the
 * first stream has read a half before the second stream writes there: `begins` follows the product before. */
static bool multiply_panels(nb_gemm *g, const nb_workspace *ws, const nb_device_layer *layer, const operand *a,
                            int64_t n, uint16_t *panels, int64_t step) {
  const nb_device_matrix *w = &layer->w;
  int64_t k = w->tiles.col_tiles * NB_TILE_COLS, rows = w->tiles.rows;
  bool accumulate = layer->accumulate || layer->bias, ok = true;
  uint16_t *half[2] = {panels, panels + step * k};
  nb_dequantize_panel(ws->stream, w, a->dtype, 0, nb_min_i64(step, rows), half[0]);
  for (int64_t first = 0, i = 0; ok && first < rows; first += step, i ^= 1) {
    int64_t next = first + step;
    if (next < rows) cudaEventRecord(g->begins, ws->stream);
    ok = nb_gemm_run(g, a->dtype, a->x, half[i], n, nb_min_i64(step, rows - first), k, a->factor, layer->y + first,
                     rows, accumulate);
    if (next >= rows) break;
    cudaStreamWaitEvent(g->beside, g->begins, 0);
    nb_dequantize_panel(g->beside, w, a->dtype, next, nb_min_i64(step, rows - next), half[i ^ 1]);
    cudaEventRecord(g->widened, g->beside);
    cudaStreamWaitEvent(ws->stream, g->widened, 0);
  }
  return ok;
}

bool nb_product_gemm(nb_gemm *g, const nb_workspace *ws, const nb_device_layer *layer, const void *x, nb_x_dtype dtype,
                     int64_t ldx, int64_t n, uint16_t *narrow, uint16_t *panels, int64_t panel_elements) {
  const nb_device_matrix *w = &layer->w;
  if (layer->bias) lay_bias(ws, layer, n);
  if (w->tiles.kind == NB_TILED_NONE)
    return nb_gemm_run(g, NB_X_F32, x, w->packed.codes, n, w->packed.rows, w->packed.cols, 1, layer->y, w->packed.rows,
                       layer->accumulate || layer->bias);
  operand a = operand_of(ws, w, x, dtype, ldx, n, narrow);
  return multiply_panels(g, ws, layer, &a, n, panels, panel_rows(ws, &w->tiles, n, panel_elements));
}
