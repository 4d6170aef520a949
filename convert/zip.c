#include "convert/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/reader.h"

enum {
  LOCAL_SIGNATURE = 0x04034b50,
  CENTRAL_SIGNATURE = 0x02014b50,
  END_SIGNATURE = 0x06054b50,
  END64_SIGNATURE = 0x06064b50,
  LOCATOR64_SIGNATURE = 0x07064b50,
  LOCAL_BYTES = 30,
  CENTRAL_BYTES = 46,
  END_BYTES = 22,
  END64_BYTES = 56,
  LOCATOR64_BYTES = 20,
  MAX_COMMENT = 0xffff,
  EXTRA_ZIP64 = 1,
  FLAG_ENCRYPTED = 1,
  METHOD_STORED = 0,
  CRC_BAND = 1 << 20, /* bytes a thread takes at a time */
};

/* What the record at the end says of the central directory. */
typedef struct directory {
  uint64_t offset, size, count;
} directory;

static uint64_t get(const uint8_t *p, int bytes) {
  uint64_t v = 0;
  while (bytes-- > 0) v = v << 8 | p[bytes];
  return v;
}

static nibble_status damaged(const char *where, const char *what, nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: damaged zip archive: %s", where, what);
}

/* The end record is the last one whose comment reaches exactly to the end of the file. */
static bool find_end(const nb_mapfile *map, uint64_t *at) {
  for (uint64_t comment = 0; comment <= MAX_COMMENT && END_BYTES + comment <= map->size; comment++) {
    *at = map->size - END_BYTES - comment;
    const uint8_t *end = map->data + *at;
    if (get(end, 4) == END_SIGNATURE && get(end + 20, 2) == comment) return true;
  }
  return false;
}

static nibble_status find_directory(const char *where, const nb_mapfile *map, directory *out, nibble_error *err) {
  uint64_t at;
  if (!find_end(map, &at)) return damaged(where, "it has no end record (truncated?)", err);
  const uint8_t *end = map->data + at;
  uint64_t disks = get(end + 4, 2) | get(end + 6, 2), here = get(end + 8, 2);
  *out = (directory){.count = get(end + 10, 2), .size = get(end + 12, 4), .offset = get(end + 16, 4)};
  if (out->count == 0xffff || out->size == 0xffffffff || out->offset == 0xffffffff) {
    if (at < LOCATOR64_BYTES || get(end - LOCATOR64_BYTES, 4) != LOCATOR64_SIGNATURE)
      return damaged(where, "its zip64 record is missing", err);
    uint64_t at64 = get(end - LOCATOR64_BYTES + 8, 8);
    if (!nb_range_inside(at64, END64_BYTES, at - LOCATOR64_BYTES) || get(map->data + at64, 4) != END64_SIGNATURE)
      return damaged(where, "its zip64 record is not where it should be", err);
    const uint8_t *end64 = map->data + at64;
    disks = get(end64 + 16, 4) | get(end64 + 20, 4);
    here = get(end64 + 24, 8);
    *out = (directory){.count = get(end64 + 32, 8), .size = get(end64 + 40, 8), .offset = get(end64 + 48, 8)};
    at = at64;
  }
  if (disks != 0 || here != out->count) return damaged(where, "it is one part of several", err);
  if (!nb_range_inside(out->offset, out->size, at) || out->count > out->size / CENTRAL_BYTES)
    return damaged(where, "its directory lies outside of the file", err);
  return NIBBLE_OK;
}

/* The fields that did not fit into 32 bits, in the order in which they are saturated. */
static bool read_zip64(const uint8_t *extra, uint64_t n, uint64_t *fields[], int count) {
  while (n >= 4) {
    uint64_t id = get(extra, 2), length = get(extra + 2, 2);
    if (length > n - 4) return false;
    if (id == EXTRA_ZIP64) {
      const uint8_t *p = extra + 4;
      for (int i = 0; i < count; i++) {
        if (*fields[i] != 0xffffffff) continue;
        if (length < 8) return false;
        *fields[i] = get(p, 8);
        p += 8;
        length -= 8;
      }
      return true;
    }
    extra += 4 + length;
    n -= 4 + length;
  }
  return true;
}

/* Reads the entry at `p`, of which `room` bytes are left, into *m; *used is its length. */
static nibble_status read_entry(const char *where, const uint8_t *p, uint64_t room, nb_zip_member *m, uint64_t *used,
                                nibble_error *err) {
  if (room < CENTRAL_BYTES || get(p, 4) != CENTRAL_SIGNATURE) return damaged(where, "a directory entry is bad", err);
  uint64_t flags = get(p + 8, 2), method = get(p + 10, 2), packed = get(p + 20, 4);
  uint64_t name = get(p + 28, 2), extra = get(p + 30, 2), comment = get(p + 32, 2);
  *used = CENTRAL_BYTES + name + extra + comment;
  if (*used > room) return damaged(where, "a directory entry is too long", err);
  m->crc = (uint32_t)get(p + 16, 4);
  m->size = get(p + 24, 4);
  m->header = get(p + 42, 4);
  if (!(m->name = strndup((const char *)p + CENTRAL_BYTES, (size_t)name))) return nb_fail_memory(err, (size_t)name);
  if (strlen(m->name) != name || !nb_name_is_safe(m->name))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s': not a name that a member may have", where, m->name);
  if (!read_zip64(p + CENTRAL_BYTES + name, extra, (uint64_t *[]){&m->size, &packed, &m->header}, 3))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s': its zip64 field is bad", where, m->name);
  if (flags & FLAG_ENCRYPTED) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' is encrypted", where, m->name);
  if (method != METHOD_STORED || packed != m->size)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' is compressed, which torch.save never does; refused", where,
                   m->name);
  return NIBBLE_OK;
}

