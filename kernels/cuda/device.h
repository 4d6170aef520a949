/* What kernels use beside CUDA's own names: the few instructions that have no name in C, and a launch. Under nvcc they
 * are PTX; the tests' emulator (tests/kernels/cuda/cuda_emulator.h) gives the same names plain C++ bodies, and the
 * kernels of this folder then run on the CPU, thread by thread. Pairs of 16-bit numbers are uint32_t, the first in the
 * low half. */
#ifndef NB_KERNELS_CUDA_DEVICE_H
#define NB_KERNELS_CUDA_DEVICE_H

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>

extern __shared__ __align__(16) unsigned char nb_dynamic_shared[];

/* The block's dynamic shared memory, 16-byte aligned; what it holds at first is undefined. */
static __device__ __forceinline__ unsigned char *nb_shared(void) { return nb_dynamic_shared; }

/* d += A B, A [16, 16] row-major, B [16, 8], in the fragments of m16n8k16 (tiles.h). */
static __device__ __forceinline__ void nb_mma_f16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* low and high rounded to nearest, ties to even. */
static __device__ __forceinline__ uint32_t nb_pair_f16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

static __device__ __forceinline__ uint32_t nb_pair_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

static __device__ __forceinline__ float nb_half_to_float(uint32_t bits) {
  float value;
  asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(bits & 0xffffu));
  return value;
}

/* Each half of a minus the half of b. */
static __device__ __forceinline__ uint32_t nb_subtract_f16(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

/* a * b + c in each half, rounded once. */
static __device__ __forceinline__ uint32_t nb_fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

/* (a & mask) | bits: one instruction, which the compiler does not find where both are constants. */
static __device__ __forceinline__ uint32_t nb_mask_or(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}

/* Four bytes out of the eight of (high, low), a hex digit of `select` for each: 0 to 7, or with 8 more only the highest
 * bit of the byte, eight times. Bits 16 and up of `select` count for nothing. */
static __device__ __forceinline__ uint32_t nb_pick_bytes(uint32_t low, uint32_t high, uint32_t select) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(low), "r"(high), "r"(select));
  return d;
}

/* Copies from global to shared memory that go on while the thread does other things: 16 or 4 bytes each, gathered into
 * groups, in order. Not before nb_copies_wait<N>, when all but the newest N groups of this thread are there, may the
 * thread look at them, and after a barrier others. Both addresses are multiples of the size. */
static __device__ __forceinline__ void nb_copy_16(void *shared, const void *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(from)
               : "memory");
}
/* The same without a branch, or nothing. */
static __device__ __forceinline__ void nb_copy_16_if(bool wanted, void *shared, const void *from) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %0, 0; @p cp.async.cg.shared.global [%1], [%2], 16;}"
               :
               : "r"((uint32_t)wanted), "r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(from)
               : "memory");
}
static __device__ __forceinline__ void nb_copy_4_if(bool wanted, void *shared, const void *from) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %0, 0; @p cp.async.ca.shared.global [%1], [%2], 4;}"
               :
               : "r"((uint32_t)wanted), "r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(from)
               : "memory");
}
static __device__ __forceinline__ void nb_copies_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
static __device__ __forceinline__ void nb_copies_wait(void) {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Has bytes brought into the second-level cache; address and size are multiples of 16. Nothing before Hopper. */
static __device__ __forceinline__ void nb_prefetch(const void *at, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(at), "r"(bytes) : "memory");
#else
  (void)at, (void)bytes;
#endif
}

/* Loads past the first-level cache, which may hold what another block has overwritten since. */
static __device__ __forceinline__ float nb_load_fresh(const float *at) { return __ldcg(at); }
static __device__ __forceinline__ float4 nb_load_fresh(const float4 *at) { return __ldcg(at); }

/* 1 / sqrt(v) to two units in the last place, without the branches of a division and a root. */
static __device__ __forceinline__ float nb_inverse_root(float v) { return rsqrtf(v); }

