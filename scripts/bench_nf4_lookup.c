/* Ways to look NF4's 16 values up in registers, measured against each other: a row of packed weights times one row of
 * activations, on one core, with weights from the second-level cache and from memory, and what each way costs in
 * accuracy. scripts/bench-nf4-lookup builds and runs this; kernels/cpu has the ways that won. */
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GROUP = 64, COLS = 4096, CACHED_ROWS = 64, ROWS = 128 << 10, RUNS = 7, STEPS12 = 2047, STEPS13 = 4095 };

static const float nf4[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};

/* Activations as a way wants them: in the order in which it finds the weights, and rounded where it multiplies
 * integers, with a scale for each group. */
typedef struct activations {
  float floats[COLS], scales[COLS / GROUP];
  int16_t words[COLS];
  int8_t bytes[COLS];
  int32_t sums[COLS / GROUP]; /* of `bytes` */
} activations;

typedef float (*dot_fn)(const uint8_t *codes, const float *absmax, const activations *x);

typedef struct way {
  const char *name, *isa;
  dot_fn dot;
  int (*place)(int i); /* which weight of a group stands at place i */
  int steps;           /* activations are rounded to so many; 0: they are floats */
} way;

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static __m256i plane(int byte) {
  uint8_t bytes[16];
  for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)(bits_of(nf4[i]) >> (8 * byte));
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}

static __m256i steps_plane(float steps, int byte, int bias) {
  uint8_t bytes[16];
  for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)(((int)lrintf(nf4[i] * steps) + bias) >> (8 * byte));
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}

static float sum8(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* The high halves of 32 bytes of codes (half 0: even weights) or the low ones (1: odd weights). */
static __m256i half_of(const uint8_t *codes, int half) {
  __m256i v = _mm256_loadu_si256((const __m256i *)codes);
  return _mm256_and_si256(half ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

/* Two permutes of 8 floats and a blend. */
static int place_permute(int i) { return 2 * (4 * (i % 8) + i / 8 / 2) + (i / 8 % 2 == 0); }
static float dot_permute(const uint8_t *codes, const float *absmax, const activations *x) {
  __m256 low = _mm256_loadu_ps(nf4), high = _mm256_loadu_ps(nf4 + 8), total = _mm256_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m256i v = _mm256_loadu_si256((const __m256i *)codes);
    __m256 part[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      __m256i index = _mm256_srli_epi32(v, 4 * i);
      __m256 above = _mm256_castsi256_ps(_mm256_slli_epi32(v, 28 - 4 * i)); /* bit 3 of the code is the sign */
      __m256 w = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), above);
      part[i % 2] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x->floats + g * GROUP + i * 8), part[i % 2]);
    }
    total = _mm256_fmadd_ps(_mm256_add_ps(part[0], part[1]), _mm256_set1_ps(absmax[g]), total);
  }
  return sum8(total);
}

/* All four byte planes, or the upper three. */
static int place_planes(int i) { return 2 * (16 * (i % 8 / 4) + 4 * (i / 8 % 4) + i % 4) + i / 32; }
static inline __attribute__((always_inline)) float dot_planes(bool four, const uint8_t *codes, const float *absmax,
                                                              const activations *x) {
  __m256i p0 = plane(0), p1 = plane(1), p2 = plane(2), p3 = plane(3);
  __m256 total = _mm256_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m256 part[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int half = 0; half < 2; half++) {
      __m256i c = half_of(codes, half), b0 = four ? _mm256_shuffle_epi8(p0, c) : _mm256_setzero_si256();
      __m256i b1 = _mm256_shuffle_epi8(p1, c), b2 = _mm256_shuffle_epi8(p2, c), b3 = _mm256_shuffle_epi8(p3, c);
      __m256i h[2] = {_mm256_unpacklo_epi8(b2, b3), _mm256_unpackhi_epi8(b2, b3)};
      __m256i l[2] = {_mm256_unpacklo_epi8(b0, b1), _mm256_unpackhi_epi8(b0, b1)};
      const float *at = x->floats + g * GROUP + half * 32;
      for (int i = 0; i < 2; i++) {
        __m256 first = _mm256_castsi256_ps(_mm256_unpacklo_epi16(l[i], h[i]));
        __m256 second = _mm256_castsi256_ps(_mm256_unpackhi_epi16(l[i], h[i]));
        part[0] = _mm256_fmadd_ps(first, _mm256_loadu_ps(at + i * 16), part[0]);
        part[1] = _mm256_fmadd_ps(second, _mm256_loadu_ps(at + i * 16 + 8), part[1]);
      }
    }
    total = _mm256_fmadd_ps(_mm256_add_ps(part[0], part[1]), _mm256_set1_ps(absmax[g]), total);
  }
  return sum8(total);
}
static float dot_planes4(const uint8_t *codes, const float *absmax, const activations *x) {
  return dot_planes(true, codes, absmax, x);
}
static float dot_planes3(const uint8_t *codes, const float *absmax, const activations *x) {
  return dot_planes(false, codes, absmax, x);
}

