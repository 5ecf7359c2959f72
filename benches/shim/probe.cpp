// Compiles exactly when Boost.Interprocess is installed; see build.rs.
#include <boost/interprocess/managed_shared_memory.hpp>
