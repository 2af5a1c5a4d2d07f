/*
 * Ranks add up a hidden state, as tensor-parallel layers do after each matrix product.
 *
 *     cc -std=c11 -I include all_reduce.c -L lib -lunisono -o all_reduce
 *     unisono run -n 2 -- ./all_reduce
 *
 * docs/c.md says how the library and its header are built and installed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "unisono.h"

enum { HIDDEN = 4096 };

/* What a program that cannot go on does: the error names the operation, its number, and the rank that is missing or gone. */
static void must(unisono_status status) {
  if (status == UNISONO_STATUS_OK) {
    return;
  }
  unisono_error error = {.struct_size = sizeof error};
  unisono_last_error(&error);
  fprintf(stderr, "%s: %s (rank %" PRId32 ", call %" PRIu64 ")\n", unisono_status_name(status), error.message,
          error.rank, error.number);
  exit(1);
}

int main(void) {
  unisono_comm *comm;
  must(unisono_init_from_env(&comm));
  int32_t rank = unisono_comm_rank(comm), world_size = unisono_comm_world_size(comm);

  /* On memory of the program's own, in place. */
  static float hidden[HIDDEN];
  for (int i = 0; i < HIDDEN; i++) {
    hidden[i] = (float)(rank + 1);
  }
  must(unisono_all_reduce(comm, hidden, hidden, HIDDEN, UNISONO_DTYPE_F32, UNISONO_OP_SUM));

  /* On registered memory, which all ranks have mapped: large sums need no staging. */
  unisono_memory *memory;
  must(unisono_memory_alloc(comm, HIDDEN, UNISONO_DTYPE_F32, &memory));
  float *shared = unisono_memory_data(memory);
  for (int i = 0; i < HIDDEN; i++) {
    shared[i] = hidden[i];
  }
  must(unisono_all_reduce_registered(comm, memory, 0, HIDDEN, UNISONO_DTYPE_F32, UNISONO_OP_AVERAGE));

  /* Started, and waited for after something else was done. */
  unisono_call call = {
      .struct_size = sizeof call,
      .operation = UNISONO_OPERATION_ALL_REDUCE,
      .dtype = UNISONO_DTYPE_F32,
      .op = UNISONO_OP_MAX,
      .input = hidden,
      .output = hidden,
      .count = HIDDEN,
  };
  unisono_request *request;
  must(unisono_start(comm, &call, &request));
  must(unisono_request_wait(request, UNISONO_FOREVER));
  unisono_request_free(request);

  printf("rank %" PRId32 " of %" PRId32 ": the sum is %g, everywhere %g\n", rank, world_size, (double)hidden[HIDDEN - 1],
         (double)shared[HIDDEN - 1]);
  unisono_memory_free(memory);
  must(unisono_close(comm, 60.0));
  unisono_comm_free(comm);
  return 0;
}
