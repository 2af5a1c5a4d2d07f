/* What the tests in C have in common: a check that says where it failed, and what the library says to it. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unisono.h"

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #condition,                           \
              unisono_last_error_message());                                                                           \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

#define OK(call) CHECK((call) == UNISONO_STATUS_OK)

/* The call is refused, and the message says why. */
#define REFUSED(call, why)                                                                                             \
  do {                                                                                                                 \
    CHECK((call) == UNISONO_STATUS_INVALID_ARGUMENT);                                                                  \
    if (strstr(unisono_last_error_message(), (why)) == NULL) {                                                         \
      fprintf(stderr, "%s:%d: expected \"%s\" in: %s\n", __FILE__, __LINE__, (why), unisono_last_error_message());     \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

static inline unisono_error last_error(void) {
  unisono_error error = {.struct_size = sizeof error};
  OK(unisono_last_error(&error));
  return error;
}

#endif
