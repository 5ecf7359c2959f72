// C interface to DPDK's mempool, whose get and put are inline functions.
#define _GNU_SOURCE
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

// Starts DPDK without hardware, hugepages or files; 0, or an errno. Once per process.
int am_dpdk_start(void) {
    char *arguments[] = {
        "peers", "--no-huge", "--no-pci", "--no-telemetry", "--no-shconf", "-m",
        "64",    "-l",        "0",        "--log-level",    "error",
    };
    // It binds the calling thread to a core, and threads inherit that: undone, so that the threads
    // of this peer run wherever the others' may.
    cpu_set_t before;
    int error = pthread_getaffinity_np(pthread_self(), sizeof before, &before);
    if (error != 0)
        return error;
    if (rte_eal_init(sizeof arguments / sizeof *arguments, arguments) < 0)
        return rte_errno ? rte_errno : -1;
    return pthread_setaffinity_np(pthread_self(), sizeof before, &before);
}

// Gives the calling thread an lcore number, and so a cache; 0 when it has one.
int am_dpdk_register(void) {
    return rte_lcore_id() == LCORE_ID_ANY ? rte_thread_register() : 0;
}

// Creates the pool; null when there is no memory.
void *am_dpdk_create(uint32_t blocks, uint32_t block_bytes, uint32_t cache_blocks) {
    return rte_mempool_create("am", blocks, block_bytes, cache_blocks, 0, NULL, NULL, NULL, NULL,
                              SOCKET_ID_ANY, 0);
}

// Returns a block, or null when the pool is empty.
void *am_dpdk_get(void *pool) {
    void *block;
    return rte_mempool_get(pool, &block) == 0 ? block : NULL;
}

// Gives a block of the same pool back.
void am_dpdk_put(void *pool, void *block) { rte_mempool_put(pool, block); }
