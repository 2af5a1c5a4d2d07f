/* The caller for vLLM's shared-memory collectives on CPUs, built from the file in its source archive. */
#include "caller.h"

#include "tensor.h"

#include "csrc/cpu/shm.cpp"

static int64_t group;

static std::string group_name(void) { return std::string("bench_vllm_") + setting("MASTER_PORT"); }

/* Every rank makes its memory, and joins once all have: a file for each tells. */
static void library_start(void) {
    group = init_shm_manager(group_name(), ranks, rank, 1);
    for (int other = 0; other < ranks; other++) {
        std::string name = SHMManager::get_shm_name(group_name(), other);
        int memory;
        while ((memory = shm_open(name.c_str(), O_RDWR, 0)) < 0 || lseek(memory, 0, SEEK_END) == 0) {
            if (memory >= 0) close(memory);
            usleep(1000);
        }
        close(memory);
    }
    usleep(100000);
    join_shm_manager(group, group_name());
    usleep(100000);
}

static const char *library_lacks(const struct work *) { return NULL; }

static torch::Tensor tensor(void *start, size_t count, enum element element) {
    return torch::Tensor(start, static_cast<int64_t>(count),
                         element == F32 ? c10::ScalarType::Float : c10::ScalarType::BFloat16);
}

static void library_run(const struct work *work) {
    torch::Tensor output = tensor(work->output, output_count(work), work->element);
    if (work->operation == ALL_REDUCE) {
        shm_allreduce(group, output);
    } else {
        shm_all_gather(group, tensor(work->input, work->count, work->element), output);
    }
}

/* An all-reduce of a few elements: every rank waits for every other. */
static void library_barrier(void) {
    float values[64] = {0};
    struct work work = {ALL_REDUCE, F32, 64, values, values};
    library_run(&work);
}

static void library_end(void) { shm_unlink(SHMManager::get_shm_name(group_name(), rank).c_str()); }
