/* Whatever a caller passes as a number or as null is answered by an error, and changes nothing. */
#include <stdint.h>

#include "check.h"

int main(void) {
  CHECK(unisono_abi_version() == UNISONO_ABI_VERSION);
  CHECK(strlen(unisono_version()) > 0);
  CHECK(last_error().status == UNISONO_STATUS_OK && strlen(unisono_last_error_message()) == 0);

  /* Structures whose size was never set, or is of no version. */
  unisono_options options = {0};
  unisono_comm *comm = NULL;
  REFUSED(unisono_init(&options, &comm), "struct_size");
  options.struct_size = SIZE_MAX;
  REFUSED(unisono_init(&options, &comm), "struct_size");
  REFUSED(unisono_init(NULL, &comm), "null");
  options.struct_size = sizeof options;
  REFUSED(unisono_init(&options, NULL), "null");
  CHECK(unisono_init(&options, &comm) == UNISONO_STATUS_SETTING && comm == NULL); /* world_size 0 */
  options.world_size = -1;
  REFUSED(unisono_init(&options, &comm), "negative");
  options.world_size = 1;
  options.port = 65536;
  REFUSED(unisono_init(&options, &comm), "port");
  options.port = 0;
  options.group_name = "\xff\xfe";
  REFUSED(unisono_init(&options, &comm), "UTF-8");
  REFUSED(unisono_init_in_process(1, NULL), "null");
  CHECK(unisono_init_in_process(65, &comm) == UNISONO_STATUS_SETTING);

  OK(unisono_init_in_process(1, &comm));
  float data[8] = {0};
  REFUSED(unisono_all_reduce(NULL, data, data, 8, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "null");
  REFUSED(unisono_all_reduce((unisono_comm *)((char *)comm + 1), data, data, 8, UNISONO_DTYPE_F32, UNISONO_OP_SUM),
          "aligned");
  REFUSED(unisono_all_reduce(comm, NULL, data, 8, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "null");
  REFUSED(unisono_all_reduce(comm, data, NULL, 8, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "null");
  REFUSED(unisono_all_reduce(comm, data, data, 8, (unisono_dtype)12, UNISONO_OP_SUM), "12 is no unisono_dtype");
  REFUSED(unisono_all_reduce(comm, data, data, 8, (unisono_dtype)-1, UNISONO_OP_SUM), "-1 is no unisono_dtype");
  REFUSED(unisono_all_reduce(comm, data, data, 8, UNISONO_DTYPE_F32, (unisono_op)8), "8 is no unisono_op");
  REFUSED(unisono_all_reduce(comm, data, data, 8, UNISONO_DTYPE_F32, UNISONO_OP_XOR), "");
  REFUSED(unisono_all_reduce(comm, data, data + 1, 4, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "overlap");
  REFUSED(unisono_all_reduce(comm, data, data, SIZE_MAX, UNISONO_DTYPE_F32, UNISONO_OP_SUM), "address space");
  REFUSED(unisono_all_gather(comm, data, data, SIZE_MAX / 4, UNISONO_DTYPE_F32), "address space");
  REFUSED(unisono_broadcast(comm, data, 8, UNISONO_DTYPE_F32, 1), "root 1 does not exist");
  REFUSED(unisono_broadcast(comm, data, 8, UNISONO_DTYPE_F32, -1), "negative");
  REFUSED(unisono_send(comm, data, 8, UNISONO_DTYPE_F32, 3), "3 does not exist");
  REFUSED(unisono_all_gather_v(comm, data, data, NULL, UNISONO_DTYPE_F32), "null");
  REFUSED(unisono_gather_v(comm, data, 1, data + 4, NULL, UNISONO_DTYPE_F32, 0), "null");
  size_t shape[2] = {SIZE_MAX, SIZE_MAX};
  REFUSED(unisono_all_gather_dim(comm, data, data + 4, shape, 2, 0, UNISONO_DTYPE_F32), "address space");
  REFUSED(unisono_all_gather_dim(comm, data, data + 4, shape, 0, 0, UNISONO_DTYPE_F32), "dimensions");
  shape[0] = shape[1] = 2;
  REFUSED(unisono_all_gather_dim(comm, data, data + 4, shape, 2, 2, UNISONO_DTYPE_F32), "dim");
  REFUSED(unisono_comm_set_threads(comm, -3), "negative");
  CHECK(unisono_comm_set_threads(comm, 1000) == UNISONO_STATUS_SETTING);
  unisono_comm *other = NULL;
  REFUSED(unisono_comm_with_timeout(comm, 0.0 / (data[0] + 0.0), &other), "not a number");
  unisono_memory *memory = NULL;
  REFUSED(unisono_memory_alloc(comm, SIZE_MAX, UNISONO_DTYPE_F32, &memory), "address space");
  CHECK(memory == NULL && unisono_memory_data(NULL) == NULL && unisono_memory_bytes(NULL) == 0);
  CHECK(unisono_comm_rank(NULL) == -1 && unisono_comm_name(NULL) == NULL);

  /* A started call is looked at when it is started. */
  unisono_request *request = NULL;
  unisono_call call = {.struct_size = sizeof call};
  REFUSED(unisono_start(comm, &call, &request), "0 is no unisono_operation");
  call.operation = UNISONO_OPERATION_ALL_REDUCE;
  call.dtype = (unisono_dtype)99;
  REFUSED(unisono_start(comm, &call, &request), "99 is no unisono_dtype");
  call.operation = UNISONO_OPERATION_ALL_GATHER_V;
  REFUSED(unisono_start(comm, &call, &request), "null");
  REFUSED(unisono_start(comm, NULL, &request), "null");
  REFUSED(unisono_request_wait(NULL, 1.0), "null");
  CHECK(request == NULL);
  /* What the library finds out later comes with the wait. */
  call = (unisono_call){.struct_size = sizeof call, .operation = UNISONO_OPERATION_ALL_REDUCE, .count = 5};
  OK(unisono_start(comm, &call, &request));
  REFUSED(unisono_request_wait(request, UNISONO_FOREVER), "null");
  unisono_request_free(request);
  /* What a newer program asks for is not passed over. */
  struct {
    unisono_call call;
    uint64_t unknown;
  } newer = {.call = {.struct_size = sizeof newer, .operation = UNISONO_OPERATION_BARRIER}, .unknown = 1};
  REFUSED(unisono_start(comm, &newer.call, &request), "does not know");
  newer.unknown = 0;
  OK(unisono_start(comm, &newer.call, &request));
  unisono_request_free(request);

  /* Nothing of this has harmed the communicator. */
  OK(unisono_all_reduce(comm, data, data, 8, UNISONO_DTYPE_F32, UNISONO_OP_SUM));
  /* The error stays until the next. */
  CHECK(last_error().status == UNISONO_STATUS_INVALID_ARGUMENT);
  unisono_comm_free(comm);

  unisono_queue_options queue = {.struct_size = sizeof queue, .when_gone = (unisono_when_gone)3};
  unisono_writer *writer = NULL;
  REFUSED(unisono_writer_create(&queue, &writer), "3 is no unisono_when_gone");
  queue.when_gone = UNISONO_WHEN_GONE_FAIL;
  queue.reader_count = 1000000000;
  REFUSED(unisono_writer_create(&queue, &writer), "at most");
  unisono_reader *reader = NULL;
  CHECK(unisono_reader_open("nonsense", 8, 0, 1.0, &reader) == UNISONO_STATUS_HANDLE && reader == NULL);
  REFUSED(unisono_reader_open(NULL, 8, 0, 1.0, &reader), "null");

  /* Null is left alone. */
  unisono_comm_free(NULL);
  unisono_memory_free(NULL);
  unisono_request_free(NULL);
  unisono_writer_free(NULL);
  unisono_reader_free(NULL);

  CHECK(unisono_dtype_size(UNISONO_DTYPE_BF16) == 2 && unisono_dtype_size((unisono_dtype)77) == 0);
  CHECK(strcmp(unisono_status_name(UNISONO_STATUS_PEER_DIED), "PEER_DIED") == 0);
  CHECK(strcmp(unisono_status_name(12345), "UNKNOWN") == 0);
  puts("all as it should be");
  return 0;
}