/* The upper two planes: 16-bit floats, widened by a shift and a mask. */
static int place_two(int i) { return 2 * (16 * (i % 8 / 4) + 8 * (i / 16 % 2) + 2 * (i % 4) + i / 8 % 2) + i / 32; }
static float dot_two(const uint8_t *codes, const float *absmax, const activations *x) {
  /* Rounded to 16 bits, not cut off. */
  uint8_t upper[16], lower[16];
  for (int i = 0; i < 16; i++) {
    uint32_t bits = bits_of(nf4[i]) + 0x8000;
    upper[i] = (uint8_t)(bits >> 24), lower[i] = (uint8_t)(bits >> 16);
  }
  __m256i p3 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)upper));
  __m256i p2 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)lower));
  __m256i mask = _mm256_set1_epi32((int)0xffff0000);
  __m256 total = _mm256_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m256 part[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int half = 0; half < 2; half++) {
      __m256i c = half_of(codes, half), h = _mm256_shuffle_epi8(p3, c), l = _mm256_shuffle_epi8(p2, c);
      __m256i pairs[2] = {_mm256_unpacklo_epi8(l, h), _mm256_unpackhi_epi8(l, h)};
      const float *at = x->floats + g * GROUP + half * 32;
      for (int i = 0; i < 2; i++) {
        __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(pairs[i], 16));
        __m256 second = _mm256_castsi256_ps(_mm256_and_si256(pairs[i], mask));
        part[0] = _mm256_fmadd_ps(first, _mm256_loadu_ps(at + i * 16), part[0]);
        part[1] = _mm256_fmadd_ps(second, _mm256_loadu_ps(at + i * 16 + 8), part[1]);
      }
    }
    total = _mm256_fmadd_ps(_mm256_add_ps(part[0], part[1]), _mm256_set1_ps(absmax[g]), total);
  }
  return sum8(total);
}

/* Two planes of 12-bit integers against 13-bit activations. */
static int place_words(int i) { return 2 * (16 * (i % 16 / 8) + 8 * (i / 16 % 2) + i % 8) + i / 32; }
static float dot_words(const uint8_t *codes, const float *absmax, const activations *x) {
  __m256i p0 = steps_plane(STEPS12, 0, 0), p1 = steps_plane(STEPS12, 1, 0);
  __m256 total = _mm256_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int half = 0; half < 2; half++) {
      __m256i c = half_of(codes, half), l = _mm256_shuffle_epi8(p0, c), h = _mm256_shuffle_epi8(p1, c);
      const __m256i *at = (const __m256i *)(const void *)(x->words + g * GROUP + half * 32);
      __m256i first = _mm256_madd_epi16(_mm256_unpacklo_epi8(l, h), _mm256_loadu_si256(at));
      __m256i second = _mm256_madd_epi16(_mm256_unpackhi_epi8(l, h), _mm256_loadu_si256(at + 1));
      sum[half] = _mm256_add_epi32(first, second);
    }
    __m256 part = _mm256_cvtepi32_ps(_mm256_add_epi32(sum[0], sum[1]));
    total = _mm256_fmadd_ps(part, _mm256_set1_ps(absmax[g] * x->scales[g] / STEPS12), total);
  }
  return sum8(total);
}

