/* nibble bench --kernels: prints what nibble_bench_kernels measures, row by row as it comes. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"

static void started(void *ctx, const nibble_kernel_bench *b) {
  (void)ctx;
  printf("%s, %d thread%s: copies %.1f GB/s, reads %.1f GB/s, multiplies and adds %.1f GFLOP/s\n", b->isa, b->threads,
         b->threads == 1 ? "" : "s", b->copy_bytes_per_second / 1e9, b->read_bytes_per_second / 1e9,
         b->peak_flops / 1e9);
  printf("quantizing to nf4: %.0f million parameters/s\n", b->nf4_parameters_per_second / 1e6);
  printf("%-8s %6s %6s %4s %11s %8s %9s  %s\n", "format", "rows", "cols", "n", "us", "GB/s", "GFLOP/s", "share of");
}

static void each(void *ctx, const nibble_kernel_bench_row *r) {
  (void)ctx;
  char name[32];
  snprintf(name, sizeof name, "%s%s", r->format, r->double_quant ? "+dq" : "");
  printf("%-8s %6" PRId64 " %6" PRId64 " %4" PRId64 " %11.1f %8.2f %9.1f  %3.0f%% %s\n", name, r->rows, r->cols, r->n,
         r->seconds * 1e6, r->bytes_per_second / 1e9, r->flops / 1e9, r->share * 100,
         r->bound_by_memory ? "read" : "FMA");
  cli_flush();
}

static void print_json(const nibble_kernel_bench *b) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "isa", b->isa);
  cJSON_AddNumberToObject(json, "threads", b->threads);
  cJSON_AddNumberToObject(json, "copy_bytes_per_second", b->copy_bytes_per_second);
  cJSON_AddNumberToObject(json, "read_bytes_per_second", b->read_bytes_per_second);
  cJSON_AddNumberToObject(json, "peak_flops", b->peak_flops);
  cJSON_AddNumberToObject(json, "nf4_parameters_per_second", b->nf4_parameters_per_second);
  cJSON *rows = cJSON_AddArrayToObject(json, "kernels");
  for (size_t i = 0; i < b->row_count; i++) {
    const nibble_kernel_bench_row *r = &b->rows[i];
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "format", r->format);
    cJSON_AddBoolToObject(row, "double_quant", r->double_quant);
    cJSON_AddNumberToObject(row, "rows", (double)r->rows);
    cJSON_AddNumberToObject(row, "cols", (double)r->cols);
    cJSON_AddNumberToObject(row, "n", (double)r->n);
    cJSON_AddNumberToObject(row, "seconds", r->seconds);
    cJSON_AddNumberToObject(row, "bytes_per_second", r->bytes_per_second);
    cJSON_AddNumberToObject(row, "flops", r->flops);
    cJSON_AddNumberToObject(row, "share", r->share);
    cJSON_AddStringToObject(row, "bound", r->bound_by_memory ? "memory" : "multiply");
    cJSON_AddItemToArray(rows, row);
  }
  cli_print_json(json);
}

int cli_bench_kernels(const nibble_kernel_bench_options *options, bool json) {
  nibble_kernel_bench_options o = *options;
  if (!json) {
    o.started = started;
    o.each = each;
  }
  nibble_kernel_bench result = {.size = sizeof result};
  nibble_error err;
  nibble_status status = nibble_bench_kernels(&o, &result, &err);
  if (!status && json) print_json(&result);
  if (!status) nibble_kernel_bench_free(&result);
  return cli_finish(status, &err);
}
