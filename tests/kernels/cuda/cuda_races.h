/* Accesses to memory that nothing orders, as cuda_emulator.h runs kernels one thread after the other: what the
 * racecheck of compute-sanitizer finds on a GPU, and what it does not. A byte of shared or global memory remembers its
 * last write and the reads since. Two accesses by two threads, one of them a write, are ordered by a barrier of the
 * block, by one of the warp (__syncwarp, not a shuffle), or between blocks by nb_arrive. It also reports
 *   - an asynchronous copy's target touched between the copy and the wait for its group,
 *   - what another block of the launch wrote, read other than by nb_load_fresh,
 *   - a kernel that is launched early and, before it waits for the one before it, writes global memory or reads what a
 *     kernel has written, or afterwards reads that by a plain load from a line that its cache may have from before.
 *
 * Plain accesses are seen where the compiler put the calls of -fsanitize=thread; this is their runtime. */
#ifndef NB_TESTS_CUDA_RACES_H
#define NB_TESTS_CUDA_RACES_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace races {

// The thread that runs, and when: barriers that it has come by.
struct Now {
  uint32_t run;  // of a block: all blocks of all launches are counted
  uint16_t thread;
  uint16_t block_barriers;
  uint32_t warp_barriers;
  bool may_run_early;  // before it has waited for the previous kernel
};

// True if the kernels of this program tell of their accesses.
bool IsOn();

void BeginLaunch();
// Gives the block's `run`.
uint32_t BeginBlock(const unsigned char *shared, size_t shared_bytes);
// The thread that runs from now on, and where its stack lies; NULL: none.
void Run(const Now *now, const void *stack, size_t stack_bytes);

// `pc`: where in the program.
void BeginCopy(void *to, const void *from, size_t bytes, const void *pc);
void EndCopy(void *to, size_t bytes);
void Arrive(unsigned *at, const void *pc);
void Atomic(void *at, size_t bytes, const void *pc);
void ReadFresh(const void *at, size_t bytes, const void *pc);

void Allocated(void *at, size_t bytes);
void Freed(void *at);
// Something other than a kernel of ours wrote there: a copy, which nothing overlaps, or a library.
void WrittenByCopy(void *at, size_t bytes);
void WrittenByLibrary(void *at, size_t bytes);
// All that was queued is done.
void Synchronize();

// What was found is fatal, unless it is asked for: from Expect on it is collected, and Found ends that. One line each.
void Expect();
std::string Found();

}  // namespace races

#endif
