// The machine of cuda_emulator.h: fibers, meetings of a warp, asynchronous copies, and the runtime's calls.
#include "tests/kernels/cuda/cuda_emulator.h"

#include <ucontext.h>

#include <deque>
#include <memory>
#include <vector>

#include "tests/kernels/cuda/cuda_races.h"

namespace emulator {

bool is_memory_full = false;

namespace {

enum { kWarp = 32, kStack = 128 << 10 };

// A warp's meeting: every lane brings something and takes what was made of it when the last has come.
struct Meeting {
  int arrived = 0;
  unsigned generation = 0;
  alignas(16) unsigned char in[kWarp][64], out[kWarp][32];
  const char *what = nullptr;
};

struct AsyncCopy {
  void *to;
  const void *from;
  size_t bytes;
};

typedef void *Jump[5];  // of __builtin_setjmp

// Runs one thread of a block after the other: it is started once and then goes from body to body.
struct Fiber {
  std::vector<AsyncCopy> group;  // not yet committed
  std::deque<std::vector<AsyncCopy>> groups;
  Jump jump;
  std::unique_ptr<char[]> stack = std::unique_ptr<char[]>(new char[kStack]);
  bool started = false;
  races::Now now;
  bool done = false;
  bool at_barrier = false;
  Meeting *waits = nullptr;  // for a generation of a meeting
  unsigned generation = 0;
};

struct Block {
  dim3 block, grid, size;
  std::deque<Fiber> *fibers;
  std::vector<Meeting> warps;
  std::vector<unsigned char> shared;
  Fiber *fiber = nullptr;
  Jump scheduler;
  std::function<void()> body;
};

Block *current = nullptr;

// A switch is a jump, as every frame stays where it is. It is the compiler's own: swapcontext asks the kernel for the
// signal mask each time, and the sanitizer's versions of it and of longjmp forget what is poisoned in the stack. The
// sanitizer need not see the functions that jump, nor may callers know which registers they use: others come between.
#define NB_UNSEEN __attribute__((noipa, no_sanitize("address")))

NB_UNSEEN void Go(Jump to) { __builtin_longjmp(to, 1); }  // the compiler forbids it beside __builtin_setjmp

NB_UNSEEN void Yield() {
  if (__builtin_setjmp(current->fiber->jump) == 0) Go(current->scheduler);
}

// Brings `in`, waits for the whole warp, and takes `out`; the last to come works it out for all.
template <typename In, typename Out, typename Work>
Out Meet(const char *what, const In &in, Work work) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 32);
  Fiber *f = current->fiber;
  Meeting &m = current->warps[f->now.thread / kWarp];
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
    f->waits = &m;
    f->generation = m.generation;
    Yield();
  }
  Out out;
  memcpy((void *)&out, m.out[lane], sizeof out);
  return out;
}

void FiberMain() {
  for (;;) {
    current->body();
    current->fiber->done = true;
    Yield();
  }
}

NB_UNSEEN void StartFiber(Fiber *f) {
  ucontext_t context;
  f->started = true;
  getcontext(&context);
  context.uc_stack.ss_sp = f->stack.get();
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, FiberMain, 0);
  setcontext(&context);
}

NB_UNSEEN void ToFiber(Block *b, Fiber *f) {
  if (__builtin_setjmp(b->scheduler) != 0) return;
  if (!f->started) StartFiber(f);
  Go(f->jump);
}

bool CanRun(const Fiber &f) { return !f.done && !f.at_barrier && (!f.waits || f.waits->generation != f.generation); }

void ResumeFiber(Block *b, Fiber *f) {
  f->waits = nullptr;
  b->fiber = f;
  races::Run(&f->now, f->stack.get(), kStack);
  ToFiber(b, f);
  races::Run(nullptr, nullptr, 0);
}

void PrepareFiber(Fiber *f, unsigned thread, uint32_t run, bool is_early) {
  f->now = {run, (uint16_t)thread, 0, 0, is_early};
  f->done = f->at_barrier = false;
  f->waits = nullptr;
  f->group.clear(), f->groups.clear();
}

