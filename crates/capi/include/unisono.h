/* unisono: collectives and message queues between the processes of a machine, for C and C++. Made from crates/capi/src: see docs/c.md. */

#ifndef UNISONO_H
#define UNISONO_H

#include <stddef.h>
#include <stdint.h>

/*
 * Every function that can fail returns a status: UNISONO_STATUS_OK, which is 0, or what went wrong; unisono_last_error() then says more.
 * No function throws, and none ends the process.
 *
 * Pointers    An object is made by the function that returns it through its last argument and lives until its own free function,
 *             which takes null, too. Every other null, a value that is in no enum, and a size that no memory has are errors.
 *             Memory that the caller passes must hold what is said, until the call returns; of started operations, until they are over.
 * Counts      are in elements of the type, lengths with the word bytes in bytes. Ranks are 0 to world_size - 1.
 * Times       are in seconds. UNISONO_FOREVER, or any negative number, is without end; 0 looks once.
 * Threads     Any function may be called from any thread. One collective runs at a time on a communicator, the others wait for it;
 *             a second thread in a queue's writer or reader gets UNISONO_STATUS_BUSY. Nobody frees what another thread uses.
 * fork        A forked child cannot use its parent's objects: UNISONO_STATUS_FORKED. It makes its own.
 * Structures  that may grow begin with struct_size, which the caller sets to sizeof of the structure; the rest is zero by default.
 */


// Changes when a program that was compiled with an older header could not run with this library.
#define UNISONO_ABI_VERSION 1

// A time without end.
#define UNISONO_FOREVER -1.0

// The type of elements.
enum unisono_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // IEEE 754 single precision.
  UNISONO_DTYPE_F32 = 0,
  // IEEE 754 double precision.
  UNISONO_DTYPE_F64 = 1,
  // IEEE 754 half precision.
  UNISONO_DTYPE_F16 = 2,
  // Brain floating point: the upper half of an F32.
  UNISONO_DTYPE_BF16 = 3,
  // Signed, 8 bits.
  UNISONO_DTYPE_I8 = 4,
  // Signed, 16 bits.
  UNISONO_DTYPE_I16 = 5,
  // Signed, 32 bits.
  UNISONO_DTYPE_I32 = 6,
  // Signed, 64 bits.
  UNISONO_DTYPE_I64 = 7,
  // Unsigned, 8 bits; also for bytes of any other type that are only moved.
  UNISONO_DTYPE_U8 = 8,
  // Unsigned, 16 bits.
  UNISONO_DTYPE_U16 = 9,
  // Unsigned, 32 bits.
  UNISONO_DTYPE_U32 = 10,
  // Unsigned, 64 bits.
  UNISONO_DTYPE_U64 = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_dtype unisono_dtype;
#else
typedef int32_t unisono_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a function returns. Numbers keep their meaning; later versions may add some.
enum unisono_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // All went well.
  UNISONO_STATUS_OK = 0,
  // An argument makes no sense; nothing was changed, and nothing was sent.
  UNISONO_STATUS_INVALID_ARGUMENT = 1,
  // The deadline passed. unisono_last_error_peer() tells who was waited for, is_terminal whether the communicator still works.
  UNISONO_STATUS_TIMEOUT = 2,
  // A process that is needed died: rank and pid say which. Terminal for a communicator.
  UNISONO_STATUS_PEER_DIED = 3,
  // A rank that is still needed has left. Terminal for a communicator, unless it was a send or recv of which nothing had moved.
  UNISONO_STATUS_PEER_LEFT = 4,
  // Ranks made different calls: rank is the other one. Terminal.
  UNISONO_STATUS_MISMATCH = 5,
  // Somebody called unisono_abort: rank says who, if it is known. Terminal.
  UNISONO_STATUS_ABORTED = 6,
  // Another thread, or a started operation that comes first, took as long as this call may wait. Nothing was sent.
  UNISONO_STATUS_BUSY = 7,
  // The question of unisono_ask_on_this_thread() was answered with yes.
  UNISONO_STATUS_INTERRUPTED = 8,
  // The communicator was closed on this rank.
  UNISONO_STATUS_CLOSED = 9,
  // This process is a forked child of the one that made the object.
  UNISONO_STATUS_FORKED = 10,
  // The ranks could not find one another.
  UNISONO_STATUS_RENDEZVOUS = 11,
  // A setting or environment variable makes no sense.
  UNISONO_STATUS_SETTING = 12,
  // More memory is needed than may still be had: needed_bytes and available_bytes.
  UNISONO_STATUS_OUT_OF_MEMORY = 13,
  // The operating system refused something.
  UNISONO_STATUS_SYSTEM = 14,
  // The buffer is too small; how much is needed was written where the length goes. Nothing is lost.
  UNISONO_STATUS_TOO_SMALL = 15,
  // A started operation is not over yet.
  UNISONO_STATUS_UNFINISHED = 16,
  // Queue: the other side wrote what it never may, and is listened to no more.
  UNISONO_STATUS_PEER_BROKEN = 17,
  // Queue: the connection to the other machine was lost.
  UNISONO_STATUS_LINK_LOST = 18,
  // Queue: a message from another machine is missing.
  UNISONO_STATUS_LOST = 19,
  // Queue: readers on other machines cannot be served or reached.
  UNISONO_STATUS_ELSEWHERE = 20,
  // Queue: the memory of a large message did not reach this process; the message stays the next.
  UNISONO_STATUS_UNDELIVERED = 21,
  // Queue: another process reads under this rank.
  UNISONO_STATUS_RANK_TAKEN = 22,
  // Queue: the handle has no such rank.
  UNISONO_STATUS_UNKNOWN_RANK = 23,
  // Queue: the handle is of another version, or damaged.
  UNISONO_STATUS_HANDLE = 24,
  // Queue: the writer that the handle speaks of could not be met.
  UNISONO_STATUS_MEETING = 25,
  // Queue: the wait was cancelled from another thread. The next call goes on.
  UNISONO_STATUS_CANCELLED = 26,
  // Queue: this side was shut down.
  UNISONO_STATUS_SHUT_DOWN = 27,
  // A mistake in the library itself, caught at its edge. The object should not be used any more.
  UNISONO_STATUS_PANIC = 28,
  // Something else; the message says what.
  UNISONO_STATUS_OTHER = 29,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_status unisono_status;