/* One shuffle: 8-bit integers against 8-bit activations. */
static int place_bytes(int i) { return 2 * (i % 32) + i / 32; }
static float dot_bytes(const uint8_t *codes, const float *absmax, const activations *x) {
  const float steps = 112.03f; /* q8.h says why not 127 */
  __m256i p = steps_plane(steps, 0, 0), one = _mm256_set1_epi16(1);
  __m256 total = _mm256_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m256i sum[2];
    for (int half = 0; half < 2; half++) {
      __m256i w = _mm256_shuffle_epi8(p, half_of(codes, half));
      __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x->bytes + g * GROUP + half * 32));
      sum[half] = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(v, w)), one);
    }
    __m256 part = _mm256_cvtepi32_ps(_mm256_add_epi32(sum[0], sum[1]));
    total = _mm256_fmadd_ps(part, _mm256_set1_ps(absmax[g] * x->scales[g] / steps), total);
  }
  return sum8(total);
}

/* AVX-512: one permute of 16 floats. */
static int place_permute16(int i) { return 2 * (4 * (i % 8) + i / 16) + (i % 16 >= 8 ? 0 : 1); }
AVX512 static float dot_permute16(const uint8_t *codes, const float *absmax, const activations *x) {
  __m512 map = _mm512_loadu_ps(nf4), total = _mm512_setzero_ps();
  const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m512i v = _mm512_srlv_epi32(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)codes)), shifts);
    __m512 part[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      __m512 w = _mm512_permutexvar_ps(_mm512_srli_epi32(v, (unsigned)i * 8), map);
      part[i % 2] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x->floats + g * GROUP + i * 16), part[i % 2]);
    }
    total = _mm512_fmadd_ps(_mm512_add_ps(part[0], part[1]), _mm512_set1_ps(absmax[g]), total);
  }
  return _mm512_reduce_add_ps(total);
}

AVX512 static __m512i both_halves(const uint8_t *codes) {
  __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)codes));
  v = _mm512_srlv_epi32(v, _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0));
  return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

static int place_words16(int i) { /* 16 bytes of codes a 128-bit lane, the lower half of a register the even weights */
  int byte = 16 * (i % 32 / 8) + 8 * (i / 32) + i % 8;
  return 2 * (byte % 32) + byte / 32;
}
AVX512 static float dot_words16(const uint8_t *codes, const float *absmax, const activations *x) {
  __m512i p0 = _mm512_broadcast_i64x4(steps_plane(STEPS12, 0, 0));
  __m512i p1 = _mm512_broadcast_i64x4(steps_plane(STEPS12, 1, 0));
  __m512 total = _mm512_setzero_ps();
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m512i c = both_halves(codes), l = _mm512_shuffle_epi8(p0, c), h = _mm512_shuffle_epi8(p1, c);
    __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_unpacklo_epi8(l, h),
                                      _mm512_loadu_si512(x->words + g * GROUP));
    sum = _mm512_dpwssd_epi32(sum, _mm512_unpackhi_epi8(l, h), _mm512_loadu_si512(x->words + g * GROUP + 32));
    __m512 scale = _mm512_set1_ps(absmax[g] * x->scales[g] / STEPS12);
    total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, total);
  }
  return _mm512_reduce_add_ps(total);
}

AVX512 static float dot_bytes16(const uint8_t *codes, const float *absmax, const activations *x) {
  const float steps = 112.03f;
  __m512i p = _mm512_broadcast_i64x4(steps_plane(steps, 0, 128));
  __m512 total = _mm512_setzero_ps();
  float less = 0; /* the table is above zero */
  for (int g = 0; g < COLS / GROUP; g++, codes += GROUP / 2) {
    __m512i w = _mm512_shuffle_epi8(p, both_halves(codes));
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, _mm512_loadu_si512(x->bytes + g * GROUP));
    float scale = absmax[g] * x->scales[g] / steps;
    total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale), total);
    less += scale * 128 * (float)x->sums[g];
  }
  return _mm512_reduce_add_ps(total) - less;
}

