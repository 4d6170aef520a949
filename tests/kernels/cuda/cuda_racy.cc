// Compiled as the kernels of kernels/cuda are (CMakeLists.txt).
#include "tests/kernels/cuda/cuda_racy.h"

#include "kernels/cuda/device.h"

namespace {

enum { THREADS = 64, BLOCKS = 3 };

struct RacyArgs {
  Racy what;
  bool is_right;
  float *from, *to;  // [BLOCKS * THREADS]
  unsigned *arrived;
};

// Within a warp: what one lane wrote is read by its neighbour.
void RunLanes(const RacyArgs &a, float *shared, int t) {
  shared[t] = (float)t;
  if (a.what == kShuffled) __shfl_sync(NB_WARP, t, 0);
  if (a.is_right) __syncwarp();
  a.to[t] = shared[t ^ 1];
}

void RunWarps(const RacyArgs &a, float *shared, int t) {
  shared[t] = (float)t;
  __syncwarp();
  if (a.is_right) __syncthreads();
  a.to[t] = shared[t ^ 32];
}

void RunOverwritten(const RacyArgs &a, float *shared, int t) {
  shared[t] = (float)t;
  __syncthreads();
  a.to[t] = shared[t ^ 32];
  if (a.is_right) __syncthreads();
  shared[t] = 0;
}

void RunManyReaders(const RacyArgs &a, float *shared, int t) {
  unsigned char *bytes = (unsigned char *)(shared + THREADS);
  bytes[t] = (unsigned char)t;  // neighbours in one word are no mistake
  if (t == 0) shared[0] = 1;
  __syncthreads();
  a.to[t] = t < 32 ? shared[0] : bytes[t];
  if (a.is_right) __syncwarp();
  if (t == 5) shared[0] = 2;
}

void RunCopies(const RacyArgs &a, float *shared, int t) {
  nb_copy_4_if(true, shared + t, a.from + t);
  nb_copies_commit();
  if (a.what == kCopyOfAnother || a.is_right) nb_copies_wait<0>();
  if (a.is_right) __syncwarp();
  a.to[t] = shared[a.what == kCopyOfAnother ? t ^ 1 : t];
}

void RunRefilled(const RacyArgs &a, float *shared, int t) {
  for (int turn = 0; turn < 3; turn++) {
    nb_copy_4_if(true, shared + t, a.from + turn * THREADS + t);
    nb_copies_commit();
    nb_copies_wait<0>();
    __syncwarp();
    a.to[t] = shared[t ^ 1];
    if (a.is_right) __syncwarp();
  }
}

void RunBlocks(const RacyArgs &a, float *shared, int t) {
  float *mine = a.to + blockIdx.x * THREADS;
  mine[t] = (float)t;
  bool is_last = blockIdx.x == BLOCKS - 1;
  if (a.what == kStale || a.is_right) {
    is_last = nb_came_last(a.arrived, BLOCKS, (unsigned *)shared);
  } else {
    __syncthreads();
  }
  if (!is_last) return;
  float sum = 0;
  for (int b = 0; b < BLOCKS; b++) {
    const float *at = a.to + b * THREADS + (t ^ 1);
    sum += a.is_right || a.what == kNotArrived ? nb_load_fresh(at) : *at;
  }
  a.from[t] = sum;
}

void RacyKernel(RacyArgs a) {
  float *shared = (float *)nb_shared();
  int t = (int)threadIdx.x;
  switch (a.what) {
    case kLanes:
    case kShuffled: RunLanes(a, shared, t); break;
    case kWarps: RunWarps(a, shared, t); break;
    case kOverwritten: RunOverwritten(a, shared, t); break;
    case kManyReaders: RunManyReaders(a, shared, t); break;
    case kCopyNotWaited:
    case kCopyOfAnother: RunCopies(a, shared, t); break;
    case kRefilled: RunRefilled(a, shared, t); break;
    default: RunBlocks(a, shared, t); break;
  }
}

void WritingKernel(RacyArgs a) { a.from[threadIdx.x] = 1; }

void EarlyKernel(RacyArgs a) {
  int t = (int)threadIdx.x;
  nb_let_next_start();
  if (a.what == kEarlyLine) {
    float beside = a.from[THREADS];  // in the line of the last that the kernel before wrote
    nb_wait_for_previous();
    a.to[t] = beside + (a.is_right ? nb_load_fresh(a.from + t) : a.from[t]);
    return;
  }
  if (a.is_right) nb_wait_for_previous();
  float v = a.what == kEarlyRead ? a.from[t] : 0;
  if (a.what == kEarlyWrite) a.from[t] = v;
  if (!a.is_right) nb_wait_for_previous();
  a.to[t] = v;
}

}  // namespace

void RunRacy(Racy what, bool is_right) {
  void *from = nullptr, *to = nullptr;
  static unsigned arrived;
  cudaMalloc(&from, (BLOCKS * THREADS + 16) * sizeof(float));
  cudaMalloc(&to, BLOCKS * THREADS * sizeof(float));
  RacyArgs a = {what, is_right, (float *)from + 16, (float *)to, &arrived};
  if (what >= kEarlyRead) {
    nb_launch(WritingKernel, dim3(1), THREADS, 0, nullptr, a);
    nb_launch_early(EarlyKernel, dim3(1), THREADS, 0, nullptr, a);
  } else {
    bool many = what == kNotArrived || what == kStale;
    nb_launch(RacyKernel, dim3(many ? BLOCKS : 1), THREADS, 1024, nullptr, a);
  }
  cudaStreamSynchronize(nullptr);
  cudaFree(from), cudaFree(to);
}

const char *RacyName(Racy what) {
  static const char *const names[kRacyCount] = {
      "lanes",    "shuffled",    "warps", "overwritten", "many readers", "copy not waited", "copy of another",
      "refilled", "not arrived", "stale", "early read",  "early write",  "early line"};
  return names[what];
}
