/*
 * The caller for DeepSpeed's shared-memory all-reduce, from which SGLang's is derived (the same buffers, states and
 * thresholds). Built from the file in DeepSpeed's source archive, with the flags of its builder; without OpenMP, which
 * makes small messages slower and is of no use to a rank that has one core.
 */
#include "caller.h"

#include "tensor.h"

#include "csrc/cpu/comm/shm.cpp"

static void library_start(void) {
    shm_initialize(ranks, rank, const_cast<char *>(setting("MASTER_ADDR")), const_cast<char *>(setting("MASTER_PORT")));
}

static const char *library_lacks(const struct work *work) {
    return work->operation == ALL_REDUCE ? NULL : "an all-gather";
}

static void library_run(const struct work *work) {
    torch::Tensor data(work->output, static_cast<int64_t>(work->count),
                       work->element == F32 ? c10::ScalarType::Float : c10::ScalarType::BFloat16);
    all_reduce_outer_loop(data, work->count, static_cast<int>(work->count * element_bytes(work->element)));
}

/* An all-reduce of one element: every rank waits for every other. */
static void library_barrier(void) {
    float value = 0;
    struct work work = {ALL_REDUCE, F32, 1, &value, &value};
    library_run(&work);
}

/* Its memory outlives it otherwise. */
static void library_end(void) {
    char name[NAME_BUF_SIZE];
    snprintf(name, sizeof name, "%s_%d_%s_%s_%d", SHM_BUFFER_NAME, getuid(), setting("MASTER_ADDR"),
             setting("MASTER_PORT"), rank);
    shm_unlink(name);
}
