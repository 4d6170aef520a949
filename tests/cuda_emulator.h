/* The kernels of kernels/cuda, run on the CPU: what a .cu file needs from CUDA, as plain C++. Each thread of a block is
 * a fiber; it runs until it must wait for the block (__syncthreads) or its warp (shuffles, mma) and is resumed when the
 * others have come. Fibers are resumed in ascending or descending order by turns, so that a missing barrier shows
 * sooner or later. Shared memory and fresh allocations are filled with NaN. mma follows the fragment tables of the PTX
 * ISA and knows nothing of the layout in tiles.h. Streams run at once; a capture records launches and a graph runs them
 * again. cuBLAS is three loops. Included before anything else in each .cu file that the tests compile as C++; its names
 * are then others, so that a build with CUDA has both. */
#ifndef NB_TESTS_CUDA_EMULATOR_H
#define NB_TESTS_CUDA_EMULATOR_H

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

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
#define nb_cuda_rotary nb_emulated_cuda_rotary
#define nb_cuda_attention_plan nb_emulated_cuda_attention_plan
#define nb_cuda_attention nb_emulated_cuda_attention
#define nb_cuda_gate nb_emulated_cuda_gate
#define nb_cuda_gather nb_emulated_cuda_gather
#define nb_cuda_log_probs nb_emulated_cuda_log_probs
#define nb_cuda_set_value nb_emulated_cuda_set_value
#define nb_matrix_upload nb_emulated_matrix_upload
#define nb_matrix_free nb_emulated_matrix_free
#define nb_cuda_gptq_begin nb_emulated_cuda_gptq_begin
#define nb_cuda_gptq_add nb_emulated_cuda_gptq_add
#define nb_cuda_gptq_sum nb_emulated_cuda_gptq_sum
#define nb_cuda_gptq_invert nb_emulated_cuda_gptq_invert
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
#define nb_cuda_quantize_4bit nb_emulated_cuda_quantize_4bit
#define nb_cuda_quantize_int8 nb_emulated_cuda_quantize_int8

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

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

enum { kWarp = 32, kStack = 128 << 10 };

// A warp's meeting: every lane brings something and takes what was made of it when the last has come.
struct Meeting {
  int arrived = 0, left = 0;
  unsigned generation = 0;
  alignas(16) unsigned char in[kWarp][64], out[kWarp][32];
  const char *what = nullptr;
};

struct Copy {
  void *to;
  const void *from;
  size_t bytes;
};

struct Fiber {
  ucontext_t context;
  std::vector<Copy> group;  // of copies that go on by themselves, not yet committed
  std::deque<std::vector<Copy>> groups;
  jmp_buf jump;
  bool started = false;
  std::vector<char> stack;
  dim3 thread;
  bool done = false;
  bool at_barrier = false;
  Meeting *waits = nullptr;  // for a generation of a meeting
  unsigned generation = 0;
};

struct Block {
  dim3 block, grid, size;
  std::vector<Fiber> *fibers;
  std::vector<Meeting> warps;
  std::vector<unsigned char> shared;
  Fiber *now = nullptr;
  ucontext_t scheduler;
  jmp_buf scheduler_jump;
  std::function<void()> body;
  int64_t barriers = 0;
  int64_t waited = 0;  // threads that have waited for the previous kernel
};

inline Block *&Current() {
  static Block *block = nullptr;
  return block;
}

[[noreturn]] inline void Die(const char *what) {
  fprintf(stderr, "cuda emulator: %s\n", what);
  abort();
}

// swapcontext asks the kernel for the signal mask each time, setjmp does not; the sanitizer follows the former only.
#ifdef __SANITIZE_ADDRESS__
inline void ToScheduler(Block *b, Fiber *me) { swapcontext(&me->context, &b->scheduler); }
inline void ToFiber(Block *b, Fiber *f) { swapcontext(&b->scheduler, &f->context); }
#else
inline void ToScheduler(Block *b, Fiber *me) {
  if (_setjmp(me->jump) == 0) _longjmp(b->scheduler_jump, 1);
}
inline void ToFiber(Block *b, Fiber *f) {
  if (_setjmp(b->scheduler_jump) != 0) return;
  if (f->started) _longjmp(f->jump, 1);
  f->started = true;
  setcontext(&f->context);
}
#endif

inline void Yield() {
  Block *b = Current();
  ToScheduler(b, b->now);
}

inline void Barrier() {
  Current()->now->at_barrier = true;
  Yield();
}

inline int Lane() { return (int)(Current()->now->thread.x % kWarp); }

