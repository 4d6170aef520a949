/* The members of a zip archive in a mapped file, as torch.save writes one: stored, never compressed, so that each
 * member is a run of bytes that can be used where it lies. zip64 too.
 * Everything is checked on opening but the members' CRCs, which nb_zip_check does: it reads the whole file.
 * APPNOTE.TXT 6.3, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT */
#ifndef NB_CONVERT_ZIP_H
#define NB_CONVERT_ZIP_H

#include "base/mapfile.h"
#include "base/strmap.h"

typedef struct nb_zip_member {
  char *name;
  uint64_t header; /* offset of the local header, bytes from the start of the file */
  uint64_t offset; /* of the data */
  uint64_t size;   /* bytes */
  uint32_t crc;
} nb_zip_member;

typedef struct nb_zip {
  nb_zip_member *members; /* as they lie */
  size_t count;
  nb_strmap by_name;
} nb_zip;

/* NIBBLE_BAD_INPUT if a member is compressed or encrypted, lies outside the file or over another, has a name that
 * leads elsewhere or that another one has, or if the archive's parts contradict each other. `where` is the file's path,
 * for messages. Free with nb_zip_close. */
nibble_status nb_zip_open(const char *where, const nb_mapfile *map, nb_zip *out, nibble_error *err);
void nb_zip_close(nb_zip *zip);

const nb_zip_member *nb_zip_find(const nb_zip *zip, const char *name);

/* Compares the CRC-32 of every member; pages are given back as it goes. */
nibble_status nb_zip_check(const char *where, const nb_mapfile *map, const nb_zip *zip, nibble_error *err);

#endif