#else
typedef int32_t unisono_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How elements are reduced: from rank 0 upward, the same bits on every rank. F16 and BF16 are added up in F32 and rounded once.
enum unisono_op
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The sum; integers wrap.
  UNISONO_OP_SUM = 0,
  // The product; integers wrap.
  UNISONO_OP_PRODUCT = 1,
  // The least value; NaN wins, -0 is less than +0.
  UNISONO_OP_MIN = 2,
  // The greatest value; NaN wins, -0 is less than +0.
  UNISONO_OP_MAX = 3,
  // The sum, then one division by the number of ranks; integers divide toward zero.
  UNISONO_OP_AVERAGE = 4,
  // Bitwise and; integers only.
  UNISONO_OP_AND = 5,
  // Bitwise or; integers only.
  UNISONO_OP_OR = 6,
  // Bitwise exclusive or; integers only.
  UNISONO_OP_XOR = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_op unisono_op;
#else
typedef int32_t unisono_op;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The operations that unisono_start() can start.
enum unisono_operation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // unisono_all_reduce; with memory unisono_all_reduce_registered.
  UNISONO_OPERATION_ALL_REDUCE = 1,
  // unisono_reduce_scatter; with memory unisono_reduce_scatter_registered.
  UNISONO_OPERATION_REDUCE_SCATTER = 2,
  // unisono_all_gather; with a shape unisono_all_gather_dim, with memory unisono_all_gather_registered.
  UNISONO_OPERATION_ALL_GATHER = 3,
  // unisono_broadcast; with memory unisono_broadcast_registered.
  UNISONO_OPERATION_BROADCAST = 4,
  // unisono_reduce; with memory unisono_reduce_registered.
  UNISONO_OPERATION_REDUCE = 5,
  // unisono_gather.
  UNISONO_OPERATION_GATHER = 6,
  // unisono_scatter.
  UNISONO_OPERATION_SCATTER = 7,
  // unisono_all_to_all.
  UNISONO_OPERATION_ALL_TO_ALL = 8,
  // unisono_barrier.
  UNISONO_OPERATION_BARRIER = 9,
  // unisono_all_gather_v.
  UNISONO_OPERATION_ALL_GATHER_V = 10,
  // unisono_reduce_scatter_v.
  UNISONO_OPERATION_REDUCE_SCATTER_V = 11,
  // unisono_all_to_all_v.
  UNISONO_OPERATION_ALL_TO_ALL_V = 12,
  // unisono_gather_v.
  UNISONO_OPERATION_GATHER_V = 13,
  // unisono_scatter_v.
  UNISONO_OPERATION_SCATTER_V = 14,
  // unisono_send.
  UNISONO_OPERATION_SEND = 15,
  // unisono_recv.
  UNISONO_OPERATION_RECV = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_operation unisono_operation;
