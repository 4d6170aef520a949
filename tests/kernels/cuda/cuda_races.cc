#include "tests/kernels/cuda/cuda_races.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

extern "C" const char __executable_start;

namespace races {
namespace {

enum Kind : uint8_t {
  kNone,
  kThread,
  kWarp,    // several threads of a warp: `thread` is the warp
  kMany,    // several warps
  kBlocks,  // several blocks
  kAtomic,
  kCopy,     // asynchronous and on its way
  kLibrary,  // between launches
};

struct Access {
  uint32_t run, pc, warp_barriers;
  uint16_t block_barriers, thread;
};

// Of one byte.
struct Cell {
  Access write, read;
  Kind write_kind = kNone, read_kind = kNone;
};

// A block's arrival, and when another block saw it.
struct Arrival {
  uint32_t run;
  uint16_t thread, block_barriers;
  uint16_t seen_thread, seen_block_barriers;
};

enum { kPage = 1024 };
typedef std::vector<Cell> Page;

bool is_on;
const Now *now;
const char *stack_at;
size_t stack_size;
uint32_t last_run, first_of_launch, synchronized;  // runs
const char *shared_at;
size_t shared_size;
Page shared_cells;
std::unordered_map<uintptr_t, Page> pages;
uintptr_t last_number;
Page *last_page;
std::unordered_map<const unsigned *, std::vector<Arrival>> arrivals;
std::vector<Arrival> seen;  // by the block that runs
enum { kLine = 128 };
std::map<const char *, size_t> allocations;  // other memory of the tests may share lines, as no allocation does
std::unordered_set<uintptr_t> early_lines;   // that the first-level cache may have from before a wait, in this launch

bool is_expected;
std::set<std::pair<uint32_t, uint32_t>> places;
std::string found;

uint32_t Offset(const void *pc) { return (uint32_t)((const char *)pc - &__executable_start); }

void Tell(const char *what, const char *at, const Access *other, uint32_t pc) {
  uint32_t other_pc = other ? other->pc : 0;
  if (!places.insert({pc, other_pc}).second) return;
  char line[300];
  bool is_shared = at >= shared_at && at < shared_at + shared_size;
  snprintf(line, sizeof line, "%s: %s memory, by thread %d at 0x%x", what, is_shared ? "shared" : "global", now->thread,
           pc);
  found += line;
  if (other) {
    snprintf(line, sizeof line, ", after thread %d%s at 0x%x", other->thread,
             other->run == now->run ? "" : " of another block", other->pc);
    found += line;
  }
  found += "\n";
  if (is_expected) return;
  fprintf(stderr, "cuda races: %splaces: addr2line -Cfipe <this program> 0x%x 0x%x\n", found.c_str(), pc, other_pc);
  abort();
}

Cell *CellOf(uintptr_t at) {
  uintptr_t number = at / kPage;
  if (number != last_number || !last_page) {
    Page &page = pages[number];
    if (page.empty()) page.resize(kPage);
    last_number = number, last_page = &page;
  }
  return &(*last_page)[at % kPage];
}

bool SameWarp(const Access &a, Kind kind) { return (kind == kWarp ? a.thread : a.thread / 32) == now->thread / 32; }

bool IsOrderedWithinBlock(const Access &a, Kind kind) {
  if (a.block_barriers < now->block_barriers) return true;
  if (kind == kMany) return false;
  if (kind != kWarp && a.thread == now->thread) return true;
  return SameWarp(a, kind) && a.warp_barriers < now->warp_barriers;
}

bool IsOrdered(const Access &a, Kind kind) {
  if (a.run < first_of_launch) return true;
  if (kind == kBlocks) return false;
  if (a.run == now->run) return IsOrderedWithinBlock(a, kind);
  for (const Arrival &s : seen) {
    bool before = a.block_barriers < s.block_barriers || (kind != kWarp && kind != kMany && a.thread == s.thread);
    bool after = now->block_barriers > s.seen_block_barriers || now->thread == s.seen_thread;
    if (s.run == a.run && before && after) return true;
  }
  return false;
}

Access Make(uint32_t pc) { return {now->run, pc, now->warp_barriers, now->block_barriers, now->thread}; }

void Remember(Cell *c, uint32_t pc) {
  Access a = Make(pc);
  if (c->read_kind == kNone || IsOrdered(c->read, c->read_kind)) {
    c->read_kind = kThread;
  } else if (c->read.run != now->run) {
    c->read_kind = kBlocks;
  } else if ((c->read_kind == kThread || c->read_kind == kWarp) && SameWarp(c->read, c->read_kind)) {
    c->read_kind = kWarp;
    a.thread /= 32;
  } else {
    c->read_kind = kMany;
  }
  c->read = a;
}

enum Way { kRead, kFresh, kWrite, kAtomically };

bool IsAllocated(const char *at) {
  auto next = allocations.upper_bound(at);
  return next != allocations.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

// What a kernel may do before it has waited for the one before it, and what it must not expect of the cache after.
void TouchEarly(const Cell &c, const char *at, Way way, uint32_t pc) {
  bool is_new = c.write_kind != kNone && c.write.run > synchronized; /* perhaps not there before the wait */
  uintptr_t line = (uintptr_t)at / kLine;
  if (now->may_run_early) {
    if (way == kWrite || way == kAtomically) Tell("a write before the previous kernel was waited for", at, nullptr, pc);
    if (is_new) Tell("a read of what a kernel wrote before that was waited for", at, &c.write, pc);
    if (way == kRead && IsAllocated(at)) early_lines.insert(line);
  } else if (way == kRead && is_new && !early_lines.empty() && c.write.run < first_of_launch &&
             early_lines.count(line)) {
    Tell("a plain load from a line that was read before the previous kernel was waited for", at, &c.write, pc);
  }
}

// One byte is about to be accessed.
void Touch(Cell *c, const char *at, Way way, bool is_shared, uint32_t pc) {
  if (is_shared && c->write.run != now->run) c->write_kind = kNone; /* of a block that is gone */
  if (is_shared && c->read.run != now->run) c->read_kind = kNone;
  bool writes = way == kWrite || way == kAtomically;
  if (!is_shared) TouchEarly(*c, at, way, pc);
  bool is_atomic = way == kAtomically && c->write_kind == kAtomic;
  if (c->write_kind == kCopy) {
    Tell("a copy is still under way", at, &c->write, pc);
  } else if (c->write_kind != kNone && c->write_kind != kLibrary && !is_atomic) {
    if (!IsOrdered(c->write, c->write_kind))
      Tell(writes ? "two writes in no order" : "a write and a read in no order", at, &c->write, pc);
    else if (way == kRead && c->write.run >= first_of_launch && c->write.run != now->run)
      Tell("a plain load of what another block wrote", at, &c->write, pc);
  }
  if (!writes) {
    Remember(c, pc);
    return;
  }
  if (c->read_kind != kNone && !IsOrdered(c->read, c->read_kind))
    Tell("a write and a read in no order", at, &c->read, pc);
  c->read_kind = kNone;
  c->write = Make(pc);
  c->write_kind = way == kAtomically ? kAtomic : kThread;
}

template <typename Do>
void EachCell(const void *from, size_t bytes, Do visit) {
  const char *at = (const char *)from;
  bool is_shared = at >= shared_at && at < shared_at + shared_size;
  for (size_t i = 0; i < bytes; i++)
    visit(is_shared ? &shared_cells[(size_t)(at + i - shared_at)] : CellOf((uintptr_t)at + i), at + i, is_shared);
}

void TouchAll(const void *from, size_t bytes, Way way, const void *pc) {
  const char *at = (const char *)from;
  if (!now || (at >= stack_at && at < stack_at + stack_size)) return;
  uint32_t place = Offset(pc);
  EachCell(at, bytes, [&](Cell *c, const char *p, bool is_shared) { Touch(c, p, way, is_shared, place); });
}

// Between launches; what is not remembered need not be.
template <typename Do>
void EachKnown(void *from, size_t bytes, Do change) {
  uintptr_t at = (uintptr_t)from, end = at + bytes;
  while (at < end) {
    uintptr_t next = std::min(end, (at / kPage + 1) * kPage);
    auto page = pages.find(at / kPage);
    for (; at < next; at++)
      if (page != pages.end()) change(&page->second[at % kPage]);
  }
}

}  // namespace

bool IsOn() { return is_on; }

void BeginLaunch() {
  first_of_launch = last_run + 1;
  arrivals.clear();
  early_lines.clear();
}

uint32_t BeginBlock(const unsigned char *shared, size_t bytes) {
  shared_at = (const char *)shared, shared_size = bytes;
  if (is_on && shared_cells.size() < bytes) shared_cells.resize(bytes);
  seen.clear();
  return ++last_run;
}

void Run(const Now *thread, const void *stack, size_t stack_bytes) {
  if (!is_on) return;
  now = thread;
  stack_at = (const char *)stack, stack_size = stack_bytes;
}

void BeginCopy(void *to, const void *from, size_t bytes, const void *pc) {
  TouchAll(from, bytes, kRead, pc);
  TouchAll(to, bytes, kWrite, pc);
  if (now) EachCell(to, bytes, [](Cell *c, const char *, bool) { c->write_kind = kCopy; });
}

void EndCopy(void *to, size_t bytes) {
  if (!now) return;
  EachCell(to, bytes, [](Cell *c, const char *, bool) {
    c->write = Make(c->write.pc);
    c->write_kind = kThread;
  });
}

void Arrive(unsigned *at, const void *pc) {
  if (!now) return;
  TouchAll(at, sizeof *at, kAtomically, pc);
  std::vector<Arrival> &before = arrivals[at];
  for (Arrival a : before) {
    a.seen_thread = now->thread, a.seen_block_barriers = now->block_barriers;
    seen.push_back(a);
  }
  before.push_back({now->run, now->thread, now->block_barriers, 0, 0});
}

void Atomic(void *at, size_t bytes, const void *pc) { TouchAll(at, bytes, kAtomically, pc); }
void ReadFresh(const void *at, size_t bytes, const void *pc) { TouchAll(at, bytes, kFresh, pc); }

void Allocated(void *at, size_t bytes) {
  allocations[(const char *)at] = bytes;
  WrittenByCopy(at, bytes);
}

void Freed(void *at) { allocations.erase((const char *)at); }

void WrittenByCopy(void *at, size_t bytes) {
  EachKnown(at, bytes, [](Cell *c) { c->write_kind = c->read_kind = kNone; });
}

void WrittenByLibrary(void *at, size_t bytes) {
  if (!is_on) return;
  for (size_t i = 0; i < bytes; i++) {
    Cell *c = CellOf((uintptr_t)at + i);
    c->write = {last_run, 0, 0, 0, 0};
    c->write_kind = kLibrary, c->read_kind = kNone;
  }
}

void Synchronize() { synchronized = last_run; }

void Expect() {
  is_expected = true;
  found.clear(), places.clear();
}

std::string Found() {
  is_expected = false;
  places.clear();
  return std::exchange(found, std::string());
}

}  // namespace races

/* ---- what -fsanitize=thread calls ------------------------------------------------------------------------------- */

#define ACCESSES(size)                                                                                                 \
  void __tsan_read##size(void *at);                                                                                    \
  void __tsan_write##size(void *at);                                                                                   \
  void __tsan_unaligned_read##size(void *at);                                                                          \
  void __tsan_unaligned_write##size(void *at);                                                                         \
  void __tsan_read##size(void *at) { races::TouchAll(at, size, races::kRead, __builtin_return_address(0)); }           \
  void __tsan_write##size(void *at) { races::TouchAll(at, size, races::kWrite, __builtin_return_address(0)); }         \
  void __tsan_unaligned_read##size(void *at) { races::TouchAll(at, size, races::kRead, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##size(void *at) { races::TouchAll(at, size, races::kWrite, __builtin_return_address(0)); }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_init();
void __tsan_func_entry(void *);
void __tsan_func_exit(void *);
void __tsan_vptr_update(void *, void *);
unsigned char __tsan_atomic8_load(const volatile void *, int);
void __tsan_read_range(void *, long);
void __tsan_write_range(void *, long);
void __tsan_init() { races::is_on = true; }
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void *) {}
void __tsan_vptr_update(void *, void *) {}
// Whether a static variable has been initialized.
unsigned char __tsan_atomic8_load(const volatile void *at, int) {
  return __atomic_load_n((const volatile unsigned char *)at, __ATOMIC_ACQUIRE);
}
void __tsan_read_range(void *at, long bytes) {
  races::TouchAll(at, (size_t)bytes, races::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void *at, long bytes) {
  races::TouchAll(at, (size_t)bytes, races::kWrite, __builtin_return_address(0));
}
}
