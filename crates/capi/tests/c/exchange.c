/* Ranks that meet by a broadcast of the program's own, as MPI's: two processes and a pipe. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static int ends[2];

static int32_t broadcast(void *context, void *bytes, size_t length) {
  int rank = *(int *)context;
  ssize_t moved = rank == 0 ? write(ends[1], bytes, length) : read(ends[0], bytes, length);
  return moved == (ssize_t)length ? 0 : -5;
}

static int32_t fails(void *context, void *bytes, size_t length) {
  (void)context, (void)bytes, (void)length;
  return -5;
}

int main(void) {
  CHECK(pipe(ends) == 0);
  pid_t child = fork();
  int rank = child == 0;
  unisono_options options = {
      .struct_size = sizeof options, .rank = rank, .world_size = 2, .broadcast = fails, .broadcast_context = &rank};
  unisono_comm *comm;
  CHECK(unisono_init(&options, &comm) == UNISONO_STATUS_RENDEZVOUS && comm == NULL);
  CHECK(strstr(unisono_last_error_message(), "returned -5") != NULL);
  options.broadcast = broadcast;
  OK(unisono_init(&options, &comm));
  int32_t data = rank + 1;
  OK(unisono_all_reduce(comm, &data, &data, 1, UNISONO_DTYPE_I32, UNISONO_OP_SUM));
  CHECK(data == 3);
  OK(unisono_close(comm, 60.0));
  unisono_comm_free(comm);
  if (rank == 1) {
    return 0;
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  puts("all as it should be");
  return 0;
}