#else
typedef int32_t unisono_operation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a writer does when a reader leaves or dies.
enum unisono_when_gone
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Sending fails, naming the reader, until another process has taken its rank.
  UNISONO_WHEN_GONE_FAIL = 0,
  // Go on without it.
  UNISONO_WHEN_GONE_GO_ON = 1,
  // Keep what it has not read until another process has taken its rank.
  UNISONO_WHEN_GONE_AWAIT_RETURN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_when_gone unisono_when_gone;
#else
typedef int32_t unisono_when_gone;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whether a reader is there.
enum unisono_presence
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Nobody has claimed the rank yet.
  UNISONO_PRESENCE_AWAITED = 0,
  // It is alive.
  UNISONO_PRESENCE_ALIVE = 1,
  // It said goodbye.
  UNISONO_PRESENCE_LEFT = 2,
  // Its process died.
  UNISONO_PRESENCE_DEAD = 3,
  // It wrote what it never may, and is listened to no more.
  UNISONO_PRESENCE_BROKEN = 4,
  // Its connection was lost.
  UNISONO_PRESENCE_UNREACHABLE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_presence unisono_presence;
#else
typedef int32_t unisono_presence;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How grave an event is.
enum unisono_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Something failed of which no call tells.
  UNISONO_LOG_LEVEL_ERROR = 1,
  // Somebody is waited for, and who; a peer is gone.
  UNISONO_LOG_LEVEL_WARN = 2,
  // What happens once in a life.
  UNISONO_LOG_LEVEL_INFO = 3,
  // Everything else.
  UNISONO_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum unisono_log_level unisono_log_level;
#else
typedef int32_t unisono_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A rank's handle on its group.
typedef struct unisono_comm unisono_comm;

// Registered (symmetric) memory: a piece on every rank, which all have mapped, so that large collectives need no staging.
typedef struct unisono_memory unisono_memory;

// The side of a queue that reads.
typedef struct unisono_reader unisono_reader;

// A call that was started.
typedef struct unisono_request unisono_request;

// The side of a queue that writes.
typedef struct unisono_writer unisono_writer;

// Gives every rank rank 0's `bytes`, as MPI_Bcast does: called once per rank, within unisono_init(). Returns 0 if all went well.
// It must not throw.
typedef int32_t (*unisono_broadcast_function)(void *context, void *bytes, size_t length);

// How to meet the other ranks. Zero is the default of everything but world_size.
typedef struct {
  // sizeof(unisono_options), set by the caller.
  size_t struct_size;
  // This rank: 0 to world_size - 1.
  int32_t rank;
  // How many ranks there are, 1 to 64.
  int32_t world_size;
  // A name all ranks agree on, by custom the address of the first machine. Nothing is sent there. Default: "127.0.0.1".
  const char *address;
  // Tells apart several groups under one address and port. Default: UNISONO_GROUP of the environment, else "default".
  const char *group_name;
  // Tells apart several runs on one machine. Default: UNISONO_RUN_ID, else TORCHELASTIC_RUN_ID of the environment.
  const char *run_id;
  // Meet at a socket file in this directory: for ranks in different network namespaces. Default: UNISONO_DIR, else none.
  const char *directory;
  // How long an operation may wait, in seconds; negative: without end. Default: UNISONO_TIMEOUT, else 30 minutes.
  double timeout;
  // How long to wait for all ranks to come. Default: UNISONO_RENDEZVOUS_TIMEOUT, else 5 minutes.
  double rendezvous_timeout;
  // Instead of address, port, group and run: meet by means of this function.
  unisono_broadcast_function broadcast;
  // What the function gets as its first argument.
  void *broadcast_context;
  // From how many bytes on a step is shared among threads. Default: UNISONO_THREAD_BYTES, else 128 KiB.
  size_t thread_bytes;
  // How many threads share this rank's copying and reducing, 1 to 32. Default: UNISONO_THREADS, else 1.
  int32_t threads;
  // A number all ranks agree on, by custom a port, 1 to 65535. It is not opened. Default: 29500.
  int32_t port;
} unisono_options;

// What is known of a rank.
typedef struct {
  // sizeof(unisono_peer), set by the caller.
  size_t struct_size;
  // Its rank.
  int32_t rank;
  // Its process; 0 if it never came.
  uint32_t pid;
  // The number of its last call, counted from 1; 0 if it has made none.
  uint64_t last_number;
  // Its last call, such as "all_reduce(sum, 4096 x f32)"; empty if it has made none.
  char last_call[112];
  // 1 if it came out of that call again, else 0.
  int32_t last_is_finished;
  // 1 if its process is alive, as far as is known, else 0.
  int32_t is_alive;
} unisono_peer;

