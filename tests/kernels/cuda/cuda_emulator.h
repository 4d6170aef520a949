/* The kernels of kernels/cuda, run on the CPU: what a .cu file needs from CUDA, as plain C++. Each thread of a block is
 * a fiber; it runs until it must wait for the block (__syncthreads) or its warp (shuffles, mma) and is resumed when the
 * others have come. Fibers are resumed in ascending or descending order by turns, and blocks too. Shared memory and
 * fresh allocations are filled with NaN. mma follows the fragment tables of the PTX ISA and knows nothing of the layout
 * in tiles.h. Streams run at once; a capture records launches and a graph runs them again. cuBLAS is three loops.
 * Accesses to memory that no barrier orders are found by cuda_races.h. Included before anything else in each .cu file
 * that the tests compile as C++; its names are then others, so that a build with CUDA has both. */
#ifndef NB_TESTS_CUDA_EMULATOR_H
#define NB_TESTS_CUDA_EMULATOR_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#define nb_product_small nb_emulated_product_small
#define nb_product_plain nb_emulated_product_plain
#define nb_rows_of nb_emulated_rows_of
#define nb_dequantize_panel nb_emulated_dequantize_panel
#define nb_narrow nb_emulated_narrow
#define nb_gemm_panel_elements nb_emulated_gemm_panel_elements
#define nb_gemm_create nb_emulated_gemm_create
#define nb_gemm_free nb_emulated_gemm_free
#define nb_gemm_run nb_emulated_gemm_run
#define nb_product_gemm nb_emulated_product_gemm
#define nb_cuda_rmsnorm nb_emulated_cuda_rmsnorm
#define nb_cuda_layernorm nb_emulated_cuda_layernorm
#define nb_cuda_store nb_emulated_cuda_store
#define nb_cuda_attention_plan nb_emulated_cuda_attention_plan
#define nb_cuda_attention nb_emulated_cuda_attention
#define nb_cuda_gate nb_emulated_cuda_gate
#define nb_cuda_add nb_emulated_cuda_add
#define nb_cuda_scale nb_emulated_cuda_scale
#define nb_cuda_gather nb_emulated_cuda_gather
#define nb_cuda_scatter_add nb_emulated_cuda_scatter_add
#define nb_cuda_log_probs nb_emulated_cuda_log_probs
#define nb_cuda_set_value nb_emulated_cuda_set_value
#define nb_matrix_upload nb_emulated_matrix_upload
#define nb_matrix_free nb_emulated_matrix_free
#define nb_cuda_hessian_create nb_emulated_cuda_hessian_create
#define nb_cuda_hessian_free nb_emulated_cuda_hessian_free
#define nb_cuda_hessian_add nb_emulated_cuda_hessian_add
#define nb_cuda_hessian_sum nb_emulated_cuda_hessian_sum
#define nb_cuda_hessian_factorize nb_emulated_cuda_hessian_factorize
#define nb_cuda_gptq_solve nb_emulated_cuda_gptq_solve
#define nb_gptq_libraries_open nb_emulated_gptq_libraries_open
#define nb_gptq_add_gram nb_emulated_gptq_add_gram
#define nb_gptq_times_gram nb_emulated_gptq_times_gram
#define nb_gptq_update nb_emulated_gptq_update
#define nb_gptq_cholesky_room nb_emulated_gptq_cholesky_room
#define nb_gptq_cholesky nb_emulated_gptq_cholesky
#define nb_gptq_divide nb_emulated_gptq_divide
#define nb_device_alloc nb_emulated_device_alloc
#define nb_device_free nb_emulated_device_free
#define nb_device_taken nb_emulated_device_taken
#define nb_backend_cuda nb_emulated_backend_cuda
#define nb_backend_cuda_free_bytes nb_emulated_backend_cuda_free_bytes
#define nb_cuda_quantizer_create nb_emulated_cuda_quantizer_create
#define nb_cuda_quantizer_free nb_emulated_cuda_quantizer_free
#define nb_cuda_quantize nb_emulated_cuda_quantize

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {

// Of the thread that runs.
dim3 Thread();
dim3 BlockOf();
dim3 BlockSize();
dim3 GridSize();
int Lane();

[[noreturn]] void Die(const char *what);

void Barrier();
void SyncWarp();
// *value becomes that of lane `from`; up to 16 bytes. A shuffle orders no accesses to memory.
void Shuffle(void *value, size_t bytes, int from);
// PTX ISA, m16n8k16, float16.
void Mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

unsigned char *Shared();
void WaitForPrevious();
unsigned Arrive(unsigned *at);
unsigned long long AtomicMin(unsigned long long *at, unsigned long long v);
// What may be another block's.
void ReadFresh(void *out, const void *at, size_t bytes);

void Copy(void *to, const void *from, size_t bytes);
void Commit();
void WaitForCopies(size_t newest);
void Prefetch(const void *at, uint32_t bytes);

float HalfToFloat(uint16_t half);
float BfloatToFloat(uint16_t half);
uint16_t FloatToHalf(float f);
uint16_t FloatToBfloat(float f);

inline uint32_t Bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
inline float Float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

struct Graph;
// Does it, or records it if a capture is under way.
void Queue(std::function<void()> work);
void RunGrid(dim3 grid, int threads, int64_t shared_bytes, bool is_early, const std::function<void()> &body);

extern bool is_memory_full;

}  // namespace emulator

