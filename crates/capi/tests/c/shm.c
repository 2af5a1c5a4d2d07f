/* SGLang's names, as one of two ranks: RANK, WORLD_SIZE and MASTER_PORT say which, and where. */
#include "check.h"

#include "unisono_shm.h"

int main(void) {
  int rank = atoi(getenv("RANK")), size = atoi(getenv("WORLD_SIZE"));
  float data[6] = {1, 2, 3, 4, 5, 6}, result[12];
  REFUSED(all_reduce_outer_loop(data, UNISONO_DTYPE_F32, 6, sizeof data), "shm_initialize first");
  REFUSED(shm_initialize(size, rank, "127.0.0.1", "none"), "port_string");
  OK(shm_initialize(size, rank, "127.0.0.1", getenv("MASTER_PORT")));
  OK(shm_initialize(size, rank, "127.0.0.1", getenv("MASTER_PORT"))); /* Once is enough. */
  REFUSED(shm_initialize(size + 1, rank, "127.0.0.1", getenv("MASTER_PORT")), "already");

  OK(all_reduce_outer_loop(data, UNISONO_DTYPE_F32, 6, sizeof data));
  CHECK(data[0] == 2.0f && data[5] == 12.0f);
  OK(all_reduce_outer_loop(NULL, UNISONO_DTYPE_F32, 0, 0));
  REFUSED(all_reduce_outer_loop(data, UNISONO_DTYPE_F32, 6, 6), "data_size");

  size_t shape[2] = {2, 3};
  for (int i = 0; i < 6; i++) {
    data[i] = (float)(10 * rank + i);
  }
  OK(all_gather(result, data, UNISONO_DTYPE_F32, shape, 2, -1, 6, sizeof data));
  CHECK(result[2] == 2.0f && result[3] == 10.0f && result[6] == 3.0f && result[11] == 15.0f);
  OK(all_gather(result, data, UNISONO_DTYPE_F32, shape, 2, 0, 6, sizeof data));
  CHECK(result[5] == 5.0f && result[6] == 10.0f);
  REFUSED(all_gather(result, data, UNISONO_DTYPE_F32, shape, 2, 5, 6, sizeof data), "dim");
  REFUSED(all_gather(result, data, UNISONO_DTYPE_F32, shape, 2, 0, 5, 5 * sizeof *data), "shape");
  /* Large sums are whole sums: more than the 32 MiB of one chunk there. */
  size_t many = 10 << 20;
  float *large = malloc(many * sizeof *large);
  CHECK(large != NULL);
  for (size_t i = 0; i < many; i++) {
    large[i] = 1.0f;
  }
  OK(all_reduce_outer_loop(large, UNISONO_DTYPE_F32, many, many * sizeof *large));
  for (size_t i = 0; i < many; i++) {
    CHECK(large[i] == 2.0f);
  }
  free(large);
  OK(unisono_shm_finalize());
  puts("all as it should be");
  return 0;
}
