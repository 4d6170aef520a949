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
};

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
  if (ok) return g;
  nb_gemm_free(g);
  return NULL;
}

void nb_gemm_free(nb_gemm *g) {
  if (!g) return;
  if (g->handle) g->destroy(g->handle);
  if (g->workspace) cudaFree(g->workspace);
  free(g);
}

/* cuBLAS counts down columns: our row-major c [n, m] is its [m, n], made of b^T and a. */
bool nb_gemm_run(nb_gemm *g, const nb_gemm_args *r) {
  static const int types[] = {TYPE_F32, TYPE_F16, TYPE_BF16};
  float beta = r->accumulate ? 1 : 0;
  int type = types[r->dtype], n = (int)r->n, m = (int)r->m, k = (int)r->k;
  return g->gemm(g->handle, BLAS_OP_T, BLAS_OP_N, m, n, k, &r->factor, r->b, type, k, r->a, type, k, &beta, r->c,
                 TYPE_F32, (int)r->ldc, BLAS_COMPUTE_32F, BLAS_DEFAULT) == 0;
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

/* ---- panels ----------------------------------------------------------------------------------------------------- */

enum { GEMM_ROWS = 256 }; /* of a weight that cuBLAS gives a multiprocessor at a time, at the most */

/* Rows of a panel: of the whole weight, or of equal parts that `room` elements hold. (To widen one panel while another
 * is multiplied does not pay: cuBLAS' blocks come in clusters and leave no room on a multiprocessor, so what runs
 * beside takes more than it hides.) */
static int64_t panel_rows(const nb_tiles *t, int64_t room) {
  int64_t whole = t->row_tiles * NB_TILE_ROWS, most = room / (t->col_tiles * NB_TILE_COLS),
          unit = most >= GEMM_ROWS ? (int64_t)GEMM_ROWS : (int64_t)NB_TILE_ROWS;
  if (whole <= most) return whole;
  int64_t units = nb_ceil_div(whole, unit), parts = nb_ceil_div(units, nb_max_i64(1, most / unit));
  return nb_ceil_div(units, parts) * unit;
}

int64_t nb_gemm_panel_elements(const nb_device_matrix *w, int64_t most) {
  return w->tiles.kind == NB_TILED_NONE ? 0 : panel_rows(&w->tiles, most) * w->tiles.col_tiles * NB_TILE_COLS;
}

/* What cuBLAS multiplies the panels with. */
typedef struct operand {
  const void *x;
  nb_x_dtype dtype; /* of it and the panels */
  float factor;     /* of the product */
} operand;

/* 16-bit activations that lie as the panels do are taken as they are. For bfloat16 the panels are bfloat16 then: its 8
 * bits of a weight are what PyTorch multiplies with such activations too. Anything else becomes float16. */
static operand operand_of(const nb_workspace *ws, const nb_device_matrix *w, nb_device_rows x, uint16_t *narrow) {
  int64_t k = w->tiles.col_tiles * NB_TILE_COLS;
  if (x.dtype != NB_X_F32 && !w->order && w->tiles.cols == k && x.stride == k && (uintptr_t)x.data % 16 == 0)
    return {x.data, x.dtype, 1};
  nb_narrow(ws->stream, w, x, false, narrow);
  return {narrow, NB_X_F16, x.dtype == NB_X_F16 ? 1 : 1 / NB_X_SCALE};
}

bool nb_product_gemm(nb_gemm *g, const nb_workspace *ws, const nb_device_layer *layer, nb_device_rows x,
                     const nb_gemm_room *room) {
  const nb_device_matrix *w = &layer->w;
  nb_gemm_args args = {};
  args.n = x.count, args.ldc = w->packed.rows, args.accumulate = layer->accumulate || layer->bias;
  if (layer->bias) lay_bias(ws, layer, x.count);
  if (w->tiles.kind == NB_TILED_NONE) {
    args.dtype = NB_X_F32, args.factor = 1, args.a = x.data, args.b = w->packed.codes, args.c = layer->y;
    args.m = w->packed.rows, args.k = w->packed.cols;
    return nb_gemm_run(g, &args);
  }
  operand a = operand_of(ws, w, x, room->narrow);
  args.dtype = a.dtype, args.factor = a.factor, args.a = a.x, args.b = room->panel;
  args.k = w->tiles.col_tiles * NB_TILE_COLS;
  int64_t rows = w->tiles.rows, step = panel_rows(&w->tiles, room->panel_elements);
  bool ok = true;
  for (int64_t first = 0; ok && first < rows; first += step) {
    args.m = nb_min_i64(step, rows - first), args.c = layer->y + first;
    nb_dequantize_panel(ws, w, a.dtype, first, args.m, room->panel);
    ok = nb_gemm_run(g, &args);
  }
  return ok;
}
