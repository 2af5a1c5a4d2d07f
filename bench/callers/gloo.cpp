/* The caller for Gloo, over TCP on the loopback interface: its transport inside a machine, too. */
#include "caller.h"

#include "tensor.h"

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

static std::shared_ptr<gloo::rendezvous::Context> group;

/* Ranks find one another through files beside the driver's socket. */
static void library_start(void) {
    std::string folder = std::string(setting("BENCH_SOCKET")) + ".files";
    if (mkdir(folder.c_str(), 0700) && errno != EEXIST) die("mkdir");
    gloo::rendezvous::FileStore store(folder);
    gloo::transport::tcp::attr place;
    place.iface = "lo";
    group = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(place);
    group->connectFullMesh(store, device);
}

static const char *library_lacks(const struct work *) { return NULL; }

template <typename T> static void run(const struct work *work) {
    T *output = static_cast<T *>(work->output);
    if (work->operation == ALL_REDUCE) {
        gloo::AllreduceOptions options(group);
        options.setOutput(output, work->count);
        void (*sum)(void *, const void *, const void *, size_t) = &gloo::sum<T>;
        options.setReduceFunction(sum);
        gloo::allreduce(options);
    } else {
        gloo::AllgatherOptions options(group);
        options.setInput(static_cast<T *>(work->input), work->count);
        options.setOutput(output, output_count(work));
        gloo::allgather(options);
    }
}

static void library_run(const struct work *work) {
    if (work->element == F32) run<float>(work);
    else run<c10::BFloat16>(work);
}

static void library_barrier(void) {
    gloo::BarrierOptions options(group);
    gloo::barrier(options);
}

static void library_end(void) { group.reset(); }