void RunBlock(Block *b, bool backwards, bool is_early) {
  size_t threads = b->size.x;
  std::deque<Fiber> &fibers = *b->fibers;
  if (fibers.size() < threads) fibers.resize(threads);
  b->warps.assign((threads + kWarp - 1) / kWarp, Meeting());
  current = b;
  uint32_t run = races::BeginBlock(b->shared.data(), b->shared.size());
  for (size_t i = 0; i < threads; i++) PrepareFiber(&fibers[i], (unsigned)i, run, is_early);
  for (;;) {
    size_t done = 0, waiting = 0;
    bool ran = false;
    for (size_t k = 0; k < threads; k++) {
      Fiber &f = fibers[backwards ? threads - 1 - k : k];
      while (CanRun(f)) {
        ResumeFiber(b, &f);
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
  }
  current = nullptr;
  for (size_t i = 0; i < threads; i++)
    if (fibers[i].now.may_run_early) Die("a kernel that is launched early, and a thread that does not wait");
}

}  // namespace

[[noreturn]] void Die(const char *what) {
  fprintf(stderr, "cuda emulator: %s\n", what);
  abort();
}

dim3 Thread() { return dim3(current->fiber->now.thread, 0, 0); }
dim3 BlockOf() { return current->block; }
dim3 BlockSize() { return current->size; }
dim3 GridSize() { return current->grid; }
int Lane() { return current->fiber->now.thread % kWarp; }

void Barrier() {
  Fiber *f = current->fiber;
  f->at_barrier = true;
  Yield();
  if (++f->now.block_barriers == 0) Die("more barriers than can be counted");
}

void SyncWarp() {
  struct Nothing {};
  Meet<Nothing, Nothing>("__syncwarp", {}, [](const Nothing *, Nothing *) {});
  current->fiber->now.warp_barriers++;
}

void Shuffle(void *value, size_t bytes, int from) {
  struct Value {
    unsigned char bytes[16];
    int from;
  } in = {};
  if (bytes > sizeof in.bytes) Die("a shuffle of more than 16 bytes");
  memcpy(in.bytes, value, bytes);
  in.from = from;
  Value out = Meet<Value, Value>("shuffle", in, [](const Value *all, Value *made) {
    for (int i = 0; i < kWarp; i++) made[i] = all[all[i].from & 31];
  });
  memcpy(value, out.bytes, bytes);
}

// For A, registers 0 to 3 are (row g, column 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), a pair along the columns
// each; for B (row 2t, column g), (2t + 8, g), a pair along the rows; for D (g, 2t), (g, 2t + 1), (g + 8, 2t),
// (g + 8, 2t + 1).
void Mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  struct In {
    uint32_t a[4], b[2];
    float d[4];
  };
  struct Out {
    float d[4];
  };
  In in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
  Out out = Meet<In, Out>("mma", in, [](const In *all, Out *made) {
    float ma[16][16], mb[8][16];
    for (int lane = 0; lane < kWarp; lane++) {
      int g = lane / 4, t = lane % 4;
      for (int half = 0; half < 2; half++) {
        for (int reg = 0; reg < 4; reg++)
          ma[g + reg % 2 * 8][2 * t + reg / 2 * 8 + half] = HalfToFloat((uint16_t)(all[lane].a[reg] >> (16 * half)));
        for (int reg = 0; reg < 2; reg++)
          mb[g][2 * t + reg * 8 + half] = HalfToFloat((uint16_t)(all[lane].b[reg] >> (16 * half)));
      }
    }
    for (int lane = 0; lane < kWarp; lane++) {
      for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = all[lane].d[i];
        for (int k = 0; k < 16; k++) sum += (double)ma[row][k] * (double)mb[column][k];
        made[lane].d[i] = (float)sum;
      }
    }
  });
  memcpy(d, out.d, sizeof out.d);
}

unsigned char *Shared() {
  unsigned char *p = current->shared.data();
  return p + (16 - (uintptr_t)p % 16) % 16;
}

void WaitForPrevious() {
  bool &may_run_early = current->fiber->now.may_run_early;
  if (!may_run_early) Die("a thread that waits for the previous kernel twice, or is not launched early");
  may_run_early = false;
}

unsigned Arrive(unsigned *at) {
  races::Arrive(at, __builtin_return_address(0));
  return (*at)++;
}

unsigned long long AtomicMin(unsigned long long *at, unsigned long long v) {
  races::Atomic(at, sizeof v, __builtin_return_address(0));
  unsigned long long before = *at;
  *at = std::min(before, v);
  return before;
}

void ReadFresh(void *out, const void *at, size_t bytes) {
  races::ReadFresh(at, bytes, __builtin_return_address(0));
  memcpy(out, at, bytes);
}

