// One process tells the others what to do, in C++: a queue's messages are written and read in place.
//
//     c++ -std=c++17 -I include queue.cpp -L lib -lunisono -o queue
//     ./queue
//
// The handle with which a reader finds the writer travels through a pipe here; any way to carry bytes will do.
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "unisono.h"

namespace {

void must(unisono_status status) {
  if (status != UNISONO_STATUS_OK) {
    throw std::runtime_error(unisono_last_error_message());
  }
}

struct Free {
  void operator()(unisono_writer *writer) const { unisono_writer_free(writer); }
  void operator()(unisono_reader *reader) const { unisono_reader_free(reader); }
};
using Writer = std::unique_ptr<unisono_writer, Free>;
using Reader = std::unique_ptr<unisono_reader, Free>;

constexpr int STEPS = 3;

void work(int from) {
  char handle[512];
  ssize_t length = read(from, handle, sizeof handle);
  if (length <= 0) {
    throw std::runtime_error("no handle came through the pipe");
  }
  unisono_reader *opened;
  must(unisono_reader_open(handle, static_cast<size_t>(length), 0, 30.0, &opened));
  Reader reader(opened);
  for (int step = 0; step < STEPS; step++) {
    unisono_message message;
    must(unisono_reader_recv(reader.get(), 30.0, &message));
    std::string text(static_cast<const char *>(message.data), message.bytes);
    must(unisono_reader_release(reader.get()));
    std::printf("message %llu: %s\n", static_cast<unsigned long long>(message.number), text.c_str());
  }
}

void direct(int to) {
  unisono_queue_options options{};
  options.struct_size = sizeof options;
  unisono_writer *created;
  must(unisono_writer_create(&options, &created));
  Writer writer(created);
  char handle[512];
  size_t length;
  must(unisono_writer_handle(writer.get(), handle, sizeof handle, &length));
  if (write(to, handle, length) != static_cast<ssize_t>(length)) {
    throw std::runtime_error("the handle did not fit the pipe");
  }
  must(unisono_writer_wait_until_ready(writer.get(), 30.0));
  for (int step = 0; step < STEPS; step++) {
    std::string text = "compute step " + std::to_string(step);
    void *room;
    must(unisono_writer_reserve(writer.get(), text.size(), 30.0, &room));
    std::memcpy(room, text.data(), text.size());
    must(unisono_writer_commit(writer.get()));
  }
}

} // namespace

int main() {
  int ends[2];
  if (pipe(ends) != 0) {
    return 1;
  }
  // Before anything of the library is made: a forked child cannot use its parent's objects.
  pid_t worker = fork();
  try {
    if (worker == 0) {
      work(ends[0]);
      return 0;
    }
    direct(ends[1]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s: %s\n", worker == 0 ? "reader" : "writer", error.what());
    return 1;
  }
  int status;
  return waitpid(worker, &status, 0) == worker && status == 0 ? 0 : 1;
}