// One call, for unisono_start(). What an operation does not need is not looked at, and is best left zero.
typedef struct {
  // sizeof(unisono_call), set by the caller.
  size_t struct_size;
  // What is asked for.
  unisono_operation operation;
  // The type of the elements.
  unisono_dtype dtype;
  // The reduction.
  unisono_op op;
  // The root; the other side of a send or recv.
  int32_t root;
  // Where the input is.
  const void *input;
  // Where the output goes; also the data of a broadcast and a recv.
  void *output;
  // Elements, as the operation's function says.
  size_t count;
  // One count per rank: of the uneven operations; of all_to_all_v what is sent.
  const size_t *counts;
  // Of all_to_all_v one count per rank: what is received.
  const size_t *recv_counts;
  // Of all_gather along a dimension: the input's shape.
  const size_t *shape;
  // How many dimensions it has; 0 if there is no shape.
  size_t dimensions;
  // Registered memory instead of input and output, in place; null: none.
  const unisono_memory *memory;
  // Where in it the elements begin, in elements.
  size_t offset;
  // Of all_gather along a dimension: which; negative ones count from the last.
  int64_t dim;
} unisono_call;

// What a queue is to be. Zero is the default of everything, and gives one reader, of rank 0.
typedef struct {
  // sizeof(unisono_queue_options), set by the caller.
  size_t struct_size;
  // The ranks of the readers on this machine; null: 0 to reader_count - 1.
  const int32_t *reader_ranks;
  // How many readers there are on this machine; default 1, or none if there are some on others.
  size_t reader_count;
  // The ring's length in bytes, made a power of two. Default: 4 MiB.
  size_t ring_bytes;
  // How many messages may be unread by the slowest reader before sending waits. Default: only their bytes count.
  size_t max_chunks;
  // The longest message that is written into the ring; longer ones get memory of their own. Default, and at most: a quarter of it.
  size_t max_chunk_bytes;
  // How long somebody is waited for before the log says so, in seconds. Default: 60.
  double warn_interval;
  // Listen at a socket file in this directory, too, for readers in other network namespaces. Default: UNISONO_DIR, else none.
  const char *directory;
  // The ranks of readers on other machines. Needs a library with the feature `remote`.
  const int32_t *remote_ranks;
  // How many they are.
  size_t remote_count;
  // The address of this machine at which they reach it, such as "10.0.0.1". Default: the one from which this machine sends.
  const char *connect_ip;
  // The rank that the writer goes by in errors of its readers.
  int32_t rank;
  // What to do when a reader is gone.
  unisono_when_gone when_gone;
} unisono_queue_options;

// One reader, as its writer sees it.
typedef struct {
  // sizeof(unisono_reader_status), set by the caller.
  size_t struct_size;
  // Its rank.
  int32_t rank;
  // Its process; 0 until one has claimed the rank.
  uint32_t pid;
  // Whether it is there.
  unisono_presence presence;
  // 0.
  int32_t reserved;
  // Messages that it has not finished with.
  uint64_t lag_messages;
  // Bytes of the ring that it keeps occupied.
  uint64_t lag_bytes;
  // How many seconds ago it finished a message or came in; negative if it never did.
  double last_step;
} unisono_reader_status;

// A message in place.
typedef struct {
  // Where it begins. The writer's process could change it.
  const void *data;
  // Its length.
  size_t bytes;
  // Its number, the same for every reader: the queue's first message is 0.
  uint64_t number;
} unisono_message;

// The last error of the calling thread. Its texts are valid until the next function fails on this thread.
typedef struct {
  // sizeof(unisono_error), set by the caller.
  size_t struct_size;
  // What was returned; UNISONO_STATUS_OK if nothing has failed yet.
  unisono_status status;
  // The rank that it is about: the one that died, left, aborted, or called something else; -1 if there is none.
  int32_t rank;
  // All of it as one line for people: what was asked, what was found, what to do. Never null.
  const char *message;
  // The operation, such as "all_reduce". Never null.
  const char *operation;
  // The call with its arguments, such as "all_reduce(sum, 4096 x f32)"; empty if none had begun.
  const char *call;
  // The number of that call, counted from 1 per communicator; 0 if none had begun.
  uint64_t number;
  // The process of that rank; 0 if it is not known.
  uint32_t pid;
  // The rank that noticed it, if that was another one; -1 if not.
  int32_t reported_by;
  // How long was waited.
  double waited_seconds;
  // How much memory was needed, if there is too little; else 0.
  uint64_t needed_bytes;
  // How much there is.
  uint64_t available_bytes;
  // errno, if the operating system refused something; else 0.
  int32_t system_error;
  // 1 if the communicator returns this error from now on, else 0.
  int32_t is_terminal;
  // How many ranks were waited for: unisono_last_error_peer() tells of each.
  size_t peer_count;
} unisono_error;

