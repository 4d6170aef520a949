// Kernels with one mistake each, and the same without it: what cuda_races.h must and must not tell.
#ifndef NB_TESTS_CUDA_RACY_H
#define NB_TESTS_CUDA_RACY_H

enum Racy {
  kLanes,          // a lane reads what another wrote
  kShuffled,       // the same, with no more than a shuffle between
  kWarps,          // a warp reads what another wrote, after a barrier of the warp
  kOverwritten,    // a warp writes what another reads
  kManyReaders,    // a lane writes what all lanes of its warp have read
  kCopyNotWaited,  // a thread reads what it copies
  kCopyOfAnother,  // a lane reads what another copied and waited for
  kRefilled,       // a stage is filled again while other lanes read it
  kNotArrived,     // the last block reads what others wrote, without their arrival
  kStale,          // the same after their arrival, by a plain load
  kEarlyRead,      // a kernel that is launched early reads the result of the one before
  kEarlyWrite,     // or writes what that may read
  kEarlyLine,      // or reads that after the wait from a line that it read before
  kRacyCount
};

// Runs it on the emulator; `is_right`: without the mistake.
void RunRacy(Racy what, bool is_right);
const char *RacyName(Racy what);

#endif
