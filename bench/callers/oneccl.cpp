/* The caller for oneCCL on host memory, over Intel MPI, which is its way between processes. */
#include "caller.h"

#include <memory>

#include <mpi.h>
#include <oneapi/ccl.hpp>

static std::unique_ptr<ccl::communicator> group;

static void library_start(void) {
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    ccl::init();
    ccl::kvs::address_type address;
    std::shared_ptr<ccl::kvs> store;
    if (rank == 0) {
        store = ccl::create_main_kvs();
        address = store->get_address();
    }
    MPI_Bcast(address.data(), static_cast<int>(address.size()), MPI_BYTE, 0, MPI_COMM_WORLD);
    if (rank != 0) store = ccl::create_kvs(address);
    group = std::make_unique<ccl::communicator>(ccl::create_communicator(ranks, rank, store));
}

static const char *library_lacks(const struct work *) { return NULL; }

static void library_run(const struct work *work) {
    ccl::datatype type = work->element == F32 ? ccl::datatype::float32 : ccl::datatype::bfloat16;
    if (work->operation == ALL_REDUCE) {
        ccl::allreduce(work->output, work->output, work->count, type, ccl::reduction::sum, *group).wait();
    } else {
        ccl::allgather(work->input, work->output, work->count, type, *group).wait();
    }
}

static void library_barrier(void) { ccl::barrier(*group).wait(); }

static void library_end(void) {
    group.reset();
    MPI_Finalize();
}
