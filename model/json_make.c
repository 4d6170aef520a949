#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/json.h"

static cJSON *make_item(char kind, va_list *args) {
  switch (kind) {
    case 's': return cJSON_CreateString(va_arg(*args, const char *));
    case 'b': return cJSON_CreateBool(va_arg(*args, int));
    case 'i': return cJSON_CreateNumber(va_arg(*args, int));
    case 'o': return va_arg(*args, cJSON *);
    default: return cJSON_CreateNull();
  }
}

cJSON *nb_json_put_in(cJSON *object, const char *key, cJSON *item) {
  if (object && item && cJSON_AddItemToObject(object, key, item)) return object;
  cJSON_Delete(object);
  cJSON_Delete(item);
  return NULL;
}

cJSON *nb_json_push(cJSON *list, cJSON *item) {
  if (list && item && cJSON_AddItemToArray(list, item)) return list;
  cJSON_Delete(list);
  cJSON_Delete(item);
  return NULL;
}

cJSON *nb_json_make(const char *members, ...) {
  cJSON *object = cJSON_CreateObject();
  va_list args;
  va_start(args, members);
  while (*members) {
    char key[48];
    const char *colon = strchr(members, ':');
    snprintf(key, sizeof key, "%.*s", (int)(colon - members), members);
    object = nb_json_put_in(object, key, make_item(colon[1], &args));
    members = colon + 2;
    members += *members == ' ';
  }
  va_end(args);
  return object;
}
