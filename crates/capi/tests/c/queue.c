/* A queue between two processes: messages in place and copied, small and large; and what each side is told of the other. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { LARGE = 3 << 20 }; /* More than the ring takes. */

static char handle[512];
static size_t handle_bytes;

static void count_log(void *context, unisono_log_level level, const char *message) {
  CHECK(level >= UNISONO_LOG_LEVEL_ERROR && message != NULL);
  __atomic_fetch_add((int *)context, 1, __ATOMIC_RELAXED);
}

/* The reader's process. */
static void read_all(int handles) {
  CHECK(read(handles, handle, sizeof handle) == (ssize_t)sizeof handle);
  memcpy(&handle_bytes, handle + sizeof handle - sizeof handle_bytes, sizeof handle_bytes);
  unisono_reader *reader, *second = NULL;
  CHECK(unisono_reader_open(handle, handle_bytes, 9, 30.0, &reader) == UNISONO_STATUS_UNKNOWN_RANK);
  OK(unisono_reader_open(handle, handle_bytes, 5, 30.0, &reader));
  CHECK(unisono_reader_rank(reader) == 5);
  CHECK(unisono_reader_open(handle, handle_bytes, 5, 30.0, &second) == UNISONO_STATUS_RANK_TAKEN);
  CHECK(last_error().pid == (uint32_t)getpid() && second == NULL);
  OK(unisono_reader_wait_until_ready(reader, 30.0));

  unisono_message message;
  OK(unisono_reader_recv(reader, 30.0, &message));
  CHECK(message.number == 0 && message.bytes == 5 && memcmp(message.data, "hello", 5) == 0);
  REFUSED(unisono_reader_recv(reader, 0.0, &message), "release or keep");
  OK(unisono_reader_keep(reader)); /* It stays the next. */
  REFUSED(unisono_reader_keep(reader), "no message");
  char small[4], exact[8];
  size_t bytes;
  CHECK(unisono_reader_recv_into(reader, small, sizeof small, 30.0, &bytes) == UNISONO_STATUS_TOO_SMALL && bytes == 5);
  OK(unisono_reader_recv_into(reader, exact, sizeof exact, 30.0, &bytes));
  CHECK(bytes == 5 && memcmp(exact, "hello", 5) == 0);
  OK(unisono_reader_recv(reader, 30.0, &message));
  CHECK(message.number == 1 && message.bytes == 8 && memcmp(message.data, "in place", 8) == 0);
  OK(unisono_reader_release(reader));
  OK(unisono_reader_recv(reader, 30.0, &message));
  CHECK(message.number == 2 && message.bytes == LARGE);
  const unsigned char *large = message.data;
  for (size_t i = 0; i < LARGE; i += 4096) {
    CHECK(large[i] == (unsigned char)(i >> 12));
  }
  OK(unisono_reader_release(reader));
  OK(unisono_reader_recv(reader, 30.0, &message));
  CHECK(message.number == 3 && message.bytes == 0);
  OK(unisono_reader_release(reader));
  CHECK(unisono_reader_recv(reader, 0.0, &message) == UNISONO_STATUS_TIMEOUT && message.data == NULL);
  raise(SIGKILL); /* With a handle in its hands. */
}

static void *cancel(void *writer) {
  OK(unisono_writer_cancel(writer));
  return NULL;
}

static int is_over;

static void *wait_for_more(void *reader) {
  unisono_message message;
  unisono_status status;
  do {
    status = unisono_reader_recv(reader, UNISONO_FOREVER, &message);
  } while (status == UNISONO_STATUS_BUSY);
  CHECK(status == UNISONO_STATUS_CANCELLED);
  __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
  return NULL;
}