#define threadIdx (emulator::Thread())
#define blockIdx (emulator::BlockOf())
#define blockDim (emulator::BlockSize())
#define gridDim (emulator::GridSize())

inline void __syncthreads() { emulator::Barrier(); }
inline void __syncwarp() { emulator::SyncWarp(); }
template <typename T>
T __shfl_sync(unsigned, T v, int lane) {
  emulator::Shuffle(&v, sizeof v, lane);
  return v;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int lanes) {
  return __shfl_sync(mask, v, emulator::Lane() ^ lanes);
}
inline unsigned long long atomicMin(unsigned long long *at, unsigned long long v) { return emulator::AtomicMin(at, v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned __float_as_uint(float f) { return emulator::Bits(f); }
inline float __uint_as_float(unsigned u) { return emulator::Float(u); }
inline float __fdividef(float a, float b) { return a / b; }
using std::max;
using std::min;

inline unsigned char *nb_shared() { return emulator::Shared(); }
inline void nb_mma_f16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) { emulator::Mma(d, a, b0, b1); }
inline uint32_t nb_pair_f16(float low, float high) {
  return emulator::FloatToHalf(low) | (uint32_t)emulator::FloatToHalf(high) << 16;
}
inline uint32_t nb_pair_bf16(float low, float high) {
  return emulator::FloatToBfloat(low) | (uint32_t)emulator::FloatToBfloat(high) << 16;
}
inline float nb_half_to_float(uint32_t bits) { return emulator::HalfToFloat((uint16_t)bits); }
inline uint32_t nb_subtract_f16(uint32_t a, uint32_t b) {
  return nb_pair_f16(nb_half_to_float(a & 0xffff) - nb_half_to_float(b & 0xffff),
                     nb_half_to_float(a >> 16) - nb_half_to_float(b >> 16));
}
inline uint32_t nb_fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  auto half = [&](int shift) {  // the product of two halves is exact in a double, and so is the sum here
    return (float)((double)nb_half_to_float(a >> shift & 0xffff) * nb_half_to_float(b >> shift & 0xffff) +
                   nb_half_to_float(c >> shift & 0xffff));
  };
  return nb_pair_f16(half(0), half(16));
}
inline uint32_t nb_mask_or(uint32_t a, uint32_t mask, uint32_t bits) { return (a & mask) | bits; }
inline uint32_t nb_pick_bytes(uint32_t low, uint32_t high, uint32_t select) {
  uint64_t bytes = (uint64_t)high << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t digit = select >> (4 * i) & 15, byte = (uint32_t)(bytes >> (digit % 8 * 8) & 255);
    out |= (digit < 8 ? byte : byte < 128 ? 0 : 255) << (8 * i);
  }
  return out;
}
inline void nb_let_next_start() {}
inline void nb_wait_for_previous() { emulator::WaitForPrevious(); }
inline float nb_inverse_root(float v) { return 1.0f / std::sqrt(v); }
inline const float *nb_settled(const float *p) { return p; }
inline unsigned nb_arrive(unsigned *at) { return emulator::Arrive(at); }
template <typename T>
T nb_load_fresh(const T *at) {
  T v;
  emulator::ReadFresh(&v, at, sizeof v);
  return v;
}

inline void nb_copy_16(void *to, const void *from) { emulator::Copy(to, from, 16); }
inline void nb_copy_16_if(bool wanted, void *to, const void *from) {
  if (wanted) emulator::Copy(to, from, 16);
}
inline void nb_copy_4_if(bool wanted, void *to, const void *from) {
  if (wanted) emulator::Copy(to, from, 4);
}
inline void nb_copies_commit() { emulator::Commit(); }
template <int N>
void nb_copies_wait() {
  emulator::WaitForCopies(N);
}
inline void nb_prefetch(const void *at, uint32_t bytes) { emulator::Prefetch(at, bytes); }

// The functions of cuBLAS and cuSOLVER that the kernels use, by name (cuda_emulator_blas.cc).
void *nb_blas_symbol(const char *name);
void *nb_solver_symbol(const char *name);

/* ---- the runtime ------------------------------------------------------------------------------------------------ */

typedef int cudaError_t;
typedef int *cudaStream_t;
typedef emulator::Graph *cudaGraph_t, *cudaGraphExec_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamCaptureModeRelaxed, cudaStreamNonBlocking };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};

cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, int);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr what, int);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaStreamBeginCapture(cudaStream_t, int);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);

template <typename Args>
void nb_queue(void (*kernel)(Args), dim3 blocks, int threads, int64_t shared_bytes, bool is_early, Args args) {
  if (sizeof(Args) > 4096) emulator::Die("more arguments than a kernel takes");
  emulator::Queue([=] { emulator::RunGrid(blocks, threads, shared_bytes, is_early, [&] { kernel(args); }); });
}
template <typename Args>
void nb_launch(void (*kernel)(Args), dim3 blocks, int threads, int64_t shared_bytes, cudaStream_t, Args args) {
  nb_queue(kernel, blocks, threads, shared_bytes, false, args);
}
template <typename Args>
void nb_launch_early(void (*kernel)(Args), dim3 blocks, int threads, int64_t shared_bytes, cudaStream_t, Args args) {
  nb_queue(kernel, blocks, threads, shared_bytes, true, args);
}

#endif