// Brings `in`, waits for the whole warp, and takes `out`; the last to come works it out for all.
template <typename In, typename Out, typename Work>
Out Meet(const char *what, const In &in, Work work) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 32);
  Block *b = Current();
  Meeting &m = b->warps[b->now->thread.x / kWarp];
  if (m.arrived == 0) {
    m.what = what;
  } else if (strcmp(m.what, what) != 0) {
    Die("the lanes of a warp are at different operations");
  }
  int lane = Lane();
  memcpy(m.in[lane], &in, sizeof in);
  if (++m.arrived == kWarp) {
    In all[kWarp];
    Out made[kWarp];
    for (int i = 0; i < kWarp; i++) memcpy((void *)&all[i], m.in[i], sizeof(In));
    work(all, made);
    for (int i = 0; i < kWarp; i++) memcpy(m.out[i], (const void *)&made[i], sizeof(Out));
    m.arrived = 0;
    m.generation++;
  } else {
    b->now->waits = &m;
    b->now->generation = m.generation;
    Yield();
  }
  Out out;
  memcpy((void *)&out, m.out[lane], sizeof out);
  return out;
}

inline void FiberMain() {
  Block *b = Current();
  b->body();
  b->now->done = true;
  ToScheduler(b, b->now);
}

inline bool CanRun(const Fiber &f) {
  return !f.done && !f.at_barrier && (!f.waits || f.waits->generation != f.generation);
}

inline void RunBlock(Block *b, bool backwards) {
  size_t threads = b->size.x;
  std::vector<Fiber> &fibers = *b->fibers;
  if (fibers.size() < threads) fibers.resize(threads);
  b->warps.assign((threads + kWarp - 1) / kWarp, Meeting());
  Current() = b;
  for (size_t i = 0; i < threads; i++) {
    Fiber &f = fibers[i];
    f.thread = dim3((unsigned)i, 0, 0);
    f.done = f.at_barrier = f.started = false;
    f.waits = nullptr;
    f.group.clear(), f.groups.clear();
    if (f.stack.empty()) f.stack.resize(kStack);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, FiberMain, 0);
  }
  for (;;) {
    size_t done = 0, waiting = 0;
    bool ran = false;
    for (size_t k = 0; k < threads; k++) {
      Fiber &f = fibers[backwards ? threads - 1 - k : k];
      while (CanRun(f)) {
        f.waits = nullptr;
        b->now = &f;
        ToFiber(b, &f);
        ran = true;
      }
      done += f.done;
      waiting += f.at_barrier;
    }
    if (done == threads) break;
    if (ran) continue;
    if (waiting + done != threads) Die("a warp waits for a lane that never comes");
    if (waiting == 0 || done != 0) Die("a barrier that some threads never reach");
    for (size_t i = 0; i < threads; i++) fibers[i].at_barrier = false;
    b->barriers++;
  }
  Current() = nullptr;
}

inline int64_t &Launches() {
  static int64_t count = 0;
  return count;
}

inline void RunGrid(dim3 grid, int threads, int64_t shared_bytes, bool is_early, const std::function<void()> &body) {
  static std::vector<Fiber> fibers;  // their stacks are kept
  Block block;
  block.fibers = &fibers;
  block.grid = grid;
  block.size = dim3((unsigned)threads);
  block.body = body;
  if (threads < 1 || threads > 1024 || shared_bytes > 227 << 10) Die("a launch that no GPU would take");
  int64_t count = (int64_t)grid.x * grid.y * grid.z;
  bool backwards = Launches()++ % 2 != 0;
  for (int64_t i = 0; i < count; i++) {
    int64_t at = backwards ? count - 1 - i : i;
    block.block = dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
    block.shared.assign((size_t)shared_bytes + 16, 0xff);
    block.waited = 0;
    RunBlock(&block, backwards);
    if (block.waited != (is_early ? threads : 0))
      Die("a kernel that is launched early, and a thread that does not wait");
  }
}

struct Graph {
  std::vector<std::function<void()>> work;
};
inline Graph *&Capturing() {
  static Graph *graph = nullptr;
  return graph;
}

inline void Queue(std::function<void()> work) {
  if (Capturing()) {
    Capturing()->work.push_back(std::move(work));
  } else {
    work();
  }
}

inline int64_t &Allocated() {
  static int64_t bytes = 0;
  return bytes;
}