/* The local header must repeat the name, and the data lie between it and the directory. */
static nibble_status locate(const char *where, const nb_mapfile *map, const directory *d, nb_zip_member *m,
                            nibble_error *err) {
  const uint8_t *p = map->data + m->header;
  if (!nb_range_inside(m->header, LOCAL_BYTES, d->offset) || get(p, 4) != LOCAL_SIGNATURE)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' is not where the directory says", where, m->name);
  uint64_t name = get(p + 26, 2), extra = get(p + 28, 2);
  m->offset = m->header + LOCAL_BYTES + name + extra;
  if (!nb_range_inside(m->offset, m->size, d->offset))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' reaches past the end of the data", where, m->name);
  if (name != strlen(m->name) || memcmp(p + LOCAL_BYTES, m->name, (size_t)name) != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' has another name in its own header", where, m->name);
  return NIBBLE_OK;
}

static int compare_members(const void *a, const void *b) {
  const nb_zip_member *x = a, *y = b;
  return x->header < y->header ? -1 : x->header > y->header;
}

static nibble_status check_members(const char *where, nb_zip *zip, nibble_error *err) {
  qsort(zip->members, zip->count, sizeof *zip->members, compare_members);
  for (size_t i = 0; i < zip->count; i++) {
    const nb_zip_member *m = &zip->members[i], *before = i ? m - 1 : NULL;
    if (before && m->header < before->offset + before->size)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' overlaps '%s'", where, m->name, before->name);
    nb_strmap_result added = nb_strmap_add(&zip->by_name, m->name, strlen(m->name), (int64_t)i);
    if (added == NB_STRMAP_NO_MEMORY) return nb_fail_memory(err, zip->count);
    if (added == NB_STRMAP_EXISTS)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' is there twice", where, m->name);
  }
  return NIBBLE_OK;
}

nibble_status nb_zip_open(const char *where, const nb_mapfile *map, nb_zip *out, nibble_error *err) {
  *out = (nb_zip){0};
  directory d = {0};
  nibble_status status = find_directory(where, map, &d, err);
  if (status != NIBBLE_OK) return status;
  if (!(out->members = nb_alloc(d.count, sizeof *out->members)))
    return nb_fail_memory(err, (size_t)d.count * sizeof *out->members);
  uint64_t at = d.offset, end = d.offset + d.size;
  for (uint64_t i = 0; status == NIBBLE_OK && i < d.count; i++) {
    nb_zip_member *m = &out->members[out->count++];
    uint64_t used = 0;
    status = read_entry(where, map->data + at, end - at, m, &used, err);
    if (status == NIBBLE_OK) status = locate(where, map, &d, m, err);
    at += used;
  }
  if (status == NIBBLE_OK && (at != end || d.count == 0)) status = damaged(where, "its directory is bad", err);
  if (status == NIBBLE_OK) status = check_members(where, out, err);
  if (status != NIBBLE_OK) nb_zip_close(out);
  return status;
}

void nb_zip_close(nb_zip *zip) {
  for (size_t i = 0; i < zip->count; i++) free(zip->members[i].name);
  free(zip->members);
  nb_strmap_free(&zip->by_name);
  *zip = (nb_zip){0};
}

const nb_zip_member *nb_zip_find(const nb_zip *zip, const char *name) {
  int64_t index;
  return nb_strmap_find(&zip->by_name, name, strlen(name), &index) ? &zip->members[index] : NULL;
}

typedef struct crc_work {
  const nb_mapfile *map;
  uint64_t offset;
  uint32_t *crcs; /* a band each */
} crc_work;

static void crc_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const crc_work *w = ctx;
  uint64_t at = w->offset + (uint64_t)begin;
  w->crcs[begin / CRC_BAND] = (uint32_t)crc32_z(0, w->map->data + at, (size_t)(end - begin));
  nb_mapfile_release(w->map, at, (uint64_t)(end - begin));
}

nibble_status nb_zip_check(const char *where, const nb_mapfile *map, const nb_zip *zip, nibble_error *err) {
  for (size_t i = 0; i < zip->count; i++) {
    const nb_zip_member *m = &zip->members[i];
    int64_t size = (int64_t)m->size, bands = nb_ceil_div(size, CRC_BAND);
    crc_work work = {.map = map, .offset = m->offset, .crcs = nb_alloc((uint64_t)bands, sizeof *work.crcs)};
    if (!work.crcs) return nb_fail_memory(err, (size_t)bands * sizeof *work.crcs);
    nibble_status status = nb_parallel_stoppable(size, CRC_BAND, crc_band, &work, err);
    nb_mapfile_release(map, m->offset, m->size); /* the pages that two bands share */
    uLong crc = crc32_z(0, NULL, 0);
    for (int64_t b = 0; b < bands; b++)
      crc = crc32_combine(crc, work.crcs[b], (z_off_t)nb_min_i64(CRC_BAND, size - b * CRC_BAND));
    free(work.crcs);
    if (status != NIBBLE_OK) return status;
    if (crc != m->crc)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: member '%s' is damaged: its CRC is %08lx, the archive says %08lx",
                     where, m->name, crc, (unsigned long)m->crc);
  }
  return NIBBLE_OK;
}