// Gets the library's log events as text. Called on any thread, several at once; it must return soon, must not throw, and must not call
// this library.
typedef void (*unisono_log_function)(void *context, unisono_log_level level, const char *message);

// Asked whether the wait under way is to end: 0 is no. It must not throw, and must make no collective call.
typedef int32_t (*unisono_question_function)(void *context);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0".
const char *unisono_version(void);

// UNISONO_ABI_VERSION of the library that was loaded.
uint32_t unisono_abi_version(void);

// The name of a status, such as "PEER_DIED"; "UNKNOWN" for a number that is none.
const char *unisono_status_name(int32_t status);

// The size of an element in bytes; 0 for a number that is no type.
size_t unisono_dtype_size(unisono_dtype dtype);

// The name of a type, such as "bf16"; "unknown" for a number that is none.
const char *unisono_dtype_name(unisono_dtype dtype);

// Meet the other ranks as the environment says: torchrun's RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and
// TORCHELASTIC_RUN_ID, and the variables UNISONO_*. `unisono run -n 2 -- program` sets them. Returns once all have come.
unisono_status unisono_init_from_env(unisono_comm **comm);

// Meet the other ranks as `options` say. Returns once all have come, or with an error that names those who have not.
unisono_status unisono_init(const unisono_options *options, unisono_comm **comm);

// Fill `comms` with the communicators of `world_size` ranks that are threads of this process: one for each thread.
unisono_status unisono_init_in_process(int32_t world_size, unisono_comm **comms);

// This rank; -1 for null.
int32_t unisono_comm_rank(const unisono_comm *comm);

// How many ranks there are; -1 for null.
int32_t unisono_comm_world_size(const unisono_comm *comm);

// What the group is called in messages; lives as long as the handle. Null for null.
const char *unisono_comm_name(const unisono_comm *comm);

// Shared memory that this rank brought along, in bytes; 0 for null.
size_t unisono_comm_memory_bytes(const unisono_comm *comm);

// A send of up to so many bytes returns without waiting for its receiver; 0 for null.
size_t unisono_comm_window_bytes(const unisono_comm *comm);

// How long an operation on this handle may wait, in seconds; negative: without end.
double unisono_comm_timeout(const unisono_comm *comm);

// Another handle on the same group whose operations may wait this long. The time counts from the first wait of an operation to
// its end.
unisono_status unisono_comm_with_timeout(const unisono_comm *comm,
                                         double timeout,
                                         unisono_comm **other);

// Let so many threads share the copying and reducing of this rank's collectives from now on: the calling one and the library's
// own, which sleep in between; 1 to 32. Give the rank as many processors.
unisono_status unisono_comm_set_threads(const unisono_comm *comm,
                                        int32_t threads);

// Fill `peer` with what `rank` is and last did, as far as this rank can see.
unisono_status unisono_comm_peer(const unisono_comm *comm, int32_t rank, unisono_peer *peer);

// Form sub-groups: ranks that pass the same color come together, in the order of `key` and, where keys are equal, of their rank
// here. A rank with a negative color takes part in the call and is in none: its `part` becomes null. A sub-group outlives its parent.
unisono_status unisono_split(const unisono_comm *comm,
                             int64_t color,
                             int64_t key,
                             unisono_comm **part);

// Stop the group, from any thread: every operation under way or to come, on every rank, ends with UNISONO_STATUS_ABORTED.
unisono_status unisono_abort(const unisono_comm *comm);

// Leave together: wait for all ranks to call this, for at most `timeout` seconds, then leave. The handle is still to be freed.
unisono_status unisono_close(const unisono_comm *comm,
                             double timeout);

// Leave at once, and alone. A rank that still needs this one gets UNISONO_STATUS_PEER_LEFT. The handle is still to be freed.
unisono_status unisono_leave(const unisono_comm *comm);

// Free a handle. With the last on a communicator this rank leaves, after what was started on it is over. Null is left alone.
void unisono_comm_free(unisono_comm *comm);

// Every rank gets the reduction of all inputs: `count` elements in and out; in place if `input == output`.
unisono_status unisono_all_reduce(const unisono_comm *comm,
                                  const void *input,
                                  void *output,
                                  size_t count,
                                  unisono_dtype dtype,
                                  unisono_op op);

// The root gets the reduction of all inputs: `count` elements in, and out at the root, where it is in place if `input == output`.
unisono_status unisono_reduce(const unisono_comm *comm,
                              const void *input,
                              void *output,
                              size_t count,
                              unisono_dtype dtype,
                              unisono_op op,
                              int32_t root);

// Rank r gets block r of the reduction: world_size * count elements in, `count` out; in place if the output is this rank's block of
// the input.
unisono_status unisono_reduce_scatter(const unisono_comm *comm,
                                      const void *input,
                                      void *output,
                                      size_t count,
                                      unisono_dtype dtype,
                                      unisono_op op);