inline float HalfToFloat(uint16_t h) {
  int exponent = h >> 10 & 31, fraction = h & 1023;
  float v = exponent == 0    ? std::ldexp((float)fraction, -24)
            : exponent == 31 ? (fraction ? NAN : INFINITY)
                             : std::ldexp((float)(1024 + fraction), exponent - 25);
  return h & 0x8000 ? -v : v;
}

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
inline float BfloatToFloat(uint16_t h) { return Float((uint32_t)h << 16); }

inline uint16_t FloatToBfloat(float f) {
  if (std::isnan(f)) return 0x7fff;
  uint32_t bits = Bits(f);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t FloatToHalf(float f) {
  if (std::isnan(f)) return 0x7fff;
  uint16_t sign = (uint16_t)(Bits(f) >> 16 & 0x8000);
  float a = std::fabs(f);
  if (a >= 65520) return sign | 0x7c00;
  int exponent;
  std::frexp(a, &exponent);
  exponent = std::max(exponent, -13);
  float steps = std::nearbyint(std::ldexp(a, 11 - exponent));  // of the last place
  if (steps == 2048) steps = 1024, exponent++;
  if (steps < 1024) return (uint16_t)(sign | (int)steps);
  return (uint16_t)(sign | (exponent + 14) << 10 | ((int)steps - 1024));
}

struct MmaIn {
  uint32_t a[4], b[2];
  float d[4];
};
struct MmaOut {
  float d[4];
};

// PTX ISA, m16n8k16: for A, registers 0 to 3 are (row g, column 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), a pair
// along the columns each; for B (row 2t, column g), (2t + 8, g), a pair along the rows; for D (g, 2t), (g, 2t + 1),
// (g + 8, 2t), (g + 8, 2t + 1).
template <typename Widen>
void Mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1, Widen widen) {
  MmaIn in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
  MmaOut out = Meet<MmaIn, MmaOut>("mma", in, [&](const MmaIn *all, MmaOut *made) {
    float ma[16][16], mb[16][8];
    for (int lane = 0; lane < kWarp; lane++) {
      int g = lane / 4, t = lane % 4;
      for (int reg = 0; reg < 4; reg++) {
        for (int half = 0; half < 2; half++)
          ma[g + reg % 2 * 8][2 * t + reg / 2 * 8 + half] = widen((uint16_t)(all[lane].a[reg] >> (16 * half)));
      }
      for (int reg = 0; reg < 2; reg++) {
        for (int half = 0; half < 2; half++)
          mb[2 * t + reg * 8 + half][g] = widen((uint16_t)(all[lane].b[reg] >> (16 * half)));
      }
    }
    for (int lane = 0; lane < kWarp; lane++) {
      for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = all[lane].d[i];
        for (int k = 0; k < 16; k++) sum += (double)ma[row][k] * (double)mb[k][column];
        made[lane].d[i] = (float)sum;
      }
    }
  });
  memcpy(d, out.d, sizeof out.d);
}

template <typename T>
T Shuffle(T value, int from) {
  struct In {
    T value;
    int from;
  };
  return Meet<In, T>("shuffle", {value, from}, [](const In *all, T *made) {
    for (int i = 0; i < kWarp; i++) made[i] = all[all[i].from & 31].value;
  });
}

}  // namespace emulator

#define threadIdx (emulator::Current()->now->thread)
#define blockIdx (emulator::Current()->block)
#define blockDim (emulator::Current()->size)
#define gridDim (emulator::Current()->grid)

inline void __syncthreads() { emulator::Barrier(); }
inline void __syncwarp() { emulator::Shuffle(0, 0); }
inline void __threadfence() {}
template <typename T>
T __shfl_xor_sync(unsigned, T v, int mask) {
  return emulator::Shuffle(v, emulator::Lane() ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T v, int lane) {
  return emulator::Shuffle(v, lane);
}
template <typename T>
T atomicAdd(T *at, T v) {
  T before = *at;
  *at += v;
  return before;
}
template <typename T>
T atomicMin(T *at, T v) {
  T before = *at;
  *at = std::min(before, v);
  return before;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned __float_as_uint(float f) { return emulator::Bits(f); }
inline float __uint_as_float(unsigned u) { return emulator::Float(u); }
inline float __expf(float v) { return std::exp(v); }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
using std::max;
using std::min;

inline unsigned char *nb_shared() {
  unsigned char *p = emulator::Current()->shared.data();
  return p + (16 - (uintptr_t)p % 16) % 16;
}
inline void nb_mma_f16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  emulator::Mma(d, a, b0, b1, emulator::HalfToFloat);
}
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
  for (int i = 0; i < 4; i++) out |= (uint32_t)(bytes >> (select >> (4 * i) & 7) * 8 & 255) << (8 * i);
  return out;
}
inline void nb_let_next_start() {}
inline void nb_wait_for_previous() { emulator::Current()->waited++; }
inline float nb_inverse_root(float v) { return 1.0f / std::sqrt(v); }
inline const float *nb_settled(const float *p) { return p; }
inline unsigned nb_arrive(unsigned *at) { return (*at)++; }
inline float nb_load_fresh(const float *at) { return *at; }
inline float4 nb_load_fresh(const float4 *at) { return *at; }

