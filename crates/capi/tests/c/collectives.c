/* Every collective, between two ranks that are threads: what each rank gets; and that started calls do the same. */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <unistd.h>

#include "check.h"

enum { WORLD = 2, MANY = 100000 };

static sem_t looked; /* Rank 0 has seen that its call is not over. */

static void even(unisono_comm *comm, int rank) {
  int32_t mine[2] = {rank + 1, 10 * (rank + 1)}, out[4];
  OK(unisono_all_reduce(comm, mine, out, 2, UNISONO_DTYPE_I32, UNISONO_OP_SUM));
  CHECK(out[0] == 3 && out[1] == 30);
  OK(unisono_all_reduce(comm, mine, out, 2, UNISONO_DTYPE_I32, UNISONO_OP_MAX));
  CHECK(out[0] == 2 && out[1] == 20);
  OK(unisono_reduce(comm, mine, out, 2, UNISONO_DTYPE_I32, UNISONO_OP_PRODUCT, 1));
  CHECK(rank == 0 || (out[0] == 2 && out[1] == 200));
  OK(unisono_reduce_scatter(comm, mine, out, 1, UNISONO_DTYPE_I32, UNISONO_OP_SUM));
  CHECK(out[0] == (rank == 0 ? 3 : 30));
  OK(unisono_all_gather(comm, mine, out, 2, UNISONO_DTYPE_I32));
  CHECK(out[0] == 1 && out[1] == 10 && out[2] == 2 && out[3] == 20);
  size_t shape[2] = {2, 1};
  OK(unisono_all_gather_dim(comm, mine, out, shape, 2, -1, UNISONO_DTYPE_I32));
  CHECK(out[0] == 1 && out[1] == 2 && out[2] == 10 && out[3] == 20);
  int32_t told = rank == 1 ? 77 : 0;
  OK(unisono_broadcast(comm, &told, 1, UNISONO_DTYPE_I32, 1));
  CHECK(told == 77);
  OK(unisono_gather(comm, mine, rank == 0 ? out : NULL, 2, UNISONO_DTYPE_I32, 0));
  CHECK(rank == 1 || (out[1] == 10 && out[3] == 20));
  OK(unisono_scatter(comm, rank == 0 ? mine : NULL, out, 1, UNISONO_DTYPE_I32, 0));
  CHECK(out[0] == (rank == 0 ? 1 : 10));
  OK(unisono_all_to_all(comm, mine, out, 1, UNISONO_DTYPE_I32));
  CHECK(out[0] == (rank == 0 ? 1 : 10) && out[1] == (rank == 0 ? 2 : 20));
  OK(unisono_barrier(comm));
  if (rank == 0) {
    OK(unisono_send(comm, mine, 2, UNISONO_DTYPE_I32, 1));
  } else {
    OK(unisono_recv(comm, out, 2, UNISONO_DTYPE_I32, 0));
    CHECK(out[0] == 1 && out[1] == 10);
  }
  /* Nothing at all is something, too. */
  OK(unisono_all_reduce(comm, NULL, NULL, 0, UNISONO_DTYPE_BF16, UNISONO_OP_AVERAGE));
}

