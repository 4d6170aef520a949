#include "validate/scan.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/stop.h"

enum {
  CHUNK = 1 << 14,    /* elements looked at between two decisions: 16-bit counters hold them */
  BAND = 1 << 20,     /* elements a thread takes */
  MAX_BANDS = 1 << 9, /* whose results are kept at a time, on the stack */
  FAR_EXPONENT = 24,  /* a scale this many powers of two from the others is no weight's */
  LEAST_SCALES = 8,   /* that make a mean */
};

/* bitsandbytes divides by max(absmax, 1e-38), so that codes of blocks below that are smaller than they should be. */
static const float CLAMP = 1e-37f;

static void tally(nb_tally *t, int64_t index) {
  if (t->count++ == 0) t->first = index;
}

static void tally_join(nb_tally *into, nb_tally more) {
  if (into->count == 0) into->first = more.first;
  into->count += more.count;
}

/* ---- plain tensors ---- */

typedef struct bits {
  uint64_t exponent; /* all ones in a NaN or infinity */
  uint64_t sign;
} bits;

static bits bits_of(nb_dtype dtype) {
  switch (dtype) {
    case NB_F64: return (bits){0x7ff0000000000000u, 0x8000000000000000u};
    case NB_F32: return (bits){0x7f800000u, 0x80000000u};
    case NB_F16: return (bits){0x7c00u, 0x8000u};
    case NB_BF16: return (bits){0x7f80u, 0x8000u};
    case NB_F8_E5M2: return (bits){0x7cu, 0x80u};
    default: return (bits){0x7fu, 0x80u}; /* F8_E4M3 has no infinity: all ones is NaN */
  }
}

/* What the elements of a chunk have in common. One function an element's size, so that compilers vectorize it. */
typedef struct chunk_scan {
  uint64_t any, differ; /* or of all; or of their differences to the first */
  uint64_t not_finite;
} chunk_scan;

static chunk_scan scan_16(const uint8_t *p, int64_t n, uint16_t first, uint16_t exponent) {
  uint16_t any = 0, differ = 0, bad = 0;
  for (int64_t i = 0; i < n; i++) {
    uint16_t v;
    memcpy(&v, p + 2 * i, sizeof v);
    any |= v;
    differ |= (uint16_t)(v ^ first);
    bad = (uint16_t)(bad + ((v & exponent) == exponent));
  }
  return (chunk_scan){any, differ, bad};
}

static chunk_scan scan_32(const uint8_t *p, int64_t n, uint32_t first, uint32_t exponent) {
  uint32_t any = 0, differ = 0, bad = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t v;
    memcpy(&v, p + 4 * i, sizeof v);
    any |= v;
    differ |= v ^ first;
    bad += (v & exponent) == exponent;
  }
  return (chunk_scan){any, differ, bad};
}

static uint64_t element(const uint8_t *p, int64_t i, size_t size) {
  uint64_t v = 0;
  memcpy(&v, p + (size_t)i * size, size);
  return v;
}

static chunk_scan scan_any(const uint8_t *p, int64_t n, size_t size, uint64_t first, uint64_t exponent) {
  chunk_scan s = {0};
  for (int64_t i = 0; i < n; i++) {
    uint64_t v = element(p, i, size);
    s.any |= v;
    s.differ |= v ^ first;
    s.not_finite += (v & exponent) == exponent;
  }
  return s;
}

typedef struct plain_job {
  const uint8_t *values;
  size_t size;
  bits b;
  uint64_t first;
  int64_t base; /* of the bands at work now */
  struct {
    chunk_scan sum;
    nb_tally bad;
  } band[MAX_BANDS];
} plain_job;