// Copies happen as late as they may: when the thread waits for their group.
inline void nb_copy_16(void *to, const void *from) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) emulator::Die("a copy of 16 bytes that is not aligned");
  emulator::Current()->now->group.push_back({to, from, 16});
}
inline void nb_copy_16_if(bool wanted, void *to, const void *from) {
  if (wanted) nb_copy_16(to, from);
}
inline void nb_copy_4_if(bool wanted, void *to, const void *from) {
  if (wanted) emulator::Current()->now->group.push_back({to, from, 4});
}
inline void nb_copies_commit() {
  emulator::Fiber *f = emulator::Current()->now;
  f->groups.push_back(std::move(f->group));
  f->group.clear();
}
template <int N>
void nb_copies_wait() {
  std::deque<std::vector<emulator::Copy>> &groups = emulator::Current()->now->groups;
  for (; groups.size() > N; groups.pop_front()) {
    for (const emulator::Copy &c : groups.front()) memcpy(c.to, c.from, c.bytes);
  }
}
inline void nb_prefetch(const void *at, uint32_t bytes) {
  if ((uintptr_t)at % 16 || bytes % 16) emulator::Die("a prefetch that is not aligned");
  volatile char sum = 0;  // the sanitizer sees what lies beyond the end
  for (uint32_t i = 0; i < bytes; i += 16) sum = sum + ((const volatile char *)at)[i];
}

/* ---- cuBLAS -------------------------------------------------------------------------------------------------------
 */

