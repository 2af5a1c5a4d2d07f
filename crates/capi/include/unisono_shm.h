/*
 * unisono under the names of SGLang's shared-memory operations for CPUs (sgl-kernel/csrc/cpu/shm.cpp), over pointer, type and shape.
 *
 * There                                                   here
 * void shm_initialize(int size, int rank,                 the same, and it returns a status
 *                     const char* addr, const char* port)
 * void all_reduce_outer_loop(torch::Tensor& data,         data.data_ptr() and its type for `data`;
 *                     size_t numel, int data_size)        data_size is a size_t: 2 GiB and more are reduced, too
 * torch::Tensor& all_gather(torch::Tensor& result,        result.data_ptr() for `result`; data.data_ptr(), its type and its
 *                     torch::Tensor& data, int dim,       sizes for `data`; both contiguous
 *                     size_t numel, int data_size)
 *
 * From C++ with tensors, for example:
 *     int status = all_reduce_outer_loop(data.data_ptr(), UNISONO_DTYPE_BF16, data.numel(), data.numel() * data.element_size());
 *
 * Each returns UNISONO_STATUS_OK, which is 0, or what went wrong: see unisono_last_error(). One group per process, as there; any
 * type, any size, none included, any mix of calls. Whoever wants more than one group, or a time-out, uses unisono.h.
 */
#ifndef UNISONO_SHM_H
#define UNISONO_SHM_H

#include "unisono.h"

/* Meet the other ranks: `size` of them, of which this is `rank`, at an address and a port on which they agree. */
static inline unisono_status shm_initialize(int size, int rank, const char *addr_string, const char *port_string) {
  return unisono_shm_initialize(size, rank, addr_string, port_string);
}

/* All ranks' data becomes their sum, in place: numel elements, which are data_size bytes. */
static inline unisono_status all_reduce_outer_loop(void *data, unisono_dtype dtype, size_t numel, size_t data_size) {
  return unisono_shm_all_reduce_outer_loop(data, dtype, numel, data_size);
}

/* result becomes all ranks' data, one after the other along dimension dim of its shape; negative ones count from the last. */
static inline unisono_status all_gather(void *result, const void *data, unisono_dtype dtype, const size_t *shape,
                                        size_t dimensions, int dim, size_t numel, size_t data_size) {
  return unisono_shm_all_gather(result, data, dtype, shape, dimensions, dim, numel, data_size);
}

#endif /* UNISONO_SHM_H */
