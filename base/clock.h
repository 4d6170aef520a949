/* Time and memory of this process, for figures that are reported. */
#ifndef NB_BASE_CLOCK_H
#define NB_BASE_CLOCK_H

/* Seconds since some fixed moment, monotonic. */
double nb_seconds(void);

#endif
