// C interface to Boost.Interprocess' managed_shared_memory. No exception leaves this file.
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/version.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>

namespace ipc = boost::interprocess;

extern "C" {

// The version of the headers, such as "1_74".
const char *am_boost_version() noexcept { return BOOST_LIB_VERSION; }

// Creates the segment `name` of `bytes` bytes; null when the system refuses.
void *am_boost_create(const char *name, std::size_t bytes) noexcept {
    try {
        return new ipc::managed_shared_memory(ipc::create_only, name, bytes);
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Opens the segment `name` of another process; null when there is none.
void *am_boost_open(const char *name) noexcept {
    try {
        return new ipc::managed_shared_memory(ipc::open_only, name);
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Returns what names a block in every process.
std::uint64_t am_boost_handle(void *segment, void *block) noexcept {
    return static_cast<ipc::managed_shared_memory *>(segment)->get_handle_from_address(block);
}

// Returns where the block of that handle lies in this process.
void *am_boost_address(void *segment, std::uint64_t handle) noexcept {
    return static_cast<ipc::managed_shared_memory *>(segment)->get_address_from_handle(
        static_cast<ipc::managed_shared_memory::handle_t>(handle));
}

// Unmaps the segment and leaves its name.
void am_boost_close(void *segment) noexcept {
    delete static_cast<ipc::managed_shared_memory *>(segment);
}

// Returns a block of at least `bytes` bytes, or null when the segment is full.
void *am_boost_allocate(void *segment, std::size_t bytes) noexcept {
    return static_cast<ipc::managed_shared_memory *>(segment)->allocate(bytes, std::nothrow);
}

// Frees a block that am_boost_allocate returned for the same segment.
void am_boost_deallocate(void *segment, void *block) noexcept {
    static_cast<ipc::managed_shared_memory *>(segment)->deallocate(block);
}

// Unmaps the segment and removes its name.
void am_boost_destroy(void *segment, const char *name) noexcept {
    delete static_cast<ipc::managed_shared_memory *>(segment);
    ipc::shared_memory_object::remove(name);
}

} // extern "C"