namespace emulator {

inline int BlasCreate(void **handle) {
  static int something;
  *handle = &something;
  return 0;
}
inline int BlasDestroy(void *) { return 0; }
inline int BlasSetStream(void *, int *) { return 0; }
inline int BlasSetWorkspace(void *, void *, size_t) { return 0; }

// Column-major c [m, n] = alpha op(a) [m, k] op(b) [k, n] + beta c; types 0 float32, 2 float16, 14 bfloat16; op 1
// transposes.
inline int BlasGemmEx(void *, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type,
                      int lda, const void *b, int, int ldb, const void *beta, void *c, int, int ldc, int, int) {
  auto at = [type](const void *p, int64_t i) {
    if (type == 0) return ((const float *)p)[i];
    uint16_t bits = ((const uint16_t *)p)[i];
    return type == 2 ? HalfToFloat(bits) : BfloatToFloat(bits);
  };
  float *out = (float *)c, factor = *(const float *)alpha, keep = *(const float *)beta;
  Queue([=] {
    for (int j = 0; j < n; j++) {
      for (int i = 0; i < m; i++) {
        double sum = 0;
        for (int l = 0; l < k; l++)
          sum += (double)at(a, op_a ? (int64_t)i * lda + l : (int64_t)l * lda + i) *
                 at(b, op_b ? (int64_t)l * ldb + j : (int64_t)j * ldb + l);
        float *to = &out[(int64_t)j * ldc + i];
        *to = (float)(factor * sum) + (keep == 0 ? 0 : keep * *to);
      }
    }
  });
  return 0;
}

inline bool &HasBlas() {
  static bool has = true;
  return has;
}

// Column-major, as the libraries count; `uplo` 0 is the lower triangle, and what is not read may be anything.
inline int BlasSgemm(void *, int, int, int m, int n, int k, const float *, const float *a, int lda, const float *b,
                     int ldb, const float *, float *c, int ldc) {
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < m; i++) {
      double sum = c[(int64_t)j * ldc + i];
      for (int l = 0; l < k; l++) sum += (double)a[(int64_t)l * lda + i] * b[(int64_t)j * ldb + l];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
inline int BlasSsyrk(void *, int uplo, int op, int n, int k, const float *, const float *a, int lda, const float *,
                     float *c, int ldc) {
  if (uplo != 0 || op != 0) Die("ssyrk: another triangle");
  for (int j = 0; j < n; j++) {
    for (int i = j; i < n; i++) {
      double sum = c[(int64_t)j * ldc + i];
      for (int l = 0; l < k; l++) sum += (double)a[(int64_t)l * lda + i] * a[(int64_t)l * lda + j];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
inline int BlasSsymm(void *, int side, int uplo, int m, int n, const float *, const float *a, int lda, const float *b,
                     int ldb, const float *, float *c, int ldc) {
  if (side != 0 || uplo != 0) Die("ssymm: another side");
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < m; i++) {
      double sum = 0;
      for (int l = 0; l < m; l++)
        sum += (double)a[(int64_t)std::min(i, l) * lda + std::max(i, l)] * b[(int64_t)j * ldb + l];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
inline int BlasDtrsm(void *, int side, int uplo, int op, int, int m, int n, const double *, const double *a, int lda,
                     double *b, int ldb) {
  if (side != 0 || uplo != 0 || op != 0) Die("dtrsm: another side");
  for (int j = 0; j < n; j++) {
    double *x = b + (int64_t)j * ldb;
    for (int i = 0; i < m; i++) {
      for (int l = 0; l < i; l++) x[i] -= a[(int64_t)l * lda + i] * x[l];
      x[i] /= a[(int64_t)i * lda + i];
    }
  }
  return 0;
}
inline int PotrfRoom(void *, int, int, double *, int, int *room) {
  *room = 0;
  return 0;
}
inline int Potrf(void *, int uplo, int n, double *a, int lda, double *, int, int *info) {
  if (uplo != 0) Die("dpotrf: another triangle");
  *info = 0;
  for (int j = 0; j < n && *info == 0; j++) {
    double *column = a + (int64_t)j * lda;
    for (int l = 0; l < j; l++) {
      for (int i = j; i < n; i++) column[i] -= a[(int64_t)l * lda + i] * a[(int64_t)l * lda + j];
    }
    if (!(column[j] > 0)) *info = j + 1;
    double root = std::sqrt(column[j]);
    for (int i = j; i < n; i++) column[i] /= root;
  }
  return 0;
}

}  // namespace emulator

inline void *nb_solver_symbol(const char *name) {
  using namespace emulator;
  if (strcmp(name, "cusolverDnCreate") == 0) return (void *)BlasCreate;
  if (strcmp(name, "cusolverDnSetStream") == 0) return (void *)BlasSetStream;
  if (strcmp(name, "cusolverDnDpotrf_bufferSize") == 0) return (void *)PotrfRoom;
  return strcmp(name, "cusolverDnDpotrf") == 0 ? (void *)Potrf : nullptr;
}
inline void *nb_blas_symbol(const char *name) {
  using namespace emulator;
  if (!HasBlas()) return nullptr;
  if (strcmp(name, "cublasCreate_v2") == 0) return (void *)BlasCreate;
  if (strcmp(name, "cublasDestroy_v2") == 0) return (void *)BlasDestroy;
  if (strcmp(name, "cublasSetStream_v2") == 0) return (void *)BlasSetStream;
  if (strcmp(name, "cublasSetWorkspace_v2") == 0) return (void *)BlasSetWorkspace;
  if (strcmp(name, "cublasSgemm_v2") == 0) return (void *)BlasSgemm;
  if (strcmp(name, "cublasSsyrk_v2") == 0) return (void *)BlasSsyrk;
  if (strcmp(name, "cublasSsymm_v2") == 0) return (void *)BlasSsymm;
  if (strcmp(name, "cublasDtrsm_v2") == 0) return (void *)BlasDtrsm;
  return strcmp(name, "cublasGemmEx") == 0 ? (void *)BlasGemmEx : nullptr;
}

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

namespace emulator {
inline bool is_memory_full = false;
}
inline cudaError_t cudaMalloc(void **out, size_t bytes) {
  if (emulator::is_memory_full || !(*out = malloc(bytes + 256))) return cudaErrorMemoryAllocation;
  memset(*out, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void *p) {
  free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaMalloc(out, bytes); }
inline cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind, cudaStream_t) {
  emulator::Queue([=] { memcpy(to, from, n); });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t) {
  emulator::Queue([=] { memset(to, value, n); });
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, int) { return cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char *cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDeviceCount(int *n) {
  *n = 1;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr what, int) {
  *out = what == cudaDevAttrMultiProcessorCount ? 3 : what == cudaDevAttrComputeCapabilityMajor ? 9 : 227 << 10;
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = (size_t)8 << 30;
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  emulator::Capturing() = new emulator::Graph;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out) {
  *out = emulator::Capturing();
  emulator::Capturing() = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  *out = new emulator::Graph(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (auto &work : graph->work) work();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

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