static void uneven(unisono_comm *comm, int rank) {
  size_t counts[WORLD] = {1, 2}, count = counts[rank];
  int64_t mine[3] = {rank + 1, rank + 11, rank + 21}, out[3] = {0, 0, 0};
  OK(unisono_all_gather_v(comm, mine, out, counts, UNISONO_DTYPE_I64));
  CHECK(out[0] == 1 && out[1] == 2 && out[2] == 12);
  OK(unisono_reduce_scatter_v(comm, mine, out, counts, UNISONO_DTYPE_I64, UNISONO_OP_SUM));
  CHECK(out[0] == (rank == 0 ? 3 : 23) && (rank == 0 || out[1] == 43));
  size_t to[WORLD] = {1, 2}, from[WORLD] = {rank == 0 ? 1 : 2, rank == 0 ? 1 : 2};
  OK(unisono_all_to_all_v(comm, mine, to, out, from, UNISONO_DTYPE_I64));
  CHECK(rank == 0 ? (out[0] == 1 && out[1] == 2) : 1);
  OK(unisono_gather_v(comm, mine, count, rank == 1 ? out : NULL, rank == 1 ? counts : NULL, UNISONO_DTYPE_I64, 1));
  CHECK(rank == 0 || (out[0] == 1 && out[1] == 2 && out[2] == 12));
  OK(unisono_scatter_v(comm, rank == 1 ? mine : NULL, rank == 1 ? counts : NULL, out, count, UNISONO_DTYPE_I64, 1));
  CHECK(out[0] == (rank == 0 ? 2 : 12));
}

