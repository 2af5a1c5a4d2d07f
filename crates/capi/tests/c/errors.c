/* What survivors are told: the program runs as each of two ranks, and its argument says what goes wrong. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static int32_t data[4];

static unisono_status sum(unisono_comm *comm) {
  return unisono_all_reduce(comm, data, data, 4, UNISONO_DTYPE_I32, UNISONO_OP_SUM);
}

/* Rank 1 is killed between two calls. */
static void killed(unisono_comm *comm, int rank) {
  unisono_peer peer = {.struct_size = sizeof peer};
  OK(unisono_comm_peer(comm, 1 - rank, &peer));
  OK(sum(comm));
  if (rank == 1) {
    raise(SIGKILL);
  }
  CHECK(sum(comm) == UNISONO_STATUS_PEER_DIED);
  unisono_error error = last_error();
  CHECK(error.rank == 1 && error.pid == peer.pid && error.pid != 0 && error.is_terminal == 1);
  CHECK(strcmp(error.operation, "all_reduce") == 0 && error.number == 2);
  CHECK(strstr(error.call, "all_reduce(sum, 4 x i32") != NULL);
  CHECK(unisono_barrier(comm) == UNISONO_STATUS_PEER_DIED); /* From now on. */
}

/* The ranks make different calls: one of them sees it, the other hears of it. */
static void mismatch(unisono_comm *comm, int rank) {
  unisono_status status = rank == 0 ? sum(comm) : unisono_barrier(comm);
  if (status == UNISONO_STATUS_OK) {
    status = unisono_barrier(comm);
  }
  CHECK(status == UNISONO_STATUS_MISMATCH);
  CHECK(last_error().is_terminal == 1 && last_error().number == 1);
}

/* Rank 1 does not come; it waits for something else, and hears why the group has stopped. */
static void timeout(unisono_comm *comm, int rank) {
  if (rank == 1) {
    CHECK(unisono_recv(comm, data, 4, UNISONO_DTYPE_I32, 0) == UNISONO_STATUS_TIMEOUT);
    CHECK(last_error().reported_by == 0);
    return;
  }
  unisono_comm *hurried;
  OK(unisono_comm_with_timeout(comm, 0.2, &hurried));
  CHECK(unisono_comm_timeout(hurried) == 0.2 && unisono_comm_timeout(comm) == 30.0 * 60.0);
  CHECK(sum(hurried) == UNISONO_STATUS_TIMEOUT);
  unisono_error error = last_error();
  CHECK(error.is_terminal == 1 && error.peer_count == 1 && error.rank == 1 && error.waited_seconds >= 0.2);
  unisono_peer peer = {.struct_size = sizeof peer};
  OK(unisono_last_error_peer(0, &peer));
  CHECK(peer.rank == 1 && peer.is_alive == 1 && peer.pid != 0);
  CHECK(unisono_last_error_peer(1, &peer) == UNISONO_STATUS_INVALID_ARGUMENT);
  CHECK(last_error().status == UNISONO_STATUS_TIMEOUT); /* Asking for too much forgets nothing. */
  unisono_comm_free(hurried);
}

/* Rank 1 leaves, and is still needed. */
static void left(unisono_comm *comm, int rank) {
  if (rank == 1) {
    OK(unisono_leave(comm));
    CHECK(sum(comm) == UNISONO_STATUS_CLOSED);
    return;
  }
  CHECK(sum(comm) == UNISONO_STATUS_PEER_LEFT);
  CHECK(last_error().rank == 1);
}

static void aborted(unisono_comm *comm, int rank) {
  if (rank == 1) {
    OK(unisono_abort(comm));
  }
  CHECK(sum(comm) == UNISONO_STATUS_ABORTED);
  CHECK(last_error().rank == 1);
}

static void forked(unisono_comm *comm, int rank) {
  (void)rank;
  pid_t child = fork();
  if (child == 0) {
    CHECK(sum(comm) == UNISONO_STATUS_FORKED);
    CHECK(last_error().pid == (uint32_t)getppid());
    unisono_comm_free(comm);
    _exit(7);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
  OK(sum(comm));
}

static int32_t yes(void *context) {
  (*(int *)context)++;
  return 1;
}

/* A thread's own wish to end its wait. */
static void interrupted(unisono_comm *comm, int rank) {
  int asked = 0;
  if (rank == 1) {
    CHECK(unisono_recv(comm, data, 4, UNISONO_DTYPE_I32, 0) == UNISONO_STATUS_ABORTED);
    return;
  }
  OK(unisono_ask_on_this_thread(yes, &asked));
  CHECK(sum(comm) == UNISONO_STATUS_INTERRUPTED);
  CHECK(asked >= 1 && last_error().is_terminal == 1);
  OK(unisono_ask_on_this_thread(NULL, NULL));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  static const struct {
    const char *name;
    void (*walk)(unisono_comm *, int);
  } walks[] = {{"killed", killed}, {"mismatch", mismatch}, {"timeout", timeout},        {"left", left},
               {"aborted", aborted}, {"forked", forked},   {"interrupted", interrupted}};
  unisono_comm *comm;
  OK(unisono_init_from_env(&comm));
  for (size_t i = 0; i < sizeof walks / sizeof *walks; i++) {
    if (strcmp(walks[i].name, argv[1]) == 0) {
      walks[i].walk(comm, unisono_comm_rank(comm));
      unisono_comm_free(comm);
      puts("all as it should be");
      return 0;
    }
  }
  fprintf(stderr, "no such walk: %s\n", argv[1]);
  return 2;
}
