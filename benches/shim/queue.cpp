// C interface to Boost.Interprocess' message_queue. No exception leaves this file.
#include <boost/interprocess/ipc/message_queue.hpp>

#include <cstddef>
#include <exception>

namespace ipc = boost::interprocess;

extern "C" {

// Creates the queue `name` for so many messages of at most `bytes` bytes; null when the system refuses.
void *am_queue_create(const char *name, std::size_t messages, std::size_t bytes) noexcept {
    try {
        return new ipc::message_queue(ipc::create_only, name, messages, bytes);
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Opens the queue `name` of another process; null when there is none.
void *am_queue_open(const char *name) noexcept {
    try {
        return new ipc::message_queue(ipc::open_only, name);
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Copies a message in: 1 when it is in, 0 when there is no room, -1 on an error.
int am_queue_send(void *queue, const unsigned char *message, std::size_t bytes) noexcept {
    try {
        return static_cast<ipc::message_queue *>(queue)->try_send(message, bytes, 0) ? 1 : 0;
    } catch (const std::exception &) {
        return -1;
    }
}

// Copies the oldest message out: its length, -1 when there is none, -2 on an error.
std::ptrdiff_t am_queue_receive(void *queue, unsigned char *message, std::size_t bytes) noexcept {
    try {
        ipc::message_queue::size_type len = 0;
        unsigned priority = 0;
        bool there = static_cast<ipc::message_queue *>(queue)->try_receive(message, bytes, len, priority);
        return there ? static_cast<std::ptrdiff_t>(len) : -1;
    } catch (const std::exception &) {
        return -2;
    }
}

// Unmaps the queue and leaves its name.
void am_queue_close(void *queue) noexcept { delete static_cast<ipc::message_queue *>(queue); }

// Removes the name.
void am_queue_remove(const char *name) noexcept { ipc::message_queue::remove(name); }

} // extern "C"