// Every rank gets all inputs, in rank order: `count` elements in, world_size * count out; in place if the input is this rank's block
// of the output.
unisono_status unisono_all_gather(const unisono_comm *comm,
                                  const void *input,
                                  void *output,
                                  size_t count,
                                  unisono_dtype dtype);

// Every rank gets all inputs, one after the other along dimension `dim` of `dimensions` (negative ones count from the last): the
// elements of `shape` in, the same with shape[dim] * world_size out, both contiguous; out of place.
unisono_status unisono_all_gather_dim(const unisono_comm *comm,
                                      const void *input,
                                      void *output,
                                      const size_t *shape,
                                      size_t dimensions,
                                      int64_t dim,
                                      unisono_dtype dtype);

// Every rank gets the root's `count` elements.
unisono_status unisono_broadcast(const unisono_comm *comm, void *data, size_t count, unisono_dtype dtype, int32_t root);

// The root gets all inputs, in rank order: `count` elements in, world_size * count out at the root; in place if the root's input is
// its block of the output.
unisono_status unisono_gather(const unisono_comm *comm,
                              const void *input,
                              void *output,
                              size_t count,
                              unisono_dtype dtype,
                              int32_t root);

// Rank r gets block r of the root's input: world_size * count elements in at the root, `count` out; in place if the root's output is
// its block of the input.
unisono_status unisono_scatter(const unisono_comm *comm,
                               const void *input,
                               void *output,
                               size_t count,
                               unisono_dtype dtype,
                               int32_t root);

// Rank r gets block r of every rank's input, in rank order: world_size * count elements in and out; in place if `input == output`.
unisono_status unisono_all_to_all(const unisono_comm *comm,
                                  const void *input,
                                  void *output,
                                  size_t count,
                                  unisono_dtype dtype);

// Nobody leaves before all have come.
unisono_status unisono_barrier(const unisono_comm *comm);

// unisono_all_gather() with a count per rank: counts[rank] elements in, their sum out. Every rank passes the same `counts`.
unisono_status unisono_all_gather_v(const unisono_comm *comm,
                                    const void *input,
                                    void *output,
                                    const size_t *counts,
                                    unisono_dtype dtype);

// unisono_reduce_scatter() with a count per rank: the sum of `counts` elements in, counts[rank] out. Every rank passes the same.
unisono_status unisono_reduce_scatter_v(const unisono_comm *comm,
                                        const void *input,
                                        void *output,
                                        const size_t *counts,
                                        unisono_dtype dtype,
                                        unisono_op op);

// unisono_all_to_all() with a count per pair: send_counts[r] elements go to rank r, recv_counts[r] come from it; blocks lie end to
// end, in rank order. Out of place.
unisono_status unisono_all_to_all_v(const unisono_comm *comm,
                                    const void *input,
                                    const size_t *send_counts,
                                    void *output,
                                    const size_t *recv_counts,
                                    unisono_dtype dtype);

// unisono_gather() with a count per rank: `count` elements in, the sum of `counts` out at the root, where alone `counts` matters.
unisono_status unisono_gather_v(const unisono_comm *comm,
                                const void *input,
                                size_t count,
                                void *output,
                                const size_t *counts,
                                unisono_dtype dtype,
                                int32_t root);

// unisono_scatter() with a count per rank: the sum of `counts` elements in at the root, where alone `counts` matters; `count` out.
unisono_status unisono_scatter_v(const unisono_comm *comm,
                                 const void *input,
                                 const size_t *counts,
                                 void *output,
                                 size_t count,
                                 unisono_dtype dtype,
                                 int32_t root);

// Send `count` elements to rank `to`, which must receive the same type and count. Returns as soon as the data fits the pair's window
// (unisono_comm_window_bytes()); a longer message waits for its receiver.
unisono_status unisono_send(const unisono_comm *comm,
                            const void *data,
                            size_t count,
                            unisono_dtype dtype,
                            int32_t to);

// Receive the next message from rank `from`, which must have this type and count.
unisono_status unisono_recv(const unisono_comm *comm, void *data, size_t count, unisono_dtype dtype, int32_t from);

// Allocate registered memory for `count` elements on every rank, zeroed. A collective call: all ranks ask for the same. It may
// outlive the communicator.
unisono_status unisono_memory_alloc(const unisono_comm *comm,
                                    size_t count,
                                    unisono_dtype dtype,
                                    unisono_memory **memory);

// Where this rank's memory begins: at a page. Other ranks write it while an operation on it is under way. Null for null, and in a
// forked child the memory is not there.
void *unisono_memory_data(const unisono_memory *memory);

