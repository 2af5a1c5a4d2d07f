/* The caller for any MPI: Intel MPI, MPICH and OpenMPI differ in the headers and the library that it is built with. */
#include "caller.h"

#include <mpi.h>

/* Intel MPI and MPICH offer the type under these names; without one bf16 cannot be reduced. */
#if defined(MPIX_BFLOAT16)
#define BFLOAT16 MPIX_BFLOAT16
#elif defined(MPIX_C_BF16)
#define BFLOAT16 MPIX_C_BF16
#endif

static MPI_Datatype type_of(enum element element) {
#ifdef BFLOAT16
    if (element == BF16) return BFLOAT16;
#endif
    return element == F32 ? MPI_FLOAT : MPI_UINT16_T;
}

static void library_start(void) {
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
}

static const char *library_lacks(const struct work *work) {
#ifndef BFLOAT16
    if (work->operation == ALL_REDUCE && work->element == BF16) return "a type for bf16";
#endif
    (void)work;
    return NULL;
}

static void library_run(const struct work *work) {
    MPI_Datatype type = type_of(work->element);
    int count = (int)work->count;
    if (work->operation == ALL_REDUCE) {
        MPI_Allreduce(MPI_IN_PLACE, work->output, count, type, MPI_SUM, MPI_COMM_WORLD);
    } else {
        MPI_Allgather(work->input, count, type, work->output, count, type, MPI_COMM_WORLD);
    }
}

static void library_barrier(void) { MPI_Barrier(MPI_COMM_WORLD); }
static void library_end(void) { MPI_Finalize(); }
