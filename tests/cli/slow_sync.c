/* Preloaded into a program, lets every fsync take NIBBLE_SLOW_SYNC milliseconds, signals or not. For tests. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

int fsync(int fd);

int fsync(int fd) {
  const char *set = getenv("NIBBLE_SLOW_SYNC");
  long ms = set ? atol(set) : 0;
  struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  (void)fd;
  while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
  return 0;
}