static void plain_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  plain_job *job = ctx;
  int64_t slot = begin / BAND;
  job->band[slot].sum = (chunk_scan){0};
  job->band[slot].bad = (nb_tally){0, -1};
  for (int64_t at = begin; at < end; at += CHUNK) {
    int64_t n = nb_min_i64(CHUNK, end - at), from = job->base + at;
    const uint8_t *p = job->values + (size_t)from * job->size;
    chunk_scan s = job->size == 2   ? scan_16(p, n, (uint16_t)job->first, (uint16_t)job->b.exponent)
                   : job->size == 4 ? scan_32(p, n, (uint32_t)job->first, (uint32_t)job->b.exponent)
                                    : scan_any(p, n, job->size, job->first, job->b.exponent);
    job->band[slot].sum.any |= s.any;
    job->band[slot].sum.differ |= s.differ;
    for (int64_t i = 0; s.not_finite && i < n; i++) {
      if ((element(p, i, job->size) & job->b.exponent) == job->b.exponent) tally(&job->band[slot].bad, from + i);
    }
  }
}

void nb_scan_plain(nb_dtype dtype, const void *values, int64_t count, nb_plain_scan *out) {
  plain_job job;
  job.values = values;
  job.size = nb_dtype_size(dtype);
  job.b = bits_of(dtype);
  job.first = count ? element(values, 0, job.size) : 0;
  *out = (nb_plain_scan){.not_finite = {0, -1}};
  uint64_t any = 0, differ = 0;
  for (job.base = 0; job.base < count && !nb_stop_asked(); job.base += (int64_t)MAX_BANDS * BAND) {
    int64_t n = nb_min_i64((int64_t)MAX_BANDS * BAND, count - job.base);
    nb_parallel(n, BAND, plain_band, &job);
    for (int64_t b = 0; b < nb_ceil_div(n, BAND); b++) {
      any |= job.band[b].sum.any;
      differ |= job.band[b].sum.differ;
      tally_join(&out->not_finite, job.band[b].bad);
    }
  }
  out->all_equal = differ == 0;
  out->all_zero = (any & ~job.b.sign) == 0;
}

/* ---- codes of 4 bits ---- */

/* The two codes of value 1 and -1, the two of value 0. */
typedef struct special {
  uint8_t peak[2], zero[2];
} special;

static special special_of(nb_format format) {
  const float *codebook = nb_format_info(format)->codebook;
  special s = {{0}, {0}};
  int peaks = 0, zeros = 0;
  for (int code = 0; code < 16; code++) {
    if (fabsf(codebook[code]) == 1) s.peak[peaks++ % 2] = (uint8_t)code;
    if (codebook[code] == 0) s.zero[zeros++ % 2] = (uint8_t)code;
  }
  if (peaks == 1) s.peak[1] = s.peak[0];
  if (zeros == 1) s.zero[1] = s.zero[0];
  return s;
}

typedef struct block_look {
  int64_t peaks;
  bool not_zero;     /* a code that does not stand for zero */
  uint8_t high, low; /* ors of each half's differences to the block's first */
  bool constant;
} block_look;

/* n bytes, at most a block's: NB_MAX_BLOCK_SIZE / 2, so that 16-bit counters hold the peaks. */
static block_look look4(const uint8_t *p, int64_t n, special s) {
  uint16_t peaks = 0;
  uint8_t differ = 0, not_zero = 0, first = p[0];
  for (int64_t i = 0; i < n; i++) {
    uint8_t high = p[i] >> 4, low = p[i] & 15;
    peaks = (uint16_t)(peaks + (high == s.peak[0]) + (high == s.peak[1]) + (low == s.peak[0]) + (low == s.peak[1]));
    not_zero |= (uint8_t)((high != s.zero[0] && high != s.zero[1]) | (low != s.zero[0] && low != s.zero[1]));
    differ |= p[i] ^ first;
  }
  return (block_look){.peaks = peaks,
                      .not_zero = not_zero != 0,
                      .high = differ >> 4,
                      .low = differ & 15,
                      .constant = differ == 0 && first >> 4 == (first & 15)};
}