static void registered(unisono_comm *comm, int rank) {
  unisono_memory *memory;
  OK(unisono_memory_alloc(comm, MANY, UNISONO_DTYPE_F32, &memory));
  CHECK(unisono_memory_bytes(memory) == MANY * sizeof(float));
  float *data = unisono_memory_data(memory);
  for (int i = 0; i < MANY; i++) {
    data[i] = (float)(rank + 1);
  }
  OK(unisono_barrier(comm));
  OK(unisono_all_reduce_registered(comm, memory, 0, MANY, UNISONO_DTYPE_F32, UNISONO_OP_SUM));
  CHECK(data[0] == 3.0f && data[MANY - 1] == 3.0f);
  data[1] = (float)rank;
  OK(unisono_broadcast_registered(comm, memory, 1, 1, UNISONO_DTYPE_F32, 1));
  CHECK(data[1] == 1.0f);
  data[2 + rank] = (float)(rank + 5);
  OK(unisono_all_gather_registered(comm, memory, 2, 1, UNISONO_DTYPE_F32));
  CHECK(data[2] == 5.0f && data[3] == 6.0f);
  data[4] = data[5] = (float)(rank + 1);
  OK(unisono_reduce_scatter_registered(comm, memory, 4, 1, UNISONO_DTYPE_F32, UNISONO_OP_SUM));
  CHECK(data[4 + rank] == 3.0f);
  data[6] = (float)(rank + 1);
  OK(unisono_reduce_registered(comm, memory, 6, 1, UNISONO_DTYPE_F32, UNISONO_OP_SUM, 0));
  CHECK(rank == 1 || data[6] == 3.0f);
  REFUSED(unisono_all_reduce_registered(comm, memory, MANY, 1, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "outside");
  REFUSED(unisono_broadcast_registered(comm, NULL, 0, 1, UNISONO_DTYPE_F32, 0), "null");

  /* A call that was started holds the memory: its handle may go. */
  unisono_call call = {.struct_size = sizeof call,
                       .operation = UNISONO_OPERATION_ALL_REDUCE,
                       .dtype = UNISONO_DTYPE_F32,
                       .op = UNISONO_OP_SUM,
                       .memory = memory,
                       .count = MANY};
  unisono_request *request;
  OK(unisono_start(comm, &call, &request));
  unisono_memory_free(memory);
  OK(unisono_request_wait(request, UNISONO_FOREVER));
  unisono_request_free(request);
}

static void started(unisono_comm *comm, int rank) {
  static float data[WORLD][MANY];
  int32_t gathered[3] = {0, 0, 0}, mine[2] = {rank + 1, rank + 11};
  for (int i = 0; i < MANY; i++) {
    data[rank][i] = 1.0f;
  }
  unisono_call sum = {.struct_size = sizeof sum,
                      .operation = UNISONO_OPERATION_ALL_REDUCE,
                      .dtype = UNISONO_DTYPE_F32,
                      .op = UNISONO_OP_SUM,
                      .input = data[rank],
                      .output = data[rank],
                      .count = MANY};
  unisono_request *requests[3];
  OK(unisono_start(comm, &sum, &requests[0]));
  {
    size_t counts[WORLD] = {1, 2}; /* Copied: it may go before the call is made. */
    unisono_call gather = {.struct_size = sizeof gather,
                           .operation = UNISONO_OPERATION_ALL_GATHER_V,
                           .dtype = UNISONO_DTYPE_I32,
                           .input = mine,
                           .output = gathered,
                           .counts = counts};
    OK(unisono_start(comm, &gather, &requests[1]));
  }
  unisono_call barrier = {.struct_size = sizeof barrier, .operation = UNISONO_OPERATION_BARRIER};
  OK(unisono_start(comm, &barrier, &requests[2]));
  for (int i = 2; i >= 0; i--) {
    OK(unisono_request_wait(requests[i], 60.0));
    OK(unisono_request_wait(requests[i], 0.0)); /* Again, it says the same. */
    CHECK(unisono_request_is_finished(requests[i]) == 1);
    unisono_request_free(requests[i]);
  }
  CHECK(data[rank][0] == 2.0f && data[rank][MANY - 1] == 2.0f);
  CHECK(gathered[0] == 1 && gathered[1] == 2 && gathered[2] == 12);

  /* A call whose peer has not made it is not over; freed, it is waited for. */
  if (rank == 0) {
    OK(unisono_start(comm, &barrier, &requests[0]));
    CHECK(unisono_request_wait(requests[0], 0.01) == UNISONO_STATUS_UNFINISHED);
    CHECK(unisono_request_is_finished(requests[0]) == 0);
    CHECK(sem_post(&looked) == 0);
  } else {
    CHECK(sem_wait(&looked) == 0);
    OK(unisono_start(comm, &barrier, &requests[0]));
  }
  unisono_request_free(requests[0]);
}

static void groups(unisono_comm *comm, int rank) {
  unisono_comm *part, *none;
  OK(unisono_split(comm, 5, -rank, &part)); /* The other way round. */
  CHECK(unisono_comm_rank(part) == 1 - rank && unisono_comm_world_size(part) == WORLD);
  OK(unisono_barrier(part));
  unisono_comm_free(part);
  OK(unisono_split(comm, rank == 0 ? 0 : -1, 0, &none));
  CHECK((none == NULL) == (rank == 1));
  unisono_comm_free(none);
  unisono_peer peer = {.struct_size = sizeof peer};
  OK(unisono_comm_peer(comm, 1 - rank, &peer));
  CHECK(peer.rank == 1 - rank && peer.is_alive == 1 && peer.pid == (uint32_t)getpid());
  CHECK(peer.last_number > 0 && strchr(peer.last_call, '(') != NULL); /* The split, or what came after it. */
  CHECK(strlen(unisono_comm_name(comm)) > 0 && unisono_comm_memory_bytes(comm) > 0);
  OK(unisono_comm_set_threads(comm, 2));
  even(comm, rank);
  OK(unisono_comm_set_threads(comm, 1));
}

static void *run(void *argument) {
  unisono_comm *comm = argument;
  int rank = unisono_comm_rank(comm);
  even(comm, rank);
  uneven(comm, rank);
  registered(comm, rank);
  started(comm, rank);
  groups(comm, rank);
  OK(unisono_close(comm, 60.0));
  CHECK(unisono_barrier(comm) == UNISONO_STATUS_CLOSED);
  CHECK(last_error().is_terminal == 1);
  unisono_comm_free(comm);
  return NULL;
}

int main(void) {
  unisono_comm *comms[WORLD];
  CHECK(sem_init(&looked, 0, 0) == 0);
  OK(unisono_init_in_process(WORLD, comms));
  pthread_t other;
  CHECK(pthread_create(&other, NULL, run, comms[1]) == 0);
  run(comms[0]);
  CHECK(pthread_join(other, NULL) == 0);
  puts("all as it should be");
  return 0;
}