int main(void) {
  int ends[2], logged = 0;
  CHECK(pipe(ends) == 0);
  pid_t child = fork(); /* Before anything of the library is made. */
  if (child == 0) {
    read_all(ends[0]);
  }
  OK(unisono_set_log(count_log, &logged));
  int32_t ranks[] = {5};
  unisono_queue_options options = {.struct_size = sizeof options, .reader_ranks = ranks, .reader_count = 1, .rank = 3};
  unisono_writer *writer;
  OK(unisono_writer_create(&options, &writer));
  CHECK(unisono_writer_handle(writer, NULL, 0, &handle_bytes) == UNISONO_STATUS_TOO_SMALL && handle_bytes > 0);
  CHECK(unisono_writer_wait_until_ready(writer, 0.01) == UNISONO_STATUS_TIMEOUT);
  CHECK(last_error().rank == 5 && last_error().peer_count == 1);
  OK(unisono_writer_handle(writer, handle, sizeof handle - sizeof handle_bytes, &handle_bytes));
  memcpy(handle + sizeof handle - sizeof handle_bytes, &handle_bytes, sizeof handle_bytes);
  CHECK(write(ends[1], handle, sizeof handle) == (ssize_t)sizeof handle);
  OK(unisono_writer_wait_until_ready(writer, 30.0));
  unisono_reader_status status = {.struct_size = sizeof status};
  OK(unisono_writer_reader(writer, 0, &status));
  CHECK(status.rank == 5 && status.pid == (uint32_t)child && status.presence == UNISONO_PRESENCE_ALIVE);
  REFUSED(unisono_writer_reader(writer, 1, &status), "index 1 of 1");

  void *room;
  OK(unisono_writer_send(writer, "hello", 5, 30.0));
  OK(unisono_writer_reserve(writer, 100, 30.0, &room));
  memset(room, 0xee, 100);
  REFUSED(unisono_writer_send(writer, "between", 7, 30.0), "commit or discard");
  OK(unisono_writer_discard(writer)); /* It never was. */
  REFUSED(unisono_writer_commit(writer), "no message");
  OK(unisono_writer_reserve(writer, 8, 30.0, &room));
  memcpy(room, "in place", 8);
  OK(unisono_writer_commit(writer));
  OK(unisono_writer_reserve(writer, LARGE, 30.0, &room));
  for (size_t i = 0; i < LARGE; i += 4096) {
    ((unsigned char *)room)[i] = (unsigned char)(i >> 12);
  }
  OK(unisono_writer_commit(writer));
  OK(unisono_writer_send(writer, NULL, 0, 30.0));

  int ended;
  CHECK(waitpid(child, &ended, 0) == child);
  CHECK(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL); /* Any other end is a check that failed there. */
  /* Its death is told by the next call that has heard of it: within its time. */
  unisono_status told;
  do {
    told = unisono_writer_send(writer, "anybody?", 8, 30.0);
  } while (told == UNISONO_STATUS_OK);
  CHECK(told == UNISONO_STATUS_PEER_DIED && last_error().rank == 5 && last_error().pid == (uint32_t)child);

  /* The rank is free again: a reader in this process, which a second thread wakes. */
  unisono_reader *reader;
  OK(unisono_reader_open(handle, handle_bytes, 5, 30.0, &reader));
  OK(unisono_writer_wait_until_ready(writer, 30.0));
  unisono_message message;
  pthread_t other;
  CHECK(pthread_create(&other, NULL, wait_for_more, reader) == 0);
  do {
    told = unisono_reader_recv(reader, 0.0, &message);
  } while (told == UNISONO_STATUS_TIMEOUT);
  CHECK(told == UNISONO_STATUS_BUSY); /* The other thread is inside, and may be for hours. */
  while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
    OK(unisono_reader_cancel(reader));
    usleep(1000); /* It may have been between two waits. */
  }
  CHECK(pthread_join(other, NULL) == 0);
  OK(unisono_reader_shut_down(reader));
  CHECK(unisono_reader_recv(reader, UNISONO_FOREVER, &message) == UNISONO_STATUS_SHUT_DOWN);
  OK(unisono_writer_reserve(writer, 4, 30.0, &room));
  CHECK(pthread_create(&other, NULL, cancel, writer) == 0 && pthread_join(other, NULL) == 0);
  unisono_reader_free(reader);
  OK(unisono_writer_shut_down(writer));
  unisono_writer_free(writer); /* What is reserved goes with it. */
  OK(unisono_set_log(NULL, NULL));
  puts("all as it should be");
  return 0;
}