/* The last block, one code at a time: its last byte may be half used. */
static block_look look4_tail(const uint8_t *p, int64_t weights, special s) {
  block_look b = {.constant = true};
  uint8_t first = p[0] >> 4;
  for (int64_t i = 0; i < weights; i++) {
    uint8_t code = i % 2 ? p[i / 2] & 15 : p[i / 2] >> 4;
    b.peaks += code == s.peak[0] || code == s.peak[1];
    b.not_zero |= code != s.zero[0] && code != s.zero[1];
    if (i % 2) {
      b.low |= code ^ (p[0] & 15);
    } else {
      b.high |= code ^ first;
    }
    b.constant &= code == first;
  }
  return b;
}

typedef struct codes_job {
  const nb_packed *m;
  special s;
  int64_t base, band; /* blocks */
  nb_codes_scan bands[MAX_BANDS];
} codes_job;

static nb_codes_scan codes_none(void) {
  nb_tally none = {0, -1};
  return (nb_codes_scan){.all_equal = true,
                         .all_zero = true,
                         .high_half_equal = true,
                         .low_half_equal = true,
                         .constant = none,
                         .unscaled = none,
                         .without_peak = none,
                         .saturated = none,
                         .below_lowest = none};
}

static void codes_join(nb_codes_scan *into, const nb_codes_scan *more) {
  into->blocks += more->blocks;
  into->all_equal &= more->all_equal;
  into->all_zero &= more->all_zero;
  into->high_half_equal &= more->high_half_equal;
  into->low_half_equal &= more->low_half_equal;
  tally_join(&into->constant, more->constant);
  tally_join(&into->unscaled, more->unscaled);
  tally_join(&into->without_peak, more->without_peak);
  tally_join(&into->saturated, more->saturated);
  tally_join(&into->below_lowest, more->below_lowest);
}

static void judge_block(nb_codes_scan *out, const block_look *b, int64_t block, int64_t weights, bool whole,
                        float scale) {
  out->blocks++;
  if (b->not_zero) out->all_zero = false;
  if (b->constant && b->not_zero && whole) tally(&out->constant, block);
  if (scale == 0 && b->not_zero) tally(&out->unscaled, block);
  if (fabsf(scale) > CLAMP && b->peaks == 0) tally(&out->without_peak, block);
  if (whole && 2 * b->peaks > weights) tally(&out->saturated, block);
}

/* 1 where the parts of double quantization are not all there. */
static float scale_of(const nb_packed *m, int64_t block) {
  bool is_whole = m->scale.data && (!m->second.block_cols || (m->second.data && m->scale.codebook));
  return is_whole ? nb_block_scale(m, block) : 1;
}

static void codes4_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  codes_job *job = ctx;
  const nb_packed *m = job->m;
  nb_codes_scan *out = &job->bands[begin / job->band];
  *out = codes_none();
  int64_t total = m->rows * m->cols;
  const uint8_t *codes = m->codes, first = codes[0];
  for (int64_t block = job->base + begin; block < job->base + end; block++) {
    int64_t at = block * m->scale.block_cols, n = nb_min_i64(m->scale.block_cols, total - at);
    bool whole = n == m->scale.block_cols;
    const uint8_t *p = codes + at / 2;
    block_look b = whole ? look4(p, n / 2, job->s) : look4_tail(p, n, job->s);
    float scale = scale_of(m, block);
    /* A restored scale is never quite zero: a block of zeros has one too. */
    if ((m->second.block_cols || !m->scale.data) && !b.not_zero) b.peaks = 1;
    judge_block(out, &b, block, n, whole, scale);
    if (b.high || (p[0] ^ first) >> 4) out->high_half_equal = false;
    if (b.low || ((p[0] ^ first) & 15 && n > 1)) out->low_half_equal = false;
  }
}

void nb_scan_codes4(const nb_packed *m, nb_codes_scan *out) {
  codes_job job;
  int64_t blocks = nb_ceil_div(m->rows * m->cols, m->scale.block_cols);
  job.m = m;
  job.s = special_of(m->format);
  job.band = nb_max_i64(1, BAND / m->scale.block_cols);
  *out = codes_none();
  for (job.base = 0; job.base < blocks && !nb_stop_asked(); job.base += MAX_BANDS * job.band) {
    int64_t n = nb_min_i64(MAX_BANDS * job.band, blocks - job.base);
    nb_parallel(n, job.band, codes4_band, &job);
    for (int64_t b = 0; b < nb_ceil_div(n, job.band); b++) codes_join(out, &job.bands[b]);
  }
  const uint8_t *codes = m->codes;
  bool one = codes[0] >> 4 == (codes[0] & 15) || m->rows * m->cols < 2;
  out->all_equal = out->high_half_equal && out->low_half_equal && one;
}