/* The same pointer, in a register from here on: loads at constant distances from it then need no more registers for
 * their addresses, which the compiler would otherwise work out one by one. */
static __device__ __forceinline__ const float *nb_settled(const float *p) {
  asm volatile("" : "+l"(p));
  return p;
}

/* Adds one and gives what was there. What the block wrote before a __syncthreads before this can be seen by a block
 * whose later nb_arrive gave more. */
static __device__ __forceinline__ unsigned nb_arrive(unsigned *at) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(at) : "memory");
  return before;
}

/* A kernel that is launched early (nb_launch_early) may start while the one before it on the stream still runs. First
 * of all it lets the next one do the same, then it does what needs nothing of what earlier kernels wrote, and every
 * thread comes by nb_wait_for_previous before the rest: all that was queued before is done then and can be seen. (PTX
 * ISA, griddepcontrol; before Hopper kernels follow each other and both do nothing.) */
static __device__ __forceinline__ void nb_let_next_start(void) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
static __device__ __forceinline__ void nb_wait_for_previous(void) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Lets a kernel have as much shared memory as the device gives a block, which beyond 48 KB must be asked for: once,
 * outside of any recording. Only the launching thread comes here. */
static inline void nb_allow_shared(const void *kernel) {
  static const void *allowed[64];
  static int count;
  int device = 0, limit = 0, i = 0;
  while (i < count && allowed[i] != kernel) i++;
  if (i < count) return;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
  if (count < (int)(sizeof allowed / sizeof *allowed)) allowed[count++] = kernel;
}

/* Kernels take one struct by value, so that a launch is one call. Errors are asked for by the backend. */
template <typename Args>
static inline void nb_launch(void (*kernel)(Args), dim3 blocks, int threads, int64_t shared_bytes, cudaStream_t stream,
                             Args args) {
  if (shared_bytes > 48 << 10) nb_allow_shared((const void *)kernel);
  kernel<<<blocks, (unsigned)threads, (size_t)shared_bytes, stream>>>(args);
}

/* The same for a kernel that waits for the one before it by itself. */
template <typename Args>
static inline void nb_launch_early(void (*kernel)(Args), dim3 blocks, int threads, int64_t shared_bytes,
                                   cudaStream_t stream, Args args) {
  static int major;
  if (major == 0) cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major < 9) {
    nb_launch(kernel, blocks, threads, shared_bytes, stream, args);
    return;
  }
  if (shared_bytes > 48 << 10) nb_allow_shared((const void *)kernel);
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks, config.blockDim = dim3((unsigned)threads);
  config.dynamicSmemBytes = (size_t)shared_bytes, config.stream = stream;
  config.attrs = &early, config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, args);
}
#elif !defined(NB_TESTS_CUDA_EMULATOR_H)
#error "for nvcc, or for C++ with tests/kernels/cuda/cuda_emulator.h included first"
#endif

/* ---- within a warp ---------------------------------------------------------------------------------------------- */

#define NB_WARP 0xffffffffu

static __device__ __forceinline__ float nb_warp_sum(float v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(NB_WARP, v, step);
  return v;
}

static __device__ __forceinline__ float nb_warp_max(float v) {
  for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(NB_WARP, v, step));
  return v;
}

/* True in the last of some blocks to come by, each with all its threads; what the others wrote before can be read then,
 * past the first-level cache. `arrived` is zero before and after; `flag` is in shared memory. */
static __device__ __forceinline__ bool nb_came_last(unsigned *arrived, unsigned blocks, unsigned *flag) {
  __syncthreads();
  if (threadIdx.x == 0) {
    *flag = nb_arrive(arrived) == blocks - 1;
    if (*flag) *arrived = 0; /* for the next launch */
  }
  __syncthreads();
  return *flag != 0;
}

static __device__ __forceinline__ float nb_bits_float(uint32_t bits) { return __uint_as_float(bits); }

#endif
