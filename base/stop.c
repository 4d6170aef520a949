#include "base/stop.h"

static _Thread_local nb_stop_hook *current;

nb_stop_hook *nb_stop_use(nb_stop_hook *stop) {
  nb_stop_hook *before = current;
  current = stop;
  return before;
}

nb_stop_hook *nb_stop_current(void) { return current; }

bool nb_stop_asked(void) {
  nb_stop_hook *stop = current;
  if (!stop || !stop->ask) return false;
  if (__atomic_load_n(&stop->asked_for, __ATOMIC_RELAXED)) return true;
  bool asked = stop->ask(stop->ctx);
  if (asked) __atomic_store_n(&stop->asked_for, 1, __ATOMIC_RELAXED);
  return asked;
}

nibble_status nb_stop_check(nibble_error *err) {
  return nb_stop_asked() ? nb_fail(err, NIBBLE_STOPPED, "stopped; nothing is left behind") : NIBBLE_OK;
}