/* ---- codes of 8 bits ---- */

typedef struct row_look {
  uint8_t differ, any; /* ors: of the differences to the first, of all */
  int64_t peaks, lowest;
} row_look;

/* At most CHUNK codes, so that 16-bit counters hold. */
static void look8(const int8_t *p, int64_t n, int8_t first, row_look *out) {
  uint16_t peaks = 0, lowest = 0;
  uint8_t differ = 0, any = 0;
  for (int64_t i = 0; i < n; i++) {
    differ |= (uint8_t)(p[i] ^ first);
    any |= (uint8_t)p[i];
    peaks = (uint16_t)(peaks + (p[i] == 127) + (p[i] == -127));
    lowest = (uint16_t)(lowest + (p[i] == -128));
  }
  out->differ |= differ;
  out->any |= any;
  out->peaks += peaks;
  out->lowest += lowest;
}

static void codes8_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  codes_job *job = ctx;
  const nb_packed *m = job->m;
  nb_codes_scan *out = &job->bands[begin / job->band];
  *out = codes_none();
  const int8_t *codes = m->codes;
  for (int64_t row = job->base + begin; row < job->base + end; row++) {
    const int8_t *p = codes + row * m->cols;
    row_look look = {0};
    for (int64_t i = 0; i < m->cols; i += CHUNK) look8(p + i, nb_min_i64(CHUNK, m->cols - i), p[0], &look);
    block_look b = {.peaks = look.peaks + look.lowest, .not_zero = look.any != 0, .constant = look.differ == 0};
    judge_block(out, &b, row, m->cols, m->cols > 1, nb_block_scale(m, row));
    if (look.lowest) tally(&out->below_lowest, row);
    if (look.differ || p[0] != codes[0]) out->all_equal = false;
  }
}

void nb_scan_codes8(const nb_packed *m, nb_codes_scan *out) {
  codes_job job;
  job.m = m;
  job.band = nb_max_i64(1, BAND / m->cols);
  *out = codes_none();
  for (job.base = 0; job.base < m->rows && !nb_stop_asked(); job.base += MAX_BANDS * job.band) {
    int64_t n = nb_min_i64(MAX_BANDS * job.band, m->rows - job.base);
    nb_parallel(n, job.band, codes8_band, &job);
    for (int64_t b = 0; b < nb_ceil_div(n, job.band); b++) codes_join(out, &job.bands[b]);
  }
  out->high_half_equal = out->low_half_equal = false;
}

/* ---- scales ---- */

void nb_scan_scales(const nb_packed *m, int64_t count, double tolerance, nb_scales_scan *out) {
  nb_tally none = {0, -1};
  *out = (nb_scales_scan){.count = count, .not_finite = none, .negative = none, .zero = none, .far = none};
  double sum = 0;
  int64_t above = 0;
  for (int64_t i = 0; i < count; i++) {
    double s = nb_block_scale(m, i);
    if (!isfinite(s)) {
      tally(&out->not_finite, i);
    } else if (s < -tolerance) {
      tally(&out->negative, i);
    } else if (s <= tolerance) {
      tally(&out->zero, i);
    } else {
      int exponent;
      frexp(s, &exponent);
      sum += exponent;
      above++;
    }
  }
  if (above) out->mean_log2 = sum / (double)above;
  for (int64_t i = 0; above >= LEAST_SCALES && i < count; i++) {
    double s = nb_block_scale(m, i);
    int exponent;
    if (!isfinite(s) || s <= tolerance) continue;
    frexp(s, &exponent);
    if (exponent > out->mean_log2 + FAR_EXPONENT) tally(&out->far, i);
  }
}