// Copies happen as late as they may: when the thread waits for their group.
void Copy(void *to, const void *from, size_t bytes) {
  if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) Die("an asynchronous copy that is not aligned");
  races::BeginCopy(to, from, bytes, __builtin_return_address(0));
  current->fiber->group.push_back({to, from, bytes});
}

void Commit() {
  Fiber *f = current->fiber;
  f->groups.push_back(std::move(f->group));
  f->group.clear();
}

void WaitForCopies(size_t newest) {
  std::deque<std::vector<AsyncCopy>> &groups = current->fiber->groups;
  for (; groups.size() > newest; groups.pop_front()) {
    for (const AsyncCopy &c : groups.front()) {
      memcpy(c.to, c.from, c.bytes);
      races::EndCopy(c.to, c.bytes);
    }
  }
}

void Prefetch(const void *at, uint32_t bytes) {
  if ((uintptr_t)at % 16 || bytes % 16) Die("a prefetch that is not aligned");
  volatile char sum = 0;  // the sanitizer sees what lies beyond the end
  for (uint32_t i = 0; i < bytes; i += 16) sum = sum + ((const volatile char *)at)[i];
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

void RunGrid(dim3 grid, int threads, int64_t shared_bytes, bool is_early, const std::function<void()> &body) {
  static std::deque<Fiber> fibers;
  static int64_t launches = 0;
  Block block;
  block.fibers = &fibers;
  block.grid = grid;
  block.size = dim3((unsigned)threads);
  block.body = body;
  if (threads < 1 || threads > 1024 || shared_bytes > 227 << 10) Die("a launch that no GPU would take");
  int64_t count = (int64_t)grid.x * grid.y * grid.z;
  bool backwards = launches++ % 2 != 0;
  races::BeginLaunch();
  for (int64_t i = 0; i < count; i++) {
    int64_t at = backwards ? count - 1 - i : i;
    block.block = dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
    block.shared.assign((size_t)shared_bytes + 16, 0xff);
    RunBlock(&block, backwards, is_early);
  }
}

struct Graph {
  std::vector<std::function<void()>> work;
};

static Graph *capturing = nullptr;

void Queue(std::function<void()> work) {
  if (capturing) {
    capturing->work.push_back(std::move(work));
  } else {
    work();
  }
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

float HalfToFloat(uint16_t h) {
  static const std::vector<float> table = [] {
    std::vector<float> t(1 << 16);
    for (int i = 0; i < 1 << 16; i++) {
      int exponent = i >> 10 & 31, fraction = i & 1023;
      float v = exponent == 0    ? std::ldexp((float)fraction, -24)
                : exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : std::ldexp((float)(1024 + fraction), exponent - 25);
      t[(size_t)i] = i & 0x8000 ? -v : v;
    }
    return t;
  }();
  return table[h];
}

float BfloatToFloat(uint16_t h) { return Float((uint32_t)h << 16); }

uint16_t FloatToBfloat(float f) {
  if (std::isnan(f)) return 0x7fff;
  uint32_t bits = Bits(f);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t FloatToHalf(float f) {
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

}  // namespace emulator

/* ---- the runtime ------------------------------------------------------------------------------------------------ */

cudaError_t cudaMalloc(void **out, size_t bytes) {
  enum { kAlignment = 256 };
  if (emulator::is_memory_full || posix_memalign(out, kAlignment, bytes + kAlignment) != 0)
    return cudaErrorMemoryAllocation;
  memset(*out, 0xff, bytes);
  races::Allocated(*out, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
  races::Freed(p);
  free(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaMalloc(out, bytes); }
cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind, cudaStream_t) {
  emulator::Queue([=] {
    memcpy(to, from, n);
    races::WrittenByCopy(to, n);
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t) {
  emulator::Queue([=] {
    memset(to, value, n);
    races::WrittenByCopy(to, n);
  });
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  races::Synchronize();
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, int) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t) { return "no error"; }
cudaError_t cudaGetDeviceCount(int *n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr what, int) {
  *out = what == cudaDevAttrMultiProcessorCount ? 3 : what == cudaDevAttrComputeCapabilityMajor ? 9 : 227 << 10;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = (size_t)8 << 30;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  emulator::capturing = new emulator::Graph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out) {
  *out = emulator::capturing;
  emulator::capturing = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  *out = new emulator::Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  races::Synchronize();  // no kernel of a graph begins before what was queued ahead of it has ended, or outlives it
  for (auto &work : graph->work) work();
  races::Synchronize();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