// Its size in bytes; 0 for null.
size_t unisono_memory_bytes(const unisono_memory *memory);

// Free registered memory. Ranks that still use theirs keep it, and what was started on it is carried out. Null is left alone.
void unisono_memory_free(unisono_memory *memory);

// unisono_all_reduce() in place on `count` elements of registered memory from element `offset` on, the same on all ranks.
unisono_status unisono_all_reduce_registered(const unisono_comm *comm,
                                             const unisono_memory *memory,
                                             size_t offset,
                                             size_t count,
                                             unisono_dtype dtype,
                                             unisono_op op);

// unisono_reduce() in place on registered memory: the root's elements become the reduction, the others' stay.
unisono_status unisono_reduce_registered(const unisono_comm *comm,
                                         const unisono_memory *memory,
                                         size_t offset,
                                         size_t count,
                                         unisono_dtype dtype,
                                         unisono_op op,
                                         int32_t root);

// unisono_reduce_scatter() in place on registered memory. `count` is one rank's block, world_size * count elements are used; this
// rank's block becomes that of the reduction, the others stay.
unisono_status unisono_reduce_scatter_registered(const unisono_comm *comm,
                                                 const unisono_memory *memory,
                                                 size_t offset,
                                                 size_t count,
                                                 unisono_dtype dtype,
                                                 unisono_op op);

// unisono_all_gather() in place on registered memory. `count` is one rank's block, world_size * count elements are used; this
// rank's input is its block.
unisono_status unisono_all_gather_registered(const unisono_comm *comm,
                                             const unisono_memory *memory,
                                             size_t offset,
                                             size_t count,
                                             unisono_dtype dtype);

// unisono_broadcast() of the root's elements of registered memory.
unisono_status unisono_broadcast_registered(const unisono_comm *comm,
                                            const unisono_memory *memory,
                                            size_t offset,
                                            size_t count,
                                            unisono_dtype dtype,
                                            int32_t root);

// Start a call and return at once. Every rank makes the same calls in the same order, started and other ones taken together; a
// call comes after those that were started before it. Input and output must stay, and nobody may touch them, until the call is
// over; lists and shape are copied. The call may wait as long as the communicator's time-out says.
unisono_status unisono_start(const unisono_comm *comm,
                             const unisono_call *call,
                             unisono_request **request);

// Wait until a call is over, for at most `timeout` seconds: what it returns is the call's status, or
// UNISONO_STATUS_UNFINISHED if the time is up; it goes on then. May be called again, and returns the same.
unisono_status unisono_request_wait(const unisono_request *request, double timeout);

// 1 if a call is over, so that waiting for it returns at once; 0 if not, or if somebody is waiting for it; -1 for null.
int32_t unisono_request_is_finished(const unisono_request *request);

// Free a request. If its call is not over, this waits until it is, since its memory is in use. Null is left alone.
void unisono_request_free(unisono_request *request);

// Make a queue. Readers may come from now on.
unisono_status unisono_writer_create(const unisono_queue_options *options, unisono_writer **writer);

// What readers open the queue with: copied to `handle`, which has room for `capacity` bytes, and its length to `bytes`. If
// there is too little room, UNISONO_STATUS_TOO_SMALL and the length. Any way to carry bytes will do; with readers on other
// machines the handle holds their key and is to be kept from others.
unisono_status unisono_writer_handle(const unisono_writer *writer,
                                     void *handle,
                                     size_t capacity,
                                     size_t *bytes);

// Wait until every reader has come and is ready, for at most `timeout` seconds.
unisono_status unisono_writer_wait_until_ready(const unisono_writer *writer, double timeout);

// Send a copy of `bytes` bytes to every reader; waits, for at most `timeout` seconds, while one is too far behind. If it fails,
// nothing was sent.
unisono_status unisono_writer_send(const unisono_writer *writer,
                                   const void *message,
                                   size_t bytes,
                                   double timeout);

// Reserve room for a message of `bytes` bytes, to be filled in place and then committed or discarded; waits as
// unisono_writer_send(). Its address goes to `data` and is valid until then. What is not written is whatever stood there.
unisono_status unisono_writer_reserve(const unisono_writer *writer,
                                      size_t bytes,
                                      double timeout,
                                      void **data);

// Send the message that was reserved and filled.
unisono_status unisono_writer_commit(const unisono_writer *writer);

// Give the reserved room back: the message never was.
unisono_status unisono_writer_discard(const unisono_writer *writer);

// Fill `status` with what is known of one reader: `index` is 0, 1, … in the order of the queue's ranks, and there is an error
// where they end.
unisono_status unisono_writer_reader(const unisono_writer *writer,
                                     size_t index,
                                     unisono_reader_status *status);