static const way ways[] = {
    {"two permutes of 8 floats, blended", "AVX2", dot_permute, place_permute, 0},
    {"four byte planes", "AVX2", dot_planes4, place_planes, 0},
    {"three byte planes", "AVX2", dot_planes3, place_planes, 0},
    {"two byte planes, 16-bit floats", "AVX2", dot_two, place_two, 0},
    {"two byte planes, 12-bit integers, 13-bit activations", "AVX2", dot_words, place_words, STEPS13},
    {"one byte plane, 8-bit activations", "AVX2", dot_bytes, place_bytes, 127},
    {"one permute of 16 floats", "AVX-512", dot_permute16, place_permute16, 0},
    {"two byte planes, 12-bit integers, 13-bit activations", "AVX-512", dot_words16, place_words16, STEPS13},
    {"one byte plane, 8-bit activations", "AVX-512", dot_bytes16, place_bytes, 127},
};

static void prepare(const way *w, const float *x, activations *out) {
  for (int g = 0; g < COLS / GROUP; g++) {
    float largest = 0;
    for (int i = 0; i < GROUP; i++) largest = fmaxf(largest, fabsf(x[g * GROUP + i]));
    out->scales[g] = w->steps ? largest / (float)w->steps : 1;
    out->sums[g] = 0;
    for (int i = 0; i < GROUP; i++) {
      float value = x[g * GROUP + w->place(i)];
      long rounded = lrintf(value / out->scales[g]);
      out->floats[g * GROUP + i] = value;
      out->words[g * GROUP + i] = (int16_t)rounded;
      out->bytes[g * GROUP + i] = (int8_t)rounded;
      out->sums[g] += (int32_t)rounded;
    }
  }
}

/* Relative error of the outputs, root mean square, against double arithmetic. */
static double error_of(const way *w, const uint8_t *codes, const float *absmax, const float *x, const activations *a) {
  double off = 0, size = 0;
  for (int r = 0; r < CACHED_ROWS; r++, codes += COLS / 2, absmax += COLS / GROUP) {
    double want = 0;
    for (int c = 0; c < COLS; c++)
      want += (double)nf4[c % 2 ? codes[c / 2] & 15 : codes[c / 2] >> 4] * absmax[c / GROUP] * x[c];
    double got = w->dot(codes, absmax, a);
    off += (got - want) * (got - want), size += want * want;
  }
  return sqrt(off / size);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Billion weights a second, the best of RUNS. */
static double speed_of(const way *w, const uint8_t *codes, const float *absmax, const activations *a, int64_t rows,
                       int times) {
  volatile float sink;
  double best = 0;
  for (int run = 0; run < RUNS; run++) {
    double start = seconds();
    for (int t = 0; t < times; t++) {
      for (int64_t r = 0; r < rows; r++) {
        const uint8_t *at = codes + r * (COLS / 2);
        if (times == 1) /* from memory: asked for in time, as the kernels do */
          for (int line = 0; line < COLS / 2; line += 64) __builtin_prefetch(at + 12288 + line);
        sink = w->dot(at, absmax + r * (COLS / GROUP), a);
      }
    }
    best = fmax(best, 1e-9 * (double)(rows * COLS) * times / (seconds() - start));
  }
  (void)sink;
  return best;
}

int main(void) {
  static activations a;
  static float x[COLS];
  uint8_t *codes = malloc((size_t)ROWS * COLS / 2);
  float *absmax = malloc((size_t)ROWS * COLS / GROUP * sizeof *absmax);
  if (!codes || !absmax) return 1;
  uint32_t random = 1;
  for (size_t i = 0; i < (size_t)ROWS * COLS / 2; i++)
    codes[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
  for (size_t i = 0; i < (size_t)ROWS * COLS / GROUP; i++) absmax[i] = 0.5f + (float)(i % 7) / 8;
  for (int i = 0; i < COLS; i++) { /* roughly normal */
    x[i] = -6;
    for (int j = 0; j < 12; j++) x[i] += (float)((random = random * 1664525 + 1013904223) >> 8) * 0x1p-24f;
  }
  bool wide = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
  printf("| lookup | set | cache | memory | relative error |\n| --- | --- | --- | --- | --- |\n");
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    const way *w = &ways[i];
    if (!wide && strcmp(w->isa, "AVX2") != 0) continue;
    prepare(w, x, &a);
    printf("| %s | %s | %.1f | %.1f | %.1e |\n", w->name, w->isa, speed_of(w, codes, absmax, &a, CACHED_ROWS, 400),
           speed_of(w, codes, absmax, &a, ROWS, 1), error_of(w, codes, absmax, x, &a));
  }
  free(codes);
  free(absmax);
  return 0;
}