// From any thread: end the wait that is under way, if there is one, with UNISONO_STATUS_CANCELLED.
unisono_status unisono_writer_cancel(const unisono_writer *writer);

// From any thread: every call of this side ends with UNISONO_STATUS_SHUT_DOWN, now and from now on. Readers hear of the end when
// the writer is freed.
unisono_status unisono_writer_shut_down(const unisono_writer *writer);

// Say goodbye and free the writer; what is reserved is discarded. Readers still get everything that was sent. Null is left alone.
void unisono_writer_free(unisono_writer *writer);

// Open the queue whose writer gave these bytes as its handle, as its reader `rank`. The writer has `timeout` seconds to answer.
unisono_status unisono_reader_open(const void *handle,
                                   size_t bytes,
                                   int32_t rank,
                                   double timeout,
                                   unisono_reader **reader);

// This reader's rank; -1 for null.
int32_t unisono_reader_rank(const unisono_reader *reader);

// Wait until every reader of the queue is ready, for at most `timeout` seconds.
unisono_status unisono_reader_wait_until_ready(const unisono_reader *reader, double timeout);

// Wait for the next message, for at most `timeout` seconds, and read it in place: it stays where `message` says until it is
// released, which gives its room back, or kept.
unisono_status unisono_reader_recv(const unisono_reader *reader,
                                   double timeout,
                                   unisono_message *message);

// The message in place is read: its room goes back to the writer.
unisono_status unisono_reader_release(const unisono_reader *reader);

// The message in place is not read: it stays the next.
unisono_status unisono_reader_keep(const unisono_reader *reader);

// Copy the next message to `data`, which has room for `capacity` bytes, and its length to `bytes`. If there is too little room,
// UNISONO_STATUS_TOO_SMALL and the length: it stays the next message.
unisono_status unisono_reader_recv_into(const unisono_reader *reader,
                                        void *data,
                                        size_t capacity,
                                        double timeout,
                                        size_t *bytes);

// From any thread: end the wait that is under way, if there is one, with UNISONO_STATUS_CANCELLED.
unisono_status unisono_reader_cancel(const unisono_reader *reader);

// From any thread: every call of this reader ends with UNISONO_STATUS_SHUT_DOWN, now and from now on.
unisono_status unisono_reader_shut_down(const unisono_reader *reader);

// Say goodbye and free the reader; a message in place is released. Null is left alone.
void unisono_reader_free(unisono_reader *reader);

// Fill `error` with the last error of the calling thread.
unisono_status unisono_last_error(unisono_error *error);

// The message of the calling thread's last error; valid until the next function fails on this thread. Never null.
const char *unisono_last_error_message(void);

// Fill `peer` with what is known of one of the ranks that were waited for: `index` is 0 to peer_count - 1.
unisono_status unisono_last_error_peer(size_t index, unisono_peer *peer);

// From now on log events go to `log`, with `context` as its first argument; null: nowhere, as in the beginning. A call that is under way
// on another thread may still come to the function that was named before.
unisono_status unisono_set_log(unisono_log_function log,
                               void *context);

// From now on `question` is asked, some 20 times a second, while the calling thread waits in a call on a communicator, in
// unisono_init() too: for a signal that the thread must act on. If it says yes, the call ends with UNISONO_STATUS_INTERRUPTED. Null:
// nothing is asked. Queues and requests have their own ends.
unisono_status unisono_ask_on_this_thread(unisono_question_function question,
                                          void *context);

// Meet the other ranks of this process's group, once: `size` ranks, of which this is `rank`, at an address and a port on which they
// agree. Nothing is sent or opened there. Again with the same size and rank, this does nothing.
unisono_status unisono_shm_initialize(int32_t size,
                                      int32_t rank,
                                      const char *addr_string,
                                      const char *port_string);

// All ranks' `data` becomes their sum, in place: `numel` elements, which are `data_size` bytes, of any size and none.
unisono_status unisono_shm_all_reduce_outer_loop(void *data, unisono_dtype dtype, size_t numel, size_t data_size);

// `result` becomes all ranks' `data`, one after the other along dimension `dim` (negative ones count from the last). `data` is
// contiguous, of this shape, of `numel` elements, which are `data_size` bytes; `result` has size times as many in that dimension.
unisono_status unisono_shm_all_gather(void *result,
                                      const void *data,
                                      unisono_dtype dtype,
                                      const size_t *shape,
                                      size_t dimensions,
                                      int32_t dim,
                                      size_t numel,
                                      size_t data_size);

// Leave this process's group. SGLang's functions have no such thing; without it the rank leaves when its process ends.
unisono_status unisono_shm_finalize(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* UNISONO_H */
